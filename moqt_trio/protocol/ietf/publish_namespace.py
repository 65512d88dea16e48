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
from ...wire.ietf.messages import Goaway, PublishNamespace, RequestOk, RequestUpdate
from ...wire.messages import Expect, Message
from ..events import Announced
from ..machine import RequestState
from .machine import IetfResponder
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

    def __init__(self, session: IetfState) -> None:
        session.requests.take_untrusted()
        super().__init__(session)
        self.path = BroadcastPath()

    def accept(self) -> bytes:
        """Return REQUEST_OK; b"" for an announcement that has ended."""
        if self._over:
            return b""
        if self._state is not RequestState.PENDING:
            raise LocalProtocolError("there is no announcement to accept")
        self._state = RequestState.ACCEPTED
        return self._session.codec.encode(RequestOk(None))

    def _on_message(self, message: Message, events: list[Event]) -> None:
        session = self._session
        if isinstance(message, PublishNamespace) and self._state is RequestState.WAITING:
            session.requests_of_peer.check_untrusted(message.request_id)
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
            session.requests_of_peer.check_untrusted(message.request_id)
            raise RemoteProtocolError("an update of a namespace", code=StreamCode.INTERNAL_ERROR, scope="stream")
        elif not isinstance(message, Goaway):
            raise self._broken(f"{type(message).__name__} behind the request")

    def _on_release(self) -> None:
        self._session.requests.give_back()
