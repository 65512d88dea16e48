"""SUBSCRIBE_NAMESPACE one way; REQUEST_OK, then NAMESPACE and NAMESPACE_DONE the other.

A namespace is a broadcast's path here. The drafts mark no end of the namespaces that there are at first: they come with
the acceptance, so a subscriber that got something of them has mostly got all.

Spec: draft-ietf-moq-transport-18, section 9.20.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ...codes import StreamCode
from ...errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from ...path import BroadcastPath
from ...wire.ietf.messages import (
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
from ...wire.messages import AnnounceRequest, Expect, Message
from ..events import (
    Announced,
    AnnouncementsEnded,
    AnnouncementsRequested,
    InitialAnnouncementsDone,
    RequestRefused,
    TracksRequested,
    Unannounced,
)
from ..machine import RequestState
from ..paths import path_local
from .machine import IetfMachine, IetfResponder, code_of_request, name_of, namespace_of, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..announce import Available
    from ..events import Event
    from .state import IetfState


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


def blocked(session: IetfState, prefix: BroadcastPath, path: BroadcastPath, track: str) -> bytes:
    """Return PUBLISH_BLOCKED: a track below a prefix is not offered, as no stream is left for it."""
    suffix = namespace_of(prefix.suffix_of(path))
    return session.codec.encode(PublishBlocked(suffix, name_of(track)))


class NamespaceResponder(IetfResponder):
    """The peer asks for the namespaces below a prefix.

    Events: `AnnouncementsRequested`, `RequestCancelled`; in draft 17 `TracksRequested` too, or instead, as the options
    say.

    Attributes:
        prefix: The prefix; empty until the request arrived.
    """

    _first: ClassVar = Expect.ANNOUNCE_REQUEST

    def __init__(self, session: IetfState) -> None:
        session.requests.take_untrusted()
        super().__init__(session)
        self.prefix = BroadcastPath()
        self._announced: set[BroadcastPath] = set()

    def accept(self, active: Iterable[Available] = ()) -> bytes:
        """Return REQUEST_OK, and a NAMESPACE for each path."""
        if self._over:
            return b""
        if self._state is not RequestState.PENDING:
            raise LocalProtocolError("there is no namespace subscription to accept")
        self._state = RequestState.ACCEPTED
        parts = [self._session.codec.encode(RequestOk(None))]
        parts += [self.announce(path, hops, warm, cold) for path, hops, warm, cold in active]
        return b"".join(parts)

    def announce(self, path: BroadcastPath | str, hops: tuple[int, ...] = (), warm: int = 0, cold: int = 0) -> bytes:
        """Return NAMESPACE; b"" for a path that was announced before, and for a hidden one.

        Raises:
            LocalProtocolError: The request is not accepted yet, or the path is outside the prefix.
        """
        full = self._inside(path)
        suffix = self.prefix.suffix_of(full)
        if self._over or full in self._announced or any(part.startswith(".") for part in suffix.parts):
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
        """Return PUBLISH_BLOCKED for a track below the prefix."""
        return b"" if self._over else blocked(self._session, self.prefix, path, track)

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
            session.requests_of_peer.check_untrusted(message.request_id)
            self._state = RequestState.PENDING
            self._expect = Expect.ANNOUNCE_REPLY
            path = path_of(message.prefix, session)
            if path is None:
                problem = "a prefix that no path has"
                raise RemoteProtocolError(problem, code=StreamCode.UNROUTABLE, scope="stream")
            self.prefix = path
            if message.options is not NamespaceOptions.TRACKS:
                events.append(AnnouncementsRequested(path, AnnounceRequest(str(path))))
            if message.options not in (None, NamespaceOptions.NAMESPACES):
                events.append(TracksRequested(path, message.parameters.forward is not False))
        elif isinstance(message, RequestUpdate):
            # Another prefix would be another list: the peer asks again.
            session.requests_of_peer.check_untrusted(message.request_id)
            raise RemoteProtocolError("an update of a list", code=StreamCode.INTERNAL_ERROR, scope="stream")
        elif not isinstance(message, Goaway):
            raise self._broken(f"{type(message).__name__} behind the request")

    def _on_release(self) -> None:
        self._session.requests.give_back()


class NamespaceRequester(IetfMachine):
    """We ask for the namespaces below a prefix.

    Events: `Announced`, `Unannounced`, `InitialAnnouncementsDone`, then `AnnouncementsEnded` or `RequestRefused`.
    """

    _first: ClassVar = Expect.ANNOUNCE_FIRST_REPLY

    def __init__(self, session: IetfState, prefix: BroadcastPath | str) -> None:
        super().__init__(session)
        self._prefix = path_local(prefix, session.limits)
        options = NamespaceOptions.NAMESPACES if session.profile.namespaces == "stream" else None
        request = SubscribeNamespace(session.next_request_id(), namespace_of(self._prefix), options)
        self.opening = session.codec.encode(request)
        self._accepted = False
        self._active: set[BroadcastPath] = set()

    def _on_message(self, message: Message, events: list[Event]) -> None:
        match message:
            case RequestOk() if not self._accepted:
                self._accepted = True
                events.append(InitialAnnouncementsDone())
            case RequestError() if not self._accepted:
                self._closed = True
                events.append(RequestRefused(code_of_request(message.code)))
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
