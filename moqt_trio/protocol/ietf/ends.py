"""TrackEnds: what the streams of a subscription said about the ends of its groups and of its track.

A track that contradicts itself is malformed, and its subscription ends: an object behind the end of its group or of the
track, and a group with two ends.

Spec: draft-ietf-moq-transport-18, sections 2.4.1 and 10.2.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from ...wire.ietf.objects import Status

if TYPE_CHECKING:
    from ...wire.ietf.subgroups import SubgroupDecoder

_LEAST_GROUPS: Final = 256
"""Groups that are remembered in any case, the newest ones, and up to twice as many: a peer may have any number."""

_Group: TypeAlias = "tuple[int, int | None, int]"
"""What is known of a group: its highest object id, -1 for none; the first id that does not exist, None while unknown;
and how many groups before it do not exist, 0 while unknown. It is a tuple because every group has one."""

_NOTHING: Final[_Group] = (-1, None, 0)


class TrackEnds:
    """The ends of one track, as its streams say them.

    Attributes:
        end_group: The first group that does not exist; None while unknown.
    """

    def __init__(self) -> None:
        self.end_group: int | None = None
        self._groups: dict[int, _Group] = {}
        # The highest group that is not remembered any more.
        self._forgotten = -1

    def finish(self, sequence: int, decoder: SubgroupDecoder, *, ends_group: bool) -> str | None:
        """Record a stream that was read to its end. Return how that contradicts what came before, or None.

        Args:
            sequence: The stream's group.
            decoder: What read its objects.
            ends_group: True when its header said that its last object is the last one of the group.
        """
        last, end = decoder.last_object, None
        if decoder.end is not None:
            status, end = decoder.end
            if status is Status.END_OF_TRACK:
                self.end_track(sequence + (end > 0))
        elif ends_group and last >= 0:
            end = last + 1
        return self.note(sequence, last, end)

    def end_track(self, group: int) -> None:
        """Record the first group that does not exist."""
        self.end_group = group if self.end_group is None else min(self.end_group, group)

    def note(self, sequence: int, last: int, end: int | None) -> str | None:
        """Record the last object of a group that arrived, and the group's end. Return what is wrong with them, or None.

        Args:
            sequence: The group.
            last: An object's id; -1 for none.
            end: The first id that does not exist; None where that was not said.
        """
        if self.end_group is not None and sequence >= self.end_group and last >= 0:
            return f"object {last} of group {sequence}, where the track ends at group {self.end_group}"
        before = self._groups.get(sequence)
        gap = 0
        if before is not None:
            highest, known_end, gap = before
            if known_end is not None:
                if end is not None and known_end != end:
                    return f"two ends of group {sequence}: before object {known_end} and before {end}"
                end = known_end
            if highest > last:
                last = highest
        self._groups[sequence] = last, end, gap
        if len(self._groups) > 2 * _LEAST_GROUPS:
            self._forget()
        if end is not None and last >= end:
            return f"object {last} of group {sequence}, which ends before {end}"
        return None

    def note_gap(self, sequence: int, count: int) -> str | None:
        """Record how many groups before one do not exist. Return what is wrong with that, or None."""
        last, end, gap = self._groups.get(sequence, _NOTHING)
        if gap not in (0, count) or count > sequence:
            return f"group {sequence} says that {count} groups before it do not exist, and {gap} before"
        self._groups[sequence] = last, end, count
        if len(self._groups) > 2 * _LEAST_GROUPS:
            self._forget()
        return None

    def remembers(self, sequence: int) -> bool:
        """Return whether all is known that was said of a group; of an old one, what is said again may look new."""
        return sequence in self._groups or sequence > self._forgotten

    def gap(self, sequence: int) -> int:
        """Return how many groups before one do not exist, as far as it said so."""
        return self._groups.get(sequence, _NOTHING)[2]

    def _forget(self) -> None:
        """Forget the groups that were heard of first."""
        oldest = list(self._groups)[:-_LEAST_GROUPS]
        self._forgotten = max(self._forgotten, *oldest)
        for sequence in oldest:
            del self._groups[sequence]
