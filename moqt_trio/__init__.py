"""Media over QUIC for Trio: live publish/subscribe over raw QUIC and WebTransport.

Connect with `connect` or `stay_connected`, listen with `serve`; publish a `Broadcast` of `Track`s with
`Session.publish`, discover what the peer offers with `Session.announcements`, and read it with `Session.subscribe`.
Every public name is here.
"""

from __future__ import annotations

from .announcements import Announcement, Announcements
from .asyncio_bridge import asyncio_app
from .backoff import Backoff
from .certificates import (
    Certificate,
    CertificateFiles,
    DevelopmentCertificates,
    development_certificate,
    parse_fingerprint,
)
from .client import connect
from .codes import SessionCode, StreamCode
from .errors import (
    CertificateInvalid,
    ConnectError,
    ConnectTimeout,
    GoingAway,
    HandshakeFailed,
    LimitExceeded,
    LocalProtocolError,
    Malformed,
    MoqtError,
    NotFound,
    ProtocolError,
    RedirectRefused,
    Rejected,
    RemoteProtocolError,
    SessionClosed,
    Unauthorized,
    VersionUnsupported,
)
from .fetch import FetchReader
from .group_intake import DroppedGroups, SubscriptionStatistics
from .group_reader import GroupReader
from .identity import CertificateSource
from .limits import Limits
from .model.broadcast import Broadcast
from .model.frame import Frame
from .model.group import GroupWriter
from .model.track import Track
from .path import BroadcastPath
from .pem import CertificateUnusable
from .probing import Probe, ProbeReport
from .published import Published
from .reconnecting import stay_connected
from .redirection import Redirect, same_authority
from .routing import Handler, Router, SessionRequest
from .server import Listener, ListenerStatistics, serve
from .session_api import Session, SessionStatistics
from .subscriber import Subscription
from .track_info import TrackProperties
from .transport.abc import TransportStatistics
from .transport.errors import StreamReset
from .wire.dialect import names as version_names

__version__ = "0.1.0"

__all__ = [
    "Announcement",
    "Announcements",
    "Backoff",
    "Broadcast",
    "BroadcastPath",
    "Certificate",
    "CertificateFiles",
    "CertificateInvalid",
    "CertificateSource",
    "CertificateUnusable",
    "ConnectError",
    "ConnectTimeout",
    "DevelopmentCertificates",
    "DroppedGroups",
    "FetchReader",
    "Frame",
    "GoingAway",
    "GroupReader",
    "GroupWriter",
    "Handler",
    "HandshakeFailed",
    "LimitExceeded",
    "Limits",
    "Listener",
    "ListenerStatistics",
    "LocalProtocolError",
    "Malformed",
    "MoqtError",
    "NotFound",
    "Probe",
    "ProbeReport",
    "ProtocolError",
    "Published",
    "Redirect",
    "RedirectRefused",
    "Rejected",
    "RemoteProtocolError",
    "Router",
    "Session",
    "SessionClosed",
    "SessionCode",
    "SessionRequest",
    "SessionStatistics",
    "StreamCode",
    "StreamReset",
    "Subscription",
    "SubscriptionStatistics",
    "Track",
    "TrackProperties",
    "TransportStatistics",
    "Unauthorized",
    "VersionUnsupported",
    "asyncio_app",
    "connect",
    "development_certificate",
    "parse_fingerprint",
    "same_authority",
    "serve",
    "stay_connected",
    "version_names",
]
