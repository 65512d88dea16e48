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
    """The peer asks us to leave. Event: `Goaway`."""

    def __init__(self, state: SessionState) -> None:
        super().__init__(state, Expect.GOAWAY)

    def _on_message(self, message: Message, events: list[Event]) -> None:
        assert isinstance(message, Goaway)
        state = self._state
        if state.goaway_received is not None:
            raise RemoteProtocolError("a second GOAWAY", code=SessionCode.PROTOCOL_VIOLATION)
        if message.uri and not state.is_client:
            raise RemoteProtocolError("a client may not send a server elsewhere", code=SessionCode.PROTOCOL_VIOLATION)
        state.goaway_received = message.uri
        events.append(message)

    def _on_fin(self, events: list[Event]) -> None:
        if self._state.goaway_received is None:
            raise self._broken("FIN before GOAWAY")

    def _on_reset(self, code: int) -> list[Event]:
        return []


class GoawaySender(StreamMachine):
    """We ask the peer to leave; `opening` is all there is to write. What the peer does to the stream says nothing."""

    def __init__(self, state: SessionState, uri: str) -> None:
        if state.goaway_sent:
            raise LocalProtocolError("GOAWAY is sent once")
        if uri and state.is_client:
            raise LocalProtocolError("a client may not send a server elsewhere")
        self.opening = state.dialect.stream_type(StreamKind.GOAWAY) + state.dialect.encode(Goaway(uri))
        self._state = state
        state.goaway_sent = True

    def withdraw(self) -> None:
        """Takes the GOAWAY back; only for one of which nothing was written."""
        self._state.goaway_sent = False
