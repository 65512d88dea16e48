"""Our client against a server whose every byte is written by the test, over the memory transport."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress

import pylsqpack
import pytest
import trio
import trio.testing
from aioquic.buffer import Buffer, encode_uint_var
from aioquic.h3.connection import encode_frame

from moqt_trio.errors import HandshakeFailed, Rejected, SessionClosed, StreamReset
from moqt_trio.limits import Limits
from moqt_trio.transport.http3.constants import H3Error
from moqt_trio.transport.memory import open_memory_pair
from moqt_trio.transport.webtransport.client import open_webtransport
from tests.peers.http3_frames import headers_frame
from tests.transport.awaiting import accept_bidi, accept_uni, send_all

DRAFT_02 = {0x8: 1, 0x33: 1, 0x2B603742: 1}
NEWEST = {0x8: 1, 0x33: 1, 0x2C7CF000: 1}


def status(number):
    return headers_frame((b":status", b"%d" % number))


class Server:
    """A server's side of a connection, by hand."""

    def __init__(self, connection):
        self.connection = connection

    async def send_settings(self, settings):
        body = b"".join(encode_uint_var(key) + encode_uint_var(value) for key, value in settings.items())
        self.control = await self.connection.open_uni()
        await send_all(self.control, b"\x00" + encode_frame(0x4, body))

    async def request(self):
        """Wait for the request, and return its stream and fields."""
        stream = await accept_bidi(self.connection)
        data = await stream.receive_some()
        buffer = Buffer(data=data)
        assert buffer.pull_uint_var() == 0x1
        block = buffer.pull_bytes(buffer.pull_uint_var())
        _, fields = pylsqpack.Decoder(0, 0).feed_header(0, block)
        return stream, dict(fields)


@asynccontextmanager
async def served(script, limits=None):
    """Run a script as the server, and yield the client's connection."""
    async with open_memory_pair(limits=limits or Limits()) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(script, Server(server))
        yield client
        nursery.cancel_scope.cancel()


def asking(client, protocols=(), limits=None):
    return open_webtransport(client, "example.com:4443", "/live", protocols, limits=limits or Limits())


async def test_the_request():
    """The CONNECT carries what drafts and servers of every generation need."""
    seen = []

    async def script(server):
        await server.send_settings(DRAFT_02)
        stream, fields = await server.request()
        seen.append(fields)
        await send_all(stream, status(200))

    async with served(script) as client, asking(client, ("a", "b")):
        pass
    assert seen == [
        {
            b":method": b"CONNECT",
            b":scheme": b"https",
            b":authority": b"example.com:4443",
            b":path": b"/live",
            b":protocol": b"webtransport",
            b"sec-webtransport-http3-draft02": b"1",
            b"wt-available-protocols": b'"a", "b"',
        }
    ]


async def test_the_newest_name():
    """A server of the newest drafts alone is asked by their name of the protocol."""

    async def script(server):
        await server.send_settings(NEWEST)
        stream, fields = await server.request()
        assert fields[b":protocol"] == b"webtransport-h3"
        await send_all(stream, status(200))

    async with served(script) as client, asking(client) as session:
        assert session.max_datagram_size > 0


async def test_no_webtransport():
    """A server of HTTP/3 alone is a failed handshake."""

    async def script(server):
        await server.send_settings({})

    async with served(script) as client:
        with pytest.raises(HandshakeFailed, match="no WebTransport"):
            async with asking(client):
                pytest.fail("accepted")


async def test_no_datagrams():
    """Without H3_DATAGRAM a session has no datagrams."""

    async def script(server):
        await server.send_settings({0x2C7CF000: 1})
        stream, _ = await server.request()
        await send_all(stream, status(200))

    async with served(script) as client, asking(client) as session:
        assert session.max_datagram_size == 0
        with pytest.raises(ValueError, match="at most 0"):
            session.send_datagram(b"x")


async def test_interim_answers():
    """Answers of 1xx are passed over."""

    async def script(server):
        await server.send_settings(DRAFT_02)
        stream, _ = await server.request()
        await send_all(stream, status(103) + status(200))

    async with served(script) as client, asking(client) as session:
        assert session.closed is None


async def test_an_answer_that_is_the_end():
    """A 200 that ends the stream opens a session that is over."""

    async def script(server):
        await server.send_settings(DRAFT_02)
        stream, _ = await server.request()
        stream.write(status(200), True)

    async with served(script) as client, asking(client) as session:
        error = await session.wait_closed()
        assert isinstance(error, SessionClosed)
        assert (error.remote_code, error.by_peer) == (0, True)


@pytest.mark.parametrize("end", ["with its headers", "after them"])
async def test_a_refusal_without_words(end):
    """A refusal is one, with or without a body."""

    async def script(server):
        await server.send_settings(DRAFT_02)
        stream, _ = await server.request()
        if end == "after them":
            await send_all(stream, status(404))
            await trio.testing.wait_all_tasks_blocked()
            stream.finish()
        else:
            stream.write(status(404), True)

    async with served(script) as client:
        with pytest.raises(Rejected) as caught:
            async with asking(client):
                pytest.fail("accepted")
    assert (caught.value.status, caught.value.reason) == (404, "")


async def test_a_refusal_that_does_not_end(autojump_clock):
    """The words of a refusal are waited for no longer than Limits.close_timeout, and kept to 256 bytes."""

    async def slow(server):
        await server.send_settings(DRAFT_02)
        stream, _ = await server.request()
        await send_all(stream, status(500) + encode_frame(0x0, b"why"))

    async with served(slow) as client:
        with pytest.raises(Rejected) as caught:
            async with asking(client):
                pytest.fail("accepted")
    assert caught.value.reason == "why"
    assert trio.current_time() == pytest.approx(Limits().close_timeout, abs=0.1)

    async def talkative(server):
        await server.send_settings(DRAFT_02)
        stream, _ = await server.request()
        await send_all(stream, status(500) + encode_frame(0x0, b"a" * 10_000))

    started = trio.current_time()
    async with served(talkative) as client:
        with pytest.raises(Rejected) as caught:
            async with asking(client):
                pytest.fail("accepted")
    assert caught.value.reason == "a" * 256
    assert trio.current_time() - started < 0.1


async def test_an_answer_that_is_too_large():
    """An answer whose headers pass the limit is a failed handshake."""

    async def script(server):
        await server.send_settings(DRAFT_02)
        stream, _ = await server.request()
        await send_all(stream, headers_frame((b":status", b"200"), (b"x", b"y" * 2000)))

    limits = Limits(max_header_bytes=1000)
    async with served(script) as client:
        with pytest.raises(HandshakeFailed, match="too large"):
            async with asking(client, limits=limits):
                pytest.fail("accepted")


@pytest.mark.parametrize(("kind", "code"), [("bidi", 0x103), ("push", 0x108)])
async def test_what_a_server_must_not_open(kind, code):
    """A server that opens a request stream or pushes ends the connection with HTTP/3's code."""

    async def script(server):
        await server.send_settings(DRAFT_02)
        await server.request()
        if kind == "bidi":
            await send_all((await server.connection.open_bidi()), status(200))
        else:
            await send_all((await server.connection.open_uni()), b"\x01\x00")

    async with served(script) as client:
        with pytest.raises(HandshakeFailed):
            async with asking(client):
                pytest.fail("accepted")
        assert client.closed.local_code == code


async def test_cancelled_with_the_answer():
    """A client that is cancelled when its answer is there closes the session that it will not use."""
    over = []

    async def script(server):
        await server.send_settings(DRAFT_02)
        stream, _ = await server.request()
        await send_all(stream, status(200))
        data = b""
        while piece := await stream.receive_some():
            data += piece
        over.append(data)
        scope.cancel()

    async with served(script) as client:
        with trio.CancelScope() as scope:
            async with asking(client) as session:
                session.close(1)
                await trio.sleep_forever()
    assert over == [encode_frame(0x0, bytes.fromhex("6843 04 00000001"))]


async def test_cancelled_with_a_refusal():
    """A client that is cancelled while it waits for the words of a refusal takes its request back all the same."""
    codes = []

    async def script(server):
        await server.send_settings(DRAFT_02)
        stream, _ = await server.request()
        await send_all(stream, status(404))
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        with pytest.raises(StreamReset) as caught:
            await stream.receive_some()
        codes.append(caught.value.code)
        done.set()

    done = trio.Event()
    async with served(script) as client:
        with trio.CancelScope() as scope:
            async with asking(client):
                pytest.fail("accepted")
        with trio.fail_after(1):
            await done.wait()
    assert codes == [H3Error.REQUEST_CANCELLED]


async def test_cancelled_with_early_streams():
    """What came early for a session that the client gave up is refused: there is room for that of the next one."""
    codes = []

    async def script(server):
        await server.send_settings(DRAFT_02)
        request, _ = await server.request()
        early = await server.connection.open_uni()
        await send_all(early, b"\x40\x54\x00first")
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        with pytest.raises(StreamReset):
            await request.receive_some()
        with pytest.raises(StreamReset) as caught:
            await send_all(early, b"more")
        codes.append(caught.value.code)
        request, _ = await server.request()
        early = await server.connection.open_uni()
        await send_all(early, b"\x40\x54" + bytes([request.stream_id]) + b"second")
        early.finish()
        await trio.testing.wait_all_tasks_blocked()
        await send_all(request, status(200))

    limits = Limits(max_early_streams=1)
    async with served(script, limits) as client:
        with trio.CancelScope() as scope:
            async with asking(client, limits=limits):
                pytest.fail("accepted")
        with trio.fail_after(1):
            async with asking(client, limits=limits) as session:
                assert await (await accept_uni(session)).receive_some() == b"second"
    assert codes == [H3Error.WEBTRANSPORT_BUFFERED_STREAM_REJECTED]


async def test_a_session_that_is_closed_in_its_block():
    """Leaving the block waits until the server has the code, also after a close that did not wait."""

    async def script(server):
        await server.send_settings(DRAFT_02)
        stream, _ = await server.request()
        await send_all(stream, status(200))

    async with served(script) as client:
        with suppress(ValueError):
            async with asking(client) as session:
                session.close(0x15, "no shared version")
                assert not session.end_acknowledged
                raise ValueError("the negotiation failed")
        assert session.end_acknowledged
