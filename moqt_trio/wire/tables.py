"""How every version of moq-lite frames its messages, and how a version is made from tables.

    message { [Type (varint)], Length (varint), Body (..) }

gomoqt's develop version frames its messages in the same way.

The type is there where a place in a stream has more than one possible message, except that moq-lite-03 to -05
distinguish the start of an announcement from its end by a status in the body.

Spec: draft-lcurley-moq-lite-03 to -06.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .. import varint
from ..codes import SessionCode, StreamCode
from ..errors import LimitExceeded, LocalProtocolError, Malformed, Scope
from . import frames as framing
from .buffer import Reader, StreamBuffer, Writer
from .dialect import Dialect, Features, Quirks
from .messages import Datagram, Expect, Message, StreamKind

if TYPE_CHECKING:
    from ..limits import Limits
    from .handshake import HandshakeForm

Read: TypeAlias = "Callable[[Reader, Limits], Message]"
"""Reads the fields of one body; the caller refuses bytes that are left after them."""

Write: TypeAlias = Callable[[Writer, Any], None]
"""Writes the fields of one body, from the message type that it stands beside in `Writes`."""

Reads: TypeAlias = "Mapping[Expect, Read | Mapping[int, Read]]"
"""How each place is read: one body, or one for each type that is written before the length."""

Writes: TypeAlias = Mapping[type[Message], Write | tuple[int, Write]]
"""How each message is written: its body alone, or its type as well."""

# What an error in a message breaks, and the code for it. Looking members of an enum up costs as much as a small read.
_BREAKS_SESSION: Final[tuple[Scope, int]] = ("session", SessionCode.PROTOCOL_VIOLATION)
_BREAKS_STREAM: Final[tuple[Scope, int]] = ("stream", StreamCode.MALFORMED_TRACK)
_GROUP: Final = Expect.GROUP


class TableDialect(Dialect):
    """One version of moq-lite, made from its tables."""

    def __init__(
        self,
        name: str,
        *,
        features: Features,
        quirks: Quirks | None = None,
        bidirectional: Mapping[int, StreamKind],
        unidirectional: Mapping[int, StreamKind],
        reads: Reads,
        writes: Writes,
        alpns: tuple[str, ...] | None = None,
        webtransport_protocols: tuple[str, ...] | None = None,
        handshakes: tuple[HandshakeForm, ...] = (),
        number: int | None = None,
        opt_in: bool = False,
    ) -> None:
        """Make a version.

        Args:
            name: The name, which stands for the version in ALPN and in WebTransport too, if they are not given.
            features: Its features.
            quirks: The quirks of its known peers; None for none.
            bidirectional: What the types of bidirectional streams stand for.
            unidirectional: What the types of unidirectional streams stand for.
            reads: How to read the body of each expected message; by type, where a type is written before the length.
            writes: How to write the body of each message, and the type before the length where there is one.
            alpns: As in `Dialect`.
            webtransport_protocols: As in `Dialect`.
            handshakes: As in `Dialect`.
            number: As in `Dialect`.
            opt_in: As in `Dialect`.
        """
        self.name = name
        self.alpns = (name,) if alpns is None else alpns
        self.webtransport_protocols = (name,) if webtransport_protocols is None else webtransport_protocols
        self.features = features
        self.quirks = quirks if quirks is not None else Quirks()
        self.handshakes = handshakes
        self.number = number
        self.opt_in = opt_in
        self._bidirectional = bidirectional
        self._unidirectional = unidirectional
        types = [*bidirectional.items(), *unidirectional.items()]
        self._openings = {kind: varint.encode(number) for number, kind in types}
        self._reads = reads
        # The one message that may be as long as `Limits.max_announce_init`.
        self._batch = Expect.ANNOUNCE_FIRST_REPLY if features.announce_first == "init" else None
        self._writes = writes

    def split_stream_type(self, data: bytes) -> tuple[int, int] | None:
        return (data[0], 1) if data and data[0] < 0x40 else varint.decode(data)

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
            raise self._lacks(type(message).__name__)
        number, write = entry if isinstance(entry, tuple) else (None, entry)
        writer = Writer()
        write(writer, message)
        return writer.framed(number)

    def _lacks(self, message: str) -> LocalProtocolError:
        return LocalProtocolError(f"{self.name} has no {message} message")

    def read_untrusted(self, expect: Expect, buffer: StreamBuffer, limits: Limits) -> Message | None:
        """Take the next message out of a buffer, or return None; see `Dialect.read_untrusted`.

        An error in a GROUP header, a message of unknown type and an invalid range break the stream; any other error
        breaks the session.

        Raises:
            LocalProtocolError: The version has no such place.
        """
        read = self._reads.get(expect)
        if read is None:
            raise self._lacks(expect.value)
        scope, code = _BREAKS_STREAM if expect is _GROUP else _BREAKS_SESSION
        offset = 0
        if not callable(read):
            found = varint.decode(buffer)
            if found is None:
                return None
            number, offset = found
            chosen = read.get(number)
            if chosen is None:
                problem = f"{expect.value}: unknown message type {number:#x}"
                raise Malformed(problem, code=StreamCode.INTERNAL_ERROR, scope="stream")
            read = chosen
        if offset < len(buffer) and buffer[offset] < 0x40:
            size = buffer[offset]
            offset += 1
        else:
            found = varint.decode(buffer, offset)
            if found is None:
                return None
            size, offset = found
        if size > limits.max_message and not (expect is self._batch and size <= limits.max_announce_init):
            raise LimitExceeded("max_message", size, code=code, scope=scope)
        if len(buffer) < offset + size:
            return None
        reader = Reader(buffer.take(size, offset), expect.value, scope, code)
        message = read(reader, limits)
        reader.expect_end()
        return message

    def encode_frame(self, payload: bytes, timestamp: int | None, previous_timestamp: int) -> bytes:
        if self.features.timestamps:
            return framing.encode_timed_frame(payload, timestamp, previous_timestamp)
        return framing.encode_frame(payload)

    def frame_encoder(self) -> framing.FrameEncoder:
        return framing.FrameEncoder(timed=self.features.timestamps)

    def frame_decoder(self, limits: Limits) -> framing.StreamFrameDecoder:
        return framing.StreamFrameDecoder(limits.max_frame, timed=self.features.timestamps)

    def encode_datagram(self, datagram: Datagram) -> bytes:
        """Return `i subscribe_id, i sequence, i timestamp, payload` (-05, -06)."""
        if not self.features.datagrams:
            raise LocalProtocolError(f"{self.name} has no datagrams")
        writer = Writer()
        writer.varint(datagram.subscribe_id)
        writer.varint(datagram.sequence)
        writer.varint(datagram.timestamp)
        writer.raw(datagram.payload)
        return writer.getvalue()

    def read_datagram_untrusted(self, data: bytes) -> Datagram:
        """Read `i subscribe_id, i sequence, i timestamp, payload` (-05, -06).

        Raises:
            Malformed: The bytes are no datagram, or the version has none; scope `"stream"`: only the datagram is lost.
        """
        reader = Reader(data, "DATAGRAM", *_BREAKS_STREAM)
        if not self.features.datagrams:
            raise reader.malformed(f"{self.name} has none")
        return Datagram(reader.varint(), reader.varint(), reader.varint(), reader.rest())
