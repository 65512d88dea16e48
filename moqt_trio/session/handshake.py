"""Negotiates a session's version: by the connection's protocol or, up to moq-lite-02, by a handshake in band."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import trio

from ..codes import SessionCode
from ..errors import ConnectTimeout, RemoteProtocolError, SessionClosed, StreamReset, VersionUnsupported
from ..protocol.events import Event, SessionNegotiated, SessionStreamEnded
from ..protocol.handshake import ClientHandshake, Negotiation, ServerHandshake
from ..timeouts import Timeout
from .context import REPORT_CHANGE, REPORT_INTERVAL, SessionContext
from .stream import ControlStream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..limits import Limits
    from ..transport.connection import Connection
    from ..transport.stream import BidiStream
    from ..wire.dialect import Dialect
    from ..wire.messages import Parameters, Token


@attrs.define(eq=False)
class HandshakeStream:
    """The stream of a handshake, which stays open as long as the session.

    Attributes:
        stream: The client's first bidirectional stream.
        machine: Its state.
    """

    stream: BidiStream
    machine: ClientHandshake | ServerHandshake

    def accept(self) -> None:
        """Send the version to the client; a server sends nothing else before."""
        if isinstance(self.machine, ServerHandshake):
            self.stream.write(self.machine.accept())


@attrs.frozen
class Negotiated:
    """The result of a negotiation.

    Attributes:
        dialect: The version.
        path: The request target that the handshake carried; None where there was none.
        parameters: What else it carried.
        handshake: The handshake's stream; None where the connection's protocol named the version.
    """

    dialect: Dialect
    path: str | None = None
    parameters: Parameters = ()
    handshake: HandshakeStream | None = None


class HandshakeControl(ControlStream):
    """Watches the handshake's stream while the session runs, and closes the session when that stream ends."""

    def handle(self, event: Event) -> None:
        if isinstance(event, SessionStreamEnded):
            self.context.close(SessionCode.NO_ERROR)


@trio.lowlevel.enable_ki_protection
async def report_bitrate(context: SessionContext, handshake: HandshakeStream) -> None:
    """Report this side's estimate of the bitrate whenever it has changed by `REPORT_CHANGE`.

    The versions that have a handshake have no probes: SESSION_UPDATE on the handshake's stream takes their place.
    """
    reported = 0
    with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
        while True:
            await trio.sleep(REPORT_INTERVAL)
            bitrate, _ = context.estimate()
            if abs(bitrate - reported) >= REPORT_CHANGE * max(reported, 1) and handshake.stream.writable:
                handshake.stream.write(handshake.machine.update(bitrate or None))
                reported = bitrate


async def negotiate(
    connection: Connection,
    offered: Sequence[Dialect],
    *,
    path: str | None = None,
    limits: Limits,
    tokens: tuple[Token, ...] = (),
) -> Negotiated:
    """Return the version of a new connection: named by its protocol, or negotiated by a handshake.

    Args:
        connection: A connection without a handler, so that everything else that the peer sends waits.
        offered: This side's versions, best first.
        path: A client's request target over raw QUIC.
        limits: The bounds.
        tokens: A client's authorization tokens, for the versions that have them.

    Raises:
        VersionUnsupported: The two sides share none; the connection is closed with VERSION_NEGOTIATION_FAILED.
        ConnectTimeout: The peer did not finish its part within `Limits.setup_timeout`.
        RemoteProtocolError: The peer's bytes are no handshake; the connection is closed.
        SessionClosed: The connection ended.
    """
    named = next((dialect for dialect in offered if dialect.name == connection.protocol), None)
    if named is not None:
        return Negotiated(named)
    web = connection.kind == "webtransport"
    negotiation = Negotiation(
        offered,
        is_client=connection.is_client,
        protocol=connection.protocol,
        webtransport=web,
        path=path,
        limits=limits,
        tokens=tokens,
    )
    if negotiation.dialect is not None:
        return Negotiated(negotiation.dialect)
    assert negotiation.handshake is not None
    names = tuple(dialect.name for dialect in offered)
    try:
        handshake = _Handshake(connection, negotiation.handshake)
        if await Timeout(limits.setup_timeout).wait(handshake.run):
            assert handshake.negotiated is not None
            return handshake.negotiated
    except RemoteProtocolError as error:
        connection.close(error.code, str(error))
        if error.code == SessionCode.VERSION_NEGOTIATION_FAILED:
            raise VersionUnsupported(str(error), offered=names) from None
        raise
    except SessionClosed as error:
        if error.by_peer and error.remote_code == SessionCode.VERSION_NEGOTIATION_FAILED:
            theirs = f": {error.reason}" if error.reason else ""
            raise VersionUnsupported(f"the peer speaks none of {', '.join(names)}{theirs}", offered=names) from None
        raise
    connection.close(SessionCode.CONTROL_MESSAGE_TIMEOUT, "no handshake in time")
    raise ConnectTimeout(f"the peer sent no handshake within {limits.setup_timeout:g} s (Limits.setup_timeout)")


class _Handshake:
    """A handshake that runs.

    Attributes:
        negotiated: The result, once it has run.
    """

    def __init__(self, connection: Connection, machine: ClientHandshake | ServerHandshake) -> None:
        self.negotiated: Negotiated | None = None
        self._connection = connection
        self._machine = machine
        self._stream: BidiStream | None = None

    async def run(self) -> None:
        """Run it to its end. It may be cancelled and called again."""
        connection, machine = self._connection, self._machine
        if self._stream is not None:
            pass
        elif isinstance(machine, ClientHandshake):
            self._stream = await connection.open_bidi()
            self._stream.write(machine.opening)
        else:
            self._stream = await connection.accept_bidi()
        while True:
            data = await self._stream.receive_some()
            for event in machine.receive_data(data, not data):
                if isinstance(event, SessionNegotiated):
                    stream = HandshakeStream(self._stream, machine)
                    self.negotiated = Negotiated(event.dialect, event.path, event.parameters or (), stream)
                    return
            if not data:
                raise RemoteProtocolError("the peer ended the handshake", code=SessionCode.PROTOCOL_VIOLATION)
