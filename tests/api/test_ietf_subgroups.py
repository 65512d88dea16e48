"""What groups of the IETF drafts have and those of moq-lite have not: subgroups, object ids, properties, priorities."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.session.subscriber.group_queue import GroupQueue
from moqt_trio.testing import session_pair

DRAFTS = ["moqt-17", "moqt-18", "moqt-19", "moqt-20", "moqt-21", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("version", DRAFTS)
STAMP = 0x10
APPLICATION = 0x78
BLOB = 0x79


@asynccontextmanager
async def published(version, *, delivery="reliable", **options):
    """Yields a track that a server publishes, and a client's subscription to it."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery=delivery, **options)
    with trio.fail_after(20):
        async with (
            session_pair(version) as (client, server),
            server.publish("a/b", broadcast),
            client.subscribe("a/b", "t") as subscription,
        ):
            await track.wait_subscribed()
            yield track, subscription


@asynccontextmanager
async def relayed(upstream_version, *versions, **options):
    """Yields a track, and a subscription to its copy for each version, behind a relay."""
    source_of, copy_of = moqt.Broadcast(), moqt.Broadcast()
    source = source_of.track("t", delivery="reliable", **options)
    copy = copy_of.track("t", delivery="reliable")
    with trio.fail_after(20):
        async with (
            session_pair(upstream_version) as (upstream, publisher),
            publisher.publish("b", source_of),
            upstream.subscribe("b", "t") as subscription,
            trio.open_nursery() as nursery,
        ):
            await source.wait_subscribed()
            nursery.start_soon(moqt.forward, subscription, copy)
            found = []
            async with trio.open_nursery() as pairs:

                async def subscribe(version, *, task_status):
                    async with (
                        session_pair(version) as (client, server),
                        server.publish("b", copy_of),
                        client.subscribe("b", "t") as received,
                    ):
                        while copy.subscribers < len(found) + 1:
                            await trio.lowlevel.checkpoint()
                        task_status.started(received)
                        await trio.sleep_forever()

                for version in versions:
                    found.append(await pairs.start(subscribe, version))
                yield source, *found
                pairs.cancel_scope.cancel()
            nursery.cancel_scope.cancel()


def shown(frame):
    return bytes(frame), frame.object_id


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
async def test_datagrams(version):
    """Several of one group arrive as several readers of one frame each, with what they carry, beside a subgroup."""
    async with published(version, delivery="live") as (track, subscription):
        for number in (0, 1, 7):
            track.send_datagram(
                b"%d" % number,
                10 + number,
                sequence=2,
                object_id=number,
                properties=((APPLICATION, number),) if number else (),
                ends_group=number == 7,
                priority=number or None,
            )
        async with track.open_group(2, subgroup=0) as group:
            await group.send(b"stream", object_id=3)
        assert track.send_datagram(b"alone", 30) == 3
        found, streams = {}, []
        for _ in range(5):
            reader = await anext(subscription)
            [frame] = await reader.read_all()
            if reader.datagram:
                found[reader.sequence, frame.object_id] = reader, frame
            else:
                streams.append((reader.sequence, reader.subgroup, *shown(frame)))
    assert streams == [(2, 0, b"stream", 3)]
    assert sorted(found) == [(2, 0), (2, 1), (2, 7), (3, 0)]
    for (sequence, number), (reader, frame) in found.items():
        assert (reader.subgroup, reader.start_frame) == (None, number)
        assert reader.ends_group == (number == 7 or sequence == 3)
        assert reader.priority == (number or 127)
        assert frame.timestamp == (30 if sequence == 3 else 10 + number)
    assert found[2, 7][1].properties == ((STAMP, 17), (APPLICATION, 7))


@pytest.mark.parametrize("version", ["moqt-20", "moqt-21", "moqt-22"])
async def test_datagrams_beside_a_range(version):
    """Those whose object ids are not wanted are not sent."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            client.subscribe("b", "t", start_group=2, end_group=3, start_frame=1, end_frame=0) as subscription,
        ):
            await track.wait_subscribed()
            for sequence in (2, 3):
                for number in range(3):
                    track.send_datagram(b"x", sequence=sequence, object_id=number)
            found = [await anext(subscription) for _ in range(3)]
            frames = [(group.sequence, (await group.receive()).object_id) for group in found]
            assert sorted(frames) == [(2, 1), (2, 2), (3, 0)]
            await trio.testing.wait_all_tasks_blocked()
            [served] = server._publisher.subscriptions
            assert not served._cursor.pending
            assert subscription.statistics().groups_received == 3


@EACH_DRAFT
async def test_datagrams_through_a_relay(version):
    """They pass as datagrams, and a subscriber of moq-lite gets those that are a group by themselves."""
    async with relayed(version, "moq-lite-06", version) as (source, counted, numbered):
        source.send_datagram(b"a", 5, sequence=1, object_id=0)
        source.send_datagram(b"b", 6, sequence=1, object_id=1)
        source.send_datagram(b"c", 7)
        await trio.testing.wait_all_tasks_blocked()
        await source.write(b"end")
        found = []
        for _ in range(4):
            reader = await anext(numbered)
            found += [(reader.sequence, reader.datagram, *shown(frame)) for frame in await reader.read_all()]
        assert sorted(found) == [(1, True, b"a", 0), (1, True, b"b", 1), (2, True, b"c", 0), (3, False, b"end", 0)]
        received = []
        while (3, b"end") not in received:
            reader = await anext(counted)
            received += [(reader.sequence, bytes(frame)) for frame in await reader.read_all()]
        assert sorted(received) == [(1, b"a"), (2, b"c"), (3, b"end")]


@EACH_DRAFT
async def test_a_long_datagram(version):
    """One that no packet carries, with its properties, goes on a stream, and keeps its number."""
    async with published(version, delivery="live") as (track, subscription):
        blob = ((BLOB, bytes(2000)),)
        track.send_datagram(b"x", sequence=0, object_id=4, properties=blob)
        reader = await anext(subscription)
        [frame] = await reader.read_all()
        assert (reader.datagram, reader.sequence, *shown(frame)) == (False, 0, b"x", 4)
        assert frame.properties[1:] == blob
        # It takes the place of no subgroup.
        async with track.open_group(0, subgroup=4) as group:
            await group.send(b"y", object_id=5)
        reader = await anext(subscription)
        assert [shown(frame) for frame in await reader.read_all()] == [(b"y", 5)]


async def raw(client, server, *datagrams):
    for data in datagrams:
        server._context.connection.send_datagram(data)
    await trio.testing.wait_all_tasks_blocked()


@EACH_DRAFT
async def test_a_datagram_of_unknown_type(version):
    """It ends the session; one of an unknown alias is dropped and counted."""
    with trio.fail_after(10):
        async with session_pair(version) as (client, server):
            await raw(client, server, bytes.fromhex("01636300800210077878"))
            assert client.closed is None
            assert client._context.core.dropped_datagrams == 1
            await raw(client, server, bytes.fromhex("10000000"))
            error = await client.wait_closed()
            assert error.local_code == moqt.SessionCode.PROTOCOL_VIOLATION


# -- what no publisher of this library writes ----------------------------------------------------------------------


@asynccontextmanager
async def played(version="moqt-18", **options):
    """Yields a subscription, and a function that plays a stream of its publisher: what follows the alias."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    with trio.fail_after(10):
        async with (
            session_pair(version, **options) as (client, server),
            server.publish("b", broadcast),
            client.subscribe("b", "t") as subscription,
        ):
            await track.wait_subscribed()
            [served] = server._publisher.subscriptions
            alias = client._context.dialect.profile.encode(served._subscribe_id)

            async def play(kind, rest, *, fin=True):
                stream = await server._context.connection.open_uni()
                stream.write(bytes.fromhex(kind) + alias + bytes.fromhex(rest), fin)
                await trio.testing.wait_all_tasks_blocked()
                return stream

            yield subscription, play, track


async def test_the_end_of_a_group_by_status():
    """Its reader learns it with the last frame."""
    async with played() as (subscription, play, _):
        stream = await play("10", "0080000161", fin=False)
        reader = await anext(subscription)
        assert await reader.receive() == b"a"
        assert not reader.ends_group
        stream.write(bytes.fromhex("000003"), True)
        with pytest.raises(trio.EndOfChannel):
            await reader.receive()
        assert reader.ends_group


async def test_the_end_of_a_track_by_status():
    """It is known before PUBLISH_DONE, and a group that does not exist has no reader."""
    async with played() as (subscription, play, track):
        await play("18", "0080000161")
        await play("18", "0180000004")
        reader = await anext(subscription)
        assert (reader.sequence, await reader.read_all()) == (0, [b"a"])
        assert subscription.end_group == 1
        track.finish()
        assert [group async for group in subscription] == []


@pytest.mark.parametrize(
    "streams",
    [
        [("18", "0080000161"), ("14", "000180050161")],
        [("10", "0080000161000003"), ("14", "000180050161")],
        [("10", "0080000161000003000161")],
        [("18", "0280000004"), ("10", "0280000161")],
        [("10", "0280000161"), ("11", "058000023c040161")],
        [("11", "0280" + "00023c040161")],
    ],
    ids=["by the header", "by status", "on one stream", "of the track", "a gap", "a gap that is too long"],
)
async def test_a_malformed_track(streams):
    """Its subscription is cancelled with MALFORMED_TRACK; the session goes on."""
    async with played() as (subscription, play, track):
        client = subscription._context
        for kind, rest in streams:
            await play(kind, rest)

        async def read():
            async for group in subscription:
                with suppress(moqt.StreamReset):
                    await group.read_all()

        with pytest.raises(moqt.RemoteProtocolError) as caught:
            await read()
        assert caught.value.code == StreamCode.MALFORMED_TRACK
        await track.wait_unsubscribed()
        assert client.connection.closed is None


async def test_a_gap_of_groups():
    """The groups that do not exist are reported once, whichever subgroups say so."""
    async with played() as (subscription, play, _):
        await play("15", "09018000023c030161")
        await play("15", "09028001023c030161")
        for _ in range(2):
            await (await anext(subscription)).read_all()
        assert [(drop.first, drop.last, drop.code) for drop in subscription.dropped] == [(6, 8, 0)]


def test_a_gap_of_groups_that_is_said_again():
    """Long after it was said first, it is no contradiction: what it says does not exist was not there."""
    queue, problems = GroupQueue(moqt.Limits()), []
    queue.on_malformed = problems.append
    queue.note_gap(300, 2)
    for number in range(301, 700):
        queue.note_gap(number, 0)
        queue._ends.note(number, 0, None)
    queue.note_gap(300, 2)
    assert not problems
    assert [(drop.first, drop.last) for drop in queue.dropped] == [(298, 299)]


async def test_a_subgroup_that_comes_twice():
    """The second one is refused; others of the group come."""
    async with played() as (subscription, play, _):
        await play("14", "000180000161")
        again = await play("14", "000180000161", fin=False)
        await play("14", "000280010162")
        found = [await anext(subscription) for _ in range(2)]
        assert [(reader.subgroup, await reader.read_all()) for reader in found] == [(1, [b"a"]), (2, [b"b"])]
        with pytest.raises(moqt.StreamReset):
            again.write(b"x")


async def test_a_flood_of_subgroups():
    """A peer opens as many streams as it may, and not more; what is remembered of them is bounded."""
    limits = moqt.Limits(max_streams=64, cache_groups=100)
    async with played(limits=limits) as (subscription, play, _):
        opened = 0
        with trio.move_on_after(1) as scope:
            for number in range(1000):
                await play("14", f"00{number | 0x8000:04x}80000161")
                opened += 1
        assert scope.cancelled_caught
        assert opened <= 64
        # As they are read, more come: in the end the group has had more parts than are remembered.
        read = 0
        async with trio.open_nursery() as nursery:

            async def go_on():
                for number in range(opened, 300):
                    await play("14", f"00{number | 0x8000:04x}80000161")
                nursery.cancel_scope.cancel()

            nursery.start_soon(go_on)
            while True:
                await (await anext(subscription)).read_all()
                read += 1
        assert 99 <= read <= 300
        assert sum(parts.ranges for parts in subscription._queue._seen._parts.values()) <= 100


@pytest.mark.parametrize("streams", [1, 3, (1 << 62) - 1, 0])
async def test_the_count_of_streams(streams, autojump_clock):
    """With the number that came the subscription ends at once; with more, and without one, after a while."""
    async with played() as (subscription, play, _):
        await play("18", "0080000161")
        [control] = [subscription._control]
        encode = subscription._context.dialect.profile.encode
        body = b"\x02" + encode(streams) + b"\0"
        before = trio.current_time()
        control.data_received(b"\x0b" + len(body).to_bytes(2, "big") + body, True)
        assert [await group.read_all() async for group in subscription] == [[b"a"]]
        assert (trio.current_time() - before < 0.1) == (streams == 1)


# -- the properties of a track -------------------------------------------------------------------------------------


@EACH_DRAFT
async def test_the_properties_of_a_track(version):
    """They come with the acceptance, before the first group."""
    async with published(version, priority=9, max_age=2.0, timescale=90_000, properties=((BLOB, b"x"),)) as (
        _,
        received,
    ):
        properties = await received.track_properties()
    assert properties == moqt.TrackProperties(priority=9, max_age=2.0, timescale=90_000, properties=((BLOB, b"x"),))


@EACH_DRAFT
async def test_the_properties_of_a_track_that_is_not_there(version):
    """There are none, and the reader learns why."""
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", moqt.Broadcast()),
            client.subscribe("b", "t") as subscription,
        ):
            assert await subscription.track_properties() is None
            with pytest.raises(moqt.NotFound):
                await anext(subscription)


async def test_a_property_that_has_to_be_known():
    """The subscription is cancelled; the session goes on."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", properties=((0x4000, 1),))
    with trio.fail_after(10):
        async with session_pair("moqt-18") as (client, server), server.publish("b", broadcast):
            async with client.subscribe("b", "t") as subscription:
                with pytest.raises(moqt.RemoteProtocolError, match="0x4000"):
                    await anext(subscription)
                await track.wait_unsubscribed()
            assert client.closed is None


@EACH_DRAFT
async def test_timescales_through_a_relay(version):
    """Timestamps are converted, also the one among the properties."""
    async with relayed(version, version, timescale=90_000) as (source, subscription):
        async with source.open_group() as group:
            await group.send(b"x", 90_000, properties=((APPLICATION, 1),))
            await group.send(b"y", 180_000)
        frames = await (await anext(subscription)).read_all()
    assert [frame.timestamp for frame in frames] == [1000, 2000]
    assert frames[0].properties == ((STAMP, 1000), (APPLICATION, 1))


@pytest.mark.parametrize("properties", [((3, 1),), ((2, b""),), (("x", 1),)])
def test_properties_of_a_wrong_type(properties):
    with pytest.raises(TypeError, match="property"):
        moqt.Broadcast().track("t", properties=properties)


# -- fetches -------------------------------------------------------------------------------------------------------


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


async def test_the_end_of_a_track_before_its_last_streams(autojump_clock):
    """A status that ends the track, and a PUBLISH_DONE without a count, do not keep later streams from arriving."""
    async with played() as (subscription, play, _):
        await play("18", "0180000004")
        body = b"\x02" + b"\xff" * 9 + b"\0"
        control = subscription._control
        control.data_received(b"\x0b" + len(body).to_bytes(2, "big") + body, True)
        await play("18", "0080000161")
        assert [await group.read_all() async for group in subscription] == [[b"a"]]


@EACH_DRAFT
async def test_frames_with_long_properties(version):
    """They are written one at a time: what is beside the payloads does not fill the send buffer."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    with trio.fail_after(20):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            client.subscribe("b", "t") as subscription,
        ):
            await track.wait_subscribed()
            async with track.open_group() as group:
                for number in range(40):
                    group.send_nowait(b"x", number, properties=((BLOB, bytes(60_000)),))
            await trio.testing.wait_all_tasks_blocked()
            [served] = server._publisher.subscriptions
            assert sum(sent.stream.buffered for sent in served._groups) < 2 * moqt.Limits().send_high
            assert served.undelivered > 30 * 60_000
            frames = await (await anext(subscription)).read_all()
    assert [len(dict(frame.properties)[BLOB]) for frame in frames] == [60_000] * 40


@pytest.mark.parametrize("version", ["moqt-14", "moqt-16", *DRAFTS])
async def test_as_many_properties_of_a_track_as_there_may_be(version):
    """What the API takes arrives in every draft that has a place for it; what the drafts can't carry, it refuses."""
    most = tuple((2 * number, (1 << 62) - 1) for number in range(0x40, 0x40 + 60))
    most += ((0x4001 << 1 | 1, bytes(30_000)),)
    async with published(version, properties=most) as (track, subscription):
        await track.write(b"x")
        assert await (await anext(subscription)).read_all() == [b"x"]
        found = await subscription.track_properties()
    assert found.properties in (most, ())
    for bad in ((*most, (2, 1)), ((2, 1 << 62),), ((1 << 62, 1),), ((3, bytes(33_000)),)):
        with pytest.raises(ValueError, match="propert"):
            moqt.Broadcast().track("t", properties=bad)


async def test_a_track_that_cannot_be_described(caplog):
    """Only its subscription is refused, with a line in the log: it has no reader then, and the session goes on."""
    broadcast = moqt.Broadcast()
    bad, good = broadcast.track("bad"), broadcast.track("good")
    bad.properties = ((2, 1 << 63),)
    with trio.fail_after(20):
        async with session_pair("moqt-16") as (client, server), server.publish("b", broadcast):
            with pytest.raises(moqt.StreamReset):
                async with client.subscribe("b", "bad") as subscription:
                    await anext(subscription)
            assert "cannot be described" in caplog.text
            assert bad.subscribers == 0
            async with client.subscribe("b", "good") as subscription:
                await good.wait_subscribed()
                await good.write(b"x")
                assert await (await anext(subscription)).read_all() == [b"x"]
