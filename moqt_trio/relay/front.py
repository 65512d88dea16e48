"""Front: one broadcast of one publisher as an origin serves it, from one copy, whatever the way on which it comes.

Theory of operation. Routes of one path with the same publisher lead to the same content: they have one front. Its
broadcast is announced to the peers; a request for a track of it that is not there begins a `Pull` from the best route
that has not refused it. In moq-transport what is announced is a prefix: a track may be asked for below the path. A
track that a source offers is there at once, and is read when it has a subscriber.

The front has no task. When a source is lost, withdraws the broadcast or has no such track, the pulls from it go on with
the next route; without one their tracks end as the source ended them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from ..errors import NotFound, printable
from ..loggers import Logger
from ..model.broadcast import Broadcast
from ..model.track import state_of
from ..model.track_requests import TrackRequest
from ..path import BroadcastPath
from .fetching import GroupFetch
from .pull import MOVED, Pull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..limits import Limits
    from ..model.pool import CachePool
    from ..model.track import Track
    from ..session.subscriber.track import TrackProperties
    from .pull import PullSource

logger = Logger(__name__)

_HERE: Final = BroadcastPath(())
"""The path of what is not below the broadcast's."""


class RelayedBroadcast(Broadcast):
    """A broadcast whose tracks are read from a source as they are asked for."""

    def __init__(
        self,
        limits: Limits,
        wanted: Callable[[BroadcastPath, str], Track | TrackRequest | None],
        fetched: Callable[[str, int], Track | None],
    ) -> None:
        super().__init__(limits=limits)
        self._wanted_track = wanted
        self._fetch_group = fetched

    def _fetch(self, name: str, sequence: int) -> Track | None:
        return self._fetch_group(name, sequence)

    def _request(self, below: BroadcastPath, name: str) -> Track | TrackRequest | None:
        return self._wanted_track(below, name)


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
        # Each by the path below the broadcast's, and the name.
        self._requests: dict[tuple[BroadcastPath, str], TrackRequest] = {}
        self._pulls: dict[tuple[BroadcastPath, str], Pull] = {}
        # What has tracks at a path below.
        self._below: dict[BroadcastPath, Broadcast] = {}
        self._fetches: dict[tuple[str, int], GroupFetch] = {}

    @property
    def pulls(self) -> tuple[Pull, ...]:
        """The tracks that are read from a source, or wait for a subscriber."""
        return tuple(self._pulls.values())

    @property
    def fetches(self) -> int:
        """How many groups are fetched now."""
        return len(self._fetches)

    def _wanted(self, below: BroadcastPath, name: str) -> Track | TrackRequest | None:
        """Return the request for a track that is not there; None when no source has it."""
        key = below, name
        known = self._pulls.get(key)
        if below.parts and known is not None and known.track is not None:
            # No list of the broadcast has it.
            return known.track
        request = self._requests.get(key)
        if request is not None:
            return request
        path = self.path.join(below)
        source = next((source for source in self._sources() if source.may_serve(path)), None)
        if source is None or not self._has_room(name):
            return None
        if known is not None:
            known.cancel()
        request = self._requests[key] = TrackRequest(below, name, self._request_ended)
        self._pull(key, request).begin(source)
        return request

    def offer(self, name: str, source: PullSource) -> None:
        """Called when a source offers a track: it is there before anyone asks for it."""
        key = _HERE, name
        if name in self.broadcast.tracks or key in self._pulls or not self._has_room(name):
            return
        pull = self._pull(key, None)
        pull.track = self._make_track(_HERE, name, None)
        pull.begin(source)

    def offer_ended(self, name: str) -> None:
        """Called when no source offers a track any more: it is gone, unless someone reads it."""
        pull = self._pulls.get((_HERE, name))
        if pull is not None and pull.track is not None and not pull.track.subscribers:
            del self._pulls[_HERE, name]
            pull.cancel()
            pull.end(None)
            self.broadcast.remove(name)

    def _has_room(self, name: str) -> bool:
        if len(self._pulls) < self._limits.max_relayed_tracks:
            return True
        logger.info("track %s of %s was refused: max_relayed_tracks", printable(name), printable(str(self.path)))
        return False

    def _pull(self, key: tuple[BroadcastPath, str], request: TrackRequest | None) -> Pull:
        below, name = key
        pull = self._pulls[key] = Pull(
            self.path.join(below),
            name,
            request,
            partial(self._make_track, below),
            partial(self._pull_ended, key),
            self._best_for,
            self._hold,
        )
        return pull

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
        """Called when nothing more of a fetched group comes: keep it for the next one who wants it."""
        key = fetch.track.name, fetch.sequence
        if self._fetches.get(key) is not fetch:
            return
        del self._fetches[key]
        track, group = self.broadcast.tracks.get(fetch.track.name), state_of(fetch.track).group(fetch.sequence)
        if track is not None and group is not None:
            state_of(track).keep_past(group)

    def _request_ended(self, request: TrackRequest) -> None:
        key = request.path, request.track
        self._requests.pop(key, None)
        pull = self._pulls.get(key)
        if pull is not None and pull.track is None:
            # No one waits for it any more.
            del self._pulls[key]
            pull.cancel()

    def _make_track(self, below: BroadcastPath, name: str, properties: TrackProperties | None) -> Track:
        broadcast = self.broadcast if not below.parts else self._below.setdefault(below, Broadcast(limits=self._limits))
        if properties is None:
            track = broadcast.track(name, max_age=self._cache_age)
        else:
            track = broadcast.track(
                name,
                priority=properties.priority,
                max_age=max(properties.max_age, self._cache_age),
                timescale=properties.timescale,
                properties=properties.properties,
            )
        state_of(track).share_cache(self._pool)
        return track

    def _pull_ended(self, key: tuple[BroadcastPath, str], pull: Pull, error: Exception | None) -> None:
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
        pull.end(error)
        if self._pulls.get(key) is pull:
            del self._pulls[key]
            self._forget_below(*key)
        if error is not None and pull.track is not None and self.broadcast.tracks.get(pull.name) is pull.track:
            # A request for it asks the sources again; a track that ended cleanly stays for those who come late.
            self.broadcast.remove(pull.name)

    def _forget_below(self, below: BroadcastPath, name: str) -> None:
        """Remove a track that has ended from what is below the path: no list has it that its age would clear."""
        broadcast = self._below.get(below)
        if broadcast is not None:
            if name in broadcast.tracks:
                broadcast.remove(name)
            if not broadcast.tracks:
                del self._below[below]

    def _best_for(self, pull: Pull) -> PullSource | None:
        return next(
            (
                source
                for source in self._sources()
                if source not in pull.tried and source not in pull.refused and source.may_serve(pull.path)
            ),
            None,
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
