"""A client that has gone away, as the application sees it: its next `send` is an OSError, as ASGI asks.

Hypercorn lets applications go on sending into nothing; one that never listens for `http.disconnect` would do so for
ever, and without giving way to another task.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.protocol.http_stream import HTTPStream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.typing import Scope


class ClientDisconnected(OSError):
    """The application sends to a client that no longer listens."""

    def __init__(self) -> None:
        super().__init__("the client is gone")


def is_client_gone(error: BaseException) -> bool:
    """Returns True for an application's failure that is nothing but its client's absence."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_client_gone(inner) for inner in error.exceptions)
    return isinstance(error, ClientDisconnected)


class DisconnectWrapper(ASGIWrapper):
    """Hypercorn's wrapper of an application over TCP, for which sending to nobody fails."""

    async def __call__(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
        sync_spawn: Callable[..., Any],
        call_soon: Callable[..., Any],
    ) -> None:
        stream = getattr(send, "__self__", None)

        async def send_to_somebody(message: Any) -> None:
            await trio.lowlevel.checkpoint()
            if isinstance(stream, HTTPStream) and stream.closed:
                raise ClientDisconnected
            await send(message)

        try:
            await super().__call__(scope, cast("Any", receive), cast("Any", send_to_somebody), sync_spawn, call_soon)
        except Exception as error:
            if not is_client_gone(error):
                raise
