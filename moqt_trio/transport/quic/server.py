"""The server's UDP endpoint: sockets, the routing of datagrams by connection id, and who may come in.

One task per socket reads; it feeds the engines synchronously and awaits nothing but the socket. Each connection has
a task that drives it, and, once its handshake is complete, one that runs the handler. `connect_quic` is here too, so
that both ends are found in one place.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable

import attrs
import trio

from ...codes import SessionCode
from ...errors import SessionClosed, printable
from .aioquic.packets import AioquicFactory
from .client import connect_quic
from .connection import QuicConnection
from .engine import CONNECTION_ID_BYTES, Address, EngineFactory, LongHeader, Validated
from .settings import MIN_PACKET, ServerSettings
from .udp import MAX_PAYLOAD, UdpSocket, bind_ports, packet_size, plain_address

__all__ = ["ListenerStatistics", "QuicListener", "connect_quic", "serve_quic"]

_LOG = logging.getLogger(__name__)

Handler = Callable[[QuicConnection], Awaitable[None]]

_BATCH = 64
"""Datagrams that are read from one socket before anything else runs."""
_LINGER = 1.0
"""Seconds for which packets of an ended connection are answered with its end, or swallowed."""
_LONG_HEADER = 0x80


@attrs.frozen(kw_only=True)
class ListenerStatistics:
    """Numbers of one listener.

    Attributes:
        connections: Connections that are open, handshakes included.
        half_open: Handshakes that are not complete.
        accepted: Handshakes that were completed since the start.
        refused: Handshakes that were turned away because a limit was reached.
        retried: Clients that were made to prove their address.
    """

    connections: int = 0
    half_open: int = 0
    accepted: int = 0
    refused: int = 0
    retried: int = 0


@attrs.define(eq=False)
class _Farewell:
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

    def __init__(self, handler: Handler, ports: list[UdpSocket], settings: ServerSettings) -> None:
        self.addresses = [plain_address(port.address) for port in ports]
        self.port = self.addresses[0][1]
        self._handler = handler
        self._ports = ports
        self._settings = settings
        self._factory: EngineFactory = AioquicFactory()
        self._routes: dict[bytes, QuicConnection] = {}
        self._connections: dict[QuicConnection, set[bytes]] = {}
        self._half_open: set[QuicConnection] = set()
        self._farewells: deque[_Farewell] = deque()
        self._farewell_routes: dict[bytes, _Farewell] = {}
        self._drivers: trio.Nursery | None = None
        self._handlers: trio.Nursery | None = None
        self._closing = False
        self._finished = trio.Event()
        self._accepted = 0
        self._refused = 0
        self._retried = 0

    def __repr__(self) -> str:
        where = ", ".join(f"{host}:{port}" for host, port in self.addresses)
        return f"<QuicListener {where} connections={len(self._connections)}>"

    def statistics(self) -> ListenerStatistics:
        """Returns the listener's numbers."""
        return ListenerStatistics(
            connections=len(self._connections),
            half_open=len(self._half_open),
            accepted=self._accepted,
            refused=self._refused,
            retried=self._retried,
        )

    async def aclose(self) -> None:
        """Cancels the handlers, closes every connection and socket, and waits until that is done."""
        self._closing = True
        if self._handlers is not None:
            self._handlers.cancel_scope.cancel()
        await self._finished.wait()
        await trio.lowlevel.checkpoint()

    # -- tasks ---------------------------------------------------------------------------------------------

    async def _run(self, task_status: trio.TaskStatus[QuicListener]) -> None:
        try:
            async with trio.open_nursery() as outer:
                scope = await outer.start(self._run_drivers)
                try:
                    async with trio.open_nursery() as self._handlers:
                        task_status.started(self)
                        if not self._closing:
                            await trio.sleep_forever()
                finally:
                    self._closing = True
                    for connection in list(self._connections):
                        connection.close()
                    scope.cancel()
        finally:
            for port in self._ports:
                port.close()
            self._finished.set()

    async def _run_drivers(self, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        # Shielded: what handlers do to clean up needs the network until they have ended.
        with trio.CancelScope(shield=True) as scope:
            async with trio.open_nursery() as self._drivers:
                for port in self._ports:
                    self._drivers.start_soon(self._read, port)
                task_status.started(scope)

    async def _read(self, port: UdpSocket) -> None:
        receive = port.socket.recvfrom
        routes = self._routes
        while True:
            await port.wait_readable()
            now = trio.current_time()
            touched: dict[QuicConnection, None] = {}
            for _ in range(_BATCH):
                try:
                    data, address = receive(MAX_PAYLOAD)
                except BlockingIOError:
                    break
                except OSError:
                    # What ICMP says about datagrams that were sent earlier.
                    continue
                connection: QuicConnection | None = None
                if len(data) > CONNECTION_ID_BYTES and not data[0] & _LONG_HEADER:
                    connection = routes.get(data[1 : 1 + CONNECTION_ID_BYTES])
                    if connection is None:
                        self._repeat_farewell(port, data[1 : 1 + CONNECTION_ID_BYTES])
                elif data:
                    try:
                        connection = self._route_long_untrusted(port, data, address, now)
                    except Exception:
                        _LOG.exception("a datagram from %s could not be read", plain_address(address))
                if connection is not None:
                    connection.receive_untrusted(data, address, port, now)
                    touched[connection] = None
            for connection in touched:
                connection.settle()
                if not connection.established and connection in self._connections:
                    # Its first packet was no handshake: nothing is kept for it.
                    connection.lose("no handshake")

    async def _handle(self, connection: QuicConnection) -> None:
        code, reason = SessionCode.INTERNAL_ERROR, "the server failed"
        try:
            await self._handler(connection)
            code, reason = SessionCode.NO_ERROR, ""
        except Exception as error:
            if _only_closed(error):
                _LOG.debug("%r: %s", connection, error)
            else:
                _LOG.exception("%r: the handler failed", connection)
        except BaseException:
            code, reason = SessionCode.NO_ERROR, ""
            raise
        finally:
            connection.close(code, reason)

    # -- routing -------------------------------------------------------------------------------------------

    def _route_long_untrusted(
        self, port: UdpSocket, data: bytes, address: Address, now: float
    ) -> QuicConnection | None:
        header = self._factory.parse_header_untrusted(data)
        if header is None:
            return None
        if not self._factory.supports(header.version):
            # Only for what could be a first packet, and never for a negotiation itself: two servers that answer
            # each other's answers would not stop (RFC 9000, sections 6.1 and 14.1).
            if header.kind != "negotiation" and len(data) >= MIN_PACKET:
                port.send(self._factory.version_negotiation(header), address)
            return None
        connection = self._routes.get(header.destination_id)
        if connection is not None:
            return connection
        if header.destination_id in self._farewell_routes:
            self._repeat_farewell(port, header.destination_id)
            return None
        if header.kind != "initial" or len(data) < MIN_PACKET or self._closing:
            return None
        return self._accept(port, header, address, now)

    def _accept(self, port: UdpSocket, header: LongHeader, address: Address, now: float) -> QuicConnection | None:
        settings, limits = self._settings, self._settings.limits
        if len(self._connections) >= limits.max_connections or len(self._half_open) >= limits.max_half_open:
            self._refused += 1
            return None
        validated: Validated | None = None
        if header.token:
            validated = self._factory.check_token_untrusted(header, address, now)
        if validated is None and len(self._half_open) >= limits.max_half_open // 2:
            self._retried += 1
            port.send(self._factory.retry(header, address, now), address)
            return None
        size = packet_size(settings.max_datagram_size, plain_address(address))
        try:
            connection = QuicConnection(
                lambda handler: self._factory.server(settings, size, handler, header, validated),
                is_client=False,
                limits=limits,
                owner=self,
                port=port,
                address=address,
            )
        except Exception:
            _LOG.exception("a connection from %s could not be set up", printable(str(plain_address(address))))
            return None
        self._connections[connection] = set()
        self._half_open.add(connection)
        for connection_id in (header.destination_id, connection.connection_id):
            self.connection_id_issued(connection, connection_id)
        assert self._drivers is not None
        self._drivers.start_soon(connection.drive)
        return connection

    def _repeat_farewell(self, port: UdpSocket, connection_id: bytes) -> None:
        farewell = self._farewell_routes.get(connection_id)
        if farewell is None:
            return
        farewell.received += 1
        # The first, second, fourth … packet is answered: the peer may have missed the end (RFC 9000, section 10.2.1).
        if not farewell.received & (farewell.received - 1):
            for data, address in farewell.datagrams:
                port.send(data, address)

    # -- Owner ---------------------------------------------------------------------------------------------

    def connection_ready(self, connection: QuicConnection) -> None:
        self._half_open.discard(connection)
        self._accepted += 1
        if self._closing or self._handlers is None:
            connection.close()
        else:
            self._handlers.start_soon(self._handle, connection)

    def connection_id_issued(self, connection: QuicConnection, connection_id: bytes) -> None:
        self._routes[connection_id] = connection
        self._connections[connection].add(connection_id)

    def connection_id_retired(self, connection: QuicConnection, connection_id: bytes) -> None:
        self._routes.pop(connection_id, None)
        self._connections[connection].discard(connection_id)

    def connection_ended(self, connection: QuicConnection, farewell: list[tuple[bytes, Address]]) -> None:
        self._half_open.discard(connection)
        now = trio.current_time()
        while self._farewells and (
            self._farewells[0].expires <= now or len(self._farewells) >= self._settings.limits.max_connections
        ):
            for connection_id in self._farewells.popleft().connection_ids:
                self._farewell_routes.pop(connection_id, None)
        ended = _Farewell(now + _LINGER, tuple(self._connections.pop(connection, ())), farewell)
        self._farewells.append(ended)
        for connection_id in ended.connection_ids:
            self._routes.pop(connection_id, None)
            self._farewell_routes[connection_id] = ended


async def serve_quic(
    handler: Handler,
    host: str | None,
    port: int,
    settings: ServerSettings,
    *,
    task_status: trio.TaskStatus[QuicListener] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves QUIC until cancelled or until the listener is closed; every peer is told then.

    `task_status.started` is called with the `QuicListener` once the sockets are bound. For each connection whose
    handshake is complete `handler(connection)` runs in a task of its own. When it returns, the connection is closed
    with code 0; when it raises, with INTERNAL_ERROR, and the exception is logged. Neither touches the listener.

    Args:
        handler: What to do with a connection.
        host: A name or address. "localhost" is both loopback addresses; None, "" and "::" are all addresses.
        port: The UDP port; 0 picks one.
        settings: What to offer, and the limits.

    Raises:
        OSError: An address cannot be bound; the message names it.
    """
    listener = QuicListener(handler, await bind_ports(host, port), settings)
    await listener._run(task_status)


def _only_closed(error: Exception) -> bool:
    if isinstance(error, ExceptionGroup):
        return all(_only_closed(inner) for inner in error.exceptions)
    return isinstance(error, SessionClosed)
