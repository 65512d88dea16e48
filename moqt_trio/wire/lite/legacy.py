"""moq-lite-01 and -02: the bodies that only they have, and their tables.

They have broadcasts, subscriptions and groups, and nothing else: no ranges, no fetch, no hops. They are negotiated by
a handshake (`wire/handshake.py`), whose stream stays open. `wire/tables.py` frames the bodies. In the layouts `i` is a
varint, `u8` a byte and `s` text with its length in front.

Spec: draft-lcurley-moq-lite-01 and -02.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...codes import StreamCode
from ...errors import LimitExceeded, LocalProtocolError
from ..dialect import Features, Quirks, register
from ..handshake import HandshakeForm, read_session_update, write_session_update
from ..messages import (
    AnnounceEnd,
    AnnounceInit,
    AnnounceRequest,
    AnnounceStart,
    Expect,
    Group,
    SessionUpdate,
    StreamKind,
    Subscribe,
    SubscribeOk,
    SubscribeUpdate,
)
from ..tables import Reads, TableDialect, Writes
from . import announce as announce
from . import subscribe as subscribe

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, Writer


def _read_init(reader: Reader, limits: Limits) -> AnnounceInit:
    """Read `i count, s suffix × count`."""
    count = reader.count("max_announce_init", limits.max_announce_init)
    if count > limits.max_announcements:
        raise LimitExceeded("max_announcements", count, code=StreamCode.NO_CAPACITY, scope="stream")
    return AnnounceInit(tuple(reader.path(limits) for _ in range(count)))


def _write_init(writer: Writer, message: AnnounceInit) -> None:
    """Write `i count, s suffix × count`."""
    writer.varint(len(message.suffixes))
    for suffix in message.suffixes:
        writer.text(suffix)


def _read_announce(reader: Reader, limits: Limits) -> AnnounceStart | AnnounceEnd:
    """Read `u8 status, s suffix`."""
    status = announce.read_status(reader)
    suffix = reader.path(limits)
    return AnnounceStart(suffix) if status else AnnounceEnd(suffix=suffix)


def _read_subscribe(reader: Reader, limits: Limits) -> Subscribe:
    """Read `i id, s broadcast, s track, u8 priority`."""
    subscribe_id, (broadcast, track) = reader.varint(), subscribe.read_names(reader, limits)
    return Subscribe(subscribe_id, broadcast, track, reader.u8())


def _write_subscribe(writer: Writer, message: Subscribe) -> None:
    """Write `i id, s broadcast, s track, u8 priority`; a preference for order or age is left out."""
    writer.varint(message.subscribe_id)
    subscribe.write_names(writer, message.broadcast, message.track)
    _write_subscribe_update(writer, message)


def _read_subscribe_update(reader: Reader, limits: Limits) -> SubscribeUpdate:
    """Read `u8 priority`."""
    return SubscribeUpdate(reader.u8())


def _write_subscribe_update(writer: Writer, message: Subscribe | SubscribeUpdate) -> None:
    """Write `u8 priority`; a preference for order or age is left out."""
    ends = (message.start_group, message.end_group, message.end_frame)
    if message.start_frame or any(end is not None for end in ends):
        raise LocalProtocolError("this version can't subscribe to a range")
    writer.u8(message.priority)


def _read_ok_with_priority(reader: Reader, limits: Limits) -> SubscribeOk:
    """Read `u8 priority` (-01)."""
    return SubscribeOk(priority=reader.u8())


def _write_ok_with_priority(writer: Writer, message: SubscribeOk) -> None:
    """Write `u8 priority` (-01)."""
    writer.u8(message.priority)


def _read_empty_ok(reader: Reader, limits: Limits) -> SubscribeOk:
    """Read nothing (-02)."""
    return SubscribeOk()


def _write_empty_ok(writer: Writer, message: SubscribeOk) -> None:
    """Write nothing (-02)."""


_BIDIRECTIONAL = {0: StreamKind.SESSION, 1: StreamKind.ANNOUNCE, 2: StreamKind.SUBSCRIBE}
_UNIDIRECTIONAL = {0: StreamKind.GROUP}
_HANDSHAKES = (HandshakeForm.COMPAT, HandshakeForm.PREFIXED, HandshakeForm.TYPED)

_FEATURES = Features(setup="compat", announce_first="init", unknown_stream_closes=True)

_READS_02: Reads = {
    Expect.SESSION_UPDATE: read_session_update,
    Expect.ANNOUNCE_REQUEST: announce.read_request,
    Expect.ANNOUNCE_FIRST_REPLY: _read_init,
    Expect.ANNOUNCE_REPLY: _read_announce,
    Expect.SUBSCRIBE: _read_subscribe,
    Expect.SUBSCRIBE_UPDATE: _read_subscribe_update,
    Expect.SUBSCRIBE_FIRST_REPLY: _read_empty_ok,
    Expect.GROUP: subscribe.read_group,
}

_WRITES_02: Writes = {
    SessionUpdate: write_session_update,
    AnnounceRequest: announce.write_request,
    AnnounceInit: _write_init,
    AnnounceStart: announce.write_status,
    AnnounceEnd: announce.write_status,
    Subscribe: _write_subscribe,
    SubscribeUpdate: _write_subscribe_update,
    SubscribeOk: _write_empty_ok,
    Group: subscribe.write_group,
}

# moq-rs and moq-relay have no SUBSCRIBE_UPDATE in these versions.
_QUIRKS = Quirks(refuses_updates=True)

MOQ_LITE_02 = register(
    TableDialect(
        "moq-lite-02",
        features=_FEATURES,
        bidirectional=_BIDIRECTIONAL,
        unidirectional=_UNIDIRECTIONAL,
        reads=_READS_02,
        writes=_WRITES_02,
        alpns=("moql",),
        webtransport_protocols=("moql",),
        handshakes=_HANDSHAKES,
        quirks=_QUIRKS,
        number=0xFF0DAD02,
    )
)
MOQ_LITE_01 = register(
    TableDialect(
        "moq-lite-01",
        features=_FEATURES,
        bidirectional=_BIDIRECTIONAL,
        unidirectional=_UNIDIRECTIONAL,
        reads={**_READS_02, Expect.SUBSCRIBE_FIRST_REPLY: _read_ok_with_priority},
        writes={**_WRITES_02, SubscribeOk: _write_ok_with_priority},
        alpns=("moql", "moql-01"),
        webtransport_protocols=("moql",),
        handshakes=_HANDSHAKES,
        quirks=_QUIRKS,
        number=0xFF0DAD01,
    )
)
