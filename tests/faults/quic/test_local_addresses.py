"""Hosts with several addresses: a server that is bound to all of them answers from the one that was asked.

Clients take packets from no other address (RFC 9000, section 9). On loopback 127.0.0.2 stands for the second address
of a host, which is not the one that the kernel would choose. The clients' sockets are connected, so that the kernel
drops what comes from elsewhere.
"""

from __future__ import annotations

import socket
import sys

import pytest
import trio
from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicPacketType, pull_quic_header

from moqt_trio.limits import Limits
from moqt_trio.transport.sockets import bind_udp
from tests.faults.quic.test_network import first_flight
from tests.faults.quic_hostile import Hostile
from tests.faults.udp_proxy import udp_proxy
from tests.transport.awaiting import accept_uni
from tests.transport.quic_pair import ALPN, client_settings, connect_quic, serving
from tests.transport.recorders import eventually, ping_pong, read_all

SECOND = "127.0.0.2"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 on loopback")


@pytest.fixture(params=[None, "", "::", "0.0.0.0"])
def wildcard(request):
    """A host that stands for every address."""
    return request.param


async def answer_to(packet: bytes, port: int) -> bytes:
    """Return the first datagram that comes from where a packet was sent to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((SECOND, port))
        sock.send(packet)
        with trio.fail_after(2):
            await trio.lowlevel.wait_readable(sock)
        return sock.recv(65535)


@pytest.mark.parametrize("address", ["127.0.0.1", SECOND, "::1"])
async def test_a_connection_through_every_address(wildcard, address):
    """A client connects, and learns of the end, whichever address of the server it asks."""

    async def handler(connection):
        await accept_uni(connection)

    if wildcard == "0.0.0.0" and address == "::1":
        pytest.skip("the server has IPv4 only")
    async with serving(handler, host=wildcard) as listener:
        with trio.fail_after(3):
            async with connect_quic(address, listener.port, client_settings()) as client:
                assert client.protocol == ALPN
                (await client.open_uni()).write(b"x")
                assert (await client.wait_closed()).by_peer


async def test_version_negotiation_and_retry(wildcard):
    """What a listener sends without a connection comes from the address that was asked."""
    ids = b"\x08" + b"d" * 8 + b"\x08" + b"s" * 8
    async with serving(host=wildcard, limits=Limits(max_half_open=1)) as listener:
        greased = b"\xc0" + (0x1A2A3A4A).to_bytes(4, "big") + ids + bytes(1200)
        assert pull_quic_header(Buffer(data=await answer_to(greased, listener.port))).version == 0
        retry = await answer_to(first_flight(listener.port), listener.port)
        assert pull_quic_header(Buffer(data=retry)).packet_type is QuicPacketType.RETRY


async def test_the_token_of_a_retry_is_taken(wildcard):
    """A client that had to prove its address to a server's second address connects."""
    async with serving(host=wildcard, limits=Limits(max_half_open=3)) as listener:
        await answer_to(first_flight(listener.port), listener.port)
        with trio.fail_after(3):
            async with connect_quic(SECOND, listener.port, client_settings()):
                assert listener.statistics().retried == 1


async def test_the_packet_that_closes_is_repeated_from_the_address_that_was_asked(wildcard):
    """The record of a connection that has ended answers from there, too."""
    connections = []

    async def handler(connection):
        connections.append(connection)

    async with serving(handler, host=wildcard) as listener:
        client = Hostile(listener.port, SECOND)
        client.sock.connect((SECOND, listener.port))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.run)
            client.start()
            with trio.fail_after(2):
                await client.wait_for(lambda: client.ended is not None)
            nursery.cancel_scope.cancel()
        await eventually(lambda: not listener.statistics().connections)
        client.sock.send(b"\x40" + connections[0].connection_id + bytes(40))
        with trio.fail_after(2):
            await trio.lowlevel.wait_readable(client.sock)
        assert client.sock.recv(65535)
        client.close_socket()


async def test_old_packets_at_another_address_of_the_server():
    """Packets of a client that an observer sends again, to another address of the server, do not have the server answer
    from there: the client would get nothing more until it sends something itself."""
    connections, recorded = [], []

    async def handler(connection):
        connections.append(connection)
        await connection.wait_closed()

    def record(data, from_client):
        recorded.extend([data] if from_client else [])
        return [(0.0, data)]

    async with serving(handler, host="localhost") as listener, udp_proxy(listener.port) as proxy:
        if len(listener.addresses) < 2:
            pytest.skip("there is one loopback address")
        proxy.forward = record
        async with connect_quic("127.0.0.1", proxy.port, client_settings()) as client:
            await eventually(lambda: connections)
            (server,) = connections
            await ping_pong(client, server, 3)
            # The acknowledgements that are still due would show where the client is.
            await trio.sleep(0.2)
            before = server.statistics().bytes_received
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as observer:
                for data in recorded:
                    observer.sendto(data, ("::1", listener.port))
            await eventually(lambda: server.statistics().bytes_received >= before + sum(map(len, recorded)))
            (await server.open_uni()).write(b"x", True)
            with trio.fail_after(3):
                assert await read_all(await accept_uni(client)) == b"x"


async def test_a_bound_socket_does_without():
    """A socket that is bound to one address knows what it answers from: it reads and sends by the cheaper calls."""
    for host, expected in (("127.0.0.1", 2), ("0.0.0.0", 3)):
        (port,) = await bind_udp(host, 0)
        async with trio.open_nursery() as nursery:
            found = trio.Event()

            def received(datagrams, sock, now, expected=expected, found=found):
                assert [len(address) for _, address in datagrams] == [expected]
                found.set()

            nursery.start_soon(port.read_forever, received)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"x", ("127.0.0.1", port.address[1]))
            with trio.fail_after(1):
                await found.wait()
            nursery.cancel_scope.cancel()
        port.close()
