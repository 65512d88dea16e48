"""Keys of groups: what the groups of a track are kept by and ordered by.

The key of a group is its sequence, and so is that of its subgroup 0. A further part of a group, as moq-transport has
them, has a `PartKey`: it orders behind the sequence of its group and before the next one. So a track whose groups have
no parts, as in moq-lite, works with plain numbers throughout.
"""

from __future__ import annotations

from typing import Final, TypeAlias, Union

DATAGRAM: Final = 1 << 64
"""The first part that is a datagram; below are the subgroups."""


class PartKey:
    """The key of a part of a group that is not its subgroup 0.

    Attributes:
        sequence: The group's number.
        part: The subgroup's id, or `DATAGRAM` and more for a datagram; above 0.
    """

    __slots__ = ("_hash", "part", "sequence")

    def __init__(self, sequence: int, part: int) -> None:
        self.sequence = sequence
        self.part = part
        self._hash = hash((sequence, part))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PartKey) and (self.sequence, self.part) == (other.sequence, other.part)

    def __lt__(self, other: GroupKey) -> bool:
        return self._place < _place(other)

    def __le__(self, other: GroupKey) -> bool:
        return self._place <= _place(other)

    def __gt__(self, other: GroupKey) -> bool:
        return self._place > _place(other)

    def __ge__(self, other: GroupKey) -> bool:
        return self._place >= _place(other)

    @property
    def _place(self) -> tuple[int, int]:
        return self.sequence, self.part

    def __repr__(self) -> str:
        what = f"datagram {self.part - DATAGRAM}" if self.part >= DATAGRAM else f"subgroup {self.part}"
        return f"<{what} of group {self.sequence}>"


GroupKey: TypeAlias = Union[int, PartKey]  # noqa: UP007 - the name is used before the class is whole


def key_of(sequence: int, subgroup: int | None) -> GroupKey:
    """Return the key of a subgroup; None is the only one of its group."""
    return PartKey(sequence, subgroup) if subgroup else sequence


def sequence_of(key: GroupKey) -> int:
    """Return the sequence of the group that a key belongs to."""
    return key.sequence if isinstance(key, PartKey) else key


def _place(key: GroupKey) -> tuple[int, int]:
    return (key.sequence, key.part) if isinstance(key, PartKey) else (key, 0)
