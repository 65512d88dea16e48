"""What every transport must do, as functions that are given a way to make a connected pair.

A test module of a transport parametrises over `CHECKS` and passes its factory: `factory(limits)` is an async context
manager that yields the client's and the server's `Connection`. A transport that passes them all can carry a session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from tests.transport import checks_connection, checks_credit, checks_streams

if TYPE_CHECKING:
    from tests.transport.recorders import Factory

CHECKS = [
    checks_streams.both_directions,
    checks_streams.half_close,
    checks_streams.reset_code,
    checks_streams.stop_code,
    checks_streams.many_streams,
    checks_streams.many_exchanges,
    checks_streams.stream_limit,
    checks_credit.clogged_stream,
    checks_credit.clogged_connection,
    checks_credit.credit_after_reset,
    checks_connection.cancellation,
    checks_credit.close_while_clogged,
    checks_connection.cancelled_close,
    checks_connection.datagrams,
    checks_connection.datagram_queue,
    checks_connection.close_reason,
    checks_connection.loss_wakes_everyone,
    checks_streams.one_task_each,
    checks_streams.after_the_end,
    checks_connection.checkpoints,
    checks_streams.handlers,
    checks_credit.handler_hears_of_room,
]
"""Every check, in the order in which they are worth reading."""


async def run_check(check: Callable[[Factory], object], factory: Factory) -> None:
    """Run one check, and fail rather than hang."""
    with trio.fail_after(15):
        await check(factory)  # type: ignore[misc]
