"""Connecting: from a URL to a running session."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import attrs
import trio

from ..arguments import shown, want, want_limits
from ..block import session_block
from ..certificates import Certificate, parse_fingerprint
from ..certificates.pem import read_authorities
from ..codes import SessionCode
from ..errors import (
    CertificateUnusable,
    ConnectTimeout,
    LocalProtocolError,
    MoqtError,
    Rejected,
    SessionClosed,
    VersionUnsupported,
    printable,
)
from ..limits import Limits
from ..loggers import Logger
from ..protocol.handshake import protocols
from ..session.run import carries_path, own_setup, run_session, wait_peer_setup
from ..session.view import OriginView
from ..timeouts import Timeout
from ..transport.quic.aioquic.packets import AioquicFactory
from ..transport.quic.client import connect_quic
from ..transport.quic.settings import ClientSettings, ServerIdentity
from ..transport.webtransport.client import open_webtransport
from ..url import SessionUrl
from ..wire import dialect as dialects
from ..wire.messages import Role, Setup, Token

if TYPE_CHECKING:
    from ..certificates import CertificateSource
    from ..session.session import Session
    from ..transport.connection import Connection
    from ..transport.quic.client import AddressFilter
    from ..transport.webtransport.session import WebTransportSession
    from ..wire.dialect import Dialect

logger = Logger(__name__)

_MAX_CHAIN_PEM = 16 * 1024
"""Bytes of the client's certificate and its chain in PEM. In TLS they take a quarter less, and the engine has 16 KiB
for them and the rest of the client's handshake."""

Fingerprints = str | bytes | Collection[str | bytes]
"""SHA-256 digests of certificates: 32 bytes, or hexadecimal text with or without colons; one or several."""


def _or_default(limits: Limits | None) -> Limits:
    return limits or Limits()


ClientRole = Literal["both", "publisher", "subscriber"]
"""What a client says that it will do."""


def client_setup(
    *, tokens: Collection[Token] = (), hop_id: int | None = None, cost: int | None = None, role: ClientRole = "both"
) -> Setup:
    """Return what a client says of itself; the arguments are those of `connect`, checked here."""
    want(tokens, Collection, "tokens are a list of Token values")
    for token in tokens:
        want(token, Token, "tokens are a list of Token values")
    roles = {item.name.lower(): item for item in Role}
    if role not in roles:
        raise ValueError(f"role is one of {', '.join(map(repr, roles))}, not {shown(role)}")
    return own_setup(hop_id, cost, role=roles[role], tokens=tuple(tokens))


def _offered(options: ConnectOptions) -> tuple[Dialect, ...]:
    return dialects.resolve(options.versions)


def _digests(options: ConnectOptions) -> tuple[bytes, ...]:
    fingerprint = options.fingerprint
    if fingerprint is None:
        return ()
    if isinstance(fingerprint, str | bytes):
        fingerprint = (fingerprint,)
    want(fingerprint, Collection, "a fingerprint is 64 hexadecimal digits or 32 bytes, or a list of them")
    digests = []
    for item in fingerprint:
        want(item, (str, bytes), "a fingerprint is 64 hexadecimal digits or 32 bytes")
        digest = parse_fingerprint(item) if isinstance(item, str) else item
        if len(digest) != 32:
            raise ValueError(f"a SHA-256 fingerprint has 32 bytes, not {len(digest)}")
        digests.append(digest)
    if not digests:
        raise ValueError("fingerprint is an empty collection; leave it out to verify by authorities")
    return tuple(digests)


def _authorities(options: ConnectOptions) -> tuple[str | None, bytes | None]:
    file = options.cafile
    if file is None and options.verify and not options.digests:
        file = os.environ.get("SSL_CERT_FILE") or None
    if file is None:
        return None, None
    # The engine opens it only in the middle of the handshake, too late for an error that names the file.
    data = read_authorities(Path(file))
    return (file, None) if data is None else (None, data)


def _check_certificate(_: object, __: object, certificate: Certificate | CertificateSource | None) -> None:
    if not (certificate is None or isinstance(certificate, Certificate) or callable(certificate)):
        raise TypeError(
            "a client's certificate is what Certificate.load('cert.pem', 'key.pem') returns, or CertificateFiles of "
            f"the same two files, not {shown(certificate)}"
        )


def _check_view(_: object, __: object, view: OriginView | None) -> None:
    if view is not None:
        want(view, OriginView, "view is what Origin.view returns")


@attrs.frozen
class ConnectOptions:
    """The versions that a client offers and the certificates that it trusts: the arguments of `connect`, checked.

    Attributes:
        versions, fingerprint, cafile, verify, origin, client_certificate: As for `connect`.
        limits: The bounds of the session.
        setup: What the client says of itself.
        view: What the session shares with others.
        offered: The wire versions, best first.
        authorities: The file of authorities to trust, or the authorities themselves in PEM; neither for the usual ones.
        digests: SHA-256 digests of the certificates to trust; when there are none, authorities are trusted.

    Raises:
        ValueError: An unknown version, an invalid fingerprint, or two ways to verify the certificate at once.
        CertificateUnusable: There is no certificate in `cafile`, or in the file that SSL_CERT_FILE names.
    """

    versions: Sequence[str] | None
    fingerprint: Fingerprints | None
    cafile: str | None
    verify: bool
    origin: str | None
    limits: Limits = attrs.field(converter=_or_default)
    setup: Setup = attrs.field(factory=client_setup, repr=False)
    view: OriginView | None = attrs.field(default=None, validator=_check_view)
    client_certificate: Certificate | CertificateSource | None = attrs.field(
        default=None, validator=_check_certificate, repr=False
    )
    offered: tuple[Dialect, ...] = attrs.field(init=False, default=attrs.Factory(_offered, takes_self=True))
    digests: tuple[bytes, ...] = attrs.field(init=False, default=attrs.Factory(_digests, takes_self=True))
    authorities: tuple[str | None, bytes | None] = attrs.field(
        init=False, default=attrs.Factory(_authorities, takes_self=True)
    )

    def __attrs_post_init__(self) -> None:
        if self.digests and (self.cafile is not None or not self.verify):
            raise ValueError("fingerprint pins the certificate: it goes neither with cafile nor with verify=False")
        if self.origin is not None and not (self.origin.isascii() and self.origin.isprintable()):
            raise ValueError(f"an origin is written in ASCII, a host name with A-labels (xn--…), not {self.origin!r}")

    def identity(self) -> ServerIdentity | None:
        """Return what is shown to a server that asks for a certificate.

        Raises:
            CertificateUnusable: Its chain is too long to be sent.
        """
        certificate = self.client_certificate
        if certificate is None:
            return None
        if not isinstance(certificate, Certificate):
            certificate = certificate()
            want(certificate, Certificate, "a function for client_certificate returns a Certificate")
        size = len(certificate.certificate_pem())
        if size > _MAX_CHAIN_PEM:
            raise CertificateUnusable(
                f"the client's certificate and its chain have {size} bytes in PEM, and {_MAX_CHAIN_PEM} can be sent: "
                "leave out the authorities that the server knows"
            )
        return ServerIdentity(certificate.certificate, certificate.chain, certificate.private_key)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the wire versions, best first."""
        return tuple(dialect.name for dialect in self.offered)

    @property
    def listed(self) -> str:
        """The same, as a message lists them."""
        return ", ".join(self.names)


@session_block("async with moqt_trio.connect(url) as session:")
async def connect(
    url: str,
    *,
    versions: Sequence[str] | None = None,
    fingerprint: Fingerprints | None = None,
    cafile: str | None = None,
    verify: bool = True,
    origin: str | None = None,
    limits: Limits | None = None,
    tokens: Collection[Token] = (),
    hop_id: int | None = None,
    cost: int | None = None,
    role: ClientRole = "both",
    view: OriginView | None = None,
    client_certificate: Certificate | CertificateSource | None = None,
) -> AsyncIterator[Session]:
    """Connect, and run a session for as long as the block lasts.

    Leaving the block cleanly delivers what was published (for at most `Limits.close_timeout`) and closes the session;
    no task outlives the block. An exception of the block closes the session with INTERNAL_ERROR and propagates.

    Args:
        url: `https://host:port/path` for WebTransport, `moqt://host:port/path` for raw QUIC.
        versions: The wire versions to offer, best first, such as `["moq-lite-06"]`; None offers all of them.
        fingerprint: Trust exactly the certificates with these SHA-256 digests, and no others.
        cafile: A PEM file of the authorities to trust instead of the usual ones, which are those in the file that the
            environment variable SSL_CERT_FILE names, else those of Mozilla, which come with `certifi`.
        verify: False accepts any certificate, also that of an attacker who intercepts the connection.
        origin: The `Origin` header of a WebTransport request.
        limits: The bounds of the session.
        tokens: Authorization tokens for the server, which the IETF's drafts carry, and no other version.
        hop_id: Who publishes here, 1 … 2**62-1, from moq-lite-03 on: relays take broadcasts of one path and one hop id
            for the same content, and go on with one when the other ends. So two encoders of the same content share it,
            and one that starts again takes another. None draws one at random.
        cost: What subscribing from this side costs, in the deployment's units: 0 … 2**62-1, moq-lite-06 only. The peer
            adds it to the costs of the broadcasts. None says nothing, which means 1.
        role: `"publisher"` or `"subscriber"` tells the server that this client will not do the other, from moq-lite-05
            on; a server may refuse a client that it would not allow to.
        view: For a relay, what the session shares with others: `origin.view()`.
        client_certificate: What to show to a server that asks clients for a certificate; it is shown to no server whose
            own certificate did not pass. A function, such as `CertificateFiles`, is called for each connection.

    Yields:
        The session.

    Raises:
        ValueError: An invalid URL, origin or fingerprint, an unknown version or role, or a number out of range.
        TypeError: An argument is of a wrong type.
        ConnectTimeout: No session was opened within `Limits.connect_timeout`; if the loop stood still until after that,
            not in a second attempt either.
        HandshakeFailed: There is no server, or it refused the handshake: it may require a certificate of its clients,
            or not take this one.
        CertificateInvalid: The server's certificate is not trusted.
        CertificateUnusable: There is no certificate in `cafile` or in SSL_CERT_FILE, or the chain of
            `client_certificate` is too long.
        VersionUnsupported: The server speaks none of the versions.
        Rejected: The server refused: an unknown path (404), this client (403), another host (421), or its own state
            (500, 503); 403 is also a session that the server closed as unauthorized before it sent its SETUP. Over raw
            QUIC moq-lite-03 and -04 cannot say so before the block is entered: there the session ends with
            `SessionClosed`, whose code is that number. These two do not carry the path either: a server with a default
            route serves that, and the log says so at INFO.
        SessionClosed: The connection was lost on the way.
    """
    want_limits(limits)
    where = SessionUrl.parse(url)
    setup = client_setup(tokens=tokens, hop_id=hop_id, cost=cost, role=role)
    options = ConnectOptions(versions, fingerprint, cafile, verify, origin, limits, setup, view, client_certificate)
    async with open_session(where, options) as session:
        yield session


@session_block("async with moqt_trio.connect(url) as session:")
async def open_session(
    where: SessionUrl,
    options: ConnectOptions,
    *,
    choose: AddressFilter | None = None,
    dial: Callable[[ClientSettings], AbstractAsyncContextManager[Connection]] | None = None,
) -> AsyncIterator[Session]:
    """Run a session for as long as the block lasts; see `connect`.

    Args:
        where: The server and the path.
        options: What to offer and what to trust.
        choose: Which of the host's addresses to try; what it raises propagates.
        dial: Opens the connection, which is closed after the block; None opens one of QUIC to the host.
    """
    limits, offered = options.limits, options.offered
    web = where.transport == "webtransport"
    cafile, cadata = options.authorities
    settings = ClientSettings(
        alpns=("h3",) if web else protocols(offered, webtransport=False),
        server_name=where.server_name,
        limits=limits,
        verify=options.verify,
        cafile=cafile,
        cadata=cadata,
        fingerprints=options.digests,
        offered=options.names,
        web=web,
        identity=options.identity(),
    )
    timeout = Timeout(limits.connect_timeout)
    while True:
        with trio.CancelScope(deadline=timeout.deadline) as scope:
            dialled: AbstractAsyncContextManager[Connection] = (
                connect_quic(where.host, where.port, settings, AioquicFactory(), choose=choose)
                if dial is None
                else dial(settings)
            )
            async with dialled as quic:
                opening = _open_webtransport(quic, where, options) if web else nullcontext(quic)
                async with opening as connection, _negotiated(connection, where, options) as session:
                    await _wait_admitted(session)
                    await trio.lowlevel.checkpoint_if_cancelled()
                    scope.deadline = math.inf
                    yield session
        if not scope.cancelled_caught:
            return
        # An attempt cannot go on once it was cancelled. When the loop has stood still, for longer than the end of the
        # attempt may have taken, another one is made.
        if not timeout.renew(limits.close_timeout):
            raise ConnectTimeout(
                f"{where.authority} opened no session within {limits.connect_timeout:g} s (Limits.connect_timeout)"
            )


@asynccontextmanager
async def _negotiated(connection: Connection, where: SessionUrl, options: ConnectOptions) -> AsyncIterator[Session]:
    """Run the session; when the negotiation of the version fails, raise an error that names the server."""
    path = where.path if where.transport == "quic" else None
    session = None
    try:
        async with run_session(
            connection, options.offered, limits=options.limits, path=path, setup=options.setup, view=options.view
        ) as session:
            if path not in (None, "/") and not carries_path(session):
                logger.info(
                    "%s over raw QUIC carries no path: %s does not learn %s, and serves its default route or none",
                    session.version,
                    where.authority,
                    printable(path.partition("?")[0]),
                )
            yield session
    except VersionUnsupported as error:
        if session is not None:
            raise
        # A server may also ignore ALPN altogether (RFC 7301, section 3.2), or choose no WebTransport protocol.
        raise VersionUnsupported(
            f"{where.authority} chose none of the offered versions ({options.listed}): {error}",
            offered=options.names,
        ) from None
    except SessionClosed as error:
        # A WebTransport server that has answered 200 has read no SETUP yet, so that it closes what it had accepted.
        accepted = where.transport == "webtransport"
        if session is not None or (accepted and error.remote_code == SessionCode.UNAUTHORIZED):
            raise
        raise _refusal(error) from None


@asynccontextmanager
async def _open_webtransport(
    quic: Connection, where: SessionUrl, options: ConnectOptions
) -> AsyncIterator[WebTransportSession]:
    """Open a WebTransport session."""
    names = protocols(options.offered, webtransport=True)
    connection = None
    try:
        async with open_webtransport(
            quic, where.authority, where.path, names, origin=options.origin, limits=options.limits
        ) as connection:
            yield connection
    except Rejected as error:
        if connection is not None or error.status != HTTPStatus.NOT_ACCEPTABLE:
            raise
        theirs = f": {error.reason}" if error.reason else ""
        raise VersionUnsupported(
            f"{where.authority} speaks none of the offered versions ({options.listed}){theirs}",
            offered=options.names,
        ) from None
    except VersionUnsupported as error:
        if connection is not None:
            raise
        # The protocols of WebTransport have names of their own.
        raise VersionUnsupported(str(error), offered=options.names) from None


def _refusal(error: SessionClosed) -> MoqtError:
    """Return the error for a session that was closed while it was opened: that may be a refusal."""
    if error.by_peer and error.remote_code is not None and 400 <= error.remote_code < 600:
        return Rejected(error.remote_code, error.reason)
    if error.by_peer and error.remote_code == SessionCode.UNAUTHORIZED:
        return Rejected(HTTPStatus.FORBIDDEN, error.reason)
    return error


async def _wait_admitted(session: Session) -> None:
    """Wait for the server's SETUP: that is how a client learns that it was accepted.

    Over raw QUIC there is no other answer. Over WebTransport a server may have to read the client's SETUP first, and
    refuses a client for it after the answer to its request.
    """
    try:
        await wait_peer_setup(session)
    except LocalProtocolError as error:
        late = True
        session.close(SessionCode.CONTROL_MESSAGE_TIMEOUT, str(error))
    except SessionClosed as error:
        late = error.local_code == SessionCode.CONTROL_MESSAGE_TIMEOUT
        if not late:
            raise _refusal(error) from None
    else:
        return
    raise ConnectTimeout(f"the server sent no SETUP within {session.limits.setup_timeout:g} s (Limits.setup_timeout)")
