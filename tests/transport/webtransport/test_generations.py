"""What depends on the generation of drafts that a peer speaks: SETTINGS, and whether sessions share a connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import attrs
import pylsqpack
import pytest
import trio
import trio.testing
from aioquic.buffer import Buffer, encode_uint_var
from aioquic.h3.connection import encode_frame

from moqt_trio.errors import HandshakeFailed, StreamReset, VersionUnsupported
from moqt_trio.limits import Limits
from moqt_trio.transport.code_mapping import PLAIN_CODES
from moqt_trio.transport.memory import open_memory_pair
from moqt_trio.transport.webtransport.client import open_webtransport
from moqt_trio.transport.webtransport.server import serve_http3
from tests.peers.http3_frames import headers_frame
from tests.transport.awaiting import accept_bidi, accept_uni, send_all
from tests.transport.webtransport.serving import connected, read_all, serving
from tests.transport.webtransport.test_client import NEWEST, status
from tests.transport.webtransport.test_client import served as served_by_hand

REQUEST_REJECTED = 0x10B
OLDER = {0x33: 1, 0x2B603742: 1}

# What pywebtransport 0.21.1 sends first: its control stream, and the CONNECT of `/echo` with an offer of moq-lite-04.
PYWEBTRANSPORT_CONTROL = bytes.fromhex("00041e010006800100000700080133016b61804000006b640a6b650aac7cf00001")
PYWEBTRANSPORT_CONNECT = bytes.fromhex(
    "01405d0000cfd7508b089d5c0b8170dc6da71b6f518460a49cff2f00b95d8749c87a3f8bf058d360ea4567b12b4ecf5f5090d7eb9163df60ea45"
    "67b12c01710570ff2f09f09587dc66a071d055abb0e9390f423f8bfe693f65a8324ab01afe7f"
)


def connect(*fields):
    """The HEADERS of a CONNECT for a session of the newest drafts."""
    return headers_frame(
        (b":method", b"CONNECT"),
        (b":scheme", b"https"),
        (b":authority", b"example.com"),
        (b":path", b"/"),
        (b":protocol", b"webtransport-h3"),
        *fields,
    )


def control(settings):
    """A control stream that begins with SETTINGS."""
    body = b"".join(encode_uint_var(key) + encode_uint_var(value) for key, value in settings.items())
    return b"\x00" + encode_frame(0x4, body)


def status_in(data):
    """The status in the HEADERS of an answer."""
    buffer = Buffer(data=data)
    assert buffer.pull_uint_var() == 0x1
    _, fields = pylsqpack.Decoder(0, 0).feed_header(0, buffer.pull_bytes(buffer.pull_uint_var()))
    return int(dict(fields)[b":status"]), dict(fields)


@asynccontextmanager
async def client_by_hand(on_session, limits=None):
    """Yield the client's bare connection to a server of ours."""
    limits = limits or Limits()
    async with open_memory_pair(limits=limits) as (client, server), trio.open_nursery() as nursery:
        client.code_mapping = PLAIN_CODES
        nursery.start_soon(partial(serve_http3, server, on_session, limits=limits))
        yield client
        nursery.cancel_scope.cancel()


async def stays(request):
    """Accepts, and stays."""
    await request.accept(request.protocols[0] if request.protocols else None).wait_closed()


async def ask(client, data=None):
    """Open a stream with a CONNECT."""
    stream = await client.open_bidi()
    await send_all(stream, data or connect())
    return stream


async def reset_code(stream):
    """Read a stream until it is reset, and return the code."""
    with pytest.raises(StreamReset) as caught:
        await read_all(stream)
    return caught.value.code


async def test_the_first_bytes_of_pywebtransport():
    """The recorded SETTINGS and CONNECT of the newest draft open a session, with its subprotocol and its path."""
    seen = []

    async def handler(request):
        seen.append((request.path, request.protocols, request.authority))
        await stays(request)

    async with client_by_hand(handler) as client:
        await send_all((await client.open_uni()), PYWEBTRANSPORT_CONTROL)
        stream = await ask(client, PYWEBTRANSPORT_CONNECT)
        number, fields = status_in(await stream.receive_some())
    assert (number, fields[b"wt-protocol"]) == (200, b'"moq-lite-04"')
    assert seen == [("/echo", ("moq-lite-04",), "127.0.0.1:54655")]


async def test_one_session_for_the_newest_drafts():
    """A client that knows only drafts without sharing has a second session rejected, and another one once the first is
    over."""
    async with client_by_hand(stays) as client:
        await send_all((await client.open_uni()), control({0x33: 1, 0x2C7CF000: 1}))
        first = await ask(client)
        assert status_in(await first.receive_some())[0] == 200
        assert await reset_code(await ask(client)) == REQUEST_REJECTED
        first.finish()
        assert await read_all(first) == b""
        again = await ask(client)
        assert status_in(await again.receive_some())[0] == 200


@pytest.mark.parametrize("settings", [OLDER, {**OLDER, 0x2C7CF000: 1}, {0x33: 1}], ids=["older", "both", "none"])
async def test_sessions_share_in_the_older_drafts(settings):
    """A client of an older draft, or one that names none, has several sessions on a connection."""
    async with client_by_hand(stays) as client:
        await send_all((await client.open_uni()), control(settings))
        for _ in range(3):
            stream = await ask(client)
            assert status_in(await stream.receive_some())[0] == 200


async def test_a_request_waits_for_settings():
    """A CONNECT that overtakes the client's SETTINGS is looked at once these are here, its early streams as well."""
    asked = []

    async def handler(request):
        asked.append(request)
        session = request.accept()
        asked.append(await read_all(await accept_uni(session)))
        await session.wait_closed()

    async with client_by_hand(handler) as client:
        stream = await ask(client)
        early = await client.open_uni()
        await send_all(early, b"\x40\x54\x00early")
        early.finish()
        await trio.testing.wait_all_tasks_blocked()
        assert asked == []
        await send_all((await client.open_uni()), control(OLDER))
        assert status_in(await stream.receive_some())[0] == 200
        await trio.testing.wait_all_tasks_blocked()
        assert asked[1] == b"early"


async def test_settings_that_never_come(autojump_clock):
    """Without SETTINGS a CONNECT is rejected after Limits.setup_timeout, and no handler is called."""

    async def handler(request):
        pytest.fail("the handler was called")

    async with client_by_hand(handler) as client:
        stream = await ask(client)
        began = trio.current_time()
        assert await reset_code(stream) == REQUEST_REJECTED
        assert trio.current_time() - began == pytest.approx(Limits().setup_timeout)


async def test_a_connection_that_ends_before_its_settings(autojump_clock):
    """A client that leaves before its SETTINGS is not waited for."""

    async def handler(request):
        pytest.fail("the handler was called")

    async with open_memory_pair(limits=Limits()) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_http3, server, handler, limits=Limits()))
        await ask(client)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        client.close()
    assert trio.current_time() - began < 0.1


# -- the client ------------------------------------------------------------------------------------------------------


async def test_sessions_of_one_client():
    """A client opens several sessions on a connection, together and one after another, with HTTP/3 set up once."""
    paths = []

    async def handler(request):
        paths.append(request.path)
        session = request.accept()
        stream = await accept_bidi(session)
        await send_all(stream, request.path.encode() + await read_all(stream))
        stream.finish()
        await session.wait_closed()

    async def check(session):
        stream = await session.open_bidi()
        await send_all(stream, b"!")
        stream.finish()
        assert await read_all(stream) == session.path.encode() + b"!"

    async with serving(handler) as served, connected(served.port) as connection:
        ask = partial(open_webtransport, connection, "localhost", protocols=(), limits=Limits())
        async with ask(path="/a") as first, ask(path="/b") as second:
            await check(second)
            await check(first)
        async with ask(path="/c") as third:
            await check(third)
        (theirs,) = served.connections
        assert connection.closed is None
        # The three streams of this side for HTTP/3, and nothing of the sessions.
        assert len(theirs.handler.http3.local_streams) == 3
        assert set(theirs.handler.http3._quic.streams) == {3, 7, 11}
    assert paths == ["/a", "/b", "/c"]


async def test_a_server_that_allows_one_session():
    """A server of the newest drafts alone is not asked for a second session at the same time."""

    async def script(server):
        await server.send_settings(NEWEST)
        for _ in range(2):
            stream, _ = await server.request()
            await send_all(stream, status(200))

    async with served_by_hand(script) as client:
        ask = partial(open_webtransport, client, "example.com", "/", (), limits=Limits())
        async with ask():
            with pytest.raises(HandshakeFailed, match="one session"):
                async with ask():
                    pytest.fail("opened")
        async with ask() as session:
            assert session.established


async def test_a_choice_that_was_not_offered():
    """The CONNECT stream of a server that chooses what was not offered is reset with WT_ALPN_ERROR."""
    codes = []

    async def script(server):
        server.connection.code_mapping = PLAIN_CODES
        await server.send_settings(NEWEST)
        stream, _ = await server.request()
        await send_all(stream, headers_frame((b":status", b"200"), (b"wt-protocol", b'"other"')))
        codes.append(await reset_code(stream))

    limits = attrs.evolve(Limits(), close_timeout=0.1)
    async with served_by_hand(script) as client:
        with pytest.raises(VersionUnsupported):
            async with open_webtransport(client, "example.com", "/", ("a",), limits=limits):
                pytest.fail("opened")
        await trio.testing.wait_all_tasks_blocked()
    assert codes == [0x0817B3DD]
