"""Reliable delivery: the writer waits for the slowest subscriber, and no group is dropped."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from moqt_trio.model.track import state_of
from tests.api.instructions import instructions


@pytest.fixture
async def writing(nursery):
    """Start a write, and return whether it still waits."""

    class Writing:
        def __init__(self):
            self.done = False

        async def run(self, track, payload):
            await track.write(payload)
            self.done = True

        async def waits(self):
            await trio.testing.wait_all_tasks_blocked()
            return not self.done

    def start(track, payload=b"x"):
        writing = Writing()
        nursery.start_soon(writing.run, track, payload)
        return writing

    return start


async def test_without_subscribers_nothing_waits(make_track):
    """A reliable track without subscribers takes all that is written."""
    track = make_track(delivery="reliable", reliable_backlog=1, reliable_backlog_groups=1)
    for _ in range(10):
        await track.write(b"abc")
        track.write_nowait(b"abc")


async def test_the_writer_waits_for_the_slowest_of_three(make_track, subscribe, writing):
    """Past the bound in bytes a write waits until the slowest subscriber has taken enough, not before."""
    track = make_track(delivery="reliable", reliable_backlog=6)
    fast, middle, slow = (subscribe(track) for _ in range(3))
    await track.write(b"abc")
    await track.write(b"def")
    write = writing(track)
    assert await write.waits()
    fast.read()
    assert await write.waits()
    middle.take(0)
    assert await write.waits()
    slow.take(0)
    assert not await write.waits()
    assert slow.read() == {1: [b"def"], 2: [b"x"]}


async def test_the_writer_waits_past_the_bound_in_groups(make_track, subscribe, writing):
    """A subscriber may have so many groups of backlog; with one more the writer waits."""
    track = make_track(delivery="reliable", reliable_backlog_groups=2)
    reader = subscribe(track)
    for _ in range(3):
        await track.write(b"")
    with pytest.raises(trio.WouldBlock):
        track.write_nowait(b"")
    write = writing(track)
    assert await write.waits()
    reader.take(0)
    assert not await write.waits()


async def test_the_writer_waits_past_the_bound_in_frames(make_track, subscribe, writing):
    """Frames without a byte fill the bound as well: a stalled subscriber holds up even an empty stream of them."""
    track = make_track(delivery="reliable", reliable_backlog_frames=3)
    reader = subscribe(track)
    group = track.open_group()
    for _ in range(3):
        group.send_nowait(b"")
    with pytest.raises(trio.WouldBlock):
        group.send_nowait(b"")
    write = writing(track)
    assert await write.waits()
    assert reader.take(0) == [b"", b"", b""]
    assert not await write.waits()


async def test_taking_part_of_a_group_makes_room(make_track, subscribe, writing):
    """Room comes with each frame that is taken, also while the group is open."""
    track = make_track(delivery="reliable", reliable_backlog=4)
    reader = subscribe(track)
    group = track.open_group()
    for payload in (b"ab", b"cd", b"ef"):
        if state_of(track).has_room():
            group.send_nowait(payload)
    write = writing(track)
    assert await write.waits()
    assert reader.take(0, 2) == [b"ab"]
    assert not await write.waits()


@pytest.mark.parametrize("event", ["detach", "remove", "reset", "abort"])
async def test_room_is_made_by_every_way_out(make_track, subscribe, nursery, event):
    """A waiting writer goes on when the slow subscriber is detached or refuses the group, or on reset or abort."""
    track = make_track(delivery="reliable", reliable_backlog=2)
    slow, _other = subscribe(track), subscribe(track, start_group=100)
    group = track.open_group()
    group.send_nowait(b"ab")
    outcome = []

    async def write():
        try:
            outcome.append(await track.write(b"c"))
        except trio.ClosedResourceError:
            outcome.append("closed")

    nursery.start_soon(write)
    nursery.start_soon(write)
    await trio.testing.wait_all_tasks_blocked()
    assert outcome == []
    {
        "detach": slow.detach,
        "remove": lambda: slow.cursor.remove(0),
        "reset": group.reset,
        "abort": track.abort,
    }[event]()
    await trio.testing.wait_all_tasks_blocked()
    assert sorted(map(str, outcome)) == (["closed", "closed"] if event == "abort" else ["1", "2"])


async def test_writers_wait_in_turn(make_track, subscribe, writing):
    """Of several writers that wait, each goes on only as there is room for it."""
    track = make_track(delivery="reliable", reliable_backlog=2)
    reader = subscribe(track)
    await track.write(b"ab")
    writes = [writing(track, b"cd") for _ in range(3)]
    for expected in (2, 1, 0):
        reader.read()
        assert sum([await write.waits() for write in writes]) == expected


async def test_a_subscriber_that_comes_while_a_writer_waits(make_track, subscribe, writing):
    """A waiting writer waits for a new subscriber too, when that one starts past the bound."""
    track = make_track(delivery="reliable", reliable_backlog=2)
    first = subscribe(track)
    await track.write(b"ab")
    write = writing(track)
    assert await write.waits()
    second = subscribe(track)
    first.read()
    assert await write.waits()
    second.read()
    assert not await write.waits()


async def test_open_groups_that_were_read_are_no_lag(make_track, subscribe):
    """However many groups are open at once, a subscriber that has read all there is does not hold up the writer."""
    track = make_track(delivery="reliable", reliable_backlog_groups=2)
    reader = subscribe(track)
    writers = [track.open_group() for _ in range(6)]
    with trio.fail_after(1):
        for writer in writers:
            await writer.send(b"a")
            reader.read()
    assert state_of(track).has_room()


async def test_nothing_is_lost(make_track, subscribe, autojump_clock):
    """A slow reliable subscriber gets every frame of every group in order, past cache bounds and max age."""
    track = make_track(
        delivery="reliable",
        max_age=0,
        reliable_backlog=50,
        reliable_backlog_groups=5,
        cache_bytes=10,
        cache_groups=2,
        live_backlog=1,
        live_backlog_groups=1,
    )
    slow = subscribe(track, max_age=0)
    got = {}

    async def read():
        while not slow.cursor.done:
            for sequence, frames in slow.read(7).items():
                got.setdefault(sequence, []).extend(frames)
            for entry in slow.cursor.pending.values():
                slow.cursor.requeue(entry)
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for number in range(30):
            async with track.open_group() as group:
                for frame in range(3):
                    await group.send(bytes([number, frame]) * 3)
        track.finish()
    assert got == {number: [bytes([number, frame]) * 3 for frame in range(3)] for number in range(30)}
    assert slow.cursor.dropped_groups == 0


async def test_datagrams_keep_to_the_bound(make_track, subscribe):
    """On a reliable track a datagram raises WouldBlock past the bound, and takes no number."""
    track = make_track(delivery="reliable", reliable_backlog=2)
    reader = subscribe(track)
    track.send_datagram(b"ab")
    with pytest.raises(trio.WouldBlock):
        track.send_datagram(b"c")
    assert track.latest == 0
    reader.read()
    assert track.send_datagram(b"c") == 1


async def test_one_reads_among_many_while_the_writer_waits(make_track, subscribe, writing):
    """What a subscriber takes costs the same however many others there are, while the writer waits for one of them."""
    costs = []
    for count in (30, 300):
        track = make_track(delivery="reliable", reliable_backlog_frames=50)
        group = track.open_group()
        subscribers = [subscribe(track) for _ in range(count)]
        for _ in range(50):
            group.send_nowait(b"x")
        write = writing(track)
        assert await write.waits()
        for subscriber in subscribers[1:]:
            assert subscriber.take(0, 1) == [b"x"]

        async def read(readers=subscribers[-10:]):
            for reader in readers:
                assert reader.take(0, 1) == [b"x"]

        costs.append(await instructions(read))
        assert await write.waits()
        assert subscribers[0].take(0, 1) == [b"x"]
        assert not await write.waits()
    assert costs[1] <= 1.5 * costs[0], costs


async def test_who_fills_up_while_the_writer_waits(make_track, subscribe, writing):
    """A writer waits on for a subscriber that is full by the time at which the one before it has taken its frames."""
    track = make_track(delivery="reliable", reliable_backlog=4)
    first = subscribe(track)
    await track.write(b"abcd")
    write = writing(track, b"efgh")
    assert await write.waits()
    second = subscribe(track, start_group=0)
    assert second.pending == [0]
    assert first.take(0) == [b"abcd"]
    assert await write.waits()
    second.detach()
    assert not await write.waits()
