"""The status of a track, and subscriptions that wait for theirs, on the IETF drafts."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.testing import session_pair

DRAFTS = ["moqt-14", "moqt-15", "moqt-16", "moqt-17", "moqt-18", "moqt-19", "moqt-20", "moqt-21", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("version", DRAFTS)
FROM_17_ON = pytest.mark.parametrize("version", DRAFTS[3:])


# -- TRACK_STATUS ------------------------------------------------------------------------------------------------


@EACH_DRAFT
async def test_the_status_of_a_track(version):
    """It says what there is and, from 18 on, what the track is like; it is no demand."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", priority=200, max_age=7.5, timescale=90_000)
    with trio.fail_after(10):
        async with session_pair(version) as (client, server), server.publish("a", broadcast):
            properties = None if version < "moqt-18" else moqt.TrackProperties(200, 7.5, 90_000)
            assert await client.track_status("a", "t") == moqt.TrackStatus(None, None, properties)
            async with track.open_group(4) as group:
                await group.send(b"0")
                await group.send(b"1")
                assert await client.track_status("a", "t") == moqt.TrackStatus(4, 1, properties)
            assert track.subscribers == 0
            with pytest.raises(moqt.NotFound):
                await client.track_status("a", "none")
            await trio.testing.wait_all_tasks_blocked()
            assert server._context.core._state.requests.taken == 0


@pytest.mark.parametrize(("version", "known"), [("moq-lite-06", True), ("moq-lite-05", True), ("moq-lite-04", False)])
async def test_the_status_of_a_track_elsewhere(version, known):
    """moq-lite-05 and -06 have a track's properties; the others say that they have nothing."""
    broadcast = moqt.Broadcast()
    broadcast.track("t", priority=9, max_age=2.0).write_nowait(b"x")
    with trio.fail_after(10):
        async with session_pair(version) as (client, server), server.publish("a", broadcast):
            if known:
                properties = moqt.TrackProperties(9, 2.0, 1000)
                assert await client.track_status("a", "t") == moqt.TrackStatus(None, None, properties)
                with pytest.raises((moqt.NotFound, moqt.StreamReset)):
                    await client.track_status("a", "none")
            else:
                with pytest.raises(moqt.LocalProtocolError, match=version):
                    await client.track_status("a", "t")


async def test_a_status_that_is_not_waited_for():
    """Cancelled, it takes its request back; a peer that never answers is given up."""
    with trio.fail_after(10):
        async with session_pair("moqt-18", limits=moqt.Limits(reply_timeout=0.2, track_wait_timeout=5)) as (
            client,
            server,
        ):
            with trio.move_on_after(0.05) as scope:
                await client.track_status("a", "t")
            assert scope.cancelled_caught
            await trio.testing.wait_all_tasks_blocked()
            assert server._context.core._state.requests.taken == 0
            with pytest.raises(moqt.StreamReset) as caught:
                await client.track_status("a", "t")
            assert caught.value.code == StreamCode.CONTROL_TIMEOUT
            server.close()
            with pytest.raises(moqt.SessionClosed):
                await client.track_status("a", "t")


# -- rendezvous --------------------------------------------------------------------------------------------------


@FROM_17_ON
async def test_a_rendezvous(version, autojump_clock):
    """A track that comes in time is served; one that does not is refused with TIMEOUT, at the time that was asked."""
    broadcast = moqt.Broadcast()
    async with session_pair(version) as (client, server), server.publish("a", broadcast):
        # The seconds in which every request waits are over.
        await trio.sleep(3)
        start = trio.current_time()
        with pytest.raises(moqt.NotFound):
            async with client.subscribe("a", "t") as subscription:
                await anext(subscription)
        assert trio.current_time() - start < 0.1
        start = trio.current_time()
        with pytest.raises(moqt.StreamReset) as caught:
            async with client.subscribe("b", "t", rendezvous=0.5) as subscription:
                await anext(subscription)
        assert caught.value.code == StreamCode.CONTROL_TIMEOUT
        assert 0.5 <= trio.current_time() - start < 0.6
        async with client.subscribe("a", "t", rendezvous=20) as subscription, trio.open_nursery() as nursery:
            nursery.start_soon(subscription.wait_accepted)
            await trio.sleep(15)
            assert nursery.child_tasks
            track = broadcast.track("t", delivery="reliable")
            await track.wait_subscribed()
            await track.write(b"x")
            assert await (await anext(subscription)).read_all() == [b"x"]


@FROM_17_ON
async def test_how_long_a_rendezvous_may_be(version, autojump_clock):
    """This side's bound holds, whatever the peer asks for; a subscriber that leaves is gone at once."""
    limits = moqt.Limits(max_rendezvous=4)
    async with session_pair(version, limits=limits) as (client, server):
        start = trio.current_time()
        with pytest.raises(moqt.StreamReset):
            async with client.subscribe("b", "t", rendezvous=1e6) as subscription:
                await anext(subscription)
        assert 4 <= trio.current_time() - start < 4.5
        async with client.subscribe("b", "t", rendezvous=1e6):
            await trio.sleep(0.5)
            assert len(server._context.core._state.peers) == 1
        await trio.sleep(0.5)
        assert len(server._context.core._state.peers) == 0


@FROM_17_ON
async def test_a_rendezvous_in_the_first_seconds(version, autojump_clock):
    """It is the time that was asked for, and not the one that every request has then."""
    async with session_pair(version) as (client, _):
        start = trio.current_time()
        with pytest.raises(moqt.StreamReset):
            async with client.subscribe("b", "t", rendezvous=0.5) as subscription:
                await anext(subscription)
        assert trio.current_time() - start < 0.6
