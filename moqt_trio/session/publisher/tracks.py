"""Offers of this side's tracks: OfferServer serves one, TrackOffers makes them, TracksServer does so when asked.

An offer (PUBLISH) is a subscription that this side opens. Once it is open, it is served as one that the peer made: its
updates wake it up, put it to sleep and end it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import LocalProtocolError, SessionClosed, StreamReset, printable
from ...loggers import Logger
from ...model.track import state_of
from ...protocol.events import AnnouncementsRequested, Event, RequestCancelled, SubscribeRequested
from ...protocol.ietf.core import IetfCore
from ...protocol.ietf.events import TracksRequested
from ...protocol.ietf.namespaces import NamespaceResponder
from ...protocol.ietf.tracks import TracksResponder
from ...protocol.paths import is_hidden
from ...tasks import Wakeup, defer_interrupts
from .announce import AnnounceServer
from .replies import info_of
from .subscribe import SubscribeServer

if TYPE_CHECKING:
    from ...errors import MoqtError
    from ...model.origin import PublishedBroadcast
    from ...path import BroadcastPath
    from ...protocol.ietf.publish import PublishRequester
    from ...protocol.machine import StreamMachine
    from ...transport.stream import BidiStream
    from .request import Found, Serving

logger = Logger(__name__)

_AT_ONCE = 16
"""Offers that are made before other tasks have their turn: about a millisecond's work."""
_RESERVE = 4
"""Requests that offers leave to others: a subscription of this side's would wait for the end of an offer."""


@defer_interrupts
class OfferServer(SubscribeServer):
    """Serves a track that this side has offered."""

    def __init__(self, serving: Serving, stream: BidiStream, machine: PublishRequester, found: Found) -> None:
        super().__init__(serving, stream, machine)  # type: ignore[arg-type]
        published, track = found
        self._found = found
        self._counts_as_request = False
        assert machine.request is not None
        # It is served at once, as no session that goes away offers tracks.
        self._answer(SubscribeRequested(published.path, machine.request), found)
        serving.offers[published.path, track.name] = self

    def _ended(self) -> None:
        super()._ended()
        published, track = self._found
        del self.serving.offers[published.path, track.name]
        for offers in tuple(self.serving.offering):
            offers.offer_ended(published.path, track.name, self._found)


class TrackOffers:
    """Offers the tracks below a prefix: those that there are, and each later one.

    A track is offered once. It is offered again when it was made anew under the same name, or published anew; a peer
    that has left or refused an offer has it no more.

    Args:
        serving: What the servers of the session share.
        prefix: The prefix.
        forward: True to send what is published at once, without being asked.
        only: The publication whose tracks are offered; None for every one below the prefix.
        hidden: True to offer tracks of hidden paths, too; without `only`.
        blocked: Called for a track for which there is no room, which then is not offered; without it, the offer waits.

    Limits: max_offered_tracks; also for those that wait, without `only`.
    """

    def __init__(
        self,
        serving: Serving,
        prefix: BroadcastPath,
        *,
        forward: bool,
        only: PublishedBroadcast | None = None,
        hidden: bool = False,
        blocked: Callable[[BroadcastPath, str], Awaitable[None]] | None = None,
    ) -> None:
        self._serving = serving
        self._prefix = prefix
        self._forward = forward
        self._only = only
        self._hidden = hidden
        self._blocked = blocked
        self._wakeup = Wakeup()
        # The tracks that were not offered yet, in order.
        self._due: dict[tuple[BroadcastPath, str], None] = {}

    async def run(self) -> None:
        """Offer tracks until this is cancelled. The offers go on when it ends."""
        serving = self._serving
        serving.origin.watch(self._prefix, self._note)
        serving.offering[self] = None
        try:
            for published in serving.origin.below(self._prefix).values():
                self._note(published, None)
            while True:
                await trio.lowlevel.checkpoint()
                if not await self._offer_some():
                    await self._wakeup.wait()
        finally:
            del serving.offering[self]
            serving.origin.unwatch(self._prefix, self._note)

    def _note(self, published: PublishedBroadcast, track: str | None) -> None:
        """Called when a publication came or went, or has a new track."""
        for name in tuple(published.broadcast.tracks) if track is None else (track,):
            self._want(published.path, name)

    def offer_ended(self, path: BroadcastPath, track: str, served: Found | None) -> None:
        """Called when an offer has ended, see `Offering`: the track may be another one by now."""
        if self._prefix.covers(path) and self._found(path, track) != served:
            self._want(path, track)
        self.resume()

    def resume(self) -> None:
        """Called when there may be room for further offers."""
        if self._due:
            self._wakeup.set()

    def _want(self, path: BroadcastPath, name: str) -> None:
        """Have a track offered, if there is one of this name that is to be."""
        key = path, name
        if self._found(path, name) is None:
            self._due.pop(key, None)
        elif self._only is None and len(self._due) >= self._serving.context.limits.max_offered_tracks:
            # Each list of the peer's would keep them.
            logger.debug("track %s of %s is not offered: max_offered_tracks", printable(name), printable(str(path)))
        else:
            self._due[key] = None
            self._wakeup.set()

    def _found(self, path: BroadcastPath, name: str) -> Found | None:
        """Return a track that is to be offered now, and its publication; None for one that is not."""
        serving = self._serving
        found = serving.origin.find(path, name)
        if found is None or found[1].ended or (self._only is not None and found[0] is not self._only):
            return None
        if serving.context.going_away.is_set():
            return None
        if self._only is None and not self._hidden and is_hidden(self._prefix.suffix_of(path).parts):
            return None
        # What the peer itself offers goes back to it in no case.
        return None if (path, name) in serving.offers or serving.offered_by_peer(path, name) else found

    async def _offer_some(self) -> bool:
        """Offer some of the tracks that are due; return whether there are more, and room for them."""
        for _ in range(_AT_ONCE):
            key = next(iter(self._due), None)
            if key is None:
                return False
            if self._offer(*key):
                del self._due[key]
            elif self._blocked is None:
                return False
            else:
                del self._due[key]
                await self._blocked(*key)
        return True

    def _offer(self, path: BroadcastPath, name: str) -> bool:
        """Offer a track, if it is still to be; return False when there is no room for it now."""
        serving, context = self._serving, self._serving.context
        found = self._found(path, name)
        if found is None:
            return True
        if len(serving.offers) >= context.limits.max_offered_tracks:
            return False
        try:
            stream = context.open_request_nowait(reserve=_RESERVE)
        except trio.WouldBlock:
            return False
        self._begin(stream, found)
        return True

    def _begin(self, stream: BidiStream, found: Found) -> None:
        published, track = found
        core = self._serving.context.core
        assert isinstance(core, IetfCore)
        newest = state_of(track).largest
        try:
            machine = core.offer(published.path, track.name, forward=self._forward, newest=newest, info=info_of(track))
        except LocalProtocolError as error:
            logger.warning("track %s is not offered, as it cannot be described: %s", printable(track.name), error)
            stream.reset(StreamCode.INTERNAL_ERROR)
            stream.stop(StreamCode.INTERNAL_ERROR)
            return
        stream.write(machine.opening)
        stream.handler = OfferServer(self._serving, stream, machine, found)


@defer_interrupts
class TracksServer(AnnounceServer):
    """Offers the tracks below the peer's prefix. In draft 17 the same request may ask for announcements, too.

    The peer is billed for the tracks that there are (`RequestRate.charge`).
    """

    def __init__(self, serving: Serving, stream: BidiStream, machine: StreamMachine) -> None:
        assert isinstance(machine, NamespaceResponder | TracksResponder)
        super().__init__(serving, stream, machine)  # type: ignore[arg-type]
        self._responder = machine
        self._announces = False
        self._offering = trio.CancelScope()
        # For the task that offers: that of the announcements has a wake-up of its own.
        self._room = Wakeup()

    def handle(self, event: Event) -> None:
        match event:
            case TracksRequested() | AnnouncementsRequested() if self._responder.overlaps:
                self._refuse_overlap()
            case TracksRequested():
                self._begin(event)
            case AnnouncementsRequested():
                self._announces = True
                super().handle(event)
            case RequestCancelled():
                self._offering.cancel()
                super().handle(event)
            case _:
                super().handle(event)

    def failed(self, error: MoqtError) -> None:
        self._offering.cancel()
        super().failed(error)

    def send_ready(self) -> None:
        super().send_ready()
        self._room.set()

    def _accept(self) -> None:
        super()._accept()
        self._room.set()

    def _refuse_overlap(self) -> None:
        """Refuse a list whose tracks another one of the peer's has, or some of them: each track is offered once."""
        if not self._responder.answered:
            prefix = printable(str(self._responder.prefix))
            logger.info("a list of tracks below %s was refused: another one has some of them", prefix)
            self.cancel(StreamCode.NO_CAPACITY)

    def _begin(self, event: TracksRequested) -> None:
        """Accept the request, unless its announcements do so, and start to offer."""
        if self._announces:
            if not self._responder.answered:
                self.context.start(self._offer, event)
            return
        accepted = self._responder.accept()
        # The peer may have left meanwhile, or the session.
        with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
            if accepted:
                self.stream.write(accepted)
                self.context.start(self._offer, event)

    async def _offer(self, event: TracksRequested) -> None:
        below = self.serving.origin.below(event.prefix).values()
        self.serving.rate.charge(sum(len(published.broadcast.tracks) for published in below))
        with suppress(StreamReset, SessionClosed, trio.ClosedResourceError), self._offering:
            # Where requests share a stream, no message says that there is no room: the offers wait for it.
            blocked = self._blocked if self.context.requests is None else None
            hidden = self._responder.shows_hidden
            await TrackOffers(self.serving, event.prefix, forward=event.forward, hidden=hidden, blocked=blocked).run()

    async def _blocked(self, path: BroadcastPath, track: str) -> None:
        # Nothing comes before the acceptance, which may be longer than what the peer reads.
        while not self.stream.writable or not self._responder.answered:
            await self._room.wait()
        self.stream.write(self._responder.blocked(path, track))
