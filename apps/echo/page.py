"""The echo page: an ASGI application that serves a few files, and what the page has to know about its server.

The page's script is a build product of `make web`; until it is built, a page that says so takes its place.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from .names import PREFIX, ROUTE, TRACK

if TYPE_CHECKING:
    import moqt_trio as moqt

_WEB: Final = Path(__file__).parent / "web"
_BUILT: Final = _WEB / "build" / "main.js"

_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}

_FIELDS: Final = (
    # The page needs its own files and sessions with its own server; `'self'` covers WebTransport too.
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"cache-control", b"no-cache"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


@attrs.frozen
class _Answer:
    status: int
    kind: str
    body: bytes


@attrs.define(eq=False)
class EchoPage:
    """The page, as an ASGI application.

    Attributes:
        pin: Returns the SHA-256 of the certificate in hexadecimal, for a browser to pin; None where the browser
            verifies the certificate by its authorities. Called for each session that a page opens, because a
            certificate may be renewed in between.
        script: Where the page's script is, once it is built.
    """

    pin: Callable[[], str | None] = lambda: None
    script: Path = _BUILT

    async def __call__(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Answer one request, or the server's start and end."""
        if scope["type"] == "http":
            answer = await self._answer(scope["method"], scope["path"])
            await _send(send, answer, with_body=scope["method"] != "HEAD")
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
        elif scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})

    def pin_certificate_of(self, listener: moqt.Listener, certificate: moqt.CertificateFiles | None) -> None:
        """Have browsers pin a self-signed certificate, which no authority vouches for.

        Args:
            listener: The server.
            certificate: Its certificate files; None when it uses a development certificate.
        """
        x509 = certificate().certificate if certificate is not None else None
        if x509 is None or x509.issuer == x509.subject:
            self.pin = lambda: listener.fingerprint

    async def _answer(self, method: str, path: str) -> _Answer:
        if method not in ("GET", "HEAD"):
            return _Answer(405, _TYPES[".html"], b"This page is only for reading.")
        if path == "/":
            built = await trio.Path(self.script).is_file()
            return await _file(_WEB / ("index.html" if built else "unbuilt.html"))
        if path == "/session.json":
            settings = {"path": ROUTE, "broadcast": PREFIX, "track": TRACK, "pin": self.pin()}
            return _Answer(200, _TYPES[".json"], json.dumps(settings).encode())
        if path == "/main.js":
            return await _file(self.script)
        if path in ("/style.css", "/icon.svg"):
            return await _file(_WEB / path[1:])
        return _NOT_FOUND


_NOT_FOUND: Final = _Answer(404, _TYPES[".html"], b"There is no such page here. The echo page is at <a href='/'>/</a>.")


async def _file(path: Path) -> _Answer:
    try:
        return _Answer(200, _TYPES[path.suffix], await trio.Path(path).read_bytes())
    except FileNotFoundError:
        return _NOT_FOUND


async def _send(send: Callable[[Any], Awaitable[None]], answer: _Answer, *, with_body: bool) -> None:
    fields = [
        (b"content-type", answer.kind.encode()),
        (b"content-length", str(len(answer.body)).encode()),
        *_FIELDS,
        *([(b"allow", b"GET, HEAD")] if answer.status == 405 else []),
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": fields})
    await send({"type": "http.response.body", "body": answer.body if with_body else b""})
