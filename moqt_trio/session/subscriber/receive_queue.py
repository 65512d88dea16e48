"""What has arrived for one reader, and how that reader waits for more.

It knows nothing of streams, messages or sessions: whoever fills it says what came and how it ended.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class ReceiveQueue(Generic[T]):
    """Items in the order in which they came, for one task at a time, and behind them their end.

    An item is taken out after the reader's last await: cancelling a receive loses nothing.

    Attributes:
        items: What waits to be received.
        error: What a reader gets once the items are read: why no more will come, or that nothing comes yet.
        finished: True once it is known that no more will come, and that this is as it should be.
    """

    __slots__ = ("_busy", "_deadline", "_give_up", "_waiter", "error", "finished", "items")

    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self.error: Exception | None = None
        self.finished = False
        self._busy = False
        self._waiter: trio.Event | None = None
        self._deadline = math.inf
        self._give_up: Callable[[], None] | None = None

    # -- filling -------------------------------------------------------------------------------------------

    def put(self, item: T) -> None:
        """Adds an item."""
        self.items.append(item)
        self._wake()

    def finish(self) -> None:
        """Ends it cleanly."""
        self.finished = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """Ends it with an error. What has ended stays as it is."""
        if not self.ended:
            self.error = error
            self._wake()

    def close(self, reason: str) -> None:
        """Drops what was not read: from here on readers get `trio.ClosedResourceError`, or the error that came first.

        Args:
            reason: What the error says.
        """
        self.items.clear()
        self.finished = False
        if self.error is None:
            self.error = trio.ClosedResourceError(reason)
        self._wake()

    def expect_by(self, deadline: float, give_up: Callable[[], None]) -> None:
        """Bounds how long a reader waits.

        Args:
            deadline: On trio's clock.
            give_up: Called for a reader that has waited until then; it has to end the inbox.
        """
        self._deadline = deadline
        self._give_up = give_up
        # Whoever waits already, waits without the bound.
        self._wake()

    def wait_on(self) -> None:
        """Lifts the bound of `expect_by`."""
        self._deadline = math.inf

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ended(self) -> bool:
        """True once no more will come."""
        return self.finished or self.error is not None

    @property
    def complete(self) -> bool:
        """True when there is nothing to wait for: it has ended, or whoever fills it knows for now that it has all."""
        return self.ended

    @property
    def awaited(self) -> bool:
        """True while a reader waits for an item."""
        return self._waiter is not None

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.set()
            self._waiter = None

    # -- reading -------------------------------------------------------------------------------------------

    async def receive(self) -> T:
        """Waits for the next item.

        Raises:
            trio.EndOfChannel: It ended cleanly, and everything was read.
            trio.ClosedResourceError: This side closed it.
            trio.BusyResourceError: Another task is receiving.
            Exception: What it failed with.
        """
        if self._busy:
            raise trio.BusyResourceError("another task is receiving here")
        self._busy = True
        try:
            if self.items or self.complete:
                await trio.lowlevel.checkpoint()
            while not self.items:
                self.check_end()
                await self._wait()
            return self.items.popleft()
        finally:
            self._busy = False

    def check_end(self) -> None:
        """Raises how it ended, if it has: what `receive` raises."""
        if self.error is not None:
            raise self.error.with_traceback(None)
        if self.complete:
            raise trio.EndOfChannel

    async def _wait(self) -> None:
        self._waiter = waiter = trio.Event()
        try:
            if self._deadline == math.inf:
                await waiter.wait()
                return
            with trio.CancelScope(deadline=self._deadline) as scope:
                await waiter.wait()
        finally:
            self._waiter = None
        # Meanwhile the bound may have been moved or lifted.
        if scope.cancelled_caught and trio.current_time() >= self._deadline and self._give_up is not None:
            self._give_up()
