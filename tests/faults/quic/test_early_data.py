"""Early data (0-RTT, RFC 9001, section 9.2), which anyone may send again: no server takes it, no client sends it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import HandshakeCompleted, QuicEvent
from aioquic.quic.packet import QuicPacketType, pull_quic_header

from tests.faults.quic_hostile import Hostile, hostile_client
from tests.faults.udp_proxy import udp_proxy
from tests.transport.awaiting import accept_bidi
from tests.transport.quic_pair import ALPN, CERTIFICATE, client_settings, connect_quic, serving

if TYPE_CHECKING:
    from aioquic.tls import SessionTicket

EARLY = b"pay ten coins"
ADDRESS = ("127.0.0.1", 4433)


@attrs.define(eq=False)
class Tickets:
    """What a server that resumes sessions keeps.

    Attributes:
        given: The tickets that it has given out, by name.
        asked: The names that clients have come back with.
    """

    given: dict[bytes, SessionTicket] = attrs.field(factory=dict)
    asked: list[bytes] = attrs.field(factory=list)

    def add(self, ticket: SessionTicket) -> None:
        self.given[ticket.ticket] = ticket

    def find(self, name: bytes) -> SessionTicket | None:
        self.asked.append(name)
        return self.given.get(name)


def stock_server(first: bytes, tickets: Tickets) -> QuicConnection:
    """Return stock aioquic's side of a new connection, which gives tickets and takes early data."""
    configuration = QuicConfiguration(
        is_client=False,
        alpn_protocols=[ALPN],
        certificate=CERTIFICATE.certificate,
        private_key=CERTIFICATE.private_key,
        max_datagram_frame_size=65536,
    )
    return QuicConnection(
        configuration=configuration,
        original_destination_connection_id=pull_quic_header(Buffer(data=first)).destination_cid,
        session_ticket_fetcher=tickets.find,
        session_ticket_handler=tickets.add,
    )


def events_of(quic: QuicConnection) -> list[QuicEvent]:
    found = []
    while (event := quic.next_event()) is not None:
        found.append(event)
    return found


def converse(tickets: Tickets, ticket: SessionTicket | None = None) -> tuple[SessionTicket, HandshakeCompleted]:
    """Connect two of stock aioquic; returns the ticket that the client got, and how its handshake was."""
    got: list[SessionTicket] = []
    hostile = Hostile(ADDRESS[1])
    hostile.close_socket()
    client = hostile.quic
    client._configuration.session_ticket = ticket
    client._session_ticket_handler = got.append
    client.connect(ADDRESS, 0.0)
    if ticket is not None:
        client.send_stream_data(0, EARLY)
    server: QuicConnection | None = None
    for number in range(6):
        for data, _ in client.datagrams_to_send(number * 0.01):
            server = server or stock_server(data, tickets)
            server.receive_datagram(data, ADDRESS, number * 0.01)
        assert server is not None
        for data, _ in server.datagrams_to_send(number * 0.01):
            client.receive_datagram(data, ADDRESS, number * 0.01)
    (completed,) = (event for event in events_of(client) if isinstance(event, HandshakeCompleted))
    return got[-1], completed


def packet_types(datagram: bytes) -> list[QuicPacketType]:
    """Return the types of a datagram's packets with a long header."""
    found = []
    buffer = Buffer(data=datagram)
    while not buffer.eof() and datagram[buffer.tell()] & 0x80:
        begin = buffer.tell()
        header = pull_quic_header(buffer)
        found.append(header.packet_type)
        buffer.seek(begin + header.packet_length)
    return found


@pytest.fixture(scope="module")
def ticket() -> SessionTicket:
    """A ticket of a server of that name, with which early data is sent and taken."""
    tickets = Tickets()
    ticket, completed = converse(tickets)
    assert not completed.session_resumed
    again, completed = converse(tickets, ticket)
    assert (completed.session_resumed, completed.early_data_accepted) == (True, True)
    return again


async def test_no_tickets():
    """A server gives no session ticket, with which a client could send early data the next time."""
    got: list[SessionTicket] = []

    async def echo(connection):
        stream = await accept_bidi(connection)
        stream.write(await stream.receive_some())
        await connection.wait_closed()

    def prepare(hostile: Hostile) -> None:
        hostile.quic._session_ticket_handler = got.append

    async with serving(echo) as listener, hostile_client(listener.port, prepare) as hostile:
        # The echo comes after everything that the handshake could bring.
        hostile.quic.send_stream_data(0, b"x")
        hostile.flush()
        with trio.fail_after(5):
            await hostile.wait_for(lambda: hostile.quic._streams[0].receiver._buffer_start)
    assert got == []


async def test_early_data_is_refused(ticket):
    """A client that resumes and sends early data gets a whole handshake, and the early data is dropped: what arrives
    is what it sends again under the new keys, once. Its first flight, sent again by another, brings nothing."""
    received: list[bytes] = []
    sent: list[bytes] = []
    arrived = trio.Event()

    async def handler(connection):
        stream = await accept_bidi(connection)
        while data := await stream.receive_some():
            received.append(data)
            arrived.set()

    def prepare(hostile: Hostile) -> None:
        connect = hostile.quic.connect
        hostile.quic._configuration.session_ticket = ticket

        def connect_early(*where: object) -> None:
            connect(*where)
            hostile.quic.send_stream_data(0, EARLY)

        hostile.quic.connect = connect_early

    async with serving(handler) as listener, udp_proxy(listener.port) as proxy:

        def record(data: bytes, from_client: bool) -> list[tuple[float, bytes]]:
            if from_client:
                sent.append(data)
            return [(0.0, data)]

        proxy.forward = record
        async with hostile_client(proxy.port, prepare) as hostile:
            (completed,) = (event for event in events_of(hostile.quic) if isinstance(event, HandshakeCompleted))
            assert (completed.session_resumed, completed.early_data_accepted) == (False, False)
            with trio.fail_after(10):
                await arrived.wait()
            flight = [data for data in sent if QuicPacketType.ZERO_RTT in packet_types(data)]
            assert flight
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.connect(("127.0.0.1", listener.port))
                for data in sent:
                    other.send(data)
                # A connection that is made after them shows that they were read.
                async with connect_quic("127.0.0.1", listener.port, client_settings()):
                    pass
        assert listener.statistics().accepted == 2
    assert received == [EARLY]


@asynccontextmanager
async def resuming_server(tickets: Tickets) -> AsyncIterator[tuple[int, list[bytes], list[QuicConnection]]]:
    """Run a server of stock aioquic that gives tickets; yield its port, what it received, and its connections."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    await sock.bind(("127.0.0.1", 0))
    received: list[bytes] = []
    made: list[QuicConnection] = []
    by_client: dict[object, QuicConnection] = {}

    async def run() -> None:
        while True:
            data, address = await sock.recvfrom(65535)
            received.append(data)
            if address not in by_client:
                by_client[address] = stock_server(data, tickets)
                made.append(by_client[address])
            by_client[address].receive_datagram(data, address, trio.current_time())
            for answer, where in by_client[address].datagrams_to_send(trio.current_time()):
                await sock.sendto(answer, where)

    with sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run)
            yield sock.getsockname()[1], received, made
            nursery.cancel_scope.cancel()


async def test_a_client_sends_no_early_data():
    """A client of a server that gives tickets asks for none: each of its connections begins with a whole handshake, and
    no packet of it is one of early data."""
    tickets = Tickets()
    async with resuming_server(tickets) as (port, received, made):
        for _ in range(3):
            async with connect_quic("127.0.0.1", port, client_settings()) as client:
                (await client.open_bidi()).write(EARLY)
    assert len(made) == 3
    assert (tickets.given, tickets.asked) == ({}, [])
    assert [quic.tls.session_resumed for quic in made] == [False] * 3
    types = [kind for data in received for kind in packet_types(data)]
    assert QuicPacketType.INITIAL in types
    assert QuicPacketType.ZERO_RTT not in types
