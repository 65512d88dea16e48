"""OfferedTracks: the tracks that the peer offers below a prefix, as the application reads them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, ClassVar

import attrs

from ...errors import LocalProtocolError, printable
from ...loggers import Logger
from ...protocol.events import Event, RequestRefused
from ...protocol.ietf.core import IetfCore
from ...protocol.ietf.events import TrackBlocked
from ...tasks import defer_interrupts
from .receive_queue import ReceiveQueue
from .request import Request

if TYPE_CHECKING:
    from ...codes import CodeSpace
    from ...errors import MoqtError
    from ...path import BroadcastPath
    from ...protocol.ietf.tracks import TracksRequester
    from ..context import SessionContext
    from .publish import Offer, Offers

logger = Logger(__name__)


@attrs.frozen
class OfferedTrack:
    """A track that the peer offers, or no longer offers.

    Attributes:
        path: The broadcast's path.
        track: The track's name.
        active: True when it is offered, False when that has ended.
    """

    path: BroadcastPath
    track: str
    active: bool


@defer_interrupts
class OfferedTracks(Request[OfferedTrack]):
    """The tracks that the peer offers below a prefix. Use it as `async with session.offered_tracks(prefix) as tracks`.

    Iterate over it for changes. The tracks that are offered already come first. Entering it asks the peer to offer what
    it has; what a peer offers unasked comes as well. Iteration goes on until the session ends. Leaving the block ends
    no offer: `Session.subscribe` goes on using them.

    A peer may refuse prefixes that overlap. A list below the prefix of another one then has what that one is offered,
    for as long as that one is open; a list above it fails.
    """

    _codes: ClassVar[CodeSpace] = "announce"
    _block = "list of offered tracks"
    _line = "session.offered_tracks({}) as tracks"

    def __init__(self, context: SessionContext, offers: Offers, prefix: BroadcastPath) -> None:
        super().__init__(context, ReceiveQueue(self._block), str(prefix))
        self._offers = offers
        self._prefix = prefix
        self._machine: TracksRequester | None = None
        # True while this request counts among those that ask.
        self._asked = False
        self._active: dict[tuple[BroadcastPath, str], OfferedTrack] = {}
        # What the application has read. A reader that is too slow gets the difference from it.
        self._read: dict[tuple[BroadcastPath, str], OfferedTrack] = {}
        self._most_unread = context.limits.max_queued_announcements

    async def _open(self) -> None:
        core = self._context.core
        if not isinstance(core, IetfCore):
            raise LocalProtocolError(f"{core.dialect.name} has no offers of tracks")
        self._machine = core.request_tracks(self._prefix)
        for offer in self._offers.all():
            self._changed(offer)
        self._offers.watch(self._changed)
        await self._open_stream(self._machine)
        self._asked = True
        self._offers.asked[self._prefix] += 1

    def _changed(self, offer: Offer) -> None:
        """Called when an offer came or went."""
        if not self._prefix.covers(offer.path) or self._queue.ended:
            return
        key = offer.path, offer.track
        change = OfferedTrack(*key, offer.active)
        if offer.active:
            self._active[key] = change
        else:
            self._active.pop(key, None)
        unread = self._queue.items
        self._queue.put(change)
        if len(unread) > self._most_unread:
            # As for announcements: the difference is all that a reader has to know.
            unread.clear()
            unread.extend(OfferedTrack(*known, False) for known in self._read if known not in self._active)
            unread.extend(item for known, item in self._active.items() if known not in self._read)
            self._most_unread = max(self._context.limits.max_queued_announcements, 2 * len(unread))

    def _on_event(self, event: Event) -> None:
        match event:
            case TrackBlocked():
                logger.info(
                    "track %s of %s is not offered, as no stream is left for it",
                    printable(event.track),
                    printable(str(event.path)),
                )
            case RequestRefused():
                assert self._machine is not None
                self._forget_asked()
                shared = self._machine.overlaps and any(asked.covers(self._prefix) for asked in self._offers.asked)
                if not (self._machine.unsupported or shared):
                    # A peer that cannot be asked may offer all the same.
                    self._on_reset(event.code)
            case _:
                pass

    def _on_failure(self, error: MoqtError) -> None:
        self._queue.fail(error)

    def _forget_asked(self) -> None:
        if self._asked:
            self._asked = False
            self._offers.asked -= Counter((self._prefix,))

    def _close(self) -> None:
        self._offers.unwatch(self._changed)
        self._forget_asked()
        super()._close()

    async def receive(self) -> OfferedTrack:
        """Wait for the next change. Cancelling loses nothing.

        Raises:
            StreamReset: The peer refused to offer what it has, as it does not want this side to have it.
            RemoteProtocolError: The peer broke the protocol on the request's stream.
            SessionClosed: The session ended.
            LocalProtocolError: The block was not entered.
            trio.ClosedResourceError: This side closed the list.
            trio.BusyResourceError: Another task is receiving.
        """
        change = await self._queue.receive()
        key = change.path, change.track
        if change.active:
            self._read[key] = change
        else:
            self._read.pop(key, None)
        return change

    @property
    def active(self) -> tuple[OfferedTrack, ...]:
        """The tracks that are offered now."""
        return tuple(self._active.values())

    def __repr__(self) -> str:
        return f"<OfferedTracks below {str(self._prefix)!r}, {len(self._active)} active, {len(self._queue)} unread>"
