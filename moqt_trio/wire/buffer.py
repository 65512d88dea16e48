"""Bytes, read and written: `StreamBuffer` for a stream that still arrives, `Reader` and `Writer` for one message.

Every message is read through these classes, so its bounds are checked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .. import varint
from ..codes import SessionCode
from ..errors import LimitExceeded, LocalProtocolError, Malformed, Scope, printable

if TYPE_CHECKING:
    from ..limits import Limits

_VIOLATION: Final[int] = SessionCode.PROTOCOL_VIOLATION


class StreamBuffer(bytearray):
    """Bytes of one stream that have arrived and have not been read.

    It is a bytearray, so that asking for its length costs no call of a Python function: the machines ask for it at
    every message. Each byte is copied a fixed number of times, however the stream is cut. The stream's flow-control
    window bounds the size; the caller sets it.
    """

    # A message without a length is decoded again only once this many bytes have arrived.
    _wanted = 0

    def __repr__(self) -> str:
        return f"<StreamBuffer {len(self)} bytes>"

    def feed(self, data: bytes) -> None:
        """Add bytes at the end."""
        self += data

    def peek_varint(self, offset: int = 0) -> tuple[int, int] | None:
        """Return the number at an offset and the offset after it, or None when it is not complete."""
        return varint.decode(self, offset)

    def peek_u16(self, offset: int = 0) -> int | None:
        """Return the number in two bytes at an offset, or None when they have not arrived."""
        found = self[offset : offset + 2]
        return int.from_bytes(found, "big") if len(found) == 2 else None

    def take(self, size: int, offset: int = 0) -> bytes:
        """Take exactly this many bytes, and drop those before the offset.

        Raises:
            IndexError: Fewer bytes have arrived; check `len()` first.
        """
        end = offset + size
        if not 0 <= offset <= end <= len(self):
            raise IndexError(f"{size} bytes at {offset} were asked for and {len(self)} are there")
        taken = bytes(self[offset:end])
        # Deleting the front of a bytearray moves a pointer; it copies only after shrinking by half: linear in all.
        del self[:end]
        self._wanted = 0
        return taken

    def take_all(self) -> bytes:
        """Take everything that is there."""
        return self.take(len(self))

    def skip(self, size: int) -> None:
        """Drop this many bytes from the front, or all of them when there are fewer."""
        del self[:size]
        self._wanted = 0

    def skip_zeros(self) -> None:
        """Drop the bytes of zero at the front."""
        count = len(self) - len(self.lstrip(b"\0"))
        if count:
            self.skip(count)


class Reader:
    """Reads the fields of one message whose bytes are all there.

    A field that reaches past the end is `Malformed`: the message's length was known, so no more bytes follow.

    Attributes:
        what: The message's name, for error texts.
        scope: What an error breaks.
        code: What it is closed with.
    """

    __slots__ = ("_data", "_offset", "code", "scope", "what")

    def __init__(
        self,
        data: bytes | bytearray,
        what: str,
        scope: Scope = "session",
        code: int = _VIOLATION,
    ) -> None:
        self._data = data
        self._offset = 0
        self.what = what
        self.scope: Scope = scope
        self.code = code

    @property
    def remaining(self) -> int:
        """How many bytes have not been read."""
        return len(self._data) - self._offset

    def malformed(self, problem: str) -> Malformed:
        """Return the exception for a problem with this message."""
        return Malformed(f"{self.what}: {problem}", code=self.code, scope=self.scope)

    def exceeded(self, limit: str, value: int) -> LimitExceeded:
        """Return the exception for a number in this message that goes past a field of `Limits`."""
        return LimitExceeded(limit, value, code=self.code, scope=self.scope)

    def _cut_off(self, size: int, problem: str) -> Exception:
        """Return the exception for a message that has at least this many bytes, of which some are not there."""
        return self.malformed(problem)

    # Numbers of one and two bytes are read in line: they are nearly all, and a call costs more than reading one.

    def u8(self) -> int:
        """Read one byte as a number."""
        offset = self._offset
        if offset >= len(self._data):
            raise self._cut_off(offset + 1, "ends where a byte is due")
        self._offset = offset + 1
        return self._data[offset]

    def flag(self) -> bool:
        """Read one byte that has to be 0 or 1."""
        offset = self._offset
        if offset >= len(self._data):
            raise self._cut_off(offset + 1, "ends where a byte is due")
        value = self._data[offset]
        if value > 1:
            raise self.malformed(f"{value} where 0 or 1 is due")
        self._offset = offset + 1
        return value == 1

    def varint(self) -> int:
        """Read a varint."""
        data, offset = self._data, self._offset
        end = len(data)
        if offset < end:
            first = data[offset]
            if first < 0x40:
                self._offset = offset + 1
                return first
            if first < 0x80 and offset + 1 < end:
                self._offset = offset + 2
                return (first & 0x3F) << 8 | data[offset + 1]
        found = varint.decode(data, offset)
        if found is None:
            raise self._cut_off(end + 1, "ends where a varint is due")
        value, self._offset = found
        return value

    def optional(self) -> int | None:
        """Read a varint that is one above its meaning, 0 for None."""
        value = self.varint()
        return value - 1 if value else None

    def count(self, limit: str, bound: int, item_size: int = 1) -> int:
        """Read how many items follow; refuse an impossible number before anything is allocated for it.

        Args:
            limit: The name of the field of `Limits`.
            bound: Its value.
            item_size: The fewest bytes that one item takes.
        """
        value = self.varint()
        if value > bound:
            raise self.exceeded(limit, value)
        if value * item_size > self.remaining:
            raise self.malformed(f"announces {value} items in {self.remaining} bytes")
        return value

    def data(self, limit: str, bound: int) -> bytes:
        """Read bytes that have their length in front. `limit` and `bound` are as in `count`."""
        data, start = self._data, self._offset
        if start < len(data) and data[start] < 0x40:
            size = data[start]
            start += 1
        else:
            size = self.varint()
            start = self._offset
        if size > bound:
            raise self.exceeded(limit, size)
        end = start + size
        if end > len(data):
            raise self._cut_off(end, f"has a field of {size} bytes where {len(data) - start} are left")
        self._offset = end
        return bytes(data[start:end])

    def text(self, limit: str, bound: int) -> str:
        """Read UTF-8 text that has its length in bytes in front. `limit` and `bound` are as in `count`."""
        data, start = self._data, self._offset
        size = data[start] if start < len(data) else 0x40
        end = start + 1 + size
        if size < 0x40 and size <= bound and end <= len(data):
            self._offset = end
            raw = bytes(data[start + 1 : end])
        else:
            raw = self.data(limit, bound)
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.malformed(f"text is not UTF-8: {printable(raw)}") from error

    def path(self, limits: Limits) -> str:
        """Read a broadcast's path, a prefix or a suffix, as the peer wrote it.

        Limits: max_path, max_path_parts.
        """
        text = self.text("max_path", limits.max_path)
        if text.count("/") >= limits.max_path_parts:
            # Slashes at the ends and doubled ones make no part.
            parts = sum(1 for part in text.split("/") if part)
            if parts > limits.max_path_parts:
                raise self.exceeded("max_path_parts", parts)
        return text

    def rest(self) -> bytes:
        """Read everything that is left."""
        start, self._offset = self._offset, len(self._data)
        return bytes(self._data[start:])

    def expect_end(self) -> None:
        """Refuse a message that has bytes after its last field."""
        if self._offset < len(self._data):
            raise self.malformed(f"has {self.remaining} bytes too many")


class Incomplete(Exception):
    """A message without a length is not complete yet. Never raised out of this package."""


class UnframedReader(Reader):
    """Reads the fields of one message that has no length in front, from the front of a buffer.

    A field that reaches past the end raises `Incomplete`: the rest has not arrived. Nothing is taken before `finish`.
    After that the message is decoded again once the missing field can be complete, not for every byte that arrives.
    """

    __slots__ = ("_bound", "_buffer")

    def __init__(
        self, buffer: StreamBuffer, bound: int, what: str, scope: Scope = "session", code: int = _VIOLATION
    ) -> None:
        """Start to read at the front of a buffer.

        Args:
            buffer: What has arrived; not to be changed before `finish`.
            bound: The most bytes that the message may have: `Limits.max_message`.
            what: The message's name, for error texts.
            scope: What an error breaks.
            code: What it is closed with.

        Raises:
            Incomplete: The field that an earlier attempt waited for is still not there.
        """
        if len(buffer) < buffer._wanted:
            raise Incomplete
        super().__init__(buffer, what, scope, code)
        self._buffer = buffer
        self._bound = bound

    def _cut_off(self, size: int, problem: str) -> Exception:
        if size > self._bound:
            return self.exceeded("max_message", size)
        self._buffer._wanted = size
        return Incomplete()

    def count(self, limit: str, bound: int, item_size: int = 1) -> int:
        value = self.varint()
        if value > bound:
            raise self.exceeded(limit, value)
        return value

    def finish(self) -> None:
        """Remove from the buffer what was read."""
        if self._offset > self._bound:
            raise self.exceeded("max_message", self._offset)
        self._buffer.skip(self._offset)


class Writer(bytearray):
    """Writes the fields of one message, each in the form that `Reader` reads.

    It is a bytearray that grows at its end. Every method raises `LocalProtocolError` for a value that its form can't
    hold.
    """

    def u8(self, value: int) -> None:
        """Write a number of 0 to 255 as one byte."""
        if not 0 <= value <= 0xFF:
            raise LocalProtocolError(f"this field holds 0 to 255, not {value}")
        self.append(value)

    def flag(self, value: bool | None) -> None:
        """Write a byte that is 0 or 1; None (not given) is written as 0."""
        self.append(1 if value else 0)

    def varint(self, value: int) -> None:
        """Write a varint."""
        self += varint.encode(value)

    def optional(self, value: int | None) -> None:
        """Write a varint that is one above its meaning, 0 for None."""
        if value is None:
            self.append(0)
            return
        if value < 0:
            raise LocalProtocolError(f"this field holds no negative number, not {value}")
        self += varint.encode(value + 1)

    def data(self, value: bytes) -> None:
        """Write bytes with their length in front."""
        self += varint.encode(len(value))
        self += value

    def text(self, value: str) -> None:
        """Write text as UTF-8 with its length in bytes in front."""
        try:
            raw = value.encode()
        except UnicodeEncodeError as error:
            raise LocalProtocolError(f"text that has no UTF-8 form: {printable(value)}") from error
        self.data(raw)

    def raw(self, value: bytes) -> None:
        """Write bytes as they are."""
        self += value

    def getvalue(self) -> bytes:
        """Return what was written."""
        return bytes(self)

    def framed(self, kind: int | None = None) -> bytes:
        """Return what was written with its length in front, and in front of that the message's type, if it has one."""
        head = varint.encode(len(self))
        if kind is not None:
            head = varint.encode(kind) + head
        return head + self
