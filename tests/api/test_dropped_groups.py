"""The groups that the publisher reports as dropped, and the end of the track, as the application sees them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from tests.api.staged import subscribed
from tests.faults.raw_peer import raw_peer, settled
from tests.transport.awaiting import accept_bidi

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "moq-lite.json").read_text())["vectors"]
DIALECTS = {
    "moq-lite-06": "moq-lite-06",
    "moq-lite-05": "moq-lite-05",
    "moq-lite-04": "moq-lite-04",
    "moq-lite-03": "moq-lite-03",
    "moq-transfork-03": "transfork-03",
    "gomoqt-develop": "gomoqt-develop",
}
"""The versions that report dropped groups, and their names in the vectors."""
WITH_END = ("moq-lite-06", "moq-lite-05")
EXPIRED = {"gomoqt-develop": moqt.StreamCode.OLD}
"""What the code 3 of a group stands for where codes have numbers of their own; elsewhere it is SESSION_CLOSED."""

EACH_VERSION = pytest.mark.parametrize("version", DIALECTS)


def vector(version: str, *messages: str, **fields: object) -> bytes:
    """Return the bytes of the first vector of one of these messages that has these fields."""
    for entry in VECTORS:
        wanted = entry["dialect"] == DIALECTS[version] and entry["message"] in messages
        if wanted and fields.items() <= entry["fields"].items():
            return bytes.fromhex(entry["hex"])
    raise LookupError(f"no vector of {messages} in {version}")


def says_dropped(version: str) -> bytes:
    """The version's message that the groups 4, 5 and 6 were dropped, with the code 3."""
    fields = {"count": 2} if version == "moq-transfork-03" else {"code": 3}
    return vector(version, "SUBSCRIBE_DROP", "SUBSCRIBE_GAP", **fields)


async def accepted(peer, version):
    """Take the requests of a subscription, and accept it; return its stream."""
    if version in WITH_END:
        await accept_bidi(peer)  # for the track's properties
    stream = await accept_bidi(peer)
    assert (await stream.receive_some())[:1] == b"\x02"
    stream.write(vector(version, "SUBSCRIBE_OK", "INFO"))
    return stream


@EACH_VERSION
async def test_a_range_that_the_publisher_drops(version):
    """The range and its code reach the application, and each group of it is counted once.

    The last group is inclusive; moq-transfork-03 counts the groups after the first one instead.
    """
    async with raw_peer(version) as (peer, session), session.subscribe("demo/cam", "events") as subscription:
        assert subscription.dropped == ()
        stream = await accepted(peer, version)
        stream.write(says_dropped(version))
        await settled()
        code = EXPIRED.get(version, moqt.StreamCode.SESSION_CLOSED)
        assert subscription.dropped == (moqt.DroppedGroups(first=4, last=6, code=code),)
        numbers = subscription.statistics()
        assert numbers.groups_dropped == 3
        assert numbers.groups_expired == (3 if code == moqt.StreamCode.OLD else 0)
    assert len(subscription.dropped) == 1


async def test_a_single_group_of_transfork():
    """No extra group means that one group is missing."""
    version = "moq-transfork-03"
    async with raw_peer(version) as (peer, session), session.subscribe("demo/cam", "events") as subscription:
        stream = await accepted(peer, version)
        stream.write(vector(version, "SUBSCRIBE_GAP", count=0))
        await settled()
        assert [(item.first, item.last) for item in subscription.dropped] == [(4, 4)]
        assert subscription.statistics().groups_dropped == 1


@pytest.mark.parametrize("version", WITH_END)
async def test_the_end_of_a_track(version):
    """SUBSCRIBE_END names the first group that will never arrive, before the subscription ends."""
    async with raw_peer(version) as (peer, session), session.subscribe("demo/cam", "events") as subscription:
        stream = await accepted(peer, version)
        await settled()
        assert (subscription.start_group, subscription.end_group) == (4, None)
        # What is dropped of the end's range need not be waited for: groups 4 to 6 are all there would have been.
        stream.write(says_dropped(version) + bytes.fromhex("01 01 07"))
        await settled()
        assert subscription.end_group == 7
        stream.finish()
        with trio.fail_after(0.1), pytest.raises(trio.EndOfChannel):
            await subscription.receive()


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03"])
async def test_a_group_that_the_writer_resets(version):
    """A group that the publisher resets before it was sent is reported with the application's own code."""
    async with subscribed(version) as (_, _, track, subscription):
        await track.write(b"0")
        await subscription.receive()
        for code in (77, 77, 99):
            track.open_group().reset(code)
        await track.write(b"4")
        await subscription.receive()
        await trio.testing.wait_all_tasks_blocked()
        # Neighbours with the same code are one range.
        assert subscription.dropped == (moqt.DroppedGroups(1, 2, 77), moqt.DroppedGroups(3, 3, 99))
        assert subscription.statistics().groups_dropped == 3


async def test_only_the_newest_ranges_are_kept():
    """However many ranges a publisher names, 256 are kept and all are counted."""
    version = "moq-lite-06"
    async with raw_peer(version) as (peer, session), session.subscribe("demo/cam", "events") as subscription:
        stream = await accepted(peer, version)
        for number in range(0, 2000, 2):
            body = b"".join((number | 0x4000).to_bytes(2, "big") for _ in range(2)) + b"\x00"
            stream.write(b"\x02" + bytes([len(body)]) + body)
        await settled()
        kept = subscription.dropped
        assert len(kept) == 256
        assert kept[-1] == moqt.DroppedGroups(1998, 1998, 0)
        assert kept[0] == moqt.DroppedGroups(1998 - 2 * 255, 1998 - 2 * 255, 0)
        assert subscription.statistics().groups_dropped == 1000
