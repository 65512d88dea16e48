"""Origin: the broadcasts that a session publishes, by path, and the functions to call when they change."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import attrs

from ..path import BroadcastPath
from .broadcast import request_track, unwatch_tracks, watch_tracks

if TYPE_CHECKING:
    from .broadcast import Broadcast
    from .track import Track
    from .track_requests import TrackRequest


@attrs.frozen
class Route:
    """The way on which a broadcast comes to this side.

    Attributes:
        hops: The hop ids of the relays that it passed, origin first; empty for a broadcast of our own.
        cost: What subscribing costs, in the deployment's units.
        cold_cost: The same without a discount for a copy that is cached already.
    """

    hops: tuple[int, ...] = ()
    cost: int = 0
    cold_cost: int = 0


NO_ROUTE = Route()
"""The route of what is published here and costs nothing: of nearly everything that a program publishes."""


@attrs.define(eq=False)
class PublishedBroadcast:
    """One broadcast under one path on one session.

    Attributes:
        path: Where it is announced.
        broadcast: What is published.
        route: The way on which it comes here; `Origin.update` changes it.
        allows: Returns whether tracks may be made at a path below it, as they are asked for; None for all of them.
    """

    path: BroadcastPath
    broadcast: Broadcast
    route: Route = NO_ROUTE
    allows: Callable[[BroadcastPath], bool] | None = None


Changed = Callable[[PublishedBroadcast, str | None], None]
"""Called with a publication that came, went, changed its route or answers other requests, and None; or with one that
has a new track, and the track's name."""


class Supply(Protocol):
    """What adds publications to an origin as they are asked for, so that others cost nothing."""

    def supply(self, path: BroadcastPath) -> None:
        """Called before a request for a track of this path is answered: add its publication, and those above it."""

    def supply_below(self, prefix: BroadcastPath) -> None:
        """Called before what a prefix covers is listed or watched: add it."""


class Origin:
    """The publications of one session.

    What is asked of it costs the same however much is published: it keeps the publications below each prefix of a path,
    and the watchers of each prefix.

    Attributes:
        supply: Where more publications come from; None where all are added by the session itself.
    """

    def __init__(self) -> None:
        self.supply: Supply | None = None
        self._publications: dict[tuple[str, ...], PublishedBroadcast] = {}
        self._below: dict[tuple[str, ...], dict[BroadcastPath, PublishedBroadcast]] = {}
        self._of: dict[Broadcast, dict[PublishedBroadcast, None]] = {}
        self._watchers: dict[tuple[str, ...], dict[Changed, None]] = {}
        # By each path whose publication may answer what is waited for.
        self._waiting: dict[tuple[str, ...], dict[Changed, None]] = {}

    def __len__(self) -> int:
        return len(self._publications)

    def __contains__(self, path: BroadcastPath) -> bool:
        return path.parts in self._publications

    def add(self, publication: PublishedBroadcast) -> None:
        """Add a publication. Raises ValueError when its path is taken: no broadcast silently replaces another."""
        path, broadcast = publication.path, publication.broadcast
        if path.parts in self._publications:
            raise ValueError(f"{str(path)!r} is published on this session already")
        self._publications[path.parts] = publication
        for prefix in prefixes(path):
            self._below.setdefault(prefix, {})[path] = publication
        if broadcast not in self._of:
            watch_tracks(broadcast, self._track_added)
        self._of.setdefault(broadcast, {})[publication] = None
        self._changed(publication, None)

    def remove(self, publication: PublishedBroadcast) -> None:
        """Remove a publication; does nothing when it was removed before."""
        path, broadcast = publication.path, publication.broadcast
        if self._publications.get(path.parts) is not publication:
            return
        del self._publications[path.parts]
        for prefix in prefixes(path):
            del self._below[prefix][path]
            if not self._below[prefix]:
                del self._below[prefix]
        del self._of[broadcast][publication]
        if not self._of[broadcast]:
            del self._of[broadcast]
            unwatch_tracks(broadcast, self._track_added)
        self._changed(publication, None)

    def update(self, publication: PublishedBroadcast, route: Route) -> None:
        """Change the route of a publication."""
        if publication.route != route:
            publication.route = route
            if self.get(publication.path) is publication:
                self._changed(publication, None)

    def publishes(self, broadcast: Broadcast) -> bool:
        """Return whether a broadcast is published, under any path."""
        return broadcast in self._of

    def get(self, path: BroadcastPath) -> PublishedBroadcast | None:
        """Return the publication of this path."""
        return self._publications.get(path.parts)

    def below(self, prefix: BroadcastPath) -> dict[BroadcastPath, PublishedBroadcast]:
        """Return the publications that a prefix covers."""
        if self.supply is not None:
            self.supply.supply_below(prefix)
        return dict(self._below.get(prefix.parts, ()))

    def find(self, path: BroadcastPath, track: str) -> tuple[PublishedBroadcast, Track] | None:
        """Return the track of this name, and the publication that has it."""
        publication = self._publications.get(path.parts)
        if publication is None:
            return None
        found = publication.broadcast.tracks.get(track)
        return None if found is None else (publication, found)

    def request(self, path: BroadcastPath, track: str) -> tuple[PublishedBroadcast, Track | TrackRequest] | None:
        """Return what `find` does, or else a track that a broadcast makes as it is asked for, or will make.

        The broadcast of this path is asked first, then those of its prefixes, the longest first.
        """
        if self.supply is not None:
            self.supply.supply(path)
        found = self.find(path, track)
        if found is not None:
            return found
        for prefix in reversed(prefixes(path)):
            publication = self._publications.get(prefix)
            if publication is None or (publication.allows is not None and not publication.allows(path)):
                continue
            made = request_track(publication.broadcast, BroadcastPath(path.parts[len(prefix) :]), track)
            if made is not None:
                return publication, made
        return None

    def watch(self, prefix: BroadcastPath, changed: Changed) -> None:
        """Have `changed` called at every change of what a prefix covers."""
        if self.supply is not None:
            self.supply.supply_below(prefix)
        self._watchers.setdefault(prefix.parts, {})[changed] = None

    def unwatch(self, prefix: BroadcastPath, changed: Changed) -> None:
        """End `watch`."""
        watchers = self._watchers.get(prefix.parts, {})
        watchers.pop(changed, None)
        if not watchers:
            self._watchers.pop(prefix.parts, None)

    def watch_requests(self, path: BroadcastPath, changed: Changed) -> None:
        """Have `changed` called at every change of what `request` looks at for a path: it, and each of its prefixes."""
        for prefix in prefixes(path):
            self._waiting.setdefault(prefix, {})[changed] = None

    def unwatch_requests(self, path: BroadcastPath, changed: Changed) -> None:
        """End `watch_requests`."""
        for prefix in prefixes(path):
            waiting = self._waiting.get(prefix, {})
            waiting.pop(changed, None)
            if not waiting:
                self._waiting.pop(prefix, None)

    def is_awaited(self, path: BroadcastPath) -> bool:
        """Return whether anything is called when a publication of this path comes."""
        return path.parts in self._waiting or any(prefix in self._watchers for prefix in prefixes(path))

    @property
    def watched(self) -> list[BroadcastPath]:
        """The prefixes that are watched."""
        return [BroadcastPath(parts) for parts in self._watchers]

    def _track_added(self, broadcast: Broadcast, name: str | None) -> None:
        for publication in tuple(self._of[broadcast]):
            self._changed(publication, name)

    def _changed(self, publication: PublishedBroadcast, track: str | None) -> None:
        for prefix in prefixes(publication.path):
            for changed in tuple(self._watchers.get(prefix, ())):
                changed(publication, track)
        for changed in tuple(self._waiting.get(publication.path.parts, ())):
            changed(publication, track)


def prefixes(path: BroadcastPath) -> list[tuple[str, ...]]:
    """Return the parts of each prefix of a path, from the root to the path itself."""
    parts = path.parts
    return [parts[:length] for length in range(len(parts) + 1)]
