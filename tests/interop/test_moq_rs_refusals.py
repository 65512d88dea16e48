"""Tracks that are refused and subscriptions that are cancelled, in both directions: each version, transport and role.

Whatever is refused or cancelled ends alone: the session goes on, which each test shows by a subscription after it.
"""

from __future__ import annotations

import pytest

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from tests.interop.moq_rs import MoqRs, Pairing, check_session_lives, each_pairing, needs_moq_rs, payloads
from tests.interop.raw_link import ANNOUNCE, ANNOUNCES_X, SUBSCRIBE, TRACK, TRACK_INFO, prefixed, raw_link

pytestmark = needs_moq_rs

APPLICATION = 0x40
"""The offset that moq-rs adds to a code of the application."""


@each_pairing
async def test_moq_rs_refuses_a_track(moq_rs: MoqRs, pairing: Pairing):
    """The code of moq-rs's refusal reaches our subscriber; a track, or a broadcast, that it does not have raises
    `NotFound`."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("refuse", path="theirs/refusing", code=19)
        async with ours.announcements("theirs") as announcements:
            await anext(announcements)
        with pytest.raises(moqt.StreamReset) as refusal:
            async with ours.subscribe("theirs/refusing", "anything") as subscription:
                await anext(subscription)
        assert refusal.value.code == APPLICATION + 19
        assert refusal.value.by_peer
        await theirs.wait("refused", track="anything")
        theirs.tell("publish", path="theirs/out", track="t")
        for path, track in [("theirs/out", "other"), ("nowhere", "t")]:
            with pytest.raises(moqt.NotFound):
                async with ours.subscribe(path, track) as subscription:
                    await anext(subscription)
        await check_session_lives(ours, theirs)


@each_pairing
async def test_we_refuse_a_track(moq_rs: MoqRs, pairing: Pairing):
    """moq-rs's subscription to a track that our broadcast lacks fails there with the code that says so."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        async with ours.publish("our/out", moqt.Broadcast()):
            theirs.tell("subscribe", path="our/out", track="missing", max_age=60)
            failure = await theirs.wait("failed", path="our/out", track="missing")
            assert (failure["scope"], failure["code"]) == ("STREAM", StreamCode.NOT_FOUND)
        await check_session_lives(ours, theirs)


@each_pairing
async def test_moq_rs_cancels_a_subscription_of_ours(moq_rs: MoqRs, pairing: Pairing):
    """When moq-rs cancels in the middle of a group, our track has no subscriber, its writer can go on, and moq-rs may
    subscribe again."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=60)
    async with pairing.sessions(moq_rs) as (ours, theirs), ours.publish("our/out", broadcast):
        theirs.tell("subscribe", path="our/out", track="t", max_age=60)
        await track.wait_subscribed()
        async with track.open_group(0) as group:
            await group.send(b"first")
            await theirs.wait("opened", path="our/out", sequence=0)
            theirs.tell("cancel", path="our/out", track="t")
            await theirs.wait("cancelled", path="our/out")
            await track.wait_unsubscribed()
            await group.send(b"second")
        theirs.tell("subscribe", path="our/out", track="t", max_age=60)
        await track.wait_subscribed()
        frames = payloads(1, 3)
        async with track.open_group(1) as group:
            for frame in frames:
                await group.send(frame)
        assert await theirs.wait_frames("group", path="our/out", sequence=1) == (1, frames)
        await check_session_lives(ours, theirs)


SUBSCRIBE_OK = {
    1: prefixed(b"\x00"),
    2: prefixed(b""),
    3: b"\x00" + prefixed(bytes(5)),
    4: b"\x00" + prefixed(bytes(5)),
    5: b"\x00" + prefixed(b"\x00"),
    6: b"\x00" + prefixed(b"\x00"),
}
"""By version: the acceptance of a subscription, with 0 in every field that it has."""


def group_opening(version: int, subscription: int, sequence: int) -> bytes:
    """Returns how the stream of a group begins: its type, the subscription and the group; in moq-lite-06 also the first
    frame."""
    return b"\x00" + prefixed(bytes([subscription, sequence, *([0] if version == 6 else [])]))


def one_frame(version: int, payload: bytes) -> bytes:
    """Returns the only frame of a group, at time 0 where the version has times."""
    return (b"\x00" if version >= 5 else b"") + prefixed(payload)


@each_pairing
async def test_moq_rs_opens_a_group_of_a_cancelled_subscription_again(moq_rs: MoqRs, pairing: Pairing):
    """moq-rs keeps the track of a subscription that it cancelled: until a group's stream is reset, a further
    subscription opens this group before we have answered.

    A reset that comes at this moment, with the code 1 that we use, may end the group in the further subscription too:
    it reads `incomplete`, code 1, or waits for another copy of the group. Later groups arrive in any case.
    """
    version = pairing.number
    async with raw_link(moq_rs, pairing) as (link, theirs):
        announcements = await link.wait_bidirectional(ANNOUNCE)
        announcements.write(ANNOUNCES_X[version])
        theirs.tell("subscribe", path="x", track="t", max_age=60)
        if version >= 5:
            (await link.wait_bidirectional(TRACK)).write(TRACK_INFO[version], fin=True)
        cancelled = await link.wait_bidirectional(SUBSCRIBE)
        cancelled.write(SUBSCRIBE_OK[version])
        group = await link.connection.open_uni()
        group.write(group_opening(version, 0, 0) + one_frame(version, b"first"))
        await theirs.wait("opened", path="x", sequence=0)
        theirs.tell("cancel", path="x", track="t")
        await link.until(lambda: cancelled.reset is not None)
        assert (cancelled.reset, cancelled.finished) == (StreamCode.CANCELLED, False)

        theirs.tell("subscribe", path="x", track="t", max_age=60)
        await theirs.wait("opened", path="x", sequence=0)
        group.reset(StreamCode.CANCELLED)
        await link.until(lambda: len(link.bidirectional(SUBSCRIBE)) == 2)
        link.bidirectional(SUBSCRIBE)[1].write(SUBSCRIBE_OK[version])
        for sequence in (0, 1):
            payload = b"group %d" % sequence
            await link.send_uni(group_opening(version, 1, sequence) + one_frame(version, payload))
        assert await theirs.wait_frames("group", path="x", sequence=1) == (1, [b"group 1"])


@each_pairing
async def test_we_cancel_a_subscription_of_moq_rs(moq_rs: MoqRs, pairing: Pairing):
    """When we cancel in the middle of a group, moq-rs's track has no subscriber, and we may subscribe again."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/out", track="t")
        theirs.write("theirs/out", 0, [b"first"], do="begin")
        async with ours.announcements("theirs") as announcements:
            await anext(announcements)
        async with ours.subscribe("theirs/out", "t", max_age=60) as subscription:
            group = await anext(subscription)
            assert (group.sequence, await anext(group)) == (0, b"first")
            theirs.tell("demand", path="theirs/out", wanted=True)
            await theirs.wait("used", path="theirs/out")
        theirs.tell("demand", path="theirs/out", wanted=False)
        await theirs.wait("unused", path="theirs/out")
        frames = payloads(1, 3)
        theirs.write("theirs/out", 1, frames)
        received = {}
        async with ours.subscribe("theirs/out", "t", max_age=60) as subscription:
            while 1 not in received:
                group = await anext(subscription)
                # moq-lite-06 replays the group that is still being written.
                if group.sequence == 1:
                    received[group.sequence] = [bytes(frame) async for frame in group]
        assert received == {1: frames}
        await check_session_lives(ours, theirs)
