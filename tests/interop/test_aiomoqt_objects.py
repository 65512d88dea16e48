"""What objects have beside a payload, with aiomoqt both ways: subgroups, ids, properties, priorities, datagrams."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import moqt_trio as moqt
from tests.interop.aiomoqt import SCHEMES, Aiomoqt, Pairing, aiomoqt_agents, needs_aiomoqt

pytestmark = needs_aiomoqt

DRAFTS = [14, 16, 18, 20, 22]
PAIRINGS = [Pairing(draft, scheme) for draft in DRAFTS for scheme in SCHEMES]
each_pairing = pytest.mark.parametrize("pairing", PAIRINGS, ids=str)

STAMP = 0x10
NUMBER = 0x78
BYTES = 0x79
END_OF_GROUP = 3
END_OF_TRACK = 4


@pytest.fixture(scope="module")
def current_aiomoqt() -> Iterator[Callable[[], Aiomoqt]]:
    """Returns the process that runs."""
    with aiomoqt_agents() as current:
        yield current


@pytest.fixture
def aiomoqt(current_aiomoqt: Callable[[], Aiomoqt]) -> Aiomoqt:
    """A process of aiomoqt that can connect."""
    return current_aiomoqt()


@each_pairing
async def test_subgroups_of_aiomoqt(aiomoqt: Aiomoqt, pairing: Pairing):
    """Two of one group, with ids that interleave, are two readers with what the objects have; a status ends a group."""
    async with aiomoqt.session(pairing) as session:
        await aiomoqt.do("serve", path="theirs/out", track="t")
        async with session.subscribe("theirs/out", "t") as subscription:
            await aiomoqt.wait("requested")
            for subgroup, priority in ((0, 128), (3, 7)):
                await aiomoqt.do(
                    "open",
                    stream=f"{subgroup}",
                    track="t",
                    group=5,
                    subgroup=subgroup,
                    priority=priority,
                    properties=True,
                )
            for number in (0, 1, 2, 5, 6):
                properties = {str(STAMP): 1000 + number, str(NUMBER): number, str(BYTES): b"bytes".hex()}
                stream = "3" if number % 2 else "0"
                await aiomoqt.do("object", stream=stream, id=number, payload=b"x".hex(), properties=properties)
            await aiomoqt.do("object", stream="0", id=7, status=END_OF_GROUP)
            for stream in ("0", "3"):
                await aiomoqt.do("fin", stream=stream)
            found = {}
            for _ in range(2):
                group = await subscription.receive()
                frames = await group.read_all()
                found[group.subgroup] = group, frames
    assert sorted(found) == [0, 3]
    for subgroup, numbers in ((0, [0, 2, 6]), (3, [1, 5])):
        group, frames = found[subgroup]
        assert (group.sequence, group.priority, group.start_frame) == (5, 127 if not subgroup else 248, numbers[0])
        assert group.ends_group == (subgroup == 0)
        assert [(frame.object_id, frame.timestamp, frame.properties) for frame in frames] == [
            (number, 1000 + number, ((STAMP, 1000 + number), (NUMBER, number), (BYTES, b"bytes"))) for number in numbers
        ]


@each_pairing
async def test_our_subgroups_at_aiomoqt(aiomoqt: Aiomoqt, pairing: Pairing):
    """It reads each object with its subgroup, its id, its properties and the priority."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", priority=100)
    async with aiomoqt.session(pairing) as session, session.publish("ours/out", broadcast):
        await aiomoqt.do("subscribe", path="ours/out", track="t")
        await track.wait_subscribed()
        base = track.open_group(2, subgroup=0)
        layer = track.open_group(2, subgroup=1, ends_group=True, priority=90)
        async with base, layer:
            await base.send(b"a", 5)
            await layer.send(b"b", 6, object_id=1, properties=((NUMBER, 4), (BYTES, b"bytes")))
            await base.send(b"c", 7, object_id=300)
            await layer.send(b"d", 8, object_id=301)
        ends = [await aiomoqt.wait("end") for _ in range(2)]
        objects = [await aiomoqt.wait("object") for _ in range(4)]
    assert sorted((end["group"], end["subgroup"], end["clean"]) for end in ends) == [(2, 0, True), (2, 1, True)]
    found = {item["id"]: (item["subgroup"], item["priority"], bytes.fromhex(item["payload"])) for item in objects}
    assert found == {0: (0, 155, b"a"), 1: (1, 165, b"b"), 300: (0, 155, b"c"), 301: (1, 165, b"d")}
    properties = next(item["properties"] for item in objects if item["id"] == 1)
    assert properties == {str(STAMP): 6, str(NUMBER): 4, str(BYTES): b"bytes".hex()}


@each_pairing
async def test_datagrams_of_aiomoqt(aiomoqt: Aiomoqt, pairing: Pairing):
    """Several of one group are several readers of one frame, each with what it has."""
    async with aiomoqt.session(pairing) as session:
        await aiomoqt.do("serve", path="theirs/out", track="t")
        async with session.subscribe("theirs/out", "t") as subscription:
            await aiomoqt.wait("requested")
            for number in range(3):
                await aiomoqt.do(
                    "datagram",
                    track="t",
                    group=4,
                    id=number,
                    payload=(b"%d" % number).hex(),
                    properties={str(STAMP): 50 + number} if number else None,
                    last=number == 2,
                    priority=100 + number,
                )
            found = {}
            for _ in range(3):
                reader = await subscription.receive()
                [frame] = await reader.read_all()
                assert (reader.sequence, reader.datagram, reader.subgroup) == (4, True, None)
                found[frame.object_id] = bytes(frame), frame.timestamp, reader.priority, reader.ends_group
    assert found == {
        0: (b"0", None, 155, False),
        1: (b"1", 51, 154, False),
        2: (b"2", 52, 153, True),
    }


@each_pairing
async def test_our_datagrams_at_aiomoqt(aiomoqt: Aiomoqt, pairing: Pairing):
    """It reads each with its group, its id and its payload."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with aiomoqt.session(pairing) as session, session.publish("ours/out", broadcast):
        await aiomoqt.do("subscribe", path="ours/out", track="t")
        await track.wait_subscribed()
        for number in range(3):
            track.send_datagram(b"%d" % number, 9, sequence=1, object_id=number, ends_group=number == 2)
        assert track.send_datagram(b"alone") == 2
        objects = [await aiomoqt.wait("object") for _ in range(4)]
    assert sorted((item["group"], item["id"], bytes.fromhex(item["payload"])) for item in objects) == [
        (1, 0, b"0"),
        (1, 1, b"1"),
        (1, 2, b"2"),
        (2, 0, b"alone"),
    ]


@each_pairing
async def test_the_end_of_a_track_of_aiomoqt(aiomoqt: Aiomoqt, pairing: Pairing):
    """A status says it, in a group that does not exist; the number of streams ends the subscription."""
    async with aiomoqt.session(pairing) as session:
        await aiomoqt.do("serve", path="theirs/out", track="t")
        async with session.subscribe("theirs/out", "t") as subscription:
            await aiomoqt.wait("requested")
            await aiomoqt.do("open", stream="s", track="t", group=0)
            await aiomoqt.do("object", stream="s", id=0, payload=b"x".hex())
            await aiomoqt.do("fin", stream="s")
            await aiomoqt.do("open", stream="e", track="t", group=1)
            await aiomoqt.do("object", stream="e", id=0, status=END_OF_TRACK)
            await aiomoqt.do("fin", stream="e")
            await aiomoqt.do("finish", track="t")
            assert [(group.sequence, await group.read_all()) async for group in subscription] == [(0, [b"x"])]
            assert subscription.end_group == 1


@each_pairing
async def test_what_aiomoqt_says_of_a_track(aiomoqt: Aiomoqt, pairing: Pairing):
    """Nothing: its timestamps are microseconds."""
    async with aiomoqt.session(pairing) as session:
        await aiomoqt.do("serve", path="theirs/out", track="t")
        async with session.subscribe("theirs/out", "t") as subscription:
            properties = await subscription.track_properties()
    assert properties is not None
    assert (properties.timescale, properties.priority, properties.properties) == (1_000_000, 127, ())
