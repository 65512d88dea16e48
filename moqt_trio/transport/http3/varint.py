"""The variable-length integer of QUIC (RFC 9000, section 16), for the few that this layer meets."""

from __future__ import annotations


def read_varint(data: bytes | bytearray, offset: int = 0) -> tuple[int, int] | None:
    """Returns the integer at an offset and the offset behind it, or None when its bytes are not all there yet."""
    if offset >= len(data):
        return None
    end = offset + (1 << (data[offset] >> 6))
    if end > len(data):
        return None
    length = end - offset
    return int.from_bytes(data[offset:end], "big") & ((1 << (8 * length - 2)) - 1), end


def write_varint(value: int) -> bytes:
    """Returns the shortest encoding. Raises ValueError outside 0 … 2**62-1."""
    for exponent in range(4):
        bits = 8 * (1 << exponent) - 2
        if 0 <= value < 1 << bits:
            return (value | exponent << bits).to_bytes(1 << exponent, "big")
    raise ValueError(f"a varint is in 0 … 2**62-1, not {value}")
