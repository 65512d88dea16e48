"""Broadcast: the tracks that one publisher offers under one path."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from ..limits import Limits
from ..tasks import defer_interrupts
from .track import Delivery, Track


@defer_interrupts
class Broadcast:
    """A collection of tracks. It belongs to no session: publish it on as many as you like with `Session.publish`.

    Args:
        limits: Bounds of the tracks made here; the defaults of `Limits` when left out.

    Attributes:
        tracks: The tracks by name; a live, read-only view.
    """

    def __init__(self, *, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._tracks: dict[str, Track] = {}
        self.tracks: Mapping[str, Track] = MappingProxyType(self._tracks)
        self._watchers: set[Callable[[Broadcast, str], None]] = set()

    def track(
        self,
        name: str,
        *,
        priority: int = 127,
        delivery: Delivery = "live",
        max_age: float = 5.0,
        timescale: int = 1000,
    ) -> Track:
        """Return a new track of this broadcast.

        Args:
            name: Its name; opaque text of at most 1 KiB in UTF-8.
            priority: 0 … 255, higher goes first; decides between subscriptions of equal priority.
            delivery: `"live"` (writing never waits; a slow subscriber gets its oldest groups dropped) or
                `"reliable"` (writing waits for the slowest subscriber).
            max_age: Seconds that a group is kept after a newer one was opened.
            timescale: Timestamp units per second, at least 1.

        Raises:
            ValueError: There is a track of this name that has not ended, or a value is out of range.
        """
        existing = self._tracks.get(name)
        if existing is not None and not existing.ended:
            raise ValueError(f"the broadcast has a track {name!r}")
        track = Track(
            name,
            priority=priority,
            delivery=delivery,
            max_age=max_age,
            timescale=timescale,
            limits=self._limits,
        )
        self._tracks[name] = track
        for changed in list(self._watchers):
            changed(self, name)
        return track

    def __iter__(self) -> Iterator[Track]:
        return iter(list(self._tracks.values()))

    def finish(self) -> None:
        """End every track cleanly."""
        for track in self:
            track.finish()

    def __repr__(self) -> str:
        return f"<Broadcast of {len(self._tracks)} tracks: {', '.join(map(repr, list(self._tracks)))}>"


def watch_tracks(broadcast: Broadcast, changed: Callable[[Broadcast, str], None]) -> None:
    """Have `changed` called with a broadcast and the name of each new track of it."""
    broadcast._watchers.add(changed)


def unwatch_tracks(broadcast: Broadcast, changed: Callable[[Broadcast, str], None]) -> None:
    """End `watch_tracks`."""
    broadcast._watchers.discard(changed)
