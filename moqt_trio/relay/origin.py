"""Origin: what the sessions of a relay share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..access import Grant
from ..arguments import want, want_id, want_limits, want_time
from ..block import Block
from ..limits import Limits
from ..model.broadcast import Broadcast
from ..protocol.paths import path_local
from ..session.run import random_hop_id
from ..tasks import defer_interrupts
from .sharing import LocalSource, Sharing
from .view import RelayView

if TYPE_CHECKING:
    from types import TracebackType

    from ..path import BroadcastPath
    from ..session.view import OriginView


@defer_interrupts
class Origin:
    """Broadcasts that sessions share: what the peer of one announces is announced to the peers of the others.

    One subscription to a track upstream serves any number of subscribers. Bind a session to it with `accept(origin=…)`
    or `connect(origin=…)`, each with a view of the origin. It has no task of its own: what is read from a peer is read
    in the session with it, and ends with it.

    Args:
        hop_id: Who relays, 1 … 2**62-1: give the same to `serve` and `connect`. None draws one at random.
        cache_age: Seconds for which the groups of a track are kept after newer ones.
        limits: The bounds of the tracks and routes.

    Attributes:
        hop_id: As above.

    Limits: `max_routes`, `max_sources`, `max_relayed_tracks`, `takeover_timeout`, and those of tracks.
    """

    def __init__(self, *, hop_id: int | None = None, cache_age: float = 30.0, limits: Limits | None = None) -> None:
        if hop_id is not None:
            want_id("hop_id", hop_id, 1)
        want_time("cache_age", cache_age)
        want_limits(limits)
        self.hop_id = random_hop_id() if hop_id is None else hop_id
        self._limits = limits or Limits()
        self._sharing = Sharing(self.hop_id, self._limits, cache_age)

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
