"""Numbers as moq-transport writes them from draft 17 on.

The count of leading one bits in the first byte is the count of the bytes that follow it, so a number takes one to nine
bytes and may have all 64 bits. Up to draft 16 numbers are QUIC varints, which `Reader` and `Writer` have already.

    0xxxxxxx   7 bits     110xxxxx  21 bits     11110xxx  35 bits     1111110x  49 bits     11111111  64 bits
    10xxxxxx  14 bits     1110xxxx  28 bits     111110xx  42 bits     11111110  56 bits

A number may take more bytes than it needs. Draft 17 has no form of seven bytes, so none is written.

Spec: draft-ietf-moq-transport-18, section 1.4.1.
"""

from __future__ import annotations

from typing import Final

from ...codes import SessionCode
from ...errors import LocalProtocolError, Malformed
from ..buffer import Reader, Writer

MAX: Final = (1 << 64) - 1
"""The largest number."""

_SIZES: Final = tuple(8 - (~first & 0xFF).bit_length() + 1 for first in range(256))
"""How many bytes a number has, by its first one."""
_MASKS: Final = (
    0,
    0x7F,
    0x3FFF,
    0x1F_FFFF,
    0xFFF_FFFF,
    (1 << 35) - 1,
    (1 << 42) - 1,
    (1 << 49) - 1,
    (1 << 56) - 1,
    MAX,
)
_PREFIXES: Final = (0, 0, 0x80, 0xC0, 0xE0, 0xF0, 0xF8, 0xFC, 0xFE, 0xFF)
_ONE_BYTE: Final = tuple(bytes((value,)) for value in range(0x80))
_SEVEN: Final = 7
_SIZES_OF_BITS: Final = tuple(
    next(size for size in (1, 2, 3, 4, 5, 6, 8, 9) if (1 << bits) - 1 <= _MASKS[size]) for bits in range(65)
)
"""How many bytes `encode` takes, by the bits of the number."""


def encode(value: int) -> bytes:
    """Return the shortest form of a number, but for that of seven bytes.

    Raises:
        LocalProtocolError: The number is not in 0 … 2**64-1.
    """
    if 0 <= value < 0x80:
        return _ONE_BYTE[value]
    if not 0 <= value <= MAX:
        raise LocalProtocolError(f"a number holds 0 to 2**64-1, not {value}")
    size = _SIZES_OF_BITS[value.bit_length()]
    if size == 9:
        return b"\xff" + value.to_bytes(8, "big")
    return (_PREFIXES[size] << 8 * (size - 1) | value).to_bytes(size, "big")


def decode(data: bytes | bytearray, offset: int = 0) -> tuple[int, int] | None:
    """Return a number and the offset after it, or None when it is not complete. Arguments as `varint.decode`."""
    if offset >= len(data):
        return None
    first = data[offset]
    if first < 0x80:
        return first, offset + 1
    size = _SIZES[first]
    end = offset + size
    if end > len(data):
        return None
    return int.from_bytes(data[offset:end], "big") & _MASKS[size], end


def decode_without_seven(data: bytes | bytearray, offset: int = 0) -> tuple[int, int] | None:
    """Do what `decode` does in draft 17. Raises `Malformed` for a number of seven bytes."""
    found = decode(data, offset)
    if found is not None and found[1] - offset == _SEVEN:
        raise Malformed("a number of seven bytes", code=SessionCode.PROTOCOL_VIOLATION)
    return found


class LongReader(Reader):
    """Reads a message of draft 18 or later."""

    __slots__ = ()

    _seven = True

    def varint(self) -> int:
        data, offset = self._data, self._offset
        if offset < len(data) and data[offset] < 0x80:
            self._offset = offset + 1
            return data[offset]
        found = decode(data, offset)
        if found is None:
            raise self._cut_off(len(data) + 1, "ends where a number is due")
        value, self._offset = found
        if self._offset - offset == _SEVEN and not self._seven:
            raise self.malformed("a number of seven bytes")
        return value


class LongReaderWithoutSeven(LongReader):
    """Reads a message of draft 17."""

    __slots__ = ()

    _seven = False


class LongWriter(Writer):
    """Writes a message of draft 17 or later."""

    def varint(self, value: int) -> None:
        self += encode(value)

    def optional(self, value: int | None) -> None:
        self.varint(0 if value is None else value + 1)

    def data(self, value: bytes) -> None:
        self.varint(len(value))
        self += value
