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
    from ...wire.ietf.properties import Pairs
    from ...wire.messages import Token
    from ..events import Event
    from .state import IetfState

_INVALID_PATH = 0x8
_IMPLEMENTATION = b"moqt_trio"
_UPDATES_BOUNDED = 19
"""From this draft on SETUP says how many updates of one request may wait for their answers."""


def setup_message(setup: SetupEvent, profile: Profile) -> Setup:
    """Return this side's SETUP, from draft 17 on."""
    return Setup(setup_options(setup, profile))


def setup_options(setup: SetupEvent, profile: Profile, max_request_id: int | None = None) -> Pairs:
    """Return the options of this side's SETUP.

    Args:
        setup: What is said.
        profile: The draft.
        max_request_id: The first request id that the peer may not use yet, up to draft 16; None from 17 on.
    """
    options: list[tuple[int, int | bytes]] = []
    if setup.path is not None:
        options.append((Option.PATH, setup.path.encode()))
    if max_request_id is not None:
        options.append((Option.MAX_REQUEST_ID, max_request_id))
    options += [(Option.AUTHORIZATION_TOKEN, setup_token(token, profile)) for token in setup.tokens]
    options.append((Option.MOQT_IMPLEMENTATION, _IMPLEMENTATION))
    if profile.draft >= _UPDATES_BOUNDED:
        options.append((Option.MAX_REQUEST_UPDATES, MAX_UPDATES))
    options.append((Option.HIDDEN, 1))
    return tuple(options)


def read_setup_untrusted(options: Pairs, session: IetfState) -> SetupEvent:
    """Read the options of the peer's SETUP, and return what they say.

    Raises:
        RemoteProtocolError: A server names a path, or a client one where a URI has it; it ends the session.
    """
    path = path_untrusted(options, may_be=session.path_on_wire and not session.is_client)
    # A URL without a path may be written as an empty one.
    text = None if path is None else path.decode(errors="replace") or "/"
    if session.profile.draft >= _UPDATES_BOUNDED:
        bound = next((value for kind, value in options if kind == Option.MAX_REQUEST_UPDATES), 0)
        assert isinstance(bound, int)
        session.peer_max_updates = bound
    session.peer_knows_hidden = knows_hidden(options)
    session.peer_setup = SetupEvent(path=text, tokens=tokens_untrusted(options, session.profile))
    return session.peer_setup


def path_untrusted(options: Pairs, *, may_be: bool) -> bytes | None:
    """Return the path among the options of SETUP, or None. Raises `RemoteProtocolError` for one that may not be."""
    path = next((value for kind, value in options if kind == Option.PATH), None)
    if path is not None and not may_be:
        raise RemoteProtocolError("SETUP has a path where it may have none", code=_INVALID_PATH)
    assert path is None or isinstance(path, bytes)
    return path


def knows_hidden(options: Pairs) -> bool:
    """Return whether SETUP says that its sender understands the HIDDEN parameter, with any value."""
    return any(kind == Option.HIDDEN for kind, _ in options)


def tokens_untrusted(options: Pairs, profile: Profile) -> tuple[Token, ...]:
    """Return the tokens among the options of SETUP. Raises `RemoteProtocolError` for one that is none."""
    values = [value for kind, value in options if kind == Option.AUTHORIZATION_TOKEN and isinstance(value, bytes)]
    return setup_tokens_untrusted(values, profile)


def read_goaway_untrusted(message: Goaway, session: IetfState) -> GoawayEvent:
    """Read the peer's GOAWAY on its control stream. Raises `RemoteProtocolError` for one that it may not send."""
    if session.goaway_received is not None:
        raise violation("a second GOAWAY")
    if message.uri and not session.is_client:
        raise violation("a client may not send a server elsewhere")
    session.goaway_received = message.uri
    return GoawayEvent(message.uri)


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
            events.append(read_setup_untrusted(message.options, self._session))
            return
        if not isinstance(message, Goaway):
            raise self._broken(f"{type(message).__name__} on the control stream")
        events.append(read_goaway_untrusted(message, self._session))

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
