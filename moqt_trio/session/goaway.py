"""GOAWAY of this side: sending it, and closing the session of a peer that stays for longer than it allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..arguments import milliseconds, want, want_time
from ..codes import SessionCode
from ..timeouts import Timeout

if TYPE_CHECKING:
    from .context import SessionContext


async def send_goaway(context: SessionContext, uri: str, timeout: float | None) -> None:
    """Send GOAWAY; see `Session.goaway`."""
    want(uri, str, "the URI of a GOAWAY is a text")
    if timeout is not None:
        want_time("timeout", timeout)
    context.check_open()
    machine = context.core.goaway(uri, milliseconds(timeout))
    if timeout is not None:
        context.start(_close_overdue, context, timeout)
    if context.core.keeps_setup_stream:
        await context.write_control(machine.opening)
        return
    try:
        stream = await context.connection.open_bidi()
    except BaseException:
        machine.undo()
        raise
    stream.write(machine.opening)


async def _close_overdue(context: SessionContext, timeout: float) -> None:
    """Close the session when the time to go is over."""
    if not await Timeout(timeout).wait(context.connection.wait_closed):
        context.close(SessionCode.GOAWAY_TIMEOUT, "the time to go is over")
