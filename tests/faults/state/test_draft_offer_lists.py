"""Requests for offers (SUBSCRIBE_TRACKS) of a hostile peer: many, at odds with each other, given up, and not read."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from tests.faults.draft_peer import DraftPeer, draft_peer
from tests.faults.drafts import CANCELLED, NAMES, SUBSCRIBE_NAMESPACE_16, SUBSCRIBE_TRACKS, DraftWire
from tests.faults.raw_peer import settled

FROM_17_ON = pytest.mark.parametrize("name", [name for name in NAMES if not DraftWire(name).shared])

PREFIX_OVERLAP = 0x30
PUBLISH_BLOCKED = 0x0F
BOTH, TRACKS = b"\x02", b"\x00"
"""What a list is of, in draft 17."""


def list_of_tracks(peer: DraftPeer, *prefix: bytes, options: bytes = TRACKS) -> tuple[bytes, int]:
    """Return a request for the tracks below a prefix, from draft 16 on, and its id."""
    wire, request_id = peer.wire, peer.next_id()
    if wire.draft >= 18:
        return wire.message(SUBSCRIBE_TRACKS, wire.number(request_id) + wire.namespace(*prefix) + b"\x00"), request_id
    data = wire.request_id(request_id) + wire.namespace(*prefix) + options + b"\x00"
    return wire.message(SUBSCRIBE_NAMESPACE_16, data), request_id


async def test_a_list_of_both_that_is_not_read():
    """Announcements and PUBLISH_BLOCKED wait for room, each apart; once there is some, both come, after the acceptance.

    In draft 17 one request may ask for both.
    """
    limits = moqt.Limits(max_streams=1, stream_window=8)
    broadcast = moqt.Broadcast()
    for number in range(40):
        broadcast.track(f"t{number}")
    async with draft_peer("moqt-17", peer_limits=limits) as peer:
        async with peer.session.publish("many", broadcast), peer.session.publish("other", broadcast):
            asked = await peer.request(*list_of_tracks(peer, options=BOTH))
            await settled()
            assert peer.session.closed is None
            await asked.accepted()
            kinds = {(await asked.answer())[0] for _ in range(3 + 70)}
            assert PUBLISH_BLOCKED in kinds
        await peer.check_alive()


@FROM_17_ON
@pytest.mark.parametrize("kind", ["tracks", "both", "status"])
async def test_a_request_that_is_given_up_before_its_turn(name, kind, autojump_clock):
    """STOP_SENDING before the request is read: nothing is offered, nothing is left, and the session goes on."""
    async with draft_peer(name, limits=moqt.Limits(request_burst=3, request_rate=1)) as peer:
        streams = []
        for _ in range(8):
            request = list_of_tracks(peer, b"none", options=BOTH if kind == "both" else TRACKS)
            if kind == "status":
                request = peer.wire.track_status(request[1]), request[1]
            exchange = await peer.request(*request)
            assert exchange.stream is not None
            streams.append(exchange.stream)
        for stream in streams[4:]:
            stream.stop(CANCELLED)
        await settled()
        await peer.check_alive()
        await settled()
        for stream in streams:
            stream.reset(CANCELLED)
            stream.stop(CANCELLED)
        await settled()
        assert peer.session._context.core._state.requests.taken == 0


@pytest.mark.parametrize("name", ["moqt-17"])
async def test_a_list_of_both_that_is_refused(name):
    """Where the announcements are too many, nothing is offered either."""
    async with draft_peer(name, limits=moqt.Limits(max_listed_announcements=1)) as peer:
        data, _ = peer.wire.subscribe_namespace(request_id := peer.next_id()), request_id
        first = await peer.request(data, request_id)
        await first.accepted()
        second = await peer.request(*list_of_tracks(peer, options=BOTH))
        assert await second.refusal() == 0x9
        await settled()
        assert not peer.session._publisher._serving.offers
        await peer.check_alive()


@FROM_17_ON
@pytest.mark.parametrize("options", [TRACKS, BOTH])
async def test_lists_whose_prefixes_overlap(name, options):
    """Each that has tracks of another one is refused, until that one is over; those beside it are accepted."""
    async with draft_peer(name) as peer:
        first = await peer.request(*list_of_tracks(peer, b"a", b"b", options=options))
        await first.accepted()
        for prefix in ((), (b"a",), (b"a", b"b"), (b"a", b"b", b"c")):
            exchange = await peer.request(*list_of_tracks(peer, *prefix, options=options))
            assert await exchange.refusal() == PREFIX_OVERLAP
            await exchange.over()
        for prefix in ((b"a", b"c"), (b"ab",)):
            await (await peer.request(*list_of_tracks(peer, *prefix, options=options))).accepted()
        first.cancel()
        await settled()
        await (await peer.request(*list_of_tracks(peer, b"a", b"b", b"c", options=options))).accepted()
        await peer.check_alive()


@FROM_17_ON
async def test_tracks_that_come_and_go_while_a_list_is_not_read(name):
    """What has gone is not kept for it, and of what is there as many as may be offered."""
    peer_limits, limits = moqt.Limits(max_streams=1, stream_window=8), moqt.Limits(max_offered_tracks=8)
    async with draft_peer(name, limits=limits, peer_limits=peer_limits) as peer:
        await (await peer.request(*list_of_tracks(peer))).accepted()
        await settled()
        [offers] = peer.session._publisher._serving.offering
        lengths = []
        for round_ in range(20):
            broadcast = moqt.Broadcast()
            for number in range(20):
                broadcast.track(f"{round_}.{number}")
            async with peer.session.publish(f"many/{round_}", broadcast):
                lengths.append(len(offers._due))
                await settled()
        assert max(lengths) == 8
        assert len(offers._due) == 0
        await peer.check_alive()


@FROM_17_ON
async def test_long_lists_are_billed(name, autojump_clock):
    """A peer that asks for a list of 80 tracks again and again waits for it: each costs as much as 10 requests more."""
    broadcast = moqt.Broadcast()
    for number in range(80):
        broadcast.track(f"t{number}")
    limits = moqt.Limits(request_burst=20, request_rate=10)
    async with draft_peer(name, limits=limits) as peer, peer.session.publish("many", broadcast):
        before = trio.current_time()
        for _ in range(11):
            exchange = await peer.request(*list_of_tracks(peer, b"many"))
            await exchange.accepted()
            exchange.cancel()
        assert trio.current_time() - before >= 8
        await peer.check_alive()
