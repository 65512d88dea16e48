"""Makes hostile messages out of valid ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

_INTERESTING = (
    b"\x00",
    b"\x01",
    b"\x3f",
    b"\x40\x40",
    b"\x7f\xff",
    b"\x80\x01\x00\x00",
    b"\xff" * 8,
    b"\xc0" + b"\x00" * 7,
)
"""Varints at the edges of their widths, and the largest."""


def mutate(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Return a sample with one to four changes; one in eight is cut short as well."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randint(0, len(changed))
        match chance.randrange(7):
            case 0 if changed:
                changed[place % len(changed)] ^= 1 << chance.randrange(8)
            case 1 if changed:
                changed[place % len(changed)] = chance.randrange(256)
            case 2:
                changed[place:place] = chance.choice(_INTERESTING)
            case 3:
                changed[place : place + len(_INTERESTING[-1])] = chance.choice(_INTERESTING)
            case 4:
                del changed[place : place + chance.randint(1, 4)]
            case 5:
                changed[place:place] = chance.choice(others)
            case _:
                changed[place:place] = chance.randbytes(chance.randint(1, 8))
    if not chance.randrange(8):
        del changed[chance.randint(0, len(changed)) :]
    return bytes(changed[:65536])
