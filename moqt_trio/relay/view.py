"""SharedSession: a session that shares an origin, and RelayView, which makes one of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..errors import MoqtError, printable
from ..lease import end_session
from ..loggers import Logger
from ..model.origin import PublishedBroadcast, Route
from ..session.run import random_hop_id, wait_peer_setup
from ..session.view import OriginView
from .pull import PullSource
from .routes import MOST_COST, UNKNOWN_HOP
from .sharing import Watcher

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..access import Grant
    from ..path import BroadcastPath
    from ..session.session import Session
    from ..session.subscriber.announce import Announcement, Announcements
    from .sharing import AnyRoute, Sharing

logger = Logger(__name__)

_DEFAULT_PRICE = 1
"""What a session costs whose sides say nothing, in the versions that carry costs."""


class RelayView(OriginView):
    """An origin's view; `Origin.view` returns it."""

    def __init__(self, sharing: Sharing, root: BroadcastPath, grant: Grant | None = None) -> None:
        self.root = root
        self._sharing = sharing
        self._grant = grant

    def _attach(self, session: Session) -> None:
        SharedSession(self._sharing, session, self.root, self._grant).join()


def _goes_round(hops: tuple[int, ...]) -> bool:
    """Return whether a hop id comes twice, unknown ones aside."""
    known = [hop for hop in hops if hop != UNKNOWN_HOP]
    return len(set(known)) < len(known)


class SharedSession(PullSource, Watcher):
    """A session that shares an origin: what its peer announces is a route, and the best routes are announced to it.

    Args:
        sharing: The origin's.
        session: The session.
        root: The peer's paths are below it.
        grant: What the peer may announce and see; None for everything. The session holds it, and ends with it.
    """

    def __init__(self, sharing: Sharing, session: Session, root: BroadcastPath, grant: Grant | None = None) -> None:
        self.session = session
        self._grant = grant
        self._announcements: Announcements | None = None
        self._sharing = sharing
        self._root = root
        self._shown: dict[BroadcastPath, PublishedBroadcast] = {}
        # Stands for a publisher that says no hop id: two of them never have the same content.
        self._unknown = random_hop_id()

    def join(self) -> None:
        """Show the peer what there is, and start reading what it announces."""
        for path in self._sharing.routes:
            self.path_changed(path)
        self._sharing.watchers[self] = None
        self.session._context.start(self._run)
        if self._grant is not None:
            self.session._context.start(self._hold, self._grant)

    @trio.lowlevel.enable_ki_protection
    async def _hold(self, grant: Grant) -> None:
        async with grant.lease(self.session, changed=self._grant_changed):
            await self.session.wait_closed()

    def _grant_changed(self, grant: Grant) -> None:
        """Called with a grant that allows more."""
        self._grant = grant
        for change in () if self._announcements is None else self._announcements.active:
            self._note(change)
        for path in self._sharing.routes:
            self.path_changed(path)

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        session, sharing = self.session, self._sharing
        try:
            try:
                await wait_peer_setup(session)
                if self._grant is not None and not self._grant.allows(session.peer_role):
                    end_session(session, f"nothing is granted to a {session.peer_role}")
                # Now its hop id is known.
                for path in sharing.routes:
                    self.path_changed(path)
                if session.peer_role != "subscriber":
                    await self._read_announcements()
            except (MoqtError, trio.ClosedResourceError) as error:
                logger.debug("%r: no announcements: %s", session, error)
            await session.wait_closed()
        finally:
            sharing.watchers.pop(self, None)

    async def _read_announcements(self) -> None:
        try:
            async with self.session.announcements() as announcements:
                self._announcements = announcements
                async for change in announcements:
                    self._note(change)
        finally:
            self._sharing.withdraw_all(self)

    def _note(self, change: Announcement) -> None:
        """Take a change of what the peer announces."""
        sharing, path = self._sharing, self._root.join(change.path)
        hops = change.hops
        if change.active and self._grant is not None and not self._grant.may_publish(change.path):
            logger.debug("%r may not announce %s", self.session, printable(str(change.path)))
            return
        if not change.active or sharing.hop_id in hops or _goes_round(hops):
            # Withdrawn; or it came here before, or goes round.
            sharing.withdraw(path, self)
            return
        if not hops or hops[0] == UNKNOWN_HOP:
            hops = (self._unknown, UNKNOWN_HOP, *hops[1:])
        if len(hops) >= self.session.limits.max_hops:
            sharing.withdraw(path, self)
            return
        price = self._price()
        cost, cold = min(change.cost + price, MOST_COST), min(change.cold_cost + price, MOST_COST)
        sharing.announce(path, self, hops, cost, cold)

    def _price(self) -> int:
        """Return what this session adds to the costs of its peer."""
        core = self.session._context.core
        if not core.dialect.features.costs:
            return 0
        prices = [None if setup is None else setup.cost for setup in (core.setup, core.peer_setup)]
        return next((price for price in prices if price is not None), _DEFAULT_PRICE)

    # -- what the peer is shown --------------------------------------------------------------------------------

    def path_changed(self, path: BroadcastPath) -> None:
        if not self._root.covers(path) or path == self._root:
            return
        origin = self.session._publisher
        shown = self._shown.get(path)
        inside = self.inside(path)
        best = self._sharing.routes.best(path, self._may_see) if self._allows(inside) else None
        broadcast = None if best is None else self._sharing.broadcast(best)
        if shown is not None and shown.broadcast is not broadcast:
            del self._shown[path]
            origin.withdraw(shown)
            shown = None
        if best is None or broadcast is None or self.session.closed is not None:
            return
        route = Route(best.hops, best.cost, best.cold_cost)
        if shown is not None:
            origin.origin.update(shown, route)
        elif inside not in origin.origin:
            # What the application publishes on this session itself comes first.
            shown = self._shown[path] = PublishedBroadcast(inside, broadcast, route, self._allows)
            origin.announce(shown)

    def _allows(self, path: BroadcastPath) -> bool:
        return self._grant is None or self._grant.may_subscribe(path)

    def _may_see(self, route: AnyRoute) -> bool:
        """Return whether a route may be announced to the peer: it does not lead back to it."""
        if route.source is self:
            return False
        setup = self.session._context.core.peer_setup
        return setup is None or not setup.hop_id or setup.hop_id not in route.hops

    # -- what is pulled from the peer --------------------------------------------------------------------------

    def inside(self, path: BroadcastPath) -> BroadcastPath:
        """Return a path of the origin as the peer has it."""
        return self._root.suffix_of(path)

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Start a task in the session's nursery."""
        self.session._context.start(task)

    def __repr__(self) -> str:
        return f"<SharedSession {self.session!r}>"
