"""run_session: the one place where a session is made, and the block in which it runs.

Theory of operation. A session begins with a connection and the versions that this side offers. The version is
negotiated first, while everything else that the peer sends waits in the connection. Then the nursery opens, the two
halves are made, this side sends its SETUP, and the peer's streams go to the halves: bidirectional streams to the
publisher, unidirectional streams and datagrams to the subscriber.

A server that has to know the path before it decides runs the session with `admitted=False`: until `admit`, the session
reads the peer's SETUP and nothing else, and sends nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs
import trio

from ..arguments import want_id
from ..codes import SessionCode
from ..errors import (
    GoingAway,
    LocalProtocolError,
    NotFound,
    RemoteProtocolError,
    SessionClosed,
    StreamReset,
    Unauthorized,
)
from ..protocol.core import SessionCore
from ..protocol.ietf.core import IetfCore
from ..tasks import consists_of, open_unwrapping_nursery
from ..timeouts import Timeout
from ..transport.code_mapping import EITHER_CODES, HTTP3_CODES
from ..transport.connection import Connection, ConnectionHandler
from ..wire.ietf.drafts import IetfDialect
from ..wire.messages import ProbeLevel, Role, Setup
from .context import SessionContext, code_mapping
from .handshake import HandshakeControl, HandshakeStream, negotiate, report_bitrate
from .requests import FirstBytes, RequestStreams
from .session import Session
from .setup import has_setup, wait_setup

if TYPE_CHECKING:
    from ..errors import MoqtError
    from ..limits import Limits
    from ..transport.receive_stream import ReceiveStream
    from ..transport.stream import BidiStream
    from ..wire.dialect import Dialect
    from ..wire.messages import Token
    from .view import OriginView


def random_hop_id() -> int:
    """Return a random hop id, never 0, which means an unknown hop, and one that a double holds: browsers use those."""
    return secrets.randbelow(2**53 - 1) + 1


def own_setup(hop_id: int | None, cost: int | None, *, role: Role = Role.BOTH, tokens: tuple[Token, ...] = ()) -> Setup:
    """Return what a side says of itself; `hop_id` and `cost` are as for `connect` and `serve`, and checked here."""
    if hop_id is not None:
        want_id("hop_id", hop_id, 1)
    if cost is not None:
        want_id("cost", cost)
    return Setup(hop_id=random_hop_id() if hop_id is None else hop_id, cost=cost, role=role, tokens=tokens)


_NOTHING_SAID = Setup()


class Dispatcher(ConnectionHandler):
    """Passes the connection's streams, datagrams and changes to the session's two halves."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._context = session._context
        self._publisher = session._publisher
        self._subscriber = session._subscriber

    def bidi_opened(self, stream: BidiStream) -> None:
        requests = self._session._shared_requests
        if requests is None:
            self._publisher.stream_opened(stream)
        else:
            stream.handler = FirstBytes(self._context, stream, requests, self._publisher.stream_opened)

    def uni_opened(self, stream: ReceiveStream) -> None:
        self._subscriber.stream_opened(stream)

    def datagram_received(self, data: bytes) -> None:
        self._subscriber.datagram_received(data)

    def streams_available(self) -> None:
        self._publisher.streams_available()

    def draining(self) -> None:
        self._context.core.receive_drain()
        self._context.going_away.set()

    def send_room(self) -> None:
        self._publisher.send_room()

    def connection_lost(self, error: MoqtError) -> None:
        self._context.going_away.set()
        self._publisher.connection_lost()
        # They refer to each other: parted here, they cost the garbage collector nothing.
        self._subscriber.offers.unwatch(self._publisher.peer_offer_changed)
        if self._session._shared_requests is not None:
            # The control stream cannot say so for all of them: it may not be there yet, or no longer.
            self._session._shared_requests.lost(error)


@asynccontextmanager
async def closed_by_block(session: Session) -> AsyncIterator[None]:
    """Close a session at the end of a block, with a code for how the block ended."""
    try:
        yield
    except BaseException as error:
        # The application's nurseries may have wrapped the exceptions in groups.
        if consists_of(error, (trio.Cancelled, SessionClosed, GoingAway)):
            # The block was cancelled; or the peer ended the session, or asked for its end.
            session.close(SessionCode.NO_ERROR)
        elif consists_of(error, (trio.Cancelled, SessionClosed, Unauthorized)):
            session.close(SessionCode.UNAUTHORIZED, "unauthorized")
        else:
            session.close(SessionCode.INTERNAL_ERROR, "internal error")
        raise
    else:
        await session.aclose()


def left_by_peer(session: Session) -> bool:
    """Return whether the session has ended without this side closing it."""
    closed = session.closed
    return isinstance(closed, SessionClosed) and (closed.by_peer or closed.local_code is None)


_DEPARTURE_TIMEOUT = 1.0
"""Seconds that a peer has to close the session after it reset a stream or withdrew a broadcast, and the application
failed for it. A connection that loses a packet sends it again in this time."""


@asynccontextmanager
async def waiting_for_departure(session: Session) -> AsyncIterator[None]:
    """Wait at the end of a block that fails as it does when the peer leaves, until the session has ended, too.

    A peer that leaves withdraws what it published before it closes the session. The wait is bounded, and it keeps the
    session open for as long, so that the peer's own code is the one that counts.
    """
    try:
        yield
    except Exception as error:
        if consists_of(error, DEPARTURES):
            await Timeout(_DEPARTURE_TIMEOUT).wait(session.wait_closed)
        raise


DEPARTURES = (SessionClosed, GoingAway, StreamReset, NotFound)
"""What requests of a peer that leaves may end with, until the session has ended."""


@asynccontextmanager
async def run_session(
    connection: Connection,
    offered: Sequence[Dialect],
    *,
    limits: Limits,
    path: str | None = None,
    setup: Setup = _NOTHING_SAID,
    admitted: bool = True,
    view: OriginView | None = None,
) -> AsyncIterator[Session]:
    """Run a session on a connection for as long as the block lasts; its nursery owns every task of the session.

    Leaving the block cleanly delivers what was written, then closes with NO_ERROR. An exception closes with
    INTERNAL_ERROR (`Unauthorized` with UNAUTHORIZED), a cancellation with NO_ERROR, both at once.

    Args:
        connection: A connection whose handshake is complete, without a handler, so that what the peer sends waits.
        offered: This side's versions, best first. If one has the name of the connection's protocol, it is chosen.
        limits: The bounds.
        path: A client's request target over raw QUIC; None elsewhere.
        setup: What this side says of itself: its hop id, 0 for a random one, its cost, a client's role and tokens, each
            in the versions that have it.
        admitted: False to send nothing and serve no request until `admit`.
        view: What the session shares with others.

    Raises: what `negotiate` raises.
    """
    negotiated = await negotiate(connection, offered, path=path, limits=limits, tokens=setup.tokens)
    dialect = negotiated.dialect
    plain = dialect.quirks.plain_codes and connection.kind != "webtransport"
    connection.code_mapping = EITHER_CODES if plain else HTTP3_CODES
    connection.session_codes = code_mapping(dialect, "session")
    path_in_setup = connection.kind == "quic" and negotiated.handshake is None
    hop_id = setup.hop_id or random_hop_id()
    core = _make_core(
        dialect,
        is_client=connection.is_client,
        limits=limits,
        setup=attrs.evolve(setup, probe=ProbeLevel.REPORT, hop_id=hop_id, path=path if path_in_setup else None),
        path_on_wire=path_in_setup,
        hop_id=hop_id,
        frames_apart=True,
    )
    async with open_unwrapping_nursery() as nursery:
        context = SessionContext(connection, core, nursery, limits)
        session = Session(context, negotiated)
        try:
            async with closed_by_block(session):
                if negotiated.handshake is not None:
                    _keep_handshake(session, negotiated.handshake)
                if admitted:
                    await admit(session, view)
                connection.handler = Dispatcher(session)
                if connection.kind == "webtransport":
                    # Over raw QUIC, the caller waits for the peer's SETUP before it uses the session.
                    context.start(close_without_setup, session)
                yield session
        finally:
            nursery.cancel_scope.cancel()
            with trio.move_on_after(limits.close_timeout, shield=True):
                await connection.aclose()


def _keep_handshake(session: Session, handshake: HandshakeStream) -> None:
    """Go on with the stream of a handshake: it stays, or it becomes the control stream of all requests."""
    context, stream, machine = session._context, handshake.stream, handshake.machine
    shared = context.core.requests
    if shared is None or session._shared_requests is None:
        machine.budget = context.core.budget
        stream.handler = HandshakeControl(context, stream, machine)
    else:
        try:
            negotiated, has_uri = session._negotiated, context.connection.kind == "webtransport"
            shared.begin_untrusted(negotiated.parameters, negotiated.path, has_uri=has_uri)
        except RemoteProtocolError as error:
            context.violated(error)
        else:
            session._shared_requests.begin(stream, machine.rest)


def _make_core(dialect: Dialect, **arguments: Any) -> SessionCore:
    """Return the core of a new session; the arguments are those of `SessionCore`."""
    return IetfCore(dialect, **arguments) if isinstance(dialect, IetfDialect) else SessionCore(dialect, **arguments)


async def admit(session: Session, view: OriginView | None = None) -> None:
    """Send this side's SETUP, and serve the requests that arrived before."""
    await trio.lowlevel.checkpoint()
    if view is not None:
        # Peers ask for announcements in their first flight.
        view._attach(session)
    context, handshake = session._context, session._negotiated.handshake
    requests = session._shared_requests
    if requests is not None:
        await _begin_requests(context, requests)
    elif handshake is not None:
        handshake.accept()
        context.start(report_bitrate, context, handshake)
    own = context.core.setup_stream() if requests is None else None
    if own is not None:
        stream = await context.connection.open_uni()
        stays = context.core.keeps_setup_stream
        stream.write(own, fin=not stays)
        if stays:
            context.begin_control(stream)
    session._publisher.admit()


async def _begin_requests(context: SessionContext, requests: RequestStreams) -> None:
    """Send this side's SETUP on the control stream of all requests, which the client opens."""
    opening = context.core.setup_stream()
    if context.core.is_client and context.control_stream is None:
        stream = await context.connection.open_bidi()
        assert opening is not None
        stream.write(opening)
        requests.begin(stream)
    requests.admit()


def received_goaway(session: Session) -> str | None:
    """Return the URI of the peer's GOAWAY, which may be empty; None when it sent none."""
    return session._context.core.goaway_received


async def wait_goaway_received(session: Session) -> str:
    """Wait for the peer's GOAWAY itself, also after a drain at the transport's level, and return its URI.

    It waits on when the session ends without one.
    """
    await session._context.goaway_received.wait()
    return received_goaway(session) or ""


@trio.lowlevel.enable_ki_protection
async def drain_session(session: Session) -> None:
    """Send GOAWAY, at the transport's level too; in a version without it, deliver what is published and close.

    A session that closes is not drained first: its client would see the one or the other, as the packets arrive.
    """
    if not session._context.dialect.features.goaway:
        await session.aclose()
        return
    session._context.connection.drain()
    # The application may have sent it before.
    with suppress(LocalProtocolError, SessionClosed):
        await session.goaway()


def start_draining(session: Session) -> None:
    """Start `drain_session` as a task of the session."""
    session._context.start(drain_session, session)


def requested_path(session: Session) -> str | None:
    """Return the client's request target over raw QUIC, from its SETUP or from the handshake."""
    setup = session._context.core.peer_setup
    return session._negotiated.path if setup is None else setup.path


@trio.lowlevel.enable_ki_protection
def carries_path(session: Session) -> bool:
    """Return whether the version tells the server the path of a client over raw QUIC."""
    return session._negotiated.handshake is not None or has_setup(session._context)


async def close_without_setup(session: Session) -> None:
    """Wait for the peer's SETUP, in the versions that have one, and close the session if it does not come.

    Limits: setup_timeout.
    """
    with suppress(SessionClosed):
        try:
            await wait_peer_setup(session)
        except LocalProtocolError as error:
            session.close(SessionCode.CONTROL_MESSAGE_TIMEOUT, str(error))


async def wait_peer_setup(session: Session) -> None:
    """Wait for the peer's SETUP, in the versions that have one.

    Raises:
        SessionClosed: The session ended instead: this is how a server refuses.
        LocalProtocolError: No SETUP arrived within `Limits.setup_timeout`.
    """
    await wait_setup(session._context)
