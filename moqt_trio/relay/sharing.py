"""Sharing: the routes and fronts of one origin, and the sessions that share it.

Theory of operation. A session that joins (`SharedSession`) adds a route for each broadcast that its peer announces, and
is shown the best route of each path. Whenever the routes of a path change, each session is shown the best one that its
peer may see: never one that came from the peer itself, or passed it. A session that leaves withdraws its routes.
Nothing here has a task; `SharedSession` has one, in the nursery of its session.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Protocol

import attrs

from .front import Front
from .routes import RelayRoute, RouteTable

if TYPE_CHECKING:
    from ..limits import Limits
    from ..model.broadcast import Broadcast
    from ..path import BroadcastPath
    from .pull import PullSource


@attrs.define(eq=False)
class LocalSource:
    """A broadcast that is published on the origin itself.

    Attributes:
        broadcast: It.
    """

    broadcast: Broadcast


class Watcher(Protocol):
    """A session that is shown routes."""

    def path_changed(self, path: BroadcastPath) -> None:
        """Called when the routes of a path have changed."""


AnyRoute = RelayRoute["PullSource | LocalSource"]


class Sharing:
    """The state of an origin.

    Args:
        hop_id: This side's.
        limits: The bounds.
        cache_age: Seconds for which the groups of a track are kept after newer ones.

    Attributes:
        hop_id: As above.
        routes: The routes.
        watchers: The sessions.
    """

    def __init__(self, hop_id: int, limits: Limits, cache_age: float) -> None:
        self.hop_id = hop_id
        self.limits = limits
        self.routes: RouteTable[PullSource | LocalSource] = RouteTable(limits.max_routes, limits.max_sources)
        self.watchers: dict[Watcher, None] = {}
        self._cache_age = cache_age
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
            self._changed(path, before, source)

    def withdraw_all(self, source: PullSource | LocalSource) -> None:
        """Remove all routes of a source."""
        for path in self.routes.of_source(source):
            self.withdraw(path, source)

    def broadcast(self, route: AnyRoute) -> Broadcast:
        """Return what is served of a route."""
        if isinstance(route.source, LocalSource):
            return route.source.broadcast
        key = route.path, route.publisher
        if key not in self._fronts:

            def sources() -> list[PullSource]:
                return self._sources(*key)

            self._fronts[key] = Front(route.path, sources, self.limits, self._cache_age)
        return self._fronts[key].broadcast

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

    def _changed(self, path: BroadcastPath, before: set[int], source: PullSource | LocalSource) -> None:
        after = self._publishers(path)
        for watcher in tuple(self.watchers):
            watcher.path_changed(path)
        for publisher in before - after:
            # What is pulled goes on until its source ends it: a publisher that ends withdraws first.
            front = self._fronts.pop((path, publisher), None)
            if front is not None:
                front.retire()
        if not isinstance(source, LocalSource):
            for publisher in before & after:
                front = self._fronts.get((path, publisher))
                if front is not None and source not in self._sources(path, publisher):
                    front.source_lost(source)
