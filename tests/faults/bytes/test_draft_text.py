"""Texts of a hostile peer on the drafts: no UTF-8, control characters, too long, and what the log shows of them.

Names are bytes in the drafts; a name that no broadcast path or track of this library can have is one that is not there.
"""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest
import trio

import moqt_trio as moqt
from tests.faults.draft_peer import DraftPeer, draft_peer
from tests.faults.drafts import (
    DOES_NOT_EXIST,
    FETCH,
    NAMES,
    SUBSCRIBE,
    SUBSCRIBE_NAMESPACE,
    SUBSCRIBE_NAMESPACE_16,
    DraftWire,
    each_draft,
)
from tests.faults.raw_peer import settled

OPAQUE = {
    "NUL": b"a\0b",
    "line breaks": b"a\r\nb",
    "escape": b"\x1b[31mred",
    "bell and delete": b"\x07\x7f",
    "dots": b"..",
    "a dot in front": b".hidden",
    "right to left": "\u202egnp.exe".encode(),
    "emoji": "\U0001f600".encode(),
}
"""Names that are names as any other."""
UNNAMEABLE = {"no UTF-8": b"\xff\xfe", "half a character": b"\xe2\x82", "surrogate": b"\xed\xa0\x80", "a slash": b"a/b"}
"""Fields of a namespace that no path has."""
UGLY = b"\x1b[31m\r\n\x00"
TOLD = [name for name in NAMES if DraftWire(name).draft >= 16]
each_opaque = pytest.mark.parametrize("text", OPAQUE.values(), ids=OPAQUE.keys())
each_unnameable = pytest.mark.parametrize("text", UNNAMEABLE.values(), ids=UNNAMEABLE.keys())


def check_log(caplog: pytest.LogCaptureFixture, *, most: int) -> None:
    """The library logged no more than so many records, each on one line of plain ASCII."""
    records = [record for record in caplog.records if record.name.startswith("moqt_trio.")]
    assert len(records) <= most
    for record in records:
        line = logging.Formatter("%(message)s").format(record)
        assert line.isascii()
        assert line.isprintable()


async def refused(peer: DraftPeer, path: tuple[bytes, ...], track: bytes) -> None:
    """A subscription and a fetch of such a name are refused with DOES_NOT_EXIST; the session goes on."""
    for make in (peer.wire.subscribe, peer.wire.fetch):
        request_id = peer.next_id()
        exchange = await peer.request(make(request_id, path, track), request_id)
        assert await exchange.refusal() in (DOES_NOT_EXIST, 0x4)
    await peer.check_alive()


# -- names that the peer asks for --------------------------------------------------------------------------------


@each_draft
@each_opaque
async def test_a_name_of_any_characters_is_asked_for(name, text, caplog):
    """It is refused as any other that is not there, and one that is published is served."""
    caplog.set_level(logging.DEBUG, "moqt_trio")
    async with draft_peer(name) as peer:
        await refused(peer, (text, text), text)
        broadcast = moqt.Broadcast()
        broadcast.track(text.decode())
        async with peer.session.publish(f"{text.decode()}/x", broadcast):
            request_id = peer.next_id()
            exchange = await peer.request(peer.wire.subscribe(request_id, (text, b"x"), text), request_id)
            await exchange.accepted()
    check_log(caplog, most=4)


@each_draft
@each_unnameable
async def test_a_name_that_no_path_has(name, text, caplog):
    """It is one that is not there, also as a track's name where that may hold it."""
    caplog.set_level(logging.DEBUG, "moqt_trio")
    async with draft_peer(name) as peer:
        await refused(peer, (b"b", text), b"t")
        await refused(peer, (b"b",), text)
    check_log(caplog, most=6)


@each_draft
async def test_an_empty_field(name):
    """From 16 on it is PROTOCOL_VIOLATION; before, no path has it."""
    async with draft_peer(name) as peer:
        request_id = peer.next_id()
        exchange = await peer.request(peer.wire.subscribe(request_id, (b"b", b""), b"t"), request_id)
        if peer.wire.draft >= 16:
            await peer.check_closed()
        else:
            assert await exchange.refusal() in (DOES_NOT_EXIST, 0x4)
            await peer.check_alive()


@each_draft
async def test_the_longest_names(name):
    """4,096 bytes of namespace and name, and 32 fields, are the drafts' bound; this library's paths are shorter."""
    async with draft_peer(name) as peer:
        for path, track in (
            ((b"p" * 2000,), b"t" * 2096),
            ((b"p" * 1025,), b"t"),
            ((b"p",) * 32, b"t"),
            ((b"p" * 100,) * 32, b"t"),
            ((b"p",), b"t" * 4095),
        ):
            request_id = peer.next_id()
            exchange = await peer.request(peer.wire.subscribe(request_id, path, track), request_id)
            with trio.fail_after(10):
                with suppress(moqt.StreamReset):
                    await exchange.refusal()
            assert peer.session.closed is None
        await peer.check_alive()
    for path, track in (
        ((b"p" * 2000,), b"t" * 2097),
        ((b"p",) * 33, b"t"),
        ((b"p" * 4097,), b""),
        ((b"p",), b"t" * 4096),
    ):
        async with draft_peer(name) as peer:
            await peer.request(peer.wire.subscribe(0, path, track), 0)
            await peer.check_closed()


@each_draft
@each_opaque
async def test_a_prefix_of_any_characters(name, text, caplog):
    """A list below it is served; one that no path has ends its stream alone."""
    caplog.set_level(logging.DEBUG, "moqt_trio")
    async with draft_peer(name) as peer:
        request_id = peer.next_id()
        exchange = await peer.request(peer.wire.subscribe_namespace(request_id, text), request_id)
        await exchange.accepted()
        await peer.check_alive()
    check_log(caplog, most=2)


@each_draft
@each_unnameable
async def test_a_prefix_that_no_path_has(name, text, caplog):
    """The list is refused, or its stream is reset; the session goes on."""
    caplog.set_level(logging.DEBUG, "moqt_trio")
    async with draft_peer(name) as peer:
        request_id = peer.next_id()
        exchange = await peer.request(peer.wire.subscribe_namespace(request_id, text), request_id)
        with trio.fail_after(10):
            with suppress(moqt.StreamReset):
                await exchange.refusal()
        await peer.check_alive()
    check_log(caplog, most=3)


# -- names that the peer tells of ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOLD)
async def test_namespaces_that_are_told(name, caplog):
    """The application gets the names as they are; those that no path has are left out; what it prints is one line."""
    caplog.set_level(logging.DEBUG, "moqt_trio")
    async with draft_peer(name) as peer, peer.session.announcements("a") as announcements:
        wire = peer.wire
        exchange, _ = await peer.asked(SUBSCRIBE_NAMESPACE if wire.draft >= 18 else SUBSCRIBE_NAMESPACE_16)
        told = [*UNNAMEABLE.values(), *OPAQUE.values()]
        exchange.write(wire.namespaces_ok(exchange.request_id) + b"".join(map(wire.found, told)) + wire.found(b"last"))
        received = []
        with trio.fail_after(10):
            while "a/last" not in received:
                item = await anext(announcements)
                received.append(str(item.path))
                assert repr(item).isprintable()
        assert received == [*(f"a/{text.decode()}" for text in OPAQUE.values()), "a/last"]
        await peer.check_alive()
    check_log(caplog, most=3)


@pytest.mark.parametrize("name", TOLD)
async def test_a_namespace_that_is_too_long_ends_its_list(name):
    """More than `max_path` bytes or `max_path_parts` parts break the list, and the session goes on."""
    for suffix in ((b"p" * 1025,), (b"p",) * 32):
        async with draft_peer(name) as peer, peer.session.announcements("a") as announcements:
            wire = peer.wire
            exchange, _ = await peer.asked(SUBSCRIBE_NAMESPACE if wire.draft >= 18 else SUBSCRIBE_NAMESPACE_16)
            exchange.write(wire.namespaces_ok(exchange.request_id) + wire.found(*suffix))
            with trio.fail_after(10), pytest.raises(moqt.MoqtError):
                await anext(announcements)
            await peer.check_alive()


# -- reasons and URIs ------------------------------------------------------------------------------------------------


@each_draft
@pytest.mark.parametrize("reason", [UGLY, b"\xff\xfe" * 100, b"r" * 1024], ids=["control", "no UTF-8", "long"])
async def test_a_reason_of_any_bytes(name, reason, caplog):
    """It is for people: bytes that are no text do no harm, and the log and the errors are one line."""
    caplog.set_level(logging.DEBUG, "moqt_trio")
    async with draft_peer(name) as peer:
        wire = peer.wire
        subscription, exchange = await peer.subscription()
        exchange.write(wire.refused(exchange.request_id, SUBSCRIBE, 0x1, reason), fin=True)
        with trio.fail_after(10), pytest.raises(moqt.MoqtError) as caught:
            await anext(subscription)
        assert str(caught.value).isprintable()
        async with peer.session.subscribe("b", "t") as subscription:
            exchange, _ = await peer.asked(SUBSCRIBE)
            exchange.write(wire.subscribe_ok(exchange.request_id, 7))
            exchange.write(wire.publish_done(exchange.request_id, 0, 0, reason), fin=True)
            with trio.fail_after(10), pytest.raises(moqt.MoqtError) as caught:
                await anext(subscription)
            assert str(caught.value).isprintable()
        async with peer.session.fetch("b", "t", 0) as fetch:
            exchange, _ = await peer.asked(FETCH)
            exchange.write(wire.refused(exchange.request_id, FETCH, 0x1, reason), fin=True)
            with trio.fail_after(10), pytest.raises(moqt.MoqtError) as caught:
                await fetch.receive()
            assert str(caught.value).isprintable()
        await peer.check_alive()
    check_log(caplog, most=6)


@each_draft
async def test_a_reason_that_is_too_long(name):
    """Of 1,024 bytes at the most: one more is PROTOCOL_VIOLATION."""
    async with draft_peer(name) as peer:
        _, exchange = await peer.subscription()
        exchange.write(peer.wire.refused(exchange.request_id, SUBSCRIBE, 0x1, b"r" * 1025), fin=True)
        await peer.check_closed()


@each_draft
@pytest.mark.parametrize("uri", [UGLY, b"\xff\xfe", b"moqt://\x1b[31m/"], ids=["control", "no UTF-8", "escape"])
async def test_a_uri_of_any_bytes(name, uri, caplog):
    """A GOAWAY's URI is read or closes the session; no error or line of the log has more than one line."""
    caplog.set_level(logging.DEBUG, "moqt_trio")
    async with draft_peer(name, client=True) as peer:
        peer.write_control(peer.wire.goaway(uri))
        await settled()
        if peer.connection.closed is not None:
            await peer.check_closed()
        else:
            with pytest.raises(moqt.GoingAway) as caught:
                async with peer.session.subscribe("b", "t"):
                    raise AssertionError("a request after GOAWAY")
            assert str(caught.value).isprintable()
    check_log(caplog, most=2)


@each_draft
@pytest.mark.parametrize("value", [UGLY, b"\xff\xfe", b"", b"x" * 60_000], ids=["control", "no UTF-8", "none", "long"])
async def test_options_of_any_bytes(name, value, caplog):
    """MOQT_IMPLEMENTATION and unknown options do no harm."""
    wire = DraftWire(name)
    caplog.set_level(logging.DEBUG, "moqt_trio")
    if wire.shared:
        options = b"\x03\x02" + wire.number(1000) + (b"\x07" if wire.draft < 16 else b"\x05") + wire.data(value)
        options += (b"\x41\x01" if wire.draft < 16 else b"\x40\xfa") + wire.data(value[:100])
    else:
        options = b"\x07" + wire.data(value) + wire.number(250) + wire.data(value[:100])
    async with draft_peer(name, options=options) as peer:
        await peer.check_alive()
    check_log(caplog, most=2)
