"""Timeouts that count no pause of the loop against a peer.

The loop stands still in a blocking call of the application, while the process is stopped, and on some systems while the
machine sleeps. When it goes on, Trio cancels what has expired before the tasks that read the sockets have had a turn: a
peer whose answer waits in the socket would count as silent. So where the end of a wait costs a peer something,

- a `Timeout` that ends late begins anew, once. It needs a wait that can be started again;
- a timer that looks at several peers at a time calls `read_first` before it looks.

The others are plain cancel scopes: those that bound how long an end may take, which a pause must not prolong (that of a
connection, of a listener, of a handler), and those that only decide when this side does something next.

A peer gains little when it keeps the loop busy: a timeout lasts twice as long at most, and the pause itself.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio

_LATE = 0.1
"""Seconds by which a timer is late when the loop has stood still. A busy loop is late by some 30 ms."""
_TURNS = 8
"""Turns that the tasks which read sockets have before a late timer is judged: some hundred datagrams of each socket."""


class Timeout:
    """How long something may take, from now on.

    Args:
        seconds: The time.

    Attributes:
        deadline: When the time is up, on Trio's clock.
    """

    __slots__ = ("_renewed", "_seconds", "deadline")

    def __init__(self, seconds: float) -> None:
        self.deadline = trio.current_time() + seconds
        self._seconds = seconds
        self._renewed = False

    def begin(self) -> float:
        """Return the deadline of a wait that begins now.

        For one that begins after the deadline the time is up: what has come counts, and what waits in the sockets. That
        its caller was away is no pause of the loop.
        """
        now = trio.current_time()
        if self.deadline <= now:
            self._renewed = True
            self.deadline = now + _LATE
        return self.deadline

    async def wait(self, wait: Callable[[], Awaitable[object]]) -> bool:
        """Wait for something, and return whether it came in time.

        Args:
            wait: Waits for it. It may be cancelled and called again.
        """
        self.begin()
        while True:
            with trio.CancelScope(deadline=self.deadline) as scope:
                await wait()
            if not scope.cancelled_caught:
                return True
            if not self.renew():
                return False

    def renew(self, after: float = 0) -> bool:
        """Return whether there is time left, called when it was up: it begins anew when this call comes late, once.

        Args:
            after: Seconds by which the call may come late for other reasons.
        """
        late = trio.current_time() - self.deadline
        if late - after > _LATE and not self._renewed:
            self._renewed = True
            self.deadline = trio.current_time() + self._seconds
            return True
        # What else waits for the same has renewed it.
        return late < 0


async def read_first(deadline: float, silent_from: float = math.inf) -> None:
    """Let what waits in the sockets be read, if a timer comes so late that the loop has stood still.

    Args:
        deadline: When the timer was to come.
        silent_from: When a peer counts as silent. Where that is what the timer decides, a loop that stood still until
            just after it is reason enough.
    """
    now = trio.current_time()
    if now - deadline > _LATE or now >= silent_from:
        for _ in range(_TURNS):
            await trio.lowlevel.checkpoint()


async def sleep_then_read(seconds: float) -> None:
    """Sleep; then let what waits in the sockets be read, if the loop has stood still."""
    deadline = trio.current_time() + seconds
    await trio.sleep_until(deadline)
    await read_first(deadline)
