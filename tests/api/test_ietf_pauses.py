"""Subscriptions that pause, on the IETF drafts."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.protocol.ietf.state import IetfState
from moqt_trio.testing import session_pair
from moqt_trio.wire.ietf.fetched_frames import FetchedFrames
from moqt_trio.wire.ietf.filters import Filter
from moqt_trio.wire.ietf.messages import RequestUpdate
from moqt_trio.wire.ietf.parameters import Parameters

DRAFTS = ["moqt-14", "moqt-15", "moqt-16", "moqt-17", "moqt-18", "moqt-19", "moqt-20", "moqt-21", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("version", DRAFTS)
EACH_DELIVERY = pytest.mark.parametrize("delivery", ["live", "reliable"])


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


@EACH_DRAFT
@EACH_DELIVERY
async def test_a_pause(version, delivery):
    """Nothing arrives in it, no one counts as listening, and the next frame after it does arrive."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery=delivery)
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            server.publish("a", broadcast),
            client.subscribe("a", "t", paused=True) as subscription,
        ):
            assert subscription.paused
            await subscription.wait_accepted()
            assert track.subscribers == 0
            for _ in range(200):
                # A reliable writer does not wait for it either.
                await track.write(bytes(10_000))
            await subscription.update(paused=False)
            await track.wait_subscribed()
            await track.write(b"1")
            group = await anext(subscription)
            assert (group.sequence, await group.read_all()) == (200, [b"1"])
            await subscription.update(paused=True)
            await track.wait_unsubscribed()
            await track.write(b"2")
            await settle()
            assert subscription.unread_groups == 0


@EACH_DRAFT
async def test_a_pause_in_a_group(version):
    """The group is reset, and goes on from its next frame, as a group of its own."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            server.publish("a", broadcast),
            client.subscribe("a", "t") as subscription,
        ):
            await track.wait_subscribed()
            async with track.open_group() as group:
                await group.send(b"0")
                first = await anext(subscription)
                assert await first.receive() == b"0"
                await subscription.update(paused=True)
                with pytest.raises(moqt.StreamReset) as caught:
                    await first.receive()
                assert caught.value.code == StreamCode.CANCELLED
                await group.send(b"1")
                await subscription.update(paused=False)
                await track.wait_subscribed()
                await group.send(b"2")
                second = await anext(subscription)
                assert (second.sequence, second.start_frame) == (0, 2)
                assert await second.receive() == b"2"
            track.finish()
            assert [group.sequence async for group in subscription] == []


@EACH_DRAFT
async def test_a_track_that_ends_in_a_pause(version):
    """The subscription ends with it."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            server.publish("a", broadcast),
            client.subscribe("a", "t", paused=True) as subscription,
        ):
            await subscription.wait_accepted()
            await track.write(b"x")
            track.finish()
            assert [group async for group in subscription] == []


@EACH_DRAFT
async def test_pauses_faster_than_their_answers(version):
    """Only the last one counts, however many there are."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            server.publish("a", broadcast),
            client.subscribe("a", "t") as subscription,
        ):
            await track.wait_subscribed()
            for number in range(301):
                await subscription.update(paused=number % 2 == 0)
            await track.wait_unsubscribed()
            await settle()
            assert track.subscribers == 0
            await subscription.update(paused=False)
            await track.wait_subscribed()
            await track.write(b"x")
            assert await (await anext(subscription)).read_all() == [b"x"]


@pytest.mark.parametrize("version", ["moqt-20", "moqt-22"])
async def test_a_fill_with_the_end_of_a_pause(version):
    """A peer that ends its pause may ask for the newest group with it: it comes on a stream that names the update."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=60)
    for _ in range(3):
        await track.write(b"x")
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            server.publish("a", broadcast),
            client.subscribe("a", "t", paused=True) as subscription,
        ):
            await subscription.wait_accepted()
            context = client._context
            state = context.core._state
            assert isinstance(state, IetfState)
            request_id = state.next_request_id()
            asked = Parameters(forward=True, fill=Parameters(filter=Filter(1)))
            began = trio.Event()

            def begin(stream: object, machine: object, header_bytes: int) -> None:
                began.set()

            state.replies[request_id] = FetchedFrames(state.profile, state.limits)
            context.replies[request_id] = begin
            subscription._send(state.codec.encode(RequestUpdate(request_id, None, asked)))
            subscription._machine._updates.unanswered += 1
            await began.wait()
            # The newest group is complete: its end comes as a group without frames.
            tail = await anext(subscription)
            assert (tail.sequence, await tail.read_all()) == (2, [])


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-03", "moq-lite-01", "moq-transfork-03"])
async def test_versions_without_pauses(version):
    """They say so, on entering and later."""
    broadcast = moqt.Broadcast()
    broadcast.track("t").write_nowait(b"x")
    with trio.fail_after(10):
        async with session_pair(version) as (client, server), server.publish("a", broadcast):
            for options in ({"paused": True}, {"rendezvous": 1.0}, {"delivery_timeout": 1.0}):
                with pytest.raises(moqt.LocalProtocolError, match=version):
                    await client.subscribe("a", "t", **options).__aenter__()
            async with client.subscribe("a", "t") as subscription:
                with pytest.raises(moqt.LocalProtocolError, match=version):
                    await subscription.update(paused=True)
                assert not subscription.paused
                assert await (await anext(subscription)).read_all() == [b"x"]
