"""AuthServer: an ASGI application that answers what relays ask, moq-relay's and those of this library."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs

from ..access import Grant
from ..arguments import want, want_async, want_time
from ..errors import Unauthorized, printable
from ..loggers import Logger
from .contract import MAX_DOCUMENT, AuthRequest, encode_grant

logger = Logger(__name__)

_Receive = Callable[[], Awaitable[Any]]
_Send = Callable[[Any], Awaitable[None]]


class AuthServer:
    """Answers the requests of relays, as an ASGI application. Each is a POST, at any path.

    The relays show it the tokens of their clients: let no one else reach it. Serve it on the loopback interface, on a
    unix socket, or over HTTPS with the certificates of relays required.

    Args:
        admit: Decides: an async function that returns a `Grant` or raises `Unauthorized`, such as
            `TokenAuth(keys).admit`. It is called when a session begins, and each time its grant is asked for again.
        on_end: An async function that is called with the request that tells of the end of a session; None for none.
        revalidate: Seconds after which a relay is to ask again, where the grant does not say; None for never.
        lifetime: Seconds after which a grant expires that does not say when; None for never. It bounds how long a
            session goes on while this server cannot be reached.

    Raises:
        TypeError: A function is not async, or a time is no number.
        ValueError: `revalidate` without `lifetime`: no relay takes such a grant.
    """

    def __init__(
        self,
        admit: Callable[[AuthRequest], Awaitable[Grant]],
        *,
        on_end: Callable[[AuthRequest], Awaitable[None]] | None = None,
        revalidate: float | None = None,
        lifetime: float | None = None,
    ) -> None:
        want_async(admit, "what decides", "request")
        if on_end is not None:
            want_async(on_end, "on_end", "request")
        for name, seconds in (("revalidate", revalidate), ("lifetime", lifetime)):
            if seconds is not None:
                want_time(name, seconds)
        if revalidate is not None and lifetime is None:
            raise ValueError("a grant that is asked for again expires, too: give lifetime=")
        self._admit = admit
        self._on_end = on_end
        self._revalidate = revalidate
        self._lifetime = lifetime

    async def __call__(self, scope: Any, receive: _Receive, send: _Send) -> None:
        """Serve one request of ASGI."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            status, text = await self._respond(scope["method"], receive)
            await _answer(send, status, text)
        else:
            await send({"type": "websocket.close", "code": 1003})

    async def _respond(self, method: str, receive: _Receive) -> tuple[int, bytes]:
        """Return the status and the body of an answer."""
        if method != "POST":
            return 405, b"relays ask with POST"
        body = await _read(receive)
        if body is None:
            return 413, b"the request is too long"
        try:
            request = AuthRequest.decode_untrusted(body)
        except ValueError as error:
            return 400, printable(str(error)).encode()
        try:
            return await self._decide(request)
        except Unauthorized as error:
            logger.info("refused session %s of %s: %s", printable(request.id), printable(request.node), error)
            # The relay keeps it to itself.
            return error.status, str(error).encode()
        except Exception:
            logger.exception("no answer for session %s of %s", printable(request.id), printable(request.node))
            return 500, b"the decision failed"

    async def _decide(self, request: AuthRequest) -> tuple[int, bytes]:
        if request.event == "end":
            if self._on_end is not None:
                await self._on_end(request)
            return 204, b""
        grant = await self._admit(request)
        want(grant, Grant, "what decides returns a Grant")
        if not grant.allows("both"):
            raise Unauthorized(request.path, "nothing is granted")
        return 200, encode_grant(self._bounded(grant))

    def _bounded(self, grant: Grant) -> Grant:
        if grant.expires is None and self._lifetime is not None:
            # Up to the next second: the relay reads whole ones, and 0.5 s from now is not at once.
            grant = attrs.evolve(grant, expires=math.ceil(time.time() + self._lifetime))
        if grant.revalidate is None and grant.expires is not None and self._revalidate is not None:
            grant = attrs.evolve(grant, revalidate=self._revalidate)
        return grant

    def __repr__(self) -> str:
        return f"<AuthServer revalidate={self._revalidate} lifetime={self._lifetime}>"


async def _read(receive: _Receive) -> bytes | None:
    """Return the body of a request; None for one that is too long. What is left of it is not read."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            # The relay has left; the answer goes nowhere.
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > MAX_DOCUMENT:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def _answer(send: _Send, status: int, text: bytes) -> None:
    kind = b"application/json" if status == 200 else b"text/plain; charset=utf-8"
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(text)), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers[2:] if status == 204 else headers})
    await send({"type": "http.response.body", "body": text})


async def _live(receive: _Receive, send: _Send) -> None:
    while True:
        message = await receive()
        kind = message["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return
