"""Tracks that are offered, pauses and the status of a track, between aiomoqt and this side."""

from __future__ import annotations

import pytest

import moqt_trio as moqt
from tests.interop.aiomoqt import GROUPS, Aiomoqt, CommandFailed, Pairing, from_18_on, needs_aiomoqt, write, written

pytestmark = needs_aiomoqt


@from_18_on
async def test_a_track_that_aiomoqt_offers(aiomoqt: Aiomoqt, pairing: Pairing):
    """It is on the list of offers, sleeps until we subscribe, and needs no request of ours; its end ends the offer."""
    async with aiomoqt.session(pairing) as session, session.offered_tracks("theirs") as offers:
        await aiomoqt.do("offer", path="theirs/out", track="bytes")
        assert (await aiomoqt.wait("forward", track="bytes"))["value"] in (0, None)
        assert await anext(offers) == moqt.OfferedTrack(moqt.BroadcastPath.parse("theirs/out"), "bytes", True)
        async with session.subscribe("theirs/out", "bytes", max_age=60) as subscription:
            assert (await aiomoqt.wait("forward", track="bytes"))["value"] == 1
            for sequence, frames in GROUPS.items():
                await aiomoqt.do("open", stream="s", track="bytes", group=sequence)
                for index, frame in enumerate(frames):
                    await aiomoqt.do("object", stream="s", id=index, payload=frame.hex())
                await aiomoqt.do("fin", stream="s")
            await aiomoqt.do("finish", track="bytes")
            received = {group.sequence: await group.read_all() async for group in subscription}
        assert received == GROUPS
        assert not (await anext(offers)).active


@from_18_on
async def test_aiomoqt_finds_a_track_of_ours(aiomoqt: Aiomoqt, pairing: Pairing):
    """It knows a prefix only: it asks for namespaces and then for tracks, is offered the track, and reads it."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes", delivery="reliable", max_age=60)
    async with aiomoqt.session(pairing) as session, session.publish("ours/out", broadcast):
        await aiomoqt.do("discover_track", path="ours")
        assert (await aiomoqt.wait("discovered"))["track"] == "bytes"
        await track.wait_subscribed()
        await write(track, GROUPS)
        track.finish()
        assert (await aiomoqt.wait("done", track="bytes"))["streams"] == len(GROUPS)
        expected = written(GROUPS)
        objects = [await aiomoqt.wait("object") for _ in expected]
        assert {(item["group"], item["id"]): bytes.fromhex(item["payload"]) for item in objects} == expected


@from_18_on
async def test_aiomoqt_pauses(aiomoqt: Aiomoqt, pairing: Pairing):
    """While it pauses, the track has no subscriber and nothing is sent; it goes on with what is written afterwards."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes")
    async with aiomoqt.session(pairing) as session, session.publish("ours/out", broadcast):
        await aiomoqt.do("subscribe", path="ours/out", track="bytes")
        await track.wait_subscribed()
        await track.write(b"first")
        assert bytes.fromhex((await aiomoqt.wait("object"))["payload"]) == b"first"
        await aiomoqt.do("forward", track="bytes", value=0)
        await track.wait_unsubscribed()
        await track.write(b"unseen")
        await aiomoqt.do("forward", track="bytes", value=1)
        await track.wait_subscribed()
        await track.write(b"third")
        item = await aiomoqt.wait("object")
        assert (item["group"], bytes.fromhex(item["payload"])) == (2, b"third")


@from_18_on
async def test_the_status_of_a_track(aiomoqt: Aiomoqt, pairing: Pairing):
    """aiomoqt is told the newest object, none of an empty track, and that a track is not there."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes")
    broadcast.track("empty")
    await write(track, {4: [b"0", b"1", b"2"]})
    async with aiomoqt.session(pairing) as session, session.publish("ours/out", broadcast):
        await aiomoqt.do("status", path="ours/out", track="bytes")
        assert (await aiomoqt.wait("status"))["largest"] == [4, 2]
        await aiomoqt.do("status", path="ours/out", track="empty")
        assert (await aiomoqt.wait("status"))["largest"] is None
        with pytest.raises(CommandFailed, match="code=16"):
            await aiomoqt.do("status", path="ours/out", track="none")
