"""For the tests of applications: a server with its clients, or a pair of sessions, in one process.

`serve_in_memory` runs a handler or a router as `serve` does; `session_pair` runs two sessions without a server. The
link between the two sides can delay and lose. Nothing here opens a socket; with `trio.testing.MockClock` delays cost
no time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ..block import session_block
from ..limits import Limits
from ..session.run import run_session
from ..transport.link import LossyLink
from ..transport.memory import open_memory_pair
from ..wire import dialect as dialects
from .memory_server import MemoryServer, serve_in_memory

if TYPE_CHECKING:
    from ..session.session import Session

__all__ = ["LossyLink", "MemoryServer", "serve_in_memory", "session_pair"]


@session_block("async with session_pair() as (client, server):")
async def session_pair(
    version: str = "moq-lite-06",
    *,
    limits: Limits | None = None,
    client_limits: Limits | None = None,
    link: LossyLink | None = None,
) -> AsyncIterator[tuple[Session, Session]]:
    """Run two sessions that are connected to each other for as long as the block lasts.

    Args:
        version: The wire version that both speak.
        limits: The bounds of both sides.
        client_limits: The bounds of the client, when they differ.
        link: What lies between them; None for a perfect link without delay.

    Yields:
        The client's session and the server's.
    """
    dialect = dialects.get(version)
    limits = limits or Limits()
    async with (
        open_memory_pair(limits=limits, client_limits=client_limits, link=link, protocol=version) as (client, server),
        run_session(client, [dialect], limits=client_limits or limits) as client_session,
        run_session(server, [dialect], limits=limits) as server_session,
    ):
        yield client_session, server_session
