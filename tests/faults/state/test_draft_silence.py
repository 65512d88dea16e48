"""A peer on the IETF drafts that does not say what is due: SETUP, a stream's type, an answer, the objects, an end."""

from __future__ import annotations

from functools import partial

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.protocol.ietf.machine import MAX_UPDATES
from moqt_trio.wire import dialect as dialects
from tests.faults.draft_peer import draft_peer
from tests.faults.drafts import (
    CANCELLED,
    FETCH,
    SUBSCRIBE,
    SUBSCRIBE_NAMESPACE,
    SUBSCRIBE_NAMESPACE_16,
    DraftWire,
    each_draft,
)
from tests.faults.raw_peer import code_of_reset, code_of_stop, settled
from tests.transport.quic_pair import client_settings, connect_quic, serving

CONTROL_MESSAGE_TIMEOUT = 0x11
TIMED_OUT = (StreamCode.CONTROL_TIMEOUT, False)
"""How a request that was not answered fails: its code, and whether the peer reset it."""
SHORT = moqt.Limits(setup_timeout=0.2)


async def no_handler(request: moqt.SessionRequest) -> None:
    """Never called."""
    raise AssertionError("a session began")


# -- how the session starts ---------------------------------------------------------------------------------------


@each_draft
@pytest.mark.parametrize("half", [False, True], ids=["nothing", "half"])
async def test_a_client_without_a_setup(name, half):
    """A server closes with CONTROL_MESSAGE_TIMEOUT; no handler runs."""
    wire, alpn = DraftWire(name), dialects.get(name).alpns[0]
    async with trio.open_nursery() as nursery:
        router = moqt.Router({"/a": no_handler}, default="/a")
        listener = await nursery.start(partial(moqt.serve, router, "localhost", 0, versions=[name], limits=SHORT))
        settings = client_settings(alpns=(alpn,), fingerprints=(), verify=False)
        async with connect_quic("localhost", listener.port, settings) as peer:
            if half:
                stream = await (peer.open_bidi() if wire.shared else peer.open_uni())
                stream.write(wire.setup(client=True)[:-1])
            with trio.fail_after(5):
                error = await peer.wait_closed()
            assert (error.remote_code, error.by_peer) == (CONTROL_MESSAGE_TIMEOUT, True)
        nursery.cancel_scope.cancel()


@each_draft
async def test_a_server_without_a_setup(name):
    """`connect` raises ConnectTimeout after `setup_timeout`."""
    async with serving(alpns=dialects.get(name).alpns) as listener:
        url = f"moqt://localhost:{listener.port}/a"
        with trio.fail_after(5), pytest.raises(moqt.ConnectTimeout, match=r"0\.2 s"):
            async with moqt.connect(url, versions=[name], verify=False, limits=SHORT):
                raise AssertionError("a session began")


@pytest.mark.parametrize("name", [name for name in dialects.version_names(opt_in=True) if name.startswith("moqt-")])
async def test_requests_that_overtake_the_setup(name):
    """From 17 on they are served: nothing orders the two streams. Up to 16 nothing may come before SETUP."""
    wire = DraftWire(name)
    if wire.shared:
        return
    async with draft_peer(name, setup=False) as peer:
        exchange = await peer.subscribe()
        await exchange.accepted()
        stream = await peer.send(wire.setup(client=True))
        await settled()
        stream.write(wire.goaway())
        await settled()
        assert peer.session.closed is None


# -- what a stream is ---------------------------------------------------------------------------------------------


@each_draft
async def test_streams_that_never_say_what_they_are(name, autojump_clock):
    """A stream with half a type is refused within twice `setup_timeout`; the session goes on."""
    half = b"\x80" if not DraftWire(name).shared else b"\x40"
    async with draft_peer(name, limits=moqt.Limits(max_streams=12)) as peer:
        began = trio.current_time()
        for _ in range(3):
            streams = [await peer.connection.open_uni()]
            if not peer.wire.shared:
                streams.append(await peer.connection.open_bidi())
            for stream in streams:
                stream.write(half)
            for stream in streams:
                await code_of_stop(stream)
        waited = trio.current_time() - began
        assert waited <= peer.session.limits.setup_timeout * 6 + 1
        assert not peer.session._context.pending_streams
        await peer.check_alive()


@each_draft
@pytest.mark.parametrize("size", [1, 2, 3])
async def test_headers_that_are_never_complete(name, size, autojump_clock):
    """Half a header of a subgroup, or of a reply, holds its stream and no more; a reset frees it."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        streams = [await peer.send(wire.header(7, 300)[:size]) for _ in range(20)]
        streams += [await peer.send(wire.reply_header(500)[:size]) for _ in range(20)]
        await trio.sleep(60)
        await peer.check_alive()
        for stream in streams:
            if stream.writable:
                stream.reset(CANCELLED)
        await settled()
        assert not peer.session._context.parked
        await peer.check_alive()


@each_draft
async def test_a_request_that_is_never_complete(name, autojump_clock):
    """Half a request occupies its stream and nothing else (from 17 on); a reset frees it."""
    if DraftWire(name).shared:
        return
    async with draft_peer(name) as peer:
        wire, halves = peer.wire, []
        for number, opening in enumerate((wire.subscribe(0), wire.fetch(2), wire.subscribe_namespace(4, b"b"))):
            stream = await peer.connection.open_bidi()
            stream.write(opening[: -1 - number % 2])
            halves.append(stream)
        await trio.sleep(60)
        peer._next_id = 10
        await peer.check_alive()
        assert peer.session.statistics().subscriptions_served == 0
        for stream in halves:
            stream.reset(CANCELLED)
            stream.stop(CANCELLED)
        await trio.sleep(1)
        assert peer.session._context.core._state.requests.taken == 0


# -- what it answers ----------------------------------------------------------------------------------------------


@each_draft
@pytest.mark.parametrize("wait", ["receive", "wait_accepted"])
async def test_a_subscription_that_is_never_answered(name, wait, autojump_clock):
    """Without SUBSCRIBE_OK it is a StreamReset after `reply_timeout`, and the request is cancelled."""
    async with draft_peer(name) as peer:
        subscription, exchange = await peer.subscription()
        began = trio.current_time()
        for _ in range(2):
            with trio.fail_after(60), pytest.raises(moqt.StreamReset) as caught:
                await getattr(subscription, wait)()
            assert (caught.value.code, caught.value.by_peer) == TIMED_OUT
        assert trio.current_time() - began == pytest.approx(peer.session.limits.reply_timeout)
        await exchange.over()
        await peer.check_alive()


@each_draft
async def test_a_fetch_that_is_never_answered(name, autojump_clock):
    """Without FETCH_OK and without objects, it is a StreamReset after `reply_timeout`."""
    async with draft_peer(name) as peer, peer.session.fetch("b", "t", 1) as reader:
        exchange, _ = await peer.asked(FETCH)
        began = trio.current_time()
        with pytest.raises(moqt.StreamReset) as caught:
            await reader.receive()
        assert (caught.value.code, caught.value.by_peer) == TIMED_OUT
        assert trio.current_time() - began == pytest.approx(peer.session.limits.reply_timeout)
        if exchange.stream is not None:
            assert await code_of_reset(exchange.stream) == await code_of_stop(exchange.stream)
        await peer.check_alive()


@each_draft
async def test_objects_that_come_instead_of_the_answer(name):
    """The objects of a fetch may come before FETCH_OK, and without it the fetch is complete with their stream."""
    async with draft_peer(name) as peer:
        fetch = await peer.ours.enter_async_context(peer.session.fetch("b", "t", 0))
        exchange, _ = await peer.asked(FETCH)
        wire = peer.wire
        await peer.send(wire.reply_header(exchange.request_id) + wire.fetched(0, 0, b"x"), fin=True)
        with trio.fail_after(10):
            assert await fetch.read_all() == [b"x"]
        exchange.write(wire.fetch_ok(exchange.request_id))
        await settled()
        await peer.check_alive()


@each_draft
async def test_objects_that_never_come(name, autojump_clock):
    """After FETCH_OK the time belongs to the caller; leaving the fetch ends it."""
    async with draft_peer(name) as peer:
        async with peer.session.fetch("b", "t", 1) as reader:
            exchange, _ = await peer.asked(FETCH)
            exchange.write(peer.wire.fetch_ok(exchange.request_id, (1, 2)))
            with trio.move_on_after(100) as scope:
                await reader.receive()
            assert scope.cancelled_caught
        await settled()
        assert peer.session._context.core._state.replies == {}
        await peer.check_alive()


@each_draft
async def test_a_list_that_is_never_answered(name, autojump_clock):
    """It waits, as does its reader: leaving it ends it."""
    async with draft_peer(name) as peer:
        kind = SUBSCRIBE_NAMESPACE if peer.wire.draft >= 18 else SUBSCRIBE_NAMESPACE_16
        async with peer.session.announcements("a") as announcements:
            await peer.asked(kind)
            with trio.move_on_after(100) as scope:
                await anext(announcements)
            assert scope.cancelled_caught
        await settled()
        await peer.check_alive()


@each_draft
@pytest.mark.parametrize("count", [0, 1, 2, 3, 2**62 - 1])
async def test_groups_that_publish_done_counts_and_that_never_come(name, count, autojump_clock):
    """However many streams it says, those that came are delivered and the track ends within a second or two."""
    async with draft_peer(name) as peer:
        subscription, exchange = await peer.accepted()
        for number in range(2):
            await peer.send(peer.wire.subgroup(7, number, b"x"), fin=True)
        exchange.write(peer.wire.publish_done(exchange.request_id, 2, count), fin=True)
        began = trio.current_time()
        received = [await group.read_all() async for group in subscription]
        assert received == [[b"x"], [b"x"]]
        assert trio.current_time() - began <= 2
        await peer.check_alive()


@each_draft
async def test_publish_done_without_an_end_of_the_stream(name, autojump_clock):
    """PUBLISH_DONE alone ends the subscription; what waits for FIN waits for nothing."""
    async with draft_peer(name) as peer:
        subscription, exchange = await peer.accepted()
        exchange.write(peer.wire.publish_done(exchange.request_id, 2, 0))
        with trio.fail_after(10), pytest.raises(StopAsyncIteration):
            await anext(subscription)
        await peer.check_alive()


@each_draft
async def test_updates_that_are_never_answered(name):
    """`Subscription.update` waits for no answer; so many are written, and the last one when there is room again."""
    async with draft_peer(name) as peer:
        subscription, exchange = await peer.accepted()
        for number in range(1, 100):
            await subscription.update(priority=number)
        await peer.send(peer.wire.subgroup(7, 0, b"x"), fin=True)
        assert await (await anext(subscription)).read_all() == [b"x"]
        if peer.wire.draft < 17:
            await peer.check_alive()
            return
        for _ in range(MAX_UPDATES):
            kind, body = await exchange.answer()
            assert kind == 0x02
        assert body[-1] == 255 - MAX_UPDATES  # the priority, which is last
        exchange.write(peer.wire.update_ok(0))
        kind, body = await exchange.answer()
        assert (kind, body[-1]) == (0x02, 255 - 99)
        await peer.check_alive()


@each_draft
async def test_groups_that_never_end(name):
    """A subscriber that leaves stops a thousand of them; nothing of them is kept."""
    async with draft_peer(name) as peer:
        async with peer.session.subscribe("b", "t"):
            exchange, _ = await peer.asked(SUBSCRIBE)
            exchange.write(peer.wire.subscribe_ok(exchange.request_id, 7))
            streams = [await peer.send(peer.wire.subgroup(7, number, b"x")) for number in range(1000)]
            await settled()
        for stream in streams:
            assert await code_of_stop(stream) == CANCELLED
        assert len(peer.session._context.core._state.issued) == 0
        await peer.check_alive()
