"""The goaway stream: one GOAWAY, and at most one in each direction of a session.

Spec: draft-lcurley-moq-lite-06, section 7 (GOAWAY).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codes import SessionCode
from ..errors import LocalProtocolError, RemoteProtocolError
from ..wire.messages import Expect, Goaway, Message, StreamKind
from .machine import MessageMachine, StreamMachine

if TYPE_CHECKING:
    from .events import Event
    from .state import SessionState


class GoawayReceiver(MessageMachine):
    """The peer sends GOAWAY. Event: `Goaway`."""

    _first = Expect.GOAWAY

    def _on_message(self, message: Message, events: list[Event]) -> None:
        assert isinstance(message, Goaway)
        session = self._session
        if session.goaway_received is not None:
            raise RemoteProtocolError("a second GOAWAY", code=SessionCode.PROTOCOL_VIOLATION)
        if message.uri and not session.is_client:
            raise RemoteProtocolError("a client may not send a server elsewhere", code=SessionCode.PROTOCOL_VIOLATION)
        session.goaway_received = message.uri
        events.append(message)

    def _on_fin(self, events: list[Event]) -> None:
        if self._session.goaway_received is None:
            raise self._broken("FIN before GOAWAY")


class GoawaySender(StreamMachine):
    """We send GOAWAY; `opening` is all there is to write. A reset or a stop of the stream by the peer has no effect."""

    def __init__(self, session: SessionState, uri: str) -> None:
        if session.goaway_sent:
            raise LocalProtocolError("GOAWAY is sent once")
        if uri and session.is_client:
            raise LocalProtocolError("a client may not send a server elsewhere")
        self.opening = session.dialect.stream_type(StreamKind.GOAWAY) + session.dialect.encode(Goaway(uri))
        self._session = session
        session.goaway_sent = True

    def undo(self) -> None:
        """Undo the GOAWAY, when nothing of it was written."""
        self._session.goaway_sent = False
