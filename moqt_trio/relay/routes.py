"""RouteTable: the ways by which an origin reaches each broadcast, and which of them is the best one for a peer.

Theory of operation. A source, mostly a session, has at most one route for a path. The routes of a path are kept in
their order of preference, so that the best one for a peer is the first that may be shown to it. Nothing here knows the
time or waits; what changed is returned to the caller, which informs the peers.

The order, the first difference decides: no unknown hop; the cost, then the cost without a cached copy; published on
this origin; fewer hops; for routes that a relay forwarded a hash that all relays compute alike, so that they choose the
same; the newest.
"""

from __future__ import annotations

from bisect import insort
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from ..loggers import Logger
from ..model.origin import prefixes
from ..path import BroadcastPath

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = Logger(__name__)

SourceT = TypeVar("SourceT")

UNKNOWN_HOP = 0
MOST_COST = 2**62 - 1

_HASH_SEED = 0x420C0DECB00B
_HASH_PRIME = 0x100000001B3


def fnv1a(data: bytes, value: int = _HASH_SEED) -> int:
    """Return the hash FNV-1a of 64 bits, which begins with a value."""
    for byte in data:
        value = (value ^ byte) * _HASH_PRIME & 0xFFFF_FFFF_FFFF_FFFF
    return value


def path_hash(path: str, hops: tuple[int, ...]) -> int:
    """Return a hash of a path and its hops, as moq-relay computes it: mixed meshes choose the same route."""
    return fnv1a(path.encode() + b"".join(hop.to_bytes(8, "little") for hop in hops))


@attrs.frozen(eq=False, kw_only=True)
class RelayRoute(Generic[SourceT]):
    """One way to a broadcast.

    Attributes:
        path: The broadcast's path on the origin.
        hops: Hop ids from its publisher to the source, inclusive; empty for what is published on this origin.
        cost: What subscribing costs, with the price of the session.
        cold_cost: The same without a discount for a copy that is cached.
        source: Where it comes from.
        local: True for what is published on this origin.
        number: Later ones have higher numbers.
    """

    path: BroadcastPath
    hops: tuple[int, ...] = ()
    cost: int = 0
    cold_cost: int = 0
    source: SourceT
    local: bool = False
    number: int = 0
    rank: tuple[int, ...] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        hops = self.hops
        forwarded = path_hash(str(self.path), hops) if len(hops) > 1 else 0
        rank = (UNKNOWN_HOP in hops, self.cost, self.cold_cost, not self.local, len(hops), forwarded, -self.number)
        object.__setattr__(self, "rank", rank)

    @property
    def publisher(self) -> int:
        """The hop id of its publisher: routes of one path with the same one lead to the same content. 0 for our own."""
        return self.hops[0] if self.hops else 0


def _rank(route: RelayRoute[SourceT]) -> tuple[int, ...]:
    return route.rank


class RouteTable(Generic[SourceT]):
    """The routes of an origin.

    Args:
        max_routes: Routes of all paths.
        max_sources: Routes of one path; the best ones are kept.
    """

    def __init__(self, max_routes: int, max_sources: int) -> None:
        self._max_routes = max_routes
        self._max_sources = max_sources
        self._routes: dict[BroadcastPath, list[RelayRoute[SourceT]]] = {}
        self._below: dict[tuple[str, ...], dict[BroadcastPath, None]] = {}
        self._by_source: dict[SourceT, dict[BroadcastPath, RelayRoute[SourceT]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[BroadcastPath]:
        """Iterate over the paths that can be reached."""
        return iter(tuple(self._routes))

    def put(self, route: RelayRoute[SourceT]) -> bool:
        """Add a route, in place of the one that its source had for the path; return whether anything changed."""
        before = self._by_source.get(route.source, {}).get(route.path)
        if before is not None and (before.hops, before.cost, before.cold_cost) == (
            route.hops,
            route.cost,
            route.cold_cost,
        ):
            return False
        changed = self.drop(route.path, route.source)
        if self._count >= self._max_routes:
            logger.info("a route was not taken: max_routes (%d)", self._max_routes)
            return changed
        routes = self._routes.get(route.path)
        if routes is None:
            routes = self._routes[route.path] = []
            for prefix in prefixes(route.path):
                self._below.setdefault(prefix, {})[route.path] = None
        insort(routes, route, key=_rank)
        self._by_source.setdefault(route.source, {})[route.path] = route
        self._count += 1
        if len(routes) > self._max_sources:
            worst = routes[-1]
            self.drop(worst.path, worst.source)
            return changed or worst is not route
        return True

    def drop(self, path: BroadcastPath, source: SourceT) -> bool:
        """Remove a source's route of a path; return whether there was one."""
        of_source = self._by_source.get(source, {})
        route = of_source.pop(path, None)
        if route is None:
            return False
        if not of_source:
            del self._by_source[source]
        routes = self._routes[path]
        routes.remove(route)
        if not routes:
            del self._routes[path]
            for prefix in prefixes(path):
                del self._below[prefix][path]
                if not self._below[prefix]:
                    del self._below[prefix]
        self._count -= 1
        return True

    def of_source(self, source: SourceT) -> tuple[RelayRoute[SourceT], ...]:
        """Return the routes of a source."""
        return tuple(self._by_source.get(source, {}).values())

    def below(self, prefix: BroadcastPath) -> tuple[BroadcastPath, ...]:
        """Return the paths that can be reached and that a prefix covers."""
        return tuple(self._below.get(prefix.parts, ()))

    def above(self, path: BroadcastPath) -> list[BroadcastPath]:
        """Return the paths that can be reached and that are this one or a prefix of it."""
        return [each for parts in prefixes(path) if (each := BroadcastPath(parts)) in self._routes]

    def of(self, path: BroadcastPath) -> tuple[RelayRoute[SourceT], ...]:
        """Return the routes of a path, the best one first."""
        return tuple(self._routes.get(path, ()))

    def best(
        self, path: BroadcastPath, fits: Callable[[RelayRoute[SourceT]], bool] = lambda _: True
    ) -> RelayRoute[SourceT] | None:
        """Return the best route of a path among those that fit."""
        return next(filter(fits, self._routes.get(path, ())), None)
