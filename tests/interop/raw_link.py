"""A connection with moq-rs on which a test writes every byte by hand, and that records what moq-rs does.

Only the transport is this project's; messages are bytes here. The tests show what a version lacks, or what moq-rs does
not do in it: which streams it opens, what it answers, and with which code it refuses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from moqt_trio.certificates import development_certificate
from moqt_trio.limits import Limits
from moqt_trio.transport.code_mapping import HTTP3_CODES
from moqt_trio.transport.connection import Connection, ConnectionHandler
from moqt_trio.transport.interface import StreamHandler
from moqt_trio.transport.quic.settings import ClientSettings, ServerIdentity, ServerSettings
from moqt_trio.transport.stream import BidiStream
from moqt_trio.transport.webtransport.client import open_webtransport
from moqt_trio.transport.webtransport.server import WebTransportRequest, serve_http3
from tests.interop.moq_rs import SECONDS, MoqRs, MoqRsSession, Pairing
from tests.transport.quic_pair import connect_quic, serve_quic

if TYPE_CHECKING:
    from moqt_trio.transport.quic.connection import QuicConnection
    from moqt_trio.transport.receive_stream import ReceiveStream

LIMITS = Limits()
ANNOUNCE, SUBSCRIBE, FETCH, TRACK = 1, 2, 3, 6
"""Types of bidirectional streams: the first byte that the requester writes."""


def prefixed(body: bytes) -> bytes:
    """Returns a message: its length, and its body."""
    assert len(body) < 64
    return bytes([len(body)]) + body


def text(value: str) -> bytes:
    """Returns a string: its length, and its bytes."""
    return prefixed(value.encode())


ANNOUNCES_X = {
    1: prefixed(b"\x01" + text("x")),
    2: prefixed(b"\x01" + text("x")),
    3: prefixed(b"\x01" + text("x") + b"\x00"),
    4: prefixed(b"\x01" + text("x") + b"\x00"),
    5: prefixed(b"\x05\x01") + prefixed(b"\x01" + text("x") + b"\x00"),
    6: prefixed(b"\x05\x01") + b"\x00" + prefixed(text("x") + b"\x00\x00\x00"),
}
"""By version: the first replies on an announce stream when there is one broadcast, `x`."""
TRACK_INFO = {5: prefixed(bytes.fromhex("7f 00 5388 800f4240")), 6: prefixed(bytes.fromhex("7f 5388 800f4240"))}
"""By version: priority 127, any order, 5000 ms, a million timestamp units to the second."""


class Recorded(StreamHandler):
    """One stream, and what moq-rs did on it.

    Attributes:
        stream: The stream.
        data: All that moq-rs wrote.
        finished: True once it ended its half.
        reset: The code with which it reset its half; None before.
        stopped: The code with which it stopped our half; None before.
    """

    def __init__(self, link: RawLink, stream: ReceiveStream) -> None:
        self.stream = stream
        self.data = b""
        self.finished = False
        self.reset: int | None = None
        self.stopped: int | None = None
        self._link = link
        stream.handler = self

    def write(self, data: bytes, fin: bool = False) -> None:
        """Writes on our half."""
        assert isinstance(self.stream, BidiStream)
        self.stream.write(data, fin)

    def data_received(self, data: bytes, fin: bool) -> None:
        self.data += data
        self.finished = self.finished or fin
        self.stream.consumed(len(data))
        self._link.changed()

    def reset_received(self, code: int) -> None:
        self.reset = code
        self._link.changed()

    def stop_received(self, code: int) -> None:
        self.stopped = code
        self._link.changed()


class RawLink(ConnectionHandler):
    """The connection, and the streams that moq-rs opened on it.

    Attributes:
        connection: The connection.
        opened: The streams, in the order of their arrival.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.opened: list[Recorded] = []
        self._changed = trio.Event()
        connection.handler = self

    def bidi_opened(self, stream: BidiStream) -> None:
        self._opened(stream)

    def uni_opened(self, stream: ReceiveStream) -> None:
        self._opened(stream)

    def _opened(self, stream: ReceiveStream) -> None:
        self.opened.append(Recorded(self, stream))
        self.changed()

    def connection_lost(self, error: BaseException) -> None:
        self.changed()

    def changed(self) -> None:
        """Wakes the tasks that wait for a condition."""
        self._changed.set()
        self._changed = trio.Event()

    async def until(self, holds: Callable[[], object]) -> None:
        """Waits until a condition on the recorded streams holds."""
        while not holds():
            await self._changed.wait()

    async def open(self, opening: bytes) -> Recorded:
        """Opens a bidirectional stream with these bytes."""
        recorded = Recorded(self, await self.connection.open_bidi())
        recorded.write(opening)
        return recorded

    async def send_uni(self, data: bytes) -> None:
        """Opens a unidirectional stream with these bytes, and ends it."""
        (await self.connection.open_uni()).write(data, fin=True)

    def bidirectional(self, kind: int) -> list[Recorded]:
        """Returns the bidirectional streams of one type that moq-rs opened."""
        # One class carries both kinds of streams; the number says which it is (RFC 9000, section 2.1).
        both_ways = [item for item in self.opened if not item.stream.stream_id & 2]
        return [item for item in both_ways if item.data[:1] == bytes([kind])]

    def unidirectional(self, kind: int) -> list[Recorded]:
        """Returns the unidirectional streams of one type that moq-rs opened."""
        one_way = [item for item in self.opened if item.stream.stream_id & 2]
        return [item for item in one_way if item.data[:1] == bytes([kind])]

    async def wait_bidirectional(self, kind: int) -> Recorded:
        """Waits for the first stream of one type that moq-rs opens, with one message on it."""
        await self.until(lambda: any(len(item.data) > 1 for item in self.bidirectional(kind)))
        return self.bidirectional(kind)[0]


def _protocol(pairing: Pairing) -> str:
    return "moql" if pairing.number < 3 else pairing.version


async def _run_handshake(link: RawLink, pairing: Pairing) -> None:
    """Does the handshake or SETUP of a version."""
    number = bytes.fromhex("c0000000ff0dad") + bytes([pairing.number])
    if pairing.number >= 5:
        await link.send_uni(bytes.fromhex("01 01 00"))
    elif pairing.number < 3 and pairing.role == "client":
        # CLIENT_SETUP with one version and no parameters, and SERVER_SETUP with this one.
        setup = await link.open(b"\x20\x00\x0a\x01" + number + b"\x00")
        await link.until(lambda: setup.data == b"\x21\x00\x09" + number + b"\x00")
    elif pairing.number < 3:
        await link.until(lambda: link.opened and len(link.opened[0].data) > 3)
        assert link.opened[0].data[0] == 0x20
        assert number in link.opened[0].data
        link.opened[0].write(b"\x21\x00\x09" + number + b"\x00")


@asynccontextmanager
async def raw_link(moq_rs: MoqRs, pairing: Pairing) -> AsyncIterator[tuple[RawLink, MoqRsSession]]:
    """Runs a connection with moq-rs on which only the version's handshake was done."""
    try:
        with trio.fail_after(SECONDS):
            async with AsyncExitStack() as stack:
                connected = _client(moq_rs, pairing) if pairing.role == "client" else _server(moq_rs, pairing)
                async with connected as connection:
                    # moq-rs maps stream codes as WebTransport does over raw QUIC too.
                    connection.code_mapping = HTTP3_CODES
                    link = RawLink(connection)
                    await _run_handshake(link, pairing)
                    yield link, await stack.enter_async_context(moq_rs.session())
                    assert connection.closed is None
    except BaseException as error:
        moq_rs.add_output_to(error)
        raise


@asynccontextmanager
async def _client(moq_rs: MoqRs, pairing: Pairing) -> AsyncIterator[Connection]:
    protocol, web = _protocol(pairing), pairing.scheme == "https"
    settings = ClientSettings(
        alpns=("h3" if web else protocol,),
        server_name="localhost",
        limits=LIMITS,
        fingerprints=(bytes.fromhex(moq_rs.fingerprint),),
    )
    async with connect_quic("localhost", moq_rs.port, settings) as connection:
        if not web:
            yield connection
            return
        authority = f"localhost:{moq_rs.port}"
        async with open_webtransport(connection, authority, "/test", (protocol,), limits=LIMITS) as session:
            yield session


@asynccontextmanager
async def _server(moq_rs: MoqRs, pairing: Pairing) -> AsyncIterator[Connection]:
    protocol, web = _protocol(pairing), pairing.scheme == "https"
    certificate = development_certificate()
    identity = ServerIdentity(certificate.certificate, certificate.chain, certificate.private_key)
    settings = ServerSettings(alpns=("h3" if web else protocol,), identity=lambda: identity, limits=LIMITS)
    accepted: list[Connection] = []
    ready, done = trio.Event(), trio.Event()

    async def keep(connection: Connection) -> None:
        accepted.append(connection)
        ready.set()
        await done.wait()

    async def handle(connection: QuicConnection) -> None:
        async def on_session(request: WebTransportRequest) -> None:
            await keep(request.accept(protocol))

        if web:
            await serve_http3(connection, on_session, limits=LIMITS)
        else:
            await keep(connection)

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(serve_quic, handle, "localhost", 0, settings)
        url = f"{pairing.scheme}://localhost:{listener.port}/test"
        moq_rs.tell("connect", url=url, fingerprint=certificate.fingerprint.hex())
        await ready.wait()
        try:
            yield accepted[0]
        finally:
            done.set()
            nursery.cancel_scope.cancel()
