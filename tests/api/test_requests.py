"""What the four requests of a session have in common: announcements, subscription, fetch and probe are blocks."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.api.interrupting import Pair, cancel_everywhere

REQUESTS = {
    "announcements": lambda session: session.announcements(),
    "fetch": lambda session: session.fetch("b", "t", 0),
    "probe": lambda session: session.probe(),
    "subscription": lambda session: session.subscribe("b", "t"),
}
TIMEOUT = 2
"""Seconds after which a call that should have raised counts as waiting."""

ALL = pytest.mark.parametrize("request_of", REQUESTS.values(), ids=REQUESTS)


@pytest.fixture
async def stage():
    """A pair of sessions; the second publishes a track with an open group of one frame."""
    broadcast = moqt.Broadcast()
    group = broadcast.track("t").open_group()
    await group.send(b"x")
    async with session_pair() as (client, server), server.publish("b", broadcast):
        yield client, server, broadcast


async def read_on(item: object) -> None:
    """Read until that raises."""
    while True:
        await item.receive()


async def drain(item: object) -> None:
    """Read what is there, until reading waits."""
    with trio.move_on_after(0.1):
        await read_on(item)


@ALL
async def test_reading_before_entering(stage, request_of):
    """Receiving before the block is entered is a LocalProtocolError that says what to do."""
    client, _, _ = stage
    item = request_of(client)
    assert "closed" not in repr(item)
    with trio.fail_after(TIMEOUT), pytest.raises(moqt.LocalProtocolError, match="async with"):
        await item.receive()
    async with item:
        await item.receive()


async def test_other_calls_before_entering(stage):
    """Neither can any other method of a request be used before its block is entered."""
    client, _, _ = stage
    subscription, fetched = client.subscribe("b", "t"), client.fetch("b", "t", 0)
    for call in (
        client.announcements().wait_initial,
        lambda: client.probe().update(1000),
        subscription.wait_accepted,
        subscription.track_properties,
        lambda: subscription.update(priority=1),
        fetched.receive_batch,
        fetched.read_all,
    ):
        with trio.fail_after(TIMEOUT), pytest.raises(moqt.LocalProtocolError, match="async with"):
            await call()
    with pytest.raises(moqt.LocalProtocolError, match="async with"):
        fetched.receive_nowait()


@ALL
async def test_entered_once(stage, request_of):
    """A request is entered once: not again inside its block, nor after it; the attempt changes nothing."""
    client, _, _ = stage
    item = request_of(client)
    async with item:
        with pytest.raises(moqt.LocalProtocolError, match="only once"):
            await item.__aenter__()
        await item.receive()
    with pytest.raises(moqt.LocalProtocolError, match="only once"):
        async with item:
            pytest.fail("it was entered again")
    with pytest.raises(trio.ClosedResourceError):
        await item.receive()


@ALL
async def test_not_entered_again_after_a_cancelled_entry(request_of):
    """A request whose entry was cancelled is closed, leaves no stream, and cannot be entered again."""

    async def scenario(attempt):
        broadcast = moqt.Broadcast()
        group = broadcast.track("t").open_group()
        async with Pair() as pair, pair.server.publish("b", broadcast):
            await group.send(b"x")
            item = request_of(pair.client)
            if await attempt(item.__aenter__):
                with pytest.raises(trio.ClosedResourceError):
                    await item.receive()
                with pytest.raises(moqt.LocalProtocolError, match="only once"):
                    await item.__aenter__()
            else:
                await item.__aexit__(None, None, None)

    await cancel_everywhere(scenario)


@ALL
async def test_two_readers(stage, request_of, autojump_clock):
    """A second task that receives gets BusyResourceError; the first goes on."""
    client, server, _ = stage
    async with request_of(client) as item:
        await drain(item)

        async def read() -> None:
            with pytest.raises(moqt.SessionClosed):
                await read_on(item)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await item.receive()
            server.close(0)


@ALL
async def test_leaving_ends_a_receive(stage, request_of, autojump_clock):
    """A task that receives while another leaves the block gets ClosedResourceError, and so does every later one."""
    client, _, _ = stage

    async def read() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await item.receive()

    async with trio.open_nursery() as nursery, request_of(client) as item:
        await drain(item)
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
    await read()


@ALL
async def test_leaving_drops_what_was_not_read(stage, request_of):
    """What arrived and was not read cannot be read after the block."""
    client, _, _ = stage
    async with request_of(client) as item:
        await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(trio.ClosedResourceError):
        await item.receive()


@ALL
async def test_a_session_that_is_over(stage, request_of):
    """Readers get the session's end after the items that arrived before it; a new block cannot be entered at all."""
    client, server, _ = stage
    late = request_of(client)
    async with request_of(client) as item:
        await trio.testing.wait_all_tasks_blocked()
        server.close(3)
        await client.wait_closed()
        await item.receive()
        for _ in range(2):
            with pytest.raises(moqt.SessionClosed):
                await read_on(item)
    with pytest.raises(moqt.SessionClosed):
        async with late:
            pytest.fail("it was entered")
