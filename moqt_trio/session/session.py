"""A session as the application sees it, and the block that runs it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from ..codes import SessionCode
from ..errors import LocalProtocolError, MoqtError, SessionClosed
from ..model.origin import PublishedBroadcast
from ..model.track_state import AGE_BOUND, MAX_SEQUENCE
from ..path import BroadcastPath
from ..protocol.core import SessionCore
from ..tasks import consists_of, open_bare_nursery
from .context import SessionContext
from .handshake import HandshakeControl, HandshakeStream
from .publisher.publish import Publication
from .publisher.subscribe import leave_all
from .run import Dispatcher
from .subscriber.announce import Announcements
from .subscriber.fetch import FetchReader
from .subscriber.probe import Probe
from .subscriber.subscribe import SubscribeOptions, Subscription

if TYPE_CHECKING:
    from ..limits import Limits
    from ..model.broadcast import Broadcast
    from ..transport.abc import Connection, TransportStatistics
    from ..wire.dialect import Dialect
    from ..wire.messages import Setup


@attrs.frozen(kw_only=True)
class SessionStatistics:
    """Numbers of one session.

    Attributes:
        transport: Those of the connection that carries it.
        publications: Broadcasts published now.
        subscriptions: Subscriptions of ours that are open.
        subscriptions_served: Subscriptions of the peer's that are served now.
        groups_dropped: Groups that those subscribers lose because they are slow or the groups too old.
        datagrams_dropped: Datagrams from the peer that belonged to nothing or did not decode.
    """

    transport: TransportStatistics
    publications: int
    subscriptions: int
    subscriptions_served: int
    groups_dropped: int
    datagrams_dropped: int


class Session:
    """A live session with one peer, both publisher and subscriber. `connect` and `SessionRequest.accept` make them.

    Attributes:
        version: The negotiated version, such as `"moq-lite-06"`.
        transport: What carries it: `"quic"`, `"webtransport"` or `"memory"`.
        peer: The peer's address and port, where there is one.
        limits: The bounds.
    """

    def __init__(self, context: SessionContext, handler: Dispatcher) -> None:
        self._context = context
        self._handler = handler
        self.version = context.core.dialect.name
        self.transport: Literal["quic", "webtransport", "memory"] = context.connection.kind
        self.peer = context.connection.peer
        self.limits = context.limits

    # -- publishing ----------------------------------------------------------------------------------------

    def publish(
        self, path: str | BroadcastPath, broadcast: Broadcast, *, hops: Collection[int] = (), cost: int = 0
    ) -> Publication:
        """Announces a broadcast for as long as the returned block lasts.

        Leaving the block cleanly withdraws the announcement and lets running subscriptions finish what was written,
        for at most `Limits.close_timeout`; an exception or a cancellation cuts them off.

        Args:
            path: Where to announce it, parts separated by `/`.
            broadcast: What to publish; the same one may be published on many sessions.
            hops: For a relay: the hop ids that the broadcast came by, origin first; each 0 … 2**62-1.
            cost: What subscribing costs, in the deployment's units: 0 … 2**62-1.

        Raises:
            ValueError: The path is empty or not a path, or a number is out of range; on entering, a broadcast is
                published there already.
            SessionClosed: On entering: the session ended.
        """
        where = BroadcastPath.parse(path)
        if not where.parts:
            raise ValueError("a broadcast needs a path of at least one part")
        for number in (*hops, cost):
            if not 0 <= number <= MAX_SEQUENCE:
                raise ValueError(f"a hop id or a cost is 0 … 2**62-1, not {number}")
        return Publication(self._context, self._handler, PublishedBroadcast(where, broadcast, tuple(hops), cost))

    # -- subscribing ---------------------------------------------------------------------------------------

    def announcements(self, prefix: str | BroadcastPath = "") -> Announcements:
        """Asks the peer what it offers below a prefix.

        Args:
            prefix: Whole parts, separated by `/`; empty for everything.

        Returns:
            A block to be entered with `async with`, once, and iterated inside.

        Raises:
            ValueError: The prefix is not a path.
            LocalProtocolError: On entering: the block was entered before, or the version cannot carry the prefix.
            SessionClosed: On entering: the session ended.
            GoingAway: On entering: the peer asked us to leave.
        """
        return Announcements(self._context, BroadcastPath.parse(prefix))

    def subscribe(
        self,
        path: str | BroadcastPath,
        track: str,
        *,
        priority: int = 127,
        ordered: bool = False,
        max_age: float = 5.0,
        start_group: int | None = None,
        end_group: int | None = None,
        start_frame: int = 0,
        end_frame: int | None = None,
    ) -> Subscription:
        """Asks the peer for a track.

        Args:
            path: The broadcast's path.
            track: The track's name.
            priority: 0 … 255; under congestion higher goes first.
            ordered: Ask for groups in sequence order rather than newest first; moq-lite-06 has no such field.
            max_age: Seconds. A group that is older than the newest one by this much is dropped on its way. In
                moq-lite-06 it also says how far back delivery starts; other versions start at `start_group`, or
                without one at the latest group.
            start_group: The first group wanted: no group before it is delivered.
            end_group: The last group wanted, inclusive.
            start_frame: The first frame wanted of `start_group`; moq-lite-06 only.
            end_frame: The last frame wanted of `end_group`, inclusive; moq-lite-06 only.

        Returns:
            A block to be entered with `async with`, once, and iterated inside.

        Raises:
            ValueError: A value is out of range.
            LocalProtocolError: On entering: the block was entered before, the range ends before it starts, or the
                version cannot carry what is asked for.
            SessionClosed: On entering: the session ended.
            GoingAway: On entering: the peer asked us to leave.
        """
        self._check_track_name(track)
        if not 0 <= priority <= 255:
            raise ValueError(f"priority is 0 … 255, not {priority}")
        if not 0 <= max_age < AGE_BOUND:
            raise ValueError(f"max_age is a number of seconds from 0 on and below 2**51, not {max_age}")
        if end_frame is not None and end_group is None:
            raise ValueError("end_frame needs end_group: it names a frame of that group")
        options = SubscribeOptions(priority, ordered, max_age, start_group, end_group, start_frame, end_frame)
        return Subscription(self._context, BroadcastPath.parse(path), track, options)

    def _check_track_name(self, track: str) -> None:
        # A peer closes the session for a name that is too long.
        if len(track.encode()) > self.limits.max_track_name:
            raise ValueError(f"a track's name has at most {self.limits.max_track_name} bytes in UTF-8")

    def fetch(
        self,
        path: str | BroadcastPath,
        track: str,
        sequence: int,
        *,
        priority: int = 127,
        start_frame: int = 0,
        end_frame: int | None = None,
    ) -> FetchReader:
        """Asks the peer for one group, live or past.

        Args:
            path: The broadcast's path.
            track: The track's name.
            sequence: The group's number.
            priority: 0 … 255; under congestion higher goes first.
            start_frame: The first frame wanted.
            end_frame: The last frame wanted, inclusive; moq-lite-06 only.

        Returns:
            A block to be entered with `async with`, once, and iterated inside. Reading raises `NotFound` when the
            publisher does not have the group.

        Raises:
            ValueError: The path is not a path, or the track's name is too long.
            LocalProtocolError: The negotiated version has no fetch or cannot name frames, or a number is out of
                range; on entering, the block was entered before.
            SessionClosed: On entering: the session ended.
            GoingAway: On entering: the peer asked us to leave.
        """
        self._check_track_name(track)
        where = BroadcastPath.parse(path)
        machine = self._context.core.fetch(
            str(where), track, sequence, priority=priority, start_frame=start_frame, end_frame=end_frame
        )
        return FetchReader(self._context, where, track, machine, sequence, start_frame)

    def probe(self, bitrate: int | None = None) -> Probe:
        """Asks the peer what it measures of its way to us.

        Args:
            bitrate: A target in bits per second for peers that can raise their rate to it; None asks for reports.

        Returns:
            A block to be entered with `async with`, once, and iterated inside for `ProbeReport`s.

        Raises:
            LocalProtocolError: The negotiated version has no probes, or the peer has said that it does not report; on
                entering, the block was entered before.
            SessionClosed: On entering: the session ended.
            GoingAway: On entering: the peer asked us to leave.
        """
        return Probe(self._context, bitrate)

    # -- the session itself --------------------------------------------------------------------------------

    async def goaway(self, uri: str = "") -> None:
        """Asks the peer to leave.

        Args:
            uri: Where to go instead; only a server may name a place.

        Raises:
            LocalProtocolError: The negotiated version has no GOAWAY, it was sent before, or a client names a place.
            SessionClosed: The session ended.
        """
        self._context.check_open()
        machine = self._context.core.goaway(uri)
        try:
            stream = await self._context.connection.open_bidi()
        except BaseException:
            machine.withdraw()
            raise
        stream.write(machine.opening)

    async def wait_goaway(self) -> str:
        """Waits until the peer asks us to leave; returns where to, or an empty text. Raises `SessionClosed`."""
        await self._context.going_away.wait()
        if self._context.goaway_uri is None:
            self._context.check_open()
        return self._context.goaway_uri or ""

    @property
    def closed(self) -> MoqtError | None:
        """How the session ended (`SessionClosed`), or None while it lives."""
        return self._context.connection.closed

    async def wait_closed(self) -> MoqtError:
        """Waits until the session is over, and returns how."""
        return await self._context.connection.wait_closed()

    def close(self, code: int = 0, reason: str = "") -> None:
        """Starts closing at once; what was not yet delivered is lost. Does nothing the second time.

        Args:
            code: A session error code.
            reason: A text for the peer's log; cut at 1024 bytes.
        """
        self._context.close(code, reason)

    async def aclose(self, code: int = 0, reason: str = "") -> None:
        """Lets subscriptions finish for at most `Limits.close_timeout`, then closes.

        It may be called again, and finishes even when cancelled (forcefully then).
        """
        try:
            if self.closed is None:
                await leave_all(self._handler.servers, self.limits.close_timeout)
        finally:
            await self._context.connection.aclose(code, reason)

    def statistics(self) -> SessionStatistics:
        """Returns the session's numbers."""
        return SessionStatistics(
            transport=self._context.connection.statistics(),
            publications=len(self._handler.origin),
            subscriptions=len(self._context.subscriptions),
            subscriptions_served=len(self._handler.servers),
            groups_dropped=sum(server.dropped_groups for server in self._handler.servers),
            datagrams_dropped=self._context.core.dropped_datagrams,
        )

    def __repr__(self) -> str:
        state = "closed" if self.closed is not None else "open"
        side = "client" if self._context.core.is_client else "server"
        return f"<Session {self.version} over {self.transport}, {side}, {state}>"


def random_hop_id() -> int:
    """Returns a hop id for this process or session: never 0, which stands for an unknown hop."""
    return secrets.randbelow(2**62 - 1) + 1


@asynccontextmanager
async def closed_by_block(session: Session) -> AsyncIterator[None]:
    """Closes a session at the end of a block, with what the block's outcome says to the peer."""
    try:
        yield
    except BaseException as error:
        # A nursery of the application may have put what it saw into groups.
        if consists_of(error, trio.Cancelled):
            session.close(SessionCode.NO_ERROR)
        elif not consists_of(error, (trio.Cancelled, SessionClosed)):
            session.close(SessionCode.INTERNAL_ERROR, "internal error")
        raise
    else:
        await session.aclose()


@asynccontextmanager
async def run_session(
    connection: Connection,
    dialect: Dialect,
    *,
    limits: Limits,
    setup: Setup,
    path_on_wire: bool,
    core: SessionCore | None = None,
    handshake: HandshakeStream | None = None,
    held: bool = False,
) -> AsyncIterator[Session]:
    """Runs a session on a connection for as long as the block lasts; its nursery owns every task of the session.

    Leaving the block cleanly delivers what was written, then closes with NO_ERROR. An exception closes with
    INTERNAL_ERROR, a cancellation with NO_ERROR, both at once. A held session reads the peer's SETUP and nothing
    else, and says nothing, until `release_held`.
    """
    if core is None:
        core = SessionCore(
            dialect,
            is_client=connection.is_client,
            limits=limits,
            setup=setup,
            path_on_wire=path_on_wire,
            hop_id=setup.hop_id,
        )
    async with open_bare_nursery() as nursery:
        context = SessionContext(connection, core, nursery, limits)
        if core.peer_setup is not None:
            context.setup_received.set()
        handler = Dispatcher(context, held=held)
        session = Session(context, handler)
        try:
            async with closed_by_block(session):
                if handshake is not None:
                    handshake.stream.handler = HandshakeControl(context, handshake.stream, handshake.machine)
                if not held:
                    await handler.release()
                connection.handler = handler
                yield session
        finally:
            nursery.cancel_scope.cancel()
            with trio.move_on_after(limits.close_timeout, shield=True):
                await connection.aclose()


async def release_held(session: Session) -> None:
    """Lets a held session say who we are, and take up the requests that came before it was accepted."""
    await session._handler.release()


async def wait_peer_setup(session: Session) -> None:
    """Waits for the peer's SETUP, in the versions that have one.

    Raises:
        SessionClosed: The session ended instead; a server refuses in this way.
        LocalProtocolError: The peer did not say anything within `Limits.setup_timeout`.
    """
    context = session._context
    if context.core.dialect.features.setup != "uni":
        return
    async with open_bare_nursery() as nursery:

        async def watch() -> None:
            error = await context.connection.wait_closed()
            raise error

        nursery.start_soon(watch)
        with trio.move_on_after(context.limits.setup_timeout) as scope:
            await context.setup_received.wait()
        nursery.cancel_scope.cancel()
    if scope.cancelled_caught:
        raise LocalProtocolError("the peer sent no SETUP in time")


__all__ = ["Session", "SessionStatistics", "run_session", "wait_peer_setup"]
