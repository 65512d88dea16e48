"""The SETUP stream: one side's capabilities, sent once at the start of the session, where the version has it.

Spec: draft-lcurley-moq-lite-06, section 7.3 (SETUP).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..codes import SessionCode
from ..errors import LocalProtocolError, Malformed, RemoteProtocolError
from ..wire.messages import Expect, Message, Role, Setup
from .machine import MessageMachine

if TYPE_CHECKING:
    from .events import Event
    from .state import SessionState


def setup_problem(setup: Setup, *, from_client: bool, path_on_wire: bool) -> str | None:
    """Return what is not allowed in one side's SETUP, or None when all of it is."""
    if not from_client and (setup.path is not None or setup.role is not Role.BOTH):
        return "a server's SETUP with a path or a role"
    if setup.path is not None and not path_on_wire:
        return "a path in SETUP where the URI has it"
    return None


def check_setup(setup: Setup, *, from_client: bool, path_on_wire: bool) -> None:
    """Raise `LocalProtocolError` for a SETUP that this side may not send."""
    problem = setup_problem(setup, from_client=from_client, path_on_wire=path_on_wire)
    if problem is not None:
        raise LocalProtocolError(problem)


class SetupReceiver(MessageMachine):
    """The peer sends its capabilities. Event: `Setup`.

    Every mistake here ends the session: without a SETUP, or with two, nothing after it can be relied on.
    """

    _first = Expect.SETUP

    def __init__(self, session: SessionState) -> None:
        if session.setup_seen:
            raise RemoteProtocolError("a second SETUP stream", code=SessionCode.PROTOCOL_VIOLATION)
        super().__init__(session)
        session.setup_seen = True

    def _on_message(self, message: Message, events: list[Event]) -> None:
        assert isinstance(message, Setup)
        session = self._session
        problem = setup_problem(message, from_client=not session.is_client, path_on_wire=session.path_on_wire)
        if problem is not None:
            raise self._broken(problem)
        session.peer_setup = message
        self._expect = None
        events.append(message)

    def _on_fin(self, events: list[Event]) -> None:
        if self._expect is not None:
            raise self._broken("FIN before SETUP")

    def _broken(self, problem: str) -> RemoteProtocolError:
        return Malformed(f"SETUP: {problem}", code=SessionCode.PROTOCOL_VIOLATION)

    def _cut_short(self) -> RemoteProtocolError:
        return self._broken("FIN inside it")
