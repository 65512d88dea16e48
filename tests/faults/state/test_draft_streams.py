"""Streams of a hostile peer on the IETF drafts: unknown types, unknown aliases, late data, and what comes twice."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.protocol.ietf.state import MAX_PARKED
from tests.faults.draft_peer import DraftPeer, draft_peer
from tests.faults.drafts import (
    CANCELLED,
    DUPLICATE_TRACK_ALIAS,
    NAMES,
    DraftWire,
    each_draft,
)
from tests.faults.raw_peer import code_of_stop, settled
from tests.faults.state_peer import stopped_with

STREAMS = [name for name in NAMES if not DraftWire(name).shared]
"""The drafts in which each request has a stream."""
each_draft_with_streams = pytest.mark.parametrize("name", STREAMS)

# -- row 11: unknown types ----------------------------------------------------------------------------------------

UNKNOWN_UNI = (0x00, 0x01, 0x06, 0x16, 0x17, 0x1E, 0x3F, 0x40, 0x80, 0x98, 0x9D, 0x3FFF, 2**62 - 1)
"""Types that no draft gives a unidirectional stream; `16` and its like are subgroup types with a reserved id mode."""


@each_draft
@pytest.mark.parametrize("kind", UNKNOWN_UNI)
async def test_an_unknown_unidirectional_stream_closes_the_session(name, kind):
    """The drafts say PROTOCOL_VIOLATION (section 3.3 in 18)."""
    async with draft_peer(name) as peer:
        await peer.send(peer.wire.number(kind) + b"\x00" * 8)
        await peer.check_closed()


@each_draft
@pytest.mark.parametrize("kind", [0x01, 0x05, 0x07, 0x09, 0x0B, 0x18, 0x2F00, 0x3FFF, 2**62 - 1])
async def test_an_unknown_request_closes_the_session(name, kind):
    """So does a bidirectional stream that begins with a reply, with SETUP, or with what is no message."""
    async with draft_peer(name) as peer:
        stream = await peer.connection.open_bidi()
        stream.write(peer.wire.message(kind, b"\x00" * 4))
        await peer.check_closed()


@each_draft
async def test_an_unknown_message_within_a_request_closes_the_session(name):
    """It cannot be skipped, on either side's requests."""
    async with draft_peer(name) as peer:
        exchange = await peer.subscribe()
        await exchange.accepted()
        exchange.write(peer.wire.message(0x3E, b""))
        await peer.check_closed()
    async with draft_peer(name) as peer:
        _, exchange = await peer.accepted()
        exchange.write(peer.wire.message(0x3E, b""))
        await peer.check_closed()


@each_draft
async def test_padding_is_dropped(name):
    """A padding stream is read to its end and says nothing (from 18 on); before, its type is unknown."""
    async with draft_peer(name) as peer:
        stream = await peer.send(bytes.fromhex("f0132b3e28") + b"\x00" * 100_000)
        if peer.wire.draft < 18:
            await peer.check_closed()
            return
        with trio.fail_after(10):
            for _ in range(20):
                await stream.wait_writable()
                stream.write(b"\x00" * 50_000)
        await settled()
        await peer.check_alive()


# -- row 12: an alias that nothing names --------------------------------------------------------------------------


@each_draft
async def test_data_of_an_unknown_alias_waits_and_is_stopped(name, autojump_clock):
    """So many streams wait, for a bounded time; a further one is stopped at once. Nothing is kept of them."""
    async with draft_peer(name) as peer:
        streams = [await peer.send(peer.wire.subgroup(1000 + number, 0, b"x")) for number in range(MAX_PARKED)]
        await settled()
        assert [stopped_with(stream) for stream in streams] == [None] * MAX_PARKED
        late = await peer.send(peer.wire.subgroup(5000, 0, b"x"))
        assert await code_of_stop(late) == CANCELLED
        began = trio.current_time()
        for stream in streams:
            await code_of_stop(stream)
        assert trio.current_time() - began <= 2 * peer.session.limits.setup_timeout + 1
        state = peer.session._context.core._state
        assert state.aliases.parked == {}
        assert peer.session._context.parked == {}
        assert not peer.session._context.pending_streams
        # There is room again, and a stream that waited in time is read.
        subscription, exchange = await peer.subscription()
        await peer.send(peer.wire.subgroup(7, 0, b"early"), fin=True)
        await settled()
        exchange.write(peer.wire.subscribe_ok(exchange.request_id, 7))
        assert await (await anext(subscription)).read_all() == [b"early"]
        await peer.check_alive()


@each_draft
async def test_a_stream_that_waits_holds_no_more_than_its_window(name):
    """What follows the header is the peer's credit, and comes when the alias is named."""
    async with draft_peer(name) as peer:
        subscription, exchange = await peer.subscription()
        stream = await peer.send(peer.wire.header(7, 0))
        payload = b"z" * 10_000
        sent = 0
        while stream.writable and sent < 100:
            stream.write(peer.wire.object(payload))
            sent += 1
            await settled()
        assert sent * len(payload) <= 2 * (peer.session.limits.stream_window + peer.connection.limits.send_high)
        exchange.write(peer.wire.subscribe_ok(exchange.request_id, 7))
        group = await anext(subscription)
        with trio.fail_after(10):
            assert [bytes(await group.receive()) for _ in range(sent)] == [payload] * sent


@each_draft
async def test_waiting_streams_that_end_are_forgotten(name):
    """A reset of a waiting stream makes room for another."""
    async with draft_peer(name) as peer:
        for number in range(3 * MAX_PARKED):
            stream = await peer.send(peer.wire.subgroup(1000 + number, 0, b"x" * 100))
            await settled()
            assert stopped_with(stream) is None
            stream.reset(CANCELLED)
            await settled()
        assert peer.session._context.core._state.aliases.parked == {}
        assert peer.session._context.parked == {}
        await peer.check_alive()


@each_draft
async def test_ten_thousand_streams_of_unknown_aliases(name):
    """Each is stopped; nothing of them is kept."""
    async with draft_peer(name) as peer:
        for number in range(10_000):
            stream = await peer.send(peer.wire.subgroup(number % 4096 + 1000, 0, b"x"))
            if number % 64 == 63:
                await settled()
            if number >= 4 * MAX_PARKED:
                stream.reset(CANCELLED)
        await settled()
        context = peer.session._context
        assert len(context.parked) <= MAX_PARKED
        assert len(context.pending_streams) <= MAX_PARKED
        await peer.check_alive()


@each_draft
async def test_one_alias_for_two_subscriptions(name):
    """Up to 18 it closes the session (DUPLICATE_TRACK_ALIAS); from 19 on it may be, and ends at most the second one."""
    async with draft_peer(name) as peer:
        first, _ = await peer.accepted(alias=7)
        await peer.ours.enter_async_context(peer.session.subscribe("b", "u"))
        exchange, _ = await peer.asked(0x03)
        exchange.write(peer.wire.subscribe_ok(exchange.request_id, 7))
        if peer.wire.draft <= 18:
            await peer.check_closed(DUPLICATE_TRACK_ALIAS)
            return
        await settled()
        await peer.send(peer.wire.subgroup(7, 0, b"x"), fin=True)
        assert await (await anext(first)).read_all() == [b"x"]
        await peer.check_alive()


# -- row 16: late data --------------------------------------------------------------------------------------------


@each_draft
async def test_data_after_the_subscription_was_left(name):
    """Streams of it are stopped, those that had begun and those that come later; the session goes on."""
    async with draft_peer(name) as peer:
        async with peer.session.subscribe("b", "t") as subscription:
            exchange, _ = await peer.asked(0x03)
            exchange.write(peer.wire.subscribe_ok(exchange.request_id, 7))
            begun = await peer.send(peer.wire.subgroup(7, 0, b"x"))
            group = await anext(subscription)
            assert await group.receive() == b"x"
        await exchange.over()
        assert await code_of_stop(begun) == CANCELLED
        late = await peer.send(peer.wire.subgroup(7, 1, b"late"))
        assert await code_of_stop(late) == CANCELLED
        await peer.send(peer.wire.subgroup(7, 2, b"late"), fin=True)
        # Whatever crossed the end on the request is ignored.
        if exchange.stream is None:
            exchange.write(peer.wire.publish_done(exchange.request_id))
        await settled()
        await peer.check_alive()


@each_draft
async def test_data_before_the_acceptance_of_a_subscription_that_was_left(name):
    """The acceptance crosses the end: what waited for it is stopped or expires, and no state is left."""
    limits = moqt.Limits(setup_timeout=0.05)
    async with draft_peer(name, limits=limits) as peer:
        async with peer.session.subscribe("b", "t"):
            exchange, _ = await peer.asked(0x03)
            early = await peer.send(peer.wire.subgroup(7, 0, b"x"))
            await settled()
        if exchange.stream is None:
            exchange.write(peer.wire.subscribe_ok(exchange.request_id, 7))
        await code_of_stop(early)
        await settled()
        assert peer.session._context.parked == {}
        await peer.check_alive()


@each_draft
@pytest.mark.parametrize("how", ["FIN", "reset"])
async def test_messages_after_the_end_of_the_request(name, how):
    """A subscription that its publisher ended takes late data, and the session goes on."""
    async with draft_peer(name) as peer:
        subscription, exchange = await peer.accepted()
        if how == "FIN":
            exchange.write(peer.wire.publish_done(exchange.request_id, 2, 0), fin=True)
        elif exchange.stream is not None:
            exchange.stream.reset(0x0)
        else:
            exchange.write(peer.wire.publish_done(exchange.request_id, 0, 0))
        await settled()
        with trio.fail_after(10):
            if how == "FIN":
                assert [group async for group in subscription] == []
            else:
                with pytest.raises(moqt.MoqtError):
                    await anext(subscription)
        await peer.send(peer.wire.subgroup(7, 1, b"late"), fin=True)
        await settled()
        await peer.check_alive()


@each_draft
async def test_objects_after_the_end_of_the_group(name):
    """They make the track malformed: its subscription ends, the frames before can be read, and the session goes on."""
    async with draft_peer(name) as peer:
        subscription, exchange = await peer.accepted()
        end = peer.wire.status(0x3)
        stream = await peer.send(peer.wire.subgroup(7, 0, b"x") + end + peer.wire.object(b"late"))
        with trio.fail_after(10):
            group = await anext(subscription)
            assert await group.receive() == b"x"
            await code_of_stop(stream)
            with pytest.raises(moqt.MoqtError):
                await anext(subscription)
        await exchange.over()
        await peer.check_alive()


# -- row 17: what comes twice, from the wrong side, or at the wrong place -----------------------------------------


@each_draft
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
async def test_a_second_setup_closes_the_session(name, client):
    """On the control stream, and from 17 on also on a second one."""
    async with draft_peer(name, client=client) as peer:
        peer.write_control(peer.wire.setup(client=not client))
        await peer.check_closed()
    if not DraftWire(name).shared:
        async with draft_peer(name, client=client) as peer:
            await peer.send(peer.wire.setup(client=not client))
            await peer.check_closed()


@each_draft
async def test_a_second_goaway_closes_the_session(name):
    """The first is taken."""
    async with draft_peer(name) as peer:
        peer.write_control(peer.wire.goaway())
        await settled()
        assert peer.session.closed is None
        peer.write_control(peer.wire.goaway())
        await peer.check_closed()


@each_draft
async def test_a_client_that_sends_the_server_elsewhere(name):
    """A client's GOAWAY names no URI."""
    async with draft_peer(name) as peer:
        peer.write_control(peer.wire.goaway(b"moqt://elsewhere/"))
        await peer.check_closed()


@each_draft
async def test_a_uri_that_is_too_long(name):
    """Of 8,192 bytes at the most."""
    async with draft_peer(name, client=True) as peer:
        peer.write_control(peer.wire.goaway(b"m" * 8193))
        await peer.check_closed()


@each_draft
@pytest.mark.parametrize("how", ["FIN", "reset", "stop"])
async def test_the_end_of_the_control_stream_closes_the_session(name, how):
    """A control stream ends with its session (PROTOCOL_VIOLATION)."""
    async with draft_peer(name) as peer:
        assert peer.control is not None
        if how == "FIN":
            peer.write_control(b"", fin=True)
        elif how == "reset":
            peer.control.reset(0x0)
        elif peer.wire.shared:
            peer.control.stop(0x0)  # type: ignore[union-attr]
        else:
            return
        await peer.check_closed()


@each_draft_with_streams
async def test_a_request_on_the_control_stream(name):
    """From 17 on it carries GOAWAY only."""
    for data in (b"", DraftWire(name).subscribe(0), DraftWire(name).publish_done(0)):
        async with draft_peer(name) as peer:
            peer.write_control(data)
            await settled()
            if not data:
                await peer.check_alive()
            else:
                await peer.check_closed()


@each_draft
async def test_replies_in_the_place_of_others(name):
    """FETCH_OK, PUBLISH_OK and a second SUBSCRIBE_OK for a subscription close the session."""
    wire = DraftWire(name)

    async def checked(peer: DraftPeer, data: bytes) -> None:
        _, exchange = await peer.accepted()
        exchange.write(data)
        await peer.check_closed()

    for data in (lambda i: wire.fetch_ok(i), lambda i: wire.subscribe_ok(i, 8), lambda i: wire.subscribe(i + 1)):
        if wire.shared and data(0)[:1] != wire.fetch_ok(0)[:1]:
            continue  # an answered request takes no second answer: it is dropped; and a request there is in order
        async with draft_peer(name) as peer:
            await checked(peer, data(0))


@each_draft_with_streams
async def test_messages_of_the_other_role(name):
    """A subscriber that sends SUBSCRIBE_OK or PUBLISH_DONE, and a second SUBSCRIBE, close the session."""
    wire = DraftWire(name)
    for data in (wire.subscribe_ok(0, 0), wire.publish_done(0), wire.subscribe(2), wire.setup(client=True)):
        async with draft_peer(name) as peer:
            exchange = await peer.subscribe()
            await exchange.accepted()
            exchange.write(data)
            await peer.check_closed()
    for data in (wire.found(b"x"), wire.publish_done(0), wire.subscribe_ok(0, 1)):
        async with draft_peer(name) as peer:
            exchange = await peer.request(wire.subscribe_namespace(0, b"b"))
            await exchange.accepted()
            exchange.write(data)
            await peer.check_closed()


@each_draft
async def test_a_subscription_that_is_refused_after_it_was_accepted(name):
    """REQUEST_ERROR behind SUBSCRIBE_OK answers nothing; so does REQUEST_OK. From 17 on they close the session."""
    for kind in ("error", "ok"):
        async with draft_peer(name) as peer:
            _, exchange = await peer.accepted()
            wire, request_id = peer.wire, exchange.request_id
            exchange.write(wire.refused(request_id, 0x03) if kind == "error" else wire.update_ok(request_id))
            if wire.shared:
                await settled()
                await peer.check_alive()
            else:
                await peer.check_closed()


@each_draft
async def test_a_stream_of_a_subgroup_with_no_end_of_a_group_that_ended(name):
    """A second stream of one group, with the same objects, and one without any, disturb nothing."""
    async with draft_peer(name) as peer:
        subscription, _ = await peer.accepted()
        await peer.send(peer.wire.subgroup(7, 0, b"x"), fin=True)
        assert await (await anext(subscription)).read_all() == [b"x"]
        await peer.send(peer.wire.subgroup(7, 0, b"x"), fin=True)
        await peer.send(peer.wire.header(7, 0), fin=True)
        await settled()
        await peer.send(peer.wire.subgroup(7, 1, b"y"), fin=True)
        with trio.fail_after(10):
            async for group in subscription:
                if group.sequence == 1:
                    assert await group.read_all() == [b"y"]
                    break
        await peer.check_alive()


@each_draft
async def test_a_publisher_that_ends_twice(name):
    """A second PUBLISH_DONE, or anything behind the first, closes the session, or is dropped with its request."""
    async with draft_peer(name) as peer:
        _, exchange = await peer.accepted()
        exchange.write(peer.wire.publish_done(exchange.request_id))
        exchange.write(peer.wire.publish_done(exchange.request_id))
        if peer.wire.shared:
            await settled()
            await peer.check_alive()
        else:
            await peer.check_closed()
