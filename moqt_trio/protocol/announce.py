"""The announce stream: a prefix one way, the broadcasts below it the other.

The four forms of the replies differ in what opens them, in how an end names its announcement and in which side adds
the sender's hop. `Features` says which, and the events are the same.

The responder is a `Responder` (`machine.py`): WAITING, PENDING, then ACCEPTED until the peer cancels. It withholds an
announcement that the peer may not see, and keeps it in `_active` without an ordinal: so the caller announces and
unannounces every path in the same way, and a route that becomes fit for the peer is a start.

The requester follows the initial set, the announcements that were active before it asked:

    state      | the replies open | a start              | "live"   | versions that begin here
    -----------|------------------|----------------------|----------|------------------------------------
    NOT_OPENED | ARRIVING         | –                    | –        | with an opening message: 01, 02, 05, 06
    ARRIVING   | –                | the last one: COMPLETE | COMPLETE | that announce "live": before moq-lite
    COMPLETE   | –                | COMPLETE             | COMPLETE | that do not say: 03, 04

An opening message that counts no announcement completes the set at once. `InitialAnnouncementsDone` is the step to
COMPLETE. Its invariant: `_by_path` holds the announcements that were started and not ended, each with the bytes that
it counts for in `_bytes`; with ids, `_by_ordinal` names the same ones.

Spec: draft-lcurley-moq-lite-06, section 7 (ANNOUNCE_REQUEST and its replies).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

import attrs

from ..codes import SessionCode, StreamCode
from ..errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from ..path import BroadcastPath
from ..wire.messages import (
    AnnounceEnd,
    AnnounceInit,
    AnnounceLive,
    AnnounceOk,
    AnnounceRequest,
    AnnounceStart,
    AnnounceUpdate,
    Expect,
    Message,
    StreamKind,
)
from .announced_tracks import AnnouncedTracks, FullPathQuirk
from .events import (
    Announced,
    AnnouncementsEnded,
    AnnouncementsRequested,
    Event,
    InitialAnnouncementsDone,
    RequestRefused,
    Unannounced,
)
from .machine import CountedResponder, MessageMachine, RequestState
from .paths import format_prefix, is_hidden, joined_untrusted, path_local, path_untrusted

if TYPE_CHECKING:
    from .state import SessionState

Available: TypeAlias = tuple[BroadcastPath | str, tuple[int, ...], int, int]
"""A broadcast of this side: path, hops up to this side without its own, warm cost, cold cost."""


class AnnounceResponder(CountedResponder):
    """The peer requests the announcements below a prefix.

    Events: `AnnouncementsRequested`, `RequestCancelled`.

    Three kinds of paths are withheld: those that passed the peer, an excluded hop or this side itself, those whose
    hops are more than `Limits.max_hops`, and hidden ones, with a part below the prefix that starts with a dot, unless
    the session shows them. The caller announces and unannounces them like the others, and gets b"".

    Where the version announces tracks (`Features.announce_tracks`), every path here is that of a track:
    `paths.track_path_local` makes it.

    Attributes:
        prefix: The prefix; empty until the request arrived.
    """

    _first = Expect.ANNOUNCE_REQUEST

    def __init__(self, session: SessionState) -> None:
        super().__init__(session)
        self.prefix = BroadcastPath()
        self._exclude_hop = 0
        self._next_ordinal = 0
        # By full path: the announcement's ordinal on this stream, or None for one that is withheld from the peer.
        self._active: dict[BroadcastPath, int | None] = {}
        # The hops that were sent last, where an announcement says nothing else of a route.
        self._hops: dict[BroadcastPath, tuple[int, ...]] = {}

    @property
    def shows_hidden(self) -> bool:
        """True when hidden paths are announced, too; no version of moq-lite has words for the peer to ask for them."""
        return self._session.shows_hidden

    def accept(self, active: Iterable[Available] = ()) -> bytes:
        """Return what opens the replies: the version's opening message, and everything that is available now.

        Raises:
            LocalProtocolError: There is no request yet, it was accepted before, a path is outside the prefix, or the
                same path is there twice.
        """
        if self._state is RequestState.WAITING:
            raise LocalProtocolError("there is no announce request to answer yet")
        if self._state is RequestState.ACCEPTED:
            raise LocalProtocolError("the announce request was answered before")
        found: dict[BroadcastPath, int | None] = {}
        starts: list[AnnounceStart] = []
        for path, hops, warm, cold in active:
            full = self._inside(path)
            if full in found:
                raise LocalProtocolError(f"{full} is available twice")
            start = self._start(full, hops, warm, cold)
            found[full] = None if start is None else len(starts)
            if start is not None:
                starts.append(start)
        data = self._encode_initial(starts)
        if self._over:
            return b""
        self._state = RequestState.ACCEPTED
        self._active = found
        self._next_ordinal = len(starts)
        for full, ordinal in found.items():
            if ordinal is not None:
                self._note_hops(full, starts[ordinal])
        return data

    def announce(self, path: BroadcastPath | str, hops: tuple[int, ...] = (), warm: int = 0, cold: int = 0) -> bytes:
        """Return the message that announces a path, or updates its announcement; b"" when there is nothing to say.

        Args:
            path: The full path, below the prefix.
            hops: Hop ids from the origin to this side, without its own.
            warm: What subscribing costs; carried in moq-lite-06.
            cold: The same without any discount for a cached copy; carried in moq-lite-06.

        Raises:
            LocalProtocolError: The request is not accepted yet, or the path is outside the prefix.
        """
        full = self._announceable(path)
        if self._over:
            return b""
        start = self._start(full, hops, warm, cold)
        ordinal = self._active.get(full)
        if start is None:
            self._active[full] = None
            return b"" if ordinal is None else self._encode_end(full, ordinal)
        if ordinal is not None:
            return self._encode_again(full, ordinal, start)
        data = self._session.dialect.encode(start)
        self._active[full] = self._next_ordinal
        self._next_ordinal += 1
        self._note_hops(full, start)
        return data

    def unannounce(self, path: BroadcastPath | str) -> bytes:
        """Return the message that ends an announcement; b"" for one that was withheld.

        Raises:
            LocalProtocolError: The path is not announced.
        """
        full = self._announceable(path)
        if self._over:
            return b""
        if full not in self._active:
            raise LocalProtocolError(f"{full} is not announced")
        ordinal = self._active.pop(full)
        self._hops.pop(full, None)
        return b"" if ordinal is None else self._encode_end(full, ordinal)

    def _announceable(self, path: BroadcastPath | str) -> BroadcastPath:
        if self._state in (RequestState.WAITING, RequestState.PENDING):
            raise LocalProtocolError("the announce request is not accepted")
        return self._inside(path)

    def _inside(self, path: BroadcastPath | str) -> BroadcastPath:
        full = path_local(path, self._session.limits)
        if not self.prefix.covers(full):
            raise LocalProtocolError(f"{full!r} is not below the prefix {self.prefix!r}")
        return full

    def _start(self, full: BroadcastPath, hops: tuple[int, ...], warm: int, cold: int) -> AnnounceStart | None:
        """Return the message that announces a path, or None for a path that is withheld."""
        suffix = self.prefix.suffix_of(full)
        session = self._session
        segments = suffix.parts
        if session.dialect.features.announce_tracks:
            if not full.parts:
                raise LocalProtocolError("a track's path has at least one part, its name")
            # A track's name is no part of the broadcast's path: a dot at its start does not hide it.
            segments = segments[:-1]
        if is_hidden(segments) and not self.shows_hidden:
            return None
        # A peer among the hops has the broadcast by a shorter route: sending it back would make a loop.
        peer_hop = session.peer_setup.hop_id if session.peer_setup is not None else 0
        if any(hop and hop in hops for hop in (self._exclude_hop, peer_hop, session.hop_id)):
            return None
        if session.dialect.features.sender_hop in ("sender", "count"):
            hops = (*hops, session.hop_id)
        if len(hops) > session.limits.max_hops:
            return None
        return AnnounceStart(str(suffix), hops, warm, cold)

    def _encode_initial(self, starts: list[AnnounceStart]) -> bytes:
        dialect = self._session.dialect
        first = dialect.features.announce_first
        if first == "init":
            return dialect.encode(AnnounceInit(tuple(start.suffix for start in starts)))
        data = b"".join(map(dialect.encode, starts))
        if dialect.features.announce_live:
            data += dialect.encode(AnnounceLive())
        if first == "ok":
            data = dialect.encode(AnnounceOk(self._session.hop_id, len(starts))) + data
        return data

    def _encode_end(self, full: BroadcastPath, ordinal: int) -> bytes:
        if self._session.dialect.features.announce_ids:
            return self._session.dialect.encode(AnnounceEnd(announce_id=ordinal))
        return self._session.dialect.encode(AnnounceEnd(suffix=str(self.prefix.suffix_of(full))))

    def _encode_again(self, full: BroadcastPath, ordinal: int, start: AnnounceStart) -> bytes:
        """Return the message that updates an active announcement; b"" when the version says nothing of the change."""
        dialect = self._session.dialect
        if dialect.features.announce_ids:
            return dialect.encode(AnnounceUpdate(ordinal, start.hops, start.warm_cost, start.cold_cost))
        if not self._note_hops(full, start):
            return b""
        if dialect.features.announce_first == "ok":
            # moq-lite-05: a second start for an active path is a restart.
            return dialect.encode(start)
        return self._encode_end(full, ordinal) + dialect.encode(start)

    def _note_hops(self, full: BroadcastPath, start: AnnounceStart) -> bool:
        """Record what an announcement says of the hops; return whether that is a change."""
        features = self._session.dialect.features
        if features.announce_ids or features.sender_hop == "none":
            return False
        hops = (0,) * len(start.hops) if features.sender_hop == "count" else start.hops
        changed = self._hops.get(full) != hops
        self._hops[full] = hops
        return changed

    def _on_message(self, message: Message, events: list[Event]) -> None:
        assert isinstance(message, AnnounceRequest)
        self.prefix = path_untrusted(message.prefix, self._session.limits)
        self._exclude_hop = message.exclude_hop
        self._state = RequestState.PENDING
        self._expect = None
        events.append(AnnouncementsRequested(self.prefix, message))

    def _on_release(self) -> None:
        self._active.clear()
        self._hops.clear()
        super()._on_release()


@attrs.define(eq=False)
class _Route:
    """One announcement of the peer's that has not ended.

    Attributes:
        path: The full path.
        shown: True when the caller has seen it; False when it came back to us in a loop.
        is_full_path: True when the suffix that announced it was taken for a full path.
    """

    path: BroadcastPath
    shown: bool
    is_full_path: bool = False


class InitialSet(enum.Enum):
    """How far the initial set of announcements has arrived; the table is at the head of this file."""

    NOT_OPENED = "not opened"
    ARRIVING = "arriving"
    COMPLETE = "complete"


class AnnounceRequester(MessageMachine):
    """We request the peer's announcements below a prefix.

    Events: `Announced`, `Unannounced`, `InitialAnnouncementsDone` where the version marks it, then `AnnouncementsEnded`
    (FIN) or `RequestRefused`. An announcement that passed this side's own hop is dropped without an event. Where the
    version announces tracks, `TrackAnnounced` and `TrackUnannounced` are about each track, the others about broadcasts.

    Attributes:
        prefix: The prefix.
    """

    def __init__(self, session: SessionState, prefix: BroadcastPath | str) -> None:
        features = session.dialect.features
        opened = features.announce_first == "none"
        super().__init__(session, Expect.ANNOUNCE_REPLY if opened else Expect.ANNOUNCE_FIRST_REPLY)
        self.prefix = path_local(prefix, session.limits)
        request = AnnounceRequest(
            format_prefix(self.prefix, session.dialect), session.hop_id if features.exclude_hop else 0
        )
        self.opening = session.dialect.stream_type(StreamKind.ANNOUNCE) + session.dialect.encode(request)
        self._with_ids = features.announce_ids
        self._may_restart = features.announce_first == "ok" and not features.announce_ids
        self._tracks = AnnouncedTracks() if features.announce_tracks else None
        self._full_paths = FullPathQuirk(self.prefix, possible=session.dialect.quirks.announce_full_paths)
        if not opened:
            self._state = InitialSet.NOT_OPENED
        elif features.announce_live:
            self._state = InitialSet.ARRIVING
        else:
            self._state = InitialSet.COMPLETE
        self._sender_hop: tuple[int, ...] = ()
        self._initial_left = 0
        self._next_ordinal = 0
        self._by_path: dict[BroadcastPath, _Route] = {}
        self._by_ordinal: dict[int, _Route] = {}
        self._bytes = 0

    def _on_message(self, message: Message, events: list[Event]) -> None:
        match message:
            case AnnounceStart():
                self._on_start(message, events)
            case AnnounceEnd():
                self._on_end(message, events)
            case AnnounceUpdate():
                self._on_update(message, events)
            case AnnounceOk():
                self._sender_hop = (message.hop_id,)
                self._open(message.active_count, events)
            case AnnounceLive():
                if self._tracks is not None and message.suffix_written and self._full_paths.disprove():
                    self._read_again(self._tracks, events)
                # The draft does not forbid a second one; it has no effect.
                if self._state is InitialSet.ARRIVING:
                    self._complete(events)
            case AnnounceInit():
                self._open(len(message.suffixes), events)
                for suffix in message.suffixes:
                    self._on_start(AnnounceStart(suffix), events)
            case _:
                raise self._broken(f"{type(message).__name__} as a reply")

    def _open(self, initial_count: int, events: list[Event]) -> None:
        """Handle the message that opens the replies and has the number of announcements in the initial set."""
        self._expect = Expect.ANNOUNCE_REPLY
        self._state = InitialSet.ARRIVING
        self._initial_left = initial_count
        if not initial_count:
            self._complete(events)

    def _complete(self, events: list[Event]) -> None:
        self._state = InitialSet.COMPLETE
        events.append(InitialAnnouncementsDone())

    def _on_track(self, message: AnnounceStart, tracks: AnnouncedTracks, events: list[Event]) -> None:
        limits = self._session.limits
        suffix = path_untrusted(message.suffix, limits)
        if self._full_paths.is_disproved_by(suffix):
            self._read_again(tracks, events)
        is_full_path = self._full_paths.is_full_path(suffix)
        path = suffix if is_full_path else joined_untrusted(self.prefix, suffix, limits)
        if not path.parts:
            raise self._broken("an announcement of a track without a name")
        if path in self._by_path:
            raise self._announced_twice()
        self._remember(_Route(path, True, is_full_path))
        tracks.start(path, events, initial=self._state is InitialSet.ARRIVING)

    def _read_again(self, tracks: AnnouncedTracks, events: list[Event]) -> None:
        """Undo the announcements of suffixes that were taken for full paths, and announce the right paths."""
        routes = [route for route in self._by_path.values() if route.is_full_path]
        # First undo all of them: the right path of one may be the wrong path of another.
        for route in routes:
            self._remove(route)
            tracks.end(route.path, events)
        for route in routes:
            path = joined_untrusted(self.prefix, route.path, self._session.limits)
            self._remember(_Route(path, True))
            tracks.start(path, events, initial=self._state is InitialSet.ARRIVING)

    def _on_track_end(self, suffix_text: str, tracks: AnnouncedTracks, events: list[Event]) -> None:
        limits = self._session.limits
        suffix = path_untrusted(suffix_text, limits)
        path = suffix if self._full_paths.is_full_path(suffix) else joined_untrusted(self.prefix, suffix, limits)
        route = self._by_path.get(path)
        if route is not None:
            self._remove(route)
            tracks.end(path, events)

    def _on_start(self, message: AnnounceStart, events: list[Event]) -> None:
        if self._tracks is not None:
            self._on_track(message, self._tracks, events)
            return
        path = path_untrusted(message.suffix, self._session.limits, self.prefix)
        hops = message.hops + self._sender_hop
        shown = not self._looped(hops)
        route = self._by_path.get(path)
        if route is not None:
            if not self._may_restart:
                raise self._announced_twice()
            if shown:
                events.append(self._announced(path, hops, message, updated=True))
            else:
                self._remove(route)
                events.append(Unannounced(path))
            return
        initial = self._state is InitialSet.ARRIVING
        if shown or self._with_ids:
            self._remember(_Route(path, shown))
        if shown:
            events.append(self._announced(path, hops, message, initial=initial))
        if initial:
            self._initial_left -= 1
            if not self._initial_left:
                self._complete(events)

    def _on_update(self, message: AnnounceUpdate, events: list[Event]) -> None:
        route = self._by_ordinal.get(message.announce_id)
        if route is None:
            raise self._unknown(message.announce_id)
        hops = message.hops + self._sender_hop
        was_shown, route.shown = route.shown, not self._looped(hops)
        if route.shown:
            events.append(self._announced(route.path, hops, message, updated=was_shown))
        elif was_shown:
            events.append(Unannounced(route.path))

    def _on_end(self, message: AnnounceEnd, events: list[Event]) -> None:
        if message.announce_id is not None:
            route = self._by_ordinal.pop(message.announce_id, None)
            if route is None:
                raise self._unknown(message.announce_id)
        elif self._tracks is not None:
            self._on_track_end(message.suffix or "", self._tracks, events)
            return
        else:
            path = path_untrusted(message.suffix or "", self._session.limits, self.prefix)
            route = self._by_path.get(path)
            if route is None:
                # The end of something that was dropped as a loop, here or by the sender.
                return
        self._remove(route)
        if route.shown:
            events.append(Unannounced(route.path))

    def _looped(self, hops: tuple[int, ...]) -> bool:
        return self._session.hop_id != 0 and self._session.hop_id in hops

    def _announced(
        self,
        path: BroadcastPath,
        hops: tuple[int, ...],
        message: AnnounceStart | AnnounceUpdate,
        *,
        initial: bool = False,
        updated: bool = False,
    ) -> Announced:
        return Announced(path, hops, message.warm_cost, message.cold_cost, initial, updated)

    def _remember(self, route: _Route) -> None:
        limits = self._session.limits
        count = len(self._by_path) + 1
        if count > limits.max_announcements:
            raise LimitExceeded("max_announcements", count, code=StreamCode.NO_CAPACITY, scope="stream")
        size = self._bytes + len(str(route.path).encode())
        if size > limits.max_announcement_bytes:
            raise LimitExceeded("max_announcement_bytes", size, code=StreamCode.NO_CAPACITY, scope="stream")
        self._bytes = size
        self._by_path[route.path] = route
        if self._with_ids:
            self._by_ordinal[self._next_ordinal] = route
            self._next_ordinal += 1

    def _remove(self, route: _Route) -> None:
        del self._by_path[route.path]
        self._bytes -= len(str(route.path).encode())

    def _announced_twice(self) -> RemoteProtocolError:
        code = self._session.dialect.codes.duplicates.get("announce", StreamCode.INTERNAL_ERROR)
        return RemoteProtocolError("an announcement of what is announced already", code=code, scope="stream")

    def _unknown(self, announce_id: int) -> RemoteProtocolError:
        return RemoteProtocolError(f"no announcement has the id {announce_id}", code=SessionCode.PROTOCOL_VIOLATION)

    def _on_fin(self, events: list[Event]) -> None:
        events.append(AnnouncementsEnded())

    def _on_reset(self, code: int) -> list[Event]:
        return [RequestRefused(code)]

    def _on_release(self) -> None:
        self._by_path.clear()
        self._by_ordinal.clear()
