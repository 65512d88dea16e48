"""Connecting: names to addresses, the race between them (RFC 8305), and the exception for a failed handshake.

Each attempt has a socket and tasks of its own; the first whose handshake completes wins.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...errors import (
    CertificateInvalid,
    ConnectError,
    ConnectTimeout,
    HandshakeFailed,
    printable,
)
from ...loggers import Logger
from ...tasks import defer_interrupts, open_unwrapping_nursery
from ..sockets import connect_udp
from .connection import QuicConnection

if TYPE_CHECKING:
    from ..sockets import Address
    from .engine import EngineFactory, Termination
    from .settings import ClientSettings

logger = Logger(__name__)

_ATTEMPT_DELAY = 0.25
"""Seconds after which the next address is tried beside the one before: the connection attempt delay that RFC 8305
recommends (section 8)."""
_CRYPTO_ERROR = 0x100
_CERTIFICATE_ALERTS = frozenset({42, 43, 44, 45, 46, 48})
_DECRYPT_ERROR = 51
_CERTIFICATE_REQUIRED = 116
_NO_APPLICATION_PROTOCOL = 120


AddressFilter = Callable[[Sequence[str]], Collection[str]]
"""Takes the addresses of a name, best first, and returns those that may be connected to: at least one, or it raises."""


@asynccontextmanager
async def connect_quic(
    host: str,
    port: int,
    settings: ClientSettings,
    engine: EngineFactory,
    *,
    choose: AddressFilter | None = None,
) -> AsyncIterator[QuicConnection]:
    """Connect, and close the connection at the end of the block. An exception of the block comes out bare.

    Every address of the name is tried, the first alone for a quarter of a second, so that "localhost" works
    whichever loopback address the server has.

    Args:
        host: A name or an address.
        port: The server's UDP port.
        settings: What to offer and whom to trust.
        engine: Makes the QUIC engine of each attempt.
        choose: Which of the name's addresses to try; None tries all of them. What it chooses from is what is
            connected to: the name is looked up once. What it raises comes out as it is.

    Raises:
        ConnectTimeout: There was no answer within `Limits.connect_timeout`.
        CertificateInvalid: The server's certificate is not trusted.
        VersionUnsupported: The server speaks none of `settings.alpns`.
        HandshakeFailed: The name is unknown, no server listens there, or the handshake failed otherwise.
    """
    failure: BaseException | None = None
    async with open_unwrapping_nursery() as nursery:
        race = _Race(host, port, settings, engine, choose)
        try:
            connection = await race.run(nursery)
            yield connection
        except BaseException as error:
            failure = error
        # Nothing waits from here on but the attempts' own tasks, which are cancelled now.
        nursery.cancel_scope.shield = True
        race.cancel()
        # An attempt knows its race. Nothing that ended may refer to itself: see `Engine.release`.
        race.attempts.clear()
    if failure is not None:
        raise failure


class _Race:
    """The attempts to reach one name."""

    def __init__(
        self, host: str, port: int, settings: ClientSettings, engine: EngineFactory, choose: AddressFilter | None
    ) -> None:
        self.host = host
        self.port = port
        self.settings = settings
        self.engine = engine
        self.choose = choose
        self.attempts: list[_Attempt] = []
        self._changed = trio.Event()

    @property
    def target(self) -> str:
        """The host and port, for messages."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{printable(host)}:{self.port}"

    async def run(self, nursery: trio.Nursery) -> QuicConnection:
        """Return the first connection whose handshake completes; the other attempts are cancelled."""
        seconds = self.settings.limits.connect_timeout
        with trio.move_on_after(seconds):
            addresses = await _resolve(self.host, self.port)
            if self.choose is not None:
                chosen = self.choose([address[0] for _, address in addresses])
                addresses = [found for found in addresses if found[1][0] in chosen]
            for family, address in addresses:
                attempt = _Attempt(self, family, address)
                self.attempts.append(attempt)
                nursery.start_soon(attempt.run)
                with trio.move_on_after(_ATTEMPT_DELAY if address != addresses[-1][1] else seconds):
                    await self._outcome()
                if (winner := self._winner()) is not None:
                    self.cancel(winner)
                    assert winner.connection is not None
                    return winner.connection
            raise self._worst()
        raise ConnectTimeout(f"no answer from {self.target} within {seconds:g} s")

    def changed(self) -> None:
        """Called when an attempt succeeded or failed."""
        self._changed.set()

    def cancel(self, winner: _Attempt | None = None) -> None:
        """Cancel every attempt but the winner."""
        for attempt in self.attempts:
            if attempt is not winner:
                attempt.cancel()

    async def _outcome(self) -> None:
        while self._winner() is None and any(attempt.failure is None for attempt in self.attempts):
            self._changed = trio.Event()
            await self._changed.wait()

    def _winner(self) -> _Attempt | None:
        return next((attempt for attempt in self.attempts if attempt.ready), None)

    def _worst(self) -> ConnectError:
        # What a server said explains more than that another address has no server.
        attempts = sorted(self.attempts, key=lambda attempt: attempt.refused)
        return next(attempt.failure for attempt in attempts if attempt.failure is not None)


@defer_interrupts
class _Attempt:
    """One address: a socket, a connection and their tasks. It is the connection's `Owner`."""

    def __init__(self, race: _Race, family: int, address: Address) -> None:
        self._race = race
        self._family = family
        self._address = address
        self._scope = trio.CancelScope(shield=True)
        self.connection: QuicConnection | None = None
        self.ready = False
        self.refused = False
        self.failure: ConnectError | None = None

    async def run(self) -> None:
        """Run the connection until it has ended. Only `cancel` cancels it: the block's clean-up may still send."""
        if self._scope.cancel_called:
            # Cancelled before its first step: a server that got a packet would wait for the rest of the handshake.
            return
        with self._scope:
            settings = self._race.settings
            try:
                sock = connect_udp(self._family, self._address)
            except OSError as error:
                failure = HandshakeFailed(f"{self._race.target} cannot be reached: {error.strerror}")
                failure.__cause__ = error
                self._fail(failure)
                return
            except Exception as error:
                self._failed(error)
                return
            try:
                self.connection = connection = QuicConnection(
                    lambda handler: self._race.engine.client(settings, handler),
                    is_client=True,
                    limits=settings.limits,
                    owner=self,
                    sock=sock,
                    address=self._address,
                )
                connection.start()
                async with open_unwrapping_nursery() as nursery:
                    nursery.start_soon(
                        sock.read_forever, connection.receive_untrusted, partial(self._refused, connection)
                    )
                    await connection.run()
                    nursery.cancel_scope.cancel()
            except Exception as error:
                self._failed(error)
            finally:
                sock.close()

    def cancel(self) -> None:
        """Close the connection, and end the attempt's tasks."""
        if self.connection is not None:
            self.connection.close()
        self._scope.cancel()

    def _failed(self, error: Exception) -> None:
        """End the attempt, or the connection that it has become, because of an error that was not foreseen."""
        if self.ready and self.connection is not None:
            logger.error("%r failed", self.connection, exc_info=error)
            self.connection.lose("the client failed")
        else:
            self._fail(_unforeseen(self._race.target, error))

    def _refused(self, connection: QuicConnection) -> None:
        """Called when ICMP says that the peer has no such port.

        ICMP can be forged by anyone who knows the addresses: it ends nothing once the server has answered (RFC 9000,
        section 14.2.1). Before that it only makes a failure known sooner.
        """
        if not connection.established and not self.ready:
            self.refused = True
            self._fail(HandshakeFailed(f"no server at {self._race.target}"))
            connection.close()

    def _fail(self, failure: ConnectError) -> None:
        if self.failure is None and not self.ready:
            self.failure = failure
            self._race.changed()

    # -- Owner ---------------------------------------------------------------------------------------------

    def connection_ready(self, connection: QuicConnection) -> None:
        self.ready = True
        self._race.changed()

    def connection_in_use(self, connection: QuicConnection, in_use: bool) -> None:
        """Nothing to do: the attempt has one connection only."""

    def connection_id_issued(self, connection: QuicConnection, connection_id: bytes) -> None:
        """Nothing to do: the socket has one connection only."""

    def connection_id_retired(self, connection: QuicConnection, connection_id: bytes) -> None:
        """Nothing to do: the socket has one connection only."""

    def connection_ended(self, connection: QuicConnection, closing: list[tuple[bytes, Address]]) -> None:
        if connection.termination is not None:
            self._fail(_connect_error(connection.termination, self._race.target, self._race.settings))


async def _resolve(host: str, port: int) -> list[tuple[int, Address]]:
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise HandshakeFailed(f"the name {printable(host)!r} is unknown: {error.strerror}") from error
    except Exception as error:
        # A resolver refuses labels of more than 63 characters, for example, with errors of its own.
        raise HandshakeFailed(f"the name {printable(host)!r} cannot be looked up: {printable(str(error))}") from error
    addresses = list(dict.fromkeys((int(family), tuple(address)) for family, _, _, _, address in found))
    if host == "localhost":
        # The name may lack one of the loopback addresses in the hosts file, and the server may be on that one.
        for family, loopback in ((socket.AF_INET6, ("::1", port, 0, 0)), (socket.AF_INET, ("127.0.0.1", port))):
            if (family, loopback) not in addresses:
                addresses.append((family, loopback))
    return addresses


_TRUST = "trust it with fingerprint=, which a server has as Listener.fingerprint, or its authority with cafile="
"""The remedy for a certificate that is not trusted."""


def _unforeseen(target: str, error: Exception) -> HandshakeFailed:
    failure = HandshakeFailed(f"the attempt to reach {target} failed: {printable(repr(error))}")
    failure.__cause__ = error
    return failure


def _connect_error(termination: Termination, target: str, settings: ClientSettings) -> ConnectError:
    reason = printable(termination.reason)
    alert = termination.code - _CRYPTO_ERROR if not termination.application else -1
    if termination.idle:
        return ConnectTimeout(f"{target} fell silent during the handshake")
    if alert in _CERTIFICATE_ALERTS and not termination.by_peer:
        return CertificateInvalid(f"the certificate of {target} is not trusted: {reason}; {_TRUST}")
    if alert == _NO_APPLICATION_PROTOCOL:
        return settings.unsupported(target, reason)
    theirs = f": {reason}" if reason else f" (TLS alert {alert})"
    if termination.by_peer and settings.identity is None and alert in _CERTIFICATE_ALERTS | {_CERTIFICATE_REQUIRED}:
        remedy = "pass one that it trusts as client_certificate="
        return HandshakeFailed(f"{target} requires a certificate of its clients{theirs}; {remedy}")
    if termination.by_peer and settings.identity is not None and alert in _CERTIFICATE_ALERTS | {_DECRYPT_ERROR}:
        return HandshakeFailed(f"{target} does not accept this client's certificate{theirs}")
    who = "refused" if termination.by_peer else "broke"
    return HandshakeFailed(f"{target} {who} the handshake: {reason or f'QUIC error {termination.code:#x}'}")
