"""Waiting for the peer's SETUP, in the versions that have one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import trio

from ..errors import LocalProtocolError
from ..timeouts import Timeout

if TYPE_CHECKING:
    from .context import SessionContext


def has_setup(context: SessionContext) -> bool:
    """Return whether the version has SETUP of both sides, apart from a negotiation."""
    return context.dialect.features.setup in ("uni", "shared")


async def wait_setup(context: SessionContext) -> None:
    """Wait for the peer's SETUP, in the versions that have one.

    Raises:
        SessionClosed: The session ended instead: this is how a server refuses.
        LocalProtocolError: No SETUP arrived within `Limits.setup_timeout`.
    """
    if not has_setup(context):
        return
    in_time = await Timeout(context.limits.setup_timeout).wait(partial(_wait_setup_or_end, context))
    if context.setup_received.is_set():
        return  # What came after it, and be it the end, is the session's.
    context.check_open()
    if not in_time:
        raise LocalProtocolError("the peer sent no SETUP in time")


async def _wait_setup_or_end(context: SessionContext) -> None:
    async with trio.open_nursery() as nursery:
        # Neither raises: what the failure of a task brings along would hold the failure.
        nursery.start_soon(_cancel_after, context.setup_received.wait, nursery.cancel_scope)
        nursery.start_soon(_cancel_after, context.connection.wait_closed, nursery.cancel_scope)


async def _cancel_after(wait: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    await wait()
    scope.cancel()
