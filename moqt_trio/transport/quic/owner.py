"""What owns a connection's socket: the interface of listeners and of connection attempts to their connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from ..sockets import Address

ConnectionT = TypeVar("ConnectionT", contravariant=True)


class Owner(Protocol[ConnectionT]):
    """Shares a socket between connections: the listener, or a connection attempt."""

    def connection_ready(self, connection: ConnectionT) -> None:
        """Called when the handshake is complete."""

    def connection_in_use(self, connection: ConnectionT, in_use: bool) -> None:
        """Called when a session or a request begins to use the connection, and when there is none any more."""

    def connection_id_issued(self, connection: ConnectionT, connection_id: bytes) -> None:
        """Called when datagrams with a further id belong to this connection."""

    def connection_id_retired(self, connection: ConnectionT, connection_id: bytes) -> None:
        """Called when datagrams with this id no longer belong to it."""

    def connection_ended(self, connection: ConnectionT, closing: list[tuple[bytes, Address]]) -> None:
        """Called when the connection has ended.

        Args:
            connection: The connection.
            closing: The datagrams that inform the peer, and may be sent again; empty when it knows.
        """
