"""Front: one broadcast of one publisher as an origin serves it, from one copy, whatever the way on which it comes.

Theory of operation. Routes of one path with the same publisher lead to the same content: they have one front. Its
broadcast is announced to the peers; a request for a track of it that is not there begins a `Pull` from the best route
that has not refused it. The front has no task. When a source is lost, withdraws the broadcast or has no such track, the
pulls from it go on with the next route; without one their tracks end as the source ended them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import NotFound, printable
from ..loggers import Logger
from ..model.broadcast import Broadcast
from ..model.track import state_of
from ..model.track_requests import TrackRequest
from .fetching import GroupFetch
from .pull import MOVED, Pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..limits import Limits
    from ..model.pool import CachePool
    from ..model.track import Track
    from ..path import BroadcastPath
    from ..session.subscriber.track import TrackProperties
    from .pull import PullSource

logger = Logger(__name__)


class RelayedBroadcast(Broadcast):
    """A broadcast whose tracks are read from a source as they are asked for."""

    def __init__(
        self,
        limits: Limits,
        wanted: Callable[[str], Track | TrackRequest | None],
        fetched: Callable[[str, int], Track | None],
    ) -> None:
        super().__init__(limits=limits)
        self._wanted_track = wanted
        self._fetch_group = fetched

    def _fetch(self, name: str, sequence: int) -> Track | None:
        return self._fetch_group(name, sequence)

    def _request(self, below: BroadcastPath, name: str) -> Track | TrackRequest | None:
        # What a source makes below the path of a broadcast is not announced: it is asked for at its own path.
        return None if below.parts else self._wanted_track(name)


class Front:
    """What is served of a path and a publisher.

    Args:
        path: The broadcast's path on the origin.
        sources: Returns the sources of the broadcast now, the best one first.
        limits: The bounds of its tracks.
        cache_age: Seconds for which the groups of a track are kept after newer ones.
        hold: Seconds for which a source has to stay the best one, before the tracks go over to it.
        pool: What bounds the groups of all fronts.

    Attributes:
        path: As above.
        broadcast: What is announced.
    """

    def __init__(
        self,
        path: BroadcastPath,
        sources: Callable[[], Iterable[PullSource]],
        limits: Limits,
        *,
        cache_age: float,
        hold: float,
        pool: CachePool,
    ) -> None:
        self.path = path
        self.broadcast = RelayedBroadcast(limits, self._wanted, self._fetched)
        self._sources = sources
        self._limits = limits
        self._cache_age = cache_age
        self._hold = hold
        self._pool = pool
        self._requests: dict[str, TrackRequest] = {}
        self._pulls: dict[str, Pull] = {}
        self._fetches: dict[tuple[str, int], GroupFetch] = {}

    @property
    def pulls(self) -> tuple[Pull, ...]:
        """The tracks that are read from a source, or wait for a subscriber."""
        return tuple(self._pulls.values())

    @property
    def fetches(self) -> int:
        """How many groups are fetched now."""
        return len(self._fetches)

    def _wanted(self, name: str) -> TrackRequest | None:
        """Return the request for a track that is not there; None when no source has it."""
        request = self._requests.get(name)
        if request is not None:
            return request
        if len(self._pulls) >= self._limits.max_relayed_tracks:
            logger.info("a track of %s was refused: max_relayed_tracks (%d)", self.path, len(self._pulls))
            return None
        source = next(iter(self._sources()), None)
        if source is None:
            return None
        before = self._pulls.pop(name, None)
        if before is not None:
            before.cancel()
        request = self._requests[name] = TrackRequest(self.path, name, self._request_ended)
        pull = self._pulls[name] = Pull(
            self.path, name, request, self._make_track, self._pull_ended, self._best_for, self._hold
        )
        pull.begin(source)
        return request

    def _fetched(self, name: str, sequence: int) -> Track | None:
        """Return the track of a fetch of a group, which all who want the group at that time share."""
        key = name, sequence
        fetch = self._fetches.get(key)
        if fetch is None:
            source = next(iter(self._sources()), None)
            like = self.broadcast.tracks.get(name)
            if source is None or like is None or len(self._fetches) >= self._limits.max_relayed_fetches:
                return None
            fetch = self._fetches[key] = GroupFetch(self.path, like, sequence, self._limits, self._fetch_ended)
            state_of(fetch.track).share_cache(self._pool)
            fetch.begin(source)
        return fetch.track

    def _fetch_ended(self, fetch: GroupFetch) -> None:
        self._fetches.pop((fetch.track.name, fetch.sequence), None)

    def _request_ended(self, request: TrackRequest) -> None:
        self._requests.pop(request.track, None)
        pull = self._pulls.get(request.track)
        if pull is not None and pull.track is None:
            # No one waits for it any more.
            del self._pulls[request.track]
            pull.cancel()

    def _make_track(self, name: str, properties: TrackProperties | None) -> Track:
        if properties is None:
            track = self.broadcast.track(name, max_age=self._cache_age)
        else:
            track = self.broadcast.track(
                name,
                priority=properties.priority,
                max_age=max(properties.max_age, self._cache_age),
                timescale=properties.timescale,
                properties=properties.properties,
            )
        state_of(track).share_cache(self._pool)
        return track

    def _pull_ended(self, pull: Pull, error: Exception | None) -> None:
        """Called when a source has no more of a track: go on with the next one, or end the track."""
        if error is not None:
            assert pull.source is not None
            if isinstance(error, NotFound):
                pull.refused.append(pull.source)
            elif error is not MOVED:
                # The others may have it again.
                pull.refused.clear()
                pull.tried.append(pull.source)
            after = self._best_for(pull)
            if after is not None:
                pull.begin(after)
                return
            logger.debug("track %s of %s: %s", printable(pull.name), self.path, error)
        if self._pulls.get(pull.name) is pull:
            del self._pulls[pull.name]
        pull.end(error)
        if error is not None and pull.track is not None and self.broadcast.tracks.get(pull.name) is pull.track:
            # A request for it asks the sources again; a track that ended cleanly stays for those who come late.
            self.broadcast.remove(pull.name)

    def _best_for(self, pull: Pull) -> PullSource | None:
        return next(
            (source for source in self._sources() if source not in pull.tried and source not in pull.refused), None
        )

    def reconsider(self) -> None:
        """Have the pulls go over to the best source, if they read from another one."""
        for pull in self.pulls:
            pull.reconsider()

    def source_lost(self, source: PullSource) -> None:
        """Have the pulls from a source go on elsewhere, where there is another one."""
        for pull in self.pulls:
            pull.forget(source)
        if any(other is not source for other in self._sources()):
            for pull in self.pulls:
                if pull.source is source:
                    pull.move()

    def retire(self) -> None:
        """Called when no source announces the broadcast any more: serve only the subscribers that there are."""
        self._sources = tuple
        for pull in self.pulls:
            pull.retire()

    def __repr__(self) -> str:
        return f"<Front {str(self.path)!r}, {len(self._pulls)} tracks>"
