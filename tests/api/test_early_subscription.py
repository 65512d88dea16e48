"""Subscriptions to tracks that are not published yet: gomoqt's develop version has peers that make them."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair

VERSION = "gomoqt-develop"


def broadcast_of_one(payload: bytes) -> moqt.Broadcast:
    """Return a broadcast whose track `text` has one group of one frame."""
    broadcast = moqt.Broadcast()
    broadcast.track("text", delivery="reliable", max_age=60).write_nowait(payload)
    return broadcast


async def first_frame(session: moqt.Session, **options: object) -> bytes:
    """Subscribe to `japan/kyoto`, `text`, and return the first frame."""
    async with session.subscribe("japan/kyoto", "text", max_age=60, **options) as subscription:
        return bytes(await anext(await anext(subscription)))


async def test_a_subscription_waits_for_its_track(autojump_clock):
    """A subscriber that asks before there is anything gets the track as soon as it is published."""
    received: list[bytes] = []
    arrived = trio.Event()

    async def subscribe(session: moqt.Session) -> None:
        received.append(await first_frame(session))
        arrived.set()

    async with session_pair(VERSION) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(subscribe, server)
        await trio.sleep(client.limits.track_wait_timeout / 2)
        async with (
            client.publish("japan/osaka", moqt.Broadcast()),
            client.publish("japan/kyoto", broadcast_of_one(b"at last")),
        ):
            with trio.fail_after(client.limits.track_wait_timeout):
                await arrived.wait()
    assert received == [b"at last"]


async def test_it_does_not_wait_for_ever(autojump_clock):
    """A track that is not published within `Limits.track_wait_timeout` is refused, and the session goes on."""
    async with session_pair(VERSION) as (client, server):
        began = trio.current_time()
        with pytest.raises(moqt.NotFound):
            await first_frame(server)
        assert trio.current_time() - began == pytest.approx(client.limits.track_wait_timeout, abs=0.5)
        async with client.publish("japan/kyoto", broadcast_of_one(b"too late for the first")):
            assert await first_frame(server) == b"too late for the first"


async def test_cancelling_ends_the_waiting(autojump_clock):
    """A subscriber that cancels is not served later, and leaves no state."""
    async with session_pair(VERSION) as (client, server):
        with trio.move_on_after(0.5) as scope:
            await first_frame(server)
        assert scope.cancelled_caught
        async with client.publish("japan/kyoto", broadcast_of_one(b"this is not read")):
            await trio.testing.wait_all_tasks_blocked()
            assert client.statistics().subscriptions_served == 0
            assert server.statistics().subscriptions == 0


async def test_what_is_updated_meanwhile_holds(autojump_clock):
    """An update that comes while a subscription waits is in force once it is served."""
    async with (
        session_pair(VERSION) as (client, server),
        server.subscribe("japan/kyoto", "text", max_age=60) as subscription,
    ):
        await subscription.update(start_group=2, end_group=2)
        # Until it has arrived: one that comes after the answer can't move the start back.
        await trio.sleep(client.limits.track_wait_timeout / 2)
        broadcast = moqt.Broadcast()
        track = broadcast.track("text", delivery="reliable", max_age=60)
        for number in range(4):
            track.write_nowait(b"%d" % number)
        async with client.publish("japan/kyoto", broadcast):
            group = await anext(subscription)
            assert (group.sequence, bytes(await anext(group))) == (2, b"2")


@pytest.mark.parametrize("version", ["moq-transfork-03", "moq-lite-01", "moq-lite-03", "moq-lite-06"])
async def test_other_versions_refuse_at_once(version, autojump_clock):
    """Where subscribers wait for announcements, a missing track is refused without delay."""
    async with session_pair(version) as (_, server):
        began = trio.current_time()
        with pytest.raises(moqt.NotFound):
            await first_frame(server)
        assert trio.current_time() - began < 0.5
