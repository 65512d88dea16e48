"""A QUIC client that misbehaves: stock aioquic on a socket, with frames of the test's own in real packets."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilderStop
from aioquic.tls import Epoch

from tests.transport.quic_pair import ALPN

if TYPE_CHECKING:
    from aioquic.quic.events import ConnectionTerminated


def varint(value: int) -> bytes:
    """Return a QUIC varint (RFC 9000, section 16)."""
    for size, prefix in ((1, 0), (2, 1), (4, 2), (8, 3)):
        if value < 1 << (8 * size - 2):
            return (value | prefix << (8 * size - 2)).to_bytes(size, "big")
    raise ValueError(value)


def stream_frame(stream_id: int, offset: int, data: bytes) -> tuple[int, bytes]:
    """Return a STREAM frame with an offset and a length (RFC 9000, section 19.8)."""
    return 0x08 | 0x04 | 0x02, varint(stream_id) + varint(offset) + varint(len(data)) + data


class Injector(QuicConnection):
    """Sends raw frames before its own."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.frames: list[tuple[int, bytes]] = []

    def _write_application(self, builder, network_path, now):
        # aioquic's pacing and congestion control are switched off for the hostile peer.
        builder.max_flight_bytes = None
        while self.frames and self._handshake_complete:
            builder.start_packet(QuicPacketType.ONE_RTT, self._cryptos[Epoch.ONE_RTT])
            while self.frames:
                frame_type, body = self.frames[0]
                try:
                    builder.start_frame(frame_type, capacity=len(body) + 8).push_bytes(body)
                except QuicPacketBuilderStop:
                    break
                self.frames.pop(0)
        super()._write_application(builder, network_path, now)


class Hostile:
    """One hostile client.

    Attributes:
        quic: Its connection; `quic.frames` takes frames as type and body.
        sock: Its socket, not connected.
        ended: How the server ended the connection.
        before_flush: Called before each answer to what was received.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        configuration = QuicConfiguration(
            alpn_protocols=[ALPN], server_name="localhost", verify_mode=ssl.CERT_NONE, max_datagram_frame_size=65536
        )
        self.quic = Injector(configuration=configuration)
        self.ended: ConnectionTerminated | None = None
        self._address = (host, port)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.changed = trio.Event()
        self.before_flush: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Send the first flight."""
        self.quic.connect(self._address, trio.current_time())
        self.flush()

    def flush(self) -> None:
        """Send what the engine has."""
        for data, address in self.quic.datagrams_to_send(trio.current_time()):
            self.sock.sendto(data, address)

    async def run(self) -> None:
        """Receive, and answer as stock aioquic does."""
        while True:
            timer = self.quic.get_timer()
            with trio.move_on_at(timer if timer is not None else float("inf")):
                await trio.lowlevel.wait_readable(self.sock)
                while True:
                    try:
                        data = self.sock.recv(65535)
                    except BlockingIOError:
                        break
                    self.quic.receive_datagram(data, self._address, trio.current_time())
            if timer is not None and trio.current_time() >= timer:
                self.quic.handle_timer(trio.current_time())
            if self.quic._close_event is not None and self.ended is None:
                self.ended = self.quic._close_event
            self.changed.set()
            self.changed = trio.Event()
            self.before_flush()
            self.flush()

    async def wait_for(self, condition) -> None:
        """Wait until a condition holds."""
        while not condition():
            await self.changed.wait()

    def close_socket(self) -> None:
        """Close the socket without a packet."""
        self.sock.close()


@asynccontextmanager
async def hostile_client(port: int, prepare: Callable[[Hostile], None] | None = None) -> AsyncIterator[Hostile]:
    """Yields a hostile client whose handshake is complete; `prepare` may change it before the first packet."""
    hostile = Hostile(port)
    if prepare is not None:
        prepare(hostile)
    try:
        async with trio.open_nursery() as nursery:
            hostile.start()
            nursery.start_soon(hostile.run)
            with trio.fail_after(5):
                await hostile.wait_for(lambda: hostile.quic._handshake_confirmed)
            yield hostile
            nursery.cancel_scope.cancel()
    finally:
        hostile.close_socket()
