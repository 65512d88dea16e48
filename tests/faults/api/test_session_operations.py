"""Random operations on two sessions that are connected, in every version: documented errors, and nothing is left.

`tests/faults/bytes/test_operations.py` does the same to the state machines below them.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.faults.state_wire import ALL

PATHS, TRACKS = ("a", "a/b", "c"), ("t", "u")
DOCUMENTED = (moqt.MoqtError, trio.EndOfChannel, trio.ClosedResourceError, trio.BusyResourceError, trio.WouldBlock)
LIMITS = moqt.Limits(
    max_subscriptions=6, max_requests=4, max_streams=16, max_announcements=3, live_backlog_groups=4, max_open_groups=3
)
settled = trio.testing.wait_all_tasks_blocked


@attrs.define(eq=False)
class Held:
    """A block of a session that a task of its own is in.

    Attributes:
        value: What the block yielded, once it was entered.
        leave: Set to have it left.
        scope: Cancelled to have it cancelled.
        over: Set when it was left.
    """

    value: Any = None
    leave: trio.Event = attrs.Factory(trio.Event)
    scope: trio.CancelScope = attrs.Factory(trio.CancelScope)
    over: trio.Event = attrs.Factory(trio.Event)


class World:
    """Two sessions, what is published on them, and the blocks that are entered.

    Args:
        sides: The sessions.
        nursery: Runs the blocks.
    """

    def __init__(self, sides: tuple[moqt.Session, moqt.Session], nursery: trio.Nursery) -> None:
        self.sides = sides
        self._nursery = nursery
        self.broadcasts = [[moqt.Broadcast() for _ in PATHS] for _ in sides]
        self.writers: list[moqt.GroupWriter] = []
        self.readers: list[moqt.GroupReader] = []
        self.held: dict[str, list[Held]] = {
            kind: [] for kind in ("publication", "subscription", "fetch", "announcements", "probe")
        }

    # -- blocks --------------------------------------------------------------------------------------------

    async def _hold(self, kind: str, block: AbstractAsyncContextManager) -> None:
        held = Held()
        # A path that is taken is a ValueError.
        documented = (*DOCUMENTED, ValueError) if kind == "publication" else DOCUMENTED

        async def run() -> None:
            try:
                with held.scope:
                    async with block as held.value:
                        await held.leave.wait()
            except documented:
                pass
            finally:
                if held in self.held[kind]:
                    self.held[kind].remove(held)
                held.over.set()

        self.held[kind].append(held)
        self._nursery.start_soon(run)
        await trio.lowlevel.checkpoint()

    def _one(self, kind: str, number: int) -> Any:
        entered = [held.value for held in self.held[kind] if held.value is not None]
        if not entered:
            raise trio.WouldBlock
        return entered[number % len(entered)]

    def _track(self, number: int) -> moqt.Track:
        broadcast = self.broadcasts[number % 2][number // 2 % len(PATHS)]
        name = TRACKS[number // 6 % len(TRACKS)]
        return broadcast.tracks.get(name) or broadcast.track(name, delivery="reliable" if number % 5 == 4 else "live")

    # -- operations ----------------------------------------------------------------------------------------

    async def publish(self, number: int) -> None:
        side, path = number % 2, number // 2 % len(PATHS)
        await self._hold("publication", self.sides[side].publish(PATHS[path], self.broadcasts[side][path]))

    async def write(self, number: int) -> None:
        self._track(number).write_nowait(bytes(number * 97 % 5000))

    async def open_group(self, number: int) -> None:
        self.writers.append(self._track(number).open_group())

    async def send(self, number: int) -> None:
        if self.writers:
            self.writers[number % len(self.writers)].send_nowait(bytes(number * 31 % 3000))

    async def finish_group(self, number: int) -> None:
        if self.writers:
            self.writers.pop(number % len(self.writers)).finish()

    async def reset_group(self, number: int) -> None:
        if self.writers:
            self.writers.pop(number % len(self.writers)).reset(number % 8)

    async def finish_track(self, number: int) -> None:
        self._track(number).finish()

    async def subscribe(self, number: int) -> None:
        ranged = {"start_group": number % 4} if number % 3 == 0 else {}
        if number % 9 == 0:
            ranged["end_group"] = number % 4 + 1
        block = self.sides[number % 2].subscribe(
            PATHS[number // 2 % len(PATHS)], TRACKS[number // 6 % len(TRACKS)], max_age=number % 3, **ranged
        )
        await self._hold("subscription", block)

    async def update(self, number: int) -> None:
        with trio.move_on_after(0.1):
            await self._one("subscription", number).update(priority=number % 128, max_age=number % 4)

    async def fetch(self, number: int) -> None:
        block = self.sides[number % 2].fetch(
            PATHS[number // 2 % len(PATHS)], TRACKS[number // 6 % len(TRACKS)], number % 4
        )
        await self._hold("fetch", block)

    async def ask_announcements(self, number: int) -> None:
        await self._hold("announcements", self.sides[number % 2].announcements(("", "a")[number // 2 % 2]))

    async def probe(self, number: int) -> None:
        await self._hold("probe", self.sides[number % 2].probe(number or None))

    async def take_group(self, number: int) -> None:
        with trio.move_on_after(0.1):
            self.readers.append(await self._one("subscription", number).receive())

    async def read(self, number: int) -> None:
        source = self.readers[number % len(self.readers)] if self.readers else self._one("fetch", number)
        with trio.move_on_after(0.1):
            await source.receive()

    async def close_reader(self, number: int) -> None:
        if self.readers:
            self.readers.pop(number % len(self.readers)).close()

    async def read_announcements(self, number: int) -> None:
        with trio.move_on_after(0.1):
            await self._one("announcements", number).receive()

    async def leave(self, number: int) -> None:
        every = [held for kind in self.held.values() for held in kind]
        if every:
            every[number % len(every)].leave.set()

    async def cancel(self, number: int) -> None:
        every = [held for kind in self.held.values() for held in kind]
        if every:
            every[number % len(every)].scope.cancel()

    async def settle(self, number: int) -> None:
        await settled()

    async def wait(self, number: int) -> None:
        await trio.sleep(number / 10)

    async def go_away(self, number: int) -> None:
        if number % 20 == 7:
            await self.sides[number % 2].goaway()

    # -- what holds ----------------------------------------------------------------------------------------

    def check(self) -> None:
        """What is held belongs to a block, on either side, and neither side broke the protocol."""
        for side, session in enumerate(self.sides):
            assert session.closed is None, session.closed
            other = self.sides[1 - side]
            assert repr(session)
            assert session.statistics() is not None
            assert len(session._context.core._state.issued) <= len(self.held["subscription"])
            assert len(other._publisher.subscriptions) <= LIMITS.max_subscriptions
            serving = session._publisher._serving
            assert 0 <= serving.lists <= LIMITS.max_requests
            assert serving.listed >= 0
            assert session._context.unread_frames.count >= 0
            assert session._context.core._state.requests.taken <= LIMITS.max_requests

    async def end(self) -> None:
        """Leave every block; nothing is left of any of them, and the sessions still work."""
        for writer in self.writers:
            with suppress(DOCUMENTED):
                writer.finish()
        for kind in ("announcements", "probe", "fetch", "subscription", "publication"):
            for held in list(self.held[kind]):
                held.leave.set()
                await held.over.wait()
        for reader in self.readers:
            reader.close()
        await trio.sleep(2 * LIMITS.setup_timeout + 1)
        for session in self.sides:
            assert session.closed is None
            assert session._publisher.subscriptions == []
            serving = session._publisher._serving
            assert (serving.lists, serving.listed, len(serving.short_of_streams)) == (0, 0, 0)
            assert len(session._context.core._state.issued) == 0
            assert len(session._context.core._state.peers) == 0
            assert session._context.core._state.requests.taken == 0
            assert session._context.unread_frames.count == 0
            assert not session._context.pending_streams


OPERATIONS: dict[str, Callable[[World, int], Awaitable[None]]] = {
    name: function
    for name, function in vars(World).items()
    if not name.startswith("_") and name not in ("check", "end")
}
Steps = Sequence[tuple[str, int]]
FIRST: Steps = [("publish", 0), ("publish", 1), ("publish", 2), *(("write", number) for number in range(12))]
"""What every sequence begins with: without anything published most others do nothing."""


async def operate(version: str, steps: Steps) -> None:
    """Do these operations on two sessions; check after each, and at the end."""
    before = trio.lowlevel.current_statistics().tasks_living
    async with session_pair(version, limits=LIMITS) as sides, trio.open_nursery() as nursery:
        world = World(sides, nursery)
        for name, number in (*FIRST, *steps):
            with suppress(DOCUMENTED):
                await OPERATIONS[name](world, number)
            world.check()
        await world.end()
    assert trio.lowlevel.current_statistics().tasks_living == before


def run_operations(version: str, steps: Steps) -> None:
    """Do these operations on two sessions, in an event loop of their own."""
    trio.run(operate, version, steps, clock=trio.testing.MockClock(autojump_threshold=0))


def random_operations(version: str, *, sequences: int, steps: int, first_seed: int = 0) -> None:
    """Do so many sequences of so many random operations; a failure names its seed."""
    names = list(OPERATIONS)
    for number in range(first_seed, first_seed + sequences):
        chance = random.Random(f"{version} {number}")
        drawn = [(chance.choice(names), chance.randrange(64)) for _ in range(steps)]
        try:
            run_operations(version, drawn)
        except BaseException as error:
            error.add_note(f"version {version}, seed {number}: {drawn}")
            raise


@pytest.mark.parametrize("version", ALL)
def test_random_operations_on_two_sessions(version):
    """Operations in any order end in documented errors; what they held is given back, and no task is left."""
    random_operations(version, sequences=200, steps=50)


@pytest.mark.parametrize("version", ALL)
def test_operations_that_hypothesis_chooses(version):
    """The same with sequences that are made smaller when one fails."""

    @seed(10)
    @settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, 63)), max_size=50))
    def run(steps: Steps) -> None:
        run_operations(version, steps)

    run()
