"""More requests at once than a peer takes: they wait for a place, or the refusal says what to do."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair

FEW = moqt.Limits(max_streams=8)


def log_of(groups: int) -> moqt.Broadcast:
    """Return a broadcast whose track `log` has so many groups."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("log", max_age=600)
    for number in range(groups):
        track.write_nowait(b"%d" % number)
    return broadcast


def test_by_default_the_streams_run_out_first():
    """A request that finds no stream waits on this side; one that finds no place is refused by the other."""
    limits = moqt.Limits()
    assert limits.max_requests >= limits.max_streams
    assert limits.max_subscriptions >= limits.max_streams


@pytest.mark.parametrize("version", ["moq-transfork-03", "moq-lite-03", "moq-lite-06"])
async def test_fetches_wait_for_a_place(version, autojump_clock):
    """Many more fetches than there may be streams all get their groups."""
    count = 200
    got: list[bytes] = []

    async def fetch(session: moqt.Session, number: int) -> None:
        async with session.fetch("b", "log", number) as group:
            got.extend(await group.read_all())

    async with session_pair(version, limits=FEW) as (client, server), server.publish("b", log_of(count)):
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(count):
                    nursery.start_soon(fetch, client, number)
    assert sorted(got, key=int) == [b"%d" % number for number in range(count)]


async def test_announcements_wait_for_a_place(autojump_clock):
    """A list of announcements that finds no stream begins once another one was left."""
    async with session_pair("moq-lite-06", limits=FEW) as (client, server), server.publish("b", log_of(1)):
        leave, began = trio.Event(), 0

        async def listen() -> None:
            nonlocal began
            async with client.announcements() as announcements:
                await announcements.receive()
                began += 1
                await leave.wait()

        async with trio.open_nursery() as nursery:
            for _ in range(3 * FEW.max_streams):
                nursery.start_soon(listen)
            await trio.testing.wait_all_tasks_blocked()
            assert began == FEW.max_streams
            leave.set()
        assert began == 3 * FEW.max_streams


async def test_a_refusal_says_what_to_do(autojump_clock):
    """A peer that takes fewer requests than streams refuses the rest; the error says that they were too many."""
    limits = attrs.evolve(moqt.Limits(), max_requests=2)
    async with session_pair("moq-lite-06", limits=limits) as (client, server), server.publish("b", log_of(1)):
        async with client.announcements() as one, client.announcements() as two:
            await one.receive()
            await two.receive()
            async with client.announcements() as three:
                with pytest.raises(moqt.StreamReset, match="serves no more requests at once") as caught:
                    await three.receive()
        assert caught.value.code == moqt.StreamCode.NO_CAPACITY
        async with client.announcements() as again:
            await again.receive()
