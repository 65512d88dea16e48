"""Media over QUIC for Trio: live publish/subscribe over raw QUIC and WebTransport.

Connect with `connect` or `stay_connected`, listen with `serve`; publish a `Broadcast` of `Track`s with
`Session.publish`, discover what the peer offers with `Session.announcements`, and read it with `Session.subscribe`.
Every public name is here.
"""

from __future__ import annotations

from .certificates import (
    Certificate,
    CertificateFiles,
    DevelopmentCertificates,
    development_certificate,
    parse_fingerprint,
)
from .client.backoff import Backoff
from .client.connect import connect
from .client.reconnect import stay_connected
from .client.redirect import Redirect, allow_same_authority
from .codes import SessionCode, StreamCode
from .errors import (
    CertificateInvalid,
    CertificateUnusable,
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
    StreamReset,
    Unauthorized,
    VersionUnsupported,
)
from .frame import Frame
from .http.asyncio_app import asyncio_app
from .limits import Limits
from .model.broadcast import Broadcast
from .model.group import GroupWriter
from .model.track import Track
from .path import BroadcastPath
from .server.identity import CertificateSource
from .server.routing import Router, SessionHandler, SessionRequest
from .server.serve import Listener, ListenerStatistics, serve
from .session.publisher.publish import Publication
from .session.session import Session, SessionStatistics
from .session.subscriber.announce import Announcement, Announcements
from .session.subscriber.fetch import FetchReader
from .session.subscriber.group import GroupReader
from .session.subscriber.group_queue import DroppedGroups, SubscriptionStatistics
from .session.subscriber.probe import Probe, ProbeReport
from .session.subscriber.subscribe import Subscription
from .session.subscriber.track import TrackProperties
from .transport.abc import TransportStatistics
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
    "Publication",
    "Redirect",
    "RedirectRefused",
    "Rejected",
    "RemoteProtocolError",
    "Router",
    "Session",
    "SessionClosed",
    "SessionCode",
    "SessionHandler",
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
    "allow_same_authority",
    "asyncio_app",
    "connect",
    "development_certificate",
    "parse_fingerprint",
    "serve",
    "stay_connected",
    "version_names",
]
