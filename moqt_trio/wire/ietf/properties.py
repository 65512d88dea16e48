"""Lists of pairs: the properties of tracks and objects ("extension headers" up to draft 16), and the options of SETUP.

    pair { Type (i), [Length (i)], Value (i for an even type, that many bytes for an odd one) }

Up to draft 15 the types are absolute and in any order; from 16 on each is the difference to the one before. The list of
a track's properties has no length: it reaches to the end of its message.

Spec: draft-ietf-moq-transport-18, section 1.4.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from ...codes import StreamCode
from ...errors import LimitExceeded, LocalProtocolError
from ...frame import TIMESTAMP_PROPERTY
from .numbers import MAX

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import Reader, Writer
    from .profile import Profile

Pairs: TypeAlias = tuple[tuple[int, "int | bytes"], ...]
"""Pairs of a type and its value, in the order of the wire."""

_STAMP: Final = bytes((TIMESTAMP_PROPERTY,))
"""How a timestamp that comes first begins, in every draft."""

MAX_VALUE: Final = 65535
"""Bytes of one value."""


def read_pairs(reader: Reader, profile: Profile, limits: Limits, count: int | None = None) -> Pairs:
    """Read pairs: so many, or those to the end of the message.

    Limits: max_parameters.
    """
    pairs: list[tuple[int, int | bytes]] = []
    kind = 0
    while reader.remaining if count is None else len(pairs) < count:
        if len(pairs) >= limits.max_parameters:
            raise reader.exceeded("max_parameters", len(pairs) + 1)
        number = reader.varint()
        kind = kind + number if profile.delta_types else number
        if kind > MAX:
            raise reader.malformed("a type above 2**64-1")
        pairs.append((kind, reader.data("max_message", MAX_VALUE) if kind % 2 else reader.varint()))
    return tuple(pairs)


def write_pairs(writer: Writer, pairs: Pairs, profile: Profile) -> None:
    """Write pairs, without their count. From draft 16 on their types have to be in order."""
    before = 0
    for kind, value in pairs:
        if profile.delta_types and kind < before:
            raise LocalProtocolError(f"a pair of type {kind:#x} after one of {before:#x}")
        writer.varint(kind - before if profile.delta_types else kind)
        before = kind
        if isinstance(value, int):
            if kind % 2:
                raise LocalProtocolError(f"the value of type {kind:#x} is bytes, not the number {value}")
            writer.varint(value)
        else:
            if not kind % 2:
                raise LocalProtocolError(f"the value of type {kind:#x} is a number, not bytes")
            if len(value) > MAX_VALUE:
                raise LocalProtocolError(f"a value has at most {MAX_VALUE} bytes, not {len(value)}")
            writer.data(value)


def too_many_properties(size: int) -> LimitExceeded:
    """Return the exception for an object with so many bytes of properties."""
    return LimitExceeded("max_message", size, code=StreamCode.MALFORMED_TRACK, scope="stream")


def read_block(data: bytes, profile: Profile, limits: Limits) -> Pairs:
    """Read the properties of one object on a stream, which breaks when they are too many."""
    # Most objects have a timestamp and nothing else.
    if data.startswith(_STAMP):
        found = profile.decode(data, 1)
        if found is not None and found[1] == len(data):
            return ((TIMESTAMP_PROPERTY, found[0]),)
    reader = profile.reader(data, "an object's properties")
    try:
        return read_pairs(reader, profile, limits)
    except LimitExceeded as error:
        raise LimitExceeded(error.limit, error.value, code=StreamCode.MALFORMED_TRACK, scope="stream") from None


def read_properties(reader: Reader, profile: Profile, limits: Limits) -> Pairs:
    """Read `i size`, then pairs of that many bytes: the properties of one object."""
    inner = profile.reader(
        reader.data("max_message", MAX_VALUE), f"{reader.what} properties", reader.scope, reader.code
    )
    return read_pairs(inner, profile, limits)


def write_properties(writer: Writer, pairs: Pairs, profile: Profile) -> None:
    """Write `i size`, then the pairs."""
    inner = profile.writer()
    write_pairs(inner, pairs, profile)
    writer.data(inner.getvalue())
