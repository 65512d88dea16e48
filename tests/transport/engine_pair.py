"""Two engines without a network, on a clock of their own, for tests."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from moqt_trio.transport.interface import AnyStream
from moqt_trio.transport.quic.aioquic.engine import AioquicEngine
from moqt_trio.transport.quic.aioquic.packets import AioquicFactory
from moqt_trio.transport.quic.engine import EngineHandler
from tests.transport.quic_pair import ALPN, client_settings, server_settings

if TYPE_CHECKING:
    from moqt_trio.limits import Limits
    from moqt_trio.transport.quic.aioquic.patched import PatchedConnection

CLIENT = ("127.0.0.1", 1)
SERVER = ("127.0.0.1", 2)


class Stream(AnyStream):
    """Records what is delivered to one stream."""

    def __init__(self, calls: list[tuple[object, ...]], stream_id: int) -> None:
        self.calls = calls
        self.stream_id = stream_id

    def deliver(self, data, fin):
        self.calls.append(("data", self.stream_id, data, fin))

    def deliver_released(self):
        self.calls.append(("released", self.stream_id))

    def deliver_send_finished(self):
        self.calls.append(("acknowledged", self.stream_id))

    def deliver_send_ready(self):
        self.calls.append(("room", self.stream_id))


class Handler(EngineHandler):
    """Records what an engine calls; its streams are made on first use."""

    flush_due = False

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.open: dict[int, AnyStream] = {}

    @property
    def streams(self):
        return self.open

    def stream(self, stream_id):
        return self.open.setdefault(stream_id, Stream(self.calls, stream_id))

    def handshake_completed(self, alpn, server_name):
        self.calls.append(("handshake", alpn))


class Pair:
    """Two engines that exchange datagrams without a network, on a clock of their own."""

    def __init__(self, limits: Limits | None = None, server_limits: Limits | None = None, **changes: object) -> None:
        self.now = 0.0
        self.client_handler, self.server_handler = Handler(), Handler()
        factory = AioquicFactory()
        self.client = factory.client(client_settings(limits), self.client_handler)
        self.client.connect(SERVER, self.now)
        first = self.client.datagrams_to_send(self.now)
        header = factory.parse_header_untrusted(first[0][0])
        assert header is not None
        self.server = factory.server(
            server_settings(server_limits or limits, **changes), self.server_handler, header, None
        )
        for data, _ in first:
            self.server.receive_datagram_untrusted(data, CLIENT, self.now)
        self.run()

    def open(self, *, unidirectional: bool) -> int | None:
        """Open a stream of the client, as its connection does."""
        stream_id = self.client.open_stream(unidirectional=unidirectional)
        if stream_id is not None:
            self.client_handler.stream(stream_id)
        return stream_id

    def run(self, turns: int = 40) -> None:
        """Carries datagrams both ways, a millisecond each."""
        for _ in range(turns):
            for here, there, address in ((self.server, self.client, SERVER), (self.client, self.server, CLIENT)):
                here.handle_timeout(self.now)
                here.deliver_events()
                for data, _ in here.datagrams_to_send(self.now):
                    there.receive_datagram_untrusted(data, address, self.now)
                there.deliver_events()
            self.now += 0.001


def quic_of(engine) -> PatchedConnection:
    """Return the connection inside an engine."""
    assert isinstance(engine, AioquicEngine)
    return engine._quic


def stock() -> QuicConnection:
    """Return a client's connection as it comes."""
    return QuicConnection(configuration=QuicConfiguration(alpn_protocols=[ALPN], verify_mode=ssl.CERT_NONE))
