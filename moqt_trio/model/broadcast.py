"""Broadcast: the tracks that one publisher offers under one path.

Theory of operation. A track that is written drops its old groups as new ones are opened. One that rests would keep them
for ever, and a broadcast every track that has ended. So a broadcast knows which of its tracks have something that ages:
more than one group, or an end. It has no task and no clock: one of the sessions that publish it, its keeper, calls
`age_tracks` now and then while there are such tracks. Where none publishes it, the bounds of `Limits`
hold all the same.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import trio

from ..arguments import want
from ..limits import Limits
from ..loggers import Logger
from ..tasks import defer_interrupts
from .track import Delivery, Track, state_of
from .track_requests import TrackRequests, request_of

if TYPE_CHECKING:
    from ..frame import Properties
    from ..path import BroadcastPath
    from .track_requests import TrackRequest
    from .track_state import TrackState

logger = Logger(__name__)


@defer_interrupts
class Broadcast:
    """A collection of tracks. It belongs to no session: publish it on as many as you like with `Session.publish`.

    Args:
        limits: Bounds of the tracks made here; the defaults of `Limits` when left out.
        on_request: Called when a peer asks for a track that is not among `tracks`, at the broadcast's path or below it.
            It is given the path of the request without the broadcast's own, empty for the broadcast itself, and the
            track's name. It returns the track to serve, mostly a new one of `track`, or None to have the request
            refused. It must not block, and for a path below it may be called for the same track again. An exception of
            it is logged, and the request is refused. Where making a track takes time, use `requests`.

    Attributes:
        tracks: The tracks by name; a live, read-only view. A track that has ended leaves it when it is older than its
            `max_age` and nothing reads it, or when more than `Limits.finished_tracks` have ended after it.

    Limits: `finished_tracks`, `finished_bytes`.
    """

    def __init__(
        self, *, limits: Limits | None = None, on_request: Callable[[BroadcastPath, str], Track | None] | None = None
    ) -> None:
        if on_request is not None and not callable(on_request):
            raise TypeError(f"on_request is a function of a path and a track's name, not {type(on_request).__name__}")
        self._limits = limits or Limits()
        self._on_request = on_request
        self._tracks: dict[str, Track] = {}
        self.tracks: Mapping[str, Track] = MappingProxyType(self._tracks)
        self._requests: TrackRequests | None = None
        self._watchers: set[TracksChanged] = set()
        self._keepers: dict[Keeper, None] = {}
        self._ageing: dict[TrackState, None] = {}
        self._ended: dict[TrackState, None] = {}

    def track(
        self,
        name: str,
        *,
        priority: int = 127,
        delivery: Delivery = "live",
        max_age: float = 5.0,
        timescale: int = 1000,
        properties: Properties = (),
    ) -> Track:
        """Return a new track of this broadcast.

        Args:
            name: Its name; opaque text of at most 1 KiB in UTF-8.
            priority: 0 … 255, higher goes first; decides between subscriptions of equal priority.
            delivery: `"live"` (writing never waits; a slow subscriber gets its oldest groups dropped) or
                `"reliable"` (writing waits for the slowest subscriber).
            max_age: Seconds that a group is kept after a newer one was opened, and the track after it has ended.
            timescale: Timestamp units per second, at least 1.
            properties: What moq-transport says of a track beside these, as `(type, value)`: a number for an even type,
                bytes for an odd one. Other versions leave it out.

        Raises:
            ValueError: There is a track of this name that has not ended, or a value is out of range.
        """
        existing = self._tracks.get(name)
        if existing is not None and not existing.ended:
            raise ValueError(f"the broadcast has a track {name!r}")
        if existing is not None:
            self._forget(state_of(existing))
        track = Track(
            name,
            priority=priority,
            delivery=delivery,
            max_age=max_age,
            timescale=timescale,
            properties=properties,
            limits=self._limits,
        )
        self._tracks[name] = track
        state_of(track).changed = weakref.WeakMethod(self._track_changed)
        self._tell_watchers(name)
        return track

    def remove(self, name: str) -> None:
        """Remove a track, and finish it if it has not ended.

        Requests for it are refused from now on. Subscriptions that read it get the rest of it, and then its memory is
        freed. Another track may be made under the same name.

        Raises:
            KeyError: There is no track of this name; it may have left because it was old.
        """
        track = self._tracks.pop(name)
        self._forget(state_of(track))
        track.finish()
        self._tell_watchers(name)

    def requests(self) -> TrackRequests:
        """Return a block in which requests for tracks that are not there wait for the application.

        They are requests of peers for a track that is not among `tracks`, at the broadcast's path or below it, and for
        which `on_request` has none. Iterate over the block for them: each track is asked for once, however many
        subscribers wait for it. Outside of the block such requests are refused.

        Returns:
            A block to be entered with `async with`, once, and iterated inside.

        Raises:
            trio.BusyResourceError: On entering: there is such a block already.

        Limits: `max_track_requests`, `reply_timeout`.
        """
        return TrackRequests(self._limits.max_track_requests, self._requests_changed)

    def _requests_changed(self, requests: TrackRequests) -> None:
        if self._requests is requests:
            self._requests = None
        elif self._requests is not None:
            raise trio.BusyResourceError("the requests for tracks of this broadcast are received already")
        else:
            self._requests = requests
            # Some may wait for the broadcast, or for a track of it.
            self._tell_watchers(None)

    def _request(self, below: BroadcastPath, name: str) -> Track | TrackRequest | None:
        track = self._make(below, name)
        if track is not None or self._requests is None:
            return track
        return request_of(self._requests, below, name)

    def _fetch(self, name: str, sequence: int) -> Track | None:
        """Return a track that will have one group of a track, where that is not kept and can still be had."""
        return None

    def _make(self, below: BroadcastPath, name: str) -> Track | None:
        if self._on_request is None:
            return None
        try:
            track = self._on_request(below, name)
            if track is not None:
                want(track, Track, "on_request returns a Track or None")
        except Exception:
            # It runs where a peer's bytes are read: the request alone fails.
            logger.exception("on_request failed, and the request is refused")
            return None
        return track

    def _tell_watchers(self, name: str | None) -> None:
        for changed in list(self._watchers):
            changed(self, name)

    def _forget(self, state: TrackState) -> None:
        self._ageing.pop(state, None)
        self._ended.pop(state, None)
        state.let_go()

    def __iter__(self) -> Iterator[Track]:
        return iter(list(self._tracks.values()))

    def finish(self) -> None:
        """End every track cleanly."""
        for track in self:
            track.finish()

    # -- tracks at rest ------------------------------------------------------------------------------------

    def _track_changed(self, state: TrackState) -> None:
        """Called when a track begins to have something that ages, and when it has ended."""
        first = not self._ageing
        self._ageing[state] = None
        if state.ended:
            self._ended[state] = None
            self._keep_bounds()
        if first and self._ageing:
            self._call_keeper()

    def _call_keeper(self) -> None:
        for keeper in self._keepers:
            keeper(self)
            return

    def _keep_bounds(self) -> None:
        """Remove the tracks that ended first, while there are too many."""
        limits = self._limits
        while len(self._ended) > limits.finished_tracks or self._too_large():
            oldest = next((state for state in self._ended if state.at_rest), None)
            if oldest is None:
                return
            self.remove(oldest.name)

    def _too_large(self) -> bool:
        return (
            len(self._ended) > 1
            and sum(state.size for state in self._ended if not state.subscribers) > self._limits.finished_bytes
        )

    def _age(self, now: float) -> bool:
        for state in tuple(self._ageing):
            if not state.age(now):
                del self._ageing[state]
            elif state.is_old(now):
                self.remove(state.name)
        return bool(self._ageing)

    def __repr__(self) -> str:
        return f"<Broadcast of {len(self._tracks)} tracks: {', '.join(map(repr, list(self._tracks)))}>"


TracksChanged = Callable[[Broadcast, "str | None"], None]
"""Called with a broadcast and the name of a new track of it; None when other tracks than before may be asked for."""


def watch_tracks(broadcast: Broadcast, changed: TracksChanged) -> None:
    """Have `changed` called at every change of a broadcast's tracks."""
    broadcast._watchers.add(changed)


def unwatch_tracks(broadcast: Broadcast, changed: TracksChanged) -> None:
    """End `watch_tracks`."""
    broadcast._watchers.discard(changed)


def request_track(broadcast: Broadcast, below: BroadcastPath, name: str) -> Track | TrackRequest | None:
    """Return the track that a broadcast makes for a request of a track that it does not have, or None.

    It is a `TrackRequest` where the application takes its time.
    """
    return broadcast._request(below, name)


def fetch_group(broadcast: Broadcast, name: str, sequence: int) -> Track | None:
    """Return a track that will have a group which the broadcast does not keep; None when it cannot be had."""
    return broadcast._fetch(name, sequence)


Keeper = Callable[[Broadcast], None]
"""Called with a broadcast that begins to have something that ages."""


def add_keeper(broadcast: Broadcast, keeper: Keeper) -> None:
    """Have the keeper called when the broadcast has something that ages, unless it has a keeper already."""
    broadcast._keepers[keeper] = None
    if broadcast._ageing and len(broadcast._keepers) == 1:
        keeper(broadcast)


def remove_keeper(broadcast: Broadcast, keeper: Keeper) -> None:
    """End `add_keeper`. The next keeper is called for what there is."""
    broadcast._keepers.pop(keeper, None)
    if broadcast._ageing:
        broadcast._call_keeper()


def age_tracks(broadcast: Broadcast, now: float) -> bool:
    """Drop what is too old by now, groups and tracks. Return True while there is something that will be too old."""
    return broadcast._age(now)
