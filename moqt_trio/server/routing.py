"""The request for a session, and the routes to handlers.

Independent of transports: the acceptor passes the callbacks that accept and reject.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

from ..arguments import want, want_async, want_number
from ..errors import LocalProtocolError, printable
from ..session.view import OriginView
from ..tasks import defer_interrupts
from ..url import canonical_path

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from ..certificates import ClientCertificate
    from ..session.session import Session
    from ..wire.messages import Token


@defer_interrupts
class SessionRequest:
    """A session that a client asks for. Answer it with `accept` or `reject`, once.

    Attributes:
        path: The path without its query; the router's default for versions that carry none over raw QUIC. What a URL
            cannot carry is percent-coded, whatever the transport: `/my%20room` for `/my room`.
        query: The query, without the `?`; often a credential, so never log it.
        authority: Host and port that the client asked for, where the transport says so. One that is not among the
            server's `authorities` was answered with 421 before.
        origin: The origin of the web page, as a browser's `Origin` header says; None elsewhere. One that is neither the
            server's own nor among its `origins` was answered with 403 before. It is no proof: a program can write
            anything here.
        transport: `"webtransport"` or `"quic"`.
        version: The wire version that an accepted session will speak. Over WebTransport the versions that negotiate by
            a handshake within the session (those up to moq-lite-02) do so after `accept`: until then this is the
            server's first candidate, and `Session.version` has the outcome.
        peer: The client's address and port.
        certificate: What the client showed, verified, with `serve(client_cafile=…)`; None when it showed none.
        local: The address and port that this side's socket is bound to, where there is one; it may be a wildcard.
        protocol: What was negotiated: the ALPN token over raw QUIC, the subprotocol over WebTransport, or None.
        tokens: The authorization tokens of the client's SETUP, over raw QUIC in the IETF's drafts. Over WebTransport
            SETUP comes after `accept`: `Session.peer_tokens` has them once it is there.
        role: What the client says that it will do: `"publisher"`, `"subscriber"` or `"both"`; over raw QUIC from
            moq-lite-05 on. Elsewhere it is `"both"`, and over WebTransport `Session.peer_role` has it later.
    """

    def __init__(
        self,
        *,
        path: str,
        query: str,
        authority: str | None,
        origin: str | None,
        transport: Literal["quic", "webtransport"],
        version: str,
        peer: tuple[str, int] | None,
        accept: Callable[[OriginView | None], AbstractAsyncContextManager[Session]],
        reject: Callable[[int, str], None],
        tokens: tuple[Token, ...] = (),
        role: str = "both",
        certificate: ClientCertificate | None = None,
        local: tuple[str, int] | None = None,
        protocol: str | None = None,
    ) -> None:
        self.path = path
        self.query = query
        self.authority = authority
        self.origin = origin
        self.transport = transport
        self.version = version
        self.peer = peer
        self.local = local
        self.protocol = protocol
        self.tokens = tokens
        self.role = role
        self.certificate = certificate
        self._accept = accept
        self._reject = reject
        self._answered = False

    @property
    def answered(self) -> bool:
        """True once the request was accepted or rejected."""
        return self._answered

    def accept(self, *, view: OriginView | None = None) -> AbstractAsyncContextManager[Session]:
        """Accept. Use it as `async with request.accept() as session`; leaving the block closes the session.

        Args:
            view: For a relay, what the session shares with others: `origin.view(request.path)`.

        Raises:
            LocalProtocolError: The request was answered before.
        """
        if view is not None:
            want(view, OriginView, "view is what Origin.view returns")
        self._answer()
        return self._accept(view)

    async def reject(self, status: int = HTTPStatus.FORBIDDEN, reason: str = "") -> None:
        """Refuse.

        Args:
            status: 400 … 599, as in HTTP; raw QUIC carries the same number as the session's close code.
            reason: A text for the client, where the transport carries one.

        Raises:
            LocalProtocolError: The request was answered before.
            ValueError: Another status.
        """
        want_number("a refusal's status", status)
        want(reason, str, "a refusal's reason is a text")
        if not 400 <= status <= 599:
            raise ValueError(f"a refusal's status is 400 … 599, not {status}")
        self._answer()
        self._reject(status, reason)
        await trio.lowlevel.checkpoint()

    def _answer(self) -> None:
        if self._answered:
            raise LocalProtocolError("this session request was answered before")
        self._answered = True

    def __repr__(self) -> str:
        return f"<SessionRequest {printable(self.path)} {self.version} over {self.transport} from {self.peer}>"


SessionHandler: TypeAlias = Callable[[SessionRequest], Awaitable[None]]
"""What serves a session: an async function in a task and cancel scope of its own.

An exception of it closes the session with INTERNAL_ERROR and is logged, but for `Unauthorized`: status 403 before
`accept`, and UNAUTHORIZED afterwards. What its requests raise because the peer has left is no failure.
"""


class Router:
    """Which handler serves which path.

    Args:
        routes: Handlers by exact path, such as `{"/echo": echo}`. `/my room` and `/my%20room` are one path, as a URL
            can carry only the second.
        prefixes: Handlers by the path above: that of `/live` serves `/live` and `/live/room`, and not `/lives`. A route
            goes first, then the longest prefix. Paths are compared as they are written: `..` is a name like others.
        fallback: The handler of every other path, as of a relay, where any path may be published.
        default: The path of a client whose handshake carries none: moq-lite-03 and -04 over raw QUIC. With a fallback,
            `/` when left out.

    Raises:
        ValueError: A path without its leading slash, a prefix with a slash at its end, two spellings of one path, or a
            default that is not served.
        TypeError: The routes or the prefixes are no mapping, or a handler is not async.
    """

    def __init__(
        self,
        routes: Mapping[str, SessionHandler] | None = None,
        *,
        prefixes: Mapping[str, SessionHandler] | None = None,
        fallback: SessionHandler | None = None,
        default: str | None = None,
    ) -> None:
        routes, prefixes = {} if routes is None else routes, {} if prefixes is None else prefixes
        self._routes = _checked(routes, "route", "routes")
        # The longest first, each with the slash after it.
        found = _checked(prefixes, "prefix", "prefixes")
        self._prefixes = [(path + "/", found[path]) for path in sorted(found, key=len, reverse=True)]
        for path in prefixes:
            if path.endswith("/"):
                remedy = "the fallback serves every path" if path == "/" else f"{path.rstrip('/')!r} covers it"
                raise ValueError(f"a prefix ends without a slash, not {path!r}: {remedy}")
        if fallback is not None:
            want_async(fallback, "the fallback", "request")
        self._fallback = fallback
        self._paths = (*routes, *(path for path in prefixes if canonical_path(path) not in self._routes))
        if default is not None and self.find(default) is None:
            raise ValueError(f"the default {default!r} is not among the routes {sorted(self._paths)}")
        self.default = "/" if default is None and fallback is not None else default

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that have a handler of their own, in the order in which they were given: routes, then prefixes.

        With a fallback, and nothing else, it is `/`.
        """
        return self._paths or (() if self._fallback is None else ("/",))

    def find(self, path: str) -> SessionHandler | None:
        """Return the handler of a path, or None."""
        path = canonical_path(path)
        handler = self._routes.get(path)
        if handler is not None:
            return handler
        below = path + "/"
        return next((handler for prefix, handler in self._prefixes if below.startswith(prefix)), self._fallback)

    def __repr__(self) -> str:
        return f"Router({sorted(self._paths)}, default={self.default!r})"


def _checked(routes: Mapping[str, SessionHandler], one: str, several: str) -> dict[str, SessionHandler]:
    """Return handlers by their canonical paths, once each was checked."""
    want(routes, Mapping, f"{several} are a dict of handlers by path, such as {{'/echo': echo}}")
    for path, handler in routes.items():
        want(path, str, f"a {one} is a path, a text such as '/echo'")
        want_async(handler, f"the handler of {path!r}", "request")
        if not path.startswith("/") or "?" in path:
            raise ValueError(f"a {one} is a path that starts with '/', without a query, not {path!r}")
    found = {canonical_path(path): handler for path, handler in routes.items()}
    if len(found) < len(routes):
        raise ValueError(f"two of the {several} {sorted(routes)} are one path, percent-coded differently")
    return found


def routes_of(served: Router | SessionHandler) -> Router:
    """Return a router; that of a handler alone serves `/`, and clients without a path.

    Raises:
        TypeError: It is a mapping, or a handler that is not async.
    """
    if isinstance(served, Mapping):
        raise TypeError("routes go into a Router: serve(Router({'/echo': echo}))")
    return served if isinstance(served, Router) else Router({"/": served}, default="/")
