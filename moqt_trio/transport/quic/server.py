"""The server's UDP endpoint: sockets, the routing of datagrams by connection id, and the limits on handshakes.

One task per socket reads; it feeds the engines synchronously and awaits nothing but the socket. Each connection has
a task that sends and keeps the time, and, once its handshake is complete, one that runs the handler.

A connection that has ended leaves a record for its closing period: packets that still arrive for its ids are answered
with the packets that closed it, or dropped (RFC 9000, section 10.2). Packets for ids that no connection has are
answered with a stateless reset: they are of connections that an earlier process had, or whose record has gone.

When `Limits.max_connections` or `max_half_open` is reached, a client that has proved its address gets the place of a
connection that uses its own for nothing, see `shares.py`: one whose handshake is not complete, or that has neither a
session nor a request. Where there is none the client is refused with CONNECTION_REFUSED, a packet that costs no state.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs
import trio

from ...codes import SessionCode
from ...errors import SessionClosed, printable
from ...limits import MIN_PACKET
from ...loggers import Logger
from ...tasks import consists_of
from ..sockets import Address, UdpSocket, bind_udp, plain_address
from .connection import QuicConnection
from .engine import CONNECTION_ID_BYTES, EngineFactory, LongHeader, Validated
from .shares import Shares
from .stateless_reset import RateLimit, StatelessResets, key_of_listener

if TYPE_CHECKING:
    from .settings import ServerSettings

logger = Logger(__name__)

Handler = Callable[[QuicConnection], Awaitable[None]]

_CLOSING_PERIOD = 1.0
"""Seconds of the closing period: the three probe timeouts that RFC 9000 asks for, on a path with a round trip of up to
0.3 s. On a slower path a peer that missed the end learns of it by its idle timeout."""
_LONG_HEADER = 0x80
"""The bit of a packet's first byte that tells a long header (RFC 9000, section 17.2)."""


@attrs.frozen(kw_only=True)
class QuicListenerStatistics:
    """Numbers of one UDP listener.

    Attributes:
        connections: Connections that are open, handshakes included.
        half_open: Handshakes that are not complete.
        accepted: Handshakes that were completed since the start.
        refused: Clients that were refused because `Limits.max_connections` was reached; some of them without an answer.
        displaced: Connections without a session or a request that were ended for another client.
        retried: Clients that had to prove their address first (RFC 9000, section 8.1.2).
    """

    connections: int = 0
    half_open: int = 0
    accepted: int = 0
    refused: int = 0
    displaced: int = 0
    retried: int = 0


@attrs.define(eq=False)
class _Closing:
    """A connection in its closing period.

    Attributes:
        expires: When the period ends.
        connection_ids: The ids whose packets are answered.
        datagrams: The packets that closed the connection; empty when the peer knows.
        received: Packets that arrived since.
    """

    expires: float
    connection_ids: tuple[bytes, ...]
    datagrams: list[tuple[bytes, Address]]
    received: int = 0


class QuicListener:
    """A server's sockets and connections. It is the `Owner` of its connections.

    Attributes:
        addresses: Host and port of every socket.
        port: The port number, the same for all.
    """

    def __init__(
        self, handler: Handler, sockets: list[UdpSocket], settings: ServerSettings, engine: EngineFactory
    ) -> None:
        self.addresses = [plain_address(sock.address) for sock in sockets]
        self.port = self.addresses[0][1]
        self._handler = handler
        self._sockets = sockets
        key = key_of_listener(settings.reset_key, self.addresses)
        self._settings = attrs.evolve(settings, reset_key=key)
        self._resets = StatelessResets(key, settings.limits.max_resets_per_second)
        self._engine = engine
        self._routes: dict[bytes, QuicConnection] = {}
        self._connections: dict[QuicConnection, set[bytes]] = {}
        self._half_open = Shares()
        # Those, and the ones that are complete and have neither a session nor a request.
        self._waiting = Shares()
        self._closing: deque[_Closing] = deque()
        self._closing_routes: dict[bytes, _Closing] = {}
        self._tasks: trio.Nursery | None = None
        self._handlers: trio.Nursery | None = None
        self._leaving = False
        self._accepted = 0
        self._refused = 0
        self._displaced = 0
        self._refusals = RateLimit(settings.limits.max_refusals_per_second)
        self._refusal_logged = False
        self._retried = 0

    def __repr__(self) -> str:
        where = ", ".join(f"{host}:{port}" for host, port in self.addresses)
        return f"<QuicListener {where} connections={len(self._connections)}>"

    def statistics(self) -> QuicListenerStatistics:
        """Return the listener's numbers."""
        return QuicListenerStatistics(
            connections=len(self._connections),
            half_open=len(self._half_open),
            accepted=self._accepted,
            refused=self._refused,
            displaced=self._displaced,
            retried=self._retried,
        )

    # -- tasks ---------------------------------------------------------------------------------------------

    @trio.lowlevel.enable_ki_protection
    async def run(self, *, task_status: trio.TaskStatus[QuicListener]) -> None:
        """Serve until cancelled; then cancel the handlers, close every connection, and close the sockets."""
        try:
            async with trio.open_nursery() as outer:
                scope = await outer.start(self._run_connections)
                try:
                    async with trio.open_nursery() as self._handlers:
                        try:
                            task_status.started(self)
                            await trio.sleep_forever()
                        finally:
                            # The nursery closes when the last handler has ended, before this task goes on.
                            self._handlers = None
                finally:
                    self._leaving = True
                    for connection in list(self._connections):
                        connection.close()
                    scope.cancel()
        finally:
            for sock in self._sockets:
                sock.close()

    @trio.lowlevel.enable_ki_protection
    async def _run_connections(self, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        # Shielded: what handlers do to clean up needs the network until they have ended.
        with trio.CancelScope(shield=True) as scope:
            async with trio.open_nursery() as self._tasks:
                for sock in self._sockets:
                    self._tasks.start_soon(sock.read_forever, self._received)
                task_status.started(scope)

    def _received(self, datagrams: list[tuple[bytes, Address]], sock: UdpSocket, now: float) -> None:
        """Called with the datagrams that a socket had waiting: pass them to their connections."""
        routes = self._routes
        arrived: dict[QuicConnection, list[tuple[bytes, Address]]] = {}
        for data, address in datagrams:
            connection: QuicConnection | None = None
            if len(data) > CONNECTION_ID_BYTES and not data[0] & _LONG_HEADER:
                connection = routes.get(data[1 : 1 + CONNECTION_ID_BYTES])
                if connection is None:
                    self._answer_unknown(sock, data, address, now)
            elif data:
                try:
                    connection = self._route_long_untrusted(sock, data, address, now)
                except Exception:
                    logger.exception("a datagram from %s could not be read", plain_address(address))
            if connection is not None:
                arrived.setdefault(connection, []).append((data, address))
        for connection, routed in arrived.items():
            connection.receive_untrusted(routed, sock, now)
            if connection in self._half_open and not connection.established:
                # Its first packet began no handshake: nothing is kept for it.
                connection.lose("no handshake")

    @trio.lowlevel.enable_ki_protection
    async def _handle(self, connection: QuicConnection) -> None:
        code, reason = SessionCode.INTERNAL_ERROR, "the server failed"
        try:
            await self._handler(connection)
            code, reason = SessionCode.NO_ERROR, ""
        except Exception as error:
            if consists_of(error, SessionClosed):
                logger.debug("%r: %s", connection, error)
            else:
                logger.exception("%r: the handler failed", connection)
        except BaseException:
            code, reason = SessionCode.NO_ERROR, ""
            raise
        finally:
            connection.close(code, reason)

    # -- routing -------------------------------------------------------------------------------------------

    def _route_long_untrusted(
        self, sock: UdpSocket, data: bytes, address: Address, now: float
    ) -> QuicConnection | None:
        header = self._engine.parse_header_untrusted(data)
        if header is None:
            return None
        if not self._engine.supports(header.version):
            # Only for what could be a first packet, and never for a negotiation itself: two servers that answer
            # each other's answers would not stop (RFC 9000, sections 6.1 and 14.1).
            if header.kind != "negotiation" and len(data) >= MIN_PACKET:
                sock.send(self._engine.version_negotiation(header), address)
            return None
        connection = self._routes.get(header.destination_id)
        if connection is not None:
            return connection
        if header.destination_id in self._closing_routes:
            self._answer_closed(sock, header.destination_id)
            return None
        if header.kind != "initial" or len(data) < MIN_PACKET or self._leaving:
            return None
        return self._accept(sock, header, address, now)

    def _accept(self, sock: UdpSocket, header: LongHeader, address: Address, now: float) -> QuicConnection | None:
        settings, limits = self._settings, self._settings.limits
        full = len(self._connections) >= limits.max_connections
        if full and not self._waiting:
            self._refuse(sock, header, address, now)
            return None
        validated: Validated | None = None
        if header.token:
            validated = self._engine.check_token_untrusted(header, address, now)
        if validated is None and (full or len(self._half_open) >= limits.max_half_open // 2):
            self._retried += 1
            sock.send(self._engine.retry(header, address, now), address)
            return None
        if full:
            self._displace(self._waiting)
        if len(self._half_open) >= limits.max_half_open:
            self._displace(self._half_open)
        try:
            connection = QuicConnection(
                lambda handler: self._engine.server(settings, handler, header, validated),
                is_client=False,
                limits=limits,
                owner=self,
                sock=sock,
                address=address,
            )
        except Exception:
            logger.exception("a connection from %s could not be set up", printable(str(plain_address(address))))
            return None
        self._connections[connection] = set()
        self._half_open.add(connection)
        self._waiting.add(connection)
        for connection_id in (header.destination_id, connection.connection_id):
            self.connection_id_issued(connection, connection_id)
        assert self._tasks is not None
        self._tasks.start_soon(connection.run)
        return connection

    def _displace(self, among: Shares) -> None:
        """End a connection that holds its place for nothing."""
        connection = among.surplus()
        if connection is not None:
            self._displaced += 1
            connection.lose("the server needs the place for another client")

    def _refuse(self, sock: UdpSocket, header: LongHeader, address: Address, now: float) -> None:
        self._refused += 1
        if not self._refusal_logged:
            self._refusal_logged = True
            logger.warning(
                "a client was refused: Limits.max_connections (%d) is reached; statistics() counts further ones",
                self._settings.limits.max_connections,
            )
        if self._refusals.allows(now):
            sock.send(self._engine.refusal(header, "too many connections"), address)

    def _answer_unknown(self, sock: UdpSocket, data: bytes, address: Address, now: float) -> None:
        """Answer a packet with a short header whose id no connection has."""
        connection_id = data[1 : 1 + CONNECTION_ID_BYTES]
        if connection_id in self._closing_routes:
            self._answer_closed(sock, connection_id)
        elif not self._settings.ids.owns(connection_id):
            # Another process on this port may have the connection, and a reset would end it.
            pass
        elif (reset := self._resets.answer(data, connection_id, now)) is not None:
            sock.send(reset, address)

    def _answer_closed(self, sock: UdpSocket, connection_id: bytes) -> None:
        closing = self._closing_routes.get(connection_id)
        if closing is None:
            return
        closing.received += 1
        # The first, second, fourth … packet is answered: the peer may have missed the end (RFC 9000, section 10.2.1).
        if not closing.received & (closing.received - 1):
            for data, address in closing.datagrams:
                sock.send(data, address)

    # -- Owner ---------------------------------------------------------------------------------------------

    def connection_ready(self, connection: QuicConnection) -> None:
        self._half_open.discard(connection)
        self._waiting.discard(connection)
        self._accepted += 1
        if self._handlers is None:
            connection.close()
        else:
            self._handlers.start_soon(self._handle, connection)

    def connection_in_use(self, connection: QuicConnection, in_use: bool) -> None:
        if in_use:
            self._waiting.discard(connection)
        elif connection in self._connections:
            self._waiting.add(connection)

    def connection_id_issued(self, connection: QuicConnection, connection_id: bytes) -> None:
        self._routes[connection_id] = connection
        self._connections[connection].add(connection_id)

    def connection_id_retired(self, connection: QuicConnection, connection_id: bytes) -> None:
        self._routes.pop(connection_id, None)
        self._connections[connection].discard(connection_id)

    def connection_ended(self, connection: QuicConnection, closing: list[tuple[bytes, Address]]) -> None:
        self._half_open.discard(connection)
        self._waiting.discard(connection)
        now = trio.current_time()
        while self._closing and (
            self._closing[0].expires <= now or len(self._closing) >= self._settings.limits.max_connections
        ):
            for connection_id in self._closing.popleft().connection_ids:
                self._closing_routes.pop(connection_id, None)
        ended = _Closing(now + _CLOSING_PERIOD, tuple(self._connections.pop(connection, ())), closing)
        for connection_id in ended.connection_ids:
            self._routes.pop(connection_id, None)
        # What began no handshake has nothing to repeat. The packet may have been damaged on its way, or be forged: the
        # client sends it again, to the same id.
        if connection.established:
            self._closing.append(ended)
            for connection_id in ended.connection_ids:
                self._closing_routes[connection_id] = ended
        if len(self._connections) < self._settings.limits.max_connections // 2:
            self._refusal_logged = False


@trio.lowlevel.enable_ki_protection
async def serve_quic(
    handler: Handler,
    host: str | None,
    port: int,
    settings: ServerSettings,
    engine: EngineFactory,
    *,
    sockets: list[UdpSocket] | None = None,
    task_status: trio.TaskStatus[QuicListener] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve QUIC until cancelled; every connection is closed then, and its peer informed.

    `task_status.started` is called with the `QuicListener` once the sockets are bound. For each connection whose
    handshake is complete `handler(connection)` runs in a task of its own. When it returns, the connection is closed
    with code 0; when it raises, with INTERNAL_ERROR, and the exception is logged. Neither touches the listener.

    Args:
        handler: What to do with a connection.
        host: A name or address. "localhost" is both loopback addresses; None, "" and "::" are all addresses.
        port: The UDP port; 0 picks one.
        settings: What to offer, and the limits.
        engine: Makes the QUIC engine of each connection.
        sockets: Sockets that are bound, in place of those that host and port would give; they are closed at the end.

    Raises:
        OSError: An address cannot be bound; the message names it.
    """
    listener = QuicListener(handler, sockets or await bind_udp(host, port), settings, engine)
    await listener.run(task_status=task_status)
