"""Transports without a session on them: what arrives is kept as bytes, and what leaves is written by the test.

Two kinds: one on a connection of the transport floor, for the link in memory and for WebTransport, and one made of
aioquic alone, for raw QUIC.
"""

from __future__ import annotations

import abc
import math
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import (
    HandshakeCompleted,
    QuicEvent,
    StopSendingReceived,
    StreamDataReceived,
    StreamReset,
)
from aioquic.quic.packet import pull_quic_header

from moqt_trio.errors import SessionClosed
from moqt_trio.transport.connection import ConnectionHandler
from moqt_trio.transport.interface import StreamHandler
from tests.transport.quic_pair import CERTIFICATE

if TYPE_CHECKING:
    from moqt_trio.errors import MoqtError
    from moqt_trio.transport.connection import Connection
    from moqt_trio.transport.receive_stream import ReceiveStream
    from moqt_trio.transport.stream import BidiStream

ALPN = "moq-00"


@attrs.define(eq=False)
class Arrived:
    """What the side under test has done on one stream.

    Attributes:
        data: What it wrote.
        pieces: How many pieces that came in.
        fin: True once it finished its half.
        reset: The code with which it gave its half up.
        stopped: The code with which it refused the other half.
        fin_expected: True once its end was due.
        reset_expected: True once its reset was due.
    """

    data: bytearray = attrs.field(factory=bytearray)
    pieces: int = 0
    fin: bool = False
    reset: int | None = None
    stopped: int | None = None
    fin_expected: bool = False
    reset_expected: bool = False

    @property
    def codes(self) -> list[int | None]:
        """The codes of its end, from the two halves."""
        return [self.reset, self.stopped]

    def add(self, data: bytes, fin: bool) -> None:
        """Takes a piece."""
        self.data += data
        self.pieces += bool(data)
        self.fin |= fin


class Peer(abc.ABC):
    """One end of a connection.

    Attributes:
        arrived: What came, by the number of the stream.
        closed: The code with which the other side closed the session; None while it has not.
    """

    def __init__(self) -> None:
        self.arrived: dict[int, Arrived] = {}
        self.closed: int | None = None
        self._changed = trio.Event()

    def changed(self) -> None:
        """Wakes the tasks that wait for something to arrive."""
        self._changed.set()
        self._changed = trio.Event()

    async def wait_changed(self) -> None:
        """Waits until something arrives."""
        await self._changed.wait()

    @abc.abstractmethod
    def open(self, *, one_way: bool) -> int:
        """Opens a stream and returns its number."""

    @abc.abstractmethod
    def write(self, stream: int, data: bytes, fin: bool) -> None:
        """Sends bytes off."""

    @abc.abstractmethod
    def reset(self, stream: int, code: int) -> None:
        """Gives this half of a stream up."""

    @abc.abstractmethod
    def stop(self, stream: int, code: int) -> None:
        """Refuses the other half of a stream."""

    @abc.abstractmethod
    def close(self, code: int) -> None:
        """Closes the session."""


class _StreamKeeper(StreamHandler):
    def __init__(self, peer: Peer, stream: ReceiveStream) -> None:
        self._peer = peer
        self._stream = stream
        self._arrived = peer.arrived.setdefault(stream.stream_id, Arrived())

    def data_received(self, data: bytes, fin: bool) -> None:
        self._arrived.add(data, fin)
        self._stream.consumed(len(data))
        self._peer.changed()

    def reset_received(self, code: int) -> None:
        self._arrived.reset = code
        self._peer.changed()

    def stop_received(self, code: int) -> None:
        self._arrived.stopped = code
        self._peer.changed()


class TransportPeer(Peer, ConnectionHandler):
    """A peer on a connection of the transport floor."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection
        self._streams = {}
        connection.handler = self

    def bidi_opened(self, stream: BidiStream) -> None:
        self._keep(stream)

    def uni_opened(self, stream: ReceiveStream) -> None:
        self._keep(stream)

    def _keep(self, stream) -> None:
        self._streams[stream.stream_id] = stream
        stream.handler = _StreamKeeper(self, stream)
        self.changed()

    def connection_lost(self, error: MoqtError) -> None:
        assert isinstance(error, SessionClosed)
        self.closed = error.remote_code if error.by_peer else -1
        self.changed()

    def open(self, *, one_way: bool) -> int:
        connection = self._connection
        stream = connection.open_uni_nowait() if one_way else connection.open_bidi_nowait()
        if one_way:
            self._streams[stream.stream_id] = stream
        else:
            self._keep(stream)
        return stream.stream_id

    def write(self, stream: int, data: bytes, fin: bool) -> None:
        self._streams[stream].write(data, fin)

    def reset(self, stream: int, code: int) -> None:
        self._streams[stream].reset(code)

    def stop(self, stream: int, code: int) -> None:
        self._streams[stream].stop(code)

    def close(self, code: int) -> None:
        self._connection.close(code)


class AioquicPeer(Peer):
    """A peer made of aioquic alone, on a socket of its own. Each write leaves in a packet of its own."""

    def __init__(self, configuration: QuicConfiguration, sock: socket.socket) -> None:
        super().__init__()
        self._configuration = configuration
        self._sock = sock
        self._quic: QuicConnection | None = None
        self._address = None
        self._sleep = trio.CancelScope()
        self.ready = trio.Event()

    def connect(self, port: int) -> None:
        """Sends the first packet of a client."""
        self._address = ("127.0.0.1", port)
        self._quic = QuicConnection(configuration=self._configuration)
        self._quic.connect(self._address, trio.current_time())
        self._flush()

    async def run(self) -> None:
        """Receives, until it is cancelled or the connection is over."""
        while self.closed is None:
            with trio.move_on_at(self._timer()) as self._sleep:
                await trio.lowlevel.wait_readable(self._sock)
                self._receive()
            if self._quic is not None:
                if trio.current_time() >= self._timer():
                    self._quic.handle_timer(trio.current_time())
                while (event := self._quic.next_event()) is not None:
                    self._handle(event)
                # aioquic reports the end only after its closing period.
                ended = self._quic._close_event
                if ended is not None:
                    self.closed = ended.error_code
                    self.changed()
                self._flush()

    def _timer(self) -> float:
        timer = None if self._quic is None else self._quic.get_timer()
        return math.inf if timer is None else timer

    def _receive(self) -> None:
        while True:
            try:
                data, address = self._sock.recvfrom(65536)
            except BlockingIOError:
                return
            if self._quic is None:
                header = pull_quic_header(Buffer(data=data), host_cid_length=8)
                self._address = address
                self._quic = QuicConnection(
                    configuration=self._configuration, original_destination_connection_id=header.destination_cid
                )
            self._quic.receive_datagram(data, address, trio.current_time())

    def _handle(self, event: QuicEvent) -> None:
        match event:
            case HandshakeCompleted():
                assert event.alpn_protocol == ALPN
                self.ready.set()
            case StreamDataReceived():
                self._arrived(event.stream_id).add(event.data, event.end_stream)
            case StreamReset():
                self._arrived(event.stream_id).reset = event.error_code
            case StopSendingReceived():
                self._arrived(event.stream_id).stopped = event.error_code
        self.changed()

    def _arrived(self, stream: int) -> Arrived:
        return self.arrived.setdefault(stream, Arrived())

    def _flush(self) -> None:
        assert self._quic is not None
        for data, address in self._quic.datagrams_to_send(trio.current_time()):
            self._sock.sendto(data, address)
        # What was sent may have to be sent again sooner than anything was due before.
        self._sleep.deadline = self._timer()

    def open(self, *, one_way: bool) -> int:
        assert self._quic is not None
        number = self._quic.get_next_available_stream_id(is_unidirectional=one_way)
        # It is taken once something was sent.
        self._quic.send_stream_data(number, b"")
        if not one_way:
            self.arrived[number] = Arrived()
        return number

    def write(self, stream: int, data: bytes, fin: bool) -> None:
        assert self._quic is not None
        self._quic.send_stream_data(stream, data, fin)
        self._flush()

    def reset(self, stream: int, code: int) -> None:
        assert self._quic is not None
        self._quic.reset_stream(stream, code)
        self._flush()

    def stop(self, stream: int, code: int) -> None:
        assert self._quic is not None
        self._quic.stop_stream(stream, code)
        self._flush()

    def close(self, code: int) -> None:
        assert self._quic is not None
        self._quic.close(code)
        self._flush()


@asynccontextmanager
async def aioquic_peer(*, is_client: bool) -> AsyncIterator[tuple[AioquicPeer, int]]:
    """Yields a peer on a socket, and its port; it receives for as long as the block lasts."""
    configuration = QuicConfiguration(
        is_client=is_client, alpn_protocols=[ALPN], server_name="localhost", verify_mode=ssl.CERT_NONE
    )
    if not is_client:
        configuration.certificate = CERTIFICATE.certificate
        configuration.certificate_chain = list(CERTIFICATE.chain)
        configuration.private_key = CERTIFICATE.private_key
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            peer = AioquicPeer(configuration, sock)
            nursery.start_soon(peer.run)
            yield peer, sock.getsockname()[1]
            nursery.cancel_scope.cancel()
