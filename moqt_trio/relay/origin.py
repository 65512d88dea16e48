"""Origin: what the sessions of a relay share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import TYPE_CHECKING, NoReturn

import trio

from ..access import Grant
from ..arguments import want, want_id, want_limits, want_number, want_time
from ..block import Block, require_trio, session_block
from ..client.backoff import Backoff
from ..client.connect import ConnectOptions, client_setup
from ..client.reconnect import session_opener
from ..client.redirect import Candidate, RedirectChain, allow_same_authority
from ..limits import MIB, Limits
from ..model.broadcast import Broadcast
from ..protocol.paths import path_local
from ..session.run import own_setup, random_hop_id, run_session
from ..tasks import defer_interrupts
from ..transport.memory import open_memory_pair
from ..wire import dialect as dialects
from .link import LINK_BACKOFF, LinkLoop, stay
from .sharing import LocalSource, Sharing
from .view import RelayView

if TYPE_CHECKING:
    from types import TracebackType

    from ..client.connect import ClientRole, Fingerprints
    from ..client.redirect import RedirectPolicy
    from ..path import BroadcastPath
    from ..session.session import Session
    from ..session.view import OriginView
    from ..wire.messages import Token
    from .statistics import OriginRoute, OriginSession, OriginStatistics


@defer_interrupts
class Origin:
    """Broadcasts that sessions share: what the peer of one announces is announced to the peers of the others.

    One subscription to a track upstream serves any number of subscribers. Bind a session to it with `accept(view=…)` or
    `connect(view=…)`, each with a view of the origin; `link` does so for another relay, and `connect` is for this
    program itself. It has no task of its own: what is read from a peer is read in the session with it, and ends with
    it.

    Args:
        hop_id: Who relays, 1 … 2**62-1: give the same to `serve` and `connect`. None draws one at random.
        cache_bytes: Bytes of memory that the groups of all relayed tracks take together, about. Beyond them the groups
            go first that were not used the longest; the latest group of a track last, and its first frames only.
        cache_age: Seconds for which the groups of a track are kept after newer ones.
        route_hold: Seconds before another route of a broadcast that stays reachable is told to peers, and taken for
            what is read already. A route that changes back within them is never told.
        limits: The bounds of the tracks and routes.

    Attributes:
        hop_id: As above.

    Limits: `max_routes`, `max_sources`, `max_relayed_tracks`, `takeover_timeout`, and those of tracks.
    """

    def __init__(
        self,
        *,
        hop_id: int | None = None,
        cache_bytes: int = 256 * MIB,
        cache_age: float = 30.0,
        route_hold: float = 0.3,
        limits: Limits | None = None,
    ) -> None:
        if hop_id is not None:
            want_id("hop_id", hop_id, 1)
        want_number("cache_bytes", cache_bytes)
        if cache_bytes <= 0:
            raise ValueError(f"cache_bytes is a number above 0, not {cache_bytes}")
        want_time("cache_age", cache_age)
        want_time("route_hold", route_hold)
        want_limits(limits)
        self.hop_id = random_hop_id() if hop_id is None else hop_id
        self._limits = limits or Limits()
        self._sharing = Sharing(self.hop_id, self._limits, cache_age, route_hold, cache_bytes)

    def view(self, root: str | BroadcastPath = "", *, grant: Grant | None = None) -> OriginView:
        """Return what one session shares: all that is below a path, or what a grant allows of it.

        Args:
            root: Whole parts, separated by `/`; the paths of the peer are below it. Empty for everything.
            grant: What the peer may announce and read there; None for everything. What it may not announce is no route,
                and what it may not read does not exist for it. The session holds the grant, and closes with
                UNAUTHORIZED when it expires or is revoked. Its `root`, if it has one, takes the place of the other.

        Raises:
            ValueError: It is not a path.
        """
        if grant is not None:
            want(grant, Grant, "grant is what an authority's admit returns, a Grant")
            root = root if grant.root is None else grant.root
        return RelayView(self._sharing, path_local(root, self._limits), grant)

    def publish(self, path: str | BroadcastPath, broadcast: Broadcast, *, cost: int = 0) -> OriginPublication:
        """Return a block during which a broadcast is announced to the peers of all sessions.

        Args:
            path: Where to announce it, parts separated by `/`.
            broadcast: What to publish.
            cost: What subscribing costs, in the deployment's units: 0 … 2**62-1. A high one is for a standby.

        Raises:
            ValueError: The path is empty or not a path, or the cost is out of range.
        """
        where = path_local(path, self._limits)
        want(broadcast, Broadcast, "publish takes a path and a Broadcast, which Origin.publish announces")
        if not where.parts:
            raise ValueError("a broadcast needs a path of at least one part")
        want_id("cost", cost)
        return OriginPublication(self._sharing, where, LocalSource(broadcast), cost)

    @session_block("async with origin.connect() as session:")
    async def connect(
        self, root: str | BroadcastPath = "", *, version: str = "moq-lite-06", limits: Limits | None = None
    ) -> AsyncIterator[Session]:
        """Run a session with the origin itself, in memory, for as long as the block lasts.

        It is what a client's session with a relay is: `announcements`, `subscribe` and `fetch` are over all sources,
        and what it publishes is announced to the peers of all sessions.

        Args:
            root: The session's paths are below it, as those of a client that connects to the path.
            version: The wire version that both sides speak: it says what can be asked for, such as ranges or subgroups.
            limits: The bounds of this program's side.

        Yields:
            The session.

        Raises:
            ValueError: The root is not a path, or there is no such version.
            LocalProtocolError: The root is longer than `Limits` allow.
        """
        view = self.view(root)
        [dialect] = dialects.resolve([version])
        own = limits or self._limits
        pair = open_memory_pair(self._limits, client_limits=own, protocol=version)
        async with (
            pair as (client, server),
            run_session(server, [dialect], limits=self._limits, setup=own_setup(self.hop_id, 0), view=view),
            run_session(client, [dialect], limits=own, setup=own_setup(None, 0)) as session,
        ):
            yield session

    @trio.lowlevel.enable_ki_protection
    async def link(
        self,
        url: str,
        *,
        root: str | BroadcastPath = "",
        cost: int | None = None,
        role: ClientRole = "both",
        redirect: RedirectPolicy = allow_same_authority,
        redirect_networks: Collection[str] = (),
        retry: Backoff = LINK_BACKOFF,
        versions: Sequence[str] | None = None,
        fingerprint: Fingerprints | None = None,
        cafile: str | None = None,
        verify: bool = True,
        tokens: Collection[Token] = (),
        limits: Limits | None = None,
    ) -> NoReturn:
        """Stay connected to another relay, and share this origin with it, until cancelled.

        It connects again whenever the session ends, and whatever the other side answers: a refusal is logged as a
        warning each time and tried again at the longest delay. After a GOAWAY the routes of the session are the last to
        be taken. One with a URI is followed as by `stay_connected`, both sessions at a time; one without comes from a
        relay that restarts, and the session stays until that relay closes it.

        Args:
            url: As for `connect`; a token in its query is never logged.
            root: What is shared with the peer is below it.
            cost: What the link costs, in the deployment's units: it is added to the cost of what comes over it, on both
                sides. None declares nothing, which counts 1.
            role: "publisher" to take nothing from the other relay, "subscriber" to give it nothing.
            redirect, redirect_networks: As for `stay_connected`.
            retry: The delays between attempts; without a bound, if `retries` is None as in the default.
            versions, fingerprint, cafile, verify, tokens, limits: As for `connect`.

        Raises:
            ValueError, TypeError: As for `stay_connected`.
            MoqtError: `retry` has a bound, and that many attempts in a row have failed.

        Limits: `settle_time`, `drain_timeout`, `connect_timeout`.
        """
        require_trio()
        want(retry, Backoff, "retry is a Backoff")
        want_limits(limits)
        setup = client_setup(tokens=tokens, hop_id=self.hop_id, cost=cost, role=role)
        options = ConnectOptions(versions, fingerprint, cafile, verify, None, limits, setup, self.view(root))
        redirects = RedirectChain(url, policy=redirect, networks=redirect_networks)
        opener = session_opener(options, redirects)
        loop = LinkLoop(opener, stay, redirects=redirects, retry=retry, limits=options.limits)
        await loop.run(Candidate(url), retry_first=True)
        raise AssertionError("a link has no result")

    def statistics(self) -> OriginStatistics:
        """Return the state of the origin in numbers, now."""
        return self._sharing.statistics()

    def sessions(self) -> tuple[OriginSession, ...]:
        """Return the sessions that share the origin now, the oldest first."""
        return tuple(watcher.described() for watcher in self._sharing.watchers)

    def routes(self) -> tuple[OriginRoute, ...]:
        """Return the ways to every broadcast now, the best one of each path first."""
        return self._sharing.described_routes()

    def __repr__(self) -> str:
        sharing = self._sharing
        return f"<Origin {self.hop_id}: {len(sharing.routes)} routes, {len(sharing.watchers)} sessions>"


@defer_interrupts
class OriginPublication(Block):
    """A broadcast that is announced on an origin; see `Origin.publish`.

    Attributes:
        path: Where it is announced.
    """

    def __init__(self, sharing: Sharing, path: BroadcastPath, source: LocalSource, cost: int) -> None:
        self.path = path
        self._sharing = sharing
        self._source = source
        self._cost = cost
        self._expect_entry(
            lambda: (
                f"{path} was never announced, as its block was not entered; "
                f"write: async with origin.publish({str(path)!r}, broadcast):"
            )
        )

    async def __aenter__(self) -> OriginPublication:
        self._entered()
        await trio.lowlevel.checkpoint()
        self._sharing.announce(self.path, self._source, (), self._cost, self._cost)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sharing.withdraw(self.path, self._source)

    def __repr__(self) -> str:
        return f"<OriginPublication {str(self.path)!r}>"
