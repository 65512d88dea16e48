"""Unread announcements: bounded, and correct once they are read."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import AnnounceOk, AnnounceStart, AnnounceUpdate
from tests.faults.raw_peer import raw_peer
from tests.transport.awaiting import accept_bidi

LIMITS = moqt.Limits(max_queued_announcements=8)


async def test_unread_changes_are_bounded():
    """However many broadcasts come and go unread, the queue has at most the difference from what was read."""
    async with session_pair(client_limits=LIMITS) as (client, server), client.announcements() as announcements:
        for number in range(100):
            async with server.publish(f"passing/{number}", moqt.Broadcast()):
                await trio.testing.wait_all_tasks_blocked()
        async with server.publish("staying", moqt.Broadcast()):
            await trio.testing.wait_all_tasks_blocked()
            assert len(announcements._queue) <= LIMITS.max_queued_announcements
            state: dict[str, bool] = {}
            while announcements._queue:
                change = await announcements.receive()
                state[str(change.path)] = change.active
    assert [path for path, active in state.items() if active] == ["staying"]


async def test_an_unannouncement_is_never_lost():
    """A broadcast that was read as active is read as inactive, also when it ended while the queue was full."""
    async with session_pair(client_limits=LIMITS) as (client, server), client.announcements() as announcements:
        async with server.publish("seen", moqt.Broadcast()):
            assert (await announcements.receive()).active
            for number in range(LIMITS.max_queued_announcements):
                async with server.publish(f"passing/{number}", moqt.Broadcast()):
                    await trio.testing.wait_all_tasks_blocked()
        await trio.testing.wait_all_tasks_blocked()
        ended = set()
        while announcements._queue:
            change = await announcements.receive()
            if not change.active:
                ended.add(str(change.path))
        assert "seen" in ended


async def test_a_block_that_was_not_entered_raises():
    """Announcements and subscriptions are blocks: reading before one was entered, or entering twice, is an error."""
    async with session_pair() as (client, server), server.publish("b", moqt.Broadcast()):
        for block in (client.announcements(), client.subscribe("b", "t")):
            with pytest.raises(moqt.LocalProtocolError, match="async with"):
                await block.receive()
            async with block:
                with pytest.raises(moqt.LocalProtocolError, match="before"):
                    await block.__aenter__()


async def test_a_track_name_that_is_too_long_is_the_callers_mistake():
    """A name for which the peer would close the session is refused here, and the session goes on."""
    async with session_pair() as (client, _):
        for ask in (lambda: client.subscribe("b", "x" * 2000), lambda: client.fetch("b", "x" * 2000, 0)):
            with pytest.raises(ValueError, match="1024 bytes"):
                ask()
        assert client.closed is None


async def test_waiting_for_goaway_ends_with_the_session():
    """A task that waits for GOAWAY gets the session's end instead."""
    async with session_pair() as (client, server), trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(moqt.SessionClosed):
                await client.wait_goaway()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        server.close(0)
        await client.wait_closed()
    with pytest.raises(moqt.SessionClosed):
        await client.wait_goaway()


async def test_both_costs():
    """A relay's discount for what it has cached can be told: the cost with it and the cost without it arrive."""
    encode = dialects.get("moq-lite-06").encode
    async with raw_peer() as (peer, session), session.announcements("") as announcements:
        stream = await accept_bidi(peer)
        stream.write(encode(AnnounceOk(7, 1)) + encode(AnnounceStart("b", (), 3, 11)))
        change = await announcements.receive()
        assert (change.cost, change.cold_cost, change.updated) == (3, 11, False)
        stream.write(encode(AnnounceUpdate(0, (), 11, 12)))
        change = await announcements.receive()
        assert (change.cost, change.cold_cost, change.updated) == (11, 12, True)
        assert announcements.active == (change,)
