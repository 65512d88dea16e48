"""AuthClient: an auth server decides, over HTTP, and is asked again while a session runs. The one file that uses httpx.

Theory of operation. `admit` asks once (`connect`), and returns a grant that knows its client and its request. The lease
of that grant, in the session with it, does the rest. It waits for what comes first: the time to ask again, or the end
of the grant. An answer that allows as much as before, or more, is taken, with its times. One that allows less, a
refusal, or an answer that is no grant ends the session: what the peer has announced and read already cannot be taken
back from it. No answer says nothing: the grant stands until it expires, and the server is asked again soon. At the end
of the lease the server is told (`end`), within a bound, so that the end of a session never hangs on the server.
"""

from __future__ import annotations

import random
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import attrs
import trio

from ..access import Grant
from ..arguments import want, want_time
from ..block import Block, session_block
from ..errors import MoqtError, SessionClosed, Unauthorized, printable
from ..lease import LINE, LeasedSession, deadline_of, end_session
from ..loggers import Logger
from ..tasks import defer_interrupts, open_unwrapping_nursery
from ..url import printable_url, split_authority
from .contract import MAX_DOCUMENT, AuthRequest, PeerCertificate, SessionEnd, decode_grant_untrusted

try:
    import httpx
except ImportError as error:
    raise ImportError("AuthClient needs httpx, which is not installed: pip install moqt-trio[auth]") from error

if TYPE_CHECKING:
    from types import TracebackType

    from .. import SessionRequest
    from ..certificates import ClientCertificate

logger = Logger(__name__)

_LONGEST_BACKOFF = 60.0
"""Seconds after which a server that did not answer is asked again, at most."""
_END_TIMEOUT = 2.0
"""Seconds that telling of a session's end may take: the session's block waits for it."""


class _Refused(MoqtError):
    """The server refuses."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the auth server refuses it ({status})")
        self.status = status


class _Outage(MoqtError):
    """The server did not answer, or with what says nothing of the session."""


class _Invalid(MoqtError):
    """The server answered with a grant that cannot be honoured."""


@defer_interrupts
class AuthClient(Block):
    """Asks an auth server who may do what. Use it as `async with AuthClient(url, node="relay-1") as auth`.

    While the server does not answer, new sessions are refused with 502, and those that run go on until their grants
    expire.

    Args:
        url: `https://…`, `http://…` on the loopback interface only, or `unix:///run/auth.sock`.
        node: The name of this relay, for the server.
        timeout: Seconds that an answer may take.
        tls: How an HTTPS server is verified, and which certificate is shown to it; None verifies it with the system's
            authorities and shows none.

    Raises:
        ValueError: Another URL; it must have neither a user name nor a query, which would reach logs.
    """

    def __init__(
        self, url: str, *, node: str = "moqt_trio", timeout: float = 10.0, tls: ssl.SSLContext | None = None
    ) -> None:
        want(node, str, "node is the name of this relay, a text")
        want_time("timeout", timeout)
        if tls is not None:
            want(tls, ssl.SSLContext, "tls is what ssl.create_default_context() returns")
        self._node = node
        self._timeout = timeout
        self._shown = printable_url(url) if isinstance(url, str) else ""
        self._url, self._socket = _checked_url(url)
        self._tls = tls
        self._http: httpx.AsyncClient | None = None
        self._stack = AsyncExitStack()
        self._expect_entry(
            lambda: "an AuthClient was never entered; write: async with AuthClient(url, node='relay-1') as auth:"
        )

    async def __aenter__(self) -> AuthClient:
        self._entered()
        verify = self._tls or (ssl.create_default_context() if self._url.startswith("https:") else False)
        # No proxy of the environment: it would see the tokens.
        transport = httpx.AsyncHTTPTransport(verify=verify, uds=self._socket, trust_env=False)
        client = httpx.AsyncClient(transport=transport, timeout=None, trust_env=False)
        self._http = await self._stack.enter_async_context(client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http = None
        with trio.move_on_after(_END_TIMEOUT, shield=True):
            await self._stack.aclose()

    async def admit(self, request: SessionRequest) -> Grant:
        """Return what a client may do, as the server decides.

        Args:
            request: The client's.

        Raises:
            Unauthorized: The server refuses (401 or 403, as it answers), or grants nothing that the client says that it
                will do (403); it does not answer, or not with a grant (502).
            trio.ClosedResourceError: The block of this client was left, or not entered.
        """
        asked = self._request_of(request)
        if len(request.tokens) > 1:
            raise Unauthorized(request.path, "it shows several tokens in its SETUP", status=401)
        try:
            grant = await self.ask(asked)
        except _Refused as error:
            raise Unauthorized(request.path, str(error), status=error.status) from None
        except (_Outage, _Invalid) as error:
            logger.warning("no session is admitted: %s: %s", self._shown, error)
            raise Unauthorized(request.path, str(error), status=502) from None
        granted = _checked_grant(grant, _Checks(self, asked, trio.current_time()))
        if not granted.allows(request.role):
            await self.tell_end(asked, SessionEnd(reason="refused", duration=0.0, bytes_sent=0, bytes_received=0))
            raise Unauthorized(request.path, f"nothing is granted to a {request.role}")
        return granted

    def _request_of(self, request: SessionRequest) -> AuthRequest:
        authority = request.authority
        return AuthRequest(
            id=secrets.token_hex(16),
            event="connect",
            node=self._node,
            # WebTransport is QUIC, too.
            transport="quic",
            path=request.path,
            query=request.query,
            remote=_address(request.peer),
            local=_address(request.local),
            server_name=None if authority is None else split_authority(authority)[0].strip("[]"),
            alpn=request.protocol,
            tokens=request.tokens[:1],
            role=request.role,
            tls=_shown_by(request.certificate),
        )

    async def ask(self, request: AuthRequest) -> Grant:
        """Send a request, and return the grant of the answer. Raises `_Refused`, `_Outage` or `_Invalid`."""
        status, body = await self._post(request)
        if status in (401, 403):
            raise _Refused(status)
        if not 200 <= status < 300:
            raise _Outage(f"the auth server answers with status {status}")
        try:
            grant = decode_grant_untrusted(body)
        except ValueError as error:
            raise _Invalid(f"the auth server answers with no grant: {printable(str(error))}") from None
        if not grant.allows("both"):
            raise _Refused(403)
        if grant.expires is not None and grant.expires <= time.time():
            raise _Invalid("the auth server answers with a grant that has expired")
        return grant

    async def tell_end(self, request: AuthRequest, end: SessionEnd) -> None:
        """Tell the server that a session has ended. A failure is logged."""
        with trio.move_on_after(_END_TIMEOUT, shield=True) as scope:
            try:
                status, _ = await self._post(attrs.evolve(request, event="end", end=end))
            except (_Outage, trio.ClosedResourceError) as error:
                logger.warning("the auth server was not told of the end of %s: %s", request.id, error)
            else:
                if not 200 <= status < 300:
                    logger.warning("the auth server answers the end of %s with status %d", request.id, status)
        if scope.cancelled_caught:
            logger.warning("the auth server was not told of the end of %s in %g s", request.id, _END_TIMEOUT)

    async def _post(self, request: AuthRequest) -> tuple[int, bytes]:
        """Return the status and the body of the answer. Raises `_Outage`: there is none."""
        if self._http is None:
            raise trio.ClosedResourceError("this AuthClient is closed")
        sent = request.encode()
        headers = {"content-type": "application/json", "content-length": str(len(sent))}
        posted = self._http.build_request("POST", self._url, headers=headers)
        posted.stream = _Body(sent)
        body, size = bytearray(), 0
        try:
            with trio.fail_after(self._timeout):
                response = await self._http.send(posted, stream=True)
                try:
                    # All of it, within the time: iterators of httpx that are left early wait for the garbage collector.
                    async for chunk in response.aiter_raw():
                        size += len(chunk)
                        body += chunk[: MAX_DOCUMENT - len(body)]
                    status = response.status_code
                finally:
                    await _aclose(response)
        except trio.TooSlowError:
            raise _Outage(f"the auth server does not answer within {self._timeout:g} s") from None
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            reason = printable(str(error) or type(error).__name__)
            raise _Outage(f"the auth server cannot be reached: {reason}") from None
        if size > MAX_DOCUMENT:
            raise _Outage("the auth server's answer is too long")
        return status, bytes(body)

    def __repr__(self) -> str:
        return f"<AuthClient of {self._shown} for {printable(self._node)}>"


class _Body(httpx.AsyncByteStream):
    """The body of a request, as an iterator: a generator of httpx waits for the garbage collector if sending fails."""

    def __init__(self, data: bytes) -> None:
        self._left = [data]

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def _aclose(response: httpx.Response) -> None:
    """Close a response, also when it is cancelled: then its connection closes."""
    with trio.move_on_after(_END_TIMEOUT, shield=True):
        await response.aclose()


def _checked_url(url: str) -> tuple[str, str | None]:
    """Return the URL to ask, and the path of the unix socket to ask on."""
    want(url, str, "the URL of an auth server is a text such as 'http://127.0.0.1:4440/'")
    parts = urlsplit(url)
    shown = printable_url(url)
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(
            f"the URL {shown!r} has a user name, a query or a fragment, which would reach logs; a server knows a relay "
            "by its certificate (tls=)"
        )
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/"):
            raise ValueError(f"a unix socket is named like unix:///run/auth.sock, not {shown!r}")
        return "http://localhost/", unquote(parts.path)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"the URL of an auth server begins with https://, http:// or unix:///, not {shown!r}")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError(f"tokens go over http:// to the loopback interface only; use https:// in place of {shown!r}")
    return url, None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _address(address: tuple[str, int] | None) -> str | None:
    if address is None:
        return None
    host, port = address[0].partition("%")[0], address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# -- while a session runs ----------------------------------------------------------------------------------


@attrs.define(eq=False)
class _Checks:
    """What a grant needs to be asked for again.

    Attributes:
        client: Whom to ask.
        request: The request that admitted the session.
        admitted: When, on Trio's clock.
        held: True once a session holds the grant.
    """

    client: AuthClient
    request: AuthRequest
    admitted: float
    held: bool = False


@attrs.frozen(kw_only=True)
class _CheckedGrant(Grant):
    """A grant of an auth server."""

    _checks: _Checks = attrs.field(alias="checks", eq=False, repr=False)

    def lease(
        self, session: LeasedSession, *, changed: Callable[[Grant], None] | None = None
    ) -> AbstractAsyncContextManager[None]:
        return _leased(self, self._checks, session, changed)


def _checked_grant(grant: Grant, checks: _Checks) -> _CheckedGrant:
    given = {field.name: getattr(grant, field.name) for field in attrs.fields(Grant) if field.init}
    return _CheckedGrant(**given, checks=checks)


@session_block(LINE)
async def _leased(
    grant: Grant, checks: _Checks, session: LeasedSession, changed: Callable[[Grant], None] | None
) -> AsyncIterator[None]:
    if checks.held:
        # By the view of an origin, say: the server is asked once, and told once.
        yield
        return
    checks.held = True
    lease = _Lease(grant, checks, session, changed)
    try:
        async with open_unwrapping_nursery() as nursery:
            nursery.start_soon(lease.run)
            yield
            nursery.cancel_scope.cancel()
    finally:
        await lease.tell_end()


class _Lease:
    """A grant of an auth server while a session holds it."""

    def __init__(
        self, grant: Grant, checks: _Checks, session: LeasedSession, changed: Callable[[Grant], None] | None
    ) -> None:
        self._grant = grant
        self._checks = checks
        self._session = session
        self._changed = changed
        self._failures = 0
        self._reason: str | None = None

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Ask again and again, until the session has to end."""
        pause = self._grant.revalidate
        while self._reason is None:
            with trio.CancelScope(deadline=deadline_of(self._grant.expires)) as scope:
                await trio.sleep_until(float("inf") if pause is None else trio.current_time() + pause)
                pause = await self._ask_again()
            if scope.cancelled_caught:
                self._end("expired", "the grant has expired")

    async def _ask_again(self) -> float | None:
        """Ask for the grant again, and return the seconds until the next time."""
        checks = self._checks
        try:
            grant = await checks.client.ask(attrs.evolve(checks.request, event="revalidate"))
        except _Refused:
            self._end("refused", "the grant was revoked")
        except _Invalid as error:
            logger.warning("session %s ends: %s", checks.request.id, error)
            self._end("invalid", "the grant was revoked")
        except (_Outage, trio.ClosedResourceError) as error:
            self._failures += 1
            pause = _backoff(self._failures, self._grant.revalidate)
            logger.warning("session %s goes on: %s; asked again in %.1f s", checks.request.id, error, pause)
            return pause
        else:
            self._take(grant)
        return self._grant.revalidate

    def _take(self, grant: Grant) -> None:
        before, self._failures = self._grant, 0
        if not grant.covers(before):
            self._end("narrowed", "the grant allows less than before")
            return
        self._grant = grant
        if self._changed is not None and not before.covers(grant):
            self._changed(grant)

    def _end(self, reason: str, text: str) -> None:
        self._reason = reason
        end_session(self._session, text)

    async def tell_end(self) -> None:
        """Tell the server how the session ended, and what it moved."""
        moved = self._session.statistics().transport
        end = SessionEnd(
            reason=self._reason or _how_it_ended(self._session.closed),
            duration=trio.current_time() - self._checks.admitted,
            bytes_sent=moved.bytes_sent,
            bytes_received=moved.bytes_received,
        )
        await self._checks.client.tell_end(self._checks.request, end)


def _how_it_ended(closed: MoqtError | None) -> str:
    if isinstance(closed, SessionClosed) and closed.by_peer:
        return "disconnected"
    lost = isinstance(closed, SessionClosed) and closed.local_code is None
    return "lost" if lost else "closed"


def _backoff(failures: int, cadence: float | None) -> float:
    """Return the seconds until a server that did not answer is asked again: doubled each time, and with some chance."""
    longest = min(_LONGEST_BACKOFF, _LONGEST_BACKOFF if cadence is None else cadence)
    return min(2.0 ** min(failures - 1, 16), longest) * random.uniform(0.75, 1.25)


def _shown_by(certificate: ClientCertificate | None) -> PeerCertificate | None:
    """Return what a client's certificate says of it; None for None."""
    if certificate is None:
        return None
    return PeerCertificate(
        name=certificate.name,
        fingerprint=certificate.fingerprint,
        issuer=certificate.issuer,
        expires=certificate.not_after.timestamp(),
    )
