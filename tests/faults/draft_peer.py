"""A peer whose bytes are written by hand, on any IETF draft and in either role; on the other side runs our session.

Up to draft 16 all requests share the control stream; from 17 on each has a stream of its own. An `Exchange` is one
request either way, so that a test is written once for all drafts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

import moqt_trio as moqt
from moqt_trio.session.run import run_session
from moqt_trio.transport.code_mapping import HTTP3_CODES
from moqt_trio.transport.memory import open_memory_pair
from moqt_trio.wire import dialect as dialects
from tests.faults import drafts as d
from tests.faults.drafts import DraftWire
from tests.faults.raw_peer import settled
from tests.transport.awaiting import accept_bidi, accept_uni, receive_datagram

if TYPE_CHECKING:
    from moqt_trio.transport.memory import MemoryConnection
    from moqt_trio.transport.receive_stream import ReceiveStream
    from moqt_trio.transport.send_stream import SendStream
    from moqt_trio.transport.stream import BidiStream

_OPENING = frozenset(
    {
        d.SUBSCRIBE,
        d.PUBLISH,
        d.FETCH,
        d.TRACK_STATUS,
        d.PUBLISH_NAMESPACE,
        d.SUBSCRIBE_NAMESPACE,
        d.SUBSCRIBE_NAMESPACE_16,
        d.SUBSCRIBE_TRACKS,
    }
)
_OF_SESSION = frozenset({d.GOAWAY, 0x15, 0x1A, 0x20, 0x21})

Message = tuple[int, bytes]
"""A message's type and its body."""


class Messages:
    """Cuts what arrives on a stream into messages."""

    def __init__(self, wire: DraftWire, stream: ReceiveStream | BidiStream) -> None:
        self._wire = wire
        self._stream = stream
        self._data = b""

    async def next(self) -> Message | None:
        """Return the next message; None at the end of the stream. Raises `StreamReset`."""
        while True:
            found = self._take()
            if found is not None:
                return found
            piece = await self._stream.receive_some()
            if not piece:
                assert not self._data, "our session's stream ended inside a message"
                return None
            self._data += piece

    def _take(self) -> Message | None:
        found = read_number(self._wire, self._data)
        if found is None or len(self._data) < found[1] + 2:
            return None
        kind, start = found[0], found[1] + 2
        end = start + int.from_bytes(self._data[start - 2 : start], "big")
        if len(self._data) < end:
            return None
        body, self._data = self._data[start:end], self._data[end:]
        return kind, body


def read_number(wire: DraftWire, data: bytes) -> tuple[int, int] | None:
    """Return the number at the head of some bytes, and the offset after it."""
    if not data:
        return None
    first = data[0]
    size = 1 << (first >> 6) if wire.shared else 9 - (~first & 0xFF).bit_length()
    if len(data) < size:
        return None
    bits = 8 * size - 2 if wire.shared else 64 if size == 9 else 7 * size
    return int.from_bytes(data[:size], "big") & ((1 << bits) - 1), size


@attrs.define(eq=False)
class Exchange:
    """One request, ours or the peer's, and what each side says about it.

    Attributes:
        peer: The session's peer.
        request_id: The request's id.
        stream: Its own stream; None where all share the control stream.
    """

    peer: DraftPeer
    request_id: int
    stream: BidiStream | None
    messages: Messages | None
    arrived: deque[Message] = attrs.Factory(deque)

    def write(self, data: bytes, *, fin: bool = False) -> None:
        """Say something about it; a FIN says nothing where all share one stream."""
        if self.stream is not None:
            self.stream.write(data, fin=fin)
        else:
            self.peer.write_control(data)

    async def receive(self) -> Message | None:
        """Return the next message of our session about it; None at the stream's end, which a shared one has not."""
        with trio.fail_after(10):
            if self.messages is not None:
                return await self.messages.next()
            while not self.arrived:
                await self.peer.read_control()
        return self.arrived.popleft()

    async def answer(self) -> Message:
        """Return our session's next message about it, without the id that it has where all share one stream."""
        message = await self.receive()
        assert message is not None, "the stream ended without a message"
        kind, body = message
        if self.stream is None:
            found = read_number(self.peer.wire, body)
            assert found is not None
            body = body[found[1] :]
        return kind, body

    async def refusal(self) -> int:
        """Return the code with which our session refuses it."""
        kind, body = await self.answer()
        assert kind in (d.REQUEST_ERROR, 0x08, 0x0F, 0x13, 0x19, 0x1F), f"a message of type {kind:#x}"
        found = read_number(self.peer.wire, body)
        assert found is not None
        return found[0]

    async def accepted(self) -> Message:
        """Return the message by which our session accepts it."""
        kind, body = await self.answer()
        assert kind in (d.SUBSCRIBE_OK, d.FETCH_OK, d.REQUEST_OK, 0x12, 0x1E, 0x0E), f"a message of type {kind:#x}"
        return kind, body

    async def over(self) -> None:
        """Read until our session ends its half: by FIN, by a reset or by the message that says so."""
        with trio.fail_after(10):
            try:
                while True:
                    message = await self.receive()
                    if message is None or (self.stream is None and message[0] in (d.PUBLISH_DONE, d.UNSUBSCRIBE)):
                        return
            except moqt.StreamReset:
                return

    def cancel(self) -> None:
        """Cancel a request of the peer's."""
        if self.stream is not None:
            self.stream.reset(d.CANCELLED)
            self.stream.stop(d.CANCELLED)
        else:
            self.peer.write_control(self.peer.wire.message(d.UNSUBSCRIBE, self.peer.wire.number(self.request_id)))


@attrs.define(eq=False)
class DraftPeer:
    """The other side of a session of ours.

    Attributes:
        connection: Its connection, without a session.
        session: Our session.
        wire: The draft's bytes.
        control: Where it writes SETUP and GOAWAY, and up to 16 the requests; None before its SETUP.
    """

    connection: MemoryConnection
    session: moqt.Session
    wire: DraftWire
    control: SendStream | BidiStream | None
    ours: AsyncExitStack
    _is_client: bool
    _next_id: int
    _control_messages: Messages | None = None
    _exchanges: dict[int, Exchange] = attrs.Factory(dict)
    _asked: deque[Exchange] = attrs.Factory(deque)
    _first_messages: dict[Exchange, Message] = attrs.Factory(dict)
    session_messages: list[Message] = attrs.Factory(list)

    def next_id(self) -> int:
        """Allocate an id of the peer's."""
        request_id = self._next_id
        self._next_id += 2
        return request_id

    def write_control(self, data: bytes, *, fin: bool = False) -> None:
        """Write on the peer's control stream."""
        assert self.control is not None
        self.control.write(data, fin=fin)

    async def read_control(self) -> None:
        """Sort the next message of a shared control stream to its exchange (up to 16)."""
        assert self._control_messages is not None
        message = await self._control_messages.next()
        assert message is not None, "our session ended its control stream"
        kind, body = message
        if kind in _OF_SESSION:
            self.session_messages.append(message)
            return
        found = read_number(self.wire, body)
        assert found is not None
        request_id, offset = found
        if kind in _OPENING:
            exchange = self._exchanges[request_id] = Exchange(self, request_id, None, None)
            self._first_messages[exchange] = message
            self._asked.append(exchange)
            return
        if kind == d.SUBSCRIBE_UPDATE:
            existing = read_number(self.wire, body[offset:])
            assert existing is not None
            request_id = existing[0]
        if request_id in self._exchanges:
            self._exchanges[request_id].arrived.append(message)

    def _own_stream(self, kind: int) -> bool:
        return not self.wire.shared or (self.wire.draft == 16 and kind == d.SUBSCRIBE_NAMESPACE_16)

    # -- the peer's requests -----------------------------------------------------------------------------------

    async def request(self, data: bytes, request_id: int = 0, *, fin: bool = False) -> Exchange:
        """Make a request; `data` is its first message, or other bytes in its place."""
        found = read_number(self.wire, data)
        if self._own_stream(-1 if found is None else found[0]):
            stream = await self.connection.open_bidi()
            stream.write(data, fin=fin)
            return Exchange(self, request_id, stream, Messages(self.wire, stream))
        exchange = self._exchanges[request_id] = Exchange(self, request_id, None, None)
        self.write_control(data)
        return exchange

    async def subscribe(self, path: bytes = b"b", track: bytes = b"t", parameters: bytes | None = None) -> Exchange:
        """Subscribe to a track."""
        request_id = self.next_id()
        namespace = tuple(path.split(b"/"))
        return await self.request(self.wire.subscribe(request_id, namespace, track, parameters=parameters), request_id)

    async def update(self, exchange: Exchange) -> None:
        """Update a request of the peer's, without a change."""
        request_id = self.next_id()
        # Where all share one stream, the answer has the id of the update.
        self._exchanges[request_id] = exchange
        exchange.write(self.wire.update(request_id, exchange.request_id))

    # -- requests of our session -------------------------------------------------------------------------------

    async def asked(self, kind: int) -> tuple[Exchange, bytes]:
        """Take the next request of our session, which is of this kind; return it, and its body from its id on."""
        with trio.fail_after(10):
            if self._own_stream(kind):
                stream = await accept_bidi(self.connection)
                messages = Messages(self.wire, stream)
                message = await messages.next()
                assert message is not None
                found = read_number(self.wire, message[1])
                assert found is not None
                exchange = Exchange(self, found[0], stream, messages)
            else:
                while not self._asked:
                    await self.read_control()
                exchange = self._asked.popleft()
                message = self._first_messages.pop(exchange)
        assert message[0] == kind, f"a request of type {message[0]:#x}"
        return exchange, message[1]

    async def subscription(self, path: str = "b", track: str = "t") -> tuple[moqt.Subscription, Exchange]:
        """Have our session subscribe; return its subscription, and the request at the peer."""
        subscription = await self.ours.enter_async_context(self.session.subscribe(path, track))
        exchange, _ = await self.asked(d.SUBSCRIBE)
        return subscription, exchange

    async def accepted(
        self, alias: int = 7, largest: tuple[int, int] | None = None
    ) -> tuple[moqt.Subscription, Exchange]:
        """Have our session subscribe, and accept it."""
        subscription, exchange = await self.subscription()
        exchange.write(self.wire.subscribe_ok(exchange.request_id, alias, largest))
        await settled()
        return subscription, exchange

    # -- objects -----------------------------------------------------------------------------------------------

    async def send(self, data: bytes, *, fin: bool = False) -> SendStream:
        """Open a unidirectional stream with these bytes."""
        stream = await self.connection.open_uni()
        stream.write(data, fin=fin)
        return stream

    async def receive_stream(self) -> ReceiveStream:
        """Take the next unidirectional stream of our session."""
        with trio.fail_after(10):
            return await accept_uni(self.connection)

    async def receive_datagram(self) -> bytes:
        with trio.fail_after(10):
            return await receive_datagram(self.connection)

    # -- what became of the session ----------------------------------------------------------------------------

    async def check_alive(self) -> None:
        """Return when our session still answers: it refuses a track that is not there."""
        assert self.session.closed is None, self.session.closed
        exchange = await self.subscribe(b"b", b"absent")
        assert await exchange.refusal() in (d.DOES_NOT_EXIST, 0x4)
        assert self.session.closed is None

    async def check_closed(self, code: int = d.PROTOCOL_VIOLATION) -> None:
        """Return when our session has closed with this code."""
        with trio.fail_after(10):
            error = await self.connection.wait_closed()
        assert isinstance(error, moqt.SessionClosed)
        assert (error.by_peer, error.remote_code) == (True, code), error


@asynccontextmanager
async def draft_peer(
    name: str,
    *,
    client: bool = False,
    setup: bool = True,
    limits: moqt.Limits | None = None,
    peer_limits: moqt.Limits | None = None,
    options: bytes | None = None,
) -> AsyncIterator[DraftPeer]:
    """Run a session of ours on a draft, against a connection without a session.

    Our session publishes broadcast `b`, in which track `t` has a group 3 with the frames `x` and `y`, and is open.

    Args:
        name: The draft.
        client: True for a session of ours that is the client's.
        setup: True for a peer that has sent its SETUP.
        limits: Those of our session.
        peer_limits: Those of the peer.
        options: What is in the peer's SETUP.
    """
    wire, dialect = DraftWire(name), dialects.get(name)
    # A track that is not there is refused at once.
    limits = attrs.evolve(limits or moqt.Limits(), track_wait_timeout=0.01)
    theirs = peer_limits or moqt.Limits()
    sides = (limits, theirs) if client else (theirs, limits)
    async with open_memory_pair(client_limits=sides[0], limits=sides[1], protocol=dialect.alpns[0]) as pair:
        own, peer = pair if client else reversed(pair)
        peer.code_mapping = HTTP3_CODES
        control: SendStream | BidiStream | None = None
        greeting: trio.Nursery
        async with trio.open_nursery() as greeting:
            if wire.shared:

                async def greet() -> None:
                    nonlocal control
                    control = await accept_bidi(peer) if client else await peer.open_bidi()
                    if setup:
                        control.write(wire.setup(client=not client, options=options))

                greeting.start_soon(greet)
            elif setup:
                control = await peer.open_uni()
                control.write(wire.setup(client=not client, options=options))
            async with run_session(own, [dialect], limits=limits, path="/") as session:
                await settled()
                broadcast = moqt.Broadcast()
                group = broadcast.track("t", max_age=60).open_group(3)
                await group.send(b"x")
                await group.send(b"y")
                try:
                    async with AsyncExitStack() as ours:
                        await ours.enter_async_context(session.publish("b", broadcast))
                        messages: Messages | None = None
                        if wire.shared and control is not None:
                            messages = Messages(wire, control)  # type: ignore[arg-type]
                        elif not wire.shared:
                            with trio.fail_after(10):
                                assert (await Messages(wire, await accept_uni(peer)).next()) is not None
                        yield DraftPeer(peer, session, wire, control, ours, client, 1 if client else 0, messages)
                        # No test reads to the end.
                        peer.close()
                        await session.wait_closed()
                finally:
                    peer.close()
