"""The past of groups in parts: subgroups with the same ids, and those that left the cache."""

from __future__ import annotations

import moqt_trio as moqt
from moqt_trio.model.cursor import GroupRange
from moqt_trio.model.past import LAST, LostFrames, OpenGroup, Past, Place
from moqt_trio.model.track import state_of


def read(track, start, end):
    """Returns what is read of a range: the ids of frames, with what is in them, and the last ids of what is lost."""
    past = Past(state_of(track), Place(*start), Place(*end))
    found = []
    while (piece := past.take(1000)) is not None:
        if isinstance(piece, LostFrames):
            found.append(("lost", piece.end.frame))
        else:
            found += [(piece.first + index, bytes(frame)) for index, frame in enumerate(piece.frames)]
    return found


def write(track, sequence, subgroup, *numbers):
    group = track.open_group(sequence, subgroup=subgroup)
    for number in numbers:
        group.send_nowait(b"%d" % subgroup, object_id=number)
    return group


async def test_subgroups_with_the_same_ids():
    """Of two frames with one id, which is a mistake of the writer, the one of the lower subgroup is read."""
    track = moqt.Broadcast().track("t")
    write(track, 0, 0, 0, 1, 2).finish()
    write(track, 0, 1, 0, 1, 2, 3).finish()
    write(track, 0, 2, 3, 5).finish()
    assert read(track, (0, 0), (0, 5)) == [(0, b"0"), (1, b"0"), (2, b"0"), (3, b"1"), (5, b"2")]


async def test_subgroups_that_left_the_cache():
    """A gap in what is left of their group is lost, and not what never existed; a group that is whole has no such."""
    track = moqt.Broadcast(limits=moqt.Limits(cache_groups=3)).track("t", max_age=60)
    write(track, 0, 1, 1, 5).finish()
    write(track, 0, 2, 2).finish()
    write(track, 0, 3, 3).finish()
    write(track, 0, 4, 7).finish()
    assert read(track, (0, 0), (0, 7)) == [("lost", 1), (2, b"2"), (3, b"3"), ("lost", 6), (7, b"4")]
    assert read(track, (0, 4), (0, 5)) == [("lost", 5)]
    write(track, 1, 1, 4, 6).finish()
    assert read(track, (0, 0), (1, 6)) == [
        ("lost", 2),
        (3, b"3"),
        ("lost", 6),
        (7, b"4"),
        ("lost", LAST),
        (4, b"1"),
        (6, b"1"),
    ]


async def test_a_subgroup_that_was_reset():
    """What it had may be asked for, and is lost."""
    track = moqt.Broadcast().track("t")
    write(track, 0, 0, 0, 3).finish()
    write(track, 0, 1, 1).reset()
    assert read(track, (0, 0), (0, 3)) == [(0, b"0"), ("lost", 2), (3, b"0")]


async def test_a_trimmed_group_with_gaps():
    """Nothing is missing behind the last frame that was trimmed: a subscription may begin between two ids."""
    track = moqt.Broadcast(limits=moqt.Limits(cache_bytes=100)).track("t")
    group = track.open_group()
    for number in range(10, 100, 10):
        group.send_nowait(bytes(24), object_id=number)
    state = state_of(track)
    kept = state.group(0)
    first = kept.id_at(kept.first)
    assert first > 10
    assert kept.first_id == first - 9
    for start, pending in ((first - 9, True), (first - 10, False)):
        wanted = GroupRange(start_group=0, start_frame=start)
        cursor = state.cursor(lambda: None, range=wanted, max_age=60, replay=False)
        state.attach(cursor)
        assert bool(cursor.pending) is pending
        state.detach(cursor)
    group.finish()


async def test_joining_a_group_whose_subgroups_are_complete():
    """Only its subgroup 0 says that nothing more comes: one stream, and not one for each."""
    track = moqt.Broadcast().track("t")
    for number in range(5):
        write(track, 0, number, number).finish()
    state = state_of(track)
    cursor = state.cursor(lambda: None, range=GroupRange(start_group=0, start_frame=5), max_age=60, replay=False)
    state.attach(cursor)
    assert list(cursor.pending) == [0]
    assert cursor.latest == 0


async def test_a_group_that_is_open():
    """Every look says so until it goes on; left, the next group follows."""
    track = moqt.Broadcast().track("t")
    group = write(track, 0, 0, 0, 3)
    write(track, 1, 0, 0).finish()
    past = Past(state_of(track), Place(0, 0), Place(1, 0))
    assert [past.take(1000).first, past.take(1000).first] == [0, 3]
    assert [past.take(1000), past.take(1000)] == [OpenGroup(0, 4)] * 2
    group.send_nowait(b"5", object_id=5)
    assert past.take(1000).first == 5
    assert past.take(1000) == OpenGroup(0, 6)
    past.leave()
    following = past.take(1000)
    assert (following.group, following.frames, past.take(1000)) == (1, [b"0"], None)
    group.finish()
