"""An HTTP/3 and WebTransport client made of aioquic alone, driven by Trio: no line of the library under test.

It can misbehave: everything below its methods (`quic`, `h3`) is open to the test.
"""

from __future__ import annotations

import math
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from aioquic.buffer import Buffer
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DatagramReceived, DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)

WAIT = 10.0
"""Seconds after which a test that waits for the server has failed."""
_STOP_SENDING = 0x05


class Http3Peer:
    """One connection. Everything that arrives is kept."""

    def __init__(self, quic: QuicConnection, udp: trio.socket.SocketType, raw: socket.socket) -> None:
        self.quic = quic
        self.h3: H3Connection
        self.events: list[H3Event] = []
        self.quic_events: list[QuicEvent] = []
        self.raw: dict[int, bytearray] = {}
        self.raw_ended: set[int] = set()
        self.paused = False
        self._udp = udp
        self._raw = raw
        self._scope = trio.CancelScope()
        self._changed = trio.Event()

    # -- the driver ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        while True:
            deadline = self.quic.get_timer()
            with trio.CancelScope(deadline=math.inf if deadline is None else deadline) as self._scope:
                data, address = await self._udp.recvfrom(65536)
                self.quic.receive_datagram(data, address, trio.current_time())
            if self._scope.cancelled_caught and deadline is not None:
                self.quic.handle_timer(max(deadline, trio.current_time()))
            self._drain()
            self.flush()

    def flush(self) -> None:
        """Sends what aioquic wants to send."""
        for data, address in self.quic.datagrams_to_send(trio.current_time()):
            self._raw.sendto(data, address)
        deadline = self.quic.get_timer()
        if deadline is not None:
            self._scope.deadline = min(self._scope.deadline, deadline)

    def _drain(self) -> None:
        while (event := self.quic.next_event()) is not None:
            self.quic_events.append(event)
            if isinstance(event, HandshakeCompleted):
                self.h3 = H3Connection(self.quic, enable_webtransport=True)
            elif isinstance(event, StreamDataReceived) and event.stream_id in self.raw:
                self.raw[event.stream_id] += event.data
                if event.end_stream:
                    self.raw_ended.add(event.stream_id)
            elif hasattr(self, "h3"):
                self.events.extend(self.h3.handle_event(event))
        self._changed.set()

    def ignore_stop_sending(self) -> None:
        """From now on goes on sending on streams that the server has stopped; `stop_code` still tells of it."""

        def ignore(context: object, frame_type: int, buffer: Buffer) -> None:
            stream_id, code = buffer.pull_uint_var(), buffer.pull_uint_var()
            self.quic_events.append(StopSendingReceived(error_code=code, stream_id=stream_id))

        handlers = self.quic._QuicConnection__frame_handlers
        handlers[_STOP_SENDING] = (ignore, *handlers[_STOP_SENDING][1:])

    async def wait(self, condition: Callable[[], Any]) -> Any:
        """Waits until a condition is true, looked at whenever something arrived; returns what it returned."""
        with trio.fail_after(WAIT):
            while not (value := condition()):
                self._changed = trio.Event()
                await self._changed.wait()
        return value

    # -- HTTP ----------------------------------------------------------------------------------------------

    def request(
        self,
        path: str = "/",
        *,
        method: str = "GET",
        headers: tuple[tuple[bytes, bytes], ...] = (),
        body: bytes | None = None,
        end: bool = True,
        authority: str = "localhost",
    ) -> int:
        """Sends a request, and returns its stream id."""
        stream_id = self.quic.get_next_available_stream_id()
        self.h3.send_headers(
            stream_id,
            [
                (b":method", method.encode()),
                (b":scheme", b"https"),
                (b":authority", authority.encode()),
                (b":path", path.encode()),
                *headers,
            ],
            end_stream=body is None and end,
        )
        if body is not None:
            self.h3.send_data(stream_id, body, end_stream=end)
        self.flush()
        return stream_id

    def connect(
        self, path: str, *, protocol: str = "webtransport", headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> int:
        """Asks for a WebTransport session, and returns its id."""
        return self.request(path, method="CONNECT", headers=((b":protocol", protocol.encode()), *headers), end=False)

    def headers_of(self, stream_id: int) -> dict[bytes, bytes] | None:
        """The answer's headers, or None."""
        for event in self.events:
            if isinstance(event, HeadersReceived) and event.stream_id == stream_id:
                return dict(event.headers)
        return None

    def body_of(self, stream_id: int) -> bytes:
        """What came of the answer's body."""
        return b"".join(
            event.data for event in self.events if isinstance(event, DataReceived) and event.stream_id == stream_id
        )

    def ended(self, stream_id: int) -> bool:
        """Whether the answer is complete."""
        return any(
            isinstance(event, DataReceived | HeadersReceived) and event.stream_id == stream_id and event.stream_ended
            for event in self.events
        )

    async def status(self, stream_id: int) -> int:
        """Waits for the answer's status."""
        headers = await self.wait(lambda: self.headers_of(stream_id))
        return int(headers[b":status"])

    async def answer(self, stream_id: int) -> tuple[int, bytes]:
        """Waits for the whole answer."""
        await self.wait(lambda: self.ended(stream_id))
        return await self.status(stream_id), self.body_of(stream_id)

    # -- WebTransport --------------------------------------------------------------------------------------

    def open_stream(self, session_id: int, data: bytes = b"", *, end: bool = False, uni: bool = False) -> int:
        """Opens a stream of a session; what comes back is in `raw`."""
        stream_id = self.h3.create_webtransport_stream(session_id, is_unidirectional=uni)
        self.raw[stream_id] = bytearray()
        if data or end:
            self.quic.send_stream_data(stream_id, data, end)
        self.flush()
        return stream_id

    def write(self, stream_id: int, data: bytes, *, end: bool = False) -> None:
        """Writes to a stream below HTTP/3."""
        self.quic.send_stream_data(stream_id, data, end)
        self.flush()

    def reset_code(self, stream_id: int) -> int | None:
        """The code of the RESET_STREAM that arrived, or None."""
        return next(
            (e.error_code for e in self.quic_events if isinstance(e, StreamReset) and e.stream_id == stream_id), None
        )

    def stop_code(self, stream_id: int) -> int | None:
        """The code of the STOP_SENDING that arrived, or None."""
        return next(
            (e.error_code for e in self.quic_events if isinstance(e, StopSendingReceived) and e.stream_id == stream_id),
            None,
        )

    @property
    def terminated(self) -> ConnectionTerminated | None:
        """How the connection ended, or None."""
        return next((event for event in self.quic_events if isinstance(event, ConnectionTerminated)), None)

    @property
    def closed_code(self) -> int | None:
        """The code that the server closed the connection with, or None."""
        event = self.quic._close_event
        return None if event is None else event.error_code

    @property
    def datagrams(self) -> list[tuple[int, bytes]]:
        """The HTTP datagrams that arrived, as session id and payload."""
        return [(event.stream_id, event.data) for event in self.events if isinstance(event, DatagramReceived)]

    def capsules(self, session_id: int) -> list[tuple[int, bytes]]:
        """The capsules that arrived whole on a CONNECT stream, as type and value."""
        buffer = Buffer(data=self.body_of(session_id))
        found = []
        while not buffer.eof():
            kind = buffer.pull_uint_var()
            found.append((kind, buffer.pull_bytes(buffer.pull_uint_var())))
        return found


@asynccontextmanager
async def connect_http3(port: int, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Http3Peer]:
    """Connects to a server, whose certificate is not looked at, and yields once HTTP/3 is ready on both sides.

    Args:
        port: The server's UDP port.
        host: Its address.
        options: Attributes of aioquic's QuicConfiguration.
    """
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=["h3"],
        verify_mode=ssl.CERT_NONE,
        server_name="localhost",
        max_datagram_frame_size=65536,
    )
    for name, value in options.items():
        setattr(configuration, name, value)
    raw = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    raw.setblocking(False)
    raw.bind((host, 0))
    with trio.socket.from_stdlib_socket(raw) as udp:
        quic = QuicConnection(configuration=configuration)
        peer = Http3Peer(quic, udp, raw)
        quic.connect((host, port), trio.current_time())
        peer.flush()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            await peer.wait(lambda: hasattr(peer, "h3") and peer.h3.received_settings)
            try:
                yield peer
            finally:
                quic.close()
                peer.flush()
                nursery.cancel_scope.cancel()
