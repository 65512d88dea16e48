"""A track's own side: numbers, arguments, demand and ends."""

from __future__ import annotations

import math

import pytest
import trio
import trio.testing

from moqt_trio.codes import StreamCode
from moqt_trio.model.track import state_of


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"name": "é" * 513}, "1024"),
        ({"priority": 256}, "256"),
        ({"priority": -1}, "-1"),
        ({"delivery": "fast"}, "'fast'"),
        ({"max_age": -0.5}, "-0.5"),
        ({"max_age": math.inf}, "inf"),
        ({"max_age": math.nan}, "nan"),
        ({"max_age": 2.0**51}, "2251799813685248"),
        ({"timescale": 0}, "0"),
        ({"timescale": 2**62}, str(2**62)),
    ],
)
def test_bad_arguments_are_refused(make_track, options, named):
    """A track with an argument out of range is refused by a ValueError that names the value or the bound."""
    with pytest.raises(ValueError, match=named):
        make_track(**options)


def test_arguments_at_their_bounds_are_taken(make_track):
    """The outermost values of each argument are good."""
    make_track("é" * 512, priority=0, max_age=0, timescale=1)
    make_track("", priority=255, timescale=2**62 - 1)


async def test_sequences_count_up(make_track):
    """Groups take the next number; a number of the caller's own moves the count past it."""
    track = make_track()
    assert track.latest is None
    assert track.open_group().sequence == 0
    assert await track.write(b"a") == 1
    assert track.open_group(10).sequence == 10
    assert track.latest == 10
    assert track.open_group(5).sequence == 5
    assert track.latest == 10
    assert track.write_nowait(b"a") == 11
    assert track.send_datagram(b"a") == 12
    assert track.open_group().sequence == 13


@pytest.mark.parametrize("sequence", [-1, 2**62])
async def test_sequences_out_of_range_are_refused(make_track, sequence):
    """A number outside 0 … 2**62-1 is refused, naming it."""
    track = make_track()
    with pytest.raises(ValueError, match=f"not {sequence}$"):
        track.open_group(sequence)
    assert track.latest is None


async def test_after_the_last_sequence_there_is_no_next(make_track):
    """The highest number may be used; nothing comes after it."""
    track = make_track()
    track.open_group(2**62 - 1)
    with pytest.raises(ValueError, match=str(2**62)):
        track.open_group()


async def test_a_number_is_used_once(make_track):
    """A number is refused a second time, also when its group was reset, evicted or a datagram."""
    track = make_track(cache_groups=1)
    track.open_group(3)
    with pytest.raises(ValueError, match="group 3 of track 'chat'"):
        track.open_group(3)
    track.open_group(4).reset()
    datagram = track.send_datagram(b"x")
    evicted = track.write_nowait(b"x")
    track.write_nowait(b"x")
    assert state_of(track).group(evicted) is None
    for sequence in (4, datagram, evicted):
        with pytest.raises(ValueError, match=f"group {sequence} of track 'chat'"):
            track.open_group(sequence)
    assert track.open_group(0).sequence == 0


async def test_write_is_a_whole_group(make_track, subscribe):
    """A write is a complete group of one frame, and a checkpoint."""
    track = make_track()
    reader = subscribe(track)
    with trio.testing.assert_checkpoints():
        sequence = await track.write(b"a", 5)
    group = state_of(track).group(sequence)
    assert group.complete
    assert [(bytes(frame), frame.timestamp) for frame in group.frames] == [(b"a", 5)]
    assert reader.read() == {0: [b"a"]}
    assert reader.pending == []


async def test_a_bad_write_uses_no_number(make_track):
    """A write or datagram that is refused writes nothing and takes no number."""
    track = make_track(max_frame=4)
    with pytest.raises(ValueError, match="not 5"):
        await track.write(b"12345")
    with pytest.raises(ValueError, match="not -3"):
        track.write_nowait(b"", -3)
    with pytest.raises(ValueError, match="not -3"):
        track.send_datagram(b"", -3)
    with pytest.raises(ValueError, match="at most 1176 bytes, not 1177"):
        track.send_datagram(bytes(1177))
    assert track.latest is None


async def test_a_cancelled_write_writes_nothing(make_track, subscribe):
    """Cancelled at its checkpoint or while it waits for room, a write makes no group."""
    track = make_track(delivery="reliable", reliable_backlog=1)
    subscribe(track)
    with trio.CancelScope() as scope:
        scope.cancel()
        await track.write(b"no")
    assert track.latest is None
    await track.write(b"a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(track.write, b"no")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert track.latest == 0


async def test_a_datagram_is_sent_and_not_kept(make_track, subscribe):
    """A datagram reaches each subscriber, as a complete group that is marked so; a later subscriber does not get it."""
    track = make_track()
    reader = subscribe(track)
    sequence = track.send_datagram(bytes(1176), 9)
    entry = reader.cursor.pending[sequence]
    assert entry.group.datagram
    assert entry.group.last_timestamp == 9
    assert reader.read() == {0: [bytes(1176)]}
    assert state_of(track).group(sequence) is None
    assert subscribe(track, replay=True).pending == []


async def test_a_finished_track_takes_no_groups(make_track, subscribe):
    """After finish nothing can be opened, open groups may still be written, and readers end when they have all."""
    track = make_track()
    reader = subscribe(track)
    writer = track.open_group()
    track.finish()
    track.finish()
    assert track.ended
    for act in (track.open_group, lambda: track.write_nowait(b""), lambda: track.send_datagram(b"")):
        with pytest.raises(trio.ClosedResourceError, match="'chat'"):
            act()
    with pytest.raises(trio.ClosedResourceError):
        await track.write(b"")
    assert reader.cursor.end == 1
    assert not reader.cursor.done
    await writer.send(b"last")
    writer.finish()
    assert reader.read() == {0: [b"last"]}
    assert reader.cursor.done
    assert "finished" in repr(track)


async def test_an_aborted_track(make_track, subscribe):
    """After abort every cursor has the code, later ones too, and nothing can be written."""
    track = make_track()
    reader = subscribe(track)
    track.write_nowait(b"a")
    track.abort(code=70)
    track.abort(code=71)
    track.finish()
    assert reader.cursor.aborted == 70
    assert reader.cursor.done
    assert reader.wakes
    assert reader.cursor.end is None
    assert subscribe(track).cursor.aborted == 70
    with pytest.raises(trio.ClosedResourceError):
        track.open_group()
    assert "aborted" in repr(track)


async def test_abort_defaults_to_cancelled(make_track, subscribe):
    """Without a code a track is aborted with CANCELLED, also after it was finished."""
    track = make_track()
    reader = subscribe(track)
    track.finish()
    track.abort()
    assert reader.cursor.aborted == StreamCode.CANCELLED


async def test_a_subscriber_to_a_finished_track(make_track, subscribe):
    """A subscriber after the end gets the groups that are kept, and then the end."""
    track = make_track()
    track.write_nowait(b"a")
    track.finish()
    reader = subscribe(track)
    assert reader.cursor.end == 1
    assert not reader.cursor.done
    assert reader.read() == {0: [b"a"]}
    assert reader.cursor.done
    empty = make_track()
    empty.finish()
    assert subscribe(empty).cursor.end == 0
    assert subscribe(empty).cursor.done


async def test_wait_subscribed(make_track, subscribe):
    """The wait ends when the first subscriber comes, and is only a checkpoint while there is one."""
    track = make_track()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(track.wait_subscribed)
        nursery.start_soon(track.wait_subscribed)
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 2
        subscribe(track)
    assert track.subscribers == 1
    with trio.testing.assert_checkpoints():
        await track.wait_subscribed()


async def test_wait_unsubscribed(make_track, subscribe):
    """The wait ends when the last of several subscribers is detached, in whatever order they were attached."""
    track = make_track()
    with trio.testing.assert_checkpoints():
        await track.wait_unsubscribed()
    first = subscribe(track)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(track.wait_unsubscribed)
        await trio.testing.wait_all_tasks_blocked()
        second = subscribe(track)
        first.detach()
        await trio.testing.wait_all_tasks_blocked()
        assert len(nursery.child_tasks) == 1
        second.detach()
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks
        nursery.cancel_scope.cancel()
    assert track.subscribers == 0


async def test_a_second_detach_does_nothing(make_track, subscribe):
    """Detaching twice does not disturb a task that waits for a subscriber."""
    track = make_track()
    reader = subscribe(track)
    reader.detach()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(track.wait_subscribed)
        await trio.testing.wait_all_tasks_blocked()
        reader.detach()
        subscribe(track)
        await trio.testing.wait_all_tasks_blocked()
        assert not nursery.child_tasks
        nursery.cancel_scope.cancel()


async def test_demand_comes_and_goes(make_track, subscribe):
    """After the last subscriber was detached, the wait for a subscriber waits again."""
    track = make_track()
    subscribe(track).detach()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(track.wait_subscribed)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        subscribe(track)


async def test_the_repr_tells_how_far_it_got(make_track, subscribe):
    """repr() shows the name, the state, the next group and the subscribers."""
    track = make_track()
    subscribe(track)
    track.write_nowait(b"a")
    assert repr(track) == "<Track 'chat' open, next group 1, 1 subscribers>"
