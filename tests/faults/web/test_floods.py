"""Floods and spoofed addresses at a server of WebTransport and HTTP/3: bounds before a handshake is complete."""

from __future__ import annotations

import datetime as dt
import os
import resource
import socket
from functools import partial
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from moqt_trio.certificates import Certificate, development_certificate
from moqt_trio.limits import Limits
from moqt_trio.transport.quic.settings import ServerIdentity, ServerSettings
from tests.peers.aioquic_http3 import connect_http3
from tests.transport.quic_pair import serve_quic, until_closed
from tests.transport.recorders import eventually
from tests.transport.webtransport.serving import Served, serving, session_to

if TYPE_CHECKING:
    from moqt_trio.transport.webtransport.server import WebTransportRequest

MIB = 1 << 20


async def accept(request: WebTransportRequest) -> None:
    await request.accept().wait_closed()


def first_flight(port: int) -> bytes:
    """The first datagram of a genuine client of HTTP/3."""
    quic = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["h3"], server_name="localhost"))
    quic.connect(("127.0.0.1", port), 0.0)
    return quic.datagrams_to_send(0.0)[0][0]


async def drain(sock: socket.socket, timeout: float) -> list[bytes]:
    """Receive until nothing has come for a while."""
    found = []
    while True:
        with trio.move_on_after(timeout) as waiting:
            await trio.lowlevel.wait_readable(sock)
        if waiting.cancelled_caught:
            return found
        found.append(sock.recv(65535))


def packet_type(datagram: bytes) -> QuicPacketType:
    return pull_quic_header(Buffer(data=datagram), host_cid_length=8).packet_type


def handled(served: Served) -> int:
    """How many first flights have been looked at."""
    found = served.listener.statistics()
    return found.half_open + found.retried + found.refused


async def test_the_default_bound():
    """The bounds are those that the requirement names."""
    limits = Limits()
    assert (limits.max_half_open, limits.handshake_timeout) == (512, 10.0)


async def test_half_open_handshakes():
    """Six hundred handshakes from as many ports, none of which is finished: half of the room fills, every other client
    gets a Retry that costs no state, and a real client has its session within a second."""
    room = Limits().max_half_open // 2
    async with serving(accept) as served:
        flights = [first_flight(served.port) for _ in range(600)]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sockets = []
        try:
            for number, flight in enumerate(flights):
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.setblocking(False)
                sock.connect(("127.0.0.1", served.port))
                sockets.append(sock)
                sock.send(flight)
                if number % 20 == 19:
                    await eventually(lambda sent=number + 1: handled(served) >= sent)
            found = served.listener.statistics()
            assert (found.half_open, found.retried, found.accepted) == (room, 600 - room, 0)
            assert packet_type(sockets[-1].recv(65535)) == QuicPacketType.RETRY
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
            print(f"{room} half-open handshakes grew the process by {grown / MIB:.1f} MiB")
            assert grown <= room * 256 * 1024
            with trio.fail_after(1):
                async with session_to(served.port) as session:
                    assert session.established
            assert served.listener.statistics().retried == 600 - room + 1
        finally:
            for sock in sockets:
                sock.close()


async def test_a_token_for_another_address():
    """The token of a Retry is good for the address that it was sent to: from another one it buys nothing."""
    async with serving(limits=Limits(max_half_open=2)) as served:
        socks = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for sock in socks:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", served.port))
        try:
            socks[0].send(first_flight(served.port))
            await eventually(lambda: served.listener.statistics().half_open == 1)
            await drain(socks[0], 0.05)
            quic = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["h3"], server_name="localhost"))
            quic.connect(("127.0.0.1", served.port), 0.0)
            socks[0].send(quic.datagrams_to_send(0.0)[0][0])
            await eventually(lambda: served.listener.statistics().retried == 1)
            (retry,) = await drain(socks[0], 0.05)
            quic.receive_datagram(retry, ("127.0.0.1", served.port), 0.0)
            with_token = quic.datagrams_to_send(0.0)[0][0]
            half_open = served.listener.statistics().half_open
            socks[1].send(with_token)
            await drain(socks[1], 0.05)
            assert served.listener.statistics().half_open == half_open
            socks[0].send(with_token)
            await eventually(lambda: served.listener.statistics().half_open == half_open + 1)
        finally:
            for sock in socks:
                sock.close()


def large_chain() -> Certificate:
    """A certificate whose chain alone is larger than three datagrams."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = dt.datetime.now(dt.UTC)

    def certificate(name: str) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        padding = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.55555.1"), os.urandom(3000))
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(padding, critical=False)
            .sign(key, hashes.SHA256())
        )

    return attrs.evolve(
        development_certificate(), certificate=certificate("a"), private_key=key, chain=(certificate("b"),)
    )


@pytest.mark.parametrize("size", [1200, 1452])
async def test_amplification(size):
    """A client that has not proved its address gets at most three bytes for each that it sent, repetitions included,
    although the certificates alone are larger; what it sends more buys three times as much, and no more."""
    chain = large_chain()
    identity = ServerIdentity(chain.certificate, chain.chain, chain.private_key)
    settings = ServerSettings(alpns=("h3",), identity=lambda: identity, limits=Limits())
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(serve_quic, until_closed, "127.0.0.1", 0, settings))
        port = listener.port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", port))
            configuration = QuicConfiguration(alpn_protocols=["h3"], server_name="localhost", max_datagram_size=size)
            quic = QuicConnection(configuration=configuration)
            quic.connect(("127.0.0.1", port), 0.0)
            flight = quic.datagrams_to_send(0.0)[0][0]
            sent = received = 0
            for _ in range(3):
                sent += sock.send(flight)
                received += sum(map(len, await drain(sock, 0.5)))
                print(f"sent {sent}, received {received}: {received / sent:.2f}")
                assert 2 * sent < received <= 3 * sent
        nursery.cancel_scope.cancel()


async def test_a_retry_does_not_amplify():
    """A Retry is smaller than the packet that it answers."""
    async with serving(limits=Limits(max_half_open=1)) as served:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", served.port))
            sock.send(first_flight(served.port))
            await drain(sock, 0.1)
            sent = sock.send(first_flight(served.port))
            retries = [found for found in await drain(sock, 0.1) if packet_type(found) == QuicPacketType.RETRY]
            assert len(retries) == 1
            assert len(retries[0]) < sent


@pytest.mark.parametrize(
    ("version", "size", "answers"),
    [
        (0x1A2A3A4A, 1200, 1),
        (0x1A2A3A4A, 1199, 0),
        (0x1A2A3A4A, 21, 0),
        (0, 1200, 0),
    ],
    ids=["grease", "one byte short", "tiny", "version 0"],
)
async def test_version_negotiation(version, size, answers):
    """A version that is not spoken is answered when its datagram has 1200 bytes, so that the answer is the smaller
    one; version 0, which is such an answer itself, never is: two servers cannot be made to talk to each other."""
    packet = b"\xc0" + version.to_bytes(4, "big") + b"\x08" + b"d" * 8 + b"\x08" + b"s" * 8 + bytes(1300)
    async with serving() as served:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(("127.0.0.1", served.port))
            sock.send(packet[:size])
            found = await drain(sock, 0.1)
            assert len(found) == answers
            for answer in found:
                header = pull_quic_header(Buffer(data=answer))
                assert (header.version, header.destination_cid, header.source_cid) == (0, b"s" * 8, b"d" * 8)
                assert len(answer) < size
                # Sent back, as a server that is taken for the client would do, it is not answered.
                sock.send(answer + bytes(1200))
            assert await drain(sock, 0.1) == []
        assert served.listener.statistics().connections == 0
        async with connect_http3(served.port) as peer:
            assert await peer.status(peer.request("/")) == 404
