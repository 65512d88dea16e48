"""SharedSession: a session that shares an origin, and RelayView, which makes one of a session."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ..errors import MoqtError, SessionClosed, printable
from ..lease import end_session
from ..loggers import Logger
from ..model.origin import PublishedBroadcast, Route, Supply
from ..session.run import random_hop_id, wait_peer_setup
from ..session.view import OriginView
from ..tasks import Wakeup, open_unwrapping_nursery
from ..wire.messages import Role
from .pull import PullSource
from .routes import MOST_COST, UNKNOWN_HOP
from .sharing import Watcher
from .statistics import OriginSession

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..access import Grant
    from ..path import BroadcastPath
    from ..session.session import Session
    from ..session.subscriber.announce import Announcement, Announcements
    from ..session.subscriber.tracks import OfferedTrack
    from .front import Front
    from .sharing import AnyRoute, Sharing

logger = Logger(__name__)

_AT_ONCE = 64
"""Announcements that are passed on before other tasks run."""

_DEFAULT_PRICE = 1
"""What a session costs whose sides say nothing, in the versions that carry costs."""

_WITHDRAWAL_HOLD = 2.0
"""Seconds before a worse route to the same publisher is told after a withdrawal: that is still on its way."""


class RelayView(OriginView):
    """An origin's view; `Origin.view` returns it."""

    def __init__(
        self, sharing: Sharing, root: BroadcastPath, grant: Grant | None = None, *, hidden: bool = False
    ) -> None:
        self.root = root
        self._sharing = sharing
        self._grant = grant
        self._hidden = hidden

    def _attach(self, session: Session) -> None:
        SharedSession(self._sharing, session, self.root, self._grant, hidden=self._hidden).join()


def _goes_round(hops: tuple[int, ...]) -> bool:
    """Return whether a hop id comes twice, unknown ones aside."""
    known = [hop for hop in hops if hop != UNKNOWN_HOP]
    return len(set(known)) < len(known)


def _burden(route: Route) -> tuple[int, int, int]:
    """Return what makes one route to a publisher worse than another."""
    return route.cost, route.cold_cost, len(route.hops)


class SharedSession(PullSource, Watcher, Supply):
    """A session that shares an origin: what its peer announces is a route, and the best routes are announced to it.

    Only what the peer asks for is kept here: paths below the prefixes of its lists, and those of its requests. A peer
    that announces without end costs the others nothing.

    Args:
        sharing: The origin's.
        session: The session.
        root: The peer's paths are below it.
        grant: What the peer may announce and see; None for everything. The session holds it, and ends with it.
        hidden: True shows the peer hidden paths, and asks it for its own where the version has words for that.
    """

    def __init__(
        self,
        sharing: Sharing,
        session: Session,
        root: BroadcastPath,
        grant: Grant | None = None,
        *,
        hidden: bool = False,
    ) -> None:
        self.session = session
        self._grant = grant
        self._announcements: Announcements | None = None
        self._sharing = sharing
        self._root = root
        self._hidden = hidden
        self._shown: dict[BroadcastPath, PublishedBroadcast] = {}
        # Stands for a publisher that says no hop id: two of them never have the same content.
        self._unknown = random_hop_id()
        # When to tell the routes that have changed, in no order, and what the task that does so waits for.
        self._held: dict[BroadcastPath, float] = {}
        self._held_more = Wakeup()
        # What was announced of the paths that are announced no longer, and again when there is a route as good.
        self._taken_back: dict[BroadcastPath, Route] = {}
        self._draining = False
        # The paths that the peer announces, and those of which it offers tracks, with their names.
        self._announced: set[BroadcastPath] = set()
        self._offered: dict[BroadcastPath, set[str]] = {}

    def join(self) -> None:
        """Show the peer what it asks for, and start reading what it announces."""
        if self._hidden:
            self.session._context.core.show_hidden()
        self.session._publisher.origin.supply = self
        self._sharing.watchers[self] = None
        self._look_again()
        self.session._context.start(self._run)
        if self._grant is not None:
            self.session._context.start(self._hold_grant, self._grant)

    @trio.lowlevel.enable_ki_protection
    async def _hold_grant(self, grant: Grant) -> None:
        async with grant.lease(self.session, changed=self._grant_changed):
            await self.session.wait_closed()

    def _grant_changed(self, grant: Grant) -> None:
        """Called with a grant that allows more."""
        self._grant = grant
        for change in () if self._announcements is None else self._announcements.active:
            self._note(change)
        for path in self._offered.keys() - self._announced:
            self._take_route(path)
        self._look_again()

    @trio.lowlevel.enable_ki_protection
    async def _run(self) -> None:
        session = self.session
        try:
            async with open_unwrapping_nursery() as nursery:
                nursery.start_soon(self._tell_held)
                nursery.start_soon(self._watch_goaway)
                try:
                    await wait_peer_setup(session)
                    if self._grant is not None and not self._grant.allows(session.peer_role):
                        end_session(session, f"nothing is granted to a {session.peer_role}")
                    # Now its hop id is known.
                    self._look_again()
                    if session.peer_role != "subscriber" and self._own_role != Role.PUBLISHER:
                        await self._read_announcements()
                except (MoqtError, trio.ClosedResourceError) as error:
                    logger.debug("%r: no announcements: %s", session, error)
                await session.wait_closed()
                nursery.cancel_scope.cancel()
        finally:
            self._leave()

    def _leave(self) -> None:
        """Part the session from the origin: what is published on that knows the sessions to which it is shown."""
        publisher = self.session._publisher
        self._sharing.watchers.pop(self, None)
        publisher.origin.supply = None
        shown, self._shown = self._shown, {}
        for each in shown.values():
            publisher.withdraw(each)

    @trio.lowlevel.enable_ki_protection
    async def _watch_goaway(self) -> None:
        """Prefer every other route, once the peer has asked to be left; what it alone has, it serves to its end."""
        with suppress(SessionClosed):
            await self.session.wait_goaway()
            self._draining = True
            self._sharing.reprice(self, MOST_COST)

    async def _read_announcements(self) -> None:
        try:
            hidden = self._hidden and self.session._context.core.asks_hidden
            async with (
                self.session.announcements(hidden=hidden) as announcements,
                open_unwrapping_nursery() as nursery,
            ):
                if self.session._context.dialect.features.offers:
                    nursery.start_soon(self._read_offers, announcements)
                self._announcements = announcements
                async for change in announcements:
                    self._note(change)
                    # Together: each peer then gets all of them in one packet.
                    for further in announcements._take_unread(_AT_ONCE):
                        self._note(further)
                nursery.cancel_scope.cancel()
        finally:
            self._announcements = None
            self._announced.clear()
            self._offered.clear()
            self._sharing.withdraw_all(self)

    async def _read_offers(self, announcements: Announcements) -> None:
        """Take the tracks that the peer offers. A path that it offers tracks of counts as announced."""
        # Up to draft 17 one message asks for both, and some peers refuse the second one.
        # What ends the session, `_read_announcements` is told, too.
        with suppress(MoqtError, trio.ClosedResourceError):
            await announcements.wait_initial()
            async with self.session.offered_tracks() as tracks:
                async for change in tracks:
                    self._note_offer(change)

    def _note(self, change: Announcement) -> None:
        """Take a change of what the peer announces."""
        path = self._root.join(change.path)
        if change.active:
            self._announced.add(path)
            self._take_route(path, change.hops, change.cost, change.cold_cost)
        else:
            self._announced.discard(path)
            self._drop_route(path)

    def _note_offer(self, change: OfferedTrack) -> None:
        """Take a change of what tracks the peer offers."""
        path, offered = self._root.join(change.path), self._offered
        if change.active:
            offered.setdefault(path, set()).add(change.track)
            if path in self._announced:
                self._offer_tracks(path)
            else:
                self._take_route(path)
        elif path in offered:
            front = self._front(path)
            if front is not None:
                front.offer_ended(change.track)
            offered[path].discard(change.track)
            if not offered[path]:
                del offered[path]
                self._drop_route(path)

    def _offer_tracks(self, path: BroadcastPath) -> None:
        """Have the tracks of a path that the peer offers there before anyone asks for them."""
        front = self._front(path) if path in self._offered else None
        if front is not None:
            for name in self._offered[path]:
                front.offer(name, self)

    def _front(self, path: BroadcastPath) -> Front | None:
        """Return the front of what the peer has at a path."""
        routes = self._sharing.routes.of(path)
        return next((self._sharing.front(route) for route in routes if route.source is self), None)

    def _drop_route(self, path: BroadcastPath) -> None:
        """Withdraw the route of a path of which nothing is announced or offered."""
        if path not in self._announced and path not in self._offered:
            self._sharing.withdraw(path, self)

    def _take_route(self, path: BroadcastPath, hops: tuple[int, ...] = (), cost: int = 0, cold_cost: int = 0) -> None:
        """Add the route of a path, unless it came here before, or the peer may not announce it."""
        sharing = self._sharing
        if not self.may_serve(path):
            logger.debug("%r may not announce %s", self.session, printable(str(path)))
            return
        if sharing.hop_id in hops or _goes_round(hops):
            # It came here before, or goes round.
            sharing.withdraw(path, self)
            return
        if not hops or hops[0] == UNKNOWN_HOP:
            hops = (self._unknown, UNKNOWN_HOP, *hops[1:])
        if len(hops) >= self.session.limits.max_hops:
            sharing.withdraw(path, self)
            return
        price = MOST_COST if self._draining else self._price()
        sharing.announce(path, self, hops, min(cost + price, MOST_COST), min(cold_cost + price, MOST_COST))
        self._offer_tracks(path)

    @property
    def _own_role(self) -> Role:
        return self.session._context.core.setup.role

    def _price(self) -> int:
        """Return what this session adds to the costs of its peer."""
        core = self.session._context.core
        if not core.dialect.features.costs:
            return 0
        prices = [None if setup is None else setup.cost for setup in (core.setup, core.peer_setup)]
        return next((price for price in prices if price is not None), _DEFAULT_PRICE)

    # -- what the peer is shown --------------------------------------------------------------------------------

    def supply(self, path: BroadcastPath) -> None:
        for each in self._sharing.routes.above(self._root.join(path)):
            if each not in self._shown:
                self._change(each)

    def supply_below(self, prefix: BroadcastPath) -> None:
        for each in self._sharing.routes.below(self._root.join(prefix)):
            if each not in self._shown:
                self._change(each)

    def _look_again(self) -> None:
        """Show what is to be shown by now of all that the peer has asked for."""
        for path in tuple(self._shown):
            self._change(path)
        for prefix in self.session._publisher.origin.watched:
            self.supply_below(prefix)

    def path_changed(self, path: BroadcastPath, *, withdrawn: bool = False) -> None:
        known = path in self._shown or path in self._taken_back
        if known or (self._root.covers(path) and self.session._publisher.origin.is_awaited(self.inside(path))):
            self._change(path, withdrawn=withdrawn)

    def _change(self, path: BroadcastPath, *, withdrawn: bool = False) -> None:
        """Show the best route of a path, now or later."""
        if not self._root.covers(path) or path == self._root or self._own_role == Role.SUBSCRIBER:
            return
        shown, now = self._shown.get(path), trio.current_time()
        best = self._sharing.routes.best(path, self._may_see)
        if best is None:
            self._tell(path)
            return
        route = Route(best.hops, best.cost, best.cold_cost)
        if shown is None:
            before = self._taken_back.get(path)
            if before is None or _burden(route) <= _burden(before):
                self._tell(path)
            return
        if shown.broadcast is not self._sharing.broadcast(best):
            if self._reaches(path, shown):
                # Another publisher is better: that may change back, too.
                self._hold(path, min(self._held.get(path, math.inf), now + self._sharing.route_hold))
            else:
                self._tell(path)
            return
        if route == shown.route:
            self._hold(path, math.inf)
            return
        worse = _burden(route) > _burden(shown.route)
        if withdrawn and worse:
            if self._announces(path, best.publisher):
                self._take_back(path, shown)
            else:
                self._hold(path, now + _WITHDRAWAL_HOLD)
        elif not worse or path not in self._held:
            self._hold(path, min(self._held.get(path, math.inf), now + self._sharing.route_hold))

    def _reaches(self, path: BroadcastPath, shown: PublishedBroadcast) -> bool:
        """Return whether there is a route for the peer to what is announced to it."""
        routes = filter(self._may_see, self._sharing.routes.of(path))
        return any(self._sharing.broadcast(route) is shown.broadcast for route in routes)

    def _announces(self, path: BroadcastPath, publisher: int) -> bool:
        """Return whether the peer has a way to a broadcast of its own."""
        return any(route.source is self and route.publisher == publisher for route in self._sharing.routes.of(path))

    def _take_back(self, path: BroadcastPath, shown: PublishedBroadcast) -> None:
        """Announce to a relay that a route has ended, and the worse one that is left only later.

        Relays that go on to each other's ways, when the publisher has ended, would announce longer and longer ones.
        """
        del self._shown[path]
        self.session._publisher.withdraw(shown)
        self._taken_back[path] = shown.route
        self._hold(path, trio.current_time() + _WITHDRAWAL_HOLD)

    def _hold(self, path: BroadcastPath, due: float) -> None:
        """Tell what changed of a path at a time; never, when that is infinite."""
        if due == math.inf:
            self._held.pop(path, None)
        else:
            self._held[path] = due
            self._held_more.set()

    @trio.lowlevel.enable_ki_protection
    async def _tell_held(self) -> None:
        """Tell the routes that were held back, each at its time."""
        while True:
            with trio.move_on_at(min(self._held.values(), default=math.inf)):
                await self._held_more.wait()
            now = trio.current_time()
            for path in [path for path, due in self._held.items() if due <= now]:
                self._tell(path)

    def _tell(self, path: BroadcastPath) -> None:
        """Announce the best route of a path, or that there is none."""
        self._held.pop(path, None)
        self._taken_back.pop(path, None)
        origin = self.session._publisher
        shown = self._shown.get(path)
        best = self._sharing.routes.best(path, self._may_see)
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
        elif (inside := self.inside(path)) not in origin.origin:
            # What the application publishes on this session itself comes first.
            shown = self._shown[path] = PublishedBroadcast(inside, broadcast, route, self._allows)
            origin.announce(shown)

    def _allows(self, path: BroadcastPath) -> bool:
        """Return whether the peer may read what is at a path of its own."""
        return self._grant is None or self._grant.may_subscribe(path)

    def _may_see(self, route: AnyRoute) -> bool:
        """Return whether a route may be announced to the peer: its grant allows it, and it does not lead back."""
        if route.source is self or not self._allows(self.inside(route.path)):
            return False
        setup = self.session._context.core.peer_setup
        return setup is None or not setup.hop_id or setup.hop_id not in route.hops

    # -- what is pulled from the peer --------------------------------------------------------------------------

    def inside(self, path: BroadcastPath) -> BroadcastPath:
        """Return a path of the origin as the peer has it."""
        return self._root.suffix_of(path)

    def may_serve(self, path: BroadcastPath) -> bool:
        """Return whether the peer may publish at a path of the origin."""
        return self._grant is None or self._grant.may_publish(self.inside(path))

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Start a task in the session's nursery."""
        self.session._context.start(task)

    # -- what it tells of itself -------------------------------------------------------------------------------

    def described(self) -> OriginSession:
        """Return what there is to tell of it."""
        session = self.session
        setup = session._context.core.peer_setup
        return OriginSession(
            peer=session.peer,
            version=session.version,
            root=self._root,
            hop_id=0 if setup is None else setup.hop_id,
            routes=len(self._sharing.routes.of_source(self)),
            shown=len(self._shown),
            draining=self._draining,
        )

    def __repr__(self) -> str:
        return f"<SharedSession {self.session!r}>"
