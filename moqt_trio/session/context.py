"""SessionContext: what the parts of a session share. PendingStreams: the streams whose type has not arrived."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Protocol, TypeVarTuple

import trio

from ..codes import CodeSpace, SessionCode, StreamCode
from ..errors import GoingAway, RemoteProtocolError, StreamReset, fresh
from ..loggers import Logger
from ..tasks import defer_interrupts
from ..timeouts import Timeout, sleep_then_read
from ..transport.code_mapping import CodeMapping

if TYPE_CHECKING:
    from ..limits import Limits
    from ..path import BroadcastPath
    from ..protocol.core import SessionCore
    from ..protocol.ietf.fetch import ReplyReceiver
    from ..protocol.machine import StreamMachine
    from ..protocol.state import MessageBudget
    from ..transport.connection import Connection
    from ..transport.interface import AnyStream, StreamHandler
    from ..transport.receive_stream import ReceiveStream
    from ..transport.send_stream import SendStream
    from ..transport.stream import BidiStream
    from ..wire.dialect import Dialect

logger = Logger(__name__)

Ts = TypeVarTuple("Ts")

MESSAGES = 32
"""Messages of a session that are read before other tasks have their turn: about half a millisecond's work."""

DEPARTURE_WAIT = 0.1
"""Seconds between a reset and the end of its session that count as one event. The packets of both leave a peer within
milliseconds, or tens of them when it is busy."""

REPORT_INTERVAL = 5.0
"""Seconds between two measurements of the bitrate that is reported to the peer. The congestion window changes within a
few round trips, but a peer chooses a video quality for seconds: it has no use for more frequent reports."""

REPORT_CHANGE = 0.25
"""The share by which the bitrate has to change to be reported again. Video qualities usually differ by more, and the
congestion window moves by less all the time."""


@cache
def code_mapping(dialect: Dialect, space: CodeSpace) -> CodeMapping:
    """Return how a version numbers the codes of one space."""
    table = dialect.codes
    return CodeMapping(partial(table.to_wire, space), partial(table.from_wire, space))


class Continued(Protocol):
    """A stream with bytes that were not read yet."""

    def go_on(self) -> None:
        """Read some of them; `Turns.add` again if there are more messages."""


@defer_interrupts
class Turns:
    """Has the messages of a session's streams read in turns, so that other tasks have theirs in between.

    One packet may complete what the windows of many streams hold: megabytes of messages of a few bytes. The task that
    reads the socket reads `MESSAGES` of them. The rest is read by a task of the session, that many at a time, stream by
    stream; the task exists only while there is something to read. What is not read yet holds the peer's credit.
    """

    def __init__(self, start: Callable[[Callable[[], Awaitable[object]]], None], budget: MessageBudget) -> None:
        self._start = start
        self._budget = budget
        self._waiting: dict[Continued, None] = {}
        self._running = False
        budget.left = MESSAGES

    def add(self, stream: Continued) -> None:
        """Have a stream go on when it is its turn."""
        self._waiting.setdefault(stream)
        if not self._running:
            self._running = True
            self._start(self._run)

    async def _run(self) -> None:
        try:
            while self._waiting:
                await trio.lowlevel.checkpoint()
                self._budget.left = MESSAGES
                stream = next(iter(self._waiting))
                del self._waiting[stream]
                stream.go_on()
        finally:
            self._running = False


class UnreadFrames:
    """How many frames of a session were decoded and not read, over all its groups."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class PeerNamespaces:
    """What the peer announces by requests of its own, one for each namespace (PUBLISH_NAMESPACE).

    The same namespace may be announced more than once; it is there until the last of them has ended.

    Attributes:
        hidden_asked: True once a list of this session has asked for hidden paths. From then on they are for such lists.
    """

    def __init__(self) -> None:
        self.hidden_asked = False
        self._counts: dict[BroadcastPath, int] = {}
        self._watchers: dict[Callable[[BroadcastPath], None], None] = {}
        self._awaiting: dict[Callable[[], None], tuple[bytes, ...]] = {}

    def __contains__(self, path: BroadcastPath) -> bool:
        return path in self._counts

    def __iter__(self) -> Iterator[BroadcastPath]:
        return iter(tuple(self._counts))

    def add(self, path: BroadcastPath) -> None:
        """Record an announcement, and call the watchers for a path that was not there."""
        count = self._counts.get(path, 0)
        self._counts[path] = count + 1
        if not count:
            self._changed(path)

    def remove(self, path: BroadcastPath) -> None:
        """End an announcement, and call the watchers for a path that is not there any more."""
        self._counts[path] -= 1
        if not self._counts[path]:
            del self._counts[path]
            self._changed(path)

    def watch(self, changed: Callable[[BroadcastPath], None]) -> None:
        """Have `changed` called with each path that came or went."""
        self._watchers[changed] = None

    def unwatch(self, changed: Callable[[BroadcastPath], None]) -> None:
        """End `watch`."""
        self._watchers.pop(changed, None)

    def await_answer(self, prefix: tuple[bytes, ...], called: Callable[[], None]) -> None:
        """Have `called` called once the peer answers the request for what is below a prefix (14)."""
        self._awaiting[called] = prefix

    def forget_answer(self, called: Callable[[], None]) -> None:
        """End `await_answer`."""
        self._awaiting.pop(called, None)

    def answered(self, prefix: tuple[bytes, ...]) -> None:
        """Call those that await this answer."""
        for called in [called for called, awaited in self._awaiting.items() if awaited == prefix]:
            del self._awaiting[called]
            called()

    def _changed(self, path: BroadcastPath) -> None:
        for changed in tuple(self._watchers):
            changed(path)


class SharedRequests(Protocol):
    """The requests of a session that share one control stream."""

    async def wait_allowed(self) -> None:
        """Wait until the peer allows a request, which is to be written before anything else is awaited."""

    def open(self) -> BidiStream:
        """Return a virtual stream for a request that is written at once."""
        ...

    @property
    def left(self) -> int:
        """Requests that the peer allows now."""
        ...

    def open_nowait(self) -> BidiStream:
        """Return one, or raise `trio.WouldBlock` while the peer allows no request."""
        ...


class SessionContext:
    """One session's connection, core, nursery and limits.

    The peer's SETUP and GOAWAY are stored in the core; the events here wake the tasks that wait for them.

    Attributes:
        connection: The transport connection.
        core: The sans-IO state.
        dialect: The version that the session speaks.
        nursery: Owns every task of the session.
        limits: The bounds.
        going_away: Set once the peer asked this side to leave, or the session ended.
        goaway_received: Set once the peer's GOAWAY has arrived; a drain at the transport's level may come before it.
        setup_received: Set once the peer's SETUP is known.
        pending_streams: The peer's streams whose type has not arrived.
        turns: Has long runs of messages read in turns.
        unread_frames: Counts the frames that wait to be read.
        receiving: How many subscriptions and fetches this side has open.
        control_stream: This side's stream of SETUP, where it stays open; None elsewhere, and before it.
        datagram_receiver: Returns what receives a datagram, a method of the subscriber, which itself refers to this.
        parked: The streams of groups whose subscription is not known yet, by their machines.
        replies: What takes the streams of replies, by the request: called with the stream, the machine that has read
            the header, and the bytes of it that hold credit; returns the stream's handler, or None to refuse it.
        peer_namespaces: What the peer announces by requests of its own.
        requests: The requests that share one control stream; None where each has a stream of its own.
    """

    def __init__(self, connection: Connection, core: SessionCore, nursery: trio.Nursery, limits: Limits) -> None:
        self.connection = connection
        self.core = core
        self.dialect = core.dialect
        self.nursery = nursery
        self.limits = limits
        self.going_away = trio.Event()
        self.goaway_received = trio.Event()
        self.setup_received = trio.Event()
        self.unread_frames = UnreadFrames()
        start = nursery.start_soon
        self.turns = Turns(start, core.budget)
        self.pending_streams = PendingStreams(limits.setup_timeout, start)
        self.receiving = 0
        self.control_stream: SendStream | None = None
        self._control_due = b""
        self.datagram_receiver: Callable[[], Callable[[bytes], None] | None] = lambda: None
        self.parked: dict[StreamMachine, Continued] = {}
        self.replies: dict[int, Callable[[ReceiveStream, ReplyReceiver, int], StreamHandler | None]] = {}
        self.peer_namespaces = PeerNamespaces()
        self.requests: SharedRequests | None = None

    def start(self, function: Callable[[*Ts], Awaitable[object]], *arguments: *Ts) -> None:
        """Start a task of the session."""
        self.nursery.start_soon(function, *arguments)

    async def open_request(self, *, own_stream: bool = False) -> BidiStream:
        """Return the stream of a request, which is to be written before anything else is awaited.

        Args:
            own_stream: True for a request that has a stream where the others share one.

        Raises:
            SessionClosed: The session ended.
        """
        requests = self.requests
        if requests is None:
            return await self.connection.open_bidi()
        if not own_stream:
            await requests.wait_allowed()
            return requests.open()
        stream = await self.connection.open_bidi()
        try:
            await requests.wait_allowed()
        except BaseException:
            stream.reset(StreamCode.CANCELLED)
            stream.stop(StreamCode.CANCELLED)
            raise
        return stream

    def open_request_nowait(self, *, reserve: int) -> BidiStream:
        """Return a stream for a request, as `open_request` does; raise `trio.WouldBlock` where that would wait.

        Args:
            reserve: Requests that are to be left: it is raised, too, when the peer allows no more than these.
        """
        if (self.connection.bidi_left if self.requests is None else self.requests.left) <= reserve:
            raise trio.WouldBlock
        return self.connection.open_bidi_nowait() if self.requests is None else self.requests.open_nowait()

    async def wait_update_allowed(self) -> None:
        """Wait until an update of a request may be written: where requests share a stream, updates have ids, too."""
        if self.requests is not None:
            await self.requests.wait_allowed()

    def close(self, code: int, reason: str = "") -> None:
        """Start closing the session with a `SessionCode`."""
        self.connection.close(code, reason)

    def map_codes(self, stream: AnyStream, space: CodeSpace) -> None:
        """Map a stream's error codes to the numbers that the version has for streams of this kind."""
        if space in self.dialect.codes.numbers:
            stream.map_codes(code_mapping(self.dialect, space))

    def begin_control(self, stream: SendStream) -> None:
        """Keep this side's stream of SETUP, and write what has been waiting for it."""
        self.control_stream = stream
        if self._control_due:
            stream.write(self._control_due)

    async def write_control(self, data: bytes) -> None:
        """Write a message on this side's control stream, once there is one. A peer that stopped it gets none."""
        await trio.lowlevel.checkpoint()
        if self.control_stream is None:
            self._control_due += data
            return
        with suppress(StreamReset):
            self.control_stream.write(data)

    def read_parked(self, subscribe_id: int) -> None:
        """Read the groups that came before it was known that they belong to this subscription."""
        for machine in self.core.parked(subscribe_id):
            stream = self.parked.pop(machine, None)
            if stream is not None:
                stream.go_on()
        receive = self.datagram_receiver()
        for data in self.core.parked_datagrams(subscribe_id):
            if receive is not None:
                receive(data)

    async def control_lost(self, problem: str) -> None:
        """Close the session of a peer that gave up its control stream, unless the session ends as one event with it.

        A WebTransport session that closes takes its streams with it, and some peers reset them first.
        """
        if not await Timeout(DEPARTURE_WAIT).wait(self.connection.wait_closed):
            self.violated(RemoteProtocolError(problem, code=SessionCode.PROTOCOL_VIOLATION))

    def check_open(self) -> None:
        """Raise how the session ended, if it has ended."""
        error = self.connection.closed
        if error is not None:
            raise fresh(error)

    def check_may_ask(self) -> None:
        """Raise `SessionClosed` once the session ended, and `GoingAway` after the peer's GOAWAY."""
        self.check_open()
        uri = self.core.goaway_received
        if uri is not None:
            raise GoingAway(uri)

    def estimate(self) -> tuple[int, int | None]:
        """Return the estimated bitrate in bits per second, and the round trip in milliseconds.

        The bitrate is one congestion window per round trip. Without a measured round trip they are 0 and None: unknown.
        """
        numbers = self.connection.statistics()
        if not numbers.rtt:
            return 0, None
        # A round trip below a millisecond is reported as 1: 0 means unknown on the wire.
        return int(numbers.congestion_window * 8 / numbers.rtt), max(1, round(numbers.rtt * 1000))

    def violated(self, error: RemoteProtocolError) -> None:
        """Close the session after a mistake of the peer that breaks all of it."""
        logger.warning("session closed, the peer broke the protocol: %s", error)
        self.close(error.code, str(error))


class Refusable(Protocol):
    """A stream that can be refused from this side."""

    def refuse(self, code: int) -> None:
        """Refuse the rest of the stream."""


@defer_interrupts
class PendingStreams(set[Refusable]):
    """The streams whose type has not arrived. A task refuses those that wait too long; it exists while there are some.

    It is a set, so that taking a stream out again costs no call of a Python function: every stream is taken out.

    Args:
        timeout: Seconds that a stream has at the least; it may get up to twice as many.
        start: Starts a task of the session.

    Limits: setup_timeout.
    """

    def __init__(self, timeout: float, start: Callable[[Callable[[], Awaitable[object]]], None]) -> None:
        super().__init__()
        self._timeout = timeout
        self._start = start
        self._running = False

    def add(self, stream: Refusable) -> None:
        """Add a stream that was just opened."""
        super().add(stream)
        if not self._running:
            self._running = True
            self._start(self._expire)

    async def _expire(self) -> None:
        """Refuse streams that have waited too long, until there are none."""
        seen: set[Refusable] = set()
        while True:
            await sleep_then_read(self._timeout)
            for stream in seen & self:
                self.discard(stream)
                stream.refuse(StreamCode.CONTROL_TIMEOUT)
            seen = set(self)
            if not seen:
                # A task that is cancelled never comes here: none is started in a session that ends.
                self._running = False
                return
