"""Our client against our server over real QUIC: what a session promises as a `Connection`."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from moqt_trio.errors import HandshakeFailed, Rejected, SessionClosed, StreamReset, VersionUnsupported
from moqt_trio.limits import Limits
from moqt_trio.transport.connection import ConnectionHandler
from moqt_trio.transport.interface import StreamHandler
from moqt_trio.transport.quic.settings import ServerSettings
from moqt_trio.transport.stream import BidiStream
from moqt_trio.transport.webtransport.client import open_webtransport
from moqt_trio.transport.webtransport.subprotocols import PROTOCOL
from tests.transport.awaiting import accept_bidi, accept_uni, receive_datagram, send_all
from tests.transport.quic_pair import serve_quic
from tests.transport.webtransport.serving import (
    IDENTITY,
    Accepting,
    connected,
    read_all,
    send_forever,
    serving,
    session_to,
)


async def test_both_sides_know_the_session():
    """Both sides see the same path, authority, subprotocol, id and origin."""
    accepting = Accepting()
    async with (
        serving(accepting) as served,
        session_to(served.port, "/live?token=1", ("moq-lite-06", "moq-lite-05"), origin="https://a.example") as client,
    ):
        server = await accepting.session()
        for session in (client, server):
            assert session.kind == "webtransport"
            assert session.protocol == "moq-lite-06"
            assert session.path == "/live?token=1"
            assert session.authority == f"localhost:{served.port}"
            assert session.origin == "https://a.example"
            assert session.session_id == 0
            assert session.statistics().bytes_received > 0
        assert client.is_client
        assert not server.is_client
        assert server.peer[0] == "127.0.0.1"
        # A query may be a credential.
        assert "/live?..." in repr(server)
        assert "open" in repr(client)


async def test_streams_both_ways():
    """Both sides open both kinds of streams, and the peer accepts them."""
    accepting = Accepting()
    async with serving(accepting) as served, session_to(served.port) as client:
        server = await accepting.session()
        for ours, theirs in ((client, server), (server, client)):
            stream = await ours.open_bidi()
            await send_all(stream, b"question")
            stream.finish()
            other = await accept_bidi(theirs)
            assert await read_all(other) == b"question"
            await send_all(other, b"answer")
            other.finish()
            assert await read_all(stream) == b"answer"
            uni = await ours.open_uni()
            await send_all(uni, b"one way")
            uni.finish()
            assert await read_all(await accept_uni(theirs)) == b"one way"


async def test_codes_both_ways():
    """Resets and stops arrive with the code that was given, also one too large for WebTransport, cut."""
    accepting = Accepting()
    async with serving(accepting) as served, session_to(served.port) as client:
        server = await accepting.session()
        for code, seen in ((0, 0), (29, 29), (30, 30), (0xFFFFFFFF, 0xFFFFFFFF), (2**40, 0xFFFFFFFF)):
            stream = await client.open_bidi()
            await send_all(stream, b"x")
            other = await accept_bidi(server)
            other.stop(code)
            stream.stop(code)
            with pytest.raises(StreamReset) as caught:
                await send_forever(stream)
            assert caught.value.code == seen
            with pytest.raises(StreamReset) as caught:
                await send_forever(other)
            assert caught.value.code == seen


async def test_streams_that_are_reset_at_once():
    """A stream that is reset before its first packet left reaches the peer's session, and brings its code."""
    accepting = Accepting()
    with trio.fail_after(10):
        async with serving(accepting) as served, session_to(served.port) as client:
            server = await accepting.session()
            for ours, theirs in ((client, server), (server, client)):
                for number in range(30):
                    uni, bidi = await ours.open_uni(), await ours.open_bidi()
                    uni.reset(number)
                    bidi.reset(100 + number)
                    for stream, code in ((await accept_uni(theirs), number), (await accept_bidi(theirs), 100 + number)):
                        with pytest.raises(StreamReset) as raised:
                            await read_all(stream)
                        assert raised.value.code == code
                        if isinstance(stream, BidiStream):
                            stream.finish()


async def test_datagrams_both_ways():
    """Datagrams up to the longest pass; a longer one is refused."""
    accepting = Accepting()
    async with serving(accepting) as served, session_to(served.port) as client:
        server = await accepting.session()
        for ours, theirs in ((client, server), (server, client)):
            longest = bytes(ours.max_datagram_size)
            assert 1100 < len(longest) < 65536
            ours.send_datagram(longest)
            assert await receive_datagram(theirs) == longest
            with pytest.raises(ValueError, match="at most"):
                ours.send_datagram(bytes(ours.max_datagram_size + 1))


@pytest.mark.parametrize("closer", ["client", "server"])
async def test_close_carries_code_and_reason(closer):
    """When either side closes, the other gets code and reason, and both ends say which side it was."""
    accepting = Accepting()
    async with serving(accepting) as served, session_to(served.port) as client:
        server = await accepting.session()
        ours, theirs = (client, server) if closer == "client" else (server, client)
        stream = await theirs.open_bidi()
        with trio.fail_after(1):
            await ours.aclose(0x1234, "good bye")
            await ours.aclose(5, "again")
        local, remote = await ours.wait_closed(), await theirs.wait_closed()
        assert isinstance(local, SessionClosed)
        assert isinstance(remote, SessionClosed)
        assert (local.local_code, local.by_peer) == (0x1234, False)
        assert (remote.remote_code, remote.reason, remote.by_peer) == (0x1234, "good bye", True)
        with pytest.raises(SessionClosed):
            await send_all(stream, b"x")
        with pytest.raises(SessionClosed):
            await accept_bidi(theirs)
        with pytest.raises(SessionClosed):
            await ours.open_uni()
        assert "closed" in repr(theirs)


async def test_the_connection_outlives_a_session():
    """A session ends without its connection: the next one opens on it."""
    accepting = Accepting()
    async with serving(accepting) as served, connected(served.port) as connection:
        first = open_webtransport(connection, "x", "/", (), limits=Limits())
        async with first as session:
            await session.aclose(1)
        assert connection.closed is None


async def test_cancelled_aclose_closes_at_once():
    """A cancelled aclose still informs the peer."""
    accepting = Accepting()
    async with serving(accepting) as served, session_to(served.port) as client:
        server = await accepting.session()
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.aclose(3, "now")
        assert scope.cancelled_caught
        error = await server.wait_closed()
        assert error.remote_code == 3


async def test_what_the_end_of_the_connection_means():
    """When the connection is lost the handler of every session and stream of it is called."""
    accepting = Accepting()
    async with (
        serving(accepting) as served,
        connected(served.port) as connection,
        open_webtransport(connection, "x", "/", (), limits=Limits()) as client,
    ):
        server = await accepting.session()
        stream = await client.open_bidi()
        connection.close(0x100)
        error = await server.wait_closed()
        assert (error.remote_code, error.by_peer) == (0, True)
        with pytest.raises(SessionClosed):
            await stream.receive_some()
        with pytest.raises(SessionClosed):
            await receive_datagram(client)


async def test_refusal_carries_status_and_words():
    """A refused client learns the status and the server's words."""

    async def refuse(request):
        request.reject(403, b"members only\x1b[31m")

    async with serving(refuse) as served:
        with pytest.raises(Rejected) as caught:
            async with session_to(served.port):
                pytest.fail("accepted")
    assert caught.value.status == 403
    assert caught.value.reason == "members only\\x1b[31m"


async def test_a_choice_that_was_not_offered():
    """A server that chooses what was not offered shares no version."""

    async def odd(request):
        request._exchange.send_headers([(b":status", b"200"), (PROTOCOL, b'"other"')])
        await request._session.wait_closed()

    async with serving(odd) as served:
        with pytest.raises(VersionUnsupported) as caught:
            async with session_to(served.port, protocols=("a", "b")):
                pytest.fail("accepted")
    assert caught.value.offered == ("a", "b")


async def test_no_choice_is_none():
    """A server that chooses nothing leaves the protocol None."""

    async def plain(request):
        await request.accept().wait_closed()

    async with serving(plain) as served, session_to(served.port, protocols=("a",)) as session:
        assert session.protocol is None


async def test_a_server_that_resets_the_request():
    """A CONNECT stream that is reset instead of answered is a failed handshake."""

    async def reset(request):
        request._exchange.abort(0x10B)

    async with serving(reset) as served:
        with pytest.raises(HandshakeFailed):
            async with session_to(served.port):
                pytest.fail("accepted")


async def test_a_server_that_closes_the_connection():
    """A connection that is lost while the client waits is a failed handshake, at every stage."""

    async def silent(request):
        await trio.sleep_forever()

    async with serving(silent) as served, trio.open_nursery() as nursery:

        async def hang_up():
            while not served.connections:
                await trio.testing.wait_all_tasks_blocked()
            served.connections[0].close(0x102)

        nursery.start_soon(hang_up)
        with pytest.raises(HandshakeFailed):
            async with session_to(served.port):
                pytest.fail("accepted")


async def test_a_server_without_http3():
    """A server that negotiates h3 but closes without SETTINGS is a failed handshake."""

    async def nothing(connection):
        pass

    settings = ServerSettings(alpns=("h3",), identity=lambda: IDENTITY)
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(serve_quic, nothing, "127.0.0.1", 0, settings)
        with pytest.raises(HandshakeFailed):
            async with session_to(listener.port):
                pytest.fail("accepted")
        nursery.cancel_scope.cancel()


async def test_too_few_streams_for_http3():
    """A peer that allows fewer than three unidirectional streams cannot speak HTTP/3: neither side waits for ever."""
    async with serving(limits=attrs.evolve(Limits(), max_streams=2)) as served:
        with pytest.raises(HandshakeFailed, match="too few streams"):
            async with session_to(served.port):
                pytest.fail("accepted")
    async with serving() as served:
        with pytest.raises(HandshakeFailed):
            async with session_to(served.port, limits=attrs.evolve(Limits(), max_streams=2)):
                pytest.fail("accepted")


async def test_a_cancelled_connect_takes_the_request_back():
    """Cancelling a client that waits for its answer resets the CONNECT stream."""
    requested, cancelled = trio.Event(), trio.Event()

    async def slow(request):
        requested.set()
        await request._session.wait_closed()
        cancelled.set()

    async with serving(slow) as served, connected(served.port) as connection:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def ask():
                    async with open_webtransport(connection, "x", "/", (), limits=Limits()):
                        pytest.fail("accepted")

                nursery.start_soon(ask)
                await requested.wait()
                scope.cancel()
        await cancelled.wait()


async def open_forever(session):
    """Open streams until that fails."""
    while True:
        await session.open_bidi()


class Recorder(ConnectionHandler, StreamHandler):
    """Records what a handler is called with, and returns credit at once."""

    def __init__(self):
        self.calls = []
        self.stream = None

    def bidi_opened(self, stream):
        self.uni_opened(stream)

    def uni_opened(self, stream):
        self.calls.append("stream")
        self.stream = stream
        stream.handler = self

    def data_received(self, data, fin):
        self.calls.append((data, fin))
        self.stream.consumed(len(data))

    def datagram_received(self, data):
        self.calls.append(data)

    def connection_lost(self, error):
        self.calls.append(type(error).__name__)


async def test_a_handler_misses_nothing():
    """A session's handler is called with streams and datagrams that arrived before it, and with the end."""
    accepting = Accepting()
    async with serving(accepting) as served, session_to(served.port) as client:
        server = await accepting.session()
        stream = await client.open_bidi()
        await send_all(stream, b"abc")
        stream.finish()
        while server._early is None or not server._early.bidi:
            await trio.testing.wait_all_tasks_blocked()
        recorder = Recorder()
        server.handler = recorder
        assert recorder.calls[0] == "stream"
        client.send_datagram(b"dg")
        while len(recorder.calls) < 3:
            await trio.testing.wait_all_tasks_blocked()
        client.close()
        await server.wait_closed()
    assert sorted(recorder.calls[1:3], key=str) == [(b"abc", True), b"dg"]
    assert recorder.calls[3:] == ["SessionClosed", "SessionClosed"]


async def test_many_streams_leave_nothing():
    """Streams that ended are forgotten, however many there were."""
    accepting = Accepting()
    async with serving(accepting) as served, session_to(served.port) as client:
        server = await accepting.session()

        async def drain():
            while True:
                await read_all(await accept_uni(server))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            for _ in range(500):
                stream = await client.open_uni()
                await send_all(stream, b"x")
                stream.finish()
            nursery.cancel_scope.cancel()
        assert len(client.streams) <= 64
        assert len(server.streams) <= 64 + Limits().max_streams


async def test_open_waits_for_the_peer():
    """Opening waits at the peer's limit, goes on when it is raised, and ends with the session."""
    accepting = Accepting()
    async with (
        serving(accepting, limits=attrs.evolve(Limits(), max_streams=4)) as served,
        session_to(served.port) as client,
    ):
        server = await accepting.session()
        # HTTP/3 itself has three.
        stream = client.open_uni_nowait()
        with pytest.raises(trio.WouldBlock):
            client.open_uni_nowait()
        async with trio.open_nursery() as nursery:

            async def more():
                second = await client.open_uni()
                await send_all(second, b"second")
                second.finish()
                with pytest.raises(SessionClosed):
                    await open_forever(client)

            nursery.start_soon(more)
            await send_all(stream, b"first")
            stream.finish()
            assert await read_all(await accept_uni(server)) == b"first"
            assert await read_all(await accept_uni(server)) == b"second"
            server.close()
