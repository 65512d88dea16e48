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
    """Gives up both halves of a stream with a code as it stands on the wire."""
    stream.cancel(code)


class _Held(StreamHandler):
    """Keeps what one early stream brings, and counts it."""

    __slots__ = ("_early", "chunks", "fin", "session_id", "since", "stream")

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
        # A reset stream whose user never saw it is of use to nobody.
        self._early.reject(self)

    def connection_lost(self, error: MoqtError) -> None:
        self._early.drop(self)


@attrs.frozen
class _Datagram:
    session_id: int
    data: bytes
    since: float


class EarlyArrivals:
    """What waits for sessions of one connection. The bounds hold for the connection as a whole."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams: dict[int, _Held] = {}
        self._datagrams: deque[_Datagram] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._streams or self._datagrams)

    def hold_stream(self, stream: ReceiveStream, session_id: int, now: float) -> None:
        """Keeps a stream whose prefix was read, or refuses it when there is no room."""
        if len(self._streams) >= self._limits.max_early_streams:
            refuse(stream, H3Error.WEBTRANSPORT_BUFFERED_STREAM_REJECTED)
            return
        held = self._streams[stream.stream_id] = _Held(self, stream, session_id, now)
        stream.handler = held

    def hold_datagram(self, session_id: int, data: bytes, now: float) -> None:
        """Keeps a datagram, or drops it when there is no room."""
        if (
            len(self._datagrams) < self._limits.max_datagrams
            and self._bytes + len(data) <= self._limits.max_early_bytes
        ):
            self._bytes += len(data)
            self._datagrams.append(_Datagram(session_id, data, now))

    def take(self, session_id: int) -> tuple[list[ReceiveStream], list[bytes]]:
        """Hands over what waits for a session: streams in order of arrival, without a handler, and datagrams."""
        streams = []
        for held in [held for held in self._streams.values() if held.session_id == session_id]:
            self.drop(held)
            held.stream.unread(b"".join(held.chunks), held.fin)
            streams.append(held.stream)
        datagrams = [datagram.data for datagram in self._datagrams if datagram.session_id == session_id]
        self._keep_datagrams(lambda datagram: datagram.session_id != session_id)
        return streams, datagrams

    def refuse_session(self, session_id: int) -> None:
        """Refuses what waits for a session that there will not be."""
        for held in [held for held in self._streams.values() if held.session_id == session_id]:
            self.reject(held)
        self._keep_datagrams(lambda datagram: datagram.session_id != session_id)

    def expire(self, before: float) -> None:
        """Refuses what arrived before a point in time."""
        for held in [held for held in self._streams.values() if held.since < before]:
            self.reject(held)
        self._keep_datagrams(lambda datagram: datagram.since >= before)

    def grow(self, held: _Held, count: int) -> None:
        """Counts bytes that a held stream received."""
        self._bytes += count
        if self._bytes > self._limits.max_early_bytes:
            self.reject(held)

    def reject(self, held: _Held) -> None:
        """Refuses a held stream."""
        self.drop(held)
        refuse(held.stream, H3Error.WEBTRANSPORT_BUFFERED_STREAM_REJECTED)

    def drop(self, held: _Held) -> None:
        """Forgets a held stream."""
        if self._streams.pop(held.stream.stream_id, None) is not None:
            self._bytes -= sum(map(len, held.chunks))

    def _keep_datagrams(self, wanted: Callable[[_Datagram], bool]) -> None:
        kept = [datagram for datagram in self._datagrams if wanted(datagram)]
        self._bytes -= sum(len(datagram.data) for datagram in self._datagrams) - sum(len(d.data) for d in kept)
        self._datagrams = deque(kept)
