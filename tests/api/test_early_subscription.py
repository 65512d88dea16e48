"""Requests for broadcasts that are not published yet: both sides of a session begin at the same time."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair

VERSION = "gomoqt-develop"
"""Peers that speak it never wait for an announcement."""
WAIT = moqt.Limits().track_wait_timeout


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


async def fetch_first(session: moqt.Session) -> bytes:
    """Fetch the first group of `japan/kyoto`, `text`, and return its first frame."""
    async with session.fetch("japan/kyoto", "text", 0) as group:
        return bytes(await anext(group))


@pytest.mark.parametrize("publisher", ["client", "server"])
@pytest.mark.parametrize("version", moqt.version_names())
async def test_in_the_first_seconds_a_subscription_waits(version, publisher, autojump_clock):
    """What a session publishes after its first request is served to that request, in every version and both ways."""
    async with session_pair(version) as (client, server), trio.open_nursery() as nursery:
        here, there = (client, server) if publisher == "client" else (server, client)
        received = trio.Event()

        async def ask() -> None:
            assert await first_frame(there) == b"at last"
            received.set()

        nursery.start_soon(ask)
        await trio.sleep(WAIT / 4)
        async with here.publish("japan/osaka", moqt.Broadcast()):
            await trio.sleep(WAIT / 4)
            async with here.publish("japan/kyoto", broadcast_of_one(b"at last")):
                with trio.fail_after(WAIT / 2):
                    await received.wait()


@pytest.mark.parametrize("version", ["moq-transfork-03", "moq-lite-03", "moq-lite-06"])
async def test_in_the_first_seconds_a_fetch_waits(version, autojump_clock):
    """A fetch waits as a subscription does."""
    async with session_pair(version) as (client, server), trio.open_nursery() as nursery:
        fetched = trio.Event()

        async def ask() -> None:
            assert await fetch_first(server) == b"at last"
            fetched.set()

        nursery.start_soon(ask)
        await trio.sleep(WAIT / 2)
        async with client.publish("japan/kyoto", broadcast_of_one(b"at last")):
            with trio.fail_after(WAIT / 2):
                await fetched.wait()


async def hold(session: moqt.Session, broadcast: moqt.Broadcast, *, task_status: trio.TaskStatus[None]) -> None:
    """Publish a broadcast at `japan/kyoto` until cancelled."""
    async with session.publish("japan/kyoto", broadcast):
        task_status.started()
        await trio.sleep_forever()


@pytest.mark.parametrize("ask", [first_frame, fetch_first])
async def test_what_never_comes_is_refused(ask, autojump_clock):
    """A request for what is not published waits no longer than `Limits.track_wait_timeout`."""
    async with session_pair("moq-lite-06") as (_, server):
        with pytest.raises(moqt.NotFound):
            await ask(server)
        assert trio.current_time() == pytest.approx(WAIT, abs=0.1)


@pytest.mark.parametrize("ask", [first_frame, fetch_first])
async def test_a_track_that_its_broadcast_lacks(ask, autojump_clock):
    """A published broadcast without the track is refused at once, also to a request that waited for it."""
    async with session_pair("moq-lite-06") as (client, server):
        async with trio.open_nursery() as nursery:

            async def refused() -> None:
                with pytest.raises(moqt.NotFound):
                    await ask(server)
                nursery.cancel_scope.cancel()

            nursery.start_soon(refused)
            await trio.sleep(WAIT / 2)
            await nursery.start(hold, client, moqt.Broadcast())
            await trio.sleep_forever()
        async with client.publish("japan/kyoto", moqt.Broadcast()):
            with pytest.raises(moqt.NotFound):
                await ask(server)
        assert trio.current_time() < WAIT


@pytest.mark.parametrize("version", ["moq-transfork-03", "moq-lite-01", "moq-lite-03", "moq-lite-06"])
async def test_later_requests_are_refused_at_once(version, autojump_clock):
    """After its first seconds a session has published what it does first: a missing track is refused without delay."""
    async with session_pair(version) as (_, server):
        await trio.sleep(WAIT)
        with pytest.raises(moqt.NotFound):
            await first_frame(server)
        assert trio.current_time() < WAIT + 0.5


async def test_a_session_that_goes_away_waits_for_nothing(autojump_clock):
    """Once this side was asked to leave, a request for what is not published is refused at once."""
    async with session_pair("moq-lite-06") as (client, server):
        await client.goaway()
        await server.wait_goaway()
        with pytest.raises(moqt.NotFound):
            await first_frame(client)
        assert trio.current_time() < 0.5
