"""One session after another: the tasks, what makes a next session necessary, and what becomes of the one before it.

It is told how to open a session and where a GOAWAY leads; it knows neither URLs nor sockets.

Spec: draft-lcurley-moq-lite-06, section 5.1.6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from itertools import cycle
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from ..codes import SessionCode
from ..errors import (
    ConnectError,
    ConnectTimeout,
    GoingAway,
    HandshakeFailed,
    MoqtError,
    Rejected,
    SessionClosed,
    StreamReset,
    printable,
)
from ..session.context import logger
from ..session.session import Session
from ..tasks import consists_of, open_bare_nursery
from .redirect import Target, Trail, without_query

if TYPE_CHECKING:
    from ..limits import Limits
    from .backoff import Backoff

T = TypeVar("T")

SessionOpener = Callable[[Target], AbstractAsyncContextManager[Session]]
"""Returns a block that runs a session at a place."""

_FINAL_CODES = frozenset(
    {
        SessionCode.UNAUTHORIZED,
        SessionCode.PROTOCOL_VIOLATION,
        SessionCode.KEY_VALUE_FORMATTING_ERROR,
        SessionCode.VERSION_NEGOTIATION_FAILED,
    }
)
"""What a peer closes a session with that it would close the next one with, too."""


@attrs.frozen
class _AskedToLeave:
    uri: str


@attrs.frozen
class _Lost:
    error: MoqtError


@attrs.define(eq=False)
class _Leg:
    """One session and its handler.

    Attributes:
        target: Where it is.
        session: The session.
        opened: When it was opened.
        scope: Around the handler.
        turn: Why there has to be a next one; None while there has not.
        turned: Set once there is a turn, or the handler has returned.
        replaced: Whether the next one runs.
        over: Set once the handler has ended and the session is closed.
    """

    target: Target
    session: Session
    opened: float
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    turn: _AskedToLeave | _Lost | None = None
    turned: trio.Event = attrs.field(factory=trio.Event)
    replaced: bool = False
    over: trio.Event = attrs.field(factory=trio.Event)

    @property
    def asked_to_leave(self) -> bool:
        """Whether the server sent a GOAWAY, also if nobody has been told so far."""
        return self.session._context.core.goaway_received is not None

    def note(self) -> None:
        """Notes why there has to be a next session: a GOAWAY or the end of this one. Only the first reason counts."""
        if self.turn is None:
            uri, closed = self.session._context.core.goaway_received, self.session.closed
            if uri is not None:
                self.turn = _AskedToLeave(uri)
            else:
                assert closed is not None
                self.turn = _Lost(closed)
            self.turned.set()

    def leave(self) -> None:
        """Gives the handler its last seconds; does nothing the second time."""
        deadline = trio.current_time() + self.session.limits.drain_timeout
        self.scope.deadline = min(self.scope.deadline, deadline)

    def forgives(self, error: Exception) -> bool:
        """Whether a failure of the handler says no more than that the session ended."""
        if self.asked_to_leave or self.replaced:
            return consists_of(error, (GoingAway, SessionClosed, StreamReset))
        closed = self.session.closed
        return consists_of(error, SessionClosed) and closed is not None and is_passing(closed)


class Succession(Generic[T]):
    """The sessions of one call of `stay_connected`.

    Args:
        open_target: Returns a block that runs a session at a place.
        handler: What to do with each session.
        trail: Where a GOAWAY leads.
        retry: How often to try again, and after how long.
        limits: The bounds.
    """

    def __init__(
        self,
        open_target: SessionOpener,
        handler: Callable[[Session], Awaitable[T]],
        *,
        trail: Trail,
        retry: Backoff | None,
        limits: Limits,
    ) -> None:
        self._open = open_target
        self._handler = handler
        self._trail = trail
        self._retry = retry
        self._limits = limits
        self._failures = 0
        self._legs: set[_Leg] = set()
        self._results: list[T] = []
        self._seeking = trio.CancelScope()

    async def run(self, target: Target) -> T:
        """Runs one session after another until a handler's return ends it."""
        async with open_bare_nursery() as nursery:
            leg: _Leg = await nursery.start(self._run_leg, target)
            await leg.turned.wait()
            while not self._results:
                following: _Leg | None = None
                try:
                    with trio.CancelScope() as self._seeking:
                        following = await self._open_next(nursery, leg)
                except Exception:
                    await self._drain()
                    if self._results:
                        break
                    raise
                leg.replaced = True
                leg.leave()
                # There is none when a result has ended the search.
                if following is not None and not self._results:
                    leg = following
                    await leg.turned.wait()
            for leg in self._legs:
                if not leg.replaced:
                    # It was opened in vain, while the handler before it came to its end after all.
                    leg.scope.cancel()
        return self._results[0]

    async def _run_leg(self, target: Target, *, task_status: trio.TaskStatus[_Leg]) -> None:
        leg: _Leg | None = None
        try:
            async with self._open(target) as session:
                leg = _Leg(target, session, trio.current_time())
                self._legs.add(leg)
                task_status.started(leg)
                async with open_bare_nursery() as nursery:
                    nursery.start_soon(_watch, leg)
                    with leg.scope:
                        self._returned(leg, await self._handler(session))
                    nursery.cancel_scope.cancel()
        except Exception as error:
            if leg is None or not leg.forgives(error):
                raise
            logger.debug("the handler of %s ended: %s", without_query(target.url), error)
            leg.note()
        finally:
            if leg is not None:
                self._legs.discard(leg)
                leg.over.set()

    def _returned(self, leg: _Leg, value: T) -> None:
        if leg.asked_to_leave or leg.replaced:
            leg.note()
        else:
            self._results.append(value)
            self._seeking.cancel()
            leg.turned.set()

    async def _drain(self) -> None:
        """Waits for every handler to end within its time."""
        legs = list(self._legs)
        for leg in legs:
            leg.leave()
        for leg in legs:
            await leg.over.wait()

    async def _open_next(self, nursery: trio.Nursery, leg: _Leg) -> _Leg:
        """Opens the next session, and starts its handler.

        Raises:
            MoqtError: There is none to be had.
        """
        if trio.current_time() - leg.opened >= self._limits.settle_time:
            self._failures = 0
            self._trail.settled()
        places = [leg.target]
        error: MoqtError | None = None
        if isinstance(leg.turn, _AskedToLeave):
            sender = leg.session.peer
            target = self._trail.follow(leg.target, leg.turn.uri, sender=sender[0] if sender else None)
            if target != leg.target:
                places.insert(0, target)
            logger.info("asked to leave %s for %s", *(without_query(place.url) for place in (leg.target, target)))
        else:
            assert leg.turn is not None
            error = leg.turn.error
        attempts = cycle(places)
        while True:
            place = next(attempts)
            if error is not None:
                await self._pause(error, place)
            try:
                following: _Leg = await nursery.start(self._run_leg, place)
            except (ConnectError, Rejected, SessionClosed) as failed:
                error = failed
            else:
                return following

    async def _pause(self, error: MoqtError, place: Target) -> None:
        """Waits before the attempt that follows a failure; raises the failure when there is none to follow."""
        self._failures += 1
        if not is_passing(error) or self._retry is None or self._failures > self._retry.retries:
            raise error
        seconds = self._retry.delay(self._failures - 1)
        where = without_query(place.url)
        logger.info("trying %s in %.2f s, attempt %d: %s", where, seconds, self._failures, printable(str(error)))
        await trio.sleep(seconds)


async def _watch(leg: _Leg) -> None:
    """Waits for what makes a next session necessary, and sees to it that a dead one's handler ends."""
    with suppress(SessionClosed):
        await leg.session.wait_goaway()
        leg.note()
    await leg.session.wait_closed()
    leg.note()
    leg.leave()


def is_passing(error: MoqtError) -> bool:
    """Whether a failure to open a session, or the end of one, may be over at the next attempt."""
    if isinstance(error, Rejected):
        return error.status >= 500
    if isinstance(error, SessionClosed):
        if not error.by_peer:
            # Without a code the connection was lost; with one, this side closed it and had its reason.
            return error.local_code is None
        # Over raw QUIC the versions that cannot refuse a session close it with the status.
        return error.remote_code not in _FINAL_CODES and not 400 <= (error.remote_code or 0) < 500
    return isinstance(error, ConnectTimeout | HandshakeFailed)
