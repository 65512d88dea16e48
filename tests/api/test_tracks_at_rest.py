"""The memory of tracks that rest: what leaves a broadcast when nothing is written, and what stays."""

from __future__ import annotations

import contextlib
import gc
import weakref

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.model.track import state_of
from moqt_trio.testing import session_pair

MAX_AGE = 5.0
LOOK = 1.5
"""Seconds, by the test's clock, after which what is too old has left."""


async def read_groups(session: moqt.Session, track: str, **options: float) -> list[bytes]:
    """Returns the frames of a track that is finished."""
    frames: list[bytes] = []
    async with session.subscribe("a", track, **options) as subscription:
        async for group in subscription:
            frames += await group.read_all()
    return frames


async def test_finished_track_leaves(autojump_clock):
    """A finished track can be read for `max_age`, with its name in use, and then leaves the broadcast."""
    async with session_pair() as (client, server):
        broadcast = moqt.Broadcast()
        async with server.publish("a", broadcast):
            track = broadcast.track("t", max_age=MAX_AGE)
            await track.write(b"frame")
            track.finish()
            await trio.sleep(MAX_AGE - 0.1)
            assert await read_groups(client, "t") == [b"frame"]
            await trio.sleep(LOOK)
            assert dict(broadcast.tracks) == {}
            with pytest.raises(moqt.NotFound):
                await read_groups(client, "t")


@pytest.mark.parametrize("end", ["finish", "abort"])
async def test_memory_is_freed(autojump_clock, end):
    """The groups of a track that has left are freed, also while the application still has the track."""
    async with session_pair() as (_, server):
        broadcast = moqt.Broadcast()
        async with server.publish("a", broadcast):
            track = broadcast.track("t", max_age=MAX_AGE)
            await track.write(bytes(1000))
            getattr(track, end)()
            assert state_of(track).size == 1000
            await trio.sleep(MAX_AGE + LOOK)
            assert state_of(track).size == 0
            assert "t" not in broadcast.tracks


async def test_subscriber_that_reads_holds_it(autojump_clock):
    """A finished track stays as long as a subscription has not read all of it."""
    async with session_pair() as (client, server):
        broadcast = moqt.Broadcast()
        async with server.publish("a", broadcast):
            track = broadcast.track("t", max_age=MAX_AGE)
            async with client.subscribe("a", "t") as subscription:
                await track.wait_subscribed()
                async with track.open_group() as writer:
                    await writer.send(b"first")
                    group = await anext(subscription)
                    track.finish()
                    await trio.sleep(3 * MAX_AGE)
                    assert "t" in broadcast.tracks
                    await writer.send(b"last")
                assert await group.read_all() == [b"first", b"last"]
            await trio.sleep(MAX_AGE + LOOK)
            assert "t" not in broadcast.tracks


async def test_idle_track_ages(autojump_clock):
    """Of a track that is not written any more only the newest group stays, once the others are older than `max_age`."""
    async with session_pair() as (client, server):
        broadcast = moqt.Broadcast()
        async with server.publish("a", broadcast):
            track = broadcast.track("t", max_age=MAX_AGE)
            for number in range(10):
                await track.write(b"%d" % number)
            await trio.sleep(MAX_AGE - 0.1)
            async with client.fetch("a", "t", 3) as fetch:
                assert await fetch.read_all() == [b"3"]
            await trio.sleep(LOOK)
            for number in range(9):
                with pytest.raises(moqt.NotFound):
                    async with client.fetch("a", "t", number) as fetch:
                        await fetch.read_all()
            async with client.fetch("a", "t", 9) as fetch:
                assert await fetch.read_all() == [b"9"]
            assert broadcast.tracks == {"t": track}


async def test_number_and_bytes_are_bounded():
    """Of the tracks that have ended, a broadcast keeps the last ones within the bounds, published or not."""
    broadcast = moqt.Broadcast(limits=moqt.Limits(finished_tracks=10, finished_bytes=5000))
    live = broadcast.track("live")
    for number in range(50):
        track = broadcast.track(f"small-{number}")
        await track.write(bytes(10))
        track.finish()
    assert list(broadcast.tracks) == ["live", *(f"small-{number}" for number in range(40, 50))]
    for number in range(4):
        track = broadcast.track(f"large-{number}")
        await track.write(bytes(2000))
        track.finish()
    assert list(broadcast.tracks) == ["live", "large-2", "large-3"]
    assert not live.ended


async def test_finished_tracks_cost_nothing():
    """2,000 tracks that come, are read and go leave no more than the first 200 did: the objects are counted."""
    limits = moqt.Limits(finished_tracks=50, max_tombstones=50)
    async with session_pair(limits=limits) as (client, server):
        broadcast = moqt.Broadcast(limits=limits)
        async with server.publish("a", broadcast):

            async def run(numbers: range) -> int:
                for number in numbers:
                    track = broadcast.track(f"{number}")
                    async with client.subscribe("a", f"{number}") as subscription:
                        await track.write(b"frame")
                        track.finish()
                        async for group in subscription:
                            await group.read_all()
                gc.collect()
                return len(gc.get_objects())

            before = await run(range(200))
            after = await run(range(200, 2200))
    assert after - before < 200


async def test_remove(autojump_clock):
    """`remove` finishes a track: who reads it gets the rest, who asks later gets NotFound, and the name is free."""
    async with session_pair() as (client, server):
        broadcast = moqt.Broadcast()
        async with server.publish("a", broadcast):
            track = broadcast.track("t")
            async with client.subscribe("a", "t") as subscription:
                await track.wait_subscribed()
                await track.write(b"one")
                await track.write(b"two")
                broadcast.remove("t")
                assert track.ended
                assert dict(broadcast.tracks) == {}
                with pytest.raises(moqt.NotFound):
                    await read_groups(client, "t")
                assert sorted([(await group.read_all())[0] async for group in subscription]) == [b"one", b"two"]
            with pytest.raises(KeyError):
                broadcast.remove("t")
            again = broadcast.track("t")
            await again.write(b"again")
            again.finish()
            assert await read_groups(client, "t") == [b"again"]


async def test_remove_while_a_group_is_written(autojump_clock):
    """A group that is open when its track is removed can be written to its end."""
    async with session_pair() as (client, server):
        broadcast = moqt.Broadcast()
        async with server.publish("a", broadcast):
            track = broadcast.track("t")
            async with client.subscribe("a", "t") as subscription:
                await track.wait_subscribed()
                async with track.open_group() as writer:
                    await writer.send(b"first")
                    broadcast.remove("t")
                    await writer.send(b"last")
                assert await (await anext(subscription)).read_all() == [b"first", b"last"]
            abandoned = broadcast.track("u").open_group()
            broadcast.remove("u")
            abandoned.reset()


async def test_next_session_takes_over(autojump_clock):
    """What ages goes on to do so when the session that published the broadcast first ends: the next one sees to it."""
    broadcast = moqt.Broadcast()
    async with session_pair() as (_, second), second.publish("a", broadcast):
        track = broadcast.track("t", max_age=MAX_AGE)
        async with session_pair() as (_, first), first.publish("a", broadcast), first.publish("b", broadcast):
            track.finish()
        await trio.sleep(MAX_AGE + LOOK)
        assert "t" not in broadcast.tracks
    late = broadcast.track("late", max_age=MAX_AGE)
    late.finish()
    async with session_pair() as (_, third), third.publish("a", broadcast):
        await trio.sleep(MAX_AGE + LOOK)
        assert "late" not in broadcast.tracks


async def test_a_session_that_ends_before_its_publication(autojump_clock):
    """Writing goes on when the session that kept the broadcast has ended, and another session keeps it."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=MAX_AGE)
    async with session_pair() as (_, other), contextlib.AsyncExitStack() as left_later:
        async with session_pair() as (_, server):
            await left_later.enter_async_context(server.publish("a", broadcast))
        await track.write(b"first")
        await track.write(b"second")
        async with other.publish("a", broadcast):
            assert state_of(track).group(0) is not None
            await trio.sleep(MAX_AGE + LOOK)
            assert state_of(track).group(0) is None


@pytest.mark.parametrize("how", ["lost", "left"])
async def test_a_session_that_ends_while_another_publishes(how, autojump_clock):
    """The next session keeps the broadcast once the first one is lost, also while its block goes on."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=MAX_AGE)
    async with session_pair() as (_, other), contextlib.AsyncExitStack() as left_later:
        async with session_pair() as (client, server):
            await left_later.enter_async_context(server.publish("a", broadcast))
            await left_later.enter_async_context(other.publish("a", broadcast))
            await track.write(b"first")
            await track.write(b"second")
            if how == "lost":
                await client.aclose()
                await trio.sleep(MAX_AGE + LOOK)
                assert state_of(track).group(0) is None
        await trio.sleep(MAX_AGE + LOOK)
        assert state_of(track).group(0) is None


async def test_no_task_outlives_the_block(autojump_clock):
    """The task that sees to it exists while something ages, and not after the block of `publish`."""
    async with session_pair() as (_, server):
        # Tasks that look after the session's beginning end within twice `Limits.setup_timeout`.
        await trio.sleep(2 * server.limits.setup_timeout + 1)
        before = trio.lowlevel.current_statistics().tasks_living
        broadcast = moqt.Broadcast()
        async with server.publish("a", broadcast):
            track = broadcast.track("t", max_age=MAX_AGE)
            for _ in range(3):
                await track.write(b"frame")
            await trio.sleep(1)
            assert trio.lowlevel.current_statistics().tasks_living == before + 1
            await trio.sleep(MAX_AGE + LOOK)
            assert trio.lowlevel.current_statistics().tasks_living == before
            track.finish()
            await trio.sleep(1)
            assert trio.lowlevel.current_statistics().tasks_living == before + 1
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_broadcast_is_freed_at_once():
    """A broadcast that nothing refers to is freed without the collector, with all that its tracks keep."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    await track.write(bytes(1000))
    track.finish()
    freed = weakref.ref(broadcast), weakref.ref(track)
    gc.disable()
    try:
        del broadcast, track
        assert [ref() for ref in freed] == [None, None]
    finally:
        gc.enable()


async def test_end_of_a_track_is_announced(autojump_clock):
    """In a version that announces tracks, one that leaves is withdrawn."""
    async with session_pair("moq-transfork-03") as (client, server):
        broadcast = moqt.Broadcast()
        async with server.publish("a", broadcast), client.announcements() as announcements:
            broadcast.track("t", max_age=MAX_AGE).finish()
            assert (await announcements.receive()).active
            with trio.fail_after(MAX_AGE + LOOK):
                assert not (await announcements.receive()).active
