"""Pull: one track of a front, as it is read from one source after another.

Theory of operation. A pull is begun by the first request for its track. Its task belongs to the session of the source:
it subscribes, makes the track from what the publisher says of it, answers the request, and copies groups for as long
as the track has a subscriber. When the last one leaves, the upstream subscription ends at once, and the task waits for
the next one. What was received stays in the track's cache.

    BEGINNING --track made--> READING <--> RESTING
        |                        |            |
        +------------------------+------------+--> the source is lost: the next one continues, or the track ends

When there is a better source than the one that is read, the upstream subscription is ended with the latest group, and
the better source continues with the one after it.

A group whose stream ends with its source, or with the last subscriber, stays open: its frames so far are whole, and the
next stream of the same group continues it. Frames that are there already are skipped, by their number. A kept group
that the next source does not continue within `Limits.takeover_timeout`, or continues only after a gap, is reset.

The source is asked as its most demanding subscriber wants the track: with the highest priority and age, and in order
when all want that. A change of this is told to the source, the newest one when several come at once.

The end of a pull is reported to its front in a `finally`, without waiting: the front starts the next source's task
there, so that no task outlives the session that it reads from.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

import trio

from ..codes import StreamCode
from ..errors import LocalProtocolError, MoqtError, NotFound, RemoteProtocolError, SessionClosed, StreamReset, printable
from ..loggers import Logger
from ..model.group import mark_headless
from ..model.keys import key_of
from ..model.track import state_of
from ..model.track_state import AGE_BOUND
from ..session.run import received_goaway
from ..tasks import Wakeup, open_unwrapping_nursery
from .copying import copy, copy_here, is_short_and_here
from .frames import are_alike, convert, timescale_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ..model.group import GroupWriter
    from ..model.keys import GroupKey
    from ..model.track import Track
    from ..model.track_requests import TrackRequest
    from ..path import BroadcastPath
    from ..session.session import Session
    from ..session.subscriber.group import GroupReader
    from ..session.subscriber.subscribe import Subscription
    from ..session.subscriber.track import TrackProperties

logger = Logger(__name__)

_OVER = SessionClosed(reason="the session with the source is over")
MOVED = SessionClosed(reason="the source is left")
"""How a pull ends that goes over to a better source: this one did nothing wrong."""
_LOST = (SessionClosed, trio.ClosedResourceError)
"""How reading fails when the source is lost, or this side has ended the subscription."""


_MAX_AGE = 5.0
"""Seconds for which a group is wanted after a newer one, where no subscriber says: as in `Session.subscribe`."""


class Terms(NamedTuple):
    """How a source is asked for a track; the arguments of `Session.subscribe`."""

    priority: int = 127
    ordered: bool = False
    max_age: float = _MAX_AGE


class PullSource(Protocol):
    """A session, as what is pulled from it sees it."""

    session: Session

    def start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Start a task in the session's nursery."""

    def inside(self, path: BroadcastPath) -> BroadcastPath:
        """Return a path of the origin as the peer has it."""
        ...

    def may_serve(self, path: BroadcastPath) -> bool:
        """Return whether the peer may publish at a path of the origin: it may do so at one, and not below it."""
        ...


class Pull:
    """One track that is read from a source.

    Args:
        path: The broadcast's path on the origin.
        name: The track's name.
        request: Whom to answer once the track is made, or refused; None for a track that is there already.
        make_track: Makes the track, with what the publisher says of it, if it does.
        ended: Called when the source has no more of it: with the pull, and the error, or None at the track's clean end.
        best: Returns the source to read it from, if any.
        hold: Seconds for which a better source has to stay the best one, before it is gone over to.

    Attributes:
        track: The track, once it is made.
        source: Where it is read now.
        tried: The sources that failed since one has brought a frame.
        refused: The sources that had no such track.
    """

    def __init__(
        self,
        path: BroadcastPath,
        name: str,
        request: TrackRequest | None,
        make_track: Callable[[str, TrackProperties | None], Track],
        ended: Callable[[Pull, Exception | None], None],
        best: Callable[[Pull], PullSource | None],
        hold: float,
    ) -> None:
        self.path = path
        self.name = name
        self.track: Track | None = None
        self.source: PullSource | None = None
        self.tried: list[PullSource] = []
        self.refused: list[PullSource] = []
        self._request = request
        self._make_track = make_track
        self._ended = ended
        self._best = best
        self._hold = hold
        self._reconsidered = trio.Event()
        self._subscribed = False
        self._asked = Terms()
        self._wishes = Wakeup()
        # True once the source is left for a better one, and the last group that is taken from it.
        self._leaving = False
        self._last_group: int | None = None
        self._scope = trio.CancelScope()
        # The groups that were begun and not ended, and those of them that a stream continues now.
        self._open: dict[GroupKey, GroupWriter] = {}
        self._arriving: set[GroupKey] = set()
        self._properties: TrackProperties | None = None
        self._scale = (1, 1)
        self._cancelled = False
        self._last = False

    @property
    def reading(self) -> bool:
        """True while there is a subscription upstream."""
        return self._subscribed

    # -- for the front ---------------------------------------------------------------------------------------

    def begin(self, source: PullSource) -> None:
        """Read from a source from now on."""
        self.source = source
        self._leaving, self._last_group = False, None
        self._scope = trio.CancelScope()
        source.start(self.run)

    def cancel(self) -> None:
        """Stop for good: no one waits for the track any more, or the front has ended."""
        self._cancelled = True
        self._scope.cancel()

    def retire(self) -> None:
        """Go on for the subscribers that there are, and then end: the broadcast is no longer announced."""
        self._last = True
        if self.track is None or not self.track.subscribers:
            self.cancel()
            self.end(None)

    def move(self) -> None:
        """Stop reading from the source, so that the front chooses the next one."""
        self._scope.cancel()

    def forget(self, source: PullSource) -> None:
        """Have a source asked again that failed or refused before: it is gone, or announces the broadcast anew."""
        for sources in (self.tried, self.refused):
            with suppress(ValueError):
                sources.remove(source)

    def reconsider(self) -> None:
        """Look whether the source is still the best one, and go over to the best one with the next group."""
        self._reconsidered.set()

    def end(self, error: Exception | None) -> None:
        """End the track as its last source did: cleanly, or reset."""
        if self.track is None:
            if self._request is not None and self._request.wanted:
                self._request.refuse()
            return
        if error is None:
            self._reset_kept(StreamCode.CANCELLED)
            self.track.finish()
        else:
            code = error.code if isinstance(error, StreamReset) else StreamCode.GOING_AWAY
            self._reset_kept(code)
            self.track.abort(code=code)

    # -- the task --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Read the track from the source until it ends there."""
        error: Exception | None = _OVER
        try:
            with self._scope:
                await self._read()
                error = MOVED if self._leaving else None
            if self._scope.cancelled_caught:
                error = MOVED
        except (MoqtError, trio.ClosedResourceError, trio.EndOfChannel) as failure:
            error = failure
        finally:
            self._arriving.clear()
            if not self._cancelled:
                self._ended(self, error)

    async def _read(self) -> None:
        """Pull while the track has a subscriber, until its publisher ends it."""
        again = self.track is not None and self.track.subscribers > 0
        while True:
            if self.track is not None and not again:
                await self.track.wait_subscribed()
                if self._leaving or self._is_surpassed():
                    self._leaving = True
                    return
            if await self._subscribe(again):
                return
            if self._last:
                # Its publisher has withdrawn the broadcast.
                return
            again = False

    async def _subscribe(self, again: bool) -> bool:
        """Subscribe, and copy what comes; return whether the publisher has ended the track.

        Args:
            again: True when subscribers wait for the rest of what an earlier source has begun.
        """
        place = self._position() if again else None
        try:
            try:
                return await self._subscribe_from(place)
            except LocalProtocolError:
                # moq-lite-01 and -02 name no first group, and others not every one. The latest group has to do.
                if place is None:
                    raise
                return await self._subscribe_from(None)
        except LocalProtocolError as error:
            raise NotFound(str(self.path), self.name, str(error)) from None

    async def _subscribe_from(self, place: tuple[int, int] | None) -> bool:
        """Subscribe from a group and a frame on; raises LocalProtocolError where the version cannot say that."""
        assert self.source is not None
        session = self.source.session
        group, frame = place or (None, 0)
        self._asked = self._merged_wishes()
        subscription = session.subscribe(
            self.source.inside(self.path),
            self.name,
            **self._asked._asdict(),
            start_group=group,
            start_frame=frame if session._context.dialect.features.frame_ranges else 0,
        )
        async with subscription:
            new = self.track is None
            if self.track is None:
                await self._make(subscription)
            else:
                self._compare(await subscription.track_properties())
            assert self.track is not None
            state_of(self.track).wishes_changed = self._wishes.set
            self._subscribed = True
            try:
                return await self._copy(subscription, new=new)
            finally:
                self._subscribed = False

    async def _make(self, subscription: Subscription) -> None:
        """Make the track, and answer the request for it."""
        properties = await subscription.track_properties()
        features = subscription._context.dialect.features
        if properties is None:
            if features.track_info:
                raise NotFound(str(self.path), self.name, "the publisher does not describe it")
            await subscription.wait_accepted()
        self.track = track = self._make_track(self.name, properties)
        self._properties = properties
        self._scale = (track.timescale, timescale_of(properties))
        if self._request is not None and self._request.wanted:
            self._request.accept(track)

    def _compare(self, properties: TrackProperties | None) -> None:
        """Refuse a source whose track is another one: viewers were told the properties, and are not told new ones."""
        assert self.track is not None
        if properties is not None and self._properties is not None and not are_alike(properties, self._properties):
            raise NotFound(str(self.path), self.name, "its properties differ from those of the source before")
        self._properties = self._properties or properties
        self._scale = (self.track.timescale, timescale_of(properties))

    async def _copy(self, subscription: Subscription, *, new: bool) -> bool:
        """Copy the groups of a subscription; return whether the publisher has ended the track.

        Args:
            subscription: Inside its block.
            new: True when the track was just made, and has no subscriber yet.
        """
        assert self.track is not None
        finished = False
        limits = subscription._context.limits
        if new:
            # Before it has a cursor, a subscriber would miss what is written: groups wait in the subscription so long.
            with trio.move_on_after(limits.reply_timeout):
                await self.track.wait_subscribed()
        async with open_unwrapping_nursery() as watching:
            watching.start_soon(self._leave_unwanted, watching.cancel_scope)
            watching.start_soon(self._leave_for_better, subscription)
            watching.start_soon(self._follow_wishes, subscription)
            if self._open:
                watching.start_soon(self._expire_kept, limits.takeover_timeout)
            async with open_unwrapping_nursery() as copying:
                async for group in subscription:
                    if self._last_group is not None and group.sequence > self._last_group:
                        group.close()
                        break
                    place = self._writer(group)
                    if place is None:
                        group.close()
                    elif is_short_and_here(group):
                        key, writer, first = place
                        with self._ending(group, key, writer):
                            copy_here(group, writer, first, self._scale, self.tried.clear)
                    else:
                        copying.start_soon(self._copy_group, group, *place)
            finished = True
            watching.cancel_scope.cancel()
        return finished

    async def _leave_unwanted(self, scope: trio.CancelScope) -> None:
        """End the subscription with the last subscriber of the track."""
        assert self.track is not None
        assert self.source is not None
        await self.track.wait_unsubscribed()
        if received_goaway(self.source.session) is not None:
            # The source takes no other one: this is for subscribers that come back before it closes the session.
            await trio.sleep_forever()
        scope.cancel()

    async def _leave_for_better(self, subscription: Subscription) -> None:
        """End the subscription with the latest group, once another source is better and stays so for a while."""
        assert self.track is not None
        while not self._leaving:
            await self._reconsidered.wait()
            await trio.sleep(self._hold)
            self._reconsidered = trio.Event()
            self._leaving = self._is_surpassed()
        self._last_group = latest = self.track.latest
        if latest is None:
            self.move()
            return
        with suppress(MoqtError, trio.ClosedResourceError):
            # Where the version has no such update, the next group ends it.
            await subscription.update(end_group=latest)

    async def _follow_wishes(self, subscription: Subscription) -> None:
        """Tell the source how the subscribers want the track, whenever that changes."""
        if subscription._context.dialect.quirks.refuses_updates:
            return
        while True:
            await self._wishes.wait()
            terms = self._merged_wishes()
            if terms != self._asked:
                self._asked = terms
                with suppress(MoqtError, trio.ClosedResourceError):
                    # Versions that have no such update keep to what they were asked first.
                    await subscription.update(**terms._asdict())

    def _merged_wishes(self) -> Terms:
        """Return how the track is to be asked for; as it was when no subscriber is there."""
        wishes = [] if self.track is None else state_of(self.track).wishes
        if not wishes:
            return self._asked
        ages = [wish.max_age for wish in wishes if wish.max_age is not None]
        return Terms(
            max(wish.priority for wish in wishes),
            all(wish.ordered for wish in wishes),
            min(max(ages, default=_MAX_AGE), AGE_BOUND / 2),
        )

    def _is_surpassed(self) -> bool:
        return self._best(self) not in (self.source, None)

    # -- groups ----------------------------------------------------------------------------------------------

    def _position(self) -> tuple[int, int] | None:
        """Return where the next source continues: in the newest open group, or with the one after the latest."""
        if self._open:
            group = max((writer._group for writer in self._open.values()), key=lambda group: group.sequence)
            return group.sequence, group.next_id
        latest = None if self.track is None else self.track.latest
        return None if latest is None else (latest + 1, 0)

    def _writer(self, group: GroupReader) -> tuple[GroupKey, GroupWriter, int] | None:
        """Return where to write a group, and the number of the first frame that is wanted; None to refuse it."""
        assert self.track is not None
        if group.datagram:
            self._copy_datagram(group)
            return None
        key = key_of(group.sequence, group.subgroup)
        kept = self._open.get(key)
        if kept is not None:
            if key in self._arriving:
                return None
            there = kept._group.next_id
            if group.start_frame > there:
                # What lies between will not come.
                del self._open[key]
                kept.reset(StreamCode.OLD)
                return None
            self._arriving.add(key)
            return key, kept, there
        if group.start_frame:
            # The rest of a group whose beginning was never here.
            return None
        try:
            if group.subgroup or not group.ends_group or group.priority is not None:
                writer = self.track.open_group(
                    group.sequence, subgroup=group.subgroup, ends_group=group.ends_group, priority=group.priority
                )
            else:
                writer = self.track.open_group(group.sequence)
        except (ValueError, trio.ClosedResourceError):
            # It was received before, whole.
            return None
        if not group._begins:
            mark_headless(writer)
        writer._entered()
        self._open[key] = writer
        self._arriving.add(key)
        return key, writer, 0

    async def _copy_group(self, group: GroupReader, key: GroupKey, writer: GroupWriter, first: int) -> None:
        with self._ending(group, key, writer):
            await copy(group, writer, first, self._scale, self.tried.clear)

    @contextmanager
    def _ending(self, group: GroupReader, key: GroupKey, writer: GroupWriter) -> Iterator[None]:
        """End a group as its publisher does, after a block that copies it."""
        try:
            yield
        except (StreamReset, RemoteProtocolError) as error:
            self._close(key, writer, error.code)
        except ValueError:
            # A bound of this side: a frame that is too long, for example.
            group.close(StreamCode.FRAME_TOO_LARGE)
            self._close(key, writer, StreamCode.FRAME_TOO_LARGE)
        except _LOST:
            # Kept: the next source continues it. So it is after a cancellation.
            pass
        else:
            self._close(key, writer, None)
        finally:
            self._arriving.discard(key)

    def _close(self, key: GroupKey, writer: GroupWriter, code: int | None) -> None:
        if self._open.pop(key, None) is not None:
            writer.finish() if code is None else writer.reset(code)

    def _reset_kept(self, code: int) -> None:
        kept = [key for key in self._open if key not in self._arriving]
        for key in kept:
            self._open.pop(key).reset(code)

    async def _expire_kept(self, timeout: float) -> None:
        """Reset the groups that the next source does not continue in time."""
        await trio.sleep(timeout)
        self._reset_kept(StreamCode.OLD)

    def _copy_datagram(self, group: GroupReader) -> None:
        assert self.track is not None
        with suppress(ValueError, trio.WouldBlock, trio.EndOfChannel, trio.ClosedResourceError, MoqtError):
            frame = group.receive_nowait()
            self.track.send_datagram(
                frame,
                convert(frame.timestamp, self._scale),
                sequence=group.sequence,
                object_id=frame.object_id,
                properties=frame.properties,
                ends_group=group.ends_group,
                priority=group.priority,
            )

    def __repr__(self) -> str:
        return f"<Pull of {printable(self.name)} of {printable(str(self.path))!r}, {len(self._open)} groups open>"
