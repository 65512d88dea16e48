"""The ids of requests: this side's, and the peer's, with the limits that each side sets for the other up to draft 16.

A client's ids are even, a server's odd. Every request and every update takes the next one. From draft 17 on requests
have streams, whose number QUIC limits, and may overtake each other. Up to 16 a side says which id it takes first no
more: MAX_REQUEST_ID. Here that is a window, which moves on as requests end, as the streams of QUIC do.

Spec: draft-ietf-moq-transport-18, section 9.1; -16, sections 9.1 and 9.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...codes import SessionCode
from ...errors import RemoteProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_SKIPPING = 1024
"""Request ids of the peer that may come before a lower one: requests of other streams may overtake each other."""
_INVALID_REQUEST_ID = 0x4
_TOO_MANY_REQUESTS = 0x7


def first_limit(parity: int, window: int) -> int:
    """Return the first id that the peer may not use at first.

    Args:
        parity: The peer's first id.
        window: How many of its requests may be open at once.
    """
    return parity + 2 * window


class OwnRequests:
    """The ids of this side's requests.

    Attributes:
        limit: The first id that the peer does not allow yet; None where it sets no limit.
    """

    def __init__(self, first: int, *, limited: bool) -> None:
        self.limit = 0 if limited else None
        self._first = first
        self._next = first

    @property
    def left(self) -> int:
        """How many requests the peer allows now; 1 where it sets no limit."""
        return 1 if self.limit is None else max(0, (self.limit - self._next + 1) // 2)

    def take(self) -> int:
        """Return the next id, for a message that is written at once: the ids on the wire leave out none."""
        request_id = self._next
        self._next += 2
        return request_id

    def has_used(self, request_id: int) -> bool:
        """Return whether an id is that of a request that this side has made."""
        return request_id < self._next and request_id % 2 == self._first % 2

    def allow_untrusted(self, limit: int) -> None:
        """Read a MAX_REQUEST_ID of the peer's. Raises `RemoteProtocolError` when it does not raise the limit."""
        if self.limit is not None and limit <= self.limit:
            raise RemoteProtocolError(
                f"a limit of request ids of {limit} after {self.limit}", code=SessionCode.PROTOCOL_VIOLATION
            )
        self.limit = limit


class PeerRequests:
    """The ids of the peer's requests.

    Args:
        parity: The peer's first id.
        window: How many of its requests may be open at once (up to draft 16); None where streams limit them.
        in_order: True where no id may come before a lower one.

    Attributes:
        limit: The first id that the peer may not use yet; None where it has no limit.
        on_end: Called after each `end`: `raise_limit` may have a new limit then.
    """

    def __init__(self, parity: int, *, window: int | None = None, in_order: bool = False) -> None:
        self._parity = parity
        self._window = window
        self._in_order = in_order
        self._used: set[int] = set()
        self._all_below = parity
        self._ended = 0
        self.on_end: Callable[[], None] | None = None
        self.limit = None if window is None else first_limit(parity, window)

    @property
    def first_unused(self) -> int:
        """The least id that was not used."""
        return self._all_below

    def has_used(self, request_id: int) -> bool:
        """Return whether an id is that of a request that the peer has made."""
        return request_id % 2 == self._parity and (request_id < self._all_below or request_id in self._used)

    def may_be_used(self, request_id: int) -> bool:
        """Return whether an id is that of a request that the peer has made, or one that is still on its way."""
        on_its_way = not self._in_order and self.limit is not None and request_id < self.limit
        return self.has_used(request_id) or (on_its_way and request_id % 2 == self._parity)

    def admit_untrusted(self, request_id: int) -> None:
        """Record an id.

        Raises:
            RemoteProtocolError: It is not one of the peer's, was used before, skips too many, or exceeds the limit; it
                ends the session.
        """
        if request_id % 2 != self._parity or request_id < self._all_below or request_id in self._used:
            raise RemoteProtocolError(f"a request id of {request_id}", code=_INVALID_REQUEST_ID)
        if self.limit is not None and request_id >= self.limit:
            raise RemoteProtocolError(
                f"a request id of {request_id}, where {self.limit} is the limit", code=_TOO_MANY_REQUESTS
            )
        if self._in_order and request_id != self._all_below:
            raise RemoteProtocolError(
                f"a request id of {request_id}, where {self._all_below} is due", code=_INVALID_REQUEST_ID
            )
        self._used.add(request_id)
        while self._all_below in self._used:
            self._used.remove(self._all_below)
            self._all_below += 2
        if len(self._used) > _MAX_SKIPPING:
            raise RemoteProtocolError("request ids that skip too many", code=_INVALID_REQUEST_ID)

    def end(self) -> None:
        """Record that one more request of the peer's is over: it may make another."""
        self._ended += 1
        if self.on_end is not None:
            self.on_end()

    def raise_limit(self) -> int | None:
        """Return a new limit for the peer, once a quarter of the window was given back; None before."""
        if self._window is None or self.limit is None:
            return None
        limit = self._parity + 2 * (self._ended + self._window)
        if limit - self.limit < max(2, self._window // 2):
            return None
        self.limit = limit
        return limit
