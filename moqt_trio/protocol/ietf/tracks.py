"""SUBSCRIBE_TRACKS one way; REQUEST_OK the other, then PUBLISH for each track, on a stream of its own (`publish.py`).

In draft 17 it is SUBSCRIBE_NAMESPACE with options that ask for tracks; there `namespaces.py` has the responder.

Spec: draft-ietf-moq-transport-18, section 9.21.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ...codes import StreamCode
from ...errors import LocalProtocolError, RemoteProtocolError
from ...wire.ietf import messages as ietf
from ...wire.ietf.parameters import Parameters
from ...wire.messages import Expect, Message
from ..events import Event, RequestRefused
from ..machine import RequestState
from ..paths import path_local
from .events import TrackBlocked
from .machine import NOT_SUPPORTED, IetfRequester, code_of_request, namespace_of, text_of
from .namespaces import PREFIX_OVERLAP, ListResponder, blocked, path_of

if TYPE_CHECKING:
    from ...path import BroadcastPath
    from .state import IetfState

_OVERLAP_14 = 0x5


class TracksResponder(ListResponder):
    """The peer asks for the tracks below a prefix.

    Events: `TracksRequested`, `RequestCancelled`.
    """

    _first: ClassVar = Expect.ANNOUNCE_REQUEST

    def accept(self) -> bytes:
        """Return REQUEST_OK."""
        if self._over:
            return b""
        if self._state is not RequestState.PENDING:
            raise LocalProtocolError("there is no request to accept")
        self._state = RequestState.ACCEPTED
        return self._encode_ok(self._request_id)

    def blocked(self, path: BroadcastPath, track: str) -> bytes:
        """Return PUBLISH_BLOCKED for a track below the prefix."""
        return b"" if self._over else blocked(self._session, self.prefix, path, track)

    def _on_message(self, message: Message, events: list[Event]) -> None:
        session = self._session
        if isinstance(message, ietf.SubscribeTracks) and self._state is RequestState.WAITING:
            self._begin_untrusted(message.request_id)
            self._state = RequestState.PENDING
            path = path_of(message.prefix, session)
            if path is None:
                raise RemoteProtocolError("a prefix that no path has", code=StreamCode.UNROUTABLE, scope="stream")
            self.prefix = path
            events.append(self._ask_tracks(path, forward=message.parameters.forward is not False))
        elif isinstance(message, ietf.RequestUpdate) and self._state is not RequestState.WAITING:
            # As for namespaces: the peer asks again.
            self._admit_untrusted(message.request_id)
            raise RemoteProtocolError("an update of a list", code=StreamCode.INTERNAL_ERROR, scope="stream")
        elif not isinstance(message, ietf.Goaway):
            raise self._broken(f"{type(message).__name__} out of its place")


class TracksRequester(IetfRequester):
    """We ask for the tracks below a prefix, each of which is to sleep until it is wanted.

    Events: `TrackBlocked`, `RequestRefused`.

    Attributes:
        unsupported: True once the peer has refused as one that does not do this, or to which, up to draft 17, the list
            of announcements below this prefix was enough: both are asked for by one message there.
        overlaps: True once it has refused because of another request of ours, from draft 18 on.
    """

    _first: ClassVar = Expect.ANNOUNCE_FIRST_REPLY

    def __init__(self, session: IetfState, prefix: BroadcastPath | str) -> None:
        super().__init__(session)
        self.unsupported = self.overlaps = False
        self._prefix = path_local(prefix, session.limits)
        self._accepted = False
        namespace, asleep = namespace_of(self._prefix), Parameters(forward=False)
        request: ietf.SubscribeNamespace | ietf.SubscribeTracks
        if session.profile.namespaces == "split":
            request = ietf.SubscribeTracks(0, namespace, asleep)
        elif session.profile.namespaces == "stream":
            request = ietf.SubscribeNamespace(0, namespace, ietf.NamespaceOptions.TRACKS, asleep)
        else:
            request = ietf.SubscribeNamespace(0, namespace)
        self._ask(request)

    @property
    def own_stream(self) -> bool:
        return self._session.profile.namespaces != "control"

    def _on_message(self, message: Message, events: list[Event]) -> None:
        profile = self._session.profile
        match message:
            case ietf.RequestOk() if not self._accepted:
                self._accepted = True
            case ietf.RequestError() if not self._accepted:
                self._closed = True
                overlaps = message.code == _OVERLAP_14 if profile.fixed_fields else message.code == PREFIX_OVERLAP
                self.overlaps = overlaps and profile.namespaces == "split"
                self.unsupported = message.code == NOT_SUPPORTED or (overlaps and not self.overlaps)
                events.append(RequestRefused(code_of_request(message.code, self._session.profile)))
            case ietf.PublishBlocked() if self._accepted:
                path = path_of((*namespace_of(self._prefix), *message.suffix), self._session)
                name = text_of(message.name)
                if path is not None and name is not None:
                    events.append(TrackBlocked(path, name))
            case ietf.NamespaceFound() | ietf.NamespaceDone() if self._accepted and profile.namespaces == "stream":
                # moq-relay 0.17 answers a request for tracks as one for namespaces, which have a list of their own.
                pass
            case ietf.Goaway():
                pass
            case _:
                raise self._broken(f"{type(message).__name__} as a reply")

    def _on_fin(self, events: list[Event]) -> None:
        # What was offered stays, and so does what is offered unasked.
        pass

    def _on_reset(self, code: int) -> list[Event]:
        return [RequestRefused(code)]
