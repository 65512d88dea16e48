"""TrackEnds: what the streams of a subscription said about the ends of its groups and of its track.

A track that contradicts itself is malformed, and its subscription ends: an object behind the end of its group or of the
track, and a group with two ends.

Spec: draft-ietf-moq-transport-18, sections 2.4.1 and 10.2.1.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import attrs

from ...wire.ietf.objects import Status

if TYPE_CHECKING:
    from ...wire.ietf.subgroups import SubgroupDecoder

_MAX_GROUPS = 256
"""Groups whose ends are remembered, the newest ones: a peer may have any number of groups."""


@attrs.define
class _Group:
    """What is known of one group.

    Attributes:
        highest: The highest object id; -1 for none.
        end: The first id that does not exist; None while unknown.
        gap: How many groups before it do not exist; 0 while unknown.
    """

    highest: int = -1
    end: int | None = None
    gap: int = 0


class TrackEnds:
    """The ends of one track, as its streams say them.

    Attributes:
        end_group: The first group that does not exist; None while unknown.
    """

    def __init__(self) -> None:
        self.end_group: int | None = None
        self._groups: OrderedDict[int, _Group] = OrderedDict()
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
        group = self._group(sequence)
        if end is not None:
            if group.end is not None and group.end != end:
                return f"two ends of group {sequence}: before object {group.end} and before {end}"
            group.end = end
        group.highest = max(group.highest, last)
        if group.end is not None and group.highest >= group.end:
            return f"object {group.highest} of group {sequence}, which ends before {group.end}"
        return None

    def note_gap(self, sequence: int, count: int) -> str | None:
        """Record how many groups before one do not exist. Return what is wrong with that, or None."""
        group = self._group(sequence)
        if group.gap not in (0, count) or count > sequence:
            return f"group {sequence} says that {count} groups before it do not exist, and {group.gap} before"
        group.gap = count
        return None

    def remembers(self, sequence: int) -> bool:
        """Return whether all is known that was said of a group; of an old one, what is said again may look new."""
        return sequence in self._groups or sequence > self._forgotten

    def gap(self, sequence: int) -> int:
        """Return how many groups before one do not exist, as far as it said so."""
        return self._group(sequence).gap

    def _group(self, sequence: int) -> _Group:
        group = self._groups.get(sequence)
        if group is None:
            group = self._groups[sequence] = _Group()
            if len(self._groups) > _MAX_GROUPS:
                self._forgotten = max(self._forgotten, self._groups.popitem(last=False)[0])
        return group
