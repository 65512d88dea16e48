"""Variable-length integers: the QUIC varint, and the zigzag form of signed numbers."""

from __future__ import annotations

from typing import Final

from .errors import LocalProtocolError

MAX: Final = (1 << 62) - 1
"""The largest number that a varint holds."""

SIGNED_MIN: Final = -(1 << 61)
"""The smallest number that a zigzag varint holds."""

SIGNED_MAX: Final = (1 << 61) - 1
"""The largest number that a zigzag varint holds."""

_ONE_BYTE = tuple(bytes((value,)) for value in range(64))


def encode(value: int) -> bytes:
    """Return the shortest varint that holds a number.

    Raises:
        LocalProtocolError: The number is not in 0 … 2**62-1.

    Spec: RFC 9000, section 16.
    """
    if 0 <= value < 0x40:
        return _ONE_BYTE[value]
    if 0 <= value < 0x4000:
        return (value | 0x4000).to_bytes(2, "big")
    if 0 <= value < 0x4000_0000:
        return (value | 0x8000_0000).to_bytes(4, "big")
    if 0 <= value <= MAX:
        return (value | 0xC000_0000_0000_0000).to_bytes(8, "big")
    raise LocalProtocolError(f"a varint holds 0 to 2**62-1, not {value}")


def decode(data: bytes | bytearray, offset: int = 0) -> tuple[int, int] | None:
    """Return a varint's number and the offset after it, or None when the varint is not complete.

    A number that takes more bytes than it needs is accepted.

    Args:
        data: The bytes that hold the varint.
        offset: Where it starts; 0 or above. At or past the end of `data` nothing is complete.

    Spec: RFC 9000, section 16.
    """
    size = len(data)
    if offset >= size:
        return None
    first = data[offset]
    if first < 0x40:
        return first, offset + 1
    if first < 0x80:
        end = offset + 2
        return ((first & 0x3F) << 8 | data[offset + 1], end) if end <= size else None
    end = offset + (4 if first < 0xC0 else 8)
    if end > size:
        return None
    mask = 0x3FFF_FFFF if first < 0xC0 else MAX
    return int.from_bytes(data[offset:end], "big") & mask, end


def zigzag(value: int) -> int:
    """Return the unsigned number that stands for a signed one: 0, -1, 1, -2 … become 0, 1, 2, 3 …

    Raises:
        LocalProtocolError: The number is not in -2**61 … 2**61-1, so its zigzag form fits in no varint.
    """
    if not SIGNED_MIN <= value <= SIGNED_MAX:
        raise LocalProtocolError(f"a zigzag varint holds -2**61 to 2**61-1, not {value}")
    return value << 1 if value >= 0 else (-value << 1) - 1
