"""Stateless reset, as a server sends it: how it tells peers that it knows nothing of their connection.

A server that was restarted cannot read the packets of the connections that it had. It answers them with a token that
the peer got when the connection began, and that it can still derive from the connection id and a key that outlives the
process (RFC 9000, section 10.3). The engine gives the tokens out and recognizes those of its peer.
"""

from __future__ import annotations

import hmac
import os

RESET_KEY_BYTES = 32
"""Bytes of a key at least: as many as the hash has."""
TOKEN_BYTES = 16
SHORTEST_RESET = 21
"""Bytes of the shortest reset: what the shortest packet has that a peer would accept (RFC 9000, section 10.3)."""
_LONGEST_RESET = 42
"""Bytes of the longest: no more are needed to look like any other packet, and less than most causes have."""


def key_of_listener(key: bytes, addresses: list[tuple[str, int]]) -> bytes:
    """Return the key of one listener.

    Listeners that share a key must not share tokens: packets of a connection of one, sent to another that does not know
    it, would bring out the token that ends it (RFC 9000, section 10.3.2).
    """
    return hmac.digest(key, repr(addresses).encode(), "sha256")


def reset_token(key: bytes, connection_id: bytes) -> bytes:
    """Return the token of a connection id."""
    return hmac.digest(key, connection_id, "sha256")[:TOKEN_BYTES]


class RateLimit:
    """How many packets that cost no state are sent in a second.

    Args:
        per_second: The bound.
    """

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = 0
        self._sent = 0

    def allows(self, now: float) -> bool:
        """Count one more, and return whether it may be sent."""
        if int(now) != self._second:
            self._second, self._sent = int(now), 0
        self._sent += 1
        return self._sent <= self._per_second


class StatelessResets:
    """The resets that a listener sends.

    Args:
        key: The listener's key.
        max_per_second: Packets that are answered in one second; the others are dropped.
    """

    def __init__(self, key: bytes, max_per_second: int) -> None:
        self._key = key
        self._rate = RateLimit(max_per_second)

    def answer(self, packet: bytes, connection_id: bytes, now: float) -> bytes | None:
        """Return the reset for a packet with a short header, or None when it gets none.

        It is smaller than the packet: two endpoints that answer each other's resets come to an end.
        """
        size = min(len(packet) - 1, _LONGEST_RESET)
        if size < SHORTEST_RESET or not self._rate.allows(now):
            return None
        noise = os.urandom(size - TOKEN_BYTES)
        # The two bits that every packet with a short header begins with.
        return bytes([noise[0] & 0x3F | 0x40]) + noise[1:] + reset_token(self._key, connection_id)
