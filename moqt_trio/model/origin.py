"""Origin: the broadcasts that a session publishes, by path, and the functions to call when they change."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from .broadcast import unwatch_tracks, watch_tracks

if TYPE_CHECKING:
    from ..path import BroadcastPath
    from .broadcast import Broadcast
    from .track import Track


@attrs.define(eq=False)
class PublishedBroadcast:
    """One broadcast under one path on one session.

    Attributes:
        path: Where it is announced.
        broadcast: What is published.
        hops: The hop ids of the relays that it passed on its way here, origin first; empty for a broadcast of our own.
        cost: What subscribing costs, in the deployment's units.
    """

    path: BroadcastPath
    broadcast: Broadcast
    hops: tuple[int, ...] = ()
    cost: int = 0


class Origin:
    """The publications of one session."""

    def __init__(self) -> None:
        self._publications: dict[BroadcastPath, PublishedBroadcast] = {}
        self._watchers: set[Callable[[], None]] = set()

    def __len__(self) -> int:
        return len(self._publications)

    def __contains__(self, path: BroadcastPath) -> bool:
        return path in self._publications

    def add(self, publication: PublishedBroadcast) -> None:
        """Add a publication. Raises ValueError when its path is taken: no broadcast silently replaces another."""
        if publication.path in self._publications:
            raise ValueError(f"{str(publication.path)!r} is published on this session already")
        self._publications[publication.path] = publication
        watch_tracks(publication.broadcast, self._changed)
        self._changed()

    def remove(self, publication: PublishedBroadcast) -> None:
        """Remove a publication; does nothing when it was removed before."""
        if self._publications.get(publication.path) is publication:
            del self._publications[publication.path]
            if not any(other.broadcast is publication.broadcast for other in self._publications.values()):
                unwatch_tracks(publication.broadcast, self._changed)
            self._changed()

    def below(self, prefix: BroadcastPath) -> dict[BroadcastPath, PublishedBroadcast]:
        """Return the publications that a prefix covers."""
        return {path: item for path, item in self._publications.items() if prefix.covers(path)}

    def find(self, path: BroadcastPath, track: str) -> tuple[PublishedBroadcast, Track] | None:
        """Return the track of this name, and the publication that has it."""
        publication = self._publications.get(path)
        if publication is None:
            return None
        found = publication.broadcast.tracks.get(track)
        return None if found is None else (publication, found)

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called at every change."""
        self._watchers.add(changed)

    def unwatch(self, changed: Callable[[], None]) -> None:
        """End `watch`."""
        self._watchers.discard(changed)

    def _changed(self) -> None:
        for changed in list(self._watchers):
            changed()
