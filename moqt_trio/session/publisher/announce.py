"""AnnounceServer: answers the peer's request for announcements below a prefix, and sends every change."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import LocalProtocolError, SessionClosed, StreamReset
from ...path import BroadcastPath
from ...protocol.events import AnnouncementsRequested, Event
from ...protocol.paths import track_path_local
from .request import RequestServer

if TYPE_CHECKING:
    from ...model.origin import PublishedBroadcast
    from ...protocol.announce import AnnounceResponder

logger = logging.getLogger(__name__)


class AnnounceServer(RequestServer):
    """Announces what the session publishes below the peer's prefix.

    It sends the difference between what is published and what it announced last, so that a slow peer costs no memory.
    """

    codes = "announce"
    machine: AnnounceResponder

    def handle(self, event: Event) -> None:
        if isinstance(event, AnnouncementsRequested):
            self.context.start(self._run)
        else:
            super().handle(event)

    async def _run(self) -> None:
        origin, prefix = self.serving.origin, self.machine.prefix
        origin.watch(self.wakeup.set)
        try:
            with self.scope:
                announced = self._available(prefix)
                self.stream.write(
                    self.machine.accept([(path, item.hops, item.cost, item.cost) for path, item in announced.items()])
                )
                while True:
                    await self.wakeup.wait()
                    if self.stream.writable:
                        announced = self._announce_changes(prefix, announced)
        except (StreamReset, SessionClosed, trio.ClosedResourceError):
            pass
        finally:
            origin.unwatch(self.wakeup.set)
            self.cancel(StreamCode.SESSION_CLOSED)

    def _available(self, prefix: BroadcastPath) -> dict[BroadcastPath, PublishedBroadcast]:
        """Return what to announce below a prefix, by path: broadcasts, or in the versions before moq-lite tracks."""
        origin, dialect = self.serving.origin, self.context.dialect
        if not dialect.features.announce_tracks:
            return origin.below(prefix)
        found: dict[BroadcastPath, PublishedBroadcast] = {}
        for path, item in origin.below(BroadcastPath()).items():
            for track in item.broadcast:
                try:
                    whole = track_path_local(path, track.name, self.context.limits)
                except LocalProtocolError as error:
                    logger.info("a track cannot be announced in %s: %s", dialect.name, error)
                    continue
                if prefix.covers(whole):
                    found[whole] = item
        return found

    def _announce_changes(
        self, prefix: BroadcastPath, announced: dict[BroadcastPath, PublishedBroadcast]
    ) -> dict[BroadcastPath, PublishedBroadcast]:
        """Write the changes since the last time, and return what is announced now."""
        machine, current = self.machine, self._available(prefix)
        changes = [machine.unannounce(path) for path, item in announced.items() if current.get(path) is not item]
        changes += [
            machine.announce(path, item.hops, item.cost, item.cost)
            for path, item in current.items()
            if announced.get(path) is not item
        ]
        data = b"".join(changes)
        if data:
            self.stream.write(data)
        return current
