"""AgeOrder: which pending groups of a cursor are too old, without looking at each of them for every frame.

Theory of operation. A group is too old once the newest timestamp of the track is `max_age` above the first timestamp
that follows the group: that of the next group that has a frame (moq-lite-06, section 6.2). A group is in one of three
places, by what is known of that timestamp:

    _new         nothing: it was added since `due` was last called
    _unfollowed  no later group has a frame; a heap by sequence
    _followed    a heap by that timestamp

A later first frame moves groups from `_unfollowed` to `_followed`. The timestamp is a lower bound: `due` looks again
before it takes a group, so that a group whose successor left the cache waits for the next one. When timestamps fall
where sequences rise, the bound may be wrong; `start_over` looks at every group once. What left the cursor is discarded
when it comes up, and before it outnumbers what did not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from .keys import sequence_of

if TYPE_CHECKING:
    from .keys import GroupKey

_FEW = 64
"""Numbers that are kept in any case: fewer cost almost no memory."""


class AgeOrder:
    """The pending groups of one cursor in the order in which they grow too old.

    Args:
        pending: The keys of the groups that are pending; a live view.
    """

    def __init__(self, pending: Collection[GroupKey]) -> None:
        self._pending = pending
        self._new: list[GroupKey] = []
        self._unfollowed: list[GroupKey] = []
        self._followed: list[tuple[int, GroupKey]] = []
        # The parts of the latest group, which were taken out of `_followed`, as they are never too old.
        self._spared: list[tuple[int, GroupKey]] = []

    def add(self, key: GroupKey) -> None:
        """Add a group that is pending from now on."""
        self._new.append(key)
        if len(self._new) + len(self._unfollowed) + len(self._followed) > 2 * len(self._pending) + _FEW:
            self.start_over()

    def follow(self, sequence: int, timestamp: int) -> None:
        """Called when a group got its first frame, and no later group has one."""
        unfollowed = self._unfollowed
        while unfollowed and unfollowed[0] < sequence:
            heappush(self._followed, (timestamp, heappop(unfollowed)))

    def start_over(self) -> None:
        """Forget what is known, because timestamps or the set of pending groups have changed too much."""
        self._new = list(self._pending)
        self._unfollowed.clear()
        self._followed.clear()
        self._spared.clear()

    def due(
        self, newest: int, budget: float, latest: int, timestamp_after: Callable[[GroupKey], int | None]
    ) -> list[GroupKey]:
        """Return the groups that are too old; the caller drops them.

        Args:
            newest: The newest frame's timestamp in the latest group that has a frame.
            budget: The age at which a group is too old, in units of the timestamps.
            latest: The sequence of the latest group of the cursor, which is never too old.
            timestamp_after: Returns the first timestamp after a given group, None while there is none.
        """
        followed = self._followed
        if self._spared and sequence_of(self._spared[0][1]) != latest:
            for entry in self._spared:
                heappush(followed, entry)
            self._spared.clear()
        if self._new:
            new, self._new = self._new, []
            for key in new:
                self._place(key, timestamp_after(key))
        found: list[GroupKey] = []
        while followed and newest - followed[0][0] >= budget:
            entry = heappop(followed)
            key = entry[1]
            if key not in self._pending:
                continue
            if sequence_of(key) == latest:
                self._spared.append(entry)
                continue
            timestamp = timestamp_after(key)
            if timestamp is not None and newest - timestamp >= budget:
                found.append(key)
            else:
                self._place(key, timestamp)
        return found

    def _place(self, key: GroupKey, timestamp: int | None) -> None:
        if timestamp is None:
            heappush(self._unfollowed, key)
        else:
            heappush(self._followed, (timestamp, key))
