"""DeliveryTimeout: drops the groups of one subscription whose next frame has been waiting for too long.

A frame waits from when it was written, or, if that was before the subscription reached its group, from then on, until
it is written on a stream. What happens to it there is no longer looked at. The group is dropped as any other: its
stream is reset, and none is opened for it again.

Only a subscription with such a bound pays for it. Frames that come close together are counted as one: as if all of them
had come with the last of them.

Spec: draft-ietf-moq-transport-18, section 9.3.2 (OBJECT_DELIVERY_TIMEOUT).
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import attrs
import trio

from ...codes import StreamCode

if TYPE_CHECKING:
    from ...model.cursor import Cursor
    from ...model.group_cursor import GroupCursor
    from ...model.keys import GroupKey
    from ...tasks import Wakeup

_STEP = 1 / 16
"""The share of the bound within which frames count as one: memory for a few of them a group, whatever its frames."""


@attrs.define
class _Run:
    """Frames that came close together: when the first and the last of them came, and the index after the last one."""

    first: float
    last: float
    end: int


class DeliveryTimeout:
    """The bound of one subscription.

    Args:
        cursor: The subscription's.

    Attributes:
        seconds: The bound; `math.inf` for none.
    """

    def __init__(self, cursor: Cursor) -> None:
        self.seconds = math.inf
        self._cursor = cursor
        self._runs: dict[GroupKey, deque[_Run]] = {}
        cursor.watch_frames(self._came)

    def _came(self, key: GroupKey) -> None:
        """Called when a frame was appended to a group."""
        entry = self._cursor.pending.get(key)
        if entry is not None:
            self._note(entry, trio.current_time())

    def _note(self, entry: GroupCursor, now: float) -> deque[_Run]:
        """Record the frames of a group that were not recorded, as ones that come now; return those that wait."""
        runs = self._runs.setdefault(entry.group.key, deque())
        end = entry.position + entry.waiting_frames
        while runs and runs[0].end <= entry.position:
            runs.popleft()
        if not runs or runs[-1].end < end:
            if runs and now - runs[-1].first < self.seconds * _STEP:
                runs[-1].last, runs[-1].end = now, end
            elif end > entry.position:
                runs.append(_Run(now, now, end))
        return runs

    def expire(self) -> None:
        """Drop the groups whose time is up."""
        cursor, now = self._cursor, trio.current_time()
        for key in [key for key in self._runs if key not in cursor.pending]:
            del self._runs[key]
        for key, entry in list(cursor.pending.items()):
            runs = self._note(entry, now)
            if runs and now - runs[0].last >= self.seconds:
                cursor.drop_taken(key, StreamCode.DELIVERY_TIMEOUT)

    async def wait(self, wakeup: Wakeup) -> None:
        """Wait for the wake-up, or until a group's time is up."""
        first = min((runs[0].last for runs in self._runs.values() if runs), default=math.inf)
        with trio.move_on_at(first + self.seconds):
            await wakeup.wait()
