"""A disconnected client, as the application sees it: its next `send` raises an OSError, as ASGI requires.

Hypercorn lets an application go on sending after its client has disconnected; one that does not read
`http.disconnect` would do so for ever, and without a checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.protocol.http_stream import HTTPStream

from ..tasks import consists_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope


class ClientDisconnected(OSError):
    """The application sends to a client that has disconnected."""

    def __init__(self) -> None:
        super().__init__("the client has disconnected")


def is_client_disconnected(error: BaseException) -> bool:
    """Return whether an application failed only because its client has disconnected."""
    return consists_of(error, ClientDisconnected)


class DisconnectWrapper(ASGIWrapper):
    """Hypercorn's wrapper of an application over TCP, whose `send` fails once the client has disconnected."""

    async def __call__(
        self,
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        sync_spawn: Callable[..., Any],
        call_soon: Callable[..., Any],
    ) -> None:
        stream = getattr(send, "__self__", None)

        async def send_or_fail(message: ASGISendEvent) -> None:
            await trio.lowlevel.checkpoint()
            if isinstance(stream, HTTPStream) and stream.closed:
                raise ClientDisconnected
            await send(message)

        try:
            await super().__call__(scope, receive, send_or_fail, sync_spawn, call_soon)
        except Exception as error:
            if not is_client_disconnected(error):
                raise
