"""The caches of many tracks within one bound."""

from __future__ import annotations

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

import moqt_trio as moqt
from moqt_trio.model.cursor import GroupRange
from moqt_trio.model.pool import FRAME_COST, GROUP_COST, CachePool
from moqt_trio.model.track import state_of
from tests.relay.relays import relay


def tracks(pool: CachePool, count: int, **limits) -> list[moqt.Track]:
    """Return tracks that share a pool."""
    broadcast = moqt.Broadcast(limits=moqt.Limits(**limits))
    made = [broadcast.track(str(number), max_age=1000) for number in range(count)]
    for track in made:
        state_of(track).share_cache(pool)
    return made


def kept(track: moqt.Track) -> list[int]:
    """Return the groups that a track keeps."""
    return state_of(track).kept(0, 1 << 61)


def cost(payload: int, frames: int = 1) -> int:
    """Return what a group costs whose frames have so many bytes together."""
    return payload + GROUP_COST + FRAME_COST * frames


async def test_the_longest_unused_goes_first():
    """Its oldest groups, and never its latest one; a track that is read counts as used."""
    pool = CachePool(16 * cost(1000))
    idle, read, busy = tracks(pool, 3)
    for track in (idle, read):
        for _ in range(4):
            await track.write(bytes(1000))
    state = state_of(read)
    state.attach(state.cursor(lambda: None, range=GroupRange(), max_age=1000, replay=True))
    for _ in range(9):
        await busy.write(bytes(1000))
    # One sixteenth of the pool is freed at a time, and room for the group that was one too many.
    assert (kept(idle), kept(read), kept(busy)) == ([2, 3], [0, 1, 2, 3], list(range(9)))
    for _ in range(100):
        await busy.write(bytes(1000))
        assert pool.total <= pool.most_bytes
    assert (kept(idle), kept(read), kept(busy)[-1]) == ([3], [3], 108)


async def test_latest_groups_lose_their_first_frames_at_last():
    """Many tracks with one long group each stay within the bound, too; each keeps its newest frame."""
    pool = CachePool(100_000)
    many = tracks(pool, 20)
    groups = [track.open_group() for track in many]
    for number in range(100):
        for group in groups:
            await group.send(b"%d" % number * 100)
            assert pool.total <= pool.most_bytes
    for track, group in zip(many, groups, strict=True):
        [part] = state_of(track).parts(0)
        assert part.frame(part.length - 1) == b"99" * 100
        group.finish()


async def test_a_track_that_is_gone_costs_nothing():
    """Its account goes with it, and so when it is removed from its broadcast."""
    pool = CachePool(100_000)
    broadcast = moqt.Broadcast()
    for name in ("one", "two"):
        state_of(broadcast.track(name)).share_cache(pool)
        await broadcast.tracks[name].write(bytes(1000))
    assert pool.total == 2 * cost(1000)
    broadcast.remove("one")
    assert pool.total == cost(1000)
    del broadcast
    gc.collect()
    assert pool.total == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["open", "send", "end", "reset", "write"]), st.integers(0, 3000))
    )
)
async def test_the_account_is_right(steps):
    """Whatever is written, the total is what the caches cost, and within the bound as far as there is what may go."""
    pool = CachePool(8_000)
    many = tracks(pool, 4, cache_groups=5, cache_bytes=6_000)
    current: list[moqt.GroupWriter | None] = [None] * 4
    for which, step, size in steps:
        group = current[which]
        if step == "open" and group is None:
            current[which] = many[which].open_group()
        elif step == "write":
            many[which].write_nowait(bytes(size), 0)
        elif group is not None:
            if step == "send":
                group.send_nowait(bytes(size), 0)
            else:
                group.finish() if step == "end" else group.reset()
                current[which] = None
        caches = [state_of(track)._cache for track in many]
        assert pool.total == sum(cache.cost for cache in caches)
        assert sum(cache.cost for cache in caches) == sum(
            part.size + GROUP_COST + FRAME_COST * len(part.frames)
            for track in many
            for sequence in kept(track)
            for part in state_of(track).parts(sequence)
        )
        if pool.total > pool.most_bytes:
            for track in many:
                ended = [part.ended for number in kept(track)[:-1] for part in state_of(track).parts(number)]
                assert not any(ended)
    for group in current:
        if group is not None:
            group.finish()


async def test_through_a_relay():
    """A relay's bound holds over all of its tracks, and its viewers get everything."""
    origin = moqt.Origin(cache_bytes=200_000)
    async with relay(origin) as found, found.connect() as peer:
        broadcast = moqt.Broadcast()
        made = [broadcast.track(str(number)) for number in range(10)]
        async with peer.publish("live", broadcast), found.connect() as viewer:
            await viewer.wait_announced("live")
            for track in made:
                async with viewer.subscribe("live", track.name) as subscription:
                    await track.wait_subscribed()
                    for number in range(10):
                        await track.write(bytes([number]) * 10_000)
                        assert await (await subscription.receive()).read_all() == [bytes([number]) * 10_000]
                        assert origin.statistics().cached_bytes <= 200_000
            assert origin.statistics().cached_bytes > 150_000


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-1, ValueError), ("1 GiB", TypeError)])
def test_a_wrong_bound(value, error):
    """The message names it."""
    with pytest.raises(error, match="cache_bytes"):
        moqt.Origin(cache_bytes=value)
