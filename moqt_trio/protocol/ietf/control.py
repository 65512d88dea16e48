"""The control stream of each side: SETUP, then GOAWAY. It ends with the session.

Spec: draft-ietf-moq-transport-18, sections 3.3.1, 9.4 and 9.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ...errors import LocalProtocolError, RemoteProtocolError
from ...wire.ietf.messages import Goaway, Option, Setup
from ...wire.ietf.tokens import setup_token, setup_tokens_untrusted
from ...wire.messages import Expect, Message
from ...wire.messages import Goaway as GoawayEvent
from ...wire.messages import Setup as SetupEvent
from ..machine import StreamMachine
from .machine import MAX_UPDATES, IetfMachine, violation

if TYPE_CHECKING:
    from ...wire.ietf.profile import Profile
    from ..events import Event
    from .state import IetfState

_INVALID_PATH = 0x8
_IMPLEMENTATION = b"moqt_trio"
_UPDATES_BOUNDED = 19
"""From this draft on SETUP says how many updates of one request may wait for their answers."""


def setup_message(setup: SetupEvent, profile: Profile) -> Setup:
    """Return this side's SETUP."""
    options: list[tuple[int, int | bytes]] = []
    if setup.path is not None:
        options.append((Option.PATH, setup.path.encode()))
    options += [(Option.AUTHORIZATION_TOKEN, setup_token(token, profile)) for token in setup.tokens]
    options.append((Option.MOQT_IMPLEMENTATION, _IMPLEMENTATION))
    if profile.draft >= _UPDATES_BOUNDED:
        options.append((Option.MAX_REQUEST_UPDATES, MAX_UPDATES))
    return Setup(tuple(options))


class ControlReceiver(IetfMachine):
    """The peer's control stream. Events: `Setup`, once, and `Goaway`."""

    _first: ClassVar = Expect.SETUP

    def __init__(self, session: IetfState) -> None:
        if session.setup_seen:
            raise violation("a second control stream")
        super().__init__(session)
        session.setup_seen = True

    def _on_message(self, message: Message, events: list[Event]) -> None:
        if self._expect is Expect.SETUP:
            if not isinstance(message, Setup):
                raise self._broken("a control stream that does not begin with SETUP")
            self._expect = Expect.GOAWAY
            events.append(self._read_setup(message))
            return
        if not isinstance(message, Goaway):
            raise self._broken(f"{type(message).__name__} on the control stream")
        session = self._session
        if session.goaway_received is not None:
            raise self._broken("a second GOAWAY")
        if message.uri and not session.is_client:
            raise self._broken("a client may not send a server elsewhere")
        session.goaway_received = message.uri
        events.append(GoawayEvent(message.uri))

    def _read_setup(self, message: Setup) -> SetupEvent:
        session = self._session
        path = next((value for kind, value in message.options if kind == Option.PATH), None)
        if path is not None and (session.is_client or not session.path_on_wire):
            raise RemoteProtocolError("SETUP has a path where it may have none", code=_INVALID_PATH)
        assert path is None or isinstance(path, bytes)
        # A URL without a path may be written as an empty one.
        text = None if path is None else path.decode(errors="replace") or "/"
        if session.profile.draft >= _UPDATES_BOUNDED:
            bound = next((value for kind, value in message.options if kind == Option.MAX_REQUEST_UPDATES), 0)
            assert isinstance(bound, int)
            session.peer_max_updates = bound
        values = [
            value for kind, value in message.options if kind == Option.AUTHORIZATION_TOKEN and isinstance(value, bytes)
        ]
        session.peer_setup = SetupEvent(path=text, tokens=setup_tokens_untrusted(values, session.profile))
        return session.peer_setup

    def _on_fin(self, events: list[Event]) -> None:
        raise self._broken("the control stream ended")

    def _on_reset(self, code: int) -> list[Event]:
        return []


class GoawaySender(StreamMachine):
    """We send GOAWAY on this side's control stream; `opening` is what is written there."""

    def __init__(self, session: IetfState, uri: str, timeout_ms: int) -> None:
        if session.goaway_sent:
            raise LocalProtocolError("GOAWAY is sent once")
        if uri and session.is_client:
            raise LocalProtocolError("a client may not send a server elsewhere")
        request_id = session.requests_of_peer.first_unused if session.profile.goaway == "request" else None
        self.opening = session.codec.encode(Goaway(uri, timeout_ms, request_id))
        self._session = session
        session.goaway_sent = True

    def undo(self) -> None:
        """Undo the GOAWAY, when nothing of it was written."""
        self._session.goaway_sent = False
