"""One QUIC connection: the task that sends and keeps the time, between an engine and a socket.

Theory of operation
===================

Two tasks run a connection. The task that reads the socket calls `receive_untrusted`: the engine reads the datagrams and
calls the streams, the streams call their handlers, and nothing waits. The connection's own task (`run`) sends, and
delivers in pieces what one packet released. What is to be sent is the engine's to know: it calls `wake`,
which sets `flush_due` and reschedules the task, and the next flush asks for all datagrams that may leave now.

When to flush decides the cost of a connection, because a packet costs far more than the bytes in it:

- A task that writes once and then waits is flushed at once, by itself where it knows that nothing follows (`flush`).
- The writes of a busy task are coalesced into full packets: a flush that follows the one before within `_QUIET` waits
  while more is written, up to `_MAX_DELAY`, or until `_FULL` bytes are there.
- Credit alone is delayed (`wake_later`): one frame for each stream that was read would cost a packet for each.

How much may be written ahead decides what the latest frame waits for. `send_allowance` is 0 once half a congestion
window waits to leave, which is what the link takes in half a round trip: with less the link would fall idle before the
writer has its turn, with more it would be too late to send something more urgent first.

One timer serves the engine's timeouts, the handshake's, the idle timeout and the keep-alive: the deadline of the cancel
scope around the task's wait. A wake-up for nothing costs more than moving the deadline. A quiet connection moves it at
once when it became later; a busy one, which would move it with every packet, only when it is about to come.

The error boundary is here: what goes wrong in the engine or in a handler, in either task, ends this connection and
nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from ...codes import SessionCode
from ...errors import fresh
from ...loggers import Logger
from ...tasks import defer_interrupts
from ...timeouts import Timeout, read_first
from ..connection import UNCONGESTED_WRITE, StreamHost
from ..sockets import plain_address
from .engine import IDLE, Engine, EngineHandler, Termination
from .liveness import Liveness

if TYPE_CHECKING:
    from ...limits import Limits
    from ..connection import TransportStatistics
    from ..sockets import Address, UdpSocket
    from .owner import Owner

logger = Logger(__name__)

_QUIET = 150e-6
"""Seconds after a flush within which the next one waits for more to be written: about what a flush costs. A task that
writes again so soon is busy, and would have a packet made of each small write."""
_MAX_DELAY = 250e-6
"""Seconds for which a flush waits at most: well below the round trip of any network."""
_MAX_CREDIT_DELAY = 2e-3
"""Seconds for which credit alone waits at most. It is due when a quarter of a window was used, and the peer has three
quarters left; on a link fast enough to use them in 2 ms, the reader's pause comes first."""
_IDLE_STEPS = 4
"""Steps of the scheduler in which no more was read, after which credit is sent: a reader that is merely between two
streams comes back within one or two."""
_FULL = 16 * 1024
"""Written bytes that are worth a flush at once: more than ten packets, of which the last alone is not full."""
_MIN_AHEAD = 4 * 1024
"""Bytes that may wait to leave on the slowest link: a few packets, without which there would be nothing to send between
two turns of the writer."""
_NEAR = 0.005
"""Seconds before a deadline within which a busy connection moves it when it has become later. Packets move it every
time; between two of them pass less than 5 ms, so an earlier move would mostly be for nothing. A connection on which
more time passes moves it at once: a timer that ends for nothing costs more."""
_LIVELY = 1.0
"""Seconds after a packet for which the timer is set no further ahead. Trio keeps each deadline that was moved until its
time has come or there are a thousand: of those that are far ahead it would mostly be a thousand."""
_TICK = 0.001
"""Seconds until a timer that is overdue is looked at again: the least that the kernel's poll can wait."""


@defer_interrupts
class QuicConnection(StreamHost, EngineHandler):
    """A QUIC connection. The methods of `EngineHandler` are for its engine, and those that say so for its owner.

    Attributes:
        peer: The peer's address and port. It may change: peers move between networks.
        ready: True once the handshake was completed.
        flush_due: True when something waits for the next flush.
    """

    kind: Literal["quic", "webtransport", "memory"] = "quic"

    def __init__(
        self,
        make_engine: Callable[[EngineHandler], Engine],
        *,
        is_client: bool,
        limits: Limits,
        owner: Owner[QuicConnection],
        sock: UdpSocket,
        address: Address,
    ) -> None:
        super().__init__(is_client=is_client, limits=limits)
        self.peer = plain_address(address)
        self.local = plain_address(sock.address)
        self.ready = False
        self.flush_due = True
        self._backend = self._engine = make_engine(self)
        self._owner = owner
        self._socket = sock
        self._address = address
        self._unsent: list[tuple[bytes, Address]] = []
        self._bytes_sent = self._bytes_received = 0
        self._local_code = self._written = 0
        self._close_sent = trio.Event()
        self._delayed = self._room_wanted = False
        self._last_flush = -math.inf
        self._task: trio.lowlevel.Task | None = None
        self._timer = trio.CancelScope()
        self._handshake = Timeout(math.inf if is_client else limits.handshake_timeout)
        self._liveness = Liveness(self._engine, limits.keep_alive if is_client else None)

    # -- for the owner -------------------------------------------------------------------------------------

    @property
    def connection_id(self) -> bytes:
        """The id that this side chose first."""
        return self._engine.connection_id

    @property
    def established(self) -> bool:
        """True once a packet of the peer was authenticated."""
        return self._engine.established

    @property
    def termination(self) -> Termination | None:
        """How QUIC says that the connection ended; None while it lives."""
        return self._engine.termination

    def start(self) -> None:
        """Start a client's handshake."""
        self._engine.connect(self._address, trio.current_time())

    def receive_untrusted(self, datagrams: list[tuple[bytes, Address]], sock: UdpSocket, now: float) -> None:
        """Read datagrams, act on what they bring, and have the answer sent."""
        engine = self._engine
        if self._close_sent.is_set():
            return
        was_ready = self.ready
        try:
            for data, address in datagrams:
                self._bytes_received += len(data)
                engine.receive_datagram_untrusted(data, address, now)
            if engine.heard_at == now:
                # Anyone may send old packets to another socket of this side, from which the peer cannot be reached.
                self._socket = sock
            engine.deliver_events()
            if engine.termination is not None:
                self._end()
            elif self.ready and not was_ready:
                # At once: a block that closes straight away must not keep the end of the handshake from the server.
                self._flush()
            if self._closed is not None or self._room_wanted or engine.undelivered or engine.has_work(now):
                self.wake()
            else:
                self._set_timer(now)
        except Exception:
            self._fail()

    def _deliver_rest(self) -> None:
        """Deliver more of what has arrived."""
        self._engine.deliver_events()
        self._end()
        self.flush_due = True

    def lose(self, reason: str) -> None:
        """End the connection because the peer no longer answers."""
        if self._closed is None:
            self._engine.close(0, reason, application=False)
            self._end()

    async def run(self) -> None:
        """Send and keep the time until the connection has ended and the peer was informed."""
        try:
            while not self._close_sent.is_set():
                was_closed = self._closed is not None
                try:
                    with trio.CancelScope() as self._timer:
                        if not self.flush_due:
                            self._set_timer(trio.current_time())
                        while not self._close_sent.is_set():
                            if self._engine.undelivered and self._closed is None:
                                await trio.lowlevel.checkpoint()
                                self._deliver_rest()
                            if self.flush_due and self._closed is None:
                                if self._delayed or trio.current_time() - self._last_flush < _QUIET:
                                    await self._coalesce()
                                self._flush()
                            if self._unsent:
                                await self._socket.wait_writable()
                                unsent, self._unsent = self._unsent, []
                                self._transmit(unsent)
                                self._note_close_sent()
                            elif not (self.flush_due or self._engine.undelivered or self._close_sent.is_set()):
                                self._task = trio.lowlevel.current_task()
                                await trio.lowlevel.wait_task_rescheduled(self._abort)
                    if self._timer.cancelled_caught:
                        await read_first(self._timer.deadline, self._engine.heard_at + self._liveness.silence)
                        self._on_timeout(trio.current_time())
                except Exception:
                    self._fail()
                    if was_closed:
                        break
        finally:
            self._close_sent.set()
            if self._closed is not None:
                # Nothing that ended may refer to itself: it would be work for the garbage collector.
                self._engine.release()
                del self._owner

    # -- sending -------------------------------------------------------------------------------------------

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED

    def wake(self, written: int = 0) -> None:
        self._written += written
        self._delayed = False
        self.flush_due = True
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)

    def wake_later(self) -> None:
        self._written += 1
        if not self.flush_due:
            self.wake()
            self._delayed = True

    async def _coalesce(self) -> None:
        """Wait while a busy task writes or reads more."""
        began = trio.current_time()
        idle = 0
        while self._written < _FULL:
            delayed = self._delayed
            written = self._written
            await trio.lowlevel.checkpoint()
            idle = idle + 1 if self._written == written else 0
            if idle >= (_IDLE_STEPS if delayed else 1):
                return
            if trio.current_time() - began >= (_MAX_CREDIT_DELAY if delayed else _MAX_DELAY):
                return

    def flush(self) -> None:
        quiet = trio.current_time() - self._last_flush >= _QUIET
        ended = self._closed is not None or self._close_sent.is_set()
        if quiet and self.flush_due and not (ended or self._delayed or self._unsent):
            try:
                self._flush()
            except Exception:
                self._fail()

    def _flush(self) -> None:
        now = trio.current_time()
        engine = self._engine
        # Before, so that what was just acknowledged is made up for at once; and after, to have something ready.
        if self._room_wanted:
            self._offer_room()
        self.flush_due = self._delayed = False
        self._written = 0
        if datagrams := engine.datagrams_to_send(now):
            self._transmit(datagrams)
            self._last_flush = now
            if self._socket.gone:
                self.lose("this host has lost the address or the route by which it reached the peer")
                return
        if engine.termination is not None:
            self._end()
            return
        if engine.unfinished:
            self.wake()
        self._set_timer(now)
        if self._room_wanted:
            self._offer_room()

    def _transmit(self, datagrams: list[tuple[bytes, Address]]) -> None:
        if self._unsent:
            self._unsent.extend(datagrams)
            return
        send = self._socket.send
        for index, (data, address) in enumerate(datagrams):
            if not send(data, address):
                self._unsent.extend(datagrams[index:])
                return
            self._bytes_sent += len(data)

    def _room_left(self) -> tuple[int, int]:
        """Return how many bytes may still be written, and of how many when nothing waits."""
        congestion_window, window_left, unsent, full = self._engine.send_state()
        ahead = min(max(congestion_window // 2, _MIN_AHEAD), self.send_high)
        if full:
            return 0, ahead
        # Bytes that may leave now do not count as waiting.
        return ahead + min(window_left, ahead) - unsent, ahead

    def _offer_room(self) -> None:
        """Call the handler that waits for room, when there is room for more than a little."""
        room, ahead = self._room_left()
        if room > ahead // 2:
            self._room_wanted = False
            self._deliver_send_room()

    @property
    def send_allowance(self) -> int:
        """Bytes that may be written now without queueing up: 0 once enough waits to keep the link busy."""
        if self._closed is not None:
            return UNCONGESTED_WRITE
        room = self._room_left()[0]
        if room > 0:
            return room
        self._room_wanted = True
        return 0

    @property
    def crowded(self) -> bool:
        return self._engine.send_held > self.limits.send_buffer // 2

    # -- time ----------------------------------------------------------------------------------------------

    def _set_timer(self, now: float) -> None:
        sent, heard = self._last_flush, self._engine.heard_at
        recently, ahead = now - _LIVELY, now + _LIVELY
        deadline = math.inf
        if self._closed is None:
            timeout = self._engine.next_timeout()
            if timeout is not None:
                deadline = timeout
            if not self.ready:
                deadline = min(deadline, self._handshake.deadline)
            elif heard <= recently or self._liveness.least <= 2 * _LIVELY:
                deadline = min(deadline, self._liveness.deadline())
            if deadline <= now:
                deadline = now + _TICK
            elif deadline > ahead and (heard > recently or sent > recently):
                deadline = ahead
        earlier = self._timer.deadline
        if deadline < earlier:
            self._timer.deadline = deadline
        elif deadline > earlier + _TICK:
            near = now - _NEAR
            if earlier < now + _NEAR or sent <= near or heard <= near:
                self._timer.deadline = deadline

    def _on_timeout(self, now: float) -> None:
        if self.ready and self._closed is None and self._liveness.gives_up(now):
            self.lose(IDLE)
        if self._closed is not None:
            return
        # The timer is not set again for each packet, so most of its ends come too early, and there is nothing to send.
        due = self._engine.next_timeout()
        if due is not None and due <= now:
            self._engine.handle_timeout(now)
            self.flush_due = True
        if not self.ready and now >= self._handshake.deadline and not self._handshake.renew():
            self.lose("the handshake took too long")
        if self._engine.termination is not None:
            self._end()
        elif self.ready and self._liveness.asks(now):
            self._engine.ping()
            self.flush_due = True

    # -- from the engine -----------------------------------------------------------------------------------

    def handshake_completed(self, alpn: str | None, server_name: str | None) -> None:
        self.protocol = alpn
        self.authority = server_name
        self.client_certificate = self._engine.client_certificate
        self._liveness.handshake_completed()
        self.ready = True
        self._owner.connection_ready(self)

    def streams_available(self) -> None:
        self._deliver_streams_available()

    def datagram_received(self, data: bytes) -> None:
        self._deliver_datagram(data)

    def peer_moved(self, address: Address) -> None:
        self._address = address
        self.peer = plain_address(address)

    def connection_id_issued(self, connection_id: bytes) -> None:
        self._owner.connection_id_issued(self, connection_id)

    def connection_id_retired(self, connection_id: bytes) -> None:
        self._owner.connection_id_retired(self, connection_id)

    def set_in_use(self, in_use: bool) -> None:
        if self._closed is None:  # A handler may start after the end, and another one end after it.
            self._owner.connection_in_use(self, in_use)

    def _open_id(self, *, unidirectional: bool) -> int:
        stream_id = self._engine.open_stream(unidirectional=unidirectional)
        if stream_id is None:
            raise trio.WouldBlock
        return stream_id

    @property
    def bidi_left(self) -> int:
        return self._engine.bidi_left

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
            raise fresh(self._closed)
        if len(data) > self._engine.max_datagram_payload:
            raise ValueError(f"a datagram may have {self._engine.max_datagram_payload} bytes, not {len(data)}")
        if not self._engine.send_datagram(data):
            self._datagrams_lost += 1
        self.wake(len(data) + 1)

    # -- the end -------------------------------------------------------------------------------------------

    def _fail(self) -> None:
        """Called in an exception handler: log it, and close the connection."""
        logger.exception("%r: the QUIC engine or a handler failed; the connection is closed", self)
        self._close(SessionCode.INTERNAL_ERROR, "internal error")

    def _end(self) -> None:
        """Inform the peer, every stream and the owner that the connection has ended."""
        termination = self._engine.termination
        if self._closed is not None or termination is None:
            return
        closing: list[tuple[bytes, Address]] = []
        try:
            # A sender of nothing but noise gets no answer.
            if self.is_client or self._engine.established:
                closing = self._engine.datagrams_to_send(trio.current_time())
        except Exception:
            logger.exception("%r: the peer could not be informed of the end", self)
        self._transmit(closing)
        try:
            self._deliver_lost(termination.error(self.session_codes, self._local_code))
        except Exception:
            logger.exception("%r: a handler failed at the end of the connection", self)
        self._owner.connection_ended(self, closing)
        self._note_close_sent()
        self.wake()

    def _note_close_sent(self) -> None:
        if self._closed is not None and not self._unsent:
            self._close_sent.set()

    def close(self, code: int = 0, reason: str = "") -> None:
        try:
            if self._closed is None and self.ready:
                self._flush()  # Nothing follows a CONNECTION_CLOSE: what was written just before has to precede it.
        except Exception:
            self._fail()
        self._close(code, reason)

    def _close(self, code: int, reason: str) -> None:
        if self._closed is None:
            self._local_code = code
            self._engine.close(self.session_codes.to_wire(code), reason)
            self._end()

    async def aclose(self, code: int = 0, reason: str = "") -> None:
        self.close(code, reason)
        with trio.CancelScope(deadline=trio.current_time() + self.limits.close_timeout, shield=True):
            await self._close_sent.wait()
        await trio.lowlevel.checkpoint()

    def statistics(self) -> TransportStatistics:
        return attrs.evolve(
            self._engine.statistics(),
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            datagrams_lost=self._datagrams_lost,
        )
