"""Clients that take every place of a listener and use none: they end, and make room for the others."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest
import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

import moqt_trio as moqt
from moqt_trio.transport.quic.shares import Shares, network_of
from moqt_trio.transport.quic.stateless_reset import RateLimit
from tests.faults.raw_udp import connected
from tests.http.serving import CERTIFICATE, open_tls
from tests.http.serving import serving as serving_app
from tests.peers.aioquic_http3 import Http3Peer, connect_http3
from tests.transport.recorders import eventually

PLACES = 64
AT_ONCE = 4
"""Seconds within which a client is served: one on a machine that does nothing else; here the clients that take the
places run beside it. The places would end by themselves after 5 and 10 s, and displaced clients are counted."""
SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])
SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])


async def wait_closed(request: moqt.SessionRequest) -> None:
    async with request.accept() as session:
        await session.wait_closed()


@asynccontextmanager
async def serving(host: str | None = "127.0.0.1", **limits: float) -> AsyncIterator[moqt.Listener]:
    """Run a server with these limits."""
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, wait_closed, host, 0, certificate=CERTIFICATE, limits=moqt.Limits(**limits))
        yield await nursery.start(serve)
        nursery.cancel_scope.cancel()


def connect(listener: moqt.Listener, scheme: str = "https", host: str = "127.0.0.1"):
    """Open a session of a client that has nothing to do with the others."""
    return moqt.connect(f"{scheme}://{host}:{listener.port}/", fingerprint=CERTIFICATE.fingerprint)


async def ping_forever(peers: list[Http3Peer]) -> None:
    """Keep connections alive by nothing but PINGs."""
    while True:
        for number, peer in enumerate(peers):
            peer.quic.send_ping(number)
            peer.flush()
        await trio.sleep(0.1)


@asynccontextmanager
async def idle_connections(listener: moqt.Listener, count: int) -> AsyncIterator[list[Http3Peer]]:
    """Hold HTTP/3 connections from one address that ask for nothing and send PINGs."""
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(connect_http3(listener.port)) for _ in range(count)]
        nursery.start_soon(ping_forever, peers)
        yield peers
        nursery.cancel_scope.cancel()


@SCHEMES
async def test_connections_that_ask_for_nothing(scheme):
    """When such connections have every place, a client that comes has a session at once, and keeps it."""
    async with serving(max_connections=PLACES) as listener, idle_connections(listener, PLACES):
        assert listener.statistics().connections == PLACES
        with trio.fail_after(AT_ONCE):
            async with connect(listener, scheme) as session, connect(listener, scheme):
                assert session.closed is None
        found = listener.statistics()
        assert (found.displaced, found.refused, found.sessions_accepted) == (2, 0, 2)
        assert found.connections <= PLACES


async def test_a_connection_without_a_request_ends():
    """PINGs keep no connection open that has had neither a session nor a request for `unused_timeout`."""
    async with serving(unused_timeout=0.4) as listener, idle_connections(listener, 3), connect(listener) as session:
        with trio.fail_after(3):
            await eventually(lambda: listener.statistics().connections == 1)
        assert listener.statistics().displaced == 0
        await trio.sleep(0.6)
        assert session.closed is None


async def test_a_connection_ends_after_its_last_request():
    """A request that takes long keeps its connection; the time begins with the end of the last one."""
    go_on = trio.Event()

    async def app(scope, receive, send):
        if scope["type"] != "http":
            raise RuntimeError("HTTP only")
        if scope["path"] == "/slow":
            await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    limits = moqt.Limits(unused_timeout=0.3)
    async with serving_app(app, limits=limits) as listener, connect_http3(listener.port) as peer:
        slow = peer.request("/slow")
        quick = peer.request("/quick")
        assert await peer.status(quick) == 200
        await trio.sleep(0.6)
        go_on.set()
        assert await peer.status(slow) == 200
        with trio.fail_after(3):
            await eventually(lambda: not listener.statistics().connections)


async def test_a_request_that_is_never_complete():
    """Request streams without headers do not count as requests."""
    async with serving(unused_timeout=0.4) as listener, connect_http3(listener.port) as peer:
        with trio.fail_after(3):
            while listener.statistics().connections:
                # The first byte of a HEADERS frame.
                peer.quic.send_stream_data(peer.quic.get_next_available_stream_id(), b"\x01")
                peer.flush()
                await trio.sleep(0.05)


async def test_raw_quic_without_setup():
    """Raw QUIC connections that never send their SETUP make room, too."""
    async with serving(max_connections=4) as listener, AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        for _ in range(4):
            nursery.start_soon(silent, listener.port)
        await eventually(lambda: listener.statistics().connections_accepted == 4)
        with trio.fail_after(AT_ONCE):
            async with connect(listener, "moqt"):
                assert listener.statistics().displaced == 1
        nursery.cancel_scope.cancel()


async def silent(port: int) -> None:
    """Complete a handshake of moq-lite-06 over raw QUIC, and send nothing more."""
    async with handshaking(port, alpn="moq-lite-06") as (quic, sock):
        while True:
            await trio.lowlevel.wait_readable(sock)
            quic.receive_datagram(sock.recv(65535), ("127.0.0.1", port), trio.current_time())
            for data, _ in quic.datagrams_to_send(trio.current_time()):
                sock.send(data)


@asynccontextmanager
async def handshaking(port: int, *, alpn: str = "h3", host: str = "127.0.0.1") -> AsyncIterator:
    """Send the first flight of a client from a port of its own."""
    configuration = QuicConfiguration(alpn_protocols=[alpn], server_name="localhost", verify_mode=0)
    quic = QuicConnection(configuration=configuration)
    quic.connect(("127.0.0.1", port), trio.current_time())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((host, 0))
        sock.connect(("127.0.0.1", port))
        sock.send(quic.datagrams_to_send(trio.current_time())[0][0])
        yield quic, sock


async def prove_address(port: int, quic: QuicConnection, sock: socket.socket) -> None:
    """Answer a Retry, and nothing after it."""
    with trio.fail_after(2):
        await trio.lowlevel.wait_readable(sock)
    quic.receive_datagram(sock.recv(65535), ("127.0.0.1", port), trio.current_time())
    sock.send(quic.datagrams_to_send(trio.current_time())[0][0])


@SCHEMES
async def test_handshakes_whose_retry_was_answered(scheme):
    """When one address has every place for handshakes, all proved and none completed, a client connects in a second."""
    async with serving(max_half_open=128) as listener, AsyncExitStack() as stack:
        for number in range(128):
            quic, sock = await stack.enter_async_context(handshaking(listener.port))
            if number >= 64:
                await prove_address(listener.port, quic, sock)
            await eventually(lambda expected=number + 1: listener.statistics().half_open == expected)
        with trio.fail_after(AT_ONCE):
            async with connect(listener, scheme):
                found = listener.statistics()
        assert (found.displaced, found.refused, found.half_open) == (1, 0, 127)


def started(listener: moqt.Listener) -> int:
    """Return how many handshakes have begun."""
    found = listener.statistics()
    return found.half_open + found.displaced


async def test_the_address_that_has_most_makes_room():
    """A client whose handshake is slow keeps its place while another address holds more."""
    async with serving(max_half_open=8) as listener, AsyncExitStack() as stack:
        slow, slow_sock = await stack.enter_async_context(handshaking(listener.port, host="127.0.0.2"))
        await eventually(lambda: listener.statistics().half_open == 1)
        for number in range(20):
            quic, sock = await stack.enter_async_context(handshaking(listener.port))
            if number >= 3:
                await prove_address(listener.port, quic, sock)
            await eventually(lambda expected=number + 2: started(listener) == expected)
        assert listener.statistics().displaced == 13
        with trio.fail_after(2):
            while not listener.statistics().connections_accepted:
                await trio.lowlevel.wait_readable(slow_sock)
                slow.receive_datagram(slow_sock.recv(65535), ("127.0.0.1", listener.port), trio.current_time())
                for data, _ in slow.datagrams_to_send(trio.current_time()):
                    slow_sock.send(data)
                await trio.testing.wait_all_tasks_blocked()


async def test_an_address_that_is_not_proved_displaces_nothing():
    """A flood from addresses that may be spoofed ends no connection: each client gets a Retry."""
    async with serving(max_connections=2) as listener, idle_connections(listener, 2):
        with connected(listener.port) as sock:
            for _ in range(5):
                quic = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["h3"], server_name="localhost"))
                quic.connect(("127.0.0.1", listener.port), 0.0)
                sock.send(quic.datagrams_to_send(0.0)[0][0])
            await eventually(lambda: listener.statistics().retried == 5)
        found = listener.statistics()
        assert (found.connections, found.displaced, found.refused) == (2, 0, 0)


@SCHEMES
async def test_sessions_are_not_displaced(scheme, caplog):
    """When sessions have every place clients are refused with CONNECTION_REFUSED, counted, and logged once."""
    async with serving(max_connections=2) as listener, connect(listener) as first, connect(listener, "moqt") as second:
        with caplog.at_level(logging.WARNING):
            for _ in range(5):
                with pytest.raises(moqt.HandshakeFailed, match="refused the handshake: too many connections"):
                    async with connect(listener, scheme):
                        pytest.fail("three of two")
        assert first.closed is second.closed is None
        found = listener.statistics()
        assert (found.refused, found.displaced, found.connections) == (5, 0, 2)
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "Limits.max_connections (2)" in record.getMessage()


async def test_refusals_are_logged_again_after_a_quiet_time(caplog):
    """When the listener has been half empty and is full again, that is logged again."""
    async with serving(max_connections=4) as listener:
        for _ in range(2):
            async with AsyncExitStack() as stack:
                for _ in range(4):
                    await stack.enter_async_context(connect(listener))
                with pytest.raises(moqt.HandshakeFailed):
                    await stack.enter_async_context(connect(listener))
            await eventually(lambda: not listener.statistics().connections)
    assert sum("max_connections" in record.getMessage() for record in caplog.records) == 2


async def test_over_tcp_refusals_are_counted_and_logged_once(caplog):
    """A connection over TCP that finds no place is closed and counted."""

    async def app(scope, receive, send):
        raise RuntimeError("no lifespan")

    async with serving_app(app, limits=moqt.Limits(max_connections=1)) as listener:
        kept = await open_tls(listener.port)
        with caplog.at_level(logging.WARNING, logger="moqt_trio"):
            for _ in range(3):
                stream = await trio.open_tcp_stream("127.0.0.1", listener.port)
                assert await stream.receive_some() == b""
                await stream.aclose()
        assert listener.statistics().refused == 3
        await trio.aclose_forcefully(kept)
    assert sum("over TCP was refused" in record.getMessage() for record in caplog.records) == 1


def test_refusals_are_bounded():
    """So many packets are sent in a second; in the next one there are as many."""
    rate = RateLimit(2)
    assert [rate.allows(now) for now in (1.0, 1.1, 1.2, 1.9, 2.0)] == [True, True, False, False, True]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:0:0:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", False),
        ("no address", "no address", True),
    ],
)
def test_networks(one, other, same):
    """An IPv4 address counts for itself, one of IPv6 for the 64 bits that its network has."""
    assert (network_of(one) == network_of(other)) is same


def test_shares():
    """The oldest of the network that has most comes first, whatever the order in which they came."""

    class Connection:
        def __init__(self, host: str) -> None:
            self.peer = (host, 1)

    shares = Shares()
    assert shares.surplus() is None
    few, first, second = Connection("192.0.2.9"), Connection("192.0.2.1"), Connection("192.0.2.1")
    for connection in (few, first, second, first):
        shares.add(connection)
    assert (len(shares), shares.surplus()) == (3, first)
    first.peer = ("192.0.2.77", 2)
    shares.discard(first)
    shares.discard(first)
    assert first not in shares
    assert shares.surplus() is few
    shares.discard(few)
    assert shares.surplus() is second
