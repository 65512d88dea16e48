"""ASGI applications that are written for asyncio, run inside Trio by trio-asyncio."""

from __future__ import annotations

import warnings
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

    from .asgi import AsgiApplication


@asynccontextmanager
async def asyncio_app(app: AsgiApplication) -> AsyncIterator[AsgiApplication]:
    """Open an asyncio event loop, and yield the application as one of Trio, for `serve(…, app=…)`.

    Startup, requests and shutdown all run in this one loop, in the thread of Trio, so that the application's locks,
    queues, connection pools and background tasks work as it expects. Keep the block open for as long as the server
    runs: leaving it ends the loop and cancels what still runs there.

    Args:
        app: An ASGI application that awaits asyncio: FastAPI with a database driver, for example.
    """
    # Imported here, because the import replaces the event loop policy of asyncio.
    with warnings.catch_warnings():
        # Of Python 3.12 and 3.13, whose child watchers trio-asyncio replaces while they are there.
        warnings.simplefilter("ignore", DeprecationWarning)
        import trio_asyncio

    async with trio_asyncio.open_loop() as loop:

        async def run(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            await trio_asyncio.aio_as_trio(app, loop=loop)(
                scope, trio_asyncio.trio_as_aio(receive, loop=loop), trio_asyncio.trio_as_aio(send, loop=loop)
            )

        yield run
