"""Groups of unknown subscriptions, and subscribe ids that are used again."""

from __future__ import annotations

import gc

import pytest
import trio

import moqt_trio as moqt
from tests.faults.raw_peer import code_of_reset, settled
from tests.faults.state_peer import (
    VIOLATED,
    answer_subscription,
    closing,
    hostile,
    read_exactly,
    still_serves,
    stopped_with,
)
from tests.faults.state_wire import ALL, CANCELLED, DEVELOP
from tests.transport.awaiting import accept_uni

each_version = pytest.mark.parametrize("version", ALL)

BATCH = 500


async def send_groups(peer, wire, count, *, subscribe_id=9):
    """Send groups of one frame for a subscription, and return what their streams were stopped with."""
    streams = [await peer.open_uni() for _ in range(count)]
    for number, stream in enumerate(streams):
        stream.write(wire.group(subscribe_id, number % 60, b"x"))
    await settled()
    return {stopped_with(stream) for stream in streams}


@each_version
async def test_groups_of_unknown_subscriptions_are_stopped_and_counted(version):
    """A group of a subscription that never was is stopped and counted; one above the bound ends the session."""
    limits = moqt.Limits(max_unknown_groups=200)
    async with hostile(version, limits=limits) as (peer, session, wire):
        await settled()
        kept = len(session._context.connection.streams)
        assert await send_groups(peer, wire, 200) == {CANCELLED}
        assert len(session._context.connection.streams) == kept
        assert session._context.core._state.issued.unknown_groups == 200
        await still_serves(peer, wire)
        stream = await peer.open_uni()
        stream.write(wire.group(9, 0))
        assert await closing(peer) == VIOLATED


@each_version
async def test_ten_thousand_such_groups_leave_no_object(version):
    """Memory does not grow with groups of unknown subscriptions: after 10,000 there are as many objects as before."""
    limits = moqt.Limits(max_unknown_groups=20 * BATCH + BATCH)
    async with hostile(version, limits=limits) as (peer, session, wire):
        # Objects that are made once are made by the first of them.
        await send_groups(peer, wire, BATCH)
        gc.collect()
        before = len(gc.get_objects())
        for _ in range(20):
            assert await send_groups(peer, wire, BATCH) == {CANCELLED}
        gc.collect()
        assert len(gc.get_objects()) - before < 100
        assert session._context.core._state.issued.unknown_groups == 21 * BATCH
        assert session.closed is None


@each_version
async def test_groups_of_a_subscription_that_has_ended_are_not_counted(version):
    """Late groups of a subscription that we closed are stopped, are not counted, and never end the session."""
    limits = moqt.Limits(max_unknown_groups=10)
    async with hostile(version, limits=limits) as (peer, session, wire):
        async with session.subscribe("b", "t"):
            await answer_subscription(peer, wire)
        assert await send_groups(peer, wire, 100, subscribe_id=0) == {CANCELLED}
        assert session._context.core._state.issued.unknown_groups == 0
        # The next id was never issued: the bound still holds for it.
        assert await send_groups(peer, wire, 10, subscribe_id=1) == {CANCELLED}
        assert session.closed is None
        stream = await peer.open_uni()
        stream.write(wire.group(1, 0))
        assert await closing(peer) == VIOLATED


@each_version
async def test_a_subscribe_id_that_is_used_twice(version):
    """The second use of an id is refused while the first is open and after it; the first one is served to its end."""
    duplicate = 2 if version == DEVELOP else 0
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    async with hostile(version) as (peer, session, wire), session.publish("b", broadcast):
        first = await peer.open_bidi()
        first.write(wire.subscribe(0))
        await track.wait_subscribed()
        again = await peer.open_bidi()
        again.write(wire.subscribe(0))
        assert await code_of_reset(again) == duplicate
        assert stopped_with(again) == duplicate
        assert track.subscribers == 1
        async with track.open_group(1) as group:
            await group.send(b"first", timestamp=0)
        stream = await accept_uni(peer)
        expected = wire.group(0, 1, b"first")
        assert await read_exactly(stream, len(expected)) == expected
        assert await stream.receive_some() == b""
        first.reset(CANCELLED)
        await track.wait_unsubscribed()
        late = await peer.open_bidi()
        late.write(wire.subscribe(0))
        assert await code_of_reset(late) == duplicate
        other = await peer.open_bidi()
        other.write(wire.subscribe(1))
        with trio.fail_after(1):
            await track.wait_subscribed()
        assert session.closed is None


@each_version
async def test_a_subscribe_id_of_a_refused_subscription(version):
    """An id of a request for a missing track counts as used, too."""
    async with hostile(version) as (peer, session, wire):
        await still_serves(peer, wire, 5)
        stream = await peer.open_bidi()
        stream.write(wire.subscribe(5))
        assert await code_of_reset(stream) == (2 if version == DEVELOP else 0)
        await still_serves(peer, wire, 6)
        assert session.closed is None
