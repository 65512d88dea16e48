"""Staying connected: runs a handler on one session after another, and follows the redirects of the server.

Theory of operation. `stay_connected` runs a loop in one nursery. Each session is an attempt: a task that opens the
session at a candidate URL, runs the handler in a cancel scope, and watches for the reason why a next session is needed,
a GOAWAY or the session's end. Only the first reason counts; but the URI of a GOAWAY that follows a drain without one
replaces it, and the search for the next session starts again, until that session is open. Then

- the loop opens the next session, at the URL that `redirect.py` derives from the GOAWAY or at the same one, with the
  delays of `backoff.py` between failures, and starts its handler;
- the previous attempt drains: it is cancelled `Limits.drain_timeout` after the next one runs or its session ended.

So two handlers may run at a time, and never more are started than sessions are opened. The loop ends when a handler
returns on a session that was not asked to end, or when no next session can be opened; in the second case it waits for
the drain first, because a handler may still return.

Spec: draft-lcurley-moq-lite-06, section 5.1.6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs
import trio

from ..arguments import want, want_async, want_limits
from ..block import require_trio
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
from ..loggers import Logger
from ..session.run import received_goaway, wait_goaway_received
from ..session.session import Session
from ..tasks import call_application, consists_of, open_unwrapping_nursery
from ..url import SessionUrl, printable_url
from .backoff import Backoff
from .connect import ClientRole, ConnectOptions, Fingerprints, client_setup, open_session
from .redirect import Candidate, RedirectChain, RedirectPolicy, allow_same_authority

if TYPE_CHECKING:
    from ..limits import Limits
    from ..session.view import OriginView
    from ..wire.messages import Token

logger = Logger(__name__)

T = TypeVar("T")

SessionOpener = Callable[[Candidate], AbstractAsyncContextManager[Session]]
"""A function whose result is a block that runs a session at a candidate URL."""

_DEFAULT_BACKOFF = Backoff()


@trio.lowlevel.enable_ki_protection
async def stay_connected(
    url: str,
    handler: Callable[[Session], Awaitable[T]],
    *,
    redirect: RedirectPolicy = allow_same_authority,
    max_redirects: int = 3,
    redirect_networks: Collection[str] = (),
    retry: Backoff | None = _DEFAULT_BACKOFF,
    retry_first: bool = False,
    versions: Sequence[str] | None = None,
    fingerprint: Fingerprints | None = None,
    cafile: str | None = None,
    verify: bool = True,
    origin: str | None = None,
    limits: Limits | None = None,
    tokens: Collection[Token] = (),
    hop_id: int | None = None,
    cost: int | None = None,
    role: ClientRole = "both",
    view: OriginView | None = None,
) -> T:
    """Run a handler on a session, and on the next one after a GOAWAY or when the session is lost.

    `await handler(session)` runs in a task and a cancel scope of its own for each session. What belongs to a session
    ends with it, so the handler announces and subscribes again each time. A `Broadcast` may be published again.

    - On GOAWAY the next session is opened and its handler started first. Then the previous handler has
      `Limits.drain_timeout` to end by itself, before it is cancelled and its session closed; until then both run. It
      can `await session.wait_goaway()` to know that it should start nothing new.
    - When a session is lost without GOAWAY, its handler has as long to read what has arrived, and the next session is
      opened at the same URL after the delays of `retry`.
    - A handler that returns ends the call, which returns what the handler returned, unless the server had asked for
      this session to end. Then only the session ends: a server that shuts down ends its tracks, and the handler may
      have taken this for the end of its work. A handler that is done cancels a scope around the call.
    - A handler that returns None on a session that was lost, as with `await session.wait_closed()` as its last line,
      does not end the call: this counts as a loss. A session that the handler itself closed is not lost.
    - An exception of a handler cancels everything and is raised as it is, except when it only reports the end of the
      session: `SessionClosed` on one that was lost, and `SessionClosed`, `StreamReset` or `GoingAway` on one that the
      server had asked to end.
    - The first session's failure to open is raised at once, unless `retry_first` asks otherwise. Later ones are retried
      while another attempt may succeed: no answer, no server, a status of 500 and above, a lost connection. A refusal
      (status 4xx), an untrusted certificate and a missing version are raised. So is the last error when the retries are
      used up.
    - When no next session can be opened, the handler has `Limits.drain_timeout` before the error is raised.

    A GOAWAY without a URI leads to the same URL again. One with a URI is followed if it is a whole `https:` or `moqt:`
    URI and `redirect` allows it; by default only the path may change. To another scheme, host or port, when allowed,

    - the query of the URL is not sent, unless the new URI has one: it may be a credential; nor are `tokens`;
    - `verify=False` does not apply, while `fingerprint` and `cafile` do: they restrict which certificates are trusted,
      and without them every public authority would be;
    - the addresses that the name resolves to are checked, and only those that passed are connected to: public ones,
      those of the same kind (loopback, private, …) as the address of the server that sent the GOAWAY, and those in
      `redirect_networks`.

    When a redirect target does not answer, the attempts alternate between it and the previous URL.

    Args:
        url: As for `connect`; here the first session is opened.
        handler: Called with each session. It does not have to close it.
        redirect: Says which moves to another URL are allowed.
        max_redirects: How many GOAWAYs are followed in a row, with or without a URI, until a session lasts for
            `Limits.settle_time`.
        redirect_networks: Networks to which a redirect to another authority may lead, such as `["10.0.0.0/8"]`.
        retry: The delays, and how many attempts may follow each other until a session lasts for `Limits.settle_time`;
            None makes no second attempt: a lost session and a redirect target that does not answer end the call.
            `Backoff(retries=None)` goes on for ever.
        retry_first: True retries the first session likewise: the server may be started after its clients.
        versions: As for `connect`, and so the arguments that follow.

    Returns:
        What the handler returned.

    Raises:
        RedirectRefused: A GOAWAY leads to a URL that this client does not follow, or there were too many in a row.
        SessionClosed: A session was lost, and no retries are left or they would not help.
        ConnectError: The first session was not opened, or no next one.
        Rejected: A server refused.
        ValueError: As for `connect`, or a value of the redirects is out of range.
        TypeError: An argument is of a wrong type, such as a handler that is not async; or `redirect` is an async
            function: its return value, a coroutine, would count as True.

    Spec: draft-lcurley-moq-lite-06, sections 5.1.6, 7.18 and 10.2.

    Limits: `drain_timeout`, `settle_time`, `connect_timeout`, `close_timeout`.
    """
    require_trio()
    want_async(handler, "the handler", "session")
    want_limits(limits)
    if retry is not None:
        want(retry, Backoff, "retry is a Backoff, or None for no second attempt")
    # One hop id for all sessions: they publish the same.
    setup = client_setup(tokens=tokens, hop_id=hop_id, cost=cost, role=role)
    options = ConnectOptions(versions, fingerprint, cafile, verify, origin, limits, setup, view)
    redirects = RedirectChain(url, policy=redirect, max_redirects=max_redirects, networks=redirect_networks)
    loop = ReconnectLoop(
        session_opener(options, redirects), handler, redirects=redirects, retry=retry, limits=options.limits
    )
    return await loop.run(Candidate(url), retry_first=retry_first)


def session_opener(options: ConnectOptions, redirects: RedirectChain) -> SessionOpener:
    """Return what opens a session at a candidate URL, also at one to which a redirect leads."""

    def open_candidate(candidate: Candidate) -> AbstractAsyncContextManager[Session]:
        where = SessionUrl.parse(candidate.url)
        if not candidate.foreign:
            return open_session(where, options)
        choose = partial(redirects.choose_addresses, candidate)
        elsewhere = attrs.evolve(options, verify=True, setup=attrs.evolve(options.setup, tokens=()))
        return open_session(where, elsewhere, choose=choose)

    return open_candidate


_FINAL_CODES = frozenset(
    {
        SessionCode.UNAUTHORIZED,
        SessionCode.PROTOCOL_VIOLATION,
        SessionCode.KEY_VALUE_FORMATTING_ERROR,
        SessionCode.VERSION_NEGOTIATION_FAILED,
    }
)
"""Codes with which a peer would close the next session too, so that another attempt is useless."""


@attrs.frozen
class _Goaway:
    uri: str


@attrs.frozen
class _Lost:
    error: MoqtError


@attrs.define(eq=False)
class Attempt:
    """One session and its handler.

    Attributes:
        candidate: The URL of the session.
        session: The session.
        opened: When it was opened.
        scope: Around the handler.
        reason: Why a next session is needed; None while it is not.
        followed: Whether the redirects have counted its GOAWAY.
        decided: Set once there is a reason, or the handler has returned.
        replaced: Whether the next session runs.
        finished: Set once the handler has ended and the session is closed.
    """

    candidate: Candidate
    session: Session
    opened: float
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    reason: _Goaway | _Lost | None = None
    followed: bool = False
    decided: trio.Event = attrs.field(factory=trio.Event)
    replaced: bool = False
    finished: trio.Event = attrs.field(factory=trio.Event)

    @property
    def going_away(self) -> bool:
        """Whether the server sent a GOAWAY, even if `wait_goaway` has not returned yet."""
        return received_goaway(self.session) is not None

    @property
    def lost(self) -> bool:
        """Whether the session ended without this side closing it."""
        closed = self.session.closed
        return isinstance(closed, SessionClosed) and (closed.by_peer or closed.local_code is None)

    def record_reason(self) -> None:
        """Record why a next session is needed: a GOAWAY or the end of this one. Only the first reason counts."""
        if self.reason is None:
            uri, closed = received_goaway(self.session), self.session.closed
            if uri is not None:
                self.reason = _Goaway(uri)
            else:
                assert closed is not None
                self.reason = _Lost(closed)
            self.decided.set()

    def record_loss(self) -> None:
        """Record the end of the session as why a next one is needed, whatever the peer said before."""
        if self.reason is None:
            assert self.session.closed is not None
            self.reason = _Lost(self.session.closed)
            self.decided.set()

    def start_drain(self) -> None:
        """Cancel the handler after `Limits.drain_timeout`, counted from the first call."""
        deadline = trio.current_time() + self.session.limits.drain_timeout
        self.scope.deadline = min(self.scope.deadline, deadline)

    def tolerates(self, error: Exception) -> bool:
        """Return whether a failure of the handler only says that the session ended."""
        if self.going_away or self.replaced:
            return consists_of(error, (GoingAway, SessionClosed, StreamReset))
        closed = self.session.closed
        return consists_of(error, SessionClosed) and closed is not None and is_temporary(closed)


class ReconnectLoop(Generic[T]):
    """The sessions of one call of `stay_connected`.

    Args:
        open_candidate: Returns a block that runs a session at a candidate URL.
        handler: Called with each session.
        redirects: Says where a GOAWAY leads.
        retry: How often to try again, and after how long.
        limits: The bounds.
    """

    def __init__(
        self,
        open_candidate: SessionOpener,
        handler: Callable[[Session], Awaitable[T]],
        *,
        redirects: RedirectChain,
        retry: Backoff | None,
        limits: Limits,
    ) -> None:
        self._open = open_candidate
        self._handler = handler
        self._redirects = redirects
        self._retry = retry
        self._limits = limits
        self._failures = 0
        self._attempts: set[Attempt] = set()
        self._results: list[T] = []
        self._search = trio.CancelScope()

    async def run(self, candidate: Candidate, *, retry_first: bool = False) -> T:
        """Run one session after another until a handler's return ends it.

        Args:
            candidate: Where to open the first one.
            retry_first: True tries that again as often as later ones.
        """
        async with open_unwrapping_nursery() as nursery:
            if retry_first:
                attempt = await self._open_one_of(nursery, [candidate], None)
            else:
                attempt = await nursery.start(self._run_attempt, candidate)
            await attempt.decided.wait()
            while not self._results:
                following: Attempt | None = None
                try:
                    # A result ends the search, and a redirect that comes late starts it again.
                    while following is None and not self._results:
                        with trio.CancelScope() as self._search:
                            following = await self._open_next(nursery, attempt)
                except Exception:
                    await self._drain()
                    if self._results:
                        break
                    raise
                attempt.replaced = True
                attempt.start_drain()
                if following is not None and not self._results:
                    attempt = following
                    await attempt.decided.wait()
            for attempt in self._attempts:
                if not attempt.replaced:
                    # The handler of the previous session returned while this one was being opened.
                    attempt.scope.cancel()
        return self._results[0]

    @trio.lowlevel.enable_ki_protection
    async def _run_attempt(self, candidate: Candidate, *, task_status: trio.TaskStatus[Attempt]) -> None:
        attempt: Attempt | None = None
        try:
            async with self._open(candidate) as session:
                attempt = Attempt(candidate, session, trio.current_time())
                self._attempts.add(attempt)
                task_status.started(attempt)
                async with open_unwrapping_nursery() as nursery:
                    nursery.start_soon(self._watch, attempt)
                    nursery.start_soon(self._watch_redirect, attempt)
                    with attempt.scope:
                        self._handler_returned(attempt, await call_application(self._handler, session))
                    nursery.cancel_scope.cancel()
        except Exception as error:
            if attempt is None or not attempt.tolerates(error):
                raise
            logger.debug("the handler of %s ended: %s", printable_url(candidate.url), error)
            attempt.record_reason()
        finally:
            if attempt is not None:
                self._attempts.discard(attempt)
                attempt.finished.set()

    @trio.lowlevel.enable_ki_protection
    async def _watch(self, attempt: Attempt) -> None:
        """Record the reason for a next session, and drain the handler once the session has ended."""
        with suppress(SessionClosed):
            await attempt.session.wait_goaway()
            attempt.record_reason()
        await attempt.session.wait_closed()
        attempt.record_reason()
        attempt.start_drain()

    @trio.lowlevel.enable_ki_protection
    async def _watch_redirect(self, attempt: Attempt) -> None:
        """Let the URI of a GOAWAY replace the drain that came before it, until the next session is open."""
        uri = await wait_goaway_received(attempt.session)
        if uri and attempt.reason == _Goaway("") and not attempt.replaced:
            attempt.reason = _Goaway(uri)
            self._search.cancel()

    def _handler_returned(self, attempt: Attempt, value: T) -> None:
        # None is no result: a handler whose last line is `wait_closed` returns on a loss, too.
        if attempt.going_away or attempt.replaced or (value is None and attempt.lost):
            attempt.record_reason()
        else:
            self._results.append(value)
            self._search.cancel()
            attempt.decided.set()

    async def _drain(self) -> None:
        """Give every handler `Limits.drain_timeout`, and wait until all have ended."""
        attempts = list(self._attempts)
        for attempt in attempts:
            attempt.start_drain()
        for attempt in attempts:
            await attempt.finished.wait()

    async def _open_next(self, nursery: trio.Nursery, previous: Attempt) -> Attempt:
        """Open the next session, and start its handler.

        Raises:
            MoqtError: None can be opened.
        """
        if previous.followed:
            self._redirects.undo()
        elif trio.current_time() - previous.opened >= self._limits.settle_time:
            self._failures = 0
            self._redirects.reset()
        candidates = [previous.candidate]
        error: MoqtError | None = None
        if isinstance(previous.reason, _Goaway):
            sender = previous.session.peer
            current, uri = previous.candidate, previous.reason.uri
            previous.followed = True
            target = self._redirects.follow(current, uri, sender=sender[0] if sender else None)
            if target != current:
                candidates.insert(0, target)
            logger.info("asked to leave %s for %s", printable_url(current.url), printable_url(target.url))
        else:
            assert previous.reason is not None
            error = previous.reason.error
        # When the redirect target does not answer, the previous URL is tried in turn.
        return await self._open_one_of(nursery, candidates, error)

    async def _open_one_of(
        self, nursery: trio.Nursery, candidates: list[Candidate], error: MoqtError | None
    ) -> Attempt:
        """Try candidates in turn until a session is open, and start its handler.

        Args:
            nursery: Owns the attempt.
            candidates: Where to try.
            error: The failure before the first attempt, which is followed by a delay; None to begin at once.

        Raises:
            MoqtError: No attempt is to follow.
        """
        for candidate in cycle(candidates):
            if error is not None:
                await self._pause(error, candidate)
            try:
                following: Attempt = await nursery.start(self._run_attempt, candidate)
            except (ConnectError, Rejected, SessionClosed) as failed:
                error = failed
            else:
                return following
        raise AssertionError("a cycle does not end")

    async def _pause(self, error: MoqtError, candidate: Candidate) -> None:
        """Wait before the attempt that follows a failure; raise the failure when no attempt is to follow."""
        self._failures += 1
        retry = self._retry
        if not is_temporary(error) or retry is None or (retry.retries is not None and self._failures > retry.retries):
            raise error
        seconds = retry.delay(self._failures - 1)
        url = printable_url(candidate.url)
        logger.info("trying %s in %.2f s, attempt %d: %s", url, seconds, self._failures, printable(str(error)))
        await trio.sleep(seconds)


def is_temporary(error: MoqtError) -> bool:
    """Return whether the next attempt may succeed, after a failure to open a session or the end of one."""
    if isinstance(error, Rejected):
        return error.status >= 500
    if isinstance(error, SessionClosed):
        if not error.by_peer:
            # Without a code the connection was lost; with one, this side closed it and would close the next one too.
            return error.local_code is None
        # Over raw QUIC the versions that cannot refuse a session close it with the status.
        return error.remote_code not in _FINAL_CODES and not 400 <= (error.remote_code or 0) < 500
    return isinstance(error, ConnectTimeout | HandshakeFailed)
