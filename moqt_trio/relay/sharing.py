"""Sharing: the routes and fronts of one origin, and the sessions that share it.

Theory of operation. A session that joins (`SharedSession`) adds a route for each broadcast that its peer announces, and
is shown the best route of each path. Whenever the routes of a path change, each session is shown the best one that its
peer may see: never one that came from the peer itself, or passed it. A session that leaves withdraws its routes.
Nothing here has a task; `SharedSession` has some, in the nursery of its session.

A path that stays reachable, by another route than before, is told after a while (`holds`): what changes back meanwhile
is never told. The while is longer when a withdrawn route leaves a worse one to the same publisher, because that one is
likely to be on its way out, too.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Protocol

import attrs

from ..model.pool import CachePool
from .front import Front
from .routes import RelayRoute, RouteTable
from .statistics import OriginRoute, OriginStatistics

if TYPE_CHECKING:
    from ..limits import Limits
    from ..model.broadcast import Broadcast
    from ..path import BroadcastPath
    from .pull import PullSource
    from .statistics import OriginSession


@attrs.define(eq=False)
class LocalSource:
    """A broadcast that is published on the origin itself.

    Attributes:
        broadcast: It.
    """

    broadcast: Broadcast


class Watcher(Protocol):
    """A session that is shown routes."""

    def described(self) -> OriginSession:
        """Return what there is to tell of it."""
        ...

    def path_changed(self, path: BroadcastPath, *, withdrawn: bool = False) -> None:
        """Called when the routes of a path have changed: one was withdrawn, or came or changed."""


AnyRoute = RelayRoute["PullSource | LocalSource"]


class Sharing:
    """The state of an origin.

    Args:
        hop_id: This side's.
        limits: The bounds.
        cache_age: Seconds for which the groups of a track are kept after newer ones.
        route_hold: Seconds before another route of a path that stays reachable is told, and taken.
        cache_bytes: Bytes of memory that all groups may take together.

    Attributes:
        hop_id, route_hold: As above.
        routes: The routes.
        watchers: The sessions.
    """

    def __init__(self, hop_id: int, limits: Limits, cache_age: float, route_hold: float, cache_bytes: int) -> None:
        self.hop_id = hop_id
        self.route_hold = route_hold
        self.limits = limits
        self.routes: RouteTable[PullSource | LocalSource] = RouteTable(limits.max_routes, limits.max_sources)
        self.watchers: dict[Watcher, None] = {}
        self._cache_age = cache_age
        self._pool = CachePool(cache_bytes)
        self._numbers = itertools.count()
        self._fronts: dict[tuple[BroadcastPath, int], Front] = {}

    def announce(
        self,
        path: BroadcastPath,
        source: PullSource | LocalSource,
        hops: tuple[int, ...] = (),
        cost: int = 0,
        cold_cost: int = 0,
    ) -> None:
        """Add a route, or change the one that the source has."""
        before = self._publishers(path)
        route = RelayRoute(
            path=path,
            hops=hops,
            cost=cost,
            cold_cost=cold_cost,
            source=source,
            local=isinstance(source, LocalSource),
            number=next(self._numbers),
        )
        if self.routes.put(route):
            self._changed(path, before, source)

    def withdraw(self, path: BroadcastPath, source: PullSource | LocalSource) -> None:
        """Remove a source's route; does nothing when it has none."""
        before = self._publishers(path)
        if self.routes.drop(path, source):
            self._changed(path, before, source, withdrawn=True)

    def reprice(self, source: PullSource, cost: int) -> None:
        """Set the cost of all routes of a source."""
        for route in self.routes.of_source(source):
            self.announce(route.path, source, route.hops, cost, cost)

    def withdraw_all(self, source: PullSource | LocalSource) -> None:
        """Remove all routes of a source."""
        for route in self.routes.of_source(source):
            self.withdraw(route.path, source)

    def broadcast(self, route: AnyRoute) -> Broadcast:
        """Return what is served of a route."""
        return route.source.broadcast if isinstance(route.source, LocalSource) else self.front(route).broadcast

    def front(self, route: AnyRoute) -> Front:
        """Return the front of a route that comes from a peer."""
        key = route.path, route.publisher
        if key not in self._fronts:

            def sources() -> list[PullSource]:
                return self._sources(*key)

            self._fronts[key] = Front(
                route.path,
                sources,
                self.limits,
                cache_age=self._cache_age,
                hold=self.route_hold,
                pool=self._pool,
            )
        return self._fronts[key]

    def statistics(self) -> OriginStatistics:
        """Return the state in numbers."""
        pulls = [pull for front in self._fronts.values() for pull in front.pulls]
        tracks = [track for front in self._fronts.values() for track in front.broadcast.tracks.values()]
        return OriginStatistics(
            sessions=len(self.watchers),
            broadcasts=sum(1 for _ in self.routes),
            routes=len(self.routes),
            tracks=len(tracks),
            subscriptions=sum(pull.reading for pull in pulls),
            subscribers=sum(track.subscribers for track in tracks),
            fetches=sum(front.fetches for front in self._fronts.values()),
            cached_bytes=self._pool.total,
        )

    def described_routes(self) -> tuple[OriginRoute, ...]:
        """Return the routes of all paths, the best one of each first."""
        return tuple(
            OriginRoute(
                path=path,
                hops=route.hops,
                cost=route.cost,
                cold_cost=route.cold_cost,
                peer=None if isinstance(route.source, LocalSource) else route.source.session.peer,
                best=not index,
            )
            for path in self.routes
            for index, route in enumerate(self.routes.of(path))
        )

    @property
    def fronts(self) -> tuple[Front, ...]:
        """What is served now."""
        return tuple(self._fronts.values())

    def _sources(self, path: BroadcastPath, publisher: int) -> list[PullSource]:
        return [
            route.source
            for route in self.routes.of(path)
            if route.publisher == publisher
            and not isinstance(route.source, LocalSource)
            and route.source.session.closed is None
        ]

    def _publishers(self, path: BroadcastPath) -> set[int]:
        return {route.publisher for route in self.routes.of(path)}

    def _changed(
        self, path: BroadcastPath, before: set[int], source: PullSource | LocalSource, *, withdrawn: bool = False
    ) -> None:
        after = self._publishers(path)
        for watcher in tuple(self.watchers):
            watcher.path_changed(path, withdrawn=withdrawn)
        for publisher in before - after:
            # What is pulled goes on until its source ends it: a publisher that ends withdraws first.
            front = self._fronts.pop((path, publisher), None)
            if front is not None:
                front.retire()
        if not isinstance(source, LocalSource):
            for publisher in before & after:
                front = self._fronts.get((path, publisher))
                if front is None:
                    continue
                if source in self._sources(path, publisher):
                    front.reconsider()
                else:
                    front.source_lost(source)
