"""The life of an ASGI application: its startup before the first request, its shutdown after the last."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.lifespan import Lifespan
from hypercorn.utils import LifespanTimeoutError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hypercorn.config import Config
    from hypercorn.typing import ASGIFramework

_logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_lifespan(app: ASGIFramework, config: Config, close_timeout: float) -> AsyncIterator[dict[str, Any]]:
    """Starts an application, yields the state that its requests share, and shuts it down on exit.

    An application without lifespan support is left alone. Shutdown is waited for even when the block is cancelled,
    for at most `close_timeout` seconds then.

    Raises:
        RuntimeError: The application refused to start, or took longer than `config.startup_timeout`.
    """
    state: dict[str, Any] = {}
    lifespan = Lifespan(ASGIWrapper(app), config, state)
    failures: list[Exception] = []

    async def run(*, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        # Shielded: an application shuts down by what it is told, not by being cancelled.
        with trio.CancelScope(shield=True) as scope:
            task_status.started(scope)
            try:
                await lifespan.handle_lifespan()
            except Exception as error:
                failures.append(error)

    async with trio.open_nursery() as nursery:
        scope = await nursery.start(run)
        grace = close_timeout
        try:
            try:
                await lifespan.wait_for_startup()
            except LifespanTimeoutError as error:
                raise RuntimeError("the ASGI application did not start in time") from error
            if failures:
                raise RuntimeError(f"the ASGI application refused to start: {failures[0]}") from failures[0]
            yield state
            grace = config.shutdown_timeout
        finally:
            if lifespan.supported and not lifespan.shutdown.is_set():
                with trio.move_on_after(grace, shield=True):
                    await _shut_down(lifespan)
                if failures:
                    _logger.error("the ASGI application failed to shut down: %s", failures[0])
            scope.cancel()


async def _shut_down(lifespan: Lifespan) -> None:
    try:
        await lifespan.wait_for_shutdown()
    except LifespanTimeoutError:
        _logger.warning("the ASGI application did not shut down in time")
    except (trio.ClosedResourceError, trio.BrokenResourceError):
        # It ended between the look at it and the message to it.
        return
