"""Cancels a piece of work at each of its awaits in turn.

Two moments per await: `asleep`, when the work has just begun to wait, and `woken`, when what it waited for has come
but the work has not run yet. The second moment loses an item that was taken out of a queue too early.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair

Moment = Literal["asleep", "woken"]
MOMENTS: tuple[Moment, ...] = ("asleep", "woken")
Attempt = Callable[[Callable[[], Awaitable[object]]], Awaitable[bool]]

_MOST_STEPS = 2000


class _Interrupter(trio.abc.Instrument):
    """Counts the steps of one task, and cancels a scope at one of them."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, step: int, moment: Moment) -> None:
        self._task = task
        self._scope = scope
        self._left = step
        self._moment = moment
        self.fired = False

    def _count(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if not self._left:
                self.fired = True
                self._scope.cancel()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._moment == "asleep":
            self._count(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._moment == "woken":
            self._count(task)


async def cancel_everywhere(scenario: Callable[[Attempt], Awaitable[object]], *, least: int = 1) -> int:
    """Run a scenario again and again, and cancel what it attempts one await later each time.

    Args:
        scenario: Called with `attempt`; `await attempt(work)` runs the work, and returns True when it was cancelled.
        least: How many awaits the work has at the least: a guard against a scenario that tests nothing.

    Returns:
        How many times the work was cancelled.
    """
    cancelled = 0
    for moment in MOMENTS:
        fired = True
        step = 0
        while fired:
            step += 1
            assert step < _MOST_STEPS, "the work never ends"
            fired = False

            async def attempt(work: Callable[[], Awaitable[object]], step: int = step, moment: Moment = moment) -> bool:
                nonlocal fired
                with trio.CancelScope() as scope:
                    interrupter = _Interrupter(trio.lowlevel.current_task(), scope, step, moment)
                    trio.lowlevel.add_instrument(interrupter)
                    try:
                        await work()
                    finally:
                        trio.lowlevel.remove_instrument(interrupter)
                fired = interrupter.fired
                return scope.cancelled_caught

            before = trio.lowlevel.current_statistics().tasks_living
            with trio.fail_after(20):
                await scenario(attempt)
            assert trio.lowlevel.current_statistics().tasks_living == before, (moment, step)
            cancelled += fired
    assert cancelled >= least
    return cancelled


def open_streams(*sessions: moqt.Session) -> list[list[object]]:
    """The streams that each session's connection keeps."""
    return [list(session._context.connection.streams.values()) for session in sessions]


class Pair:
    """A pair of sessions that is checked at its end: nothing leaked, and it still works.

    Attributes:
        client, server: The sessions.
    """

    def __init__(self, version: str = "moq-lite-06", **options: object) -> None:
        self._pair = session_pair(version, **options)

    async def __aenter__(self) -> Pair:
        self.client, self.server = await self._pair.__aenter__()
        await trio.testing.wait_all_tasks_blocked()
        self._streams = open_streams(self.client, self.server)
        return self

    async def __aexit__(self, kind, value, traceback) -> None:
        try:
            if kind is None and self.client.closed is None:
                await self._check()
        finally:
            await self._pair.__aexit__(kind, value, traceback)

    async def _check(self) -> None:
        await trio.testing.wait_all_tasks_blocked()
        assert open_streams(self.client, self.server) == self._streams
        for session in (self.client, self.server):
            numbers = session.statistics()
            assert (numbers.publications, numbers.subscriptions, numbers.subscriptions_served) == (0, 0, 0)
        broadcast = moqt.Broadcast()
        track = broadcast.track("after")
        async with self.server.publish("after", broadcast), self.client.subscribe("after", "after") as subscription:
            await track.wait_subscribed()
            await track.write(b"still here")
            assert await (await subscription.receive()).read_all() == [b"still here"]
        assert self.client.closed is None
        assert self.server.closed is None


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds that tasks on the other side of a socket will bring about."""
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - no event reports what happens across a socket
            await trio.sleep(0.001)
