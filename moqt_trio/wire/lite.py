"""The moq-lite family: which layout each version uses for each message, and what its streams are called.

A version is a table. What a message's bytes are is in `lite_announce.py`, `lite_subscribe.py`, `lite_session.py`
and `frames.py`; this file frames those bodies, and knows nothing of sessions.

    message { [Type (varint)], Length (varint), Body (..) }

The type is there where a place in a stream has more than one possible message, except that moq-lite-03 to -05 tell
the start of an announcement from its end by a status in the body.

A field that a version lacks is left out when it is a preference, a cost or a hint (`ordered`, costs, a round trip).
It is a `LocalProtocolError` when leaving it out would ask for something else (ranges of frames, a hop to exclude).

Spec: draft-lcurley-moq-lite-03 to -06.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from ..codes import SessionCode, StreamCode
from ..errors import LimitExceeded, LocalProtocolError, Malformed, Scope
from . import frames as framing
from . import lite_announce as announce
from . import lite_session as session
from . import lite_subscribe as subscribe
from . import varint
from .cursor import Reader, StreamBuffer, Writer
from .dialect import Dialect, Features, register
from .messages import (
    AnnounceEnd,
    AnnounceOk,
    AnnounceRequest,
    AnnounceStart,
    AnnounceUpdate,
    Datagram,
    Expect,
    Fetch,
    FrameLike,
    Goaway,
    Group,
    Message,
    Probe,
    Setup,
    StreamKind,
    Subscribe,
    SubscribeDrop,
    SubscribeEnd,
    SubscribeOk,
    SubscribeUpdate,
    TrackInfo,
    TrackRequest,
)

if TYPE_CHECKING:
    from ..limits import Limits

_Read: TypeAlias = "Callable[[Reader, Limits], Message]"
_Write: TypeAlias = Callable[[Writer, Any], None]
_Reads: TypeAlias = "Mapping[Expect, _Read | Mapping[int, _Read]]"
_Writes: TypeAlias = Mapping[type[Message], _Write | tuple[int, _Write]]

# What an error in a message breaks, and the code for it. Looking members of an enum up costs as much as a small read.
_BREAKS_SESSION: Final[tuple[Scope, int]] = ("session", SessionCode.PROTOCOL_VIOLATION)
_BREAKS_STREAM: Final[tuple[Scope, int]] = ("stream", StreamCode.MALFORMED_TRACK)
_GROUP: Final = Expect.GROUP


class LiteDialect(Dialect):
    """One version of moq-lite, made from its tables."""

    def __init__(
        self,
        name: str,
        *,
        features: Features,
        bidirectional: Mapping[int, StreamKind],
        unidirectional: Mapping[int, StreamKind],
        reads: _Reads,
        writes: _Writes,
    ) -> None:
        """Makes a version.

        Args:
            name: The name, which stands for the version in ALPN and in WebTransport too.
            features: What it can do.
            bidirectional: What the types of bidirectional streams stand for.
            unidirectional: What the types of unidirectional streams stand for.
            reads: How to read the body of each expected message; by type, where a type is written before the length.
            writes: How to write the body of each message, and the type before the length where there is one.
        """
        self.name = name
        self.alpns = (name,)
        self.webtransport_protocols = (name,)
        self.features = features
        self._bidirectional = bidirectional
        self._unidirectional = unidirectional
        types = [*bidirectional.items(), *unidirectional.items()]
        self._openings = {kind: varint.encode(number) for number, kind in types}
        self._reads = reads
        self._writes = writes

    def stream_type(self, kind: StreamKind) -> bytes:
        try:
            return self._openings[kind]
        except KeyError:
            raise LocalProtocolError(f"{self.name} has no {kind.value} streams") from None

    def stream_kind_untrusted(self, number: int, *, bidirectional: bool) -> StreamKind | None:
        return (self._bidirectional if bidirectional else self._unidirectional).get(number)

    def encode(self, message: Message) -> bytes:
        entry = self._writes.get(type(message))
        if entry is None:
            raise LocalProtocolError(f"{self.name} has no {type(message).__name__} message")
        number, write = entry if isinstance(entry, tuple) else (None, entry)
        writer = Writer()
        write(writer, message)
        return writer.framed(number)

    def read_untrusted(self, expect: Expect, buffer: StreamBuffer, limits: Limits) -> Message | None:
        """Takes the next message out of a buffer, or returns None; see `Dialect.read_untrusted`.

        An error in a GROUP header, a message of unknown type and a range that makes no sense break the stream; any
        other error breaks the session.

        Raises:
            LocalProtocolError: The version has no such place.
        """
        read = self._reads.get(expect)
        if read is None:
            raise LocalProtocolError(f"{self.name} has no {expect.value} message")
        scope, code = _BREAKS_STREAM if expect is _GROUP else _BREAKS_SESSION
        offset = 0
        if isinstance(read, Mapping):
            found = buffer.peek_varint()
            if found is None:
                return None
            number, offset = found
            chosen = read.get(number)
            if chosen is None:
                problem = f"{expect.value}: unknown message type {number:#x}"
                raise Malformed(problem, code=StreamCode.INTERNAL_ERROR, scope="stream")
            read = chosen
        found = buffer.peek_varint(offset)
        if found is None:
            return None
        size, offset = found
        if size > limits.max_message:
            raise LimitExceeded("max_message", size, code=code, scope=scope)
        if len(buffer) < offset + size:
            return None
        buffer.skip(offset)
        reader = Reader(buffer.take(size), expect.value, scope, code)
        message = read(reader, limits)
        reader.expect_end()
        return message

    def encode_frame(self, payload: bytes, timestamp: int | None, previous_timestamp: int) -> bytes:
        if self.features.timestamps:
            return framing.encode_timed_frame(payload, timestamp, previous_timestamp)
        return framing.encode_frame(payload)

    def encode_frames(self, frames: Sequence[FrameLike], previous_timestamp: int) -> tuple[bytes, int]:
        if self.features.timestamps:
            return framing.encode_timed_frames(frames, previous_timestamp)
        return framing.encode_frames(frames), previous_timestamp

    def frame_decoder(self, limits: Limits) -> framing.StreamFrameDecoder:
        return framing.StreamFrameDecoder(limits.max_frame, timed=self.features.timestamps)

    def encode_datagram(self, datagram: Datagram) -> bytes:
        """Returns `i subscribe_id, i sequence, i timestamp, payload` (-05, -06)."""
        if not self.features.datagrams:
            raise LocalProtocolError(f"{self.name} has no datagrams")
        writer = Writer()
        writer.varint(datagram.subscribe_id)
        writer.varint(datagram.sequence)
        writer.varint(datagram.timestamp)
        writer.raw(datagram.payload)
        return writer.getvalue()

    def read_datagram_untrusted(self, data: bytes) -> Datagram:
        """Reads `i subscribe_id, i sequence, i timestamp, payload` (-05, -06).

        Raises:
            Malformed: The bytes are no datagram, or the version has none; scope `"stream"`: only the datagram is lost.
        """
        reader = Reader(data, "DATAGRAM", *_BREAKS_STREAM)
        if not self.features.datagrams:
            raise reader.malformed(f"{self.name} has none")
        return Datagram(reader.varint(), reader.varint(), reader.varint(), reader.rest())


# -- moq-lite-03 ----------------------------------------------------------------------------------------------

_BIDIRECTIONAL_03 = {1: StreamKind.ANNOUNCE, 2: StreamKind.SUBSCRIBE, 3: StreamKind.FETCH, 4: StreamKind.PROBE}
_UNIDIRECTIONAL_03 = {0: StreamKind.GROUP}

_FEATURES_03 = Features(
    setup="none",
    path_in_handshake=False,
    announce_ids=False,
    announce_first="none",
    sender_hop="count",
    exclude_hop=False,
    subscribe_end=False,
    subscribe_drop=True,
    subscribe_ok_needs_group=False,
    frame_ranges=False,
    timestamps=False,
    track_info=False,
    fetch=True,
    probe="bitrate",
    goaway=False,
    datagrams=False,
    unknown_stream_closes=False,
)

_READS_03: _Reads = {
    Expect.ANNOUNCE_REQUEST: announce.read_request,
    Expect.ANNOUNCE_REPLY: announce.read_counted,
    Expect.SUBSCRIBE: subscribe.read_subscribe,
    Expect.SUBSCRIBE_UPDATE: subscribe.read_subscribe_update,
    Expect.SUBSCRIBE_REPLY: {0: subscribe.read_ok, 1: subscribe.read_drop},
    Expect.GROUP: subscribe.read_group,
    Expect.FETCH: subscribe.read_fetch,
    Expect.PROBE: session.read_probe_bitrate,
}

_WRITES_03: _Writes = {
    AnnounceRequest: announce.write_request,
    AnnounceStart: announce.write_counted,
    AnnounceEnd: announce.write_counted,
    Subscribe: subscribe.write_subscribe,
    SubscribeUpdate: subscribe.write_subscribe_update,
    SubscribeOk: (0, subscribe.write_ok),
    SubscribeDrop: (1, subscribe.write_drop),
    Group: subscribe.write_group,
    Fetch: subscribe.write_fetch,
    Probe: session.write_probe_bitrate,
}

# -- moq-lite-04: hop ids, round trips in PROBE, GOAWAY ----------------------------------------------------------

_BIDIRECTIONAL_04 = {**_BIDIRECTIONAL_03, 5: StreamKind.GOAWAY}

_FEATURES_04 = attrs.evolve(_FEATURES_03, sender_hop="sender", exclude_hop=True, probe="rtt", goaway=True)

_READS_04: _Reads = {
    **_READS_03,
    Expect.ANNOUNCE_REQUEST: announce.read_request_with_hop,
    Expect.ANNOUNCE_REPLY: announce.read_listed,
    Expect.PROBE: session.read_probe,
    Expect.GOAWAY: session.read_goaway,
}

_WRITES_04: _Writes = {
    **_WRITES_03,
    AnnounceRequest: announce.write_request_with_hop,
    AnnounceStart: announce.write_listed,
    AnnounceEnd: announce.write_listed,
    Probe: session.write_probe,
    Goaway: session.write_goaway,
}

# -- moq-lite-05: SETUP, ANNOUNCE_OK, TRACK, timestamps, datagrams, the end of a subscription --------------------

_BIDIRECTIONAL_05 = {**_BIDIRECTIONAL_04, 6: StreamKind.TRACK}
_UNIDIRECTIONAL_05 = {**_UNIDIRECTIONAL_03, 1: StreamKind.SETUP}

_FEATURES_05 = attrs.evolve(
    _FEATURES_04,
    setup="uni",
    path_in_handshake=True,
    announce_first="ok",
    sender_hop="ok",
    subscribe_end=True,
    subscribe_ok_needs_group=True,
    timestamps=True,
    track_info=True,
    datagrams=True,
)

_READS_05: _Reads = {
    **_READS_04,
    Expect.SETUP: session.read_setup,
    Expect.ANNOUNCE_FIRST_REPLY: announce.read_ok,
    Expect.ANNOUNCE_REPLY: announce.read_listed_or_restarted,
    Expect.SUBSCRIBE_REPLY: {0: subscribe.read_first_group, 1: subscribe.read_end, 2: subscribe.read_drop},
    Expect.TRACK_REQUEST: subscribe.read_track,
    Expect.TRACK_INFO: subscribe.read_ordered_track_info,
}

_WRITES_05: _Writes = {
    **_WRITES_04,
    Setup: session.write_setup,
    AnnounceOk: announce.write_ok,
    SubscribeOk: (0, subscribe.write_first_group),
    SubscribeEnd: (1, subscribe.write_end),
    SubscribeDrop: (2, subscribe.write_drop),
    TrackRequest: subscribe.write_track,
    TrackInfo: subscribe.write_ordered_track_info,
}

# -- moq-lite-06: announcements by id, costs, ranges of frames ----------------------------------------------------

_FEATURES_06 = attrs.evolve(_FEATURES_05, announce_ids=True, exclude_hop=False, frame_ranges=True)

_READS_06: _Reads = {
    **_READS_05,
    Expect.ANNOUNCE_REQUEST: announce.read_request,
    Expect.ANNOUNCE_REPLY: {0: announce.read_start, 1: announce.read_end, 2: announce.read_update},
    Expect.SUBSCRIBE: subscribe.read_subscribe_frames,
    Expect.SUBSCRIBE_UPDATE: subscribe.read_subscribe_frames_update,
    Expect.GROUP: subscribe.read_group_from_frame,
    Expect.FETCH: subscribe.read_fetch_frames,
    Expect.TRACK_INFO: subscribe.read_track_info,
}

_WRITES_06: _Writes = {
    **_WRITES_05,
    AnnounceRequest: announce.write_request,
    AnnounceStart: (0, announce.write_start),
    AnnounceEnd: (1, announce.write_end),
    AnnounceUpdate: (2, announce.write_update),
    Subscribe: subscribe.write_subscribe_frames,
    SubscribeUpdate: subscribe.write_subscribe_frames_update,
    Group: subscribe.write_group_from_frame,
    Fetch: subscribe.write_fetch_frames,
    TrackInfo: subscribe.write_track_info,
}

# Registered newest first: this is the order in which a client offers them.

MOQ_LITE_06 = register(
    LiteDialect(
        "moq-lite-06",
        features=_FEATURES_06,
        bidirectional=_BIDIRECTIONAL_05,
        unidirectional=_UNIDIRECTIONAL_05,
        reads=_READS_06,
        writes=_WRITES_06,
    )
)
MOQ_LITE_05 = register(
    LiteDialect(
        "moq-lite-05",
        features=_FEATURES_05,
        bidirectional=_BIDIRECTIONAL_05,
        unidirectional=_UNIDIRECTIONAL_05,
        reads=_READS_05,
        writes=_WRITES_05,
    )
)
MOQ_LITE_04 = register(
    LiteDialect(
        "moq-lite-04",
        features=_FEATURES_04,
        bidirectional=_BIDIRECTIONAL_04,
        unidirectional=_UNIDIRECTIONAL_03,
        reads=_READS_04,
        writes=_WRITES_04,
    )
)
MOQ_LITE_03 = register(
    LiteDialect(
        "moq-lite-03",
        features=_FEATURES_03,
        bidirectional=_BIDIRECTIONAL_03,
        unidirectional=_UNIDIRECTIONAL_03,
        reads=_READS_03,
        writes=_WRITES_03,
    )
)
