"""Two connections in one process, joined by an event queue instead of a network.

They keep the rules of QUIC that an application can notice: order within a stream, credit by bytes for each stream
and for the connection, limits on streams, resets with codes, bounded datagrams. A `Link` may delay and lose what
passes, on trio's clock, so that a test with a virtual clock is deterministic. No packets, no encryption.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from ..errors import SessionClosed, fresh
from ..limits import MAX_DATAGRAM, Limits
from .connection import UNCONGESTED_WRITE, StreamHost, TransportStatistics, cut_reason
from .interface import AnyStream, StreamBackend, is_client_initiated, is_unidirectional

if TYPE_CHECKING:
    from .link import Link

_CONTROL_BYTES = 16
"""Bytes that a message without a payload counts on a link with a rate: a frame and its share of a packet."""
_AHEAD_SECONDS = 0.02
"""Seconds for which what was written may keep a link with a rate busy before `send_allowance` is 0: long enough that
the link never idles between two turns of a writer, short enough that what is written last does not wait long."""


class _DirectLink:
    def backlog(self, now: float, *, from_client: bool) -> float:
        return 0.0

    def arrival(self, now: float, size: int, *, from_client: bool, reliable: bool) -> float | None:
        return now


class _EventQueue:
    """Delivers messages between the two sides in the order of their times: one queue, one task."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._channels: dict[object, float] = {}
        self._wakeup = trio.Event()

    def schedule(self, deliver: Callable[[], None], size: int, *, from_client: bool, channel: object = None) -> bool:
        """Send a message. Those of one channel stay in order; without one it may be lost, and False is returned."""
        now = trio.current_time()
        at = self._link.arrival(now, size, from_client=from_client, reliable=channel is not None)
        if at is None:
            return False
        if channel is not None:
            key = (from_client, channel)
            at = max(at, self._channels.get(key, at))
            self._channels[key] = at
        heapq.heappush(self._queue, (at, next(self._order), deliver))
        self._wakeup.set()
        return True

    def backlog(self, *, from_client: bool) -> float:
        """Return for how many seconds the link is busy in one direction."""
        return self._link.backlog(trio.current_time(), from_client=from_client)

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Call a function after some time, without using the link."""
        heapq.heappush(self._queue, (trio.current_time() + seconds, next(self._order), function))
        self._wakeup.set()

    def drop_channel(self, channel: object) -> None:
        """Drop what is kept for a channel, in both directions."""
        self._channels.pop((True, channel), None)
        self._channels.pop((False, channel), None)

    async def run(self) -> None:
        """Deliver messages as they fall due, until cancelled."""
        while True:
            self._wakeup = trio.Event()
            while self._queue and self._queue[0][0] <= trio.current_time():
                heapq.heappop(self._queue)[2]()
            if self._queue and self._queue[0][0] <= trio.current_time():
                continue
            with trio.move_on_at(self._queue[0][0] if self._queue else float("inf")):
                await self._wakeup.wait()


@attrs.define(eq=False)
class _SendHalf:
    """The bytes of a stream that wait to be sent, and the credit for them."""

    allowed: int
    waiting: deque[bytes] = attrs.field(factory=deque)
    waiting_bytes: int = 0
    in_flight: int = 0
    sent: int = 0
    fin: bool = False
    over: bool = False
    arrived: bool = False
    watched: bool = False


class _StreamIds:
    """A set of stream ids that is small however many it has: of each kind, all below a mark, and some beyond it."""

    def __init__(self) -> None:
        self._marks = [0, 1, 2, 3]
        self._beyond: set[int] = set()

    def __contains__(self, stream_id: int) -> bool:
        return stream_id < self._marks[stream_id & 3] or stream_id in self._beyond

    def add(self, stream_id: int) -> None:
        self._beyond.add(stream_id)
        mark = self._marks[stream_id & 3]
        while mark in self._beyond:
            self._beyond.remove(mark)
            mark += 4
        self._marks[stream_id & 3] = mark


class MemoryConnection(StreamHost, StreamBackend):
    """One side of a pair; see `open_memory_pair`."""

    kind: Literal["quic", "webtransport", "memory"] = "memory"

    def __init__(self, event_queue: _EventQueue, *, is_client: bool, limits: Limits) -> None:
        super().__init__(is_client=is_client, limits=limits)
        self._backend = self
        self._event_queue = event_queue
        self._other: MemoryConnection
        self._halves: dict[int, _SendHalf] = {}
        self._blocked: dict[int, None] = {}
        self._next_id = {False: 0 if is_client else 1, True: 2 if is_client else 3}
        self._streams_allowed = {False: 0, True: 0}
        self._streams_granted = {False: limits.max_streams, True: limits.max_streams}
        self._data_allowed = 0
        self._data_granted = limits.connection_window
        self._data_sent = 0
        self._stream_granted: dict[int, int] = {}
        self._consumed_whole: set[int] = set()
        self._departed = _StreamIds()
        self._datagrams_in_flight: deque[list[bytes]] = deque()
        self._close_sent = trio.Event()
        self._room_wanted = False
        self._bytes_sent = 0
        self._bytes_received = 0

    def _join(self, other: MemoryConnection) -> None:
        self._other = other
        self._data_allowed = other.limits.connection_window
        self._streams_allowed = {False: other.limits.max_streams, True: other.limits.max_streams}

    def _schedule(
        self, deliver: Callable[[], None], size: int = _CONTROL_BYTES, *, channel: object = "control"
    ) -> bool:
        self._bytes_sent += size
        return self._event_queue.schedule(deliver, size, from_client=self.is_client, channel=channel)

    # -- streams that we open ------------------------------------------------------------------------------

    def _open_id(self, *, unidirectional: bool) -> int:
        stream_id = self._next_id[unidirectional]
        if stream_id // 4 >= self._streams_allowed[unidirectional]:
            raise trio.WouldBlock
        self._next_id[unidirectional] += 4
        self._add(stream_id)
        return stream_id

    @property
    def bidi_left(self) -> int:
        return self._streams_allowed[False] - self._next_id[False] // 4

    def stream(self, stream_id: int) -> AnyStream:
        if stream_id not in self.streams:
            self._add(stream_id)
        return super().stream(stream_id)

    def _add(self, stream_id: int) -> None:
        """Make room for the state of a stream's halves."""
        ours = is_client_initiated(stream_id) == self.is_client
        if ours or not is_unidirectional(stream_id):
            self._halves[stream_id] = _SendHalf(self._other.limits.stream_window)
        if not ours or not is_unidirectional(stream_id):
            self._stream_granted[stream_id] = self.limits.stream_window

    # -- sending -------------------------------------------------------------------------------------------

    def stream_write(self, stream_id: int, data: bytes, fin: bool) -> None:
        half = self._halves.get(stream_id)
        if half is None or half.over or half.fin or self._closed is not None:
            return
        if data:
            half.waiting.append(bytes(data))
            half.waiting_bytes += len(data)
        half.fin = fin
        self._push(stream_id, half)

    def _push(self, stream_id: int, half: _SendHalf) -> None:
        """Send what credit allows; the rest waits for more."""
        while half.waiting:
            room = min(half.allowed - half.sent, self._data_allowed - self._data_sent)
            if room <= 0:
                self._blocked[stream_id] = None
                return
            data = half.waiting.popleft()
            if len(data) > room:
                half.waiting.appendleft(data[room:])
                data = data[:room]
            half.waiting_bytes -= len(data)
            half.in_flight += len(data)
            half.sent += len(data)
            self._data_sent += len(data)
            self._send_data(stream_id, data, half.fin and not half.waiting)
            if half.fin and not half.waiting:
                half.over = True
        self._blocked.pop(stream_id, None)
        if half.fin and not half.over:
            half.over = True
            self._send_data(stream_id, b"", True)

    def _send_data(self, stream_id: int, data: bytes, fin: bool) -> None:
        def arrive() -> None:
            self._other._receive_data(stream_id, data, fin)
            self._note_arrival(stream_id, len(data), fin)

        self._schedule(arrive, len(data) + _CONTROL_BYTES, channel=stream_id)

    def _note_arrival(self, stream_id: int, count: int, fin: bool) -> None:
        half = self._halves.get(stream_id)
        if half is None or self._closed is not None:
            return
        half.in_flight -= count
        stream = self.streams.get(stream_id)
        if fin:
            half.arrived = True
            if stream is not None:
                stream.deliver_send_finished()
        self._report_room(stream_id, half)
        self._clear(stream_id)

    def _report_room(self, stream_id: int, half: _SendHalf) -> None:
        stream = self.streams.get(stream_id)
        buffered = half.waiting_bytes + half.in_flight
        if half.watched and buffered < self.send_high // 2 and self.stream_room(stream_id) > 0:
            half.watched = False
            if stream is not None:
                stream.deliver_send_ready()

    def stream_buffered(self, stream_id: int) -> int:
        half = self._halves.get(stream_id)
        return 0 if half is None else half.waiting_bytes + half.in_flight

    def stream_held_up(self, stream_id: int) -> bool:
        half = self._halves.get(stream_id)
        return half is not None and half.waiting_bytes > 0

    def stream_room(self, stream_id: int) -> int:
        half = self._halves.get(stream_id)
        if half is None or half.over:
            return self.send_high
        room = self.send_high - half.waiting_bytes - half.in_flight
        return min(room, half.allowed - half.sent - half.waiting_bytes)

    @property
    def send_full(self) -> bool:
        # Both sides are in one process: what one holds, the other would hold.
        return False

    def stream_watch(self, stream_id: int) -> None:
        self._halves[stream_id].watched = True

    def stream_keep_prefix(self, stream_id: int, size: int) -> None:
        # Nothing overtakes anything on a stream, and nothing has a prefix here.
        pass

    def stream_reset(self, stream_id: int, code: int) -> None:
        half = self._halves.get(stream_id)
        if half is None or half.arrived or self._closed is not None:
            return
        half.waiting.clear()
        half.waiting_bytes = 0
        half.fin = half.over = half.arrived = True
        self._blocked.pop(stream_id, None)
        self._schedule(lambda: self._other._receive_reset(stream_id, code), channel=stream_id)
        self._clear(stream_id)

    @property
    def send_allowance(self) -> int:
        busy = self._event_queue.backlog(from_client=self.is_client)
        if self._closed is not None or busy < _AHEAD_SECONDS:
            return UNCONGESTED_WRITE
        if not self._room_wanted:
            self._room_wanted = True
            self._event_queue.call_later(busy - _AHEAD_SECONDS / 2, self._make_room)
        return 0

    def _make_room(self) -> None:
        self._room_wanted = False
        if self._closed is None:
            self._deliver_send_room()

    # -- receiving -----------------------------------------------------------------------------------------

    def _receive_data(self, stream_id: int, data: bytes, fin: bool) -> None:
        self._bytes_received += len(data)
        if self._closed is None and stream_id not in self._departed:
            self.stream(stream_id).deliver(data, fin)

    def _receive_reset(self, stream_id: int, code: int) -> None:
        if self._closed is None and stream_id not in self._departed:
            self.stream(stream_id).deliver_reset(code)

    def stream_stop(self, stream_id: int, code: int) -> None:
        if self._closed is None:
            self._schedule(lambda: self._other._receive_stop(stream_id, code))

    def _receive_stop(self, stream_id: int, code: int) -> None:
        if self._closed is not None or stream_id in self._departed:
            return
        stream = self.stream(stream_id)
        self.stream_reset(stream_id, code)
        stream.deliver_stop(code)

    def stream_consumed(self, stream_id: int, count: int) -> None:
        if self._closed is not None:
            return
        self._data_granted += count
        data, stream_data = self._data_granted, None
        if stream_id in self._stream_granted:
            self._stream_granted[stream_id] += count
            stream_data = self._stream_granted[stream_id]
        self._schedule(lambda: self._other._receive_credit(stream_id, data, stream_data))

    def _receive_credit(self, stream_id: int, data: int, stream_data: int | None) -> None:
        self._data_allowed = max(self._data_allowed, data)
        half = self._halves.get(stream_id)
        if half is not None and stream_data is not None:
            half.allowed = max(half.allowed, stream_data)
        for blocked in list(self._blocked):
            self._push(blocked, self._halves[blocked])
        if half is not None:
            self._report_room(stream_id, half)

    def stream_done(self, stream_id: int) -> None:
        if self._closed is None:
            self._consumed_whole.add(stream_id)
            self._clear(stream_id)

    def _clear(self, stream_id: int) -> None:
        """Drop a stream whose halves have both ended; the peer may open another for one that it opened."""
        half = self._halves.get(stream_id)
        receives = stream_id in self._stream_granted
        if (half is not None and not half.arrived) or (receives and stream_id not in self._consumed_whole):
            return
        if self.streams.pop(stream_id, None) is None:
            return
        # What still arrives for it must not open it again.
        self._departed.add(stream_id)
        self._halves.pop(stream_id, None)
        self._stream_granted.pop(stream_id, None)
        self._consumed_whole.discard(stream_id)
        if is_client_initiated(stream_id) != self.is_client:
            unidirectional = is_unidirectional(stream_id)
            self._streams_granted[unidirectional] += 1
            allowed = self._streams_granted[unidirectional]
            self._schedule(lambda: self._other._receive_streams(unidirectional, allowed))
            self._event_queue.drop_channel(stream_id)

    def _receive_streams(self, unidirectional: bool, allowed: int) -> None:
        if self._closed is None:
            self._streams_allowed[unidirectional] = max(self._streams_allowed[unidirectional], allowed)
            self._deliver_streams_available()

    # -- datagrams -----------------------------------------------------------------------------------------

    @property
    def max_datagram_size(self) -> int:
        return MAX_DATAGRAM if self._closed is None else 0

    def send_datagram(self, data: bytes) -> None:
        if self._closed is not None:
            raise fresh(self._closed)
        if len(data) > MAX_DATAGRAM:
            raise ValueError(f"a datagram may have {MAX_DATAGRAM} bytes, not {len(data)}")
        if len(self._datagrams_in_flight) >= self.limits.max_datagrams:
            self._datagrams_in_flight.popleft().clear()
            self._datagrams_lost += 1
        # A slot that is emptied when the datagram is thrown away on its way.
        slot = [bytes(data)]

        def arrive() -> None:
            if slot:
                self._datagrams_in_flight.remove(slot)
                self._other._receive_datagram(slot[0])

        if self._schedule(arrive, len(data), channel=None):
            self._datagrams_in_flight.append(slot)

    def _receive_datagram(self, data: bytes) -> None:
        self._bytes_received += len(data)
        if self._closed is None:
            self._deliver_datagram(data)

    # -- the end -------------------------------------------------------------------------------------------

    def close(self, code: int = 0, reason: str = "") -> None:
        if self._closed is None:
            reason = cut_reason(reason)
            self._deliver_lost(SessionClosed(local_code=code, reason=reason))
            wire_code = self.session_codes.to_wire(code)
            self._schedule(lambda: self._other._receive_close(wire_code, reason))

    def _receive_close(self, wire_code: int, reason: str) -> None:
        self._close_sent.set()
        self._other._close_sent.set()
        code = self.session_codes.from_wire(wire_code)
        self._deliver_lost(SessionClosed(remote_code=code, reason=reason, by_peer=True))

    def lose(self, reason: str = "connection lost") -> None:
        """End both sides without a message, as when the network fails for good."""
        for side in (self, self._other):
            side._close_sent.set()
            side._deliver_lost(SessionClosed(reason=reason))

    async def aclose(self, code: int = 0, reason: str = "") -> None:
        self.close(code, reason)
        with trio.CancelScope(deadline=trio.current_time() + self.limits.close_timeout, shield=True):
            await self._close_sent.wait()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> TransportStatistics:
        return TransportStatistics(
            bytes_sent=self._bytes_sent, bytes_received=self._bytes_received, datagrams_lost=self._datagrams_lost
        )


@asynccontextmanager
async def open_memory_pair(
    limits: Limits | None = None,
    link: Link | None = None,
    *,
    client_limits: Limits | None = None,
    protocol: str | None = None,
    path: str | None = None,
) -> AsyncIterator[tuple[MemoryConnection, MemoryConnection]]:
    """Yield a client and a server that are connected, and close both at the end of the block.

    Args:
        limits: The bounds of the server, and of the client unless it has its own.
        link: Delays and loses messages; None delivers them as soon as the event queue's task has its turn.
        client_limits: The bounds of the client.
        protocol: What both sides give as the negotiated protocol.
        path: What both sides give as the request path.
    """
    limits = limits or Limits()
    event_queue = _EventQueue(link or _DirectLink())
    client = MemoryConnection(event_queue, is_client=True, limits=client_limits or limits)
    server = MemoryConnection(event_queue, is_client=False, limits=limits)
    client._join(server)
    server._join(client)
    for side in (client, server):
        side.protocol = protocol
        side.path = path
    failure: BaseException | None = None
    scope = trio.CancelScope(shield=True)

    async def deliver() -> None:
        # Shielded: what the block does to clean up may still need the other side.
        with scope:
            await event_queue.run()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver)
        try:
            yield client, server
        except BaseException as error:
            failure = error
        nursery.cancel_scope.shield = True
        client.close()
        server.close()
        scope.cancel()
    if failure is not None:
        raise failure
