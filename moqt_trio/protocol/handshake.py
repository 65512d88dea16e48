"""Which version a session speaks: by a protocol of the layers below where that names one, else by a handshake.

| the layer below agreed on | versions |
|---|---|
| an ALPN or a WebTransport subprotocol of one version, as `moq-lite-06` | that one, without a handshake |
| `moql` (raw QUIC or WebTransport) | moq-lite-02 and -01 |
| `moql-01` (raw QUIC) | moq-lite-01, in the form of its draft |
| `moq-00` | over raw QUIC gomoqt-develop and moq-transfork-03, and on both moqt-14, distinguished by the first bytes |
| no WebTransport subprotocol | all of those with a handshake |

What a client lists in one handshake has the same form; the first version that it offers decides which.

The handshake, up to moq-lite-02, has the first stream that the client opens, which is open for as long as the session:

    client                                        server
    ──────                                        ──────
    writes `opening` on a new bidi stream   ───▶  receive_data → SessionNegotiated
    receive_data → SessionNegotiated        ◀───  writes accept()
    update(), SessionUpdate                 ◀──▶  update(), SessionUpdate
    SessionStreamEnded                      ◀──▶  SessionStreamEnded

A machine has no version until `SessionNegotiated`, one from then on, and a closed input after `SessionStreamEnded` or a
mistake. Every mistake here ends the session. On moqt-14 the stream goes on as the one of all requests: the machine is
done with `SessionNegotiated`.

Spec: draft-lcurley-moq-transfork-03 and draft-lcurley-moq-lite-01, the session stream.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Final, NoReturn

from ..codes import SessionCode
from ..errors import LocalProtocolError, Malformed, RemoteProtocolError, VersionUnsupported, printable
from ..limits import Limits
from ..wire import handshake
from ..wire.buffer import StreamBuffer
from ..wire.handshake import HandshakeForm
from ..wire.ietf.profile import DRAFT_14
from ..wire.messages import Expect, Parameters, SessionClient, SessionServer, SessionUpdate, Setup
from .events import Event, SessionNegotiated, SessionStreamEnded
from .ietf.control import setup_options
from .ietf.request_ids import first_limit
from .ietf.state import request_window
from .machine import StreamMachine
from .state import MessageBudget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..wire.dialect import Dialect
    from ..wire.messages import Token

_NATIVE_ALPN: Final = "moql-01"
"""The peers that offer this name read only the form of the draft."""

_FIRST_PRIVATE: Final = 0xFF00_0000
"""Version numbers from here on are drafts and programs, and are best shown in hexadecimal."""


def _shown(versions: tuple[int, ...]) -> str:
    return ", ".join(f"{number:#x}" if number >= _FIRST_PRIVATE else str(number) for number in versions[:16]) or "none"


def _names(dialects: tuple[Dialect, ...]) -> str:
    return ", ".join(f"{dialect.name} ({dialect.number:#x})" for dialect in dialects)


class HandshakeMachine(StreamMachine, abc.ABC):
    """One side of the handshake's stream.

    Events: `SessionNegotiated` once, `SessionUpdate` for each of the peer's, `SessionStreamEnded`.

    Attributes:
        offered: The versions that this side can negotiate on, best first.
        dialect: The version that was agreed on; None before.
        budget: Bounds the messages that are read at once.
        peer_bitrate: The peer's last estimate of the connection in bits per second; None while it is unknown.
        rest: What arrived after the handshake on a stream that goes on with something else.
    """

    def __init__(self, offered: tuple[Dialect, ...], limits: Limits) -> None:
        if not offered:
            raise LocalProtocolError("a handshake needs a version to negotiate on")
        self.offered = offered
        self.dialect: Dialect | None = None
        self.peer_bitrate: int | None = None
        self.rest = b""
        self._limits = limits
        self.budget = MessageBudget()
        self._buffer = StreamBuffer()
        self._finished = False

    def update(self, bitrate: int | None) -> bytes:
        """Return SESSION_UPDATE; b"" once the stream is over.

        Args:
            bitrate: Bits per second; None for unknown.

        Raises:
            LocalProtocolError: No version is agreed on yet, or the number is out of range.
        """
        if self.dialect is None:
            raise LocalProtocolError("no version is agreed on yet")
        data = self.dialect.encode(SessionUpdate(bitrate))
        return b"" if self._closed else data

    def _read_untrusted(self, data: bytes, fin: bool, events: list[Event]) -> None:
        buffer = self._buffer
        buffer.feed(data)
        if self.dialect is None:
            event = self._negotiate_untrusted(buffer)
            if event is not None:
                self.dialect = event.dialect
                events.append(event)
                if event.dialect.features.setup == "shared":
                    self.rest = buffer.take_all()
                    self._closed = True
                    return
        if fin:
            self._finished = True
        first = True
        self.unread = False
        while self.dialect is not None and buffer:
            if self.budget.left <= 0 and not first:
                self.unread = True
                return
            update = self.dialect.read_untrusted(Expect.SESSION_UPDATE, buffer, self._limits)
            if update is None:
                break
            assert isinstance(update, SessionUpdate)
            self.budget.left -= 1
            first = False
            self.peer_bitrate = update.bitrate
            events.append(update)
        if self._finished:
            if buffer or self.dialect is None:
                raise Malformed("FIN inside the handshake", code=SessionCode.PROTOCOL_VIOLATION)
            self._closed = True
            events.append(SessionStreamEnded(None))

    def _on_reset(self, code: int) -> list[Event]:
        return [SessionStreamEnded(code)]

    def _on_stop(self, code: int) -> list[Event]:
        # The end of either half by the peer ends the session.
        self._closed = True
        return [SessionStreamEnded(code)]

    @abc.abstractmethod
    def _negotiate_untrusted(self, buffer: StreamBuffer) -> SessionNegotiated | None:
        """Take the peer's message out of a buffer, once it is complete, and return its event."""


def _disagree(text: str) -> NoReturn:
    raise RemoteProtocolError(text, code=SessionCode.VERSION_NEGOTIATION_FAILED)


class ClientHandshake(HandshakeMachine):
    """The client's side: it lists its versions, and the server chooses one.

    Attributes:
        form: How the messages are framed.
    """

    def __init__(
        self,
        offered: tuple[Dialect, ...],
        limits: Limits,
        *,
        form: HandshakeForm,
        path: str | None = None,
        tokens: tuple[Token, ...] = (),
    ) -> None:
        """Make the machine of a stream that the caller opens, and writes `opening` on.

        Args:
            offered: The versions to list, best first; each of them has this form of the handshake.
            limits: The bounds that the server is held to.
            form: How the messages are framed.
            path: The request target, `path?query`; None where a URI has it.
            tokens: Authorization tokens, for the versions that have them.
        """
        super().__init__(offered, limits)
        self.form = form
        numbers = tuple(dialect.number for dialect in offered if dialect.number is not None)
        parameters: Parameters = () if path is None else ((handshake.PATH, path.encode()),)
        if any(dialect.features.setup == "shared" for dialect in offered):
            # The other versions skip what they do not know.
            setup = Setup(path=path, tokens=tokens)
            parameters = setup_options(setup, DRAFT_14, first_limit(1, request_window(limits)))
        self.opening = handshake.encode_client(form, SessionClient(numbers, parameters))

    def _negotiate_untrusted(self, buffer: StreamBuffer) -> SessionNegotiated | None:
        answer = handshake.read_server_untrusted(self.form, buffer, self._limits)
        if answer is None:
            return None
        for dialect in self.offered:
            if dialect.number == answer.version:
                return SessionNegotiated(dialect, None, answer.parameters)
        _disagree(f"the server chose version {_shown((answer.version,))}; this side offered {_names(self.offered)}")


class ServerHandshake(HandshakeMachine):
    """The server's side: it chooses the first of its own versions that the client listed.

    Attributes:
        form: How the client framed its message; None until it arrived.
    """

    def __init__(self, offered: tuple[Dialect, ...], limits: Limits, *, path_on_wire: bool) -> None:
        """Make the machine of the first bidirectional stream that a client opens.

        Args:
            offered: The versions to choose from, best first.
            limits: The bounds that the client is held to.
            path_on_wire: True where the handshake carries the request path: on raw QUIC, without a URI.
        """
        super().__init__(offered, limits)
        self.form: HandshakeForm | None = None
        self._path_on_wire = path_on_wire

    def accept(self, parameters: Parameters = ()) -> bytes:
        """Return the message that names the version to the client; to be written before anything else.

        Raises:
            LocalProtocolError: No version is agreed on yet, or a parameter does not fit in the client's form.
        """
        if self.dialect is None or self.form is None:
            raise LocalProtocolError("no version is agreed on yet")
        assert self.dialect.number is not None
        return handshake.encode_server(self.form, SessionServer(self.dialect.number, parameters))

    def _negotiate_untrusted(self, buffer: StreamBuffer) -> SessionNegotiated | None:
        found = handshake.read_client_untrusted(buffer, self._limits)
        if found is None:
            return None
        self.form, message = found
        for dialect in self.offered:
            if dialect.number in message.versions and self.form in dialect.handshakes:
                return SessionNegotiated(dialect, self._path_untrusted(message.parameters), message.parameters)
        offered = _names(self.offered)
        _disagree(f"no shared version: the client speaks {_shown(message.versions)}; this side speaks {offered}")

    def _path_untrusted(self, parameters: Parameters | None) -> str | None:
        """Return the request target with one slash in front; some peers write none, and some two."""
        found = [value for number, value in parameters or () if number == handshake.PATH]
        if len(found) > 1:
            raise Malformed("a path is there twice", code=SessionCode.PROTOCOL_VIOLATION)
        if not found or not self._path_on_wire:
            return None
        value = found[0]
        assert isinstance(value, bytes)  # the id is odd, so every form has it as bytes
        if len(value) > self._limits.max_uri:
            raise Malformed(f"a path of {len(value)} bytes", code=SessionCode.PROTOCOL_VIOLATION)
        try:
            text = value.decode()
        except UnicodeDecodeError as error:
            raise Malformed("a path that is not UTF-8", code=SessionCode.PROTOCOL_VIOLATION) from error
        return "/" + text.lstrip("/") if text else None


def protocols(offered: Iterable[Dialect], *, webtransport: bool) -> tuple[str, ...]:
    """Return the ALPNs, or the WebTransport subprotocols, that stand for some versions: each once, best first.

    A version without a WebTransport subprotocol is agreed on where the request names none.
    """
    each = (dialect.webtransport_protocols if webtransport else dialect.alpns for dialect in offered)
    return tuple(dict.fromkeys(name for names in each for name in names))


def candidates(offered: Iterable[Dialect], protocol: str | None, *, webtransport: bool) -> tuple[Dialect, ...]:
    """Return the versions that a protocol leaves to choose from, best first; none when it stands for no offered one.

    Args:
        offered: This side's versions, best first.
        protocol: The ALPN, or the WebTransport subprotocol; None for none.
        webtransport: True for a WebTransport session.
    """
    if protocol is None:
        return tuple(dialect for dialect in offered if dialect.in_band)
    return tuple(
        dialect
        for dialect in offered
        if protocol in (dialect.webtransport_protocols if webtransport else dialect.alpns)
    )


class Negotiation:
    """How one session comes to its version.

    A caller that finds `dialect` set starts the session with it. Otherwise `handshake` is the machine of the first
    bidirectional stream of the client, to be driven like any other, and the session starts with the dialect of its
    `SessionNegotiated`. The stream stays open as long as the session: when the machine says `SessionStreamEnded`, the
    session is over. All other streams of the client have to wait for the version.

    Attributes:
        dialect: The version, where the protocol names it; None where the handshake does.
        handshake: The machine of the handshake's stream; None where there is none. A client opens the stream and
            writes `handshake.opening`; a server writes `handshake.accept()` once it has the version.
    """

    def __init__(
        self,
        offered: Iterable[Dialect],
        *,
        is_client: bool,
        protocol: str | None,
        webtransport: bool,
        path: str | None = None,
        limits: Limits | None = None,
        tokens: tuple[Token, ...] = (),
    ) -> None:
        """Start when the connection, or the WebTransport session, is there.

        Args:
            offered: This side's versions, best first.
            is_client: True on the side that opened the session.
            protocol: The ALPN, or the WebTransport subprotocol, that both sides agreed on; None for none.
            webtransport: True for a WebTransport session, whose URI has the path.
            path: A client's request target, `path?query`, for raw QUIC; None for `/`, as some peers need one.
            limits: The bounds that the peer is held to.
            tokens: A client's authorization tokens, for the versions that have them.

        Raises:
            VersionUnsupported: The protocol stands for none of the versions.
        """
        offered = tuple(offered)
        found = candidates(offered, protocol, webtransport=webtransport)
        if not found:
            names = tuple(dialect.name for dialect in offered)
            shown = "no protocol" if protocol is None else f"the protocol {printable(protocol)!r}"
            raise VersionUnsupported(f"{shown} stands for none of {', '.join(names)}", offered=names)
        self.dialect: Dialect | None = None
        self.handshake: ClientHandshake | ServerHandshake | None = None
        limits = limits if limits is not None else Limits()
        if not found[0].in_band:
            self.dialect = found[0]
        elif is_client:
            form = HandshakeForm.PREFIXED if protocol == _NATIVE_ALPN else found[0].handshakes[0]
            listed = tuple(dialect for dialect in found if form in dialect.handshakes)
            path = None if webtransport else path or "/"
            self.handshake = ClientHandshake(listed, limits, form=form, path=path, tokens=tokens)
        else:
            self.handshake = ServerHandshake(found, limits, path_on_wire=not webtransport)

    def __repr__(self) -> str:
        if self.dialect is not None:
            return f"<Negotiation settled: {self.dialect.name}>"
        assert self.handshake is not None
        return f"<Negotiation among {', '.join(dialect.name for dialect in self.handshake.offered)}>"
