"""Which connections hold places for nothing, by the network of their peer, and which of them goes first.

A listener that is full makes room for a client that has proved its address. The one that leaves is the oldest of the
network that holds most of such places: who takes many loses one of them, and who takes one has it for as long as can
be. A client that means it needs its place for a few round trips only.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import QuicConnection

_IPV6_NETWORK = 64
"""Bits of an IPv6 address that name one subscriber at least: the others are its own to choose (RFC 7934, section 6)."""


def network_of(host: str) -> str:
    """Return what counts as one peer: an IPv4 address, or the first 64 bits of an IPv6 address."""
    address, _, zone = host.partition("%")
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return host
    if parsed.version == 4:
        return host
    network = int(parsed) >> (128 - _IPV6_NETWORK)
    return f"{network:x}%{zone}"


class Shares:
    """A set of connections, in the order in which they were added, by network."""

    def __init__(self) -> None:
        self._networks: dict[QuicConnection, str] = {}
        self._members: dict[str, dict[QuicConnection, None]] = {}

    def __len__(self) -> int:
        return len(self._networks)

    def __contains__(self, connection: QuicConnection) -> bool:
        return connection in self._networks

    def add(self, connection: QuicConnection) -> None:
        """Add a connection that is not in the set, or leave it where it is."""
        if connection not in self._networks:
            # Remembered: a peer may move.
            network = self._networks[connection] = network_of(connection.peer[0]) if connection.peer else ""
            self._members.setdefault(network, {})[connection] = None

    def discard(self, connection: QuicConnection) -> None:
        """Remove a connection, if it is in the set."""
        network = self._networks.pop(connection, None)
        if network is not None:
            members = self._members[network]
            del members[connection]
            if not members:
                del self._members[network]

    def surplus(self) -> QuicConnection | None:
        """Return the oldest connection of the network that has most of them; None when there are none."""
        if not self._members:
            return None
        network = max(self._members, key=lambda name: len(self._members[name]))
        return next(iter(self._members[network]))
