"""Announcements and offers that a hostile peer makes by requests of its own, and what it does with those of ours.

PUBLISH_NAMESPACE announces a namespace, PUBLISH offers a track, SUBSCRIBE_TRACKS asks for offers, TRACK_STATUS for what
there is of a track.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from tests.faults.draft_peer import DraftPeer, draft_peer
from tests.faults.drafts import (
    CANCELLED,
    DOES_NOT_EXIST,
    DUPLICATE_TRACK_ALIAS,
    NAMES,
    PUBLISH,
    SUBSCRIBE_NAMESPACE_16,
    SUBSCRIBE_TRACKS,
    SUBSCRIBE_UPDATE,
    TRACK_STATUS,
    DraftWire,
    each_draft,
)
from tests.faults.raw_peer import code_of_stop, settled

STREAMS = [name for name in NAMES if not DraftWire(name).shared]
each_draft_with_streams = pytest.mark.parametrize("name", STREAMS)
REFUSALS = (0x19, 0x20, 0x4)
"""DUPLICATE_SUBSCRIPTION and UNINTERESTED, which is 4 in draft 14."""
PREFIX_OVERLAP = 0x30
UNNAMEABLE = {"no UTF-8": (b"\xff",), "a slash": (b"a/b",), "long": (b"p" * 1025,), "deep": (b"p",) * 33}


async def offer(peer: DraftPeer, alias: int, path: tuple[bytes, ...] = (b"p",), track: bytes = b"t"):
    """Offer a track to our session; return the request."""
    request_id = peer.next_id()
    return await peer.request(peer.wire.publish(request_id, alias, path, track), request_id)


async def accepted(exchange, peer: DraftPeer) -> None:
    """Read our session's acceptance, and the update behind it that puts the track to sleep (from 20 on)."""
    await exchange.accepted()
    if peer.wire.draft >= 20:
        kind, _ = await exchange.answer()
        assert kind == SUBSCRIBE_UPDATE


async def announce(peer: DraftPeer, *fields: bytes):
    request_id = peer.next_id()
    return await peer.request(peer.wire.publish_namespace(request_id, *fields), request_id)


# -- namespaces ---------------------------------------------------------------------------------------------------


@each_draft
async def test_a_namespace_that_is_announced_twice(name):
    """Both requests are accepted; it is there until the second one ends, and the application hears of it once."""
    async with draft_peer(name) as peer, peer.session.announcements("a") as announcements:
        first, second = await announce(peer, b"a", b"x"), await announce(peer, b"a", b"x")
        await first.accepted()
        await second.accepted()
        third = await announce(peer, b"a", b"last")
        await third.accepted()
        received = []
        with trio.fail_after(10):
            while ("a/last", True) not in received:
                item = await anext(announcements)
                received.append((str(item.path), item.active))
        assert received == [("a/x", True), ("a/last", True)]
        if not peer.wire.shared:
            first.cancel()
            await settled()
            second.cancel()
            third.cancel()
            with trio.fail_after(10):
                gone = [await anext(announcements) for _ in range(2)]
            assert [(str(item.path), item.active) for item in gone] == [("a/x", False), ("a/last", False)]
        await peer.check_alive()


@each_draft_with_streams
async def test_a_namespace_that_is_withdrawn_in_any_way(name):
    """By a reset, by STOP_SENDING, and by FIN up to 18; a FIN from 19 on ends nothing."""
    async with draft_peer(name) as peer, peer.session.announcements("a") as announcements:
        for how in ("reset", "stop", "FIN"):
            exchange = await announce(peer, b"a", how.encode())
            await exchange.accepted()
            assert exchange.stream is not None
            if how == "FIN":
                exchange.stream.finish()
            else:
                getattr(exchange.stream, how)(CANCELLED)
            with trio.fail_after(10):
                assert (await anext(announcements)).active
                if how == "FIN" and not peer.wire.fin_cancels:
                    await settled()
                    assert [str(item.path) for item in announcements.active] == ["a/FIN"]
                    exchange.cancel()
                assert not (await anext(announcements)).active
        await settled()
        assert peer.session._context.core._state.announcements.taken == 0
        await peer.check_alive()


@each_draft_with_streams
async def test_more_announcements_than_are_kept(name, autojump_clock):
    """Above `max_announcements` they are refused or reset; the session goes on."""
    async with draft_peer(name, limits=moqt.Limits(max_announcements=10)) as peer:
        exchanges = [await announce(peer, b"a", b"%d" % number) for number in range(30)]
        await settled()
        assert peer.session._context.core._state.announcements.taken == 10
        for exchange in exchanges:
            exchange.cancel()
        await settled()
        assert peer.session._context.core._state.announcements.taken == 0
        await peer.check_alive()


@each_draft_with_streams
@pytest.mark.parametrize("second", ["itself", "SUBSCRIBE", "NAMESPACE", "PUBLISH_DONE", "REQUEST_OK"])
async def test_what_is_not_due_behind_an_announcement(name, second):
    """It closes the session."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        exchange = await announce(peer, b"a", b"x")
        await exchange.accepted()
        exchange.write(
            {
                "itself": wire.publish_namespace(peer.next_id(), b"a", b"x"),
                "SUBSCRIBE": wire.subscribe(peer.next_id()),
                "NAMESPACE": wire.found(b"x"),
                "PUBLISH_DONE": wire.publish_done(0),
                "REQUEST_OK": wire.update_ok(0),
            }[second]
        )
        await peer.check_closed()


# -- offers -------------------------------------------------------------------------------------------------------


@each_draft
async def test_a_track_that_is_offered_twice(name):
    """The second offer is refused; the first goes on."""
    async with draft_peer(name) as peer:
        first = await offer(peer, 1)
        await accepted(first, peer)
        second = await offer(peer, 2)
        assert await second.refusal() in REFUSALS
        subscription = await peer.ours.enter_async_context(peer.session.subscribe("p", "t"))
        kind, _ = await first.answer()
        assert kind == SUBSCRIBE_UPDATE
        await peer.send(peer.wire.subgroup(1, 0, b"x"), fin=True)
        with trio.fail_after(10):
            assert await (await anext(subscription)).read_all() == [b"x"]
        await peer.check_alive()


@each_draft
async def test_an_alias_of_another_track(name):
    """Up to 18 it closes the session (DUPLICATE_TRACK_ALIAS); later it ends the second at most."""
    for first in ("offer", "subscription"):
        async with draft_peer(name) as peer:
            if first == "offer":
                await accepted(await offer(peer, 7), peer)
            else:
                await peer.accepted(alias=7)
            await offer(peer, 7, track=b"u")
            if peer.wire.draft <= 18:
                await peer.check_closed(DUPLICATE_TRACK_ALIAS)
            else:
                await settled()
                await peer.check_alive()


@each_draft
async def test_an_alias_for_two_subscriptions_to_one_track(name):
    """Up to 18 it closes the session. From 19 on it is allowed: the second one fails and says so, the first goes on."""
    async with draft_peer(name) as peer:
        first, _ = await peer.accepted(alias=7)
        second, exchange = await peer.accepted(alias=7)
        if peer.wire.draft <= 18:
            await peer.check_closed(DUPLICATE_TRACK_ALIAS)
            return
        with trio.fail_after(10):
            with pytest.raises(moqt.LocalProtocolError, match="subscribe to it once"):
                await anext(second)
            await exchange.over()
            await peer.send(peer.wire.subgroup(7, 0, b"x"), fin=True)
            assert await (await anext(first)).read_all() == [b"x"]
        await peer.check_alive()


@each_draft
async def test_an_offer_under_the_alias_of_a_subscription(name):
    """Up to 18 it closes the session. From 19 on it is refused, and the subscription goes on."""
    async with draft_peer(name) as peer:
        subscription, _ = await peer.accepted(alias=7)
        exchange = await offer(peer, 7, path=(b"b",))
        if peer.wire.draft <= 18:
            await peer.check_closed(DUPLICATE_TRACK_ALIAS)
            return
        assert await exchange.refusal() in REFUSALS
        await peer.send(peer.wire.subgroup(7, 0, b"x"), fin=True)
        with trio.fail_after(10):
            assert await (await anext(subscription)).read_all() == [b"x"]
        await peer.check_alive()


@each_draft
async def test_an_alias_of_an_offer_that_has_ended(name):
    """It is free again."""
    async with draft_peer(name) as peer:
        for number in range(50):
            exchange = await offer(peer, 7, track=b"%d" % number)
            await accepted(exchange, peer)
            exchange.write(peer.wire.publish_done(exchange.request_id), fin=True)
            await settled()
        assert peer.session._context.core._state.aliases._subscriptions == {}
        assert len(peer.session._context.core._state.issued) == 0
        await peer.check_alive()


@each_draft
async def test_more_offers_than_are_kept(name, autojump_clock):
    """Above `max_offered_tracks` they are refused, and leave nothing."""
    async with draft_peer(name, limits=moqt.Limits(max_offered_tracks=10)) as peer:
        for number in range(30):
            exchange = await offer(peer, number, track=b"%d" % number)
            if number < 10:
                await accepted(exchange, peer)
            else:
                await exchange.refusal()
        await settled()
        state = peer.session._context.core._state
        assert len(state.issued) == len(state.aliases._subscriptions) == 10
        await peer.check_alive()


@each_draft
async def test_data_of_a_track_that_sleeps(name):
    """It was not asked for: its streams are stopped, and nothing of it is kept."""
    async with draft_peer(name) as peer:
        exchange = await offer(peer, 7)
        early = await peer.send(peer.wire.subgroup(7, 0, b"x"))
        await accepted(exchange, peer)
        late = await peer.send(peer.wire.subgroup(7, 1, b"x"))
        for stream in (early, late):
            assert await code_of_stop(stream) == CANCELLED
        await peer.check_alive()


@each_draft
async def test_data_of_an_offer_that_is_refused(name, autojump_clock):
    """What came before the offer is stopped with its refusal, without waiting for the time that it had."""
    async with draft_peer(name) as peer:
        await accepted(await offer(peer, 7), peer)
        early = await peer.send(peer.wire.subgroup(8, 0, b"x"))
        await settled()
        before = trio.current_time()
        assert await (await offer(peer, 8)).refusal() in REFUSALS
        assert await code_of_stop(early) == CANCELLED
        assert trio.current_time() - before < 1
        assert not peer.session._context.parked
        await peer.check_alive()


@each_draft
async def test_an_offer_and_its_end_at_once(name):
    """PUBLISH_DONE behind PUBLISH, in one packet: there was an offer, and it is over."""
    async with draft_peer(name) as peer:
        for number in range(100):
            request_id = peer.next_id()
            data = peer.wire.publish(request_id, number) + peer.wire.publish_done(request_id)
            await peer.request(data, request_id, fin=not peer.wire.shared)
        await settled()
        state = peer.session._context.core._state
        assert (len(state.issued), state.aliases._subscriptions) == (0, {})
        await peer.check_alive()


@each_draft_with_streams
@pytest.mark.parametrize("how", ["FIN", "reset", "stop"])
async def test_an_offer_that_ends_without_publish_done(name, how):
    """The offer is over, and a subscription that reads it ends."""
    async with draft_peer(name) as peer:
        exchange = await offer(peer, 7)
        await accepted(exchange, peer)
        subscription = await peer.ours.enter_async_context(peer.session.subscribe("p", "t"))
        await exchange.answer()
        assert exchange.stream is not None
        if how == "FIN":
            exchange.stream.finish()
        elif how == "reset":
            exchange.stream.reset(0x0)
        else:
            exchange.stream.stop(0x0)
        with trio.fail_after(10), pytest.raises((moqt.MoqtError, StopAsyncIteration)):
            await anext(subscription)
        again = await offer(peer, 8)
        await accepted(again, peer)
        await peer.check_alive()


@each_draft
async def test_an_offer_whose_update_is_never_answered(name, autojump_clock):
    """A subscription that wakes it up fails after `reply_timeout` (from 15 on, where updates have answers)."""
    if DraftWire(name).draft < 17:
        return
    async with draft_peer(name) as peer:
        exchange = await offer(peer, 7)
        await accepted(exchange, peer)
        async with peer.session.subscribe("p", "t") as subscription:
            await exchange.answer()
            began = trio.current_time()
            with trio.fail_after(100), pytest.raises(moqt.StreamReset) as caught:
                await subscription.wait_accepted()
            assert (caught.value.code, caught.value.by_peer) == (StreamCode.CONTROL_TIMEOUT, False)
            assert trio.current_time() - began == pytest.approx(peer.session.limits.reply_timeout)
        await peer.check_alive()


@each_draft_with_streams
@pytest.mark.parametrize("second", ["itself", "SUBSCRIBE_OK", "SUBSCRIBE", "NAMESPACE", "REQUEST_OK", "FETCH_OK"])
async def test_what_is_not_due_behind_an_offer(name, second):
    """It closes the session: there is no update to answer."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        exchange = await offer(peer, 7)
        await accepted(exchange, peer)
        if wire.draft >= 20:
            exchange.write(wire.update_ok(0))  # it answers the update that put the track to sleep
        exchange.write(
            {
                "itself": wire.publish(peer.next_id(), 8),
                "SUBSCRIBE_OK": wire.subscribe_ok(0, 8),
                "SUBSCRIBE": wire.subscribe(peer.next_id()),
                "NAMESPACE": wire.found(b"x"),
                "REQUEST_OK": wire.update_ok(0),
                "FETCH_OK": wire.fetch_ok(0),
            }[second]
        )
        await peer.check_closed()


@each_draft
@pytest.mark.parametrize("path", UNNAMEABLE.values(), ids=UNNAMEABLE.keys())
async def test_offers_of_names_that_no_track_has(name, path):
    """They are refused, or end their stream; more fields than the drafts allow close the session."""
    async with draft_peer(name) as peer:
        exchange = await offer(peer, 7, path)
        if len(path) > 32:
            await peer.check_closed()
            return
        with trio.fail_after(10):
            with suppress(moqt.StreamReset):
                assert await exchange.refusal() in (*REFUSALS, DOES_NOT_EXIST)
        await settled()
        state = peer.session._context.core._state
        assert (len(state.issued), state.aliases._subscriptions) == (0, {})
        await peer.check_alive()


@each_draft_with_streams
async def test_offers_that_are_reset_at_every_byte(name):
    """Nothing is left of them."""
    async with draft_peer(name) as peer:
        whole = peer.wire.publish(0, 7)
        for cut in range(1, len(whole)):
            stream = await peer.connection.open_bidi()
            stream.write(whole[:cut])
            await settled()
            stream.reset(CANCELLED)
            stream.stop(CANCELLED)
        await settled()
        state = peer.session._context.core._state
        assert (len(state.issued), state.aliases._subscriptions, state.requests.taken) == (0, {}, 0)
        await peer.check_alive()


# -- what our session offers, and is asked ------------------------------------------------------------------------


async def ask_for_tracks(peer: DraftPeer):
    """Ask our session for all its tracks."""
    wire, request_id = peer.wire, peer.next_id()
    if wire.draft >= 18:
        data = wire.message(SUBSCRIBE_TRACKS, wire.number(request_id) + wire.namespace() + b"\x00")
    else:
        data = wire.message(SUBSCRIBE_NAMESPACE_16, wire.request_id(request_id) + wire.namespace() + b"\x00\x00")
    return await peer.request(data, request_id)


@each_draft_with_streams
@pytest.mark.parametrize("answer", ["nothing", "refusal", "reset", "twice"])
async def test_what_a_peer_does_with_an_offer(name, answer):
    """It may leave it, refuse it, or end it; a second answer closes the session."""
    async with draft_peer(name) as peer:
        asked = await ask_for_tracks(peer)
        await asked.accepted()
        exchange, _ = await peer.asked(PUBLISH)
        wire = peer.wire
        ok = wire.message(0x1E, b"\x00") if wire.draft == 17 else wire.update_ok(0)
        match answer:
            case "refusal":
                exchange.write(wire.refused(exchange.request_id, PUBLISH, 0x20), fin=True)
            case "reset":
                exchange.cancel()
            case "twice":
                exchange.write(ok + ok)
                await peer.check_closed()
                return
        await settled()
        await peer.check_alive()
        if answer != "nothing":
            assert peer.session._publisher.subscriptions == []


@each_draft_with_streams
async def test_a_hundred_requests_for_offers(name):
    """The first is accepted, and the others overlap with it; so each track is offered once."""
    async with draft_peer(name) as peer:
        await (await ask_for_tracks(peer)).accepted()
        for _ in range(99):
            assert await (await ask_for_tracks(peer)).refusal() == PREFIX_OVERLAP
        first, _ = await peer.asked(PUBLISH)
        await settled()
        assert len(peer.session._publisher._serving.offers) == 1
        assert peer.session._context.core._state.requests.taken == 1
        assert first.stream is not None
        await peer.check_alive()


@each_draft
async def test_the_status_of_tracks(name):
    """A hundred requests are answered and leave nothing; a track that is not there does not exist."""
    async with draft_peer(name) as peer:
        for track, there in ((b"t", True), (b"absent", False)) * 50:
            request_id = peer.next_id()
            exchange = await peer.request(peer.wire.track_status(request_id, (b"b",), track), request_id)
            if there:
                await exchange.accepted()
            else:
                assert await exchange.refusal() in (DOES_NOT_EXIST, 0x4)
        await settled()
        assert peer.session._context.core._state.requests.taken == 0
        await peer.check_alive()


@each_draft_with_streams
@pytest.mark.parametrize("answer", ["nothing", "FIN", "reset", "SUBSCRIBE_OK", "twice"])
async def test_the_status_that_a_peer_answers(name, answer, autojump_clock):
    """Without an answer it is an error in time; with another one the session closes."""
    async with draft_peer(name) as peer, trio.open_nursery() as nursery:
        wire, raised, over = peer.wire, [], trio.Event()

        async def ask() -> None:
            try:
                await peer.session.track_status("b", "t")
            except moqt.MoqtError as error:
                raised.append(error)
            over.set()

        nursery.start_soon(ask)
        exchange, _ = await peer.asked(TRACK_STATUS)
        assert exchange.stream is not None
        match answer:
            case "FIN":
                exchange.stream.finish()
            case "reset":
                exchange.stream.reset(0x0)
            case "SUBSCRIBE_OK":
                exchange.write(wire.subscribe_ok(0, 3))
            case "twice":
                exchange.write(wire.update_ok(0) * 2)
        with trio.fail_after(100):
            await over.wait()
        if answer in ("nothing", "reset"):
            assert isinstance(raised[0], moqt.StreamReset)
            await peer.check_alive()
        else:
            await peer.check_closed()
