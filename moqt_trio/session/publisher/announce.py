"""AnnounceServer: answers the peer's request for announcements below a prefix, and sends every change.

NamespaceServer accepts what the peer announces by a request of its own, for as long as that request lasts.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import LocalProtocolError, SessionClosed, StreamReset
from ...loggers import Logger
from ...model.origin import NO_ROUTE
from ...path import BroadcastPath
from ...protocol.events import Announced, AnnouncementsRequested, Event, RequestCancelled
from ...protocol.paths import track_path_local
from ...tasks import defer_interrupts
from .request import RequestServer

if TYPE_CHECKING:
    from ...errors import MoqtError
    from ...model.origin import PublishedBroadcast, Route
    from ...protocol.announce import AnnounceResponder
    from ...protocol.ietf.publish_namespace import PublishNamespaceResponder
    from ...transport.stream import BidiStream
    from .request import Serving

logger = Logger(__name__)


@defer_interrupts
class AnnounceServer(RequestServer):
    """Announces what the session publishes below the peer's prefix.

    It keeps the paths that differ from what it announced last, and sends the difference: a change costs the same
    however much is published, and a slow peer costs no more memory than that.

    Each stream has a list of its own, as long as what is published. A peer may ask for the same one on every stream: it
    is billed for the time (`RequestRate.charge`), and refused while its lists have too many announcements together. One
    list may be as long as it likes.

    Limits: max_listed_announcements.
    """

    codes = "announce"
    machine: AnnounceResponder

    def __init__(self, serving: Serving, stream: BidiStream, machine: AnnounceResponder) -> None:
        super().__init__(serving, stream, machine)
        self._of_tracks = self.context.dialect.features.announce_tracks
        # What was announced, and the routes that were. Most have none, and a list may be long.
        self._announced: dict[BroadcastPath, PublishedBroadcast] = {}
        self._routes: dict[BroadcastPath, Route] = {}
        # True while the announcements count for `Limits.max_listed_announcements`.
        self._listed = False
        # The paths whose publication or route is not the one that was announced, or that are in only one of both.
        self._differing: dict[BroadcastPath, None] = {}

    def handle(self, event: Event) -> None:
        if isinstance(event, AnnouncementsRequested):
            self._requested()
        else:
            super().handle(event)

    def _requested(self) -> None:
        if self.serving.lists and self.serving.listed >= self.context.limits.max_listed_announcements:
            self._refuse()
            return
        prefix = self.machine.prefix
        # A prefix of tracks may end with the name of one, which no broadcast has in its path.
        watched = BroadcastPath(prefix.parts[:-1]) if self._of_tracks else prefix
        for item in self.serving.origin.below(watched).values():
            for path in self._paths(item, None):
                self._note_announced(path, item)
        self.serving.rate.charge(len(self._announced))
        self._listed = True
        self.serving.lists += 1
        self.serving.listed += len(self._announced)
        self.serving.origin.watch(watched, self._note)
        self.context.start(self._run, watched)

    def _refuse(self) -> None:
        logger.info("a list of announcements was refused: max_listed_announcements (%d)", self.serving.listed)
        self.cancel(StreamCode.NO_CAPACITY)

    def _unlist(self) -> None:
        if self._listed:
            self._listed = False
            self.serving.lists -= 1
            self.serving.listed -= len(self._announced)

    async def _run(self, watched: BroadcastPath) -> None:
        origin, namespaces, prefix = self.serving.origin, self.serving.namespaces, self.machine.prefix
        hidden = self.machine.shows_hidden
        namespaces.ask(prefix, hidden=hidden)
        try:
            with self.scope:
                while not self.stream.writable:
                    # The list may be long, and the peer may ask for it many times.
                    await self.wakeup.wait()
                self._accept()
                while True:
                    await self.wakeup.wait()
                    if self._differing and self.stream.writable:
                        self._announce_changes()
        except (StreamReset, SessionClosed, trio.ClosedResourceError):
            pass
        finally:
            self._unlist()
            namespaces.unask(prefix, hidden=hidden)
            origin.unwatch(watched, self._note)
            self.cancel(StreamCode.SESSION_CLOSED)

    def _accept(self) -> None:
        """Write the acceptance, with what is announced at first."""
        self.stream.write(
            self.machine.accept(
                (path, route.hops, route.cost, route.cold_cost)
                for path, route in ((path, self._routes.get(path, NO_ROUTE)) for path in self._announced)
            )
        )

    def _note_announced(self, path: BroadcastPath, item: PublishedBroadcast) -> None:
        self._announced[path] = item
        if item.route is NO_ROUTE:
            self._routes.pop(path, None)
        else:
            self._routes[path] = item.route

    def _note(self, publication: PublishedBroadcast, track: str | None) -> None:
        """Called when a publication came, went or changed its route, or has a new track."""
        if track is not None and not self._of_tracks:
            return
        for path in self._paths(publication, track):
            item = self._published(path)
            before, route = self._announced.get(path), self._routes.get(path, NO_ROUTE)
            if item is before and (item is None or item.route is route):
                self._differing.pop(path, None)
            else:
                self._differing[path] = None
                self.wakeup.set()

    def _paths(self, publication: PublishedBroadcast, track: str | None) -> list[BroadcastPath]:
        """Return the paths below the prefix by which a publication, or one track of it, is announced.

        In the versions before moq-lite these are the paths of tracks.
        """
        if not self._of_tracks:
            return [publication.path]
        found: list[BroadcastPath] = []
        for name in tuple(publication.broadcast.tracks) if track is None else (track,):
            try:
                whole = track_path_local(publication.path, name, self.context.limits)
            except LocalProtocolError as error:
                logger.info("a track cannot be announced in %s: %s", self.context.dialect.name, error)
                continue
            if self.machine.prefix.covers(whole):
                found.append(whole)
        return found

    def _published(self, path: BroadcastPath) -> PublishedBroadcast | None:
        """Return the publication that is announced by a path now."""
        origin = self.serving.origin
        if not self._of_tracks:
            return origin.get(path)
        found = origin.find(BroadcastPath(path.parts[:-1]), path.parts[-1])
        return None if found is None else found[0]

    def _announce_changes(self) -> None:
        """Write the changes since the last time: first the ends, so that the peer never counts more than there are.

        Another publication is an end and a start, another route of the same one an update.
        """
        machine, announced, serving = self.machine, self._announced, self.serving
        paths, self._differing = self._differing, {}
        before, limit = len(announced), self.context.limits.max_listed_announcements
        serving.listed -= before
        changes: list[bytes] = []
        for path in paths:
            if path in announced and announced[path] is not self._published(path):
                del announced[path]
                self._routes.pop(path, None)
                changes.append(machine.unannounce(path))
        for path in paths:
            item = self._published(path)
            if item is not None:
                route = item.route
                self._note_announced(path, item)
                changes.append(machine.announce(path, route.hops, route.cost, route.cold_cost))
        serving.listed += len(announced)
        if len(announced) > before and serving.lists > 1 and serving.listed > limit:
            # At once: the other lists look at what is left.
            self._unlist()
            self._refuse()
            self.scope.cancel()
            return
        data = b"".join(changes)
        if data:
            self.stream.write(data)


class NamespaceServer(RequestServer):
    """Holds one announcement of the peer's, which `Announcements` reads from the session's context."""

    codes = "announce"
    machine: PublishNamespaceResponder
    _held = False

    def handle(self, event: Event) -> None:
        if isinstance(event, Announced):
            # The announcer may have left meanwhile.
            with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
                self.stream.write(self.machine.accept())
            self._held = True
            self.context.peer_namespaces.add(event.path)
            return
        if isinstance(event, RequestCancelled):
            self._drop()
        super().handle(event)

    def failed(self, error: MoqtError) -> None:
        if not isinstance(error, SessionClosed):
            # The end of the session ends every broadcast of the peer, and is reported as such.
            self._drop()
        super().failed(error)

    def _drop(self) -> None:
        if self._held:
            self._held = False
            self.context.peer_namespaces.remove(self.machine.path)
