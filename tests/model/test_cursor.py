"""A subscriber's place in a track: where it starts, what it takes, and when it is done."""

from __future__ import annotations

import pytest

from moqt_trio.codes import StreamCode
from moqt_trio.model.cursor import GroupRange


def fill(track, count, *, step=1000):
    """Write groups 0 … count-1, each of one byte that is its number, `step` timestamp units apart."""
    for number in range(count):
        track.write_nowait(bytes([number]), number * step)


async def test_without_replay_a_cursor_starts_at_the_latest_group(make_track, subscribe):
    """Versions before 06 start at the latest group, whole, whatever their max age."""
    track = make_track()
    fill(track, 3)
    writer = track.open_group()
    writer.send_nowait(b"so far", 3000)
    reader = subscribe(track)
    assert reader.read() == {3: [b"so far"]}
    writer.send_nowait(b"next", 3001)
    assert reader.read() == {3: [b"next"]}


async def test_without_replay_a_start_group_reaches_back(make_track, subscribe):
    """Versions before 06 start at the start group that was asked for, as far as it is kept."""
    track = make_track()
    fill(track, 4)
    assert subscribe(track, start_group=1, max_age=0).pending == [1, 2, 3]
    assert subscribe(track, start_group=9).pending == []


@pytest.mark.parametrize(
    ("max_age", "expected"),
    [(0, [4]), (0.999, [3, 4]), (1, [3, 4]), (1.001, [2, 3, 4]), (3, [1, 2, 3, 4]), (3.5, [0, 1, 2, 3, 4])],
)
async def test_with_replay_max_age_decides_the_start(make_track, subscribe, max_age, expected):
    """moq-lite-06 starts at the oldest group whose end lies within max age; equality is too old; 0 is the latest."""
    track = make_track(max_age=1000)
    # Group n ends where group n + 1 begins, and the newest frame is at 4 s: it is 3 - n seconds older.
    fill(track, 5)
    assert subscribe(track, replay=True, max_age=max_age).pending == expected


async def test_with_replay_a_start_group_is_a_floor(make_track, subscribe):
    """moq-lite-06: the start group limits how far max age reaches back, and does not extend it."""
    track = make_track(max_age=1000)
    fill(track, 5)
    assert subscribe(track, replay=True, start_group=2, max_age=100).pending == [2, 3, 4]
    assert subscribe(track, replay=True, start_group=1, max_age=0).pending == [4]


async def test_replay_measures_age_from_the_newest_frame(make_track, subscribe):
    """A latest group that is still empty does not make every kept group young again."""
    track = make_track(max_age=1000)
    fill(track, 5)
    track.open_group()
    assert subscribe(track, replay=True, max_age=0).pending == [4, 5]


async def test_replay_of_an_empty_track(make_track, subscribe):
    """On a track without groups a cursor starts with nothing and gets what comes."""
    track = make_track()
    reader = subscribe(track, replay=True)
    assert reader.pending == []
    track.write_nowait(b"a")
    assert reader.read() == {0: [b"a"]}


async def test_replay_while_nothing_has_a_frame(make_track, subscribe):
    """Groups that are all empty have no age: they are all replayed."""
    track = make_track()
    track.open_group()
    track.open_group()
    assert subscribe(track, replay=True, max_age=0).pending == [0, 1]


def test_a_range_holds_its_ends():
    """A range includes both of its ends, and a missing end is no bound."""
    assert [number for number in range(6) if GroupRange(2, 4).holds(number)] == [2, 3, 4]
    assert GroupRange().holds(0)
    assert GroupRange(end_group=0).holds(0)
    assert not GroupRange(start_group=1).holds(0)


async def test_groups_out_of_range_are_not_delivered(make_track, subscribe):
    """A cursor gets only groups within its range, kept ones and new ones."""
    track = make_track()
    fill(track, 2)
    reader = subscribe(track, start_group=1, end_group=3)
    fill(track, 4)
    assert list(reader.read()) == [1, 2, 3]


@pytest.mark.parametrize("attached_first", [True, False])
async def test_a_frame_range(make_track, subscribe, attached_first):
    """The first group starts at the start frame and the last stops after the end frame, whenever the cursor came."""
    track = make_track()
    wanted = {"start_group": 0, "end_group": 2, "start_frame": 1, "end_frame": 1}
    reader = subscribe(track, **wanted) if attached_first else None
    for _ in range(4):
        writer = track.open_group()
        for payload in (b"aa", b"bb", b"cc"):
            writer.send_nowait(payload)
        writer.finish()
    reader = reader or subscribe(track, **wanted)
    assert reader.cursor.pending[0].start == 1
    assert reader.cursor.backlog == 4 + 6 + 4
    assert reader.read() == {0: [b"bb", b"cc"], 1: [b"aa", b"bb", b"cc"], 2: [b"aa", b"bb"]}
    assert reader.pending == []
    assert reader.cursor.backlog == 0
    assert reader.cursor.done


async def test_frames_past_the_end_are_no_burden(make_track, subscribe):
    """Frames after the end frame are neither ready nor backlog, and the group is done once the end was taken."""
    track = make_track()
    reader = subscribe(track, end_group=0, end_frame=0)
    writer = track.open_group()
    writer.send_nowait(b"wanted")
    writer.send_nowait(b"unwanted")
    assert reader.cursor.backlog == 6
    assert reader.read() == {0: [b"wanted"]}
    assert (reader.cursor.backlog, reader.pending) == (0, [])
    writer.send_nowait(b"unwanted")
    assert reader.read() == {}
    assert reader.cursor.done


async def test_a_start_frame_that_is_still_to_come(make_track, subscribe):
    """Frames before the start frame are skipped without a trace; a group that ends before it is delivered empty."""
    track = make_track()
    writer = track.open_group()
    reader = subscribe(track, start_group=0, start_frame=2)
    writer.send_nowait(b"a")
    writer.send_nowait(b"b")
    assert reader.cursor.backlog == 0
    assert not reader.cursor.pending[0].has_frames
    writer.send_nowait(b"c")
    assert reader.read() == {0: [b"c"]}
    short = subscribe(track, start_group=0, start_frame=9)
    writer.finish()
    assert short.read() == {0: []}
    assert short.pending == []


async def test_an_empty_frame_range(make_track, subscribe):
    """A range that ends before it starts has no frame and no backlog."""
    track = make_track()
    writer = track.open_group()
    for payload in (b"a", b"b", b"c"):
        writer.send_nowait(payload)
    reader = subscribe(track, start_group=0, end_group=0, start_frame=2, end_frame=0)
    assert reader.cursor.backlog == 0
    assert reader.read() == {0: []}
    assert reader.cursor.done


async def test_take_keeps_to_a_budget(make_track, subscribe):
    """Taking gives at least one frame, then as many as fit; the rest stays, and the backlog says how much."""
    track = make_track()
    reader = subscribe(track)
    writer = track.open_group()
    for payload in (b"12345", b"67", b"8", b"", b"9"):
        writer.send_nowait(payload)
    cursor = reader.cursor
    assert cursor.backlog == cursor.pending[0].waiting == 9
    assert reader.take(0, 3) == [b"12345"]
    assert cursor.backlog == 4
    assert reader.take(0, 3) == [b"67", b"8", b""]
    assert cursor.backlog == 1
    assert reader.take(0, 0) == [b"9"]
    assert reader.take(0, 10) == []
    assert (cursor.backlog, cursor.pending[0].position) == (0, 5)


async def test_taken_frames_carry_their_timestamps(make_track, subscribe):
    """What is taken is the very frames that were written."""
    track = make_track()
    reader = subscribe(track)
    track.write_nowait(b"a", 42)
    ((frame,), _) = reader.cursor.take(reader.cursor.pending[0], 100)
    assert (frame, frame.timestamp) == (b"a", 42)


async def test_a_group_leaves_when_its_end_was_taken(make_track, subscribe):
    """A group stays pending while it is open; its end makes it ready, and taking after it removes the group."""
    track = make_track()
    reader = subscribe(track)
    writer = track.open_group()
    writer.send_nowait(b"a")
    assert reader.read() == {0: [b"a"]}
    entry = reader.cursor.pending[0]
    assert not entry.finished
    assert not entry.has_frames
    wakes = reader.wakes
    writer.finish()
    assert reader.wakes > wakes
    assert entry.finished
    assert entry.has_frames or entry.finished
    assert reader.read() == {0: []}
    assert reader.pending == []


async def test_ready_groups_are_returned_once_and_in_order(make_track, subscribe):
    """Groups that changed are ready, newest or oldest first, and returned once."""
    track = make_track()
    reader = subscribe(track)
    fill(track, 3)
    cursor = reader.cursor
    assert [entry.group.sequence for entry in cursor.ready(newest_first=True)] == [2, 1, 0]
    assert list(cursor.ready(newest_first=True)) == []
    cursor.requeue(cursor.pending[2])
    cursor.requeue(cursor.pending[0])
    assert [entry.group.sequence for entry in cursor.ready(newest_first=False)] == [0, 2]


async def test_every_change_wakes(make_track, subscribe):
    """A new group, a frame, an end, a drop and the end of the track each wake the server."""
    track = make_track()
    reader = subscribe(track)

    def woken_by(act):
        before = reader.wakes
        result = act()
        assert reader.wakes > before
        return result

    writer = woken_by(track.open_group)
    woken_by(lambda: writer.send_nowait(b"a"))
    woken_by(writer.finish)
    second = track.open_group()
    woken_by(second.reset)
    woken_by(track.finish)


async def test_an_empty_group_wakes_only_as_the_first(make_track, subscribe):
    """A group without a frame gives nothing to do; only the first of all wakes, as a subscription is accepted then."""
    track = make_track()
    reader = subscribe(track)
    track.open_group()
    wakes = reader.wakes
    writer = track.open_group()
    assert reader.wakes == wakes
    writer.send_nowait(b"a")
    assert reader.wakes > wakes
    assert reader.read() == {0: [], 1: [b"a"]}


async def test_groups_past_the_end_are_not_taken_in(make_track, subscribe):
    """Once a cursor has the end of the track, it ignores groups that are opened after it."""
    track = make_track()
    reader = subscribe(track)
    fill(track, 2)
    reader.cursor.finish(2)
    track.open_group()
    track.write_nowait(b"late")
    assert reader.pending == [0, 1]
    reader.read()
    assert reader.cursor.done


async def test_a_removed_group_is_forgotten(make_track, subscribe):
    """A group that the subscriber does not want is neither ready nor backlog, and later frames of it are ignored."""
    track = make_track()
    reader = subscribe(track)
    writer = track.open_group()
    writer.send_nowait(b"a")
    reader.cursor.remove(0)
    reader.cursor.remove(0)
    writer.send_nowait(b"b")
    writer.finish()
    assert (reader.cursor.backlog, reader.read(), reader.cursor.take_dropped()) == (0, {}, [])


async def test_a_dropped_group_is_reported_once(make_track, subscribe):
    """A group dropped for one subscriber is reported once with its code, counted, and delivered to the others."""
    track = make_track()
    reader, other = subscribe(track), subscribe(track)
    track.write_nowait(b"abc")
    reader.cursor.drop(0, 7)
    reader.cursor.drop(0, 8)
    assert reader.cursor.take_dropped() == [(0, 7)]
    assert reader.cursor.take_dropped() == []
    assert reader.cursor.dropped_groups == 1
    assert reader.cursor.backlog == 0
    assert other.read() == {0: [b"abc"]}


async def test_an_aborted_group_is_dropped(make_track, subscribe):
    """A group that is reset half read is dropped with its code, and the next one is delivered."""
    track = make_track()
    reader = subscribe(track)
    writer = track.open_group()
    writer.send_nowait(b"a")
    reader.read()
    writer.send_nowait(b"b")
    writer.reset(80)
    track.write_nowait(b"c")
    assert reader.cursor.take_dropped() == [(0, 80)]
    assert reader.read() == {1: [b"c"]}
    assert reader.cursor.backlog == 0
    assert subscribe(track, replay=True).pending == [1]


async def test_done_waits_for_groups_and_losses(make_track, subscribe):
    """A cursor is done when the track has ended, all was taken, and every drop was reported."""
    track = make_track()
    reader = subscribe(track)
    writer = track.open_group()
    track.write_nowait(b"a")
    track.finish()
    assert not reader.cursor.done
    reader.read()
    writer.reset()
    assert not reader.cursor.done
    assert reader.cursor.take_dropped() == [(0, StreamCode.CANCELLED)]
    assert reader.cursor.done


async def test_a_range_ends_the_cursor(make_track, subscribe):
    """A cursor with a last group is done once it has that group; it still gets the end of the track."""
    track = make_track()
    reader = subscribe(track, end_group=1)
    track.write_nowait(b"a")
    reader.read()
    assert not reader.cursor.done
    track.write_nowait(b"b")
    assert not reader.cursor.done
    reader.read()
    assert reader.cursor.done
    track.write_nowait(b"c")
    assert reader.read() == {}
    track.finish()
    assert reader.cursor.end == 3


async def test_a_range_whose_last_group_never_came(make_track, subscribe):
    """A cursor is done, and woken, once the track has passed the end of its range."""
    track = make_track()
    reader = subscribe(track, end_group=5)
    track.open_group(4).finish()
    reader.read()
    assert not reader.cursor.done
    wakes = reader.wakes
    track.open_group(6)
    assert reader.cursor.done
    assert reader.wakes > wakes


async def test_a_range_that_lies_in_the_past(make_track, subscribe):
    """A cursor whose range is over when it comes, with nothing of it left to deliver, is done at once."""
    track = make_track(cache_groups=1)
    fill(track, 9)
    assert subscribe(track, start_group=2, end_group=4).cursor.done
    assert subscribe(track, replay=True, max_age=0, end_group=4).cursor.done
    assert not subscribe(track, replay=True, max_age=0, end_group=9).cursor.done


async def test_a_late_group_below_the_latest_is_delivered(make_track, subscribe):
    """Groups may be opened out of order, as a relay gets them; each is delivered."""
    track = make_track()
    reader = subscribe(track)
    track.open_group(5).send_nowait(b"5")
    track.open_group(3).send_nowait(b"3")
    assert reader.read() == {3: [b"3"], 5: [b"5"]}
    assert subscribe(track).pending == [5]
