"""SUBSCRIBE_NAMESPACE one way; REQUEST_OK, then NAMESPACE and NAMESPACE_DONE the other.

A namespace is a broadcast's path here. The drafts mark no end of the namespaces that there are at first: they come with
the acceptance, so a subscriber that got something of them has mostly got all.

A namespace with a field below the prefix that starts with a dot is hidden. It is left out, unless the request has the
parameter HIDDEN. That goes to peers alone whose SETUP had the option of this name: others would end the session.

Spec: draft-ietf-moq-transport-18, section 9.20; draft-lcurley-moq-hidden-00.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from ...codes import StreamCode
from ...errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from ...path import BroadcastPath
from ...wire.ietf.messages import (
    Answered,
    Goaway,
    NamespaceDone,
    NamespaceFound,
    NamespaceOptions,
    PublishBlocked,
    RequestError,
    RequestOk,
    RequestUpdate,
    SubscribeNamespace,
)
from ...wire.ietf.parameters import NONE, Parameters
from ...wire.messages import AnnounceRequest, Expect, Message
from ..events import (
    Announced,
    AnnouncementsEnded,
    AnnouncementsRequested,
    InitialAnnouncementsDone,
    RequestRefused,
    Unannounced,
)
from ..machine import RequestState
from ..paths import is_hidden, path_local
from .events import TracksRequested
from .machine import IetfRequester, IetfResponder, code_of_request, name_of, namespace_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...wire.ietf.names import Namespace
    from ..announce import Available
    from ..events import Event
    from .state import IetfState

PREFIX_OVERLAP: Final = 0x30
"""The code of REQUEST_ERROR for a list whose prefix covers that of another one, or is covered by it."""


def path_of(namespace: tuple[bytes, ...], session: IetfState) -> BroadcastPath | None:
    """Return a namespace as a path; None for one that no path can be: a field is empty, has a slash or is no UTF-8.

    Raises:
        LimitExceeded: It is too long or too deep; scope `"stream"`.
    """
    parts = [part for part in map(text_of, namespace) if part and "/" not in part]
    if len(parts) < len(namespace):
        return None
    if len(parts) > session.limits.max_path_parts:
        raise LimitExceeded("max_path_parts", len(parts), code=StreamCode.UNROUTABLE, scope="stream")
    size = sum(map(len, namespace)) + max(0, len(namespace) - 1)
    if size > session.limits.max_path:
        raise LimitExceeded("max_path", size, code=StreamCode.UNROUTABLE, scope="stream")
    return BroadcastPath(tuple(parts))


def _least_prefix(prefix: BroadcastPath) -> BroadcastPath:
    """Return the shortest prefix that serves a list: nothing, but for what is hidden, which has to be asked for."""
    hidden = max((count for count, part in enumerate(prefix.parts, 1) if part.startswith(".")), default=0)
    return BroadcastPath(prefix.parts[:hidden])


def blocked(session: IetfState, prefix: BroadcastPath, path: BroadcastPath, track: str) -> bytes:
    """Return PUBLISH_BLOCKED: a track below a prefix is not offered, as no stream is left for it."""
    suffix = namespace_of(prefix.suffix_of(path))
    return session.codec.encode(PublishBlocked(suffix, name_of(track)))


class ListResponder(IetfResponder):
    """The peer asks for what there is below a prefix, and for what comes.

    Attributes:
        prefix: The prefix; empty until the request arrived.
        overlaps: True for a request for tracks that has to be refused, as another one that is open has some of them,
            from draft 16 on. Before, each list of namespaces is one of tracks, too.
    """

    def __init__(self, session: IetfState) -> None:
        session.requests.take_untrusted()
        super().__init__(session)
        self.prefix = BroadcastPath()
        self.overlaps = False
        self._has_tracks = False
        self._hidden = False

    @property
    def shows_hidden(self) -> bool:
        """True when hidden paths are announced and offered, too: the peer asked for them, or the session shows them."""
        return self._hidden or self._session.shows_hidden

    def refusal(self, code: int) -> bytes:
        """Return REQUEST_ERROR, after which the stream is finished; b"" once the request was answered."""
        return self.refusal_of(PREFIX_OVERLAP) if self.overlaps else super().refusal(code)

    def _ask_tracks(self, prefix: BroadcastPath, *, forward: bool) -> TracksRequested:
        """Record that it is a request for tracks; return the event."""
        session = self._session
        if session.profile.namespaces != "control":
            self.overlaps = any(asked.covers(prefix) or prefix.covers(asked) for asked in session.tracks_asked)
            if not self.overlaps:
                self._has_tracks = True
                session.tracks_asked.add(prefix)
        return TracksRequested(prefix, forward)

    def _on_release(self) -> None:
        self._session.requests.give_back()
        if self._has_tracks:
            self._session.tracks_asked.remove(self.prefix)


class NamespaceResponder(ListResponder):
    """The peer asks for the namespaces below a prefix. Up to draft 15 they are announced by PUBLISH_NAMESPACE.

    Events: `AnnouncementsRequested`, `RequestCancelled`; `TracksRequested` too up to draft 15, and in 16 and 17 too, or
    instead, as the options say.
    """

    _first: ClassVar = Expect.ANNOUNCE_REQUEST
    _answers_to: ClassVar = Answered.SUBSCRIBE_NAMESPACE

    def __init__(self, session: IetfState) -> None:
        super().__init__(session)
        self._announced: set[BroadcastPath] = set()

    def accept(self, active: Iterable[Available] = ()) -> bytes:
        """Return REQUEST_OK, and a NAMESPACE for each path where the draft has that."""
        if self._over:
            return b""
        if self._state is not RequestState.PENDING:
            raise LocalProtocolError("there is no namespace subscription to accept")
        self._state = RequestState.ACCEPTED
        parts = [self._encode_ok(self._request_id)]
        parts += [self.announce(path, hops, warm, cold) for path, hops, warm, cold in active]
        return b"".join(parts)

    def announce(self, path: BroadcastPath | str, hops: tuple[int, ...] = (), warm: int = 0, cold: int = 0) -> bytes:
        """Return NAMESPACE; b"" for one that was announced before, a hidden one, and up to draft 15.

        Raises:
            LocalProtocolError: The request is not accepted yet, or the path is outside the prefix.
        """
        full = self._inside(path)
        suffix = self.prefix.suffix_of(full)
        hidden = is_hidden(suffix.parts) and not self.shows_hidden
        if self._over or self.by_requests or full in self._announced or hidden:
            return b""
        self._announced.add(full)
        return self._session.codec.encode(NamespaceFound(namespace_of(suffix)))

    def unannounce(self, path: BroadcastPath | str) -> bytes:
        """Return NAMESPACE_DONE; b"" for a path that was not announced."""
        full = self._inside(path)
        if self._over or full not in self._announced:
            return b""
        self._announced.discard(full)
        return self._session.codec.encode(NamespaceDone(namespace_of(self.prefix.suffix_of(full))))

    def blocked(self, path: BroadcastPath, track: str) -> bytes:
        """Return PUBLISH_BLOCKED for a track below the prefix (17)."""
        return b"" if self._over else blocked(self._session, self.prefix, path, track)

    @property
    def own_stream(self) -> bool:
        return self._session.profile.namespaces != "control"

    @property
    def by_requests(self) -> bool:
        """True where this side announces each path by a request of its own: PUBLISH_NAMESPACE (up to draft 15)."""
        return self._session.profile.namespaces == "control"

    def _inside(self, path: BroadcastPath | str) -> BroadcastPath:
        if not (self._over or self._state is RequestState.ACCEPTED):
            raise LocalProtocolError("the namespace subscription is not accepted yet")
        full = path_local(path, self._session.limits)
        if not self.prefix.covers(full):
            raise LocalProtocolError(f"{full!r} is not below the prefix {self.prefix!r}")
        return full

    def _on_message(self, message: Message, events: list[Event]) -> None:
        session = self._session
        if isinstance(message, SubscribeNamespace) and self._state is RequestState.WAITING:
            self._begin_untrusted(message.request_id)
            self._state = RequestState.PENDING
            self._expect = Expect.ANNOUNCE_REPLY
            path = path_of(message.prefix, session)
            if path is None:
                problem = "a prefix that no path has"
                raise RemoteProtocolError(problem, code=StreamCode.UNROUTABLE, scope="stream")
            self.prefix = path
            if message.parameters.hidden not in (None, 0, 1):
                raise self._broken(f"HIDDEN {message.parameters.hidden} where 0 or 1 is due")
            self._hidden = message.parameters.hidden == 1
            if message.options is not NamespaceOptions.TRACKS:
                events.append(AnnouncementsRequested(path, AnnounceRequest(str(path))))
            if self.by_requests:
                events.append(self._ask_tracks(path, forward=False))
            elif message.options not in (None, NamespaceOptions.NAMESPACES):
                events.append(self._ask_tracks(path, forward=message.parameters.forward is not False))
        elif isinstance(message, RequestUpdate):
            # Another prefix would be another list: the peer asks again.
            self._admit_untrusted(message.request_id)
            session.requests_of_peer.end()
            raise RemoteProtocolError("an update of a list", code=StreamCode.INTERNAL_ERROR, scope="stream")
        elif not isinstance(message, Goaway):
            raise self._broken(f"{type(message).__name__} behind the request")

    def _on_release(self) -> None:
        super()._on_release()
        if self._request_id >= 0 and self._session.profile.namespaces == "stream":
            self._session.requests_of_peer.end()


class NamespaceRequester(IetfRequester):
    """We ask for the namespaces below a prefix.

    Events: `Announced`, `Unannounced`, `InitialAnnouncementsDone`, then `AnnouncementsEnded` or `RequestRefused`. Up to
    draft 15 the peer announces by requests of its own.

    Attributes:
        asked_before: True where the peer was asked for what is below the prefix already. In draft 14 such a request
            is never ended, so one for everything serves every list of the session.
    """

    _first: ClassVar = Expect.ANNOUNCE_FIRST_REPLY

    def __init__(self, session: IetfState, prefix: BroadcastPath | str, *, hidden: bool = False) -> None:
        super().__init__(session)
        self._prefix = path_local(prefix, session.limits)
        options = NamespaceOptions.NAMESPACES if session.profile.namespaces == "stream" else None
        self._asked = namespace_of(_least_prefix(self._prefix) if session.profile.fixed_fields else self._prefix)
        self._ask(SubscribeNamespace(0, self._asked, options, Parameters(hidden=1) if hidden else NONE))
        self._accepted = False
        self.asked_before = self._asked in session.asked_for_good
        self._active: set[BroadcastPath] = set()

    @property
    def own_stream(self) -> bool:
        return self._session.profile.namespaces != "control"

    @property
    def asked(self) -> Namespace:
        """The prefix that the peer is asked for; in draft 14 a shorter one than that of the list."""
        return self._asked

    @property
    def answered_before(self) -> bool:
        """True where the peer has accepted the request that serves this list, too."""
        return self._session.asked_for_good.get(self._asked, False)

    def _on_made(self, request_id: int) -> None:
        if self._session.profile.fixed_fields:
            self._session.asked_for_good.setdefault(self._asked, False)

    def _on_message(self, message: Message, events: list[Event]) -> None:
        match message:
            case RequestOk() if not self._accepted:
                self._accepted = True
                events.append(InitialAnnouncementsDone())
            case RequestError() if not self._accepted:
                self._closed = True
                events.append(RequestRefused(code_of_request(message.code, self._session.profile)))
            case NamespaceFound() if self._accepted:
                self._found(message, events)
            case NamespaceDone() if self._accepted:
                path = self._path(message.suffix)
                if path is not None and path in self._active:
                    self._active.discard(path)
                    events.append(Unannounced(path))
            case Goaway():
                pass
            case _:
                raise self._broken(f"{type(message).__name__} as a reply")

    def _found(self, message: NamespaceFound, events: list[Event]) -> None:
        path = self._path(message.suffix)
        if path is None or path in self._active:
            return
        limits = self._session.limits
        if len(self._active) >= limits.max_announcements:
            raise LimitExceeded("max_announcements", len(self._active) + 1, code=StreamCode.NO_CAPACITY, scope="stream")
        self._active.add(path)
        events.append(Announced(path))

    def _path(self, suffix: tuple[bytes, ...]) -> BroadcastPath | None:
        return path_of((*namespace_of(self._prefix), *suffix), self._session)

    def _on_fin(self, events: list[Event]) -> None:
        events.append(AnnouncementsEnded())

    def _on_reset(self, code: int) -> list[Event]:
        return [RequestRefused(code)]
