"""Objects of the IETF drafts in datagrams: with ids and properties, beside a range, through a relay, too long."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.api.objects import APPLICATION, BLOB, EACH_DRAFT, STAMP, published, relayed, shown


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
