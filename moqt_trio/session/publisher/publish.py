"""A broadcast while it is announced on one session: what `Session.publish` returns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from .subscribe import leave_all

if TYPE_CHECKING:
    from types import TracebackType

    from ...model.origin import Publication
    from ...path import BroadcastPath
    from ..context import SessionDriver
    from ..run import SessionSink


class Published:
    """A broadcast that is announced; see `Session.publish`."""

    def __init__(self, driver: SessionDriver, sink: SessionSink, publication: Publication) -> None:
        self._driver = driver
        self._sink = sink
        self._publication = publication

    async def __aenter__(self) -> Published:
        await trio.lowlevel.checkpoint()
        self._driver.check_open()
        self._sink.origin.add(self._publication)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sink.origin.remove(self._publication)
        servers = [server for server in self._sink.servers if server.publication is self._publication]
        if kind is None:
            await leave_all(servers, self._driver.limits.close_timeout)
        for server in servers:
            server.cancel()

    @property
    def path(self) -> BroadcastPath:
        """Where it is announced."""
        return self._publication.path

    def __repr__(self) -> str:
        return f"<Published {str(self.path)!r}>"
