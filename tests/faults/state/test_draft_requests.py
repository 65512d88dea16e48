"""Requests of a hostile peer on the IETF drafts: ids, namespaces, updates without an end, fetches and joins."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from tests.faults.draft_peer import draft_peer
from tests.faults.drafts import (
    CANCELLED,
    DOES_NOT_EXIST,
    FETCH,
    FETCH_OK,
    INVALID_JOINING_REQUEST_ID,
    INVALID_RANGE,
    INVALID_REQUEST_ID,
    NAMES,
    REQUEST_OK,
    SUBSCRIBE_NAMESPACE,
    SUBSCRIBE_NAMESPACE_16,
    TOO_MANY_UPDATES,
    DraftWire,
    each_draft,
)
from tests.faults.raw_peer import settled

STREAMS = [name for name in NAMES if not DraftWire(name).shared]
JOINING = [name for name in NAMES if DraftWire(name).draft < 20]
NOT_SUPPORTED = 0x3
TOLD = [name for name in NAMES if DraftWire(name).draft >= 16]
"""The drafts in which NAMESPACE tells of namespaces; before, the publisher makes a request for each."""


def namespaces_type(name: str) -> int:
    """Return the type of SUBSCRIBE_NAMESPACE."""
    return SUBSCRIBE_NAMESPACE if DraftWire(name).draft >= 18 else SUBSCRIBE_NAMESPACE_16


# -- what this side does not do -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", range(0x25, 0x29))
@pytest.mark.parametrize("name", [name for name in NAMES if DraftWire(name).draft >= 19])
async def test_range_filters(name, kind):
    """A request with one is refused, and leaves nothing: this side has not said that it knows them."""
    async with draft_peer(name) as peer:
        wire, filtered = peer.wire, peer.wire.parameter(kind, b"\x00")
        subscription = await peer.subscribe(parameters=filtered)
        assert await subscription.refusal() == NOT_SUPPORTED
        request_id = peer.next_id()
        name_of_track = wire.namespace(b"b") + wire.data(b"t")
        wanted = b"" if wire.draft >= 20 else b"\x01" + name_of_track + wire.location(3, 0) + wire.location(3, 0)
        body = wire.request_id(request_id) + (wanted or name_of_track) + filtered
        fetch = await peer.request(wire.message(FETCH, body), request_id)
        assert await fetch.refusal() == NOT_SUPPORTED
        await settled()
        state = peer.session._context.core._state
        assert (len(state.peers), state.requests.taken, peer.session._publisher.subscriptions) == (0, 0, [])
        await peer.check_alive()


# -- row 13: request ids ------------------------------------------------------------------------------------------


@each_draft
async def test_an_id_that_was_used(name):
    """A second request of the same id closes the session, whatever the first one was and whether it is over."""
    for first in ("subscribe", "refused", "fetch", "update"):
        async with draft_peer(name) as peer:
            match first:
                case "subscribe":
                    exchange = await peer.subscribe()
                    await exchange.accepted()
                case "refused":
                    exchange = await peer.subscribe(b"none")
                    await exchange.refusal()
                case "fetch":
                    request_id = peer.next_id()
                    exchange = await peer.request(peer.wire.fetch(request_id, group=3), request_id)
                    await exchange.accepted()
                case _:
                    exchange = await peer.subscribe()
                    await exchange.accepted()
                    await peer.update(exchange)
            await settled()
            used = peer._next_id - 2
            await peer.request(peer.wire.subscribe(used, track=b"u"), used)
            await peer.check_closed(INVALID_REQUEST_ID)


@each_draft
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
async def test_an_id_of_the_other_parity(name, client):
    """A client's ids are even, a server's odd; a mistake closes the session, in any request and in an update."""
    async with draft_peer(name, client=client) as peer:
        wrong = peer.next_id() ^ 1
        await peer.request(peer.wire.subscribe(wrong), wrong)
        await peer.check_closed(INVALID_REQUEST_ID)
    for kind in ("fetch", "namespaces", "publish", "announce", "status"):
        async with draft_peer(name, client=client) as peer:
            wire, wrong = peer.wire, peer.next_id() ^ 1
            data = {
                "fetch": wire.fetch(wrong),
                "namespaces": wire.subscribe_namespace(wrong, b"b"),
                "publish": wire.publish(wrong, 5),
                "announce": wire.publish_namespace(wrong, b"x"),
                "status": wire.track_status(wrong),
            }[kind]
            await peer.request(data, wrong)
            await peer.check_closed(INVALID_REQUEST_ID)
    async with draft_peer(name, client=client) as peer:
        exchange = await peer.subscribe()
        await exchange.accepted()
        exchange.write(peer.wire.update(peer.next_id() ^ 1, exchange.request_id))
        await peer.check_closed(INVALID_REQUEST_ID)


@each_draft
@pytest.mark.parametrize("number", [2**62 - 2, 2**63, 2**64 - 2])
async def test_an_id_of_any_size(name, number):
    """From 17 on ids may come in any order; up to 16 the next one is due, and a limit stands before the rest."""
    wire = DraftWire(name)
    if number > wire.largest:
        return
    async with draft_peer(name) as peer:
        exchange = await peer.request(wire.subscribe(number), number)
        if wire.shared:
            with trio.fail_after(10):
                error = await peer.connection.wait_closed()
            assert isinstance(error, moqt.SessionClosed)
            assert error.remote_code in (INVALID_REQUEST_ID, 0x7)
            return
        await exchange.accepted()
        await peer.check_alive()


@pytest.mark.parametrize("name", STREAMS)
async def test_ids_that_skip_too_many(name):
    """So many ids may be missing below the highest; what is remembered of them is bounded."""
    # On a fast machine requests beyond the burst would be cancelled here before they are looked at.
    async with draft_peer(name, limits=moqt.Limits(request_burst=5000)) as peer:
        for number in range(3000):
            if peer.session.closed is not None:
                break
            try:
                exchange = await peer.request(peer.wire.subscribe(4 * number + 2, track=b"absent"), 0)
            except moqt.SessionClosed:
                break
            exchange.cancel()
            if number % 32 == 31:
                await trio.testing.wait_all_tasks_blocked()
        await peer.check_closed(INVALID_REQUEST_ID)
        assert len(peer.session._context.core._state.requests_of_peer._used) <= 1025


# -- row 14: namespaces -------------------------------------------------------------------------------------------


async def listing(peer):
    """Have our session ask for namespaces; return its announcements and the request."""
    announcements = await peer.ours.enter_async_context(peer.session.announcements("a"))
    exchange, _ = await peer.asked(namespaces_type(peer.wire.name))
    return announcements, exchange


@pytest.mark.parametrize("name", TOLD)
async def test_a_namespace_twice_and_one_that_was_not_there(name):
    """The drafts call it harmless to say it again; NAMESPACE_DONE of another is dropped. The list goes on."""
    async with draft_peer(name) as peer:
        announcements, exchange = await listing(peer)
        wire = peer.wire
        exchange.write(wire.namespaces_ok(exchange.request_id) + wire.found(b"x") * 3 + wire.lost(b"y"))
        exchange.write(wire.lost(b"x") + wire.lost(b"x") + wire.found(b"z"))
        received = []
        with trio.fail_after(10):
            while ("a/z", True) not in received:
                item = await anext(announcements)
                received.append((str(item.path), item.active))
        # What was withdrawn before it was read may be left out.
        assert received in ([("a/x", True), ("a/x", False), ("a/z", True)], [("a/z", True)])
        await peer.check_alive()


@pytest.mark.parametrize("name", TOLD)
@pytest.mark.parametrize("first", ["NAMESPACE", "NAMESPACE_DONE", "SUBSCRIBE_OK", "PUBLISH_DONE"])
async def test_namespaces_before_the_acceptance(name, first):
    """The first answer is REQUEST_OK or REQUEST_ERROR: anything else closes the session."""
    async with draft_peer(name) as peer:
        _, exchange = await listing(peer)
        wire = peer.wire
        exchange.write(
            {
                "NAMESPACE": wire.found(b"x"),
                "NAMESPACE_DONE": wire.lost(b"x"),
                "SUBSCRIBE_OK": wire.subscribe_ok(exchange.request_id, 1),
                "PUBLISH_DONE": wire.publish_done(exchange.request_id),
            }[first]
        )
        await peer.check_closed()


@each_draft
async def test_a_second_acceptance_of_a_list(name):
    """It closes the session from 16 on, where the list has a stream; up to 15 it is dropped."""
    async with draft_peer(name) as peer:
        _, exchange = await listing(peer)
        exchange.write(peer.wire.namespaces_ok(exchange.request_id) * 2)
        if peer.wire.draft < 16:
            await settled()
            await peer.check_alive()
        else:
            await peer.check_closed()


@pytest.mark.parametrize("name", TOLD)
async def test_more_namespaces_than_are_kept(name):
    """The list ends with the one too many; the session goes on."""
    async with draft_peer(name, limits=moqt.Limits(max_announcements=3)) as peer:
        announcements, exchange = await listing(peer)
        exchange.write(peer.wire.namespaces_ok(exchange.request_id))
        exchange.write(b"".join(peer.wire.found(b"%d" % number) for number in range(5)))
        with trio.fail_after(10):
            received = [await anext(announcements) for _ in range(6)]
            with pytest.raises(moqt.MoqtError):
                await anext(announcements)
        # Those that were there are withdrawn with the list.
        assert [item.active for item in received] == [True] * 3 + [False] * 3
        await peer.check_alive()


@pytest.mark.parametrize("name", TOLD)
async def test_a_list_that_goes_round(name):
    """A namespace that comes and goes ten thousand times: an application that reads nothing has few changes waiting."""
    async with draft_peer(name) as peer:
        announcements, exchange = await listing(peer)
        wire = peer.wire
        exchange.write(wire.namespaces_ok(exchange.request_id))
        for _ in range(100):
            exchange.write((wire.found(b"x") + wire.lost(b"x")) * 100)
            await settled()
        exchange.write(wire.found(b"y"))
        await settled()
        waiting = 0
        with trio.fail_after(10):
            while str((await anext(announcements)).path) != "a/y":
                waiting += 1
        assert waiting <= peer.session.limits.max_queued_announcements
        await peer.check_alive()


# -- REQUEST_UPDATE -----------------------------------------------------------------------------------------------


@each_draft
async def test_updates_without_an_end(name):
    """A peer that takes the answers may send any number; our session writes one answer for each (15 and later)."""
    async with draft_peer(name) as peer:
        exchange = await peer.subscribe()
        await exchange.accepted()
        answers = 0
        for _ in range(30):
            for _ in range(20):
                await peer.update(exchange)
            await settled()
            if peer.wire.draft > 14:
                for _ in range(20):
                    assert (await exchange.answer())[0] == REQUEST_OK
                    answers += 1
        assert answers in (0, 600)
        await peer.check_alive()


@pytest.mark.parametrize("name", STREAMS)
async def test_updates_whose_answers_are_not_taken(name):
    """So many answers may wait for the peer to read; then TOO_MANY_REQUEST_UPDATES closes the session."""
    async with draft_peer(name) as peer:
        exchange = await peer.subscribe()
        count = 0
        with trio.move_on_after(20):
            while peer.session.closed is None and peer.connection.closed is None and count < 200_000:
                try:
                    exchange.write(b"".join(peer.wire.update(peer.next_id(), 0) for _ in range(100)))
                except moqt.MoqtError:
                    break
                count += 100
                await settled()
        await peer.check_closed(TOO_MANY_UPDATES)
        assert count * 4 <= 8 * peer.session.limits.send_high


@each_draft
async def test_an_update_of_what_is_not_there(name):
    """Up to 16 it names a request: one that was never made closes the session. Later it stands on a stream."""
    async with draft_peer(name) as peer:
        if peer.wire.shared:
            # On 16 one below the limit may be on its way, on a stream of its own.
            peer.write_control(peer.wire.update(peer.next_id(), 400 if peer.wire.draft < 16 else 1 << 20))
        else:
            await peer.request(peer.wire.update(0, 0))
        await peer.check_closed()


@each_draft
async def test_updates_before_the_answer_and_behind_the_end(name):
    """An update may overtake the answer; one that crosses the end of its request is dropped with it."""
    async with draft_peer(name) as peer:
        request_id = peer.next_id()
        exchange = await peer.request(peer.wire.subscribe(request_id), request_id)
        await peer.update(exchange)
        await exchange.accepted()
        exchange.cancel()
        if peer.wire.shared:
            await peer.update(exchange)
        await settled()
        await peer.check_alive()


# -- FETCH --------------------------------------------------------------------------------------------------------


@each_draft
async def test_fetches_of_what_was_never_published(name):
    """Refused with the code of the draft: a track that is not there, and a group behind the newest one."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        for group, path, codes in (
            (4, b"b", (INVALID_RANGE, 0x5)),
            (2**62 - 1, b"b", (INVALID_RANGE, 0x5)),
            (0, b"c", (DOES_NOT_EXIST, 0x4)),
        ):
            request_id = peer.next_id()
            exchange = await peer.request(wire.fetch(request_id, (path,), group=group), request_id)
            assert await exchange.refusal() in codes
        await peer.check_alive()


@each_draft
async def test_a_range_that_ends_before_it_starts(name):
    """Where a range has an absolute end it may be wrong; that is the request's mistake or the session's."""
    wire = DraftWire(name)
    if wire.draft >= 20:
        return  # the end is a difference to the start there
    async with draft_peer(name) as peer:
        body = wire.request_id(0) + (b"\x80\x01" if wire.draft == 14 else b"") + b"\x01"
        body += wire.namespace(b"b") + wire.data(b"t") + wire.location(3, 0) + wire.location(2, 0) + b"\x00"
        exchange = await peer.request(wire.message(FETCH, body), 0)
        with trio.fail_after(10):
            try:
                assert await exchange.refusal() in (INVALID_RANGE, 0x5)
            except (moqt.MoqtError, AssertionError):
                await peer.check_closed()


@each_draft
async def test_a_thousand_fetches_at_once(name):
    """They are answered, or refused above `max_requests`; each stream ends, and nothing is left of them."""
    limits = moqt.Limits(max_requests=64)
    async with draft_peer(name, limits=limits) as peer:
        exchanges = []
        for _ in range(400):
            request_id = peer.next_id()
            try:
                exchanges.append(await peer.request(peer.wire.fetch(request_id, group=3), request_id))
            except moqt.MoqtError:
                break
        await settled()
        if peer.wire.shared and peer.connection.closed is not None:
            # More than MAX_REQUEST_ID allows.
            await peer.check_closed(0x7)
            return
        # Two for each, at the least.
        with trio.fail_after(30):
            for exchange in exchanges[:64]:
                kind, _ = await exchange.accepted()
                assert kind == FETCH_OK
        for exchange in exchanges:
            if exchange.stream is not None:
                exchange.stream.reset(CANCELLED)
                exchange.stream.stop(CANCELLED)
        await settled()
        assert peer.session._context.core._state.requests.taken == 0


@each_draft
async def test_a_fetch_whose_reply_is_refused(name):
    """STOP_SENDING on the reply's stream ends that stream; the request and the session go on."""
    async with draft_peer(name) as peer:
        for _ in range(20):
            request_id = peer.next_id()
            exchange = await peer.request(peer.wire.fetch(request_id, group=3), request_id)
            await exchange.accepted()
            reply = await peer.receive_stream()
            reply.stop(CANCELLED)
        await settled()
        await peer.check_alive()


@pytest.mark.parametrize("name", JOINING)
async def test_joins_of_unknown_ids(name):
    """They are held for about a second, in a bounded number, and refused with INVALID_JOINING_REQUEST_ID."""
    async with draft_peer(name) as peer:
        exchanges = []
        began = trio.current_time()
        for _ in range(50):
            request_id = peer.next_id()
            exchanges.append(await peer.request(peer.wire.join(request_id, 2**40), request_id))
        for exchange in exchanges:
            assert await exchange.refusal() in (INVALID_JOINING_REQUEST_ID, 0x7)
        assert trio.current_time() - began < 5
        assert peer.session._context.core._state.requests.taken == 0
        await peer.check_alive()


@pytest.mark.parametrize("name", JOINING)
async def test_a_thousand_joining_fetches(name):
    """For one subscription: those within the limits are answered, and the subscription goes on."""
    async with draft_peer(name, limits=moqt.Limits(max_requests=32)) as peer:
        subscription = await peer.subscribe()
        await subscription.accepted()
        answered = 0
        for _ in range(40):
            exchanges = []
            for _ in range(25):
                request_id = peer.next_id()
                join = peer.wire.join(request_id, subscription.request_id, answered % 5)
                exchanges.append(await peer.request(join, request_id))
            for exchange in exchanges:
                kind, _ = await exchange.accepted()
                assert kind == FETCH_OK
                answered += 1
            await settled()
        assert answered == 1000
        # Each has its stream, beside the tail's.
        state = peer.session._context.core._state
        assert state.requests.taken == 0
        await peer.check_alive()


@pytest.mark.parametrize("name", JOINING)
@pytest.mark.parametrize("start", [0, 1, 3, 4, 2**40, 2**62 - 1])
@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
async def test_joins_of_any_start(name, start, absolute):
    """A relative start counts back from the newest group, not below 0; an absolute one behind it is INVALID_RANGE."""
    async with draft_peer(name) as peer:
        subscription = await peer.subscribe()
        await subscription.accepted()
        request_id = peer.next_id()
        join = peer.wire.join(request_id, subscription.request_id, start, absolute=absolute)
        exchange = await peer.request(join, request_id)
        if absolute and start > 3:
            assert await exchange.refusal() in (INVALID_RANGE, 0x5)
        else:
            await exchange.accepted()
        await peer.check_alive()


@pytest.mark.parametrize("name", JOINING)
async def test_a_join_of_a_subscription_that_was_refused(name):
    """There is nothing to join; the fetch is refused, as one of an unknown id."""
    async with draft_peer(name) as peer:
        subscription = await peer.subscribe(b"none")
        await subscription.refusal()
        request_id = peer.next_id()
        exchange = await peer.request(peer.wire.join(request_id, subscription.request_id), request_id)
        assert await exchange.refusal() in (INVALID_JOINING_REQUEST_ID, 0x7)
        # A fetch joins no fetch.
        request_id = peer.next_id()
        again = await peer.request(peer.wire.join(request_id, exchange.request_id), request_id)
        assert await again.refusal() in (INVALID_JOINING_REQUEST_ID, 0x7)
        await peer.check_alive()
