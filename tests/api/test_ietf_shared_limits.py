"""The limit of the peer's requests where they share one control stream (drafts 14 to 16): what ends gives way to more."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from tests.faults.draft_peer import DraftPeer, Exchange, draft_peer, read_number
from tests.faults.raw_peer import settled

EACH_DRAFT = pytest.mark.parametrize("version", ["moqt-14", "moqt-15", "moqt-16"])
MAX_REQUEST_ID = 0x15
FEW = moqt.Limits(max_streams=4, max_announcements=4)
WINDOW = 8


async def raised(peer: DraftPeer) -> int:
    """Waits until our session has allowed more than at first; returns its limit."""
    with trio.fail_after(10):
        while not (found := [body for kind, body in peer.session_messages if kind == MAX_REQUEST_ID]):
            await peer.read_control()
    limit = read_number(peer.wire, found[-1])
    assert limit is not None
    return limit[0]


async def update(peer: DraftPeer, exchange: Exchange) -> None:
    await peer.update(exchange)
    await settled()


@EACH_DRAFT
async def test_updates_take_no_place_for_good(version):
    """An update takes an id, and gives its place back at once."""
    async with draft_peer(version, limits=FEW) as peer:
        exchange = await peer.subscribe()
        for _ in range(WINDOW - 1):
            await update(peer, exchange)
        assert await raised(peer) > 2 * WINDOW
        await update(peer, exchange)
        await peer.check_alive()


async def test_lists_of_16_take_no_place_for_good():
    """They have streams of their own there, and ids of the same row."""
    async with draft_peer("moqt-16", limits=FEW) as peer:
        for _ in range(WINDOW):
            request_id = peer.next_id()
            exchange = await peer.request(peer.wire.subscribe_namespace(request_id, b"b"), request_id)
            await exchange.accepted()
            exchange.cancel()
            await settled()
        assert await raised(peer) > 2 * WINDOW
        await peer.check_alive()


