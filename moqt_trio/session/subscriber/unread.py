"""UnreadGroups: keeps groups that are not read from holding the session's window.

Theory of operation. A byte that arrived holds credit of its stream and of the connection until the application has read
it. An application that reads slowly is meant to slow its publisher down. One that has stopped reading a group, and goes
on with the next, would after `Limits.connection_window` bytes stop every track, fetch and announcement of the session.

So while the groups that were taken hold more than `_SHARE` of the connection's window, they are looked at every
`_INTERVAL` seconds, and these lose what is unread, the oldest first:

- groups whose readers the application no longer has: they are closed;
- groups that were overtaken by one that was taken later, and from which nothing was read since the last look but one:
  they are dropped. Their readers get `StreamReset` with TOO_FAR_BEHIND, or OLD beyond the subscription's `max_age`, and
  `Subscription.dropped` reports them. A subscription that asked for its groups in order wants all of them, so of it
  none are dropped before `max_age`.

Groups that were not taken slow their publisher down, and an application that pauses gets all of them. But when it has
neither taken a group of the subscription nor read a frame for `_PAUSE` seconds, and something else of the session is
waited for, the oldest of them are dropped in the same way, until the groups that are left hold `_SHARE` of the window.

`group_arrived` is called by the task that reads the socket; the task that looks exists only while there is something to
look at.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...tasks import defer_interrupts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..context import SessionContext
    from .group import GroupBuffer
    from .group_queue import GroupQueue

_SHARE = 0.5
"""The share of the connection's window that groups may hold which were taken and are unread. The rest is left for what
is read."""
_INTERVAL = 0.25
"""Seconds between two looks. The session may stand still for two of them; a reader that waits for the disk, or for a
peer with a round trip of 200 ms, reads something in that time."""
_PAUSE = 1.0
"""Seconds for which a subscription may pause, nothing of it taken or read, before it may lose groups for the sake of
others. The half of the window that is left at its beginning carries most tracks for longer."""
_FEW = 4
"""Groups below which no look is worth while: so few do not hold half of a window that has four streams' windows."""
_MANY = 32
"""Groups for each of which one more has to arrive before a look that does not wait for `_INTERVAL`. Of groups that hold
something it is one for each `_FEW`: until then they hold a quarter more of the window."""


@defer_interrupts
class UnreadGroups:
    """Drops groups that are not read, while they hold too much of the session's window.

    Args:
        context: The session's.
        queues: The groups of each subscription that is open.

    Limits: connection_window.
    """

    def __init__(self, context: SessionContext, queues: Mapping[int, GroupQueue]) -> None:
        self._context = context
        self._queues = queues
        self._bound = int(context.limits.connection_window * _SHARE)
        self._running = False
        # True when the last look found that the groups which were taken hold too much.
        self._pressed = False
        self._arrived = 0
        # The number of arrivals at which the next look does not wait for `_INTERVAL`.
        self._look_at = 0
        # Seconds of which each look after the last adds `_INTERVAL` at most, and when that was.
        self._clock = 0.0
        self._looked_at = -math.inf
        # How many frames had been read of each group, and since when it has been so many.
        self._read: dict[GroupBuffer, tuple[int, float]] = {}
        # How many groups had been taken and frames read of each subscription, and since when it has been so many.
        self._paused: dict[GroupQueue, tuple[int, float]] = {}

    def group_arrived(self, queue: GroupQueue) -> None:
        """Called when a group has begun."""
        self._arrived += 1
        if self._running:
            if self._pressed and self._arrived >= self._look_at:
                # Groups whose readers are gone need not wait for the next look.
                self._look(self._time())
        elif queue.unread_count >= _FEW:
            self._running = True
            self._context.start(self._run)

    async def _run(self) -> None:
        try:
            while True:
                needed = self._look(self._time())
                arrived = self._arrived
                await trio.sleep(_INTERVAL)
                if not needed and self._arrived == arrived:
                    return
        finally:
            self._running = self._pressed = False
            self._read.clear()
            self._paused.clear()

    def _time(self) -> float:
        """Return the time of a look. A pause of the loop counts as one interval: no reader could read meanwhile."""
        now = trio.current_time()
        self._clock += min(now - self._looked_at, _INTERVAL)
        self._looked_at = now
        return self._clock

    def _look(self, now: float) -> bool:
        """Drop what may be dropped. Return False once there is no need to look again soon."""
        buffers = [(queue, buffer) for queue in self._queues.values() for buffer in queue.buffers()]
        held = [(queue, buffer) for queue, buffer in buffers if buffer.held and buffer.arrival < queue.taken]
        # The next look waits in proportion to the cost of this one: a group costs the same however many there are.
        self._look_at = self._arrived + max(_FEW, len(held) // _FEW, len(buffers) // _MANY)
        self._pressed = sum(buffer.held for _, buffer in held) > self._bound
        if self._pressed:
            self._drop_taken(held, now)
        excess = sum(buffer.held for _, buffer in buffers) - self._bound
        if excess <= 0:
            self._paused.clear()
            return False
        self._drop_untaken(excess, now)
        return True

    def _drop_taken(self, held: list[tuple[GroupQueue, GroupBuffer]], now: float) -> None:
        """Drop groups that the application took and reads no further, and close those whose readers are gone."""
        before, self._read = self._read, {}
        for queue, buffer in sorted(held, key=lambda item: item[1].arrival):
            if buffer.reader is not None and buffer.reader() is None:
                queue.close_unreferenced(buffer)
                continue
            count, since = before.get(buffer, (-1, now))
            if count != buffer.frames_read:
                since = now
            self._read[buffer] = (buffer.frames_read, since)
            if buffer.arrival == queue.taken - 1 or now - since < 2 * _INTERVAL:
                continue
            if now - since >= queue.max_age:
                queue.drop_unread(buffer, StreamCode.OLD)
            elif not queue.ordered:
                queue.drop_unread(buffer, StreamCode.TOO_FAR_BEHIND)

    def _drop_untaken(self, excess: int, now: float) -> None:
        """Drop the oldest groups of subscriptions that pause, for `excess` bytes, if other requests wait for them."""
        before, self._paused = self._paused, {}
        for queue in self._queues.values():
            buffers = queue.buffers()
            progress = queue.taken + sum(buffer.frames_read for buffer in buffers)
            last, since = before.get(queue, (-1, now))
            if progress != last:
                since = now
            paused = now - since
            late = paused >= queue.max_age
            if paused >= _PAUSE and excess > 0 and self._context.receiving > 1 and (late or not queue.ordered):
                untaken = sorted((item.key, item.held) for item in buffers if item.arrival >= queue.taken)
                dropped = set()
                # The newest stays, for an application that comes back.
                for key, held in untaken[:-1]:
                    if excess > 0:
                        excess -= held
                        dropped.add(key)
                queue.drop_untaken(dropped, StreamCode.OLD if late else StreamCode.TOO_FAR_BEHIND)
                progress += len(dropped)
            self._paused[queue] = (progress, since)
