"""A nursery whose single failure reaches the caller bare."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


def consists_of(error: BaseException, kinds: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    """Returns True for an exception of these kinds, and for a group that holds nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(consists_of(item, kinds) for item in error.exceptions)
    return isinstance(error, kinds)


def _lone(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Returns the one exception in a group, or None when several tasks really failed."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        if len(found.exceptions) != 1:
            return None
        found = found.exceptions[0]
    return found


@asynccontextmanager
async def open_bare_nursery() -> AsyncIterator[trio.Nursery]:
    """Opens a nursery; an `ExceptionGroup` leaves it only when several tasks failed.

    Cancellations that travel together with one failure do not count as failures of their own.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        _, failures = group.split(trio.Cancelled)
        if failures is None:
            raise
        lone = _lone(failures)
        if lone is None:
            raise
        # The group adds nothing to what the single exception says, so it is not kept as its context either.
        cause, context = lone.__cause__, lone.__context__
        try:
            raise lone
        finally:
            lone.__cause__ = cause
            lone.__context__ = context
            del lone
