"""Readers of one offer of a peer (PUBLISH) that follow each other at once, while data of the first is on its way."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from tests.faults.draft_peer import DraftPeer, draft_peer
from tests.faults.drafts import CANCELLED, NAMES, SUBSCRIBE_UPDATE, DraftWire
from tests.faults.raw_peer import settled

FROM_17_ON = pytest.mark.parametrize("name", [name for name in NAMES if not DraftWire(name).shared])


async def offered(peer: DraftPeer):
    """Offer a track under the alias 7, and answer the update that puts it to sleep (from 20 on)."""
    request_id = peer.next_id()
    exchange = await peer.request(peer.wire.publish(request_id, 7, (b"p",), b"t"), request_id)
    await exchange.accepted()
    if peer.wire.draft >= 20:
        await updated(exchange)
        exchange.write(peer.wire.update_ok(0))
    return exchange


async def updated(exchange) -> None:
    kind, _ = await exchange.answer()
    assert kind == SUBSCRIBE_UPDATE


@FROM_17_ON
@pytest.mark.parametrize("start", ["next_frame", "latest_group"])
async def test_a_late_stream_of_an_earlier_reader(name, start):
    """It may reach the next reader. What that one is sent of the same group arrives all the same."""
    async with draft_peer(name) as peer:
        wire, exchange = peer.wire, await offered(peer)
        async with peer.session.subscribe("p", "t", start=start):
            await updated(exchange)
            exchange.write(wire.update_ok(0))
            await settled()
        async with peer.session.subscribe("p", "t", start=start) as second:
            late = await peer.send(wire.subgroup(7, 5, b"x"))
            await settled()
            for _ in range(2):
                await updated(exchange)
                exchange.write(wire.update_ok(0))
            late.reset(CANCELLED)
            await settled()
            await peer.send(wire.header(7, 5, first=False) + wire.object(b"y", 1) + wire.object(b"z"), fin=True)
            received = []
            with trio.fail_after(10):
                while b"z" not in received:
                    group = await anext(second)
                    assert group.sequence == 5
                    try:
                        async for frame in group:
                            received.append(bytes(frame))
                    except moqt.StreamReset:
                        received.append(b"reset")
        assert received == [b"x", b"reset", b"y", b"z"]
        await peer.check_alive()
