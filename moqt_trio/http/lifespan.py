"""The lifespan of an ASGI application: its startup before the first request, its shutdown after the last."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.trio.lifespan import Lifespan
from hypercorn.utils import LifespanTimeoutError

from ..loggers import Logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hypercorn.config import Config
    from hypercorn.typing import ASGIFramework

logger = Logger(__name__)


@asynccontextmanager
async def open_lifespan(
    nursery: trio.Nursery, app: ASGIFramework, config: Config, close_timeout: float
) -> AsyncIterator[dict[str, Any]]:
    """Start an application, yield the state that its requests share, and shut it down on exit.

    An application without lifespan support is left alone. Shutdown is waited for even when the block is cancelled,
    for at most `close_timeout` seconds then.

    Args:
        nursery: Where the application's task lives for the length of the block.
        app: The ASGI application.
        config: Hypercorn's settings: `startup_timeout`, `shutdown_timeout`, and the log.
        close_timeout: Seconds.

    Raises:
        RuntimeError: The application refused to start, or took too long.
    """
    life = _Life(app, config)
    scope: trio.CancelScope = await nursery.start(life.run)
    grace = close_timeout
    try:
        await life.start_up()
        yield life.state
        grace = config.shutdown_timeout
    finally:
        with trio.move_on_after(grace, shield=True):
            await life.shut_down()
        scope.cancel()


class _Life:
    """Hypercorn's `Lifespan`, whose waiting methods raise only some of its failures: here all are found."""

    def __init__(self, app: ASGIFramework, config: Config) -> None:
        self.state: dict[str, Any] = {}
        self._lifespan = Lifespan(ASGIWrapper(app), config, self.state)
        self._failure: Exception | None = None
        self._ended = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        # Shielded: an application ends by `lifespan.shutdown`, not by a cancellation.
        with trio.CancelScope(shield=True) as scope:
            task_status.started(scope)
            try:
                await self._lifespan.handle_lifespan()
            except Exception as error:
                self._failure = error
            finally:
                self._ended.set()

    async def start_up(self) -> None:
        try:
            await self._lifespan.wait_for_startup()
        except LifespanTimeoutError as error:
            raise RuntimeError("the ASGI application did not start in time") from error
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            # The application ended before it received `lifespan.startup`.
            pass
        if self._lifespan.shutdown.is_set():
            # It has failed, and `run` is about to record why.
            await self._ended.wait()
        if self._failure is not None:
            raise RuntimeError(f"the ASGI application refused to start: {self._failure}") from self._failure

    async def shut_down(self) -> None:
        if self._lifespan.shutdown.is_set() or not self._lifespan.startup.is_set():
            return
        try:
            await self._lifespan.wait_for_shutdown()
        except LifespanTimeoutError:
            logger.warning("the ASGI application did not shut down in time")
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            # It ended before it received `lifespan.shutdown`.
            return
        if self._failure is not None:
            logger.error("the ASGI application failed to shut down: %s", self._failure)
