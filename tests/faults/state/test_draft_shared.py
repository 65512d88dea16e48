"""A hostile peer on the drafts in which all requests share one control stream (14 to 16)."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from tests.faults.draft_peer import draft_peer
from tests.faults.drafts import (
    FETCH_CANCEL,
    NAMES,
    PUBLISH_NAMESPACE_DONE,
    SUBSCRIBE,
    SUBSCRIBE_NAMESPACE_16,
    UNSUBSCRIBE,
    UNSUBSCRIBE_NAMESPACE,
    DraftWire,
)
from tests.faults.raw_peer import settled

SHARED = [name for name in NAMES if DraftWire(name).shared]
each_shared_draft = pytest.mark.parametrize("name", SHARED)
MAX_REQUEST_ID = 0x15
REQUESTS_BLOCKED = 0x1A
PUBLISH_NAMESPACE_CANCEL = 0x0C
TOO_MANY_REQUESTS = 0x7


@each_shared_draft
async def test_another_bidirectional_stream(name):
    """It closes the session; on 16 it may be the request for namespaces, and nothing else."""
    wire = DraftWire(name)
    for data in (wire.subscribe(0), wire.setup(client=True), wire.subscribe_namespace(0, b"b"), b"\x40"):
        async with draft_peer(name) as peer:
            stream = await peer.connection.open_bidi()
            stream.write(data)
            if wire.draft == 16 and data[:1] == bytes([SUBSCRIBE_NAMESPACE_16]):
                with trio.fail_after(10):
                    assert await stream.receive_some()
            else:
                await peer.check_closed()


@each_shared_draft
async def test_a_reply_to_what_was_not_asked(name):
    """It closes the session."""
    wire = DraftWire(name)
    for data in (wire.subscribe_ok(41, 7), wire.refused(41, SUBSCRIBE), wire.fetch_ok(41), wire.namespaces_ok(0)):
        async with draft_peer(name) as peer:
            peer.write_control(data)
            await peer.check_closed()


@each_shared_draft
async def test_a_reply_to_what_is_over(name):
    """It crossed the end of its request, and is dropped: an answer, a second one, PUBLISH_DONE."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        async with peer.session.subscribe("b", "t"):
            exchange, _ = await peer.asked(SUBSCRIBE)
        for data in (
            wire.subscribe_ok(exchange.request_id, 7),
            wire.refused(exchange.request_id, SUBSCRIBE),
            wire.publish_done(exchange.request_id),
            wire.publish_done(exchange.request_id),
        ):
            exchange.write(data)
        await settled()
        await peer.check_alive()


@each_shared_draft
async def test_the_end_of_what_is_not_there(name):
    """UNSUBSCRIBE and its like for a request that is over, or never was, are dropped."""
    async with draft_peer(name) as peer:
        wire = peer.wire
        by_name = wire.draft < 16
        for request_id in (0, 40, 41, wire.largest):
            number = wire.number(request_id)
            peer.write_control(wire.message(UNSUBSCRIBE, number) + wire.message(FETCH_CANCEL, number))
            named = wire.namespace(b"x") if by_name else number
            peer.write_control(wire.message(PUBLISH_NAMESPACE_DONE, named))
            peer.write_control(wire.message(PUBLISH_NAMESPACE_CANCEL, named + b"\x00\x00"))
            if by_name:
                prefix = wire.namespace(b"x") if wire.draft == 14 else number
                peer.write_control(wire.message(UNSUBSCRIBE_NAMESPACE, prefix))
            peer.write_control(wire.publish_done(request_id))
        await settled()
        await peer.check_alive()


@each_shared_draft
async def test_the_end_of_another_request(name):
    """UNSUBSCRIBE of a fetch, and FETCH_CANCEL of a subscription, close the session."""
    for kind in (UNSUBSCRIBE, FETCH_CANCEL):
        async with draft_peer(name) as peer:
            wire, request_id = peer.wire, peer.next_id()
            parked = wire.join(request_id, 400) if kind == UNSUBSCRIBE else wire.subscribe(request_id)
            await peer.request(parked, request_id)
            await settled()
            peer.write_control(wire.message(kind, wire.number(request_id)))
            await peer.check_closed()


@each_shared_draft
async def test_the_limit_of_request_ids(name):
    """It may only rise, and REQUESTS_BLOCKED says nothing; an id beyond our own closes with TOO_MANY_REQUESTS."""
    wire = DraftWire(name)
    async with draft_peer(name) as peer:
        for limit in ((1 << 20) + 1, 1 << 40, wire.largest):
            peer.write_control(wire.message(MAX_REQUEST_ID, wire.number(limit)))
            peer.write_control(wire.message(REQUESTS_BLOCKED, wire.number(limit)))
        await peer.check_alive()
        peer.write_control(wire.message(MAX_REQUEST_ID, wire.number(5)))
        await peer.check_closed()
    async with draft_peer(name, limits=moqt.Limits(max_streams=32, max_announcements=8)) as peer:
        peer.write_control(b"".join(wire.join(peer.next_id(), 400) for _ in range(200)))
        await peer.check_closed(TOO_MANY_REQUESTS)


@each_shared_draft
async def test_a_peer_that_allows_no_request(name):
    """Ours wait for it, and can be cancelled; none is written before it is allowed."""
    wire = DraftWire(name)
    options = b"\x00"
    async with draft_peer(name, options=options) as peer:
        with trio.move_on_after(0.1) as scope:
            async with peer.session.subscribe("b", "t"):
                raise AssertionError("a request that is not allowed")
        assert scope.cancelled_caught
        peer.write_control(wire.message(MAX_REQUEST_ID, wire.number(100)))
        await peer.subscription()
        await peer.check_alive()


@each_shared_draft
async def test_a_control_stream_finished_at_every_byte(name):
    """It closes the session, inside a message and between two."""
    data = DraftWire(name).subscribe(0)
    for cut in range(len(data) + 1):
        async with draft_peer(name) as peer:
            peer.write_control(data[:cut], fin=True)
            await peer.check_closed()


@each_shared_draft
async def test_messages_in_single_bytes(name):
    """They are those that they are in one piece."""
    async with draft_peer(name) as peer:
        wire, request_id = peer.wire, peer.next_id()
        exchange = await peer.request(b"", request_id)
        for byte in wire.subscribe(request_id) + wire.update(peer.next_id(), request_id):
            peer.write_control(bytes([byte]))
            await settled()
        await exchange.accepted()
        await peer.check_alive()


@each_shared_draft
@pytest.mark.parametrize("kind", [0x00, 0x01, 0x11, 0x30, 0x3F, 0x2F00, 2**62 - 1])
async def test_an_unknown_message(name, kind):
    """It closes the session, and so does one that another draft has."""
    wire = DraftWire(name)
    if kind == SUBSCRIBE_NAMESPACE_16 and wire.draft < 16:
        return
    async with draft_peer(name) as peer:
        peer.write_control(wire.message(kind, b""))
        await peer.check_closed()
