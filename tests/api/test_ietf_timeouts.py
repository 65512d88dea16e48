"""Delivery timeouts on the IETF drafts: a frame that waits too long is not sent, and its group is given up."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.testing import session_pair

DRAFTS = ["moqt-14", "moqt-15", "moqt-16", "moqt-17", "moqt-18", "moqt-19", "moqt-20", "moqt-21", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("version", DRAFTS)
LIMITS = moqt.Limits(stream_window=32 * 1024, connection_window=64 * 1024, send_high=8 * 1024)
FRAME = bytes(8 * 1024)


@EACH_DRAFT
async def test_a_group_that_waits_too_long(version, autojump_clock):
    """Its reader gets what was sent and then the code; the group after it is delivered from its first frame."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=1000)
    async with (
        session_pair(version, limits=LIMITS) as (client, server),
        server.publish("a", broadcast),
        client.subscribe("a", "t", delivery_timeout=2.0) as subscription,
    ):
        await track.wait_subscribed()
        async with track.open_group() as slow:
            for _ in range(20):
                await slow.send(FRAME)
            reader = await anext(subscription)
            await trio.sleep(1.5)
            [served] = server._publisher.subscriptions
            assert served.dropped_groups == 0
            await trio.sleep(1.0)
            assert served.dropped_groups == 1
            # What is written after that is not sent, and opens no other stream.
            await slow.send(b"late")
            with pytest.raises(moqt.StreamReset) as caught:
                await reader.read_all()
            assert caught.value.code == StreamCode.DELIVERY_TIMEOUT
        await track.write(b"next")
        group = await anext(subscription)
        assert (group.sequence, await group.read_all()) == (1, [b"next"])


@EACH_DRAFT
async def test_a_group_that_is_read_in_time(version, autojump_clock):
    """It may last as long as it likes: only what waits has an age."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=1000)
    async with (
        session_pair(version, limits=LIMITS) as (client, server),
        server.publish("a", broadcast),
        client.subscribe("a", "t", delivery_timeout=2.0) as subscription,
    ):
        await track.wait_subscribed()
        async with track.open_group() as group:
            reader = None
            for number in range(40):
                await group.send(b"%d" % number + FRAME)
                reader = reader or await anext(subscription)
                frame = await reader.receive()
                assert frame == b"%d" % number + FRAME
                await trio.sleep(1.0)
        [served] = server._publisher.subscriptions
        assert served.dropped_groups == 0


@EACH_DRAFT
async def test_what_is_asked_for_from_the_past(version, autojump_clock):
    """It waits from when it was asked for: old groups are delivered."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=1000, delivery="reliable")
    for number in range(3):
        await track.write(b"%d" % number)
    async with session_pair(version) as (client, server), server.publish("a", broadcast):
        await trio.sleep(100)
        async with client.subscribe("a", "t", delivery_timeout=0.5, start_group=0, max_age=1000) as subscription:
            groups = {group.sequence: await group.read_all() for group in [await anext(subscription) for _ in range(3)]}
        assert groups == {0: [b"0"], 1: [b"1"], 2: [b"2"]}


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_bounds_that_are_none(seconds):
    """They are refused at once, whatever the version."""

    async def main() -> None:
        async with session_pair("moqt-18") as (client, _):
            for name in ("delivery_timeout", "rendezvous"):
                with pytest.raises(ValueError, match=name):
                    client.subscribe("a", "t", **{name: seconds})

    trio.run(main)
