"""A broadcast while it is announced on one session: what `Session.publish` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .subscribe import leave_all

if TYPE_CHECKING:
    from types import TracebackType

    from ...model.origin import PublishedBroadcast
    from ...path import BroadcastPath
    from ..context import SessionContext
    from ..run import Dispatcher


class Publication:
    """A broadcast that is announced; see `Session.publish`."""

    def __init__(self, context: SessionContext, handler: Dispatcher, publication: PublishedBroadcast) -> None:
        self._context = context
        self._handler = handler
        self._publication = publication

    async def __aenter__(self) -> Publication:
        await trio.lowlevel.checkpoint()
        self._context.check_open()
        self._handler.origin.add(self._publication)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handler.origin.remove(self._publication)
        servers = [server for server in self._handler.servers if server.publication is self._publication]
        if kind is None:
            await leave_all(servers, self._context.limits.close_timeout)
        for server in servers:
            server.cancel()

    @property
    def path(self) -> BroadcastPath:
        """Where it is announced."""
        return self._publication.path

    def __repr__(self) -> str:
        return f"<Publication {str(self.path)!r}>"
