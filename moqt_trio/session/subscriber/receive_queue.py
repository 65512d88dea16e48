"""A queue of received items with one reader, and its end: clean, failed or closed.

    UNOPENED ──open()──▶ OPEN ──finish()──▶ FINISHED ──close()──▶ CLOSED
       │                  ├─────fail()───▶ FAILED ────close()──▶ CLOSED
       └──────────────────┴─────close()──▶ CLOSED

The task that reads the socket fills the queue and never waits; one task of the application reads it. An item is taken
out after the reader's last await, so a receive that is cancelled loses nothing.

A peer that leaves, because its task is cancelled, say, resets its streams first and closes the session afterwards, in
another packet. A reader of such a stream is to see the end of the session. So it waits for that, for `DEPARTURE_WAIT`
seconds after the reset, before it gets the reset.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

from ...codes import StreamCode
from ...errors import LocalProtocolError, fresh
from ...timeouts import read_first
from ...transport.code_mapping import SESSION_GONE
from ..context import DEPARTURE_WAIT

if TYPE_CHECKING:
    from ...errors import StreamReset
    from ...timeouts import Timeout
    from ...transport.connection import Connection

T = TypeVar("T")

_DEPARTURE_CODES = frozenset({StreamCode.INTERNAL_ERROR, StreamCode.CANCELLED, StreamCode.SESSION_CLOSED, SESSION_GONE})
"""The codes of a reset that the end of the session may follow. The others say what happened to one track or group."""


class FrameCounts:
    """Frames that arrived for one subscription.

    Attributes:
        frames: Their number.
        bytes: The bytes of their payloads.
    """

    __slots__ = ("bytes", "frames")

    def __init__(self) -> None:
        self.frames = 0
        self.bytes = 0


class QueueState(enum.Enum):
    """The states of a queue."""

    UNOPENED = enum.auto()
    OPEN = enum.auto()
    FINISHED = enum.auto()
    FAILED = enum.auto()
    CLOSED = enum.auto()


class ReceiveQueue(Generic[T]):
    """Items in the order in which they arrived, for one task at a time, and their end.

    Args:
        block: The name, for messages, of the block that has to be entered before reading; None for a queue that is
            open from the start.

    Attributes:
        items: The items that were not received yet.
        state: The state.
        error: The exception that a reader gets once the items are read, in the states FAILED and CLOSED.
    """

    __slots__ = ("_block", "_busy", "_departing", "_on_timeout", "_timeout", "_waiter", "error", "items", "state")

    def __init__(self, block: str | None = None) -> None:
        self.items: deque[T] = deque()
        self.state = QueueState.OPEN if block is None else QueueState.UNOPENED
        self.error: Exception | None = None
        self._block = block
        self._busy = False
        self._waiter: trio.Event | None = None
        self._timeout: Timeout | None = None
        self._on_timeout: Callable[[], None] | None = None
        # After a reset: the connection that may end, too, and until when it counts as the same event.
        self._departing: tuple[Connection, float] | None = None

    # -- filling -------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Allow reading: the block was entered."""
        self.state = QueueState.OPEN

    def put(self, item: T) -> None:
        """Add an item."""
        self.items.append(item)
        self._wake()

    def finish(self) -> None:
        """End the queue cleanly."""
        if self.state in (QueueState.OPEN, QueueState.FINISHED):
            self.state = QueueState.FINISHED
        self._wake()

    def fail(self, error: Exception) -> None:
        """End the queue with an error. Does nothing once it has ended."""
        if not self.ended:
            self.state = QueueState.FAILED
            self.error = error
            self._wake()

    def fail_by_reset(self, error: StreamReset, connection: Connection) -> None:
        """End the queue with the peer's reset, or with the end of the connection when that follows."""
        self.fail(error)
        if self.error is error and error.code in _DEPARTURE_CODES:
            self._departing = connection, trio.current_time() + DEPARTURE_WAIT

    def close(self, reason: str) -> None:
        """Drop the unread items. From now on readers get `trio.ClosedResourceError`, or the error that came first.

        Args:
            reason: The text of the error.
        """
        self.items.clear()
        if self.error is None:
            self.error = trio.ClosedResourceError(reason)
        self.state = QueueState.CLOSED
        self._wake()

    def expect_within(self, timeout: Timeout, on_timeout: Callable[[], None]) -> None:
        """Bound how long a reader waits.

        Args:
            timeout: The bound.
            on_timeout: Called for a reader that has waited for so long; it has to end the queue.
        """
        self._timeout = timeout
        self._on_timeout = on_timeout
        # A reader that is waiting now has to start again with the bound.
        self._wake()

    def wait_on(self) -> None:
        """Remove the bound of `expect_within`."""
        self._timeout = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def ended(self) -> bool:
        """True once no more items will arrive."""
        return self.state is not QueueState.OPEN and self.state is not QueueState.UNOPENED

    @property
    def finished(self) -> bool:
        """True once it ended cleanly."""
        return self.state is QueueState.FINISHED

    @property
    def complete(self) -> bool:
        """True when a reader need not wait: the queue has ended, or everything that can arrive for now has arrived."""
        return self.state is not QueueState.OPEN and self.state is not QueueState.UNOPENED

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.set()
            self._waiter = None

    # -- reading -------------------------------------------------------------------------------------------

    async def receive(self) -> T:
        """Wait for the next item.

        Raises:
            trio.EndOfChannel: The queue ended cleanly, and everything was read.
            trio.ClosedResourceError: This side closed the queue.
            trio.BusyResourceError: Another task is receiving.
            LocalProtocolError: The block was not entered.
            Exception: The error that the queue failed with.
        """
        await self.wait_item()
        return self.items.popleft()

    async def wait_item(self) -> None:
        """Wait until an item can be taken out of `items`; always a checkpoint. Raises what `receive` raises."""
        if self._busy:
            raise trio.BusyResourceError("another task is receiving here")
        self._busy = True
        try:
            if self.items or self.state is not QueueState.OPEN or self.complete:
                await trio.lowlevel.checkpoint()
            while not self.items:
                if self.state is not QueueState.OPEN or self.complete:
                    await self.wait_departure()
                    self.check_end()
                if self._timeout is not None:
                    await self._wait_within(self._timeout)
                    continue
                self._waiter = waiter = trio.Event()
                try:
                    await waiter.wait()
                finally:
                    self._waiter = None
        finally:
            self._busy = False

    def check_end(self) -> None:
        """Raise what `receive` raises at the end, if the queue has ended."""
        self.check_failed()
        self.check_open()
        if self.complete:
            raise trio.EndOfChannel

    def check_failed(self) -> None:
        """Raise the error that the queue failed with or was closed with, if there is one."""
        if self._departing is not None:
            self.error = self._departing[0].closed or self.error
        if self.error is not None:
            raise fresh(self.error)

    async def wait_departure(self) -> None:
        """After a reset, wait until the end of the session has followed, or does not belong to it. Else return."""
        if self._departing is None:
            return
        connection, deadline = self._departing
        with trio.CancelScope(deadline=deadline):
            await connection.wait_closed()
        await read_first(deadline)
        self.error = connection.closed or self.error
        self._departing = None

    def check_open(self) -> None:
        """Raise `LocalProtocolError` before the block was entered."""
        if self.state is QueueState.UNOPENED:
            raise LocalProtocolError(f"enter the {self._block} with 'async with' first")

    async def _wait_within(self, timeout: Timeout) -> None:
        self._waiter = waiter = trio.Event()
        try:
            with trio.CancelScope(deadline=timeout.begin()) as scope:
                await waiter.wait()
        finally:
            self._waiter = None
        # The bound may have been replaced or removed meanwhile.
        up = scope.cancelled_caught and self._timeout is timeout and not timeout.renew()
        if up and self._on_timeout is not None:
            self._on_timeout()
