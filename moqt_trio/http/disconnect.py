"""A client that has left, as the application sees it: its next `send` is an OSError, as ASGI asks.

Hypercorn lets an application go on sending after its client has left; one that never listens for `http.disconnect`
would do so for ever, and without a checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.protocol.http_stream import HTTPStream

from ..tasks import consists_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.typing import Scope


class ClientDisconnected(OSError):
    """The application sends to a client that has left."""

    def __init__(self) -> None:
        super().__init__("the client is gone")


def is_client_disconnected(error: BaseException) -> bool:
    """Whether an application failed of nothing but its client's absence."""
    return consists_of(error, ClientDisconnected)


class DisconnectWrapper(ASGIWrapper):
    """Hypercorn's wrapper of an application over TCP, for which sending to a client that has left fails."""

    async def __call__(
        self,
        scope: Scope,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
        sync_spawn: Callable[..., Any],
        call_soon: Callable[..., Any],
    ) -> None:
        stream = getattr(send, "__self__", None)

        async def send_or_fail(message: Any) -> None:
            await trio.lowlevel.checkpoint()
            if isinstance(stream, HTTPStream) and stream.closed:
                raise ClientDisconnected
            await send(message)

        try:
            await super().__call__(scope, cast("Any", receive), cast("Any", send_or_fail), sync_spawn, call_soon)
        except Exception as error:
            if not is_client_disconnected(error):
                raise
