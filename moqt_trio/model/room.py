"""Room: where the writers of a reliable track wait for its slowest subscribers."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..limits import Limits
    from .cursor import Cursor


class Room:
    """Says whether every subscriber takes more, and wakes the writers that wait for it.

    Args:
        cursors: The cursors on the track; a live view.
        limits: For `reliable_backlog`, `reliable_backlog_frames` and `reliable_backlog_groups`.
    """

    def __init__(self, cursors: set[Cursor], limits: Limits) -> None:
        self._cursors = cursors
        self._limits = limits
        # Set when the writers that wait are to look again, and the cursors for which they wait.
        self._made: trio.Event | None = None
        self._full: set[Cursor] = set()

    def has(self) -> bool:
        """Return whether every subscriber is within the bounds of reliable delivery."""
        return all(map(self._takes_more, self._cursors))

    def _takes_more(self, cursor: Cursor) -> bool:
        limits = self._limits
        return (
            cursor.backlog < limits.reliable_backlog
            and cursor.backlog_frames < limits.reliable_backlog_frames
            and not cursor.is_behind(limits.reliable_backlog_groups)
        )

    async def wait(self, ended: Callable[[], bool]) -> None:
        """Wait until `has`, or until `ended` is true after `wake`. A checkpoint only when it waits."""
        while not self.has() and not ended():
            if self._made is None:
                self._made = trio.Event()
            # Those that are full now, and no others: what is written meanwhile is looked at again after the wait.
            for cursor in self._cursors - self._full:
                if not self._takes_more(cursor):
                    self._full.add(cursor)
                    cursor.watch_room(partial(self._took, cursor))
            await self._made.wait()

    def _took(self, cursor: Cursor) -> None:
        """Called when a cursor for which writers wait has taken frames."""
        if self._takes_more(cursor):
            self.wait_no_longer_for(cursor)

    def wait_no_longer_for(self, cursor: Cursor) -> None:
        """Called when a cursor takes more, or has gone."""
        if cursor in self._full:
            self._full.remove(cursor)
            cursor.watch_room(None)
            if not self._full:
                self.wake()

    def wake(self) -> None:
        """Have the writers that wait look again."""
        if self._made is not None:
            self._made.set()
            self._made = None
        for cursor in self._full:
            cursor.watch_room(None)
        self._full.clear()
