"""The driver of one QUIC connection: the task that sends and keeps the time, between an engine and a socket.

It knows neither packets nor how sockets are shared; `endpoint.py` and `dial.py` hand it datagrams. It owns the
error boundary: what goes wrong in the engine or in a handler ends this connection and nothing else.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

import attrs
import trio

from ...codes import SessionCode
from ..connection import StreamHost
from .engine import Address, Credit, Engine, EngineHandler, Termination
from .udp import UdpSocket, plain_address

if TYPE_CHECKING:
    from ...limits import Limits
    from ..connection import TransportStatistics


_LOG = logging.getLogger(__name__)

_QUIET = 150e-6
"""Seconds after a flush in which the next one waits for more to be written."""
_PATIENCE = 250e-6
"""Seconds for which a flush waits at most."""
_MIN_AHEAD = 4 * 1024
"""Bytes that may wait to leave on the slowest link."""
_LAZY_PATIENCE = 2e-3
"""Seconds for which credit alone waits at most."""
_LAZY_TURNS = 4
"""Turns of the scheduler without news from the reader, after which credit is sent."""
_FULL = 16 * 1024
"""Written bytes that are worth a flush at once."""
_NEAR = 0.005
"""Seconds before a deadline in which it is put off when it has become later."""
_TICK = 0.001
"""Seconds until a timer that is overdue is looked at again: the least that the kernel's poll can wait."""


class Owner(Protocol):
    """Whoever shares a socket between connections."""

    def connection_ready(self, connection: QuicConnection) -> None:
        """The handshake is complete."""

    def connection_id_issued(self, connection: QuicConnection, connection_id: bytes) -> None:
        """Datagrams with a further id are for this connection."""

    def connection_id_retired(self, connection: QuicConnection, connection_id: bytes) -> None:
        """Datagrams with this id are nobody's any more."""

    def connection_ended(self, connection: QuicConnection, farewell: list[tuple[bytes, Address]]) -> None:
        """The connection is over. `farewell` tells the peer, and may be sent again; empty when it knows."""


class QuicConnection(StreamHost, EngineHandler):
    """A QUIC connection. The methods of `EngineHandler`, and those that say so, are for its owner and its engine.

    Attributes:
        termination: How QUIC says that the connection ended; None while it lives.
        peer: The peer's address and port. It may change: peers move between networks.
        local_port: The UDP port of this side.
    """

    kind: Literal["quic", "webtransport", "memory"] = "quic"

    def __init__(
        self,
        make_engine: Callable[[EngineHandler], Engine],
        *,
        is_client: bool,
        limits: Limits,
        owner: Owner,
        port: UdpSocket,
        address: Address,
    ) -> None:
        super().__init__(is_client=is_client, limits=limits)
        self.peer = plain_address(address)
        self.local_port = port.address[1]
        self._engine = make_engine(self)
        self._owner = owner
        self._port = port
        self._address = address
        self._unsent: deque[tuple[bytes, Address]] = deque()
        self._bytes_sent = 0
        self._bytes_received = 0
        self._ready = False
        self._settled = trio.Event()
        self._told = trio.Event()
        self._dirty = True
        self._lazy = False
        self._written = 0
        self._send_ahead = _MIN_AHEAD
        self._room_wanted = False
        self._last_flush = -math.inf
        self._task: trio.lowlevel.Task | None = None
        self._timer = trio.CancelScope()
        self._handshake_deadline = math.inf if is_client else trio.current_time() + limits.handshake_timeout
        self._heard_at = trio.current_time()

    # -- for the owner -------------------------------------------------------------------------------------

    @property
    def connection_id(self) -> bytes:
        """The id that this side chose first."""
        return self._engine.connection_id

    @property
    def established(self) -> bool:
        """True once a packet of the peer made sense."""
        return self._engine.established

    @property
    def ready(self) -> bool:
        """True once the handshake was completed."""
        return self._ready

    @property
    def termination(self) -> Termination | None:
        return self._engine.termination

    def start(self) -> None:
        """Starts a client's handshake."""
        self._engine.connect(self._address, trio.current_time())

    def receive_untrusted(self, data: bytes, address: Address, port: UdpSocket, now: float) -> None:
        """Takes a datagram; `settle` must follow."""
        self._bytes_received += len(data)
        self._heard_at = now
        self._port = port
        try:
            self._engine.receive_datagram_untrusted(data, address, now)
        except Exception:
            self._fail("the QUIC engine failed")

    def settle(self) -> None:
        """Acts on what was received, and has the answer sent."""
        was_ready = self._ready
        try:
            self._engine.deliver_events()
        except Exception:
            self._fail("a receiver failed")
        if self._engine.termination is not None:
            self._end()
        elif self._ready and not was_ready:
            # At once: a block that closes straight away must not keep the end of the handshake from the server.
            self._flush()
        now = trio.current_time()
        try:
            idle = self._closed is None and not self._engine.has_work(now)
            address = self._engine.peer_address
        except Exception:
            self._fail("the QUIC engine failed")
            return
        if address is not None and address != self._address:
            self._address = address
            self.peer = plain_address(address)
        if idle:
            self._set_timer(now)
        else:
            self.wake()

    def lose(self, reason: str) -> None:
        """Ends the connection for want of a peer."""
        if self._closed is None:
            self._engine.close(0, reason, application=False)
            self._end()

    async def drive(self) -> None:
        """Sends and keeps the time until the connection is over and the peer was told."""
        try:
            while not self._told.is_set():
                with trio.CancelScope(deadline=self._next_deadline(trio.current_time())) as self._timer:
                    while not self._told.is_set():
                        await self._turn()
                if self._timer.cancelled_caught:
                    self._pass_time(trio.current_time())
        except Exception:
            self._fail("the driver failed")
        finally:
            self._told.set()

    # -- the driver ----------------------------------------------------------------------------------------

    async def _turn(self) -> None:
        if self._dirty and self._closed is None:
            if self._lazy or trio.current_time() - self._last_flush < _QUIET:
                await self._gather()
            self._flush()
        if self._unsent:
            await self._port.wait_sendable()
            unsent, self._unsent = self._unsent, deque()
            self._transmit(unsent)
            self._note_told()
        elif not self._dirty and not self._told.is_set():
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self) -> None:
        """Has the driver flush. For the owner, and for what wrote."""
        self._lazy = False
        self._rouse()

    def _credit(self) -> None:
        """Has the driver flush once the reader pauses: credit in small change costs a packet for each stream."""
        self._written += 1
        if not self._dirty:
            self._lazy = True
            self._rouse()

    def _rouse(self) -> None:
        self._dirty = True
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    async def _gather(self) -> None:
        # A busy writer fills packets, and a busy reader collects credit; who acts once and waits is not kept waiting.
        began = trio.current_time()
        quiet = 0
        while self._written < _FULL:
            lazy = self._lazy
            written = self._written
            await trio.lowlevel.checkpoint()
            quiet = quiet + 1 if self._written == written else 0
            if quiet >= (_LAZY_TURNS if lazy else 1):
                return
            if trio.current_time() - began >= (_LAZY_PATIENCE if lazy else _PATIENCE):
                return

    def _flush(self) -> None:
        now = trio.current_time()
        # Before, so that what was just acknowledged is made up for at once; and after, to have something ready.
        self._offer_room()
        self._dirty = self._lazy = False
        self._written = 0
        try:
            datagrams = self._engine.datagrams_to_send(now)
        except Exception:
            self._fail("the QUIC engine failed")
            return
        if datagrams:
            self._transmit(datagrams)
            self._last_flush = now
        if self._engine.termination is not None:
            self._end()
            return
        if self._engine.unfinished:
            self._rouse()
        self._set_timer(now)
        # As much as the link takes in half a round trip: less would let it idle, more would be too late to reorder.
        self._send_ahead = min(max(self._engine.congestion_window // 2, _MIN_AHEAD), self.send_high)
        self._offer_room()

    def _offer_room(self) -> None:
        """Lets those who wait for room write, when there is some for more than a little."""
        if self._room_wanted and self._room_left() > self._send_ahead // 2:
            self._room_wanted = False
            try:
                self._deliver_send_room()
            except Exception:
                self._fail("a sender failed")

    def _room_left(self) -> int:
        """Returns how many bytes may still be written: those that may leave now do not count as waiting."""
        ahead = self._send_ahead
        return ahead + min(self._engine.window_left, ahead) - self._engine.unsent

    def _set_timer(self, now: float) -> None:
        deadline = self._next_deadline(now)
        earlier = self._timer.deadline
        # Moving a deadline costs a little, one that passes in vain a lot: it is put off, but only when it is near.
        if deadline < earlier or (earlier < now + _NEAR and deadline > earlier + _TICK):
            self._timer.deadline = deadline

    def _next_deadline(self, now: float) -> float:
        if self._closed is not None:
            return math.inf
        deadline = self._engine.next_timeout()
        deadline = math.inf if deadline is None else deadline
        if not self._ready:
            deadline = min(deadline, self._handshake_deadline)
        elif self.is_client:
            deadline = min(deadline, self._heard_at + self.limits.keep_alive)
        return deadline if deadline > now else now + _TICK

    def _pass_time(self, now: float) -> None:
        if self._closed is not None:
            return
        try:
            self._engine.handle_timeout(now)
        except Exception:
            self._fail("the QUIC engine failed")
            return
        if not self._ready and now >= self._handshake_deadline:
            self.lose("the handshake took too long")
        if self._engine.termination is not None:
            self._end()
        elif self.is_client and self._ready and now >= self._heard_at + self.limits.keep_alive:
            self._heard_at = now
            self._engine.ping()
        self._dirty = True

    def _transmit(self, datagrams: list[tuple[bytes, Address]] | deque[tuple[bytes, Address]]) -> None:
        if self._unsent:
            self._unsent.extend(datagrams)
            return
        send = self._port.send
        for index, (data, address) in enumerate(datagrams):
            if not send(data, address):
                self._unsent.extend(list(datagrams)[index:])
                return
            self._bytes_sent += len(data)

    def _fail(self, what: str) -> None:
        _LOG.exception("%r: %s; the connection is closed", self, what)
        self.close(SessionCode.INTERNAL_ERROR, what)

    def _end(self) -> None:
        """Tells the peer, every stream and the owner that the connection is over."""
        termination = self._engine.termination
        if self._closed is not None or termination is None:
            return
        farewell: list[tuple[bytes, Address]] = []
        try:
            # Who sent nothing but noise is not answered.
            if self.is_client or self._engine.established:
                farewell = self._engine.datagrams_to_send(trio.current_time())
        except Exception:
            _LOG.exception("%r: the peer could not be told of the end", self)
        self._transmit(farewell)
        try:
            self._deliver_lost(termination.error())
        except Exception:
            _LOG.exception("%r: a receiver failed at the end of the connection", self)
        self._settled.set()
        self._owner.connection_ended(self, farewell)
        self._note_told()
        self.wake()

    def _note_told(self) -> None:
        if self._closed is not None and not self._unsent:
            self._told.set()

    # -- from the engine -----------------------------------------------------------------------------------

    def handshake_completed(self, alpn: str | None, server_name: str | None) -> None:
        self.protocol = alpn
        self.authority = server_name
        self._ready = True
        self._settled.set()
        self._owner.connection_ready(self)

    def data_arrived(self, stream_id: int, data: bytes, fin: bool) -> None:
        self._stream(stream_id).deliver(data, fin)

    def reset_arrived(self, stream_id: int, code: int) -> None:
        self._stream(stream_id).deliver_reset(code)

    def stop_arrived(self, stream_id: int, code: int) -> None:
        self._stream(stream_id).deliver_stop(code)

    def stream_writable(self, stream_id: int) -> None:
        if (stream := self._streams.get(stream_id)) is not None:
            stream.deliver_send_ready()

    def stream_acknowledged(self, stream_id: int) -> None:
        if (stream := self._streams.get(stream_id)) is not None:
            stream.deliver_send_finished()

    def stream_gone(self, stream_id: int) -> None:
        if (stream := self._streams.pop(stream_id, None)) is not None:
            stream.deliver_released()

    def streams_available(self) -> None:
        self._deliver_streams_available()

    def datagram_arrived(self, data: bytes) -> None:
        self._deliver_datagram(data)

    def connection_id_issued(self, connection_id: bytes) -> None:
        self._owner.connection_id_issued(self, connection_id)

    def connection_id_retired(self, connection_id: bytes) -> None:
        self._owner.connection_id_retired(self, connection_id)

    # -- from the streams ----------------------------------------------------------------------------------

    def _open_id(self, *, unidirectional: bool) -> int:
        stream_id = self._engine.open_stream(unidirectional=unidirectional)
        if stream_id is None:
            raise trio.WouldBlock
        return stream_id

    def stream_write(self, stream_id: int, data: bytes, fin: bool) -> None:
        self._engine.write(stream_id, data, fin)
        self._written += len(data) + 1
        self.wake()

    def stream_buffered(self, stream_id: int) -> int:
        return self._engine.buffered(stream_id)

    def stream_held_up(self, stream_id: int) -> bool:
        # While a flush is due, what is unsent has not had its chance.
        return self._closed is None and not self._dirty and self._engine.unsent_on(stream_id) > 0

    def stream_watch(self, stream_id: int) -> None:
        self._engine.watch(stream_id, self.send_high // 2)

    def stream_reset(self, stream_id: int, code: int) -> None:
        if self._closed is None:
            self._engine.reset(stream_id, code)
            self.wake()

    def stream_stop(self, stream_id: int, code: int) -> None:
        if self._closed is None:
            self._engine.stop(stream_id, code)
            self.wake()

    def stream_consumed(self, stream_id: int, count: int) -> None:
        if self._closed is None and self._engine.consumed(stream_id, count):
            self.wake()

    def stream_done(self, stream_id: int) -> None:
        if self._closed is not None:
            return
        credit = self._engine.done(stream_id)
        if credit is Credit.NOW:
            self.wake()
        elif credit is Credit.SOON:
            self._credit()

    @property
    def congested(self) -> bool:
        if self._closed is not None or self._room_left() > 0:
            return False
        self._room_wanted = True
        return True

    # -- datagrams -----------------------------------------------------------------------------------------

    @property
    def peer_datagram_limit(self) -> int | None:
        """The peer's `max_datagram_frame_size` in bytes; None when it sent none (RFC 9221, section 3)."""
        return self._engine.peer_datagram_limit

    @property
    def max_datagram_size(self) -> int:
        return self._engine.max_datagram_payload if self._closed is None else 0

    def send_datagram(self, data: bytes) -> None:
        if self._closed is not None:
            raise self._closed.with_traceback(None)
        if len(data) > self._engine.max_datagram_payload:
            raise ValueError(f"a datagram may have {self._engine.max_datagram_payload} bytes, not {len(data)}")
        if not self._engine.send_datagram(data):
            self._datagrams_lost += 1
        self._written += len(data) + 1
        self.wake()

    # -- the end -------------------------------------------------------------------------------------------

    def close(self, code: int = 0, reason: str = "") -> None:
        if self._closed is None:
            self._engine.close(code, reason)
            self._end()

    async def aclose(self, code: int = 0, reason: str = "") -> None:
        self.close(code, reason)
        with trio.CancelScope(deadline=trio.current_time() + self.limits.close_timeout, shield=True):
            await self._told.wait()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> TransportStatistics:
        return attrs.evolve(
            self._engine.statistics(),
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            datagrams_lost=self._datagrams_lost,
        )
