"""SubscribeServer: answers one subscription, from a cursor over a track to group streams.

Theory of operation. The request arrives in the task that reads the socket. That task finds the track, attaches a cursor
to it and writes the reply, where the version allows a reply before the first group. Then it starts this server's own
task. From then on every event (a frame was appended, a stream has room again, the peer acknowledged a group, the link
has room, an update arrived) sets `wakeup`, and the task does everything that it can without waiting (`_pump`): it
reports the dropped groups, and writes the groups that are ready, the most important first, until the link, the streams
or the data run out. A group that could not be served goes back to the cursor.

    IDLE ──request──▶ WAITING ──found──▶ SERVING ──finish()──▶ FINISHING ──▶ ENDED
                         └──refused, cancelled──▶ ENDED

A group passes three steps: it is pending in the cursor, its stream is written (`SentGroups`), and its stream drains
until the peer has acknowledged all of it. The subscription's own stream is finished after its groups' streams, and the
subscription ends when that is acknowledged, too.

A subscriber may pause (IETF). Then the cursor rests: it reads nothing, counts as no subscriber, and learns of the end
of the track alone. Delivery goes on with the next frame that is written after the pause.
"""

from __future__ import annotations

import enum
import math
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import LocalProtocolError, SessionClosed, StreamReset, printable
from ...loggers import Logger
from ...model.cursor import GroupRange, Wish
from ...model.keys import sequence_of
from ...model.track import state_of
from ...protocol.events import Event, SubscribeRequested
from ...protocol.ietf.events import FillRequested, UpdateRefused
from ...protocol.ietf.subscribe import SubscribeResponder as IetfSubscribeResponder
from ...tasks import defer_interrupts
from ...wire.messages import SubscribeUpdate
from .delivery import GroupDelivery
from .group import EndWait, SentGroups
from .join import JoinPoint
from .replies import Replies, info_of
from .reply import ReplyStream, newest_of, past_of
from .timeouts import DeliveryTimeout

if TYPE_CHECKING:
    from ...model.keys import GroupKey
    from ...model.origin import PublishedBroadcast
    from ...model.past import Place
    from ...model.track import Track
    from ...protocol.subscribe import SubscribeResponder
    from ...transport.stream import BidiStream
    from ...wire.messages import Subscribe
    from .request import Found, Serving

logger = Logger(__name__)

_LEAST_RTT = 0.005
"""The least round trip, in seconds: the measured one is 0 at first, and a process needs time to read."""


_MOST_FILLS = 4
"""What of the past one subscription is sent at a time: each takes a task and a stream."""


class _State(enum.Enum):
    IDLE = enum.auto()
    WAITING = enum.auto()
    SERVING = enum.auto()
    FINISHING = enum.auto()
    ENDED = enum.auto()


@defer_interrupts
class SubscribeServer(GroupDelivery):
    """Answers one subscription: moves groups from a cursor to group streams, as fast as the peer takes them.

    Attributes:
        publication: The publication of the track, once it was found.
    """

    codes = "subscribe"
    publication: PublishedBroadcast

    def __init__(self, serving: Serving, stream: BidiStream, machine: SubscribeResponder) -> None:
        super().__init__(serving, stream, machine)
        self._quirks = self.context.dialect.quirks
        self._state = _State.IDLE
        self._early_update: SubscribeUpdate | None = None
        self._paused = False
        # False for a subscription that this side opened.
        self._counts_as_request = True
        # True once there was an update, which may want an answer.
        self._answers = False
        self._fills: set[trio.CancelScope] = set()
        # What the next update wants of the past.
        self._fill_due: FillRequested | None = None
        self._replies = Replies(stream, machine, self._features)
        self._open_cancelled = False
        # True once the subscriber has acknowledged the end of the subscription's own stream, or reads it no more.
        self._end_delivered = False
        self._end_wait = EndWait() if self._quirks.fin_with_frame else None
        # What bounds how long a frame may wait; None while the subscriber has asked for no such bound.
        self._timeout: DeliveryTimeout | None = None

    # -- from the peer -------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        match event:
            case SubscribeRequested():
                self._state = _State.WAITING
                self.find(
                    event.path,
                    event.request.track,
                    partial(self._answer, event),
                    rendezvous=event.request.rendezvous_ms / 1000,
                )
            case SubscribeUpdate():
                self._answers = True
                if self._state in (_State.SERVING, _State.FINISHING):
                    self._update(event)
                else:
                    self._early_update = event
            case FillRequested():
                self._fill_due = event
            case UpdateRefused():
                self._refuse_update()
            case _:
                super().handle(event)

    def _answer(self, event: SubscribeRequested, found: Found | None) -> None:
        leaving, waited = self.context.going_away.is_set(), event.request.rendezvous_ms > 0
        if found is None or leaving:
            logger.info("refused track %s of %s", printable(event.request.track), printable(str(event.path)))
            self._state = _State.ENDED
            if leaving and (waited or found is not None):
                self.cancel(StreamCode.GOING_AWAY)
            else:
                self.cancel(StreamCode.CONTROL_TIMEOUT if waited else StreamCode.NOT_FOUND)
            return
        self.publication, track = found
        request = event.request
        self._subscribe_id = request.subscribe_id
        self._state = _State.SERVING
        wish = self._early_update or request
        self._ordered = wish.ordered or track.delivery == "reliable"
        self._groups = SentGroups(self.context.limits)
        start_group, start_frame = self._start(track, wish)
        self._paused = not wish.forward
        self._read(
            track,
            GroupRange(start_group, wish.end_group, start_frame, wish.end_frame),
            priority=wish.priority,
            # Where the version has no such field, the publisher's own bound applies.
            max_age=request.max_age_ms / 1000 if self._features.max_age else track.max_age,
            # A group whose first frames are gone begins with the first one that is kept, where it can say so.
            replay=self._features.frame_ranges or self.machine.start != "latest",
            paused=self._paused,
        )
        if self._features.max_age:
            # The age in the request says where delivery starts; that in an update, what is dropped on its way.
            self._cursor.max_age = wish.max_age_ms / 1000
        if self._cursor.dropped and not self._features.subscribe_drop:
            # Only the end of the subscription can say that its first group can't be had.
            self._cursor.abort(StreamCode.TOO_FAR_BEHIND)
        self._bound_delivery(wish.delivery_timeout_ms)
        self._tell_wish(wish)
        newest = newest_of(track)
        if not self._features.subscribe_ok_needs_group and not self._accept(track, newest):
            return
        self.serving.subscriptions[self.publication].add(self)
        if self.machine.start != "latest":
            self.serving.join_points.add(self._subscribe_id, JoinPoint(track, newest))
        self.context.start(self._run)
        machine = self.machine
        if isinstance(machine, IetfSubscribeResponder) and machine.fill is not None and not self._paused:
            self._begin_fill(FillRequested(self._subscribe_id, machine.fill, machine.fill_priority))
        self._begin_due_fill()

    def _accept(self, track: Track, newest: Place | None) -> bool:
        """Accept at once; refuse, and return False, when the version cannot carry what the track's properties say."""
        self.machine.info = info_of(track)
        first = min(self._cursor.pending, default=None)
        latest = track.latest
        try:
            # After an error of the stream the task gets the same one, and ends with it.
            with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
                self._replies.accept(None if first is None else sequence_of(first), latest, newest)
        except LocalProtocolError as error:
            logger.warning("refused track %s, which cannot be described: %s", printable(track.name), error)
            self._state = _State.ENDED
            self._track_state.detach(self._cursor)
            self.cancel(StreamCode.INTERNAL_ERROR)
            return False
        return True

    def _tell_wish(self, wish: Subscribe | SubscribeUpdate) -> None:
        """Say how the subscriber wants the track, for what reads it elsewhere."""
        max_age = wish.max_age_ms / 1000 if self._features.max_age else None
        self._cursor.wish = Wish(wish.priority, max_age, bool(wish.ordered))
        self._track_state.tell_wishes()

    def _bound_delivery(self, timeout_ms: int) -> None:
        """Set how long a frame may wait; 0 for no bound."""
        if self._timeout is None and timeout_ms:
            self._timeout = DeliveryTimeout(self._cursor)
        if self._timeout is not None:
            self._timeout.seconds = timeout_ms / 1000 or math.inf

    def _start(self, track: Track, wish: Subscribe | SubscribeUpdate) -> tuple[int | None, int]:
        """Return the first group of a subscription, and the first frame of it."""
        if wish.start_group is not None or self.machine.start == "latest":
            return wish.start_group, wish.start_frame
        newest = state_of(track).largest
        if newest is None:
            return 0, 0
        if isinstance(self.machine.start, int):
            return max(newest[0] + 1 - self.machine.start, 0), 0
        # Also when that group is complete: the end of it tells those that fetch the rest that nothing is missing.
        return newest[0], newest[1] + 1

    def _begin_due_fill(self) -> None:
        """Start to send what an update wants of the past; nothing of it when the subscription pauses."""
        due, self._fill_due = self._fill_due, None
        if due is not None and not self._paused:
            self._begin_fill(due)

    def _begin_fill(self, request: FillRequested) -> None:
        """Start to send what the subscription wants of the past, which takes a stream of its own."""
        machine, wanted = self.machine, request.wanted
        past = past_of(self._track, wanted, newest_of(self._track))
        if past is None or not past.kept or not isinstance(machine, IetfSubscribeResponder):
            return
        if len(self._fills) >= _MOST_FILLS:
            logger.info("a fill of track %s was left out: there are %d", printable(self._track.name), _MOST_FILLS)
            return
        of_update = None if request.request_id == self._subscribe_id else request.request_id
        sender = machine.reply(descending=wanted.descending, priority=self._track.priority, request_id=of_update)
        scope = trio.CancelScope()
        self._fills.add(scope)
        self.context.start(self._fill, scope, ReplyStream(self.serving, sender, self._track, past, request.priority))

    async def _fill(self, scope: trio.CancelScope, fill: ReplyStream) -> None:
        try:
            with scope, suppress(SessionClosed, trio.ClosedResourceError):
                await fill.run()
        finally:
            self._fills.discard(scope)
            self.wakeup.set()

    def _cancel_fills(self) -> None:
        for scope in self._fills:
            scope.cancel()

    def _update(self, update: SubscribeUpdate) -> None:
        """Apply an update to the groups not yet sent. If it moves the end of the range, kept groups are added."""
        cursor = self._cursor
        ended = cursor.range.end_group is not None
        start_group, start_frame = update.start_group, update.start_frame
        if start_group is None and self.machine.start != "latest":
            # It started at a place that no group names.
            start_group, start_frame = cursor.range.start_group, cursor.range.start_frame
        cursor.range = GroupRange(start_group, update.end_group, start_frame, update.end_frame)
        if self._features.max_age:
            cursor.max_age = update.max_age_ms / 1000
        self._ordered = update.ordered or self._track_state.reliable
        self._priority = update.priority
        self._bound_delivery(update.delivery_timeout_ms)
        self._tell_wish(update)
        self.serving.scheduler.priority_changed(self)
        for key in [key for key in cursor.pending if not cursor.range.holds(sequence_of(key))]:
            self._cancel_group(key)
        if update.forward == self._paused:
            self._pause_or_resume(update)
        elif self._paused:
            pass
        elif ended and (cursor.latest >= 0 or update.start_group is not None):
            self._track_state.extend(cursor)
        self._begin_due_fill()
        self.wakeup.set()

    def _pause_or_resume(self, update: SubscribeUpdate) -> None:
        """Pause, or go on: with the next frame that is written, unless the subscriber says anew where to start."""
        cursor, log = self._cursor, self._track_state
        self._paused = not self._paused
        if self._paused:
            for sequence in list(cursor.pending):
                self._cancel_group(sequence)
            self._cancel_fills()
            log.rest(cursor)
            return
        largest = log.largest
        if update.restart:
            group, frame = self._start(self._track, update)
        elif self._fill_due is not None and largest is not None:
            # The end of the newest group says that nothing of it is missing, as at the beginning.
            group, frame = largest[0], largest[1] + 1
        else:
            first = cursor.range.start_group or 0, cursor.range.start_frame
            group, frame = max(first, log.next_frame)
        cursor.range = GroupRange(group, update.end_group, frame, update.end_frame)
        log.attach(cursor)
        self.machine.resumed(log.largest)
        self.serving.join_points.add(self._subscribe_id, JoinPoint(self._track, newest_of(self._track)))

    def _refuse_update(self) -> None:
        """End the subscription after an update that cannot be followed."""
        if self._state in (_State.SERVING, _State.FINISHING):
            self._cursor.abort(StreamCode.INTERNAL_ERROR)
        elif self._state is _State.WAITING:
            self._state = _State.ENDED
            self.scope.cancel()
            self.cancel(StreamCode.INTERNAL_ERROR)

    # -- from the transport --------------------------------------------------------------------------------

    def stop_received(self, code: int) -> None:
        super().stop_received(code)
        # Nothing that was written will be acknowledged any more.
        self.send_finished()

    def send_finished(self) -> None:
        self._end_delivered = True
        self.wakeup.set()

    def group_delivered(self, key: GroupKey) -> None:
        if self._groups.release(key) is not None and (
            self._short_of_streams or self._state is _State.FINISHING or self._cursor.done
        ):
            self.wakeup.set()

    # -- from the session ----------------------------------------------------------------------------------

    def finish(self) -> None:
        """End the subscription once what was written has been delivered; groups that are still open are reset."""
        if self._state is _State.SERVING:
            self._state = _State.FINISHING
        if self._cursor.end is None:
            # For this subscription the track ends here; others may still get later groups.
            latest = self._track.latest
            self._cursor.finish(0 if latest is None else latest + 1)
        self.wakeup.set()

    # -- the task ------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Serve until the track has ended and everything was delivered, or the request or the session has ended."""
        code: int = StreamCode.SESSION_CLOSED
        cursor = self._cursor
        try:
            with self.scope:
                # A subscription that was cancelled before the task's first step is released already.
                await trio.lowlevel.checkpoint_if_cancelled()
                if self._quirks.accept_before_groups:
                    await self._wait_acceptance_read()
                while True:
                    self._pump()
                    if self._is_complete():
                        break
                    if self._is_alone():
                        # No other track has something for the same packet.
                        self.context.connection.flush()
                    waiting = self._timeout or self._end_wait
                    if waiting is None:
                        await self.wakeup.wait()
                    else:
                        await waiting.wait(self.wakeup)
                if cursor.aborted is not None:
                    code = cursor.aborted
                else:
                    if cursor.end is not None:
                        self._replies.end(cursor.end)
                    self._replies.finish()
                    # An update that crosses the end changes nothing any more.
                    self._state = _State.ENDED
                    while not self._end_delivered:
                        # A session that closes leaves unsaid what was lost on its way.
                        await self.wakeup.wait()
            if self.scope.cancelled_caught:
                code = StreamCode.CANCELLED
        except (StreamReset, SessionClosed, trio.ClosedResourceError):
            pass
        finally:
            self._state = _State.ENDED
            if cursor.done and self._counts_as_request:
                # All of the range or of the track was written before the subscription ended.
                self.serving.rate.give_back()
            self._track_state.detach(cursor)
            self.serving.scheduler.release(self)
            self.serving.short_of_streams.pop(self, None)
            self.serving.join_points.end(self._subscribe_id)
            self._cancel_fills()
            served = self.serving.subscriptions[self.publication]
            served.discard(self)
            if not served:
                del self.serving.subscriptions[self.publication]
            self._groups.reset_all(code)
            if not self.stream.send_ended:
                self.cancel(code)
            self.machine.release()
            self._ended()

    def _ended(self) -> None:
        """Called when the subscription has ended, and its streams are finished or reset."""
        self.ended.set()

    async def _wait_acceptance_read(self) -> None:
        """Wait until the acceptance was acknowledged and the subscriber has had time to read it."""
        while True:
            await trio.sleep(2 * max(self.context.connection.statistics().rtt, _LEAST_RTT))
            if not self.stream.buffered:
                return

    def _is_alone(self) -> bool:
        """Return whether the session serves no other subscription."""
        served = self.serving.subscriptions
        return len(served) == 1 and len(served[self.publication]) == 1

    def _is_complete(self) -> bool:
        cursor = self._cursor
        if cursor.aborted is not None:
            return True
        if cursor.pending or self._groups or self._fills:
            return False
        if self._state is _State.FINISHING:
            return True
        # The end of the range is not the end of the track, and peers treat a FIN as the end of the track.
        return cursor.done and not self._replies.drops and (cursor.end is not None or not self._replies.accepted)

    def _pump(self) -> None:
        cursor = self._cursor
        if self._groups.draining and not self._track_state.reliable:
            self._expire_draining()
        if not self.machine.accepted and cursor.earliest is not None:
            self._replies.accept(cursor.earliest)
        if self._timeout is not None:
            self._timeout.expire()
        if cursor.dropped or self._replies.drops:
            self._report_dropped()
        if self._state is _State.FINISHING and not self._open_cancelled:
            self._open_cancelled = True
            self._cancel_open(list(cursor.pending.values()))
        if self._answers and self.stream.writable and self.machine.accepted:
            self._answers = False
            if answers := self.machine.answer_updates():
                self.stream.write(answers)
        self._short_of_streams = False
        entries = cursor.ready(newest_first=not self._ordered)
        if self._end_wait is not None and self._state is not _State.FINISHING:
            entries = self._end_wait.release(entries, cursor)
        if entries:
            allowance = self.serving.scheduler.allowance(self)
            for entry in entries:
                allowance = self._serve(entry, allowance)
            if self._state is _State.FINISHING:
                self._cancel_open(entries)
        if cursor.end is None and cursor.range.end_group is not None and cursor.done and self._replies.accepted:
            self._replies.drop_missing(cursor, self._track_state)
            self._replies.flush()

    @property
    def track(self) -> Track:
        """What is served."""
        return self._track

    @property
    def undelivered(self) -> int:
        """Bytes that were written and that the subscriber has not acknowledged."""
        return self._cursor.backlog + sum(sent.stream.buffered for sent in self._groups)

    @property
    def dropped_groups(self) -> int:
        """Groups that were dropped because this subscriber was too slow or they were too old."""
        return self._cursor.dropped_groups

    def __repr__(self) -> str:
        if not hasattr(self, "publication"):
            # Not found yet, or never: the request was refused.
            return f"<SubscribeServer {self._state.name.lower()}>"
        return (
            f"<SubscribeServer {self._track.name!r} of {str(self.publication.path)!r}, "
            f"{len(self._groups)} groups open, {self._cursor.backlog} bytes waiting>"
        )
