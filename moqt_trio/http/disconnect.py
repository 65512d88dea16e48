"""ASGI 2.4 for applications whose streams are hypercorn's: `send` to a disconnected client raises an OSError.

Hypercorn says 2.1 for requests and 2.3 for WebSockets, and lets an application go on sending after its client has
disconnected; one that does not read `http.disconnect` would do so for ever, and without a checkpoint. Frameworks look
at the version: below 2.4 Starlette reads `http.disconnect` while it streams an answer, and takes pieces of the
request's body from an application that is still reading it.

Spec: ASGI 2.4, "Disconnected Client" (HTTP) and "Disconnected Client" (WebSocket).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.protocol.ws_stream import WSStream

from ..tasks import consists_of
from .messages import DISCONNECTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.typing import (
        ASGIFramework,
        ASGIReceiveCallable,
        ASGIReceiveEvent,
        ASGISendCallable,
        ASGISendEvent,
        HTTPResponseStartEvent,
        Scope,
    )


SPEC_VERSION = "2.4"
"""The version of ASGI's HTTP and WebSocket messages that applications are served with."""
_RECEIVE_STEPS = 16
"""Turns that another task of the application has to receive the disconnect before `send` fails of it: enough for one
that is about to read, and soon over for an application that does not read."""


class ClientDisconnected(OSError):
    """The application sends to a client that has disconnected."""

    def __init__(self) -> None:
        super().__init__("the client has disconnected")


def is_client_disconnected(error: BaseException) -> bool:
    """Return whether an application failed only because its client has disconnected."""
    return consists_of(error, ClientDisconnected)


class DisconnectWrapper(ASGIWrapper):
    """Hypercorn's wrapper of an application, whose `send` fails once the client has disconnected.

    Args:
        app: The ASGI application.
        alt_svc: The Alt-Svc field of responses whose application sets none (RFC 7838, section 3); None adds none.
    """

    def __init__(self, app: ASGIFramework, alt_svc: bytes | None = None) -> None:
        super().__init__(app)
        self._alt_svc = alt_svc

    async def __call__(
        self,
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        sync_spawn: Callable[..., Any],
        call_soon: Callable[..., Any],
    ) -> None:
        stream = getattr(send, "__self__", None)
        if scope["type"] != "lifespan":
            scope["asgi"]["spec_version"] = SPEC_VERSION

        received = False

        async def receive_and_note() -> ASGIReceiveEvent:
            nonlocal received
            message = await receive()
            received = received or message["type"] in DISCONNECTS
            return message

        async def send_or_fail(message: ASGISendEvent) -> None:
            await trio.lowlevel.checkpoint()
            if _is_disconnected(stream):
                for _ in range(_RECEIVE_STEPS):
                    if received:
                        break
                    await trio.lowlevel.checkpoint()
                raise ClientDisconnected
            if message["type"] == "http.response.start" and self._alt_svc is not None:
                message = _with_alt_svc(message, self._alt_svc)
            await send(message)

        try:
            await super().__call__(scope, receive_and_note, send_or_fail, sync_spawn, call_soon)
        except Exception as error:
            if not is_client_disconnected(error):
                raise


def _is_disconnected(stream: object) -> bool:
    # A stream is closed after a complete answer, too: what is sent then is the application's mistake.
    if isinstance(stream, HTTPStream):
        return stream.closed and stream.state is not ASGIHTTPState.CLOSED
    return isinstance(stream, WSStream) and stream.closed


def _with_alt_svc(message: HTTPResponseStartEvent, alt_svc: bytes) -> HTTPResponseStartEvent:
    headers = list(message.get("headers", []))
    if any(bytes(name).lower() == b"alt-svc" for name, _ in headers):
        return message
    return {**message, "headers": [*headers, (b"alt-svc", alt_svc)]}
