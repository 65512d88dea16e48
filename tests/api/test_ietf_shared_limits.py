"""The limits of requests and updates that share one control stream (drafts 14 to 16): what ends gives way to more."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.faults import drafts as d
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


# -- updates of this side ------------------------------------------------------------------------------------------


def limit_option(wire: d.DraftWire, limit: int) -> bytes:
    """Returns the options of a SETUP with this limit."""
    return b"\x01\x02" + wire.number(limit)


def allow(peer: DraftPeer, limit: int) -> None:
    peer.write_control(peer.wire.message(MAX_REQUEST_ID, peer.wire.number(limit)))


async def offer(peer: DraftPeer, track: bytes = b"t") -> Exchange:
    """Offers a track, which our session accepts."""
    request_id = peer.next_id()
    exchange = await peer.request(peer.wire.publish(request_id, request_id, (b"b",), track), request_id)
    await exchange.accepted()
    return exchange


@EACH_DRAFT
async def test_an_update_that_finds_no_id_is_written_later(version):
    """Here it puts an offer to sleep that a reader has left."""
    async with draft_peer(version, options=limit_option(d.DraftWire(version), 2)) as peer:
        offers = [await offer(peer, track) for track in (b"t", b"other")]
        async with peer.session.subscribe("b", "t"):
            kind, _ = await offers[0].answer()
            assert kind == d.SUBSCRIBE_UPDATE
        await settled()
        allow(peer, 4)
        kind, body = await offers[0].answer()
        assert kind == d.SUBSCRIBE_UPDATE
        asleep = b"\x00\x00" if version == "moqt-14" else b"\x10\x00"
        assert asleep in body
        assert not peer.session._context.core._state.updates_due
        await peer.check_alive()


@EACH_DRAFT
async def test_an_update_is_not_due_once_its_track_has_ended(version):
    """It takes no id: the next request has the one after the last."""
    async with draft_peer(version, options=limit_option(d.DraftWire(version), 2)) as peer:
        exchange = await offer(peer)
        async with peer.session.subscribe("b", "t"):
            await exchange.answer()
        exchange.write(peer.wire.publish_done(exchange.request_id))
        await settled()
        assert not peer.session._context.core._state.updates_due
        allow(peer, 4)
        await peer.subscription("b", "other")


@EACH_DRAFT
async def test_a_reader_of_an_offer_waits_for_an_id(version):
    """The offer wakes up with an update, which has one."""
    async with draft_peer(version, options=b"\x00") as peer, trio.open_nursery() as nursery:
        exchange = await offer(peer)
        entered = trio.Event()

        async def read() -> None:
            async with peer.session.subscribe("b", "t"):
                entered.set()
                await trio.sleep_forever()

        nursery.start_soon(read)
        await settled()
        assert not entered.is_set()
        allow(peer, 2)
        kind, _ = await exchange.answer()
        assert kind == d.SUBSCRIBE_UPDATE
        with trio.fail_after(10):
            await entered.wait()
        nursery.cancel_scope.cancel()


# -- a peer that does not read -------------------------------------------------------------------------------------


@EACH_DRAFT
async def test_answers_to_a_peer_that_does_not_read(version):
    """It is allowed no more requests until it reads: what waits for it is bounded. Then it goes on."""
    limits = moqt.Limits(max_streams=16, max_announcements=16, request_rate=1e6, request_burst=10**6)
    async with draft_peer(version, limits=limits, peer_limits=moqt.Limits(stream_window=2048)) as peer:
        ids = peer.session._context.core._state.requests_of_peer
        made = 0
        while peer._next_id < ids.limit and made < 2000:
            await peer.subscribe(b"b", b"absent")
            await settled()
            made += 1
        # What its window holds, and twice what it may have open at once.
        assert made < 2048 // 8 + 2 * 32
        assert peer.session.closed is None
        await raised(peer)
        await settled()
        while peer._next_id >= ids.limit:
            with trio.fail_after(10):
                await peer.read_control()
        await peer.check_alive()


@EACH_DRAFT
async def test_requests_to_a_peer_that_does_not_read(version):
    """They wait, although it allows them; what the peer asks for makes this side write no more of them."""
    async with draft_peer(version, peer_limits=moqt.Limits(stream_window=2048)) as peer, trio.open_nursery() as nursery:
        entered = 0

        async def subscribe(number: int) -> None:
            nonlocal entered
            async with peer.session.subscribe("b", f"{number:0100}"):
                entered += 1
                await trio.sleep_forever()

        for number in range(100):
            nursery.start_soon(subscribe, number)
        await settled()
        assert 5 < entered < 40
        with trio.fail_after(10):
            while entered < 100:
                await peer.read_control()
        nursery.cancel_scope.cancel()


@EACH_DRAFT
async def test_two_sides_that_ask_much_at_once(version):
    """Their requests and answers exceed the windows of the control stream both ways, and neither waits for good."""
    limits = moqt.Limits(stream_window=1024, send_high=1024, max_streams=64, max_announcements=64)
    done = 0

    async def ask(session: moqt.Session, number: int) -> None:
        nonlocal done
        with pytest.raises(moqt.NotFound):
            async with session.subscribe("b", f"{number:0100}") as subscription:
                await anext(subscription)
        done += 1

    with trio.fail_after(20):
        async with (
            session_pair(version, limits=limits) as (client, server),
            client.publish("b", moqt.Broadcast()),
            server.publish("b", moqt.Broadcast()),
        ):
            async with trio.open_nursery() as nursery:
                for number in range(300):
                    nursery.start_soon(ask, client, number)
                    nursery.start_soon(ask, server, number)
            assert (client.closed, server.closed) == (None, None)
    assert done == 600


# -- ids on the streams of 16 --------------------------------------------------------------------------------------


async def test_an_id_that_is_used_twice_on_16():
    """Also on the streams of lists, whose ids are of the same row: it ends the session."""
    for first_is_a_list in (True, False):
        async with draft_peer("moqt-16") as peer:
            if first_is_a_list:
                await (await peer.request(peer.wire.subscribe_namespace(0, b"b"))).accepted()
            else:
                await (await peer.request(peer.wire.subscribe(0), 0)).accepted()
            await peer.request(peer.wire.subscribe_namespace(0, b"c"))
            await peer.check_closed(d.INVALID_REQUEST_ID)


async def test_an_update_of_a_list_on_16():
    """It is refused with the list; its id is used, and its place is free again."""
    async with draft_peer("moqt-16", limits=FEW) as peer:
        exchange = await peer.request(peer.wire.subscribe_namespace(peer.next_id(), b"b"))
        await exchange.accepted()
        exchange.write(peer.wire.update(peer.next_id(), 0))
        await settled()
        ids = peer.session._context.core._state.requests_of_peer
        assert ids.first_unused == 4
        assert ids._ended == 2
        await peer.check_alive()


# -- announcements -------------------------------------------------------------------------------------------------


@EACH_DRAFT
async def test_announcements_have_places_of_their_own(version):
    """As many as `max_announcements` may be open; they take none of `max_requests`."""
    limits = moqt.Limits(max_requests=2, max_announcements=8)
    async with draft_peer(version, limits=limits) as peer:
        for number in range(8):
            request_id = peer.next_id()
            namespace = peer.wire.publish_namespace(request_id, b"n", b"%d" % number)
            exchange = await peer.request(namespace, request_id)
            await exchange.answer()
        assert len(list(peer.session._context.peer_namespaces)) == 8
        request_id = peer.next_id()
        exchange = await peer.request(peer.wire.publish_namespace(request_id, b"n", b"9"), request_id)
        await exchange.refusal()
        request_id = peer.next_id()
        exchange = await peer.request(peer.wire.fetch(request_id, group=3), request_id)
        await exchange.accepted()
        await peer.check_alive()


# -- updates that nothing takes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["moqt-15", "moqt-16"])
async def test_an_update_of_what_is_over_is_refused(version):
    """Each update has an answer: of a subscription that was left, of a fetch that is complete, of an ended offer."""
    async with draft_peer(version) as peer:
        left = await peer.subscribe()
        await left.accepted()
        left.cancel()
        await settled()
        request_id = peer.next_id()
        fetched = await peer.request(peer.wire.fetch(request_id, group=3), request_id)
        await fetched.accepted()
        await settled()
        assert not peer.session._context.core._state.requests.taken
        for exchange in (left, fetched):
            await peer.update(exchange)
            assert await exchange.refusal() == d.DOES_NOT_EXIST
        await peer.check_alive()


async def test_updates_of_what_is_over_on_14():
    """Nothing answers an update there."""
    async with draft_peer("moqt-14") as peer:
        left = await peer.subscribe()
        await left.accepted()
        left.cancel()
        await peer.update(left)
        await peer.check_alive()
        assert not left.arrived


async def test_an_update_that_overtakes_its_request_on_16():
    """Lists have streams of their own, so an update may come first: it is refused. Beyond the limit it is a mistake."""
    async with draft_peer("moqt-16") as peer:
        listed = peer.next_id()
        request_id = peer.next_id()
        exchange = await peer.request(peer.wire.update(request_id, listed), request_id)
        assert await exchange.refusal() == d.DOES_NOT_EXIST
        await (await peer.request(peer.wire.subscribe_namespace(listed, b"b"))).accepted()
        await peer.check_alive()
        peer.write_control(peer.wire.update(peer.next_id(), 1 << 20))
        await peer.check_closed()
