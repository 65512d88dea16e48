"""RangeServer: answers a fetch of any range, with objects on a stream of their own.

A relay need not have what is fetched. Where the range is in one group, it fetches that from the track's publisher
(`model.broadcast.fetch_group`), and answers when the group is there: the answer says where the range ends.
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import SessionClosed, StreamReset
from ...model.broadcast import fetch_group
from ...model.cursor import GroupRange
from ...model.past import LAST, Place
from ...model.track import state_of
from ...protocol.ietf.events import JoinRequested, RangeRequested
from ...tasks import Wakeup, defer_interrupts, open_unwrapping_nursery
from ...timeouts import Timeout
from ...wire.messages import FetchUpdate
from .reply import ReplyStream, newest_of, past_of
from .request import RequestServer

if TYPE_CHECKING:
    from ...model.track import Track
    from ...protocol.events import Event
    from ...protocol.ietf.events import PastRange
    from ...protocol.ietf.fetch import FetchResponder
    from ...transport.stream import BidiStream
    from .join import JoinPoint
    from .request import Found, Serving

_LEAST_RTT = 0.005
"""The least round trip, in seconds: the measured one is 0 at first, and a process needs time to read."""


@defer_interrupts
class RangeServer(RequestServer):
    """Serves one fetch, by the priority of the request."""

    codes = "fetch"
    machine: FetchResponder

    def __init__(self, serving: Serving, stream: BidiStream, machine: FetchResponder) -> None:
        super().__init__(serving, stream, machine)
        self._reply: ReplyStream | None = None
        self._priority = 0
        self._accepted = False

    def handle(self, event: Event) -> None:
        match event:
            case RangeRequested():
                self._priority = event.priority
                self.find(event.path, event.track, partial(self._found, event.wanted))
            case JoinRequested():
                self._priority = event.priority
                self.context.start(self._join, event)
            case FetchUpdate():
                self._update(event.priority)
            case _:
                super().handle(event)

    def _update(self, priority: int) -> None:
        self._priority = priority
        if self._reply is not None:
            self._reply.priority = priority
            self.serving.scheduler.priority_changed(self._reply)
        self.send_ready()

    def send_ready(self) -> None:
        # The acceptance goes first, and it may be held back.
        if self._accepted and self.stream.writable and (answers := self.machine.answer_updates()):
            # The peer may have left meanwhile, or the session.
            with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
                self.stream.write(answers)

    def _found(self, wanted: PastRange | None, found: Found | None) -> None:
        if found is None:
            self.cancel(StreamCode.NOT_FOUND)
            return
        missing = None if wanted is None else _missing_group(found[1], wanted)
        if missing is None:
            self.context.start(self._serve, found[1], wanted, newest_of(found[1]))
        else:
            self.context.start(self._fetch, found, wanted, missing)

    async def _fetch(self, found: Found, wanted: PastRange | None, group: int) -> None:
        """Have a group fetched from the publisher of a relayed track, and serve the range from it.

        Limits: reply_timeout, for a group that the publisher is still writing.
        """
        publication, track = found
        fetched = fetch_group(publication.broadcast, track.name, group)
        if fetched is not None:
            with self.scope:
                await Timeout(self.context.limits.reply_timeout).wait(partial(_wait_whole, fetched, group))
            if self.scope.cancel_called:
                return
            # A scope can be entered once.
            self.scope = trio.CancelScope()
            if newest_of(fetched) is not None:
                await self._serve(fetched, wanted, newest_of(fetched), whole=track)
                return
            if state_of(fetched).aborted is not None:
                # The publisher has no such group, or does not say.
                self.cancel(StreamCode.NOT_FOUND)
                return
        await self._serve(track, wanted, newest_of(track))

    async def _join(self, event: JoinRequested) -> None:
        point: JoinPoint | None = None
        with self.scope:
            point = await self.serving.join_points.find(event.subscribe_id)
        if self.scope.cancel_called:
            return
        # A scope can be entered once.
        self.scope = trio.CancelScope()
        if point is None:
            self._refuse(self.machine.refuse_join())
        else:
            await self._serve(point.track, event.wanted, point.newest)

    async def _serve(
        self, track: Track, wanted: PastRange | None, newest: Place | None, *, whole: Track | None = None
    ) -> None:
        """Answer, and send the range.

        Args:
            track: What the range is read from.
            wanted: The range; None for one that no track has.
            newest: The newest frame that a range may have.
            whole: The track itself, where `track` has a group of it alone.
        """
        try:
            with self.scope:
                await trio.lowlevel.checkpoint_if_cancelled()
                past = None if wanted is None else past_of(track, wanted, newest)
                if past is None or wanted is None:
                    self._refuse(self.machine.refuse_range())
                    return
                if past.lost and not past.kept:
                    self.cancel(StreamCode.NOT_FOUND)
                    return
                ends = state_of(whole or track).ended and past.end == newest_of(whole or track)
                # A range may begin behind the last frame of its group: then it is empty, and ends where it begins.
                last = max(past.start, _last_frame(track, past.end))
                accepted = self.machine.accept(last, end_of_track=ends)
                sender = self.machine.reply(descending=wanted.descending, priority=track.priority)
                reply = self._reply = ReplyStream(self.serving, sender, track, past, self._priority)
                async with open_unwrapping_nursery() as nursery:
                    if self.context.dialect.quirks.forgets_fetches:
                        nursery.start_soon(self._accept_later, reply, accepted)
                    else:
                        self._accept(accepted)
                    complete = await reply.run()
                self.machine.finish()
                self.stream.finish()
                if complete:
                    self.serving.rate.give_back()
        except (StreamReset, SessionClosed, trio.ClosedResourceError):
            pass
        finally:
            if not self.stream.send_ended:
                self.cancel(StreamCode.CANCELLED)
            self.machine.release()

    def _accept(self, accepted: bytes) -> None:
        self.stream.write(accepted)
        self._accepted = True
        self.send_ready()

    async def _accept_later(self, reply: ReplyStream, accepted: bytes) -> None:
        """Accept once the peer has had time to see the stream of the objects."""
        await reply.begun.wait()
        await trio.sleep(2 * max(self.context.connection.statistics().rtt, _LEAST_RTT))
        self._accept(accepted)

    def _refuse(self, message: bytes) -> None:
        try:
            self.stream.write(message, fin=True)
            self.stream.stop(StreamCode.CANCELLED)
        except (StreamReset, SessionClosed, trio.ClosedResourceError):
            pass
        self.machine.release()


def _missing_group(track: Track, wanted: PastRange) -> int | None:
    """Return the group that a range is in, if the track lacks it from the range's first frame on; None otherwise."""
    start, end = wanted.start, wanted.end
    if end is None or isinstance(start, int) or start[0] != end[0]:
        return None
    group, first = start
    log = state_of(track)
    parts = log.parts(group)
    if parts and not log.lacks_parts(group) and max(part.first_id for part in parts) <= first:
        return None
    return group


async def _wait_whole(track: Track, group: int) -> None:
    """Wait until the only group of a track has ended, or was aborted."""
    log = state_of(track)
    wakeup = Wakeup()
    cursor = log.cursor(wakeup.set, range=GroupRange(group, group), max_age=math.inf, replay=True)
    log.attach(cursor)
    try:
        while not log.ended and log.aborted is None:
            await wakeup.wait()
    finally:
        log.detach(cursor)


def _last_frame(track: Track, end: Place) -> Place:
    """Return the last frame of a range, which may end with a whole group."""
    if end.frame < LAST:
        return end
    following = max((part.next_id for part in state_of(track).parts(end.group)), default=0)
    return Place(end.group, max(following - 1, 0))
