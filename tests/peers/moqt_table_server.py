"""A server with one table of broadcasts: what one session announces is offered to every other one.

Usage: `python -m tests.peers.moqt_table_server`. It listens on a free UDP port of 127.0.0.1 for WebTransport and raw
QUIC, with every version, and prints `{"event": "listening", "port": …, "fingerprint": …}`. It ends when its standard
input does.

Nothing is subscribed to before it is asked for. The first subscriber of a track makes this server subscribe to it at
the session that announced its path, or a prefix of its path; what arrives is written on a track of the table, groups
under their own numbers, which all subscribers read. The last one that leaves ends that subscription, and the track is
forgotten.

A track that a session offers (PUBLISH, IETF) is in the table from then on, announced or not: it is offered to those
that ask for tracks, and wakes up when it is first subscribed to.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from functools import partial

import trio

import moqt_trio as moqt

MAX_TRACKS = 256
"""Tracks that one announced broadcast may have at a time."""
UNREAD_SECONDS = 5.0
"""Seconds that a track which was asked about, or that was read, is kept without a subscription."""

logger = logging.getLogger("table")


class Source:
    """A broadcast that a session announced, as it is offered to the others."""

    def __init__(
        self, session: moqt.Session, nursery: trio.Nursery, path: moqt.BroadcastPath, *, announced: bool = True
    ) -> None:
        self.path = path
        self.announced = announced
        self.offered: set[str] = set()
        self.broadcast = moqt.Broadcast(on_request=self._requested)
        self.withdrawn = trio.Event()
        self.session = session
        self._nursery = nursery
        # What is asked for below the path that was announced.
        self._below: dict[moqt.BroadcastPath, moqt.Broadcast] = {}
        self._pulled = 0

    def _requested(self, below: moqt.BroadcastPath, name: str) -> moqt.Track | None:
        """Called with a track that is not there: makes it, and reads it from the session that announced the path."""
        if self.withdrawn.is_set() or self._pulled >= MAX_TRACKS:
            return None
        broadcast = self._below.setdefault(below, moqt.Broadcast()) if below.parts else self.broadcast
        known = broadcast.tracks.get(name)
        if known is not None:
            return known
        track = broadcast.track(name, max_age=30.0)
        self._pulled += 1
        self._nursery.start_soon(self._pull, broadcast, track, moqt.BroadcastPath(self.path.parts + below.parts))
        return track

    def add_offered(self, name: str) -> None:
        """Called with a track that the session offers: it is there before it is asked for."""
        if name not in self.broadcast.tracks and len(self.offered) < MAX_TRACKS:
            self.offered.add(name)
            self._nursery.start_soon(self._read_offered, self.broadcast.track(name, max_age=30.0))

    def remove_offered(self, name: str) -> None:
        """Called when the session offers a track no longer."""
        if name in self.offered:
            self.offered.discard(name)
            if name in self.broadcast.tracks:
                self.broadcast.remove(name)

    async def _read_offered(self, track: moqt.Track) -> None:
        """Copy the track whenever it has subscribers, until it ends or is withdrawn."""
        while not track.ended and track.name in self.offered:
            await track.wait_subscribed()
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._leave_unread, track, nursery.cancel_scope)
                    async with self.session.subscribe(self.path, track.name, max_age=30.0) as subscription:
                        await moqt.forward(subscription, track)
                    nursery.cancel_scope.cancel()
            except* (moqt.NotFound, moqt.StreamReset, moqt.GoingAway) as error:
                logger.info("%s of %s: %s", track.name, self.path, error.exceptions[0])
                track.abort()

    async def _pull(self, broadcast: moqt.Broadcast, track: moqt.Track, path: moqt.BroadcastPath) -> None:
        """Copy the track for as long as it has subscribers."""
        finished = False
        try:
            with trio.move_on_after(UNREAD_SECONDS):
                await track.wait_subscribed()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._leave_unread, track, nursery.cancel_scope)
                async with self.session.subscribe(path, track.name, max_age=30.0) as subscription:
                    await moqt.forward(subscription, track)
                finished = True
                nursery.cancel_scope.cancel()
        except* (moqt.NotFound, moqt.StreamReset, moqt.GoingAway) as error:
            logger.info("%s of %s: %s", track.name, path, error.exceptions[0])
        finally:
            self._pulled -= 1
            if not finished and broadcast.tracks.get(track.name) is track:
                broadcast.remove(track.name)

    async def _leave_unread(self, track: moqt.Track, scope: trio.CancelScope) -> None:
        """Stop copying a track once it has had no subscriber for a while; a group that is open then is reset."""
        while not scope.cancel_called:
            await track.wait_unsubscribed()
            with trio.move_on_after(UNREAD_SECONDS) as unread:
                await track.wait_subscribed()
            # One may come as another one leaves.
            if unread.cancelled_caught and not track.subscribers:
                scope.cancel()


class Table:
    """The broadcasts of all sessions. A path belongs to the session that announced it first, until it withdraws it."""

    def __init__(self) -> None:
        self._sources: dict[moqt.BroadcastPath, Source] = {}
        self._members: dict[moqt.Session, trio.Nursery] = {}

    async def handle(self, request: moqt.SessionRequest) -> None:
        """Serve one session."""
        async with request.accept() as session, trio.open_nursery() as nursery:
            self._members[session] = nursery
            try:
                for source in list(self._sources.values()):
                    nursery.start_soon(self._offer, session, source)
                await self._read(session, nursery)
                await session.wait_closed()
                nursery.cancel_scope.cancel()
            finally:
                del self._members[session]
                for source in [source for source in self._sources.values() if source.session is session]:
                    self._withdraw(source)

    async def _read(self, session: moqt.Session, nursery: trio.Nursery) -> None:
        """Keep the table as the session announces."""
        try:
            async with session.announcements() as announcements:
                if session.version.startswith("moqt-"):
                    # Up to draft 17 one message asks for both, and a peer may refuse the second of them.
                    nursery.start_soon(self._read_offers, session, nursery, announcements)
                async for announcement in announcements:
                    source = self._sources.get(announcement.path)
                    if not announcement.active:
                        if source is not None and source.session is session:
                            self._withdraw(source)
                    elif source is None:
                        self._add(Source(session, nursery, announcement.path))
                    elif source.session is session:
                        source.announced = True
        except (moqt.StreamReset, moqt.GoingAway):
            # It announces nothing, which a subscriber need not.
            pass

    async def _read_offers(
        self, session: moqt.Session, nursery: trio.Nursery, announcements: moqt.Announcements
    ) -> None:
        """Keep the tracks of the table as the session offers them."""
        await announcements.wait_initial()
        try:
            async with session.offered_tracks() as tracks:
                async for item in tracks:
                    source = self._sources.get(item.path)
                    if source is None and item.active:
                        source = Source(session, nursery, item.path, announced=False)
                        self._add(source)
                    if source is None or source.session is not session:
                        continue
                    if item.active:
                        source.add_offered(item.track)
                    else:
                        source.remove_offered(item.track)
                        if not source.announced and not source.offered:
                            self._withdraw(source)
        except (moqt.StreamReset, moqt.GoingAway, moqt.SessionClosed):
            pass

    def _add(self, source: Source) -> None:
        self._sources[source.path] = source
        for session, nursery in self._members.items():
            if session is not source.session:
                nursery.start_soon(self._offer, session, source)

    def _withdraw(self, source: Source) -> None:
        del self._sources[source.path]
        source.withdrawn.set()

    async def _offer(self, session: moqt.Session, source: Source) -> None:
        """Announce a broadcast to a session of another until it is withdrawn."""
        try:
            async with session.publish(source.path, source.broadcast):
                await source.withdrawn.wait()
        except moqt.SessionClosed:
            pass


async def serve() -> None:
    """Listen until standard input ends."""
    async with trio.open_nursery() as nursery:
        versions = moqt.version_names(opt_in=True)
        listener = await nursery.start(partial(moqt.serve, Table().handle, "127.0.0.1", 0, versions=versions))
        about = {"event": "listening", "port": listener.port, "fingerprint": listener.fingerprint}
        print(json.dumps(about), flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        await listener.aclose(grace=0)


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log-level", default="info")
    arguments = parser.parse_args()
    logging.basicConfig(level=arguments.log_level.upper(), format="%(relativeCreated)d %(name)s: %(message)s")
    trio.run(serve)


if __name__ == "__main__":
    main()
