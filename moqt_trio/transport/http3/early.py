"""Streams and datagrams that arrive before their session was accepted, held within bounds.

A client may send on a session before the CONNECT is answered, and the network may deliver that before the CONNECT.

Spec: draft-ietf-webtrans-http3, section 4.6.
Limits: max_early_streams, max_early_bytes, max_datagrams, setup_timeout.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs

from ..interface import StreamHandler
from .constants import H3Error

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...errors import MoqtError
    from ...limits import Limits
    from ..interface import AnyStream
    from ..receive_stream import ReceiveStream


def refuse(stream: AnyStream, code: int) -> None:
    """Reset and stop a stream, with an error code of HTTP/3 itself."""
    stream.cancel(code)


class _Held(StreamHandler):
    """Buffers the bytes of one early stream, and counts them."""

    __slots__ = ("_early", "chunks", "fin", "session_id", "since", "stream")

    keeps_after_reset = True

    def __init__(self, early: EarlyArrivals, stream: ReceiveStream, session_id: int, since: float) -> None:
        self._early = early
        self.stream = stream
        self.session_id = session_id
        self.since = since
        self.chunks: list[bytes] = []
        self.fin = False

    def data_received(self, data: bytes, fin: bool) -> None:
        self.chunks.append(data)
        self.fin = fin
        self._early.grow(self, len(data))

    def reset_received(self, code: int) -> None:
        kept = self.stream.kept_after_reset
        if not kept:
            # The session would have no use for a stream that was reset before it began.
            self._early.reject(self)
        elif (surplus := sum(map(len, self.chunks)) - kept) > 0:
            self.chunks = [b"".join(self.chunks)[:kept]]
            self.stream.consumed(surplus)
            self._early.grow(self, -surplus)

    def connection_lost(self, error: MoqtError) -> None:
        self._early.drop(self)


@attrs.frozen
class _Datagram:
    session_id: int
    data: bytes
    since: float


class EarlyArrivals:
    """The streams and datagrams of one connection that wait for their session. All sessions share the bounds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams: dict[int, _Held] = {}
        self._datagrams: deque[_Datagram] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._streams or self._datagrams)

    def hold_stream(self, stream: ReceiveStream, session_id: int, now: float) -> None:
        """Hold a stream whose prefix was read, or refuse it when there is no room."""
        if len(self._streams) >= self._limits.max_early_streams:
            refuse(stream, H3Error.WEBTRANSPORT_BUFFERED_STREAM_REJECTED)
            return
        held = self._streams[stream.stream_id] = _Held(self, stream, session_id, now)
        stream.handler = held

    def hold_datagram(self, session_id: int, data: bytes, now: float) -> None:
        """Hold a datagram, or drop it when there is no room."""
        if (
            len(self._datagrams) < self._limits.max_datagrams
            and self._bytes + len(data) <= self._limits.max_early_bytes
        ):
            self._bytes += len(data)
            self._datagrams.append(_Datagram(session_id, data, now))

    def take(self, session_id: int) -> tuple[list[ReceiveStream], list[bytes]]:
        """Return what waited for a session: streams in order of arrival, without a handler, and datagrams."""
        streams = []
        for held in [held for held in self._streams.values() if held.session_id == session_id]:
            self.drop(held)
            held.stream.unread(b"".join(held.chunks), held.fin)
            streams.append(held.stream)
        datagrams = [datagram.data for datagram in self._datagrams if datagram.session_id == session_id]
        self._keep_datagrams(lambda datagram: datagram.session_id != session_id)
        return streams, datagrams

    def refuse_session(self, session_id: int) -> None:
        """Refuse what waits for a session that there will not be."""
        for held in [held for held in self._streams.values() if held.session_id == session_id]:
            self.reject(held)
        self._keep_datagrams(lambda datagram: datagram.session_id != session_id)

    def expire(self, before: float) -> None:
        """Refuse what arrived before a point in time."""
        for held in [held for held in self._streams.values() if held.since < before]:
            self.reject(held)
        self._keep_datagrams(lambda datagram: datagram.since >= before)

    def grow(self, held: _Held, count: int) -> None:
        """Count bytes that a held stream received; past the bound it is refused."""
        self._bytes += count
        if self._bytes > self._limits.max_early_bytes:
            self.reject(held)

    def reject(self, held: _Held) -> None:
        """Refuse a held stream."""
        self.drop(held)
        refuse(held.stream, H3Error.WEBTRANSPORT_BUFFERED_STREAM_REJECTED)

    def drop(self, held: _Held) -> None:
        """Remove a held stream, and what was counted for it."""
        if self._streams.pop(held.stream.stream_id, None) is not None:
            self._bytes -= sum(map(len, held.chunks))

    def _keep_datagrams(self, wanted: Callable[[_Datagram], bool]) -> None:
        kept = [datagram for datagram in self._datagrams if wanted(datagram)]
        self._bytes -= sum(len(datagram.data) for datagram in self._datagrams) - sum(len(d.data) for d in kept)
        self._datagrams = deque(kept)
