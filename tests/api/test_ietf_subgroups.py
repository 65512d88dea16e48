"""What groups of the IETF drafts have and those of moq-lite have not: subgroups, object ids, properties, priorities."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.testing import session_pair
from tests.api.objects import APPLICATION, BLOB, EACH_DRAFT, STAMP, published, relayed, shown


async def parts(subscription, count):
    """Returns so many groups that arrive, each with its frames, by sequence and subgroup."""
    found = {}
    for _ in range(count):
        group = await anext(subscription)
        found[group.sequence, group.subgroup] = group, await group.read_all()
    return found


@EACH_DRAFT
async def test_interleaved_subgroups(version):
    """Two subgroups of a group arrive as two readers of one sequence, with the ids as they were written."""
    async with published(version) as (track, subscription):
        async with track.open_group(3, subgroup=0) as even, track.open_group(3, subgroup=5, ends_group=True) as odd:
            for number in range(0, 10, 2):
                await even.send(b"%d" % number, object_id=number)
                await odd.send(b"%d" % (number + 1), object_id=number + 1)
        found = await parts(subscription, 2)
    assert sorted(found) == [(3, 0), (3, 5)]
    for subgroup in (0, 5):
        group, frames = found[3, subgroup]
        first = subgroup // 5
        assert [shown(frame) for frame in frames] == [(b"%d" % number, number) for number in range(first, 10, 2)]
        assert (group.start_frame, group.ends_group) == (first, subgroup == 5)


@EACH_DRAFT
async def test_gaps_and_properties(version):
    """Ids with gaps, and properties with the timestamp among them, arrive as they were written."""
    async with published(version) as (track, subscription):
        async with track.open_group() as group:
            await group.send(b"a", 5, object_id=7)
            await group.send(b"b", 6, properties=((APPLICATION, 1), (BLOB, b"x")))
            await group.send(b"", 7, object_id=300)
        reader = await anext(subscription)
        frames = await reader.read_all()
    assert [shown(frame) for frame in frames] == [(b"a", 7), (b"b", 8), (b"", 300)]
    assert [frame.timestamp for frame in frames] == [5, 6, 7]
    assert frames[1].properties == ((STAMP, 6), (APPLICATION, 1), (BLOB, b"x"))
    assert reader.start_frame == 7


@EACH_DRAFT
async def test_priorities(version):
    """A priority of its own arrives with the group; the track's does with the others."""
    async with published(version, priority=10) as (track, subscription):
        for priority in (None, 10, 200, 0):
            async with track.open_group(priority=priority) as group:
                await group.send(b"x")
        found = [(await anext(subscription)).priority for _ in range(4)]
    assert sorted(found) == [0, 10, 10, 200]


@EACH_DRAFT
async def test_through_a_relay(version):
    """Subgroups, ids, properties, priorities and ends pass a relay unchanged, and so does the next group."""
    async with relayed(version, "moqt-18", version) as (source, *subscriptions):
        base = source.open_group(4, subgroup=0, priority=3)
        layer = source.open_group(4, subgroup=1, priority=2, ends_group=True)
        async with base, layer:
            await base.send(b"0", 11)
            await layer.send(b"1", 12, object_id=1, properties=((APPLICATION, 4),))
            await base.send(b"2", 13, object_id=2, properties=((BLOB, b"blob"),))
            await layer.send(b"5", 14, object_id=5)
        await source.write(b"next", 20)
        for subscription in subscriptions:
            found = await parts(subscription, 3)
            assert sorted(found) == [(4, 0), (4, 1), (5, 0)]
            group, frames = found[4, 0]
            assert [shown(frame) for frame in frames] == [(b"0", 0), (b"2", 2)]
            assert frames[1].properties == ((STAMP, 13), (BLOB, b"blob"))
            assert (group.priority, group.ends_group) == (3, False)
            group, frames = found[4, 1]
            assert [shown(frame) for frame in frames] == [(b"1", 1), (b"5", 5)]
            assert frames[0].properties == ((STAMP, 12), (APPLICATION, 4))
            assert [frame.timestamp for frame in frames] == [12, 14]
            assert (group.priority, group.ends_group) == (2, True)
            assert [shown(frame) for frame in found[5, 0][1]] == [(b"next", 0)]


@pytest.mark.parametrize("lite", ["moq-lite-03", "moq-lite-05", "moq-lite-06"])
async def test_a_lite_subscriber_beside_an_ietf_one(lite):
    """It gets the groups whose frames can be counted, without properties; the others are dropped for it, with a report.

    Nothing is numbered anew, and the subscriber beside it gets everything.
    """
    async with relayed("moqt-18", lite, "moqt-20") as (source, counted, numbered):
        for number in range(2):
            await source.write(b"%d" % number)
        async with source.open_group() as group:
            await group.send(b"a", properties=((APPLICATION, 1),))
            await group.send(b"b")
        async with source.open_group() as group:
            await group.send(b"a")
            await group.send(b"b", object_id=2)
        async with source.open_group(subgroup=4) as group:
            await group.send(b"a")
        async with source.open_group() as group:
            await group.send(b"a", object_id=1)
        await source.write(b"last")
        found = await parts(numbered, 7)
        assert sorted(found) == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 4), (5, 0), (6, 0)]
        received = {}
        while 6 not in received:
            group = await anext(counted)
            if group.sequence == 3:
                # It had begun when its gap came.
                with pytest.raises(moqt.StreamReset) as reset:
                    await group.read_all()
                assert reset.value.code == StreamCode.INTERNAL_ERROR
            else:
                received[group.sequence] = await group.read_all()
        assert received == {0: [b"0"], 1: [b"1"], 2: [b"a", b"b"], 6: [b"last"]}
        assert not any(
            frame.properties or frame.object_id is not None for frames in received.values() for frame in frames
        )
        while counted.statistics().groups_dropped < 3:
            await trio.testing.wait_all_tasks_blocked()
        dropped = {number: drop.code for drop in counted.dropped for number in range(drop.first, drop.last + 1)}
        assert dropped == dict.fromkeys((3, 4, 5), StreamCode.INTERNAL_ERROR)


@pytest.mark.parametrize("lite", ["moq-lite-03", "moq-lite-05", "moq-lite-06"])
async def test_a_lite_subscriber_gets_subgroup_0(lite):
    """The parts beside it have no place in the version, and leave it alone; without it, the group is reported once."""
    async with published(lite) as (track, subscription):
        async with track.open_group(0, subgroup=0) as base, track.open_group(0, subgroup=1) as layer:
            await base.send(b"a", object_id=0)
            await layer.send(b"b", object_id=1)
            track.send_datagram(b"c", sequence=0, object_id=0)
            await trio.testing.wait_all_tasks_blocked()
            await base.send(b"d", object_id=1)
        for number in (3, 1, 2):
            async with track.open_group(1, subgroup=number) as layer:
                await layer.send(b"x", object_id=number)
        await track.write(b"last")
        received = {}
        while 2 not in received:
            group = await anext(subscription)
            received[group.sequence] = await group.read_all()
        while not subscription.dropped:
            await trio.testing.wait_all_tasks_blocked()
        assert received == {0: [b"a", b"d"], 2: [b"last"]}
        assert [(drop.first, drop.last) for drop in subscription.dropped] == [(1, 1)]
        assert subscription.statistics().groups_dropped == 1


@pytest.mark.parametrize("version", ["moqt-20", "moqt-21", "moqt-22"])
async def test_a_range_that_ends_within_a_group(version):
    """The stream ends there, and does not say that the group does."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=60)
    async with track.open_group() as group:
        for number in range(5):
            await group.send(b"%d" % number)
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            client.subscribe("b", "t", start_group=0, end_group=0, start_frame=1, end_frame=3) as subscription,
        ):
            reader = await anext(subscription)
            assert [shown(frame) for frame in await reader.read_all()] == [(b"1", 1), (b"2", 2), (b"3", 3)]
            assert not reader.ends_group


@EACH_DRAFT
async def test_the_end_comes_with_the_last_stream(version, autojump_clock):
    """PUBLISH_DONE says how many streams there were: the subscription ends when it has read so many, without a wait."""
    async with published(version) as (track, subscription):
        for number in range(5):
            for subgroup in range(2):
                async with track.open_group(number, subgroup=subgroup) as group:
                    await group.send(b"x", object_id=subgroup)
        track.finish()
        before = trio.current_time()
        count = 0
        async for group in subscription:
            await group.read_all()
            count += 1
        assert count == 10
        assert trio.current_time() - before < moqt.Limits().late_group_timeout


@EACH_DRAFT
async def test_many_subgroups(version):
    """As many as the peer may have streams wait for a reader, and more come as they are read."""
    async with published(version, delivery="live") as (track, subscription):
        for number in range(300):
            async with track.open_group(0, subgroup=number) as group:
                await group.send(b"x", object_id=number)
            await trio.lowlevel.checkpoint()
        track.finish()
        found = set()
        async for group in subscription:
            assert len(await group.read_all()) == 1
            found.add(group.subgroup)
        assert found == set(range(300))


@EACH_DRAFT
@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_fetch_of_subgroups(version, newest_first):
    """Its frames come in the order of their ids, whatever their subgroups, with what they have."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    for sequence in (1, 2):
        async with track.open_group(sequence, subgroup=0) as even, track.open_group(sequence, subgroup=1) as odd:
            for number in (0, 1, 4, 6, 7, 8, 9, 20):
                writer = odd if number % 2 else even
                writer.send_nowait(b"%d" % number, number, object_id=number, properties=((APPLICATION, number),))
    with trio.fail_after(10):
        async with session_pair(version) as (client, server), server.publish("b", broadcast):
            async with client.fetch_range("b", "t", (1, 1), (2, 8), newest_first=newest_first) as frames:
                found = [(frame.group, *shown(frame), frame.properties) for frame in await frames.read_all()]
            async with client.fetch("b", "t", 1, start_frame=5, end_frame=10) as group:
                part = [frame.object_id for frame in await group.read_all()]
    wanted = [(1, number) for number in (1, 4, 6, 7, 8, 9, 20)]
    later = [(2, number) for number in (0, 1, 4, 6, 7, 8)]
    assert found == [
        (group, b"%d" % number, number, ((STAMP, number), (APPLICATION, number)))
        for group, number in (later + wanted if newest_first else wanted + later)
    ]
    assert part == [6, 7, 8, 9]


@pytest.mark.parametrize("version", ["moq-lite-05", "moq-lite-06"])
async def test_a_lite_fetch_of_what_cannot_be_counted(version):
    """A group with a gap, or of several subgroups, is not found; a plain one is."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    async with track.open_group(0) as group:
        await group.send(b"x", object_id=1)
    for subgroup in (0, 1):
        async with track.open_group(1, subgroup=subgroup) as group:
            await group.send(b"x")
    async with track.open_group(2, subgroup=0, ends_group=True) as group:
        await group.send(b"x", properties=((APPLICATION, 1),))
    with trio.fail_after(10):
        async with session_pair(version) as (client, server), server.publish("b", broadcast):
            for sequence in (0, 1):
                with pytest.raises(moqt.NotFound):
                    async with client.fetch("b", "t", sequence) as fetched:
                        await fetched.receive()
            async with client.fetch("b", "t", 2) as fetched:
                assert await fetched.read_all() == [b"x"]


@EACH_DRAFT
async def test_a_subscriber_that_joins_a_group_of_subgroups(version):
    """The head of the group is read with subgroup 0; the others begin where the subscription did."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=60)
    async with (
        track.open_group(3, subgroup=0) as even,
        track.open_group(3, subgroup=1, ends_group=True) as odd,
        session_pair(version) as (client, server),
        server.publish("b", broadcast),
    ):
        await even.send(b"0", object_id=0)
        await odd.send(b"1", object_id=1)
        with trio.fail_after(10):
            async with client.subscribe("b", "t") as subscription:
                await track.wait_subscribed()
                await even.send(b"2", object_id=2)
                await odd.send(b"3", object_id=3)
                even.finish()
                odd.finish()
                found = {}
                for _ in range(2):
                    group = await anext(subscription)
                    found[group.subgroup] = [frame.object_id for frame in await group.read_all()], group.ends_group
        assert found == {0: ([0, 1, 2], False), 1: ([3], True)}


@EACH_DRAFT
async def test_a_range_of_groups_in_subgroups(version, autojump_clock):
    """It ends once each group has come and no further subgroup does; after an update it goes on."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=60)
    with trio.fail_after(60):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            client.subscribe("b", "t", start_group=0, end_group=1, max_age=60) as subscription,
        ):
            await track.wait_subscribed()

            async def write(sequences):
                for sequence in sequences:
                    for subgroup in range(3):
                        async with track.open_group(sequence, subgroup=subgroup) as group:
                            await group.send(b"x", object_id=subgroup)
                        await trio.sleep(0.1)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, range(4))
                found = sorted([(group.sequence, group.subgroup) async for group in subscription])
                assert found == [(sequence, subgroup) for sequence in (0, 1) for subgroup in range(3)]
                await subscription.update(end_group=2)
                found = sorted([(group.sequence, group.subgroup) async for group in subscription])
                assert found == [(2, subgroup) for subgroup in range(3)]


@EACH_DRAFT
async def test_a_range_of_whole_groups(version, autojump_clock):
    """It ends with its last group, without a wait."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=60)
    with trio.fail_after(60):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            client.subscribe("b", "t", start_group=0, end_group=1, max_age=60) as subscription,
        ):
            await track.wait_subscribed()
            for _ in range(3):
                await track.write(b"x")
            before = trio.current_time()
            assert sorted([group.sequence async for group in subscription]) == [0, 1]
            assert trio.current_time() - before < 0.1
