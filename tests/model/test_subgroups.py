"""Groups in parts: several subgroups, object ids with gaps, and frames with properties."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.model.cursor import GroupRange
from moqt_trio.model.keys import DATAGRAM, PartKey, sequence_of
from moqt_trio.model.sequences import KeySet
from moqt_trio.model.track import state_of

STAMP = 0x10
APPLICATION = 0x78
BLOB = 0x79


def reading(track, **wanted):
    """Returns a cursor that is attached to a track."""
    state = state_of(track)
    cursor = state.cursor(lambda: None, range=GroupRange(**wanted), max_age=60, replay=False)
    state.attach(cursor)
    return cursor


def taken(cursor, *, newest_first=False):
    """Returns what is ready: for each group its sequence, its subgroup, and the ids of its frames; and removes it."""
    found = []
    for entry in cursor.ready(newest_first=newest_first):
        group = entry.group
        numbers = []
        while entry.has_frames or entry.finished:
            position = entry.position
            frames, finished = cursor.take(entry, 1 << 20)
            numbers += [
                position + index if frame.object_id is None else frame.object_id for index, frame in enumerate(frames)
            ]
            if finished:
                break
        found.append((group.sequence, group.traits.subgroup if group.traits else None, numbers))
    return found


def test_the_order_of_keys():
    """A part orders behind the sequence of its group, and before the next group."""
    keys = [4, PartKey(4, 1), PartKey(4, 2), PartKey(4, DATAGRAM), 5, PartKey(5, 1)]
    assert sorted(reversed(keys), key=lambda key: key) == keys
    assert max(keys) == PartKey(5, 1)
    assert [sequence_of(key) for key in keys] == [4, 4, 4, 4, 5, 5]
    assert 4 < PartKey(4, 1) < 5 <= PartKey(5, 1)
    assert PartKey(4, 1) <= PartKey(4, 1) > 4
    assert PartKey(4, 1) >= 4
    assert {PartKey(4, 1), PartKey(4, 1)} == {PartKey(4, 1)}
    assert PartKey(4, 1) != 4


def test_the_parts_that_were_used():
    """A group of one part is a number in a range; the parts of others are bounded, those of low groups forgotten."""
    keys = KeySet(4)
    for key in (0, 1, 2, PartKey(3, 1)):
        keys.add_key(key)
    assert keys.has_key(2)
    assert not keys.has_key(PartKey(2, 1))
    assert keys.has_key(PartKey(3, 1))
    assert not keys.has_key(3)
    assert not keys.has_key(PartKey(4, 1))
    keys.add_key(PartKey(2, 1))
    assert keys.has_key(2)
    for part in (3, 5, 7):
        keys.add_key(PartKey(3, part))
    # More than four ranges of parts are known: group 2 is closed, and group 3 is not.
    assert keys.has_key(PartKey(2, 77))
    assert not keys.has_key(PartKey(3, 77))
    # Those that follow each other are one range, however many they are; and the highest group is never forgotten.
    for part in range(9, 10_000):
        assert not keys.has_key(PartKey(3, part))
        keys.add_key(PartKey(3, part))
    assert not keys.has_key(PartKey(3, 10_000))
    for part in range(20_000, 60_000, 2):
        assert not keys.has_key(PartKey(3, part))
        keys.add_key(PartKey(3, part))
    # Of too many gaps the lowest are closed.
    assert keys.has_key(PartKey(3, 20_001))
    assert not keys.has_key(PartKey(3, 59_997))
    assert keys.has_key(PartKey(3, 59_998))


async def test_any_number_of_subgroups():
    """A group may have more subgroups than the track keeps groups."""
    track = moqt.Broadcast(limits=moqt.Limits(cache_groups=8)).track("t")
    for number in range(100):
        track.open_group(0, subgroup=number).finish()
        with pytest.raises(ValueError, match="opened before"):
            track.open_group(0, subgroup=number)


async def test_opening_subgroups():
    """Each is opened once; without a subgroup, a sequence that is in use is refused."""
    track = moqt.Broadcast().track("t")
    writers = [track.open_group(3, subgroup=number) for number in (1, 0, 7)]
    assert [(writer.sequence, writer.subgroup) for writer in writers] == [(3, 1), (3, 0), (3, 7)]
    with pytest.raises(ValueError, match="subgroup 1 of group 3"):
        track.open_group(3, subgroup=1)
    with pytest.raises(ValueError, match="group 3 "):
        track.open_group(3)
    plain = track.open_group()
    assert (plain.sequence, plain.subgroup) == (4, 0)
    with pytest.raises(ValueError, match="subgroup 0"):
        track.open_group(4, subgroup=0)
    with pytest.raises(ValueError, match="without subgroups"):
        track.open_group(4, subgroup=1)
    for bad in (-1, 1 << 62):
        with pytest.raises(ValueError, match="subgroup is"):
            track.open_group(5, subgroup=bad)
    with pytest.raises(ValueError, match="priority"):
        track.open_group(5, priority=256)
    for writer in (*writers, plain):
        writer.finish()


async def test_subgroups_are_served_by_priority_then_in_order():
    """Newest group first, but the lower subgroup of it first; a higher priority goes before both."""
    track = moqt.Broadcast().track("t", priority=100)
    cursor = reading(track)
    for sequence in (1, 2):
        for subgroup in (2, 0, 1):
            group = track.open_group(
                sequence, subgroup=subgroup, priority=200 if (sequence, subgroup) == (1, 2) else None
            )
            group.send_nowait(b"x", object_id=subgroup)
            group.finish()
    places = [(sequence, subgroup) for sequence, subgroup, _ in taken(cursor, newest_first=True)]
    assert places == [(1, 2), (2, 0), (2, 1), (2, 2), (1, 0), (1, 1)]
    assert not cursor.pending
    assert cursor.backlog == cursor.backlog_frames == 0


async def test_a_group_beside_its_datagrams():
    """A group of which only datagrams were sent may be opened, once; with subgroups or without."""
    track = moqt.Broadcast().track("t")
    for sequence in (5, 6):
        track.send_datagram(b"x", sequence=sequence, object_id=8)
    track.open_group(5).finish()
    for options in ({}, {"subgroup": 0}, {"subgroup": 1}):
        with pytest.raises(ValueError, match="opened"):
            track.open_group(5, **options)
    track.open_group(6, subgroup=0).finish()
    track.open_group(6, subgroup=1).finish()
    with pytest.raises(ValueError, match="opened before"):
        track.open_group(6)
    track.send_datagram(b"x")
    with pytest.raises(ValueError, match="opened before"):
        track.open_group(7)


async def test_behind_the_last_object_id():
    """No frame comes after it, whichever way it is written."""
    track = moqt.Broadcast().track("t")
    group = track.open_group()
    group.send_nowait(b"x", object_id=(1 << 62) - 1)
    for options in ({}, {"object_id": 1 << 62}, {"properties": ((APPLICATION, 1), (BLOB, b""))}):
        with pytest.raises(ValueError, match="object id"):
            group.send_nowait(b"y", **options)
    group.finish()
    assert state_of(track).group(0).length == 1


async def test_gaps():
    """A group that has no gap stores no ids; one that has keeps them, and they rise."""
    track = moqt.Broadcast().track("t")
    cursor = reading(track)
    dense = track.open_group()
    for number in range(3):
        dense.send_nowait(b"x", object_id=number)
    assert state_of(track).group(0).traits is None
    sparse = track.open_group()
    sparse.send_nowait(b"a")
    sparse.send_nowait(b"b", object_id=4)
    sparse.send_nowait(b"c")
    for bad in (5, 0, -1, 1 << 62):
        with pytest.raises(ValueError, match="object id"):
            sparse.send_nowait(b"d", object_id=bad)
    late = track.open_group()
    late.send_nowait(b"x", object_id=9)
    assert taken(cursor) == [(0, None, [0, 1, 2]), (1, None, [0, 4, 5]), (2, None, [9])]
    for writer in (dense, sparse, late):
        writer.finish()


@pytest.mark.parametrize("late", [False, True], ids=["as they come", "from the cache"])
@pytest.mark.parametrize(
    ("first", "last", "wanted"),
    [
        (0, 2, [0, 2]),
        (1, 3, [2]),
        (3, 6, [5, 6]),
        (6, None, [6, 20]),
        (7, None, [20]),
        (7, 19, []),
        (21, None, []),
        (0, 20, [0, 2, 5, 6, 20]),
        (20, 400, [20]),
    ],
)
async def test_ranges_of_ids(late, first, last, wanted):
    """A range of frames is one of object ids, whenever the frames were written; and it ends as soon as it can."""
    track = moqt.Broadcast().track("t")
    state = state_of(track)
    group = track.open_group()
    options = {"start_group": 0, "end_group": 0, "start_frame": first, "end_frame": last}
    cursor = None if late else reading(track, **options)
    found = []
    for number in (0, 2, 5, 6, 20):
        group.send_nowait(b"x", object_id=number)
        if cursor is not None:
            found += [number for _, _, numbers in taken(cursor) for number in numbers]
            if last is not None and number >= last:
                assert not cursor.pending
    if cursor is None:
        cursor = reading(track, **options)
        found += [number for _, _, numbers in taken(cursor) for number in numbers]
    assert found == wanted
    group.finish()
    found += [number for _, _, numbers in taken(cursor) for number in numbers]
    for entry in list(cursor.pending.values()):
        assert entry.finished
    assert found == wanted
    state.detach(cursor)
    assert cursor.backlog == cursor.backlog_frames == 0


async def test_properties():
    """They are kept with rising types and with the timestamp; a timestamp alone is stored as one."""
    track = moqt.Broadcast().track("t")
    group = track.open_group()
    group.send_nowait(b"a", properties=((BLOB, b"blob"), (0x2, 5)), timestamp=7)
    group.send_nowait(b"b", properties=((STAMP, 8), (APPLICATION, 1)))
    group.send_nowait(b"c", properties=((STAMP, 9),))
    frames = state_of(track).group(0).frames
    assert [(frame.timestamp, frame.properties) for frame in frames] == [
        (7, ((0x2, 5), (STAMP, 7), (BLOB, b"blob"))),
        (8, ((STAMP, 8), (APPLICATION, 1))),
        (9, ()),
    ]
    for bad in (
        ((-1, 0),),
        ((2, -1),),
        ((2, 1 << 64),),
        ((3, bytes(65536)),),
        ((3, bytes(40_000)),) * 2,
        ((2, 0),) * 64,
    ):
        with pytest.raises(ValueError, match="propert"):
            group.send_nowait(b"d", properties=bad)
    for wrong in (((2, b"x"),), ((3, 1),), (("2", 1),)):
        with pytest.raises(TypeError, match="property"):
            group.send_nowait(b"d", properties=wrong)
    assert len(frames) == 3
    group.finish()


async def test_long_groups_with_ids_and_properties():
    """The older frames of a long group are packed, with what they have; and they are found by their ids."""
    track = moqt.Broadcast(limits=moqt.Limits(cache_frames=8000)).track("t")
    group = track.open_group()
    for number in range(1500):
        group.send_nowait(b"%d" % number, number, object_id=3 * number, properties=((APPLICATION, number),))
    kept = state_of(track).group(0)
    assert kept.packed
    for number in (0, 255, 256, 700, 1499):
        frame = kept.frame(number)
        assert (bytes(frame), kept.id_at(number), frame.timestamp) == (b"%d" % number, 3 * number, number)
        assert frame.properties == ((STAMP, number), (APPLICATION, number))
        assert kept.position_of(3 * number) == kept.position_of(3 * number - 2) == number
    assert kept.position_of(1 << 40) == 1500
    group.finish()


async def test_properties_count_for_the_cache():
    """Frames of a byte with much beside it are let go of as those with much in them are."""
    limits = moqt.Limits(cache_bytes=100_000)
    track = moqt.Broadcast(limits=limits).track("t", max_age=1000)
    state = state_of(track)
    blob = ((BLOB, bytes(1000)),)
    group = track.open_group()
    for _ in range(2000):
        group.send_nowait(b"x", properties=blob)
    assert state.size <= limits.cache_bytes
    assert state.group(0).kept < 100
    group.finish()
    for _ in range(300):
        async with track.open_group() as small:
            await small.send(b"x", properties=blob)
    assert state.size <= limits.cache_bytes


async def test_the_ages_of_subgroups():
    """The subgroups of the latest group are never too old, and those of an earlier one grow old as one."""
    track = moqt.Broadcast().track("t", max_age=1)
    cursor = reading(track)
    cursor.max_age = 1
    groups = []
    for sequence in (0, 1):
        for subgroup in (0, 1):
            group = track.open_group(sequence, subgroup=subgroup)
            group.send_nowait(b"x", 2000 * sequence + 1500 * subgroup)
            groups.append(group)
    # Group 1 begins at 2000: at 3000 the whole of group 0 is a second old.
    assert {sequence_of(key) for key, _ in cursor.dropped} == {0}
    assert len(cursor.dropped) == 2
    assert {code for _, code in cursor.dropped} == {StreamCode.OLD}
    groups[2].send_nowait(b"x", 90_000)
    assert len(cursor.pending) == 2
    for group in groups:
        group.finish()


async def test_the_newest_timestamp():
    """It is that of any part of the latest group that has a frame, and not that of the highest subgroup."""
    track = moqt.Broadcast().track("t", max_age=1)
    cursor = reading(track)
    cursor.max_age = 1
    with_frames = track.open_group(0, subgroup=0)
    with_frames.send_nowait(b"x", 0)
    base, layer = track.open_group(1, subgroup=0), track.open_group(1, subgroup=1)
    base.send_nowait(b"x", 100, object_id=0)
    layer.send_nowait(b"x", 100, object_id=1)
    base.send_nowait(b"x", 1100, object_id=2)
    assert state_of(track).newest == 1100
    assert cursor.take_dropped() == [(0, StreamCode.OLD)]
    for group in (with_frames, base, layer):
        group.finish()


async def test_subgroups_that_a_slow_subscriber_leaves():
    """The backlog is bounded: older groups go, with every subgroup, and the latest group stays."""
    limits = moqt.Limits(live_backlog=1000)
    track = moqt.Broadcast(limits=limits).track("t")
    cursor = reading(track)
    for sequence in range(4):
        for subgroup in range(3):
            group = track.open_group(sequence, subgroup=subgroup)
            group.send_nowait(bytes(300))
            group.finish()
    assert {sequence_of(key) for key in cursor.pending} == {3}
    assert [key for key, _ in cursor.dropped][:3] == [0, PartKey(0, 1), PartKey(0, 2)]


async def test_the_newest_frame():
    """It is the one of the highest id in the latest group, whichever subgroup or datagram it is."""
    track = moqt.Broadcast().track("t")
    state = state_of(track)
    assert state.largest is None
    first = track.open_group(5, subgroup=1)
    second = track.open_group(5, subgroup=0)
    assert state.largest is None
    first.send_nowait(b"x", object_id=4)
    second.send_nowait(b"x", object_id=2)
    assert state.largest == (5, 4)
    second.send_nowait(b"x", object_id=9)
    assert state.largest == (5, 9)
    first.finish()
    second.finish()
    assert state.kept(0, 5) == [5]
    track.send_datagram(b"x", sequence=7, object_id=3)
    assert state.largest == (7, 3)
    track.send_datagram(b"x", sequence=7, object_id=1)
    assert state.largest == (7, 3)


async def test_where_the_next_frame_is_expected():
    """In the latest group while any part of it is open, by its object ids; else at the start of the next group."""
    track = moqt.Broadcast().track("t")
    state = state_of(track)
    assert state.next_frame == (0, 0)
    sparse = track.open_group(3)
    sparse.send_nowait(b"x", object_id=40)
    assert state.next_frame == (3, 41)
    base, layer = track.open_group(4, subgroup=0), track.open_group(4, subgroup=2)
    layer.send_nowait(b"x", object_id=7)
    base.finish()
    assert state.next_frame == (4, 8)
    layer.finish()
    assert state.next_frame == (5, 0)
    sparse.finish()


async def test_datagrams_of_one_group():
    """A group may have any number of them, beside a subgroup; each is ready on its own."""
    track = moqt.Broadcast().track("t")
    cursor = reading(track)
    for number in range(5):
        assert track.send_datagram(b"x", sequence=2, object_id=number) == 2
    group = track.open_group(2, subgroup=0)
    group.send_nowait(b"y", object_id=9)
    group.finish()
    assert [numbers for _, _, numbers in taken(cursor)] == [[9], [0], [1], [2], [3], [4]]
    with pytest.raises(ValueError, match="object id"):
        track.send_datagram(b"x", sequence=2, object_id=-1)
    with pytest.raises(ValueError, match="group 2 "):
        track.open_group(2)
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("delivery", ["live", "reliable"])
async def test_the_parts_of_the_latest_group_are_bounded(delivery):
    """A track with one group that has any number of finished subgroups keeps the newest ones, within its bounds."""
    limits = moqt.Limits(cache_bytes=10_000, cache_groups=8)
    track = moqt.Broadcast(limits=limits).track("t", delivery=delivery)
    state = state_of(track)
    for number in range(100):
        group = track.open_group(0, subgroup=number)
        group.send_nowait(bytes(2500), object_id=number)
        group.finish()
        assert state.size <= limits.cache_bytes
    assert [part.key for part in state.parts(0)] == [PartKey(0, number) for number in range(96, 100)]
    for number in range(100, 120):
        track.open_group(0, subgroup=number).finish()
    assert [part.key for part in state.parts(0)] == [PartKey(0, number) for number in range(112, 120)]
    # The part of the highest id stays, and so does the newest one, whatever its id is.
    track.open_group(1, subgroup=9).finish()
    for number in range(8):
        group = track.open_group(1, subgroup=8 - number)
        group.send_nowait(bytes(9999))
        group.finish()
        assert state.group(PartKey(1, 8 - number)) is not None
        assert state.group(PartKey(1, 9)) is not None
        assert state.size <= limits.cache_bytes


async def test_a_slow_subscriber_leaves_parts_of_the_latest_group():
    """The backlog is bounded within a group: datagrams go first, then finished subgroups, the oldest of them first."""
    limits = moqt.Limits(live_backlog=10_000, live_backlog_groups=8)
    track = moqt.Broadcast(limits=limits).track("t")
    cursor = reading(track)
    for number in range(4000):
        track.send_datagram(b"x", sequence=0, object_id=number)
        assert len(cursor.pending) <= limits.live_backlog_groups
    assert [entry.group.id_at(0) for entry in cursor.pending.values()] == list(range(3992, 4000))
    assert {code for _, code in cursor.take_dropped()} == {StreamCode.TOO_FAR_BEHIND}
    base = track.open_group(0, subgroup=0)
    for number in range(1, 10):
        group = track.open_group(0, subgroup=number)
        group.send_nowait(bytes(2000), object_id=5000 + number)
        group.finish()
        base.send_nowait(bytes(10), object_id=6000 + number)
    assert cursor.backlog <= limits.live_backlog
    assert list(cursor.pending) == [0, *(PartKey(0, number) for number in range(6, 10))]
    base.finish()
    assert not cursor.is_behind(8)


async def test_the_open_parts_of_the_latest_group_are_bounded():
    """Of parts that are all open the ones with high ids go, and the lowest one stays."""
    limits = moqt.Limits(live_backlog=10_000)
    track = moqt.Broadcast(limits=limits).track("t")
    cursor = reading(track)
    groups = [track.open_group(0, subgroup=number) for number in range(4)]
    for number in range(20):
        for group in groups:
            group.send_nowait(bytes(400), object_id=4 * number + group.subgroup)
        assert cursor.backlog <= limits.live_backlog
    assert 0 in cursor.pending
    assert PartKey(0, 3) not in cursor.pending
    for group in groups:
        group.finish()


async def test_properties_count_for_the_backlog():
    """A reliable track bounds what it keeps for a slow subscriber, also where most of that is beside the payloads."""
    track = moqt.Broadcast(limits=moqt.Limits(reliable_backlog=100_000)).track("t", delivery="reliable")
    cursor = reading(track)
    group = track.open_group()
    group.send_nowait(b"plain")
    blob = ((BLOB, bytes(10_000)),)
    while state_of(track).has_room():
        group.send_nowait(b"x", properties=blob)
    assert 8 < len(state_of(track).group(0).frames) <= 12
    assert cursor.backlog > 100_000
    late = reading(track)
    assert late.backlog == cursor.backlog
    entry = late.pending[0]
    late.take(entry, 1 << 20)
    late.take(entry, 1 << 20)
    before = late.backlog
    entry.offset = 0
    late.take_part(entry, 1 << 20)
    assert before - late.backlog > 10_000
    while cursor.backlog > 10_000:
        cursor.take(cursor.pending[0], 1 << 20)
    group.send_nowait(b"x")
    group.finish()
    for each in (cursor, late):
        while each.pending:
            each.take(each.pending[0], 1 << 20)
        assert each.backlog == each.backlog_frames == 0
