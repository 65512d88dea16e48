"""The lease of a grant: the block in which a session holds it, and at whose end by time the session closes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

import trio

from .block import session_block
from .codes import SessionCode
from .loggers import Logger
from .tasks import open_unwrapping_nursery

if TYPE_CHECKING:
    from .errors import MoqtError

logger = Logger(__name__)

LINE = "async with request.accept() as session, grant.lease(session):"
"""The line to write, for messages."""


class Moved(Protocol):
    """What a session has moved."""

    @property
    def bytes_sent(self) -> int:
        """Bytes that were sent."""
        ...

    @property
    def bytes_received(self) -> int:
        """Bytes that were received."""
        ...


class Numbers(Protocol):
    """The numbers of a session."""

    @property
    def transport(self) -> Moved:
        """Those of its connection."""
        ...


class LeasedSession(Protocol):
    """What a lease needs of a session."""

    def statistics(self) -> Numbers:
        """Return its numbers."""
        ...

    @property
    def closed(self) -> MoqtError | None:
        """How it ended, or None while it runs."""
        ...

    def close(self, code: int = 0, reason: str = "") -> None:
        """Start closing at once."""
        ...


def end_session(session: LeasedSession, reason: str) -> None:
    """Close a session because it no longer may go on."""
    if session.closed is None:
        logger.info("%r is closed: %s", session, reason)
        session.close(SessionCode.UNAUTHORIZED, reason)


def deadline_of(expires: float | None) -> float:
    """Return when a Unix time is there, on Trio's clock; infinity for None."""
    return trio.current_time() + ((float("inf") if expires is None else expires) - time.time())


@trio.lowlevel.enable_ki_protection
async def _close_at(session: LeasedSession, expires: float) -> None:
    await trio.sleep_until(deadline_of(expires))
    end_session(session, "the grant has expired")


@session_block(LINE)
async def expiring(session: LeasedSession, expires: float | None) -> AsyncIterator[None]:
    """Close a session when a Unix time comes within the block; None for never."""
    async with open_unwrapping_nursery() as nursery:
        if expires is not None:
            nursery.start_soon(_close_at, session, expires)
        yield
        nursery.cancel_scope.cancel()
