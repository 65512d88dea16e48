"""Replies of a hostile publisher on the IETF drafts: streams of objects for nothing, twice, without an end, or a part.

A head is what the newest group had when a subscription began, a tail the rest of that group; see
`moqt_trio/session/subscriber/head.py`.
"""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from tests.faults.draft_peer import draft_peer
from tests.faults.drafts import (
    CANCELLED,
    FETCH,
    FETCH_OK,
    NAMES,
    REQUEST_OK,
    SUBSCRIBE,
    SUBSCRIBE_OK,
    DraftWire,
    each_draft,
)
from tests.faults.raw_peer import code_of_stop, settled
from tests.faults.state_peer import stopped_with

FILLING = [name for name in NAMES if DraftWire(name).draft >= 20]

# -- replies ------------------------------------------------------------------------------------------------------


@each_draft
async def test_replies_for_nothing(name):
    """Streams of objects for requests that asked for none are stopped; nothing is kept, the session lives."""
    async with draft_peer(name) as peer:
        _, exchange = await peer.accepted()
        for request_id in [0, exchange.request_id, exchange.request_id ^ 1, 99, 2**40, peer.wire.largest]:
            stream = await peer.send(peer.wire.reply_header(request_id) + peer.wire.fetched(0, 0, b"x"))
            if peer.wire.draft >= 20 and request_id == exchange.request_id:
                continue  # the fill that it has asked for
            assert await code_of_stop(stream) == CANCELLED
        for number in range(2000):
            stream = await peer.send(peer.wire.reply_header(1000 + number) + b"x" * 50)
            if number % 64 == 63:
                await settled()
                assert stopped_with(stream) == CANCELLED
        await settled()
        assert not peer.session._context.pending_streams
        await peer.check_alive()


@each_draft
async def test_two_replies_for_one_fetch(name):
    """The second stream is stopped; the first goes on."""
    async with draft_peer(name) as peer:
        fetch = await peer.ours.enter_async_context(peer.session.fetch("b", "t", 0))
        exchange, _ = await peer.asked(FETCH)
        wire, request_id = peer.wire, exchange.request_id
        exchange.write(wire.fetch_ok(request_id))
        first = await peer.send(wire.reply_header(request_id) + wire.fetched(0, 0, b"x"))
        await settled()
        second = await peer.send(wire.reply_header(request_id) + wire.fetched(0, 0, b"other"))
        assert await code_of_stop(second) == CANCELLED
        first.write(wire.fetched_next(b"y", 0, 1), fin=True)
        assert await fetch.read_all() == [b"x", b"y"]
        await peer.check_alive()


@each_draft
async def test_a_reply_whose_fetch_is_refused_or_left(name):
    """What comes for it afterwards is stopped."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        async with peer.session.fetch("b", "t", 0) as fetch:
            exchange, _ = await peer.asked(FETCH)
            exchange.write(wire.refused(exchange.request_id, FETCH), fin=True)
            with trio.fail_after(10), pytest.raises(moqt.NotFound):
                await fetch.read_all()
            stream = await peer.send(wire.reply_header(exchange.request_id) + wire.fetched(0, 0, b"x"))
        assert await code_of_stop(stream) == CANCELLED
        async with peer.session.fetch("b", "t", 0) as fetch:
            exchange, _ = await peer.asked(FETCH)
            begun = await peer.send(wire.reply_header(exchange.request_id) + wire.fetched(0, 0, b"x"))
            with trio.fail_after(10):
                assert await fetch.receive() == b"x"
        assert await code_of_stop(begun) == CANCELLED
        stream = await peer.send(wire.reply_header(exchange.request_id) + wire.fetched(0, 0, b"x"))
        assert await code_of_stop(stream) == CANCELLED
        await peer.check_alive()


@each_draft
async def test_objects_of_a_reply_out_of_their_order(name):
    """Ids that go back, and another group than the one asked for, break the fetch, not the session."""
    for group, index in ((0, 3), (1, 6), (2**62 - 1, 2**62 - 1)):
        async with draft_peer(name) as peer:
            wire = peer.wire
            fetch = await peer.ours.enter_async_context(peer.session.fetch("b", "t", 0))
            exchange, _ = await peer.asked(FETCH)
            exchange.write(wire.fetch_ok(exchange.request_id, (0, 9)))
            stream = await peer.send(wire.reply_header(exchange.request_id) + wire.fetched(0, 5, b"x"))
            if wire.draft < 18:
                stream.write(wire.fetched(group, index, b"late"))
            elif group == 0:
                return  # within a group ids are differences there, and can't go back
            else:
                # A group field: the difference to the group before, less one.
                place = wire.number(group - 1) + b"\x00" + wire.number(index)
                stream.write(b"\x1f" + place + b"\x80" + wire.data(b"late"))
            await code_of_stop(stream)
            with trio.fail_after(10), pytest.raises(moqt.StreamReset):
                await fetch.read_all()
            await peer.check_alive()


# -- a head without its tail, a tail without its head -------------------------------------------------------------


async def head_of(peer, exchange):
    """Take the joining fetch for a subscription's head (up to 19); return the reply's id, and the fetch."""
    if peer.wire.draft >= 20:
        return exchange.request_id, None
    fetch, _ = await peer.asked(FETCH)
    return fetch.request_id, fetch


async def joined(peer):
    """Have our session subscribe, and accept it in the middle of group 4."""
    subscription, exchange = await peer.subscription()
    exchange.write(peer.wire.subscribe_ok(exchange.request_id, 7, (4, 1)))
    await settled()
    request_id, fetch = await head_of(peer, exchange)
    return subscription, exchange, request_id, fetch


@each_draft
async def test_a_head_without_its_tail(name, autojump_clock):
    """The group ends a moment after a newer one has begun, or with the subscription."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        subscription, _, request_id, fetch = await joined(peer)
        if fetch is not None:
            fetch.write(wire.fetch_ok(request_id, (4, 2)))
        await peer.send(
            wire.reply_header(request_id) + wire.fetched(4, 0, b"x") + wire.fetched_next(b"y", 4, 1), fin=True
        )
        group = await anext(subscription)
        await peer.send(wire.subgroup(7, 5, b"next"), fin=True)
        with trio.fail_after(10):
            assert (group.sequence, await group.read_all()) == (4, [b"x", b"y"])
            assert await (await anext(subscription)).read_all() == [b"next"]
        await peer.check_alive()


@each_draft
@pytest.mark.parametrize("how", ["silence", "refusal", "reset", "broken"])
async def test_a_tail_without_its_head(name, how, autojump_clock):
    """It becomes a group of its own, which starts late; or, when the head broke, ends with its error."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        subscription, _, request_id, fetch = await joined(peer)
        await peer.send(wire.header(7, 4, first=False) + wire.object(b"z", 2), fin=True)
        await settled()
        match how:
            case "refusal" if fetch is not None:
                fetch.write(wire.refused(fetch.request_id, FETCH), fin=True)
            case "reset":
                stream = await peer.send(wire.reply_header(request_id))
                await settled()
                stream.reset(0x0)
            case "broken":
                await peer.send(wire.reply_header(request_id) + wire.fetched(9, 0, b"x"))
        await settled()
        await peer.send(wire.subgroup(7, 5, b"next"), fin=True)
        received = {}
        with trio.fail_after(60):
            # A tail waits for its head, and a later group does not wait for it.
            while received.keys() != {4, 5}:
                group = await anext(subscription)
                try:
                    received[group.sequence] = (group.start_frame, await group.read_all())
                except moqt.StreamReset as error:
                    received[group.sequence] = error
        assert received[5] == (0, [b"next"])
        if how in ("silence", "refusal"):
            assert received[4] == (2, [b"z"])
        else:
            assert isinstance(received[4], moqt.StreamReset)
        await peer.check_alive()


@each_draft
async def test_a_head_that_never_ends_while_the_subscription_is_left(name):
    """Leaving stops the head's stream and the tail's; more of them are stopped, too, and nothing is left."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        async with peer.session.subscribe("b", "t") as subscription:
            exchange, _ = await peer.asked(SUBSCRIBE)
            exchange.write(wire.subscribe_ok(exchange.request_id, 7, (4, 1)))
            await settled()
            request_id, fetch = await head_of(peer, exchange)
            if fetch is not None:
                fetch.write(wire.fetch_ok(request_id, (4, 2)))
            head = await peer.send(wire.reply_header(request_id) + wire.fetched(4, 0, b"x"))
            tail = await peer.send(wire.header(7, 4, first=False) + wire.object(b"z", 2))
            group = await anext(subscription)
            assert await group.receive() == b"x"
            head.write(wire.fetched_next(b"y" * 100, 4, 1)[:50])
        assert await code_of_stop(head) == CANCELLED
        assert await code_of_stop(tail) == CANCELLED
        for data in (wire.reply_header(request_id), wire.subgroup(7, 5, b"x")):
            assert await code_of_stop(await peer.send(data)) == CANCELLED
        await settled()
        state = peer.session._context.core._state
        assert (state.replies, state.parked_replies, len(state.issued)) == ({}, {}, 0)
        assert peer.session._context.replies == {}
        await peer.check_alive()


@each_draft
async def test_a_head_of_another_group_or_behind_the_tail(name, autojump_clock):
    """A head that goes on into the tail's objects is read once; the tail's own begin where it ended."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        subscription, _, request_id, fetch = await joined(peer)
        if fetch is not None:
            fetch.write(wire.fetch_ok(request_id, (4, 2)))
        data = wire.fetched(4, 0, b"0") + b"".join(wire.fetched_next(b"%d" % index, 4, index) for index in (1, 2, 3))
        await peer.send(wire.reply_header(request_id) + data, fin=True)
        tail = b"".join(wire.object(b"%d" % index) for index in (3, 4))
        await peer.send(wire.header(7, 4, first=False) + wire.object(b"2", 2) + tail, fin=True)
        with trio.fail_after(30):
            assert await (await anext(subscription)).read_all() == [b"0", b"1", b"2", b"3", b"4"]
        await peer.check_alive()


# -- fills --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILLING)
@pytest.mark.parametrize("groups", [0, 1, 2, 5, 2**40, 2**62 - 1, 2**64 - 1])
async def test_fills_of_any_number_of_groups(name, groups):
    """What the track has of them is sent, and no more; a number beyond that is not one."""
    async with draft_peer(name) as peer:
        exchange = await peer.subscribe(parameters=peer.wire.with_fill(groups))
        kind, _ = await exchange.accepted()
        assert kind == SUBSCRIBE_OK
        await peer.check_alive()


@pytest.mark.parametrize("name", FILLING)
async def test_a_hundred_subscriptions_with_fills_that_are_not_read(name):
    """Their streams are held up by the peer alone; leaving the subscriptions resets them."""
    async with draft_peer(name) as peer:
        exchanges = [await peer.subscribe(parameters=peer.wire.with_fill(4)) for _ in range(100)]
        for exchange in exchanges:
            await exchange.accepted()
        await settled()
        for exchange in exchanges:
            exchange.cancel()
        await settled()
        state = peer.session._context.core._state
        assert (len(state.peers), state.streams_opened) == (0, {})
        await peer.check_alive()


@pytest.mark.parametrize("name", FILLING)
async def test_two_fills_for_one_subscription(name):
    """The second stream is stopped, also before the subscription is accepted."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        subscription, exchange = await peer.subscription()
        await peer.send(wire.reply_header(exchange.request_id) + wire.fetched(4, 0, b"x"), fin=True)
        second = await peer.send(wire.reply_header(exchange.request_id) + wire.fetched(4, 0, b"other"))
        assert await code_of_stop(second) == CANCELLED
        exchange.write(wire.subscribe_ok(exchange.request_id, 7, (4, 0)))
        await peer.send(wire.header(7, 4, first=False), fin=True)
        assert await (await anext(subscription)).read_all() == [b"x"]
        third = await peer.send(wire.reply_header(exchange.request_id))
        assert await code_of_stop(third) == CANCELLED
        await peer.check_alive()


@each_draft
async def test_an_update_of_a_fetch_before_its_acceptance(name, autojump_clock):
    """It is answered behind the acceptance, which waits until the peer has seen the stream of the objects."""
    wire = DraftWire(name)
    if wire.draft == 14:
        return  # nothing answers an update there
    async with draft_peer(name) as peer:
        request_id = peer.next_id()
        exchange = await peer.request(wire.fetch(request_id, group=3), request_id)
        await settled()
        await peer.update(exchange)
        await settled()
        kinds = [(await exchange.accepted())[0] for _ in range(2)]
        assert kinds == [FETCH_OK, REQUEST_OK]
