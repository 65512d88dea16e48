"""What the application holds while it writes a group."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from moqt_trio.codes import StreamCode
from moqt_trio.model.track import state_of


async def test_leaving_the_block_completes_the_group(make_track, subscribe):
    """After a clean exit the group is complete and holds what was sent, in order."""
    track = make_track()
    reader = subscribe(track)
    async with track.open_group() as writer:
        await writer.send(b"a", 1)
        await writer.send(b"", 2)
        await writer.send(b"b", 3)
    group = state_of(track).group(writer.sequence)
    assert group.complete
    assert group.aborted is None
    assert [(bytes(frame), frame.timestamp) for frame in group.frames] == [(b"a", 1), (b"", 2), (b"b", 3)]
    assert (group.length, group.size, group.first_timestamp, group.last_timestamp) == (3, 2, 1, 3)
    assert reader.read() == {0: [b"a", b"", b"b"]}
    assert reader.cursor.take_dropped() == []


async def test_an_exception_resets_the_group(make_track, subscribe):
    """An exception in the block reaches the caller, and the group is reset with CANCELLED for every subscriber."""
    track = make_track()
    reader = subscribe(track)

    async def fail():
        async with track.open_group() as writer:
            await writer.send(b"a")
            raise RuntimeError("oh")

    with pytest.raises(RuntimeError, match="oh"):
        await fail()
    assert reader.cursor.take_dropped() == [(0, StreamCode.CANCELLED)]
    assert reader.cursor.backlog == 0
    assert state_of(track).group(0) is None


async def test_cancellation_resets_the_group(make_track, subscribe):
    """A cancelled block resets its group."""
    track = make_track()
    reader = subscribe(track)
    with trio.CancelScope() as scope:
        async with track.open_group() as writer:
            await writer.send(b"a")
            scope.cancel()
            await trio.lowlevel.checkpoint()
    assert reader.cursor.take_dropped() == [(0, StreamCode.CANCELLED)]


async def test_cancellation_on_entering_resets_the_group(make_track, subscribe):
    """A block that is cancelled before its body runs leaves no open group."""
    track = make_track()
    reader = subscribe(track)
    with trio.CancelScope() as scope:
        scope.cancel()
        async with track.open_group():
            pytest.fail("entered")
    assert reader.cursor.take_dropped() == [(0, StreamCode.CANCELLED)]
    assert reader.pending == []


async def test_entering_and_sending_are_checkpoints(make_track):
    """Entering the block and each send let other tasks run, in both kinds of delivery."""
    for delivery in ("live", "reliable"):
        writer = make_track(delivery=delivery).open_group()
        with trio.testing.assert_checkpoints():
            await writer.__aenter__()
        with trio.testing.assert_checkpoints():
            await writer.send(b"a")


async def test_a_cancelled_send_writes_nothing(make_track, subscribe):
    """Cancelled at its checkpoint or while it waits for room, a send leaves the group as it was."""
    track = make_track(delivery="reliable", reliable_backlog=2)
    reader = subscribe(track)
    writer = track.open_group()
    with trio.CancelScope() as scope:
        scope.cancel()
        await writer.send(b"no")
    assert state_of(track).group(0).length == 0
    await writer.send(b"ab")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.send, b"no")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert reader.read() == {0: [b"ab"]}
    await writer.send(b"c")
    assert reader.read() == {0: [b"c"]}


async def test_one_task_sends_at_a_time(make_track, subscribe):
    """A second send on a group while one waits gets BusyResourceError and writes nothing."""
    track = make_track(delivery="reliable", reliable_backlog=1)
    reader = subscribe(track)
    writer = track.open_group()
    await writer.send(b"a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.send, b"b")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await writer.send(b"c")
        assert reader.read() == {0: [b"a"]}
    assert reader.read() == {0: [b"b"]}


@pytest.mark.parametrize("end", ["finish", "reset"])
async def test_an_ended_group_takes_no_frames(make_track, end):
    """After finish or reset both kinds of send raise ClosedResourceError."""
    writer = make_track().open_group()
    getattr(writer, end)()
    with pytest.raises(trio.ClosedResourceError):
        await writer.send(b"a")
    with pytest.raises(trio.ClosedResourceError):
        writer.send_nowait(b"a")


async def test_an_aborted_track_takes_no_frames(make_track):
    """A group of a track that was aborted accepts no frames."""
    track = make_track()
    writer = track.open_group()
    track.abort()
    with pytest.raises(trio.ClosedResourceError):
        await writer.send(b"a")


async def test_a_group_ends_once(make_track, subscribe):
    """The first of finish and reset decides; the later one does nothing."""
    track = make_track()
    reader = subscribe(track)
    completed, aborted = track.open_group(), track.open_group()
    completed.finish()
    completed.reset()
    completed.finish()
    aborted.reset(77)
    aborted.reset(78)
    aborted.finish()
    assert reader.cursor.take_dropped() == [(1, 77)]
    assert reader.read() == {0: []}
    assert state_of(track).group(0).complete
    assert "open" in repr(track.open_group())
    assert "complete" in repr(completed)
    assert "aborted 0x4d" in repr(aborted)


async def test_a_reset_inside_the_block_stands(make_track, subscribe):
    """A block that resets its group and leaves cleanly has reset it with its own code."""
    track = make_track()
    reader = subscribe(track)
    async with track.open_group() as writer:
        writer.reset(99)
    assert reader.cursor.take_dropped() == [(0, 99)]


async def test_send_nowait_on_a_full_reliable_track(make_track, subscribe):
    """On a reliable track a send without waiting raises WouldBlock past the bound; on a live one it never does."""
    track = make_track(delivery="reliable", reliable_backlog=2)
    reader = subscribe(track)
    writer = track.open_group()
    writer.send_nowait(b"ab")
    with pytest.raises(trio.WouldBlock):
        writer.send_nowait(b"c")
    reader.read()
    writer.send_nowait(b"c")
    assert reader.read() == {0: [b"c"]}


async def test_bad_frames_are_refused(make_track):
    """A frame past `max_frame` or with a timestamp out of range raises ValueError naming it; nothing is written."""
    track = make_track(max_frame=4)
    writer = track.open_group()
    with pytest.raises(ValueError, match="at most 4 bytes, not 5"):
        await writer.send(b"12345")
    with pytest.raises(ValueError, match="not -1"):
        await writer.send(b"", -1)
    with pytest.raises(ValueError, match=str(2**62)):
        writer.send_nowait(b"", 2**62)
    assert state_of(track).group(0).length == 0
    await writer.send(b"1234", 2**62 - 1)
    assert state_of(track).group(0).length == 1


async def test_frames_are_stamped_with_the_time(make_track, mock_clock):
    """Without a timestamp a frame gets the time since the first one that was stamped so, in the track's timescale."""
    track = make_track(timescale=90_000)
    mock_clock.jump(100)
    writer = track.open_group()
    await writer.send(b"")
    mock_clock.jump(2)
    await writer.send(b"")
    track.write_nowait(b"")
    assert [frame.timestamp for frame in state_of(track).group(0).frames] == [0, 180_000]
    assert state_of(track).group(1).first_timestamp == 180_000
