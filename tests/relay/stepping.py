"""A Trio run that a test without Trio advances step by step, as a state machine of hypothesis has to."""

from __future__ import annotations

import queue
from collections.abc import Awaitable, Callable
from typing import Any

import outcome
import trio
import trio.testing


class SteppedRun:
    """A Trio run in guest mode, with a clock that jumps; time stands still between two steps.

    Attributes:
        nursery: Where steps start tasks.
    """

    nursery: trio.Nursery

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], object]] = queue.Queue()
        self._steps: list[Callable[[], Awaitable[Any]] | None] = []
        self._given = trio.Event()
        self._result: outcome.Outcome[Any] | None = None
        self._ended: outcome.Outcome[Any] | None = None
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._calls.put,
            done_callback=self._done,
            clock=trio.testing.MockClock(autojump_threshold=0),
        )

    def _done(self, result: outcome.Outcome[Any]) -> None:
        self._ended = result

    async def _main(self) -> None:
        async with trio.open_nursery() as self.nursery:
            while True:
                while not self._steps:
                    self._given = trio.Event()
                    await self._given.wait()
                step = self._steps.pop()
                if step is None:
                    break
                self._result = await outcome.acapture(step)
            self.nursery.cancel_scope.cancel()

    def run(self, step: Callable[[], Awaitable[Any]]) -> Any:
        """Run an async function to its end; return its result."""
        self._result = None
        self._steps.append(step)
        self._given.set()
        while self._result is None and self._ended is None:
            self._calls.get(timeout=30)()
        if self._result is None:
            assert self._ended is not None
            return self._ended.unwrap()
        return self._result.unwrap()

    def close(self) -> None:
        """Cancel what the steps have started, and end the run."""
        self._steps.append(None)
        self._given.set()
        while self._ended is None:
            self._calls.get(timeout=30)()
        self._ended.unwrap()
