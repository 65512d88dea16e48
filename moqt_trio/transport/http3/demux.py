"""The demultiplexer of a connection: WebTransport streams go to their session, all else to HTTP/3.

Theory of operation. aioquic's H3Connection has no sessions, and reads what arrives on streams that this side opened as
HTTP/3 frames. So it never gets them: the first integer of a stream classifies it, and after its prefix the same stream
object changes its handler. A stream is first unclassified (no integer yet), then an HTTP/3 stream, a stream of a
session, or refused:

- a stream of an established session goes to that session;
- one of a session that was requested and not accepted yet waits in `EarlyArrivals`, within `Limits.max_early_streams`
  and `Limits.max_early_bytes`, until the session is accepted, refused, or `Limits.setup_timeout` has passed;
- one of a session that has ended is refused; an id that cannot be a session's closes the connection.

Sessions are called through `SessionStreams` only.

Spec: draft-ietf-webtrans-http3, sections 4.2 to 4.6; RFC 9297 section 2.1.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from ... import varint
from ...errors import fresh
from ...tasks import defer_interrupts
from ...timeouts import sleep_then_read
from ..code_mapping import PLAIN_CODES
from ..connection import ConnectionHandler
from ..interface import StreamHandler, is_unidirectional
from ..stream import BidiStream
from .codec import HeadersTooLarge, Http3
from .constants import (
    BIDI_WEBTRANSPORT,
    HTTP3_UNI_TYPES,
    NEWEST_WEBTRANSPORT_SETTING,
    SETTING_H3_DATAGRAM,
    UNI_WEBTRANSPORT,
    WEBTRANSPORT_SETTINGS,
    H3Error,
)
from .early import EarlyArrivals, refuse
from .exchange import Exchange, ExchangeOwner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from ...errors import MoqtError
    from ...limits import Limits
    from ..connection import Connection
    from ..receive_stream import ReceiveStream

    Start: TypeAlias = Callable[[Callable[[], Awaitable[None]]], None]

_REMEMBERED_SESSIONS = 64
"""Ids of requests that have no session, or none any more: a stream for one of them is refused at once. Late streams
arrive within a few round trips, in which few requests end; a stream for an id that was dropped waits in
`EarlyArrivals` until it expires."""


class _Unclassified(StreamHandler):
    """Reads the first integers of a peer's stream."""

    __slots__ = ("_demux", "_head", "since", "stream")

    def __init__(self, demux: Demux, stream: ReceiveStream) -> None:
        self._demux = demux
        self.stream = stream
        self._head = b""
        self.since = trio.current_time()

    def data_received(self, data: bytes, fin: bool) -> None:
        head = self._head = self._head + data
        kind = varint.decode(head)
        if kind is None:
            if fin:
                self._demux.refused(self.stream)
            return
        wanted = UNI_WEBTRANSPORT if is_unidirectional(self.stream.stream_id) else BIDI_WEBTRANSPORT
        if kind[0] != wanted:
            self.stream.unread(head, fin)
            self._demux.classified(self.stream, kind[0])
            return
        session = varint.decode(head, kind[1])
        if session is not None:
            self.stream.consumed(session[1])
            self.stream.unread(head[session[1] :], fin)
            self._demux.classified(self.stream, kind[0], session[0])
        elif fin:
            self._demux.refused(self.stream)

    def reset_received(self, code: int) -> None:
        # The prefix, and with it the session, is lost; that is normal.
        self._demux.refused(self.stream)

    def connection_lost(self, error: MoqtError) -> None:
        self._demux.unclassified.pop(self.stream.stream_id, None)


class _LocalCritical(StreamHandler):
    """The control stream or a QPACK stream of this side."""

    __slots__ = ("_demux", "_stream_id")

    def __init__(self, demux: Demux, stream_id: int) -> None:
        self._demux = demux
        self._stream_id = stream_id

    def stop_received(self, code: int) -> None:
        self._demux.http3.sending_ended(self._stream_id)


class _PeerCritical(StreamHandler):
    """The control stream or a QPACK stream of the peer."""

    __slots__ = ("_demux", "_stream")

    def __init__(self, demux: Demux, stream: ReceiveStream) -> None:
        self._demux = demux
        self._stream = stream

    def data_received(self, data: bytes, fin: bool) -> None:
        self._demux.critical_received(self._stream.stream_id, data, fin)
        self._stream.consumed(len(data))

    def reset_received(self, code: int) -> None:
        self._demux.http3.receiving_ended(self._stream.stream_id)


class SessionStreams(Protocol):
    """Called with what arrives for one WebTransport session.

    Attributes:
        session_id: The id of the stream of its CONNECT.
        established: True once it was accepted.
    """

    session_id: int
    established: bool

    def deliver_stream(self, stream: ReceiveStream) -> None:
        """Called with each stream of the session that the peer opens."""

    def deliver_datagram(self, data: bytes) -> None:
        """Called with each datagram of the session."""

    def deliver_streams_available(self) -> None:
        """Called when the peer allows more streams."""

    def deliver_draining(self) -> None:
        """Called when the peer asks this side to leave the connection."""

    def deliver_send_room(self) -> None:
        """Called when the connection takes more."""

    def deliver_lost(self, error: MoqtError) -> None:
        """Called when the connection was lost."""


@defer_interrupts
class Demux(ConnectionHandler):
    """The handler of a connection that speaks HTTP/3. Sends SETTINGS when it is made; reads once `attach` is called.

    Attributes:
        connection: The connection.
        http3: The connection's HTTP/3 state.
        sessions: Those that were requested and have not ended, by session id.
        early: What arrived for sessions that are not accepted yet.
        unclassified: The peer's streams whose first integers have not arrived, by stream id.
        when_used: Called when `in_use` has changed.

    Raises:
        trio.WouldBlock: The peer allows too few streams for HTTP/3.
    """

    def __init__(self, connection: Connection, limits: Limits, requests: ExchangeOwner | None) -> None:
        self.connection = connection
        self._limits = limits
        self._requests = requests
        self.http3 = Http3(connection, limits.max_header_bytes)
        self.sessions: dict[int, SessionStreams] = {}
        self.early = EarlyArrivals(limits)
        self.unclassified: dict[int, _Unclassified] = {}
        self._silent: list[tuple[float, Exchange]] = []
        self._ended: deque[int] = deque(maxlen=_REMEMBERED_SESSIONS)
        self._unsettled: dict[int, Exchange] = {}
        self._requested: set[int] = set()
        self.when_used: Callable[[bool], None] = lambda used: None
        self._settled = trio.Event()
        self._refuse_from: int | None = None
        self._goaway_sent = False
        self._next_request = 0
        self._settings = trio.Event()
        self._start: Start | None = None
        self._expiry: trio.CancelScope | None = None

    def attach(self, start: Start | None = None) -> None:
        """Become the connection's handler, and read what has arrived already.

        Args:
            start: Starts the task that refuses what waits too long for its first bytes, its headers or its session. It
                exists while something waits. None lets all wait.

        Limits: setup_timeout.
        """
        self._start = start
        for stream in self.http3.local_streams:
            stream.handler = _LocalCritical(self, stream.stream_id)
        self.connection.handler = self

    @property
    def datagrams(self) -> bool:
        """True when the peer takes HTTP/3 datagrams."""
        settings = self.http3.settings
        return settings is not None and settings.get(SETTING_H3_DATAGRAM) == 1

    @property
    def shared(self) -> bool:
        """False when sessions need flow control of their own to share this connection; then there is one at a time.

        So it is when the peer supports none but the newest drafts. It is known once SETTINGS have arrived.

        Spec: draft-ietf-webtrans-http3, section 5.1.
        """
        settings = self.http3.settings or {}
        spoken = [setting for setting in WEBTRANSPORT_SETTINGS if settings.get(setting)]
        return spoken != [NEWEST_WEBTRANSPORT_SETTING]

    async def wait_settings(self) -> dict[int, int]:
        """Wait for the peer's SETTINGS. Raises `SessionClosed`."""
        await self._settings.wait()
        if self.http3.settings is None:
            assert self.connection.closed is not None
            raise fresh(self.connection.closed)
        return self.http3.settings

    def detach(self) -> None:
        """End the task that refuses what waits too long, and start none any more."""
        self._start = None
        if self._expiry is not None:
            self._expiry.cancel()

    def _expire_later(self) -> None:
        if self._start is not None and self._expiry is None:
            self._expiry = trio.CancelScope()
            self._start(self._expire)

    async def _expire(self) -> None:
        assert self._expiry is not None
        with self._expiry:
            while True:
                await sleep_then_read(self._limits.setup_timeout)
                before = trio.current_time() - self._limits.setup_timeout
                for unclassified in [entry for entry in self.unclassified.values() if entry.since <= before]:
                    self.refused(unclassified.stream)
                self._forget_started()
                for since, exchange in self._silent:
                    if since <= before:
                        exchange.abort(H3Error.REQUEST_INCOMPLETE)
                self._forget_started()
                self.early.expire(before)
                if not (self.early or self.unclassified or self._silent):
                    break
            self._expiry = None

    def go_away(self) -> None:
        """Refuse the requests that the peer opens from now on, and ask it for no more with GOAWAY.

        GOAWAY asks every session on the connection to leave, so it waits for those exchanges that delay it. The owner
        of each session drains or closes it.

        Spec: RFC 9114 section 5.2; draft-ietf-webtrans-http3, section 4.7.
        """
        if self._refuse_from is None:
            self._refuse_from = self._next_request
            self.send_pending_goaway()

    def send_pending_goaway(self) -> None:
        """Send GOAWAY, if it is wanted and was not sent, once no exchange delays it."""
        if self._refuse_from is None or self._goaway_sent or self.connection.closed is not None:
            return
        if not any(exchange.delays_goaway for exchange in self._unsettled.values()):
            self._goaway_sent = True
            self.http3.send_goaway(self._refuse_from)

    async def wait_settled(self) -> None:
        """Wait until every request that was read has ended, and the peer has acknowledged the response.

        Return when the connection has ended, too.
        """
        while self._unsettled and self.connection.closed is None:
            await self._settled.wait()

    def _forget_started(self) -> None:
        self._silent = [entry for entry in self._silent if not entry[1].started]

    # -- from the connection -------------------------------------------------------------------------------

    def bidi_opened(self, stream: BidiStream) -> None:
        self._opened(stream)

    def uni_opened(self, stream: ReceiveStream) -> None:
        self._opened(stream)

    def _opened(self, stream: ReceiveStream) -> None:
        stream.codes = PLAIN_CODES
        unclassified = self.unclassified[stream.stream_id] = _Unclassified(self, stream)
        stream.handler = unclassified
        if self.unclassified:
            self._expire_later()

    def datagram_received(self, data: bytes) -> None:
        quarter = varint.decode(data)
        if quarter is None:
            return
        session_id = 4 * quarter[0]
        session = self.sessions.get(session_id)
        if session is not None and session.established:
            session.deliver_datagram(data[quarter[1] :])
        elif session_id not in self._ended:
            self.early.hold_datagram(session_id, data[quarter[1] :], trio.current_time())
            self._expire_later()

    def streams_available(self) -> None:
        for session in list(self.sessions.values()):
            session.deliver_streams_available()

    def send_room(self) -> None:
        sessions = list(self.sessions.values())
        for session in sessions:
            session.deliver_send_room()
        # The first may have used all of the room: the next time another one is the first.
        if len(sessions) > 1 and self.sessions.pop(sessions[0].session_id, None) is not None:
            self.sessions[sessions[0].session_id] = sessions[0]

    def connection_lost(self, error: MoqtError) -> None:
        self._settings.set()
        self._settled.set()
        for session in list(self.sessions.values()):
            session.deliver_lost(error)
        # It holds this object: together they would be work for the garbage collector.
        self._requests = None

    # -- from the streams ----------------------------------------------------------------------------------

    def refused(self, stream: ReceiveStream) -> None:
        """Called when a stream ended, or waited too long, before it could be classified."""
        self.unclassified.pop(stream.stream_id, None)
        refuse(stream, H3Error.REQUEST_CANCELLED)

    def classified(self, stream: ReceiveStream, kind: int, session_id: int | None = None) -> None:
        """Called when a stream's first integer is known, and for WebTransport its session."""
        self.unclassified.pop(stream.stream_id, None)
        if session_id is not None:
            self._session_stream(stream, session_id)
        elif not isinstance(stream, BidiStream):
            if kind in HTTP3_UNI_TYPES:
                stream.handler = _PeerCritical(self, stream)
            else:
                refuse(stream, H3Error.STREAM_CREATION_ERROR)
        elif self._requests is None:
            self.connection.close(H3Error.STREAM_CREATION_ERROR, "a server opens no request streams")
        elif self._refuse_from is not None and stream.stream_id >= self._refuse_from:
            refuse(stream, H3Error.REQUEST_REJECTED)
        else:
            self._next_request = max(self._next_request, stream.stream_id + 4)
            exchange = Exchange(self.http3, stream, self._requests)
            self._unsettled[stream.stream_id] = exchange
            exchange.when_settled = partial(self._request_settled, stream.stream_id)
            if not exchange.started:
                if len(self._silent) > 2 * self._limits.max_streams:
                    self._forget_started()
                self._silent.append((trio.current_time(), exchange))
                self._expire_later()

    @property
    def in_use(self) -> bool:
        """True while there is a request, that of a session among them, whose headers have arrived."""
        return bool(self._requested)

    def requested(self, exchange: Exchange) -> None:
        """Called when the headers of a request have arrived."""
        self._requested.add(exchange.stream_id)
        if len(self._requested) == 1:
            self.when_used(True)

    def _request_settled(self, stream_id: int) -> None:
        self._unsettled.pop(stream_id, None)
        if stream_id in self._requested:
            self._requested.remove(stream_id)
            if not self._requested:
                self.when_used(False)
        self.send_pending_goaway()
        if not self._unsettled:
            self._settled.set()
            self._settled = trio.Event()

    def _session_stream(self, stream: ReceiveStream, session_id: int) -> None:
        session = self.sessions.get(session_id)
        if session_id % 4:
            self.connection.close(H3Error.ID_ERROR, "a session id is that of a client's bidirectional stream")
        elif session is not None and session.established:
            session.deliver_stream(stream)
        elif session_id in self._ended:
            refuse(stream, H3Error.WEBTRANSPORT_SESSION_GONE)
        else:
            self.early.hold_stream(stream, session_id, trio.current_time())
            self._expire_later()

    def critical_received(self, stream_id: int, data: bytes, fin: bool) -> None:
        """Called with bytes of the peer's control stream or of one of its QPACK streams."""
        for event in self.http3.receive(stream_id, data, fin):
            if isinstance(event, HeadersTooLarge):
                self.connection.close(H3Error.EXCESSIVE_LOAD, "a control frame is too large")
        if self.http3.settings is not None:
            self._settings.set()
        if self.http3.goaway_received:
            for session in list(self.sessions.values()):
                session.deliver_draining()

    def session_ended(self, session: SessionStreams) -> None:
        """Called when a session has ended: what still arrives for it is refused."""
        if self.sessions.pop(session.session_id, None) is not None:
            self.no_session(session.session_id)

    def no_session(self, session_id: int) -> None:
        """Record that there is no session of this id, and will be none."""
        self._ended.append(session_id)
        self.early.refuse_session(session_id)
