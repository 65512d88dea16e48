"""Faults of the network below QUIC: loss, silence, moving peers, and datagrams of no connection."""

from __future__ import annotations

import logging
import os
import random
import socket

import pytest
import trio
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import pull_quic_header

from moqt_trio.errors import HandshakeFailed, SessionClosed
from moqt_trio.limits import Limits
from moqt_trio.transport.sockets import UdpSocket
from tests.faults.quic_hostile import Hostile
from tests.faults.raw_udp import answers, connected
from tests.faults.udp_proxy import bad_network, udp_proxy
from tests.transport.awaiting import accept_bidi, accept_uni, send_all
from tests.transport.quic_pair import ALPN, client_settings, connect_quic, quic_pair, serving
from tests.transport.recorders import eventually, ping_pong, read_all


@pytest.mark.parametrize("loss", [0.05, 0.2])
async def test_bad_network(loss):
    """Through loss, reordering, repetition and corruption every stream arrives whole, handshake included."""
    received = []

    async def handler(connection):
        for _ in range(60):
            received.append(await read_all(await accept_uni(connection)))

    async with serving(handler) as listener, udp_proxy(listener.port) as proxy:
        proxy.forward = bad_network(loss=loss, duplicate=0.01, corrupt=0.001, reorder=0.25, delay=0.002, seed=11)
        with trio.fail_after(30):
            async with connect_quic("127.0.0.1", proxy.port, client_settings()) as client:
                for number in range(60):
                    stream = await client.open_uni()
                    await send_all(stream, bytes([number]) * 3000)
                    stream.finish()
                await client.wait_closed()
    assert sorted(received) == [bytes([number]) * 3000 for number in range(60)]


@pytest.mark.parametrize("bound", [1200, 1252, 1400])
@pytest.mark.parametrize("when", ["from the start", "later"])
async def test_a_path_that_drops_long_packets(bound, when):
    """A session over a path that drops packets above its size carries data both ways within two seconds."""

    async def handler(connection):
        while True:
            stream = await accept_bidi(connection)
            await send_all(stream, await read_all(stream))
            stream.finish()

    async def exchange(client):
        stream = await client.open_bidi()
        await send_all(stream, bytes(50_000))
        stream.finish()
        assert await read_all(stream) == bytes(50_000)

    def forward(data, from_client):
        return [(0.0, data)] if len(data) <= bound else []

    async with serving(handler) as listener, udp_proxy(listener.port) as proxy:
        if when == "from the start":
            proxy.forward = forward
        with trio.fail_after(4):
            async with connect_quic("127.0.0.1", proxy.port, client_settings()) as client:
                await exchange(client)
                proxy.forward = forward
                with trio.fail_after(2):
                    await exchange(client)
                assert client.max_datagram_size == 1200 - 30


async def test_blackhole_ends_both_sides():
    """When no packet arrives the idle timeout ends the connection on both sides, and the reason says so."""
    limits = Limits(idle_timeout=0.4)
    ends = []
    ready = trio.Event()

    async def handler(connection):
        await accept_uni(connection)
        ready.set()
        ends.append(await connection.wait_closed())

    async with serving(handler, limits) as listener, udp_proxy(listener.port) as proxy:
        async with connect_quic("127.0.0.1", proxy.port, client_settings(limits)) as client:
            (await client.open_uni()).write(b"x")
            await ready.wait()
            proxy.blackhole()
            with trio.fail_after(5):
                ends.append(await client.wait_closed())
                await eventually(lambda: len(ends) == 2)
        for error in ends:
            assert isinstance(error, SessionClosed)
            assert error.reason == "idle timeout"
            assert not error.by_peer
        assert listener.statistics().connections == 0


@pytest.mark.parametrize("unreached", ["server", "client"])
async def test_a_blackhole_one_way(unreached):
    """The side that hears nothing notices within the idle timeout, also when it has sent something meanwhile, and the
    other side, which it can still reach, learns of it."""
    limits = Limits(idle_timeout=3.0)
    connections = []
    ready = trio.Event()

    async def handler(connection):
        connections.append(connection)
        ready.set()
        await connection.wait_closed()

    async with (
        serving(handler, limits) as listener,
        udp_proxy(listener.port) as proxy,
        connect_quic("127.0.0.1", proxy.port, client_settings(limits)) as client,
    ):
        await ready.wait()
        (server,) = connections
        await ping_pong(client, server, 3)
        proxy.forward = lambda data, from_client: [] if from_client is (unreached == "server") else [(0.0, data)]
        start = trio.current_time()
        ours, theirs = (server, client) if unreached == "server" else (client, server)
        with trio.move_on_after(2.4):
            await ours.wait_closed()
        assert ours.closed is None
        (await ours.open_uni()).write(b"is anybody there?")
        error = await ours.wait_closed()
        assert 2.9 < trio.current_time() - start < 3.6
        assert isinstance(error, SessionClosed)
        assert (error.reason, error.by_peer) == ("idle timeout", False)
        with trio.fail_after(1):
            error = await theirs.wait_closed()
        assert isinstance(error, SessionClosed)
        assert (error.reason, error.by_peer) == ("idle timeout", True)


async def test_a_client_with_a_new_address():
    """A connection survives that its client's address changes, as a NAT makes it."""
    connections = []

    async def handler(connection):
        connections.append(connection)
        stream = await accept_bidi(connection)
        while data := await stream.receive_some():
            stream.write(data)
        await connection.wait_closed()

    async with (
        serving(handler) as listener,
        udp_proxy(listener.port) as proxy,
        connect_quic("127.0.0.1", proxy.port, client_settings()) as client,
    ):
        stream = await client.open_bidi()
        for moved in (False, True, True):
            if moved:
                proxy.rebind()
            stream.write(b"still there?")
            with trio.fail_after(5):
                assert await stream.receive_some() == b"still there?"
        assert len(connections) == 1


async def test_the_packet_that_closes_is_repeated():
    """When the packet that closes is lost, a peer that still sends gets it again."""

    async def handler(connection):
        await accept_uni(connection)

    async with serving(handler) as listener, udp_proxy(listener.port) as proxy:
        async with connect_quic("127.0.0.1", proxy.port, client_settings()) as client:
            stream = await client.open_uni()
            to_client = 0

            def lose_to_client(data: bytes, from_client: bool) -> list[tuple[float, bytes]]:
                nonlocal to_client
                to_client += not from_client
                return [(0.0, data)] if from_client else []

            proxy.forward = lose_to_client
            stream.write(b"x")
            await eventually(lambda: not listener.statistics().connections)
            proxy.forward = lambda data, _: [(0.0, data)]
            stream.write(b"y")
            with trio.fail_after(2):
                error = await client.wait_closed()
        assert to_client >= 1
        assert isinstance(error, SessionClosed)
        assert error.by_peer


async def test_icmp_ends_no_session(monkeypatch):
    """A session outlives any number of "port unreachable", which anyone may forge (RFC 9000, section 14.2.1)."""
    received = []
    refusals = 0
    read_forever = UdpSocket.read_forever

    async def counting(self, deliver, refused=None):
        def count():
            nonlocal refusals
            refusals += 1
            refused()

        await read_forever(self, deliver, refused and count)

    async def handler(connection):
        stream = await accept_uni(connection)
        while data := await stream.receive_some():
            received.append(data)

    monkeypatch.setattr(UdpSocket, "read_forever", counting)
    async with (
        serving(handler) as listener,
        udp_proxy(listener.port) as proxy,
        connect_quic("127.0.0.1", proxy.port, client_settings()) as client,
    ):
        stream = await client.open_uni()
        with trio.fail_after(10):
            # Genuine ones: for more than two seconds the client's datagrams go to a port without a socket.
            proxy.close_port()
            began = trio.current_time()
            written = 0
            while refusals < 5 or trio.current_time() - began < 2.2:
                stream.write(b"x")
                written += 1
                await trio.sleep(0.1)
            proxy.open_port()
            assert client.closed is None
            stream.finish()
            assert (await client.wait_closed()).by_peer
    assert b"".join(received) == b"x" * written


async def test_garbage(caplog):
    """Datagrams of noise, and packets for connections that do not exist, leave no trace and no log."""
    caplog.set_level(logging.INFO, "moqt_trio")
    chance = random.Random(5)
    async with serving() as listener:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", listener.port))
            for size in (0, 1, 2, 5, 8, 9, 20, 21, 100, 1199, 1200, 1452, 9000):
                for first in (0x00, 0x40, 0x7F, 0x80, 0xC0, 0xFF):
                    sock.send(bytes([first])[:size] + chance.randbytes(max(0, size - 1)))
                    # A long header of version 1 that claims to be an Initial packet with an eight-byte id.
                    header = bytes([0xC0 | first & 0x0F]) + (1).to_bytes(4, "big") + b"\x08" + chance.randbytes(8)
                    sock.send((header + b"\x00\x00\x44\x80" + chance.randbytes(size))[: max(size, 14)])
        await trio.sleep(0.05)
        assert listener.statistics().connections == 0
        async with connect_quic("127.0.0.1", listener.port, client_settings()):
            pass
    assert not caplog.records


def first_flight(port: int) -> bytes:
    """Return the first datagram of a genuine client."""
    quic = QuicConnection(configuration=QuicConfiguration(alpn_protocols=[ALPN], server_name="localhost"))
    quic.connect(("127.0.0.1", port), 0.0)
    return quic.datagrams_to_send(0.0)[0][0]


async def test_half_open_flood():
    """Unfinished handshakes fill half the room; then clients must prove their address, and real ones do."""
    limits = Limits(max_half_open=8, handshake_timeout=0.5)
    async with serving(limits=limits) as listener:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flood:
            flood.connect(("127.0.0.1", listener.port))
            for _ in range(40):
                flood.send(first_flight(listener.port))
            await eventually(lambda: listener.statistics().retried >= 36)
            numbers = listener.statistics()
            assert (numbers.half_open, numbers.connections, numbers.accepted) == (4, 4, 0)
            with trio.fail_after(1):
                async with connect_quic("127.0.0.1", listener.port, client_settings()) as client:
                    assert client.protocol == ALPN
            assert listener.statistics().retried == 37
            with trio.fail_after(3):
                await eventually(lambda: not listener.statistics().half_open)
        assert listener.statistics().connections == 0


async def test_too_many_connections():
    """Past `max_connections` new clients are refused at once; room that becomes free is given out again."""
    limits = Limits(max_connections=2)
    short = client_settings(Limits(connect_timeout=0.2))
    async with serving(limits=limits) as listener:
        async with (
            connect_quic("127.0.0.1", listener.port, short),
            connect_quic("127.0.0.1", listener.port, short),
        ):
            with pytest.raises(HandshakeFailed, match="refused the handshake: too many connections"):
                async with connect_quic("127.0.0.1", listener.port, short):
                    pytest.fail("three of two")
            assert listener.statistics().refused == 1
        await eventually(lambda: not listener.statistics().connections)
        async with connect_quic("127.0.0.1", listener.port, short):
            pass


async def test_amplification():
    """A client that has not proved its address gets at most three times what it sent."""
    async with serving() as listener:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", listener.port))
            sent = sock.send(first_flight(listener.port))
            received = 0
            with trio.move_on_after(1.0):
                while True:
                    await trio.lowlevel.wait_readable(sock)
                    received += len(sock.recv(65535))
        assert 0 < received <= 3 * sent


async def test_version_negotiation():
    """A packet of another version is answered once, if it is large enough and no negotiation itself."""
    async with serving() as listener:
        with connected(listener.port) as sock:
            ids = b"\x08" + b"d" * 8 + b"\x08" + b"s" * 8
            greased = b"\xc0" + (0x1A2A3A4A).to_bytes(4, "big") + ids + bytes(1300)
            (answer,) = await answers(sock, greased[:1200])
            header = pull_quic_header(Buffer(data=answer))
            assert (header.version, header.destination_cid, header.source_cid) == (0, b"s" * 8, b"d" * 8)
            assert 1 in header.supported_versions
            assert await answers(sock, greased[:1199]) == []
            assert await answers(sock, b"\xc0" + bytes(4) + ids + bytes(1300)) == []
            # Lengths of ids that only a later version allows (RFC 8999, section 5.1).
            strange = b"\xc0" + (0x1A2A3A4A).to_bytes(4, "big") + b"\x30" + os.urandom(48) + b"\x00" + bytes(1300)
            assert len(await answers(sock, strange)) == 1
        assert listener.statistics().connections == 0


async def test_a_client_that_dies_in_its_handshake():
    """A client that vanishes in mid-handshake is dropped after `handshake_timeout`."""
    async with serving(limits=Limits(handshake_timeout=0.2)) as listener:
        hostile = Hostile(listener.port)
        hostile.start()
        hostile.close_socket()
        await eventually(lambda: listener.statistics().half_open)
        with trio.fail_after(2):
            await eventually(lambda: not listener.statistics().connections)


async def test_closing_tells_the_peer_at_once():
    """When one side closes, the other knows within a fraction of a second, not after the idle timeout."""
    for closer in (0, 1):
        async with quic_pair() as pair:
            await pair[closer].aclose(3, "done")
            with trio.fail_after(0.5):
                error = await pair[1 - closer].wait_closed()
            assert isinstance(error, SessionClosed)
            assert (error.remote_code, error.reason) == (3, "done")
