"""PUBLISH_NAMESPACE one way: the sender has broadcasts below a namespace. REQUEST_OK the other.

The announcement lasts as long as its stream: RESET_STREAM and STOP_SENDING end it, and up to draft 18 a FIN, too. It is
one of the two ways in which a namespace becomes known; `namespaces.py` has the other.

Spec: draft-ietf-moq-transport-18, section 9.17.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ...codes import StreamCode
from ...errors import LocalProtocolError, RemoteProtocolError
from ...path import BroadcastPath
from ...wire.ietf.messages import Answered, Goaway, PublishNamespace, RequestError, RequestOk, RequestUpdate
from ...wire.messages import Expect, Message
from ..events import Announced, RequestRefused
from ..machine import RequestState
from .machine import IetfRequester, IetfResponder, code_of_request, namespace_of
from .namespaces import path_of

if TYPE_CHECKING:
    from ..events import Event
    from .state import IetfState


class PublishNamespaceResponder(IetfResponder):
    """The peer announces a namespace.

    Events: `Announced`, `RequestCancelled`.

    Attributes:
        path: The namespace; empty until the request arrived.
    """

    _first: ClassVar = Expect.ANNOUNCE_REQUEST
    _answers_to: ClassVar = Answered.PUBLISH_NAMESPACE

    def __init__(self, session: IetfState) -> None:
        session.announcements.take_untrusted()
        super().__init__(session)
        self.path = BroadcastPath()

    def accept(self) -> bytes:
        """Return REQUEST_OK; b"" for an announcement that has ended."""
        if self._over:
            return b""
        if self._state is not RequestState.PENDING:
            raise LocalProtocolError("there is no announcement to accept")
        self._state = RequestState.ACCEPTED
        return self._encode_ok(self._request_id)

    def _on_message(self, message: Message, events: list[Event]) -> None:
        session = self._session
        if isinstance(message, PublishNamespace) and self._state is RequestState.WAITING:
            self._begin_untrusted(message.request_id)
            self._state = RequestState.PENDING
            self._expect = Expect.ANNOUNCE_REPLY
            path = path_of(message.namespace, session)
            if path is None or not path.parts:
                problem = "a namespace that no broadcast's path is"
                raise RemoteProtocolError(problem, code=StreamCode.UNROUTABLE, scope="stream")
            self.path = path
            events.append(Announced(path))
        elif isinstance(message, RequestUpdate):
            # It may change the credentials, which this side does not read.
            self._admit_untrusted(message.request_id)
            raise RemoteProtocolError("an update of a namespace", code=StreamCode.INTERNAL_ERROR, scope="stream")
        elif not isinstance(message, Goaway):
            raise self._broken(f"{type(message).__name__} behind the request")

    def _on_release(self) -> None:
        self._session.announcements.give_back()


class PublishNamespaceRequester(IetfRequester):
    """We announce a namespace by a request. Event: `RequestRefused`, when the peer does not want it, or no longer."""

    _first: ClassVar = Expect.ANNOUNCE_FIRST_REPLY

    def __init__(self, session: IetfState, path: BroadcastPath) -> None:
        super().__init__(session)
        self._ask(PublishNamespace(0, namespace_of(path)))
        self._accepted = False

    def _on_message(self, message: Message, events: list[Event]) -> None:
        match message:
            case RequestOk() if not self._accepted:
                self._accepted = True
            case RequestError() if not self._accepted:
                self._closed = True
                events.append(RequestRefused(code_of_request(message.code, self._session.profile)))
            case Goaway():
                pass
            case _:
                raise self._broken(f"{type(message).__name__} as a reply")

    def _on_fin(self, events: list[Event]) -> None:
        # It may have answered all that it has to.
        if not self._accepted:
            raise self._broken("FIN before the reply")

    def _on_reset(self, code: int) -> list[Event]:
        return [RequestRefused(code)]

    def _on_stop(self, code: int) -> list[Event]:
        self._closed = True
        return [RequestRefused(code)]
