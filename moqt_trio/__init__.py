"""Media over QUIC for Trio: live publish/subscribe over raw QUIC and WebTransport.

Five calls carry an application:

    async with moqt_trio.connect(url) as session:               a client: one session for as long as the block lasts
    await nursery.start(moqt_trio.serve, handler, host, port)   a server: a handler for each session
    async with session.publish(path, broadcast):                announce a Broadcast of Tracks
    async with session.announcements(prefix) as announcements:  iterate over what the peer announces
    async with session.subscribe(path, track) as subscription:  iterate over the groups of a track as they arrive

`stay_connected` is `connect` for a client that follows a GOAWAY and reconnects. Every public name is here, for
tests in `moqt_trio.testing`, and for servers that decide who may do what in `moqt_trio.auth`; all other modules are
private.

A name is imported when it is first used: a client loads no web server, and a program that needs neither loads no QUIC.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import FunctionType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .access import Grant
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
        WorkerFailed,
    )
    from .frame import Frame
    from .http.asyncio_app import asyncio_app
    from .limits import Limits
    from .model.broadcast import Broadcast
    from .model.group import GroupWriter
    from .model.track import Track
    from .model.track_requests import TrackRequest, TrackRequests
    from .path import BroadcastPath
    from .relay.origin import Origin, OriginPublication
    from .relay.statistics import OriginRoute, OriginSession, OriginStatistics
    from .server.identity import CertificateSource
    from .server.routing import Router, SessionHandler, SessionRequest
    from .server.serve import Listener, ListenerStatistics, serve
    from .server.worker import Worker
    from .session.publisher.publish import Publication
    from .session.session import Session
    from .session.statistics import SessionStatistics, SubscriptionStatistics
    from .session.subscriber.announce import Announcement, Announcements
    from .session.subscriber.fetch import FetchReader
    from .session.subscriber.forward import forward
    from .session.subscriber.group import GroupReader
    from .session.subscriber.group_queue import DroppedGroups
    from .session.subscriber.probe import Probe, ProbeReport
    from .session.subscriber.reply_stream import RangeReader
    from .session.subscriber.subscribe import Subscription
    from .session.subscriber.track import TrackProperties, TrackStatus
    from .session.subscriber.tracks import OfferedTrack, OfferedTracks
    from .session.view import OriginView
    from .transport.connection import TransportStatistics
    from .wire.dialect import version_names
    from .wire.messages import Token
    from .workers.links import link_workers
    from .workers.supervisor import run_workers
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
    "Grant",
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
    "OfferedTrack",
    "OfferedTracks",
    "Origin",
    "OriginPublication",
    "OriginRoute",
    "OriginSession",
    "OriginStatistics",
    "OriginView",
    "Probe",
    "ProbeReport",
    "ProtocolError",
    "Publication",
    "RangeReader",
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
    "Token",
    "Track",
    "TrackProperties",
    "TrackRequest",
    "TrackRequests",
    "TrackStatus",
    "TransportStatistics",
    "Unauthorized",
    "VersionUnsupported",
    "Worker",
    "WorkerFailed",
    "allow_same_authority",
    "asyncio_app",
    "connect",
    "development_certificate",
    "forward",
    "link_workers",
    "parse_fingerprint",
    "run_workers",
    "serve",
    "stay_connected",
    "version_names",
]

_HOMES = {
    "access": "Grant",
    "certificates": "Certificate CertificateFiles DevelopmentCertificates development_certificate parse_fingerprint",
    "client.backoff": "Backoff",
    "client.connect": "connect",
    "client.reconnect": "stay_connected",
    "client.redirect": "Redirect allow_same_authority",
    "codes": "SessionCode StreamCode",
    "errors": (
        "CertificateInvalid CertificateUnusable ConnectError ConnectTimeout GoingAway HandshakeFailed "
        "LimitExceeded LocalProtocolError Malformed MoqtError NotFound ProtocolError RedirectRefused Rejected "
        "RemoteProtocolError SessionClosed StreamReset Unauthorized VersionUnsupported WorkerFailed"
    ),
    "frame": "Frame",
    "http.asyncio_app": "asyncio_app",
    "limits": "Limits",
    "model.broadcast": "Broadcast",
    "model.group": "GroupWriter",
    "model.track": "Track",
    "model.track_requests": "TrackRequest TrackRequests",
    "path": "BroadcastPath",
    "relay.origin": "Origin OriginPublication",
    "relay.statistics": "OriginRoute OriginSession OriginStatistics",
    "server.identity": "CertificateSource",
    "server.routing": "Router SessionHandler SessionRequest",
    "server.serve": "Listener ListenerStatistics serve",
    "server.worker": "Worker",
    "session.publisher.publish": "Publication",
    "session.session": "Session",
    "session.statistics": "SessionStatistics SubscriptionStatistics",
    "session.subscriber.announce": "Announcement Announcements",
    "session.subscriber.fetch": "FetchReader",
    "session.subscriber.forward": "forward",
    "session.subscriber.group": "GroupReader",
    "session.subscriber.group_queue": "DroppedGroups",
    "session.subscriber.probe": "Probe ProbeReport",
    "session.subscriber.reply_stream": "RangeReader",
    "session.subscriber.subscribe": "Subscription",
    "session.subscriber.track": "TrackProperties TrackStatus",
    "session.subscriber.tracks": "OfferedTrack OfferedTracks",
    "session.view": "OriginView",
    "transport.connection": "TransportStatistics",
    "wire.dialect": "version_names",
    "wire.messages": "Token",
    "workers.links": "link_workers",
    "workers.supervisor": "run_workers",
}
"""The module below this package where each name is defined; the imports above, as they are carried out."""

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def _publish() -> None:
    """Copy every public name whose module is loaded into this module, and set its `__module__` to this one.

    So a traceback, `help()` and a pickle name an object as the application imports it.
    """
    for home, names in _HOMES.items():
        module = sys.modules.get(f"{__name__}.{home}")
        for name in names.split():
            # A module that is being imported, by another thread say, does not have all of its names yet.
            if name in globals() or not hasattr(module, name):
                continue
            value = getattr(module, name)
            if isinstance(value, type | FunctionType):
                value.__module__ = __name__
            globals()[name] = value


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import_module(f"{__name__}.{_HOME_OF[name]}")
        _publish()
        return globals()[name]


def __dir__() -> list[str]:
    return __all__
