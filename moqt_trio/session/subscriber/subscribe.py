"""Subscription: a track of the peer, as the application reads it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar, get_args

import attrs
import trio

from ...arguments import milliseconds, want_number, want_seconds, want_time
from ...codes import StreamCode, describe_stream_code
from ...errors import LocalProtocolError, MoqtError, NotFound, SessionClosed, StreamReset
from ...model.track_state import AGE_BOUND
from ...protocol.events import Event, RequestFinished, RequestRefused
from ...protocol.ietf.events import AliasShared, UpdateAnswered
from ...protocol.ietf.fetch import FetchRequester
from ...protocol.ietf.subscribe import SubscribeRequester as IetfSubscribeRequester
from ...protocol.subscribe import StartPlace
from ...tasks import defer_interrupts
from ...timeouts import Timeout
from ...wire.messages import SubscribeDrop, SubscribeEnd, SubscribeOk
from .group import GroupReader
from .group_queue import DroppedGroups, GroupQueue
from .head import GroupHead, PastGroup
from .receive_queue import QueueState
from .request import Request, RequestControl, open_control
from .track import TrackInfoRequest, TrackProperties, properties_from

if TYPE_CHECKING:
    from ...codes import CodeSpace
    from ...errors import RemoteProtocolError
    from ...path import BroadcastPath
    from ...protocol.ietf.publish import PublishResponder
    from ...protocol.subscribe import SubscribeRequester, SubscriptionChanges
    from ...transport.stream import BidiStream
    from ..context import SessionContext
    from ..statistics import SubscriptionStatistics
    from .publish import Offer, Offers

MOST_PAST_GROUPS = 64
"""Groups of the past that a subscription may ask for: each is a request of its own. `Session.fetch_range` has more."""


@attrs.frozen
class SubscribeOptions:
    """The arguments of `Session.subscribe`; see there."""

    priority: int
    ordered: bool
    max_age: float
    start_group: int | None
    end_group: int | None
    start_frame: int
    end_frame: int | None
    paused: bool = False
    delivery_timeout: float | None = None
    rendezvous: float | None = None
    start: StartPlace = "latest_group"
    past_groups: int = 0

    def check(self) -> None:
        """Raise `TypeError` or `ValueError` for a value that no version can carry; the priority is not looked at."""
        for name in ("start_group", "start_frame", "end_group", "end_frame"):
            number = getattr(self, name)
            if number is not None or name == "start_frame":
                want_number(name, number)
        if self.start not in get_args(StartPlace):
            raise ValueError(f"start is one of {', '.join(get_args(StartPlace))}, not {self.start!r}")
        if self.start_group is not None and (self.start != "latest_group" or self.past_groups):
            raise ValueError("start_group says where a subscription starts; leave start and past_groups out")
        want_number("past_groups", self.past_groups)
        if not 0 <= self.past_groups <= MOST_PAST_GROUPS:
            raise ValueError(f"past_groups is 0 … {MOST_PAST_GROUPS}, not {self.past_groups}")
        want_seconds("max_age", self.max_age)
        if not 0 <= self.max_age < AGE_BOUND:
            raise ValueError(f"max_age is a number of seconds from 0 on and below 2**51, not {self.max_age}")
        if self.end_frame is not None and self.end_group is None:
            raise ValueError("end_frame needs end_group: it names a frame of that group")
        for name in ("rendezvous", "delivery_timeout"):
            seconds = getattr(self, name)
            if seconds is not None:
                want_time(name, seconds)

    def fields(self) -> SubscriptionChanges:
        """Return the fields of the request that an update may change."""
        return {
            "priority": self.priority,
            "ordered": self.ordered,
            "max_age_ms": round(self.max_age * 1000),
            "start_group": self.start_group,
            "end_group": self.end_group,
            "start_frame": self.start_frame,
            "end_frame": self.end_frame,
            "forward": not self.paused,
            "delivery_timeout_ms": milliseconds(self.delivery_timeout),
        }


@defer_interrupts
class Subscription(Request[GroupReader]):
    """A track as it arrives. Use it as `async with session.subscribe(path, track) as subscription`.

    Iterate over it for groups, in the order in which they arrive; late and missing groups are normal. Iteration ends
    when the publisher has ended the track, and when all groups up to `end_group` have arrived or were dropped. After an
    `update` that moves the end, iterate again. Leaving the block unsubscribes and refuses groups on their way.

    Attributes:
        path: The broadcast's path.
        track: The track's name.
    """

    _codes: ClassVar[CodeSpace] = "subscribe"
    _block = "subscription"
    _line = "session.subscribe({}, {}) as subscription"
    _brings_frames = True
    _queue: GroupQueue

    def __init__(
        self,
        context: SessionContext,
        queues: dict[int, GroupQueue],
        offers: Offers,
        path: BroadcastPath,
        track: str,
        options: SubscribeOptions,
    ) -> None:
        super().__init__(context, GroupQueue(context.limits), str(path), track)
        self.path = path
        self.track = track
        self._queues = queues
        self._offers = offers
        self._offer: Offer | None = None
        self._options = options
        self._want(options)
        self._machine: SubscribeRequester | PublishResponder | None = None
        self._info: TrackInfoRequest | None = None
        self._properties: TrackProperties | None = None
        self._accepted = trio.Event()
        self._timeout: Timeout | None = None

    # -- from the stream -----------------------------------------------------------------------------------

    async def _open(self) -> None:
        context, options = self._context, self._options
        offer = self._offers.find(self.path, self.track)
        if offer is not None:
            await trio.lowlevel.checkpoint()
            if offer.free:
                await context.wait_update_allowed()
            # It may have ended meanwhile, or have a reader.
            if offer.free:
                self._open_offer(offer)
                return
        self._machine = machine = context.core.subscribe(
            self.path,
            self.track,
            **options.fields(),
            rendezvous_ms=milliseconds(options.rendezvous),
            start=options.start,
        )
        if options.past_groups and not isinstance(machine, IetfSubscribeRequester):
            machine.release()
            raise LocalProtocolError(f"{context.dialect.name} has no past groups of a subscription; fetch them")
        if context.dialect.features.track_info:
            self._info = TrackInfoRequest(context)
            await self._info.open(self.path, self.track)

        self._queue.on_malformed = self._on_malformed

        def attach(stream: BidiStream) -> RequestControl:
            # Groups may overtake the reply, so the queue is registered before the request is sent.
            self._queues[machine.subscribe_id] = self._queue
            if not context.dialect.features.subscribe_ok_needs_group:
                # In the other versions the reply comes with the first group, which may take long.
                self._timeout = Timeout(context.limits.reply_timeout + (options.rendezvous or 0))
                self._queue.expect_within(self._timeout, self._on_timeout)
            return RequestControl(context, stream, machine, self._on_event, self._on_failure)

        self._control = await open_control(context, self._codes, attach)

    def _open_offer(self, offer: Offer) -> None:
        """Read a track that the peer has offered: its subscription is there, and wakes up."""
        self._offer = self._control = offer
        self._machine = offer.machine
        self._queues[offer.machine.subscribe_id] = self._queue
        self._timeout = Timeout(self._context.limits.reply_timeout)
        self._queue.expect_within(self._timeout, self._on_timeout)
        if not offer.machine.wake_answered:
            # Nothing says where the subscription begins.
            self._queue.on_middle = self._join
        offer.attach(self._on_event, self._on_failure, self._options.fields(), self._options.start)

    def _on_event(self, event: Event) -> None:
        match event:
            case SubscribeOk():
                if self._offer is not None and self._options.end_group is None:
                    # A late stream for an earlier reader of the offer may have begun a group, which comes again from
                    # its middle, or as a head. Where a last group is wanted, what has arrived still counts.
                    self._queue.cut()
                self._properties = None if event.info is None else properties_from(event.info)
                self._queue.accept(event.start_group)
                self._accepted.set()
                assert self._machine is not None
                if event.newest is not None:
                    self._join(event.newest[0])
                    self._fetch_past(event.newest[0])
                self._context.read_parked(self._machine.subscribe_id)
            case SubscribeEnd():
                self._queue.end_group = event.group
            case SubscribeDrop():
                self._queue.drop(event.start, event.end, event.code)
            case UpdateAnswered():
                self._send_due()
            case AliasShared():
                self._on_failure(
                    LocalProtocolError(
                        f"the publisher sends one track once ({self._context.dialect.name}, one alias for both "
                        "subscriptions): subscribe to it once, and share what is received"
                    )
                )
                self._cancel()
            case RequestFinished():
                self._queue.finish_later(event.streams)
                self._accepted.set()
                self._finish()
            case RequestRefused() if event.code in (StreamCode.NOT_FOUND, StreamCode.UNROUTABLE):
                self._on_failure(NotFound(str(self.path), self.track, f"code {describe_stream_code(event.code)}"))
            case RequestRefused():
                self._on_reset(event.code)
                self._accepted.set()
            case _:
                pass

    def _send_due(self) -> None:
        """Send the update that has been waiting for the answer of an earlier one, if there is one."""
        assert self._machine is not None
        due = self._machine.take_update()
        # The task that reads the socket writes: the publisher may have stopped reading, or the session may have ended.
        with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
            if due:
                self._send(due)

    def _join(self, sequence: int) -> None:
        """Ask for what the newest group has already, where the subscription starts behind it."""
        context, machine, options = self._context, self._machine, self._options
        offered = self._offer is not None and options.start_group is None and options.start == "latest_group"
        if not isinstance(machine, IetfSubscribeRequester) or not (machine.joins or offered):
            return
        head = GroupHead(context, self._queue, sequence)
        self._queue.head = head
        self._queue.past.add(head)
        if offered:
            fetch = context.core.fetch(self.path, self.track, sequence, priority=options.priority)
            assert isinstance(fetch, FetchRequester)
            context.start(self._fetch_group, head, fetch)
        elif machine.fills:
            context.replies[machine.subscribe_id] = head.begin
            context.start(self._wait_reply, head)
        else:
            context.start(self._fetch_group, head, machine.join(sequence))

    def _fetch_past(self, newest: int) -> None:
        """Fetch the groups before the newest one that are wanted, the newest of them first."""
        context, options = self._context, self._options
        for sequence in range(newest - 1, max(newest - options.past_groups, 0) - 1, -1):
            fetch = context.core.fetch(self.path, self.track, sequence, priority=options.priority)
            assert isinstance(fetch, FetchRequester)
            group = PastGroup(context, self._queue, sequence)
            self._queue.past.add(group)
            context.start(self._fetch_group, group, fetch)

    async def _fetch_group(self, group: PastGroup, fetch: FetchRequester) -> None:
        """Fetch a group, or the head of one, for as long as the subscription is open."""
        context = self._context

        def on_event(event: Event) -> None:
            if isinstance(event, RequestRefused):
                group.refused()

        def attach(stream: BidiStream) -> RequestControl:
            context.replies[fetch.request_id] = group.begin
            return RequestControl(context, stream, fetch, on_event, lambda _: group.refused())

        control: RequestControl | None = None
        try:
            with group.scope, suppress(SessionClosed):
                control = await open_control(context, "fetch", attach)
                await self._wait_reply(group)
                await group.closed.wait()
        finally:
            group.refused()
            if control is not None:
                control.cancel()
            fetch.release()
            context.replies.pop(fetch.request_id, None)

    async def _wait_reply(self, group: PastGroup) -> None:
        """Give a reply up when its stream does not begin in time."""
        try:
            await Timeout(self._context.limits.reply_timeout).wait(group.decided.wait)
        finally:
            group.refused()

    def _on_failure(self, error: MoqtError) -> None:
        self._queue.fail(error)
        self._accepted.set()

    def _on_malformed(self, error: RemoteProtocolError) -> None:
        """Called when the track contradicts itself: its subscription is cancelled."""
        self._on_failure(error)
        self._cancel(error.code)

    def _on_timeout(self) -> None:
        """Called when the reply is late. Ends the subscription, unless a group has arrived: that counts as a reply."""
        if self._accepted.is_set():
            # The reader began to wait only after the deadline.
            return
        if self._queue.statistics().groups_received:
            self._queue.accept(None)
            self._accepted.set()
        else:
            self._on_failure(StreamReset(StreamCode.CONTROL_TIMEOUT, by_peer=False))
            self._cancel(StreamCode.CONTROL_TIMEOUT)

    # -- for the application -------------------------------------------------------------------------------

    def _close(self) -> None:
        self._queue.on_malformed = self._queue.on_middle = None
        if self._info is not None:
            self._info.cancel()
        if self._machine is not None:
            if self._offer is None:
                self._machine.release()
            self._context.replies.pop(self._machine.subscribe_id, None)
            self._queues.pop(self._machine.subscribe_id, None)
        if self._offer is not None:
            # The offer stays: another subscription may read it.
            self._offer.detach()
            self._offer = self._control = None
        super()._close()
        self._accepted.set()

    async def receive(self) -> GroupReader:
        """Wait for the next group. Cancelling loses nothing.

        Raises:
            trio.EndOfChannel: The track has ended, or the range that was asked for, and every group was received.
            NotFound: The publisher has no such broadcast or track.
            StreamReset: The publisher reset the subscription with another code; or, in a version where it replies
                before the first group, it did not reply within `Limits.reply_timeout`.
            RemoteProtocolError: The publisher broke the protocol on the subscription's stream.
            SessionClosed: The session ended.
            LocalProtocolError: The block was not entered; or the publisher sends the track to another subscription of
                this session only.
            trio.ClosedResourceError: This side closed the subscription.
            trio.BusyResourceError: Another task is receiving.
        """
        return await self._queue.receive()

    async def wait_accepted(self) -> None:
        """Wait until the publisher has accepted; from moq-lite-05 on that is when the first group exists.

        Raises: as `receive`.
        """
        self._queue.check_open()
        if self._timeout is None:
            await self._accepted.wait()
        elif not await self._timeout.wait(self._accepted.wait):
            self._on_timeout()
        await self._check_running()

    async def track_properties(self) -> TrackProperties | None:
        """Return the track's properties, as its publisher sends them.

        None where the version has no such message, and when the publisher refused or did not reply within
        `Limits.reply_timeout`.

        Raises:
            LocalProtocolError: The block was not entered.
        """
        self._queue.check_open()
        await trio.lowlevel.checkpoint()
        if self._context.dialect.features.subgroups:
            # They come with the acceptance. Why there is none, the reader of the groups learns.
            with suppress(MoqtError, trio.ClosedResourceError):
                await self.wait_accepted()
            return self._properties
        return None if self._info is None else await self._info.wait()

    async def update(
        self,
        *,
        priority: int | None = None,
        ordered: bool | None = None,
        max_age: float | None = None,
        start_group: int | None = None,
        end_group: int | None = None,
        paused: bool | None = None,
    ) -> None:
        """Change the subscription; arguments left out do not change. Does nothing once the publisher has finished.

        A pause resets the groups that are open. When it ends, delivery goes on with the next frame that is published:
        in the middle of a group, it may be, which is then a group of its own here.

        Args: as for `Session.subscribe`.

        Raises:
            LocalProtocolError: A value is out of range, the version cannot carry it, or the block was not entered.
            NotFound, StreamReset, RemoteProtocolError, SessionClosed, trio.ClosedResourceError: as for `receive`.
        """
        await trio.lowlevel.checkpoint()
        await self._check_running()
        assert self._machine is not None
        options = self._options
        changed = attrs.evolve(
            options,
            priority=options.priority if priority is None else priority,
            ordered=options.ordered if ordered is None else ordered,
            max_age=options.max_age if max_age is None else max_age,
            start_group=options.start_group if start_group is None else start_group,
            end_group=options.end_group if end_group is None else end_group,
            paused=options.paused if paused is None else paused,
        )
        if not 0 <= changed.max_age < AGE_BOUND:
            raise LocalProtocolError(f"max_age is a number of seconds from 0 on and below 2**51, not {changed.max_age}")
        await self._context.wait_update_allowed()
        data = self._machine.update(**changed.fields())
        if data:
            self._send(data)
        if options.paused != changed.paused:
            self._queue.cut()
        self._options = changed
        self._want(changed)

    def _want(self, options: SubscribeOptions) -> None:
        queue = self._queue
        queue.want(options.start_group, options.end_group)
        queue.ordered, queue.max_age = options.ordered, options.max_age

    @property
    def paused(self) -> bool:
        """True while the publisher is asked to send nothing."""
        return self._options.paused

    @property
    def start_group(self) -> int | None:
        """The first group that the publisher will send; None until it has sent the number."""
        return self._queue.start_group

    @property
    def end_group(self) -> int | None:
        """The first sequence that will never arrive; None until the publisher has sent it."""
        return self._queue.end_group

    @property
    def dropped(self) -> tuple[DroppedGroups, ...]:
        """The groups that were dropped, the newest range last: by the publisher, or here as they were not read.

        Ranges that follow each other with the same code are joined, and the newest 256 are kept;
        `SubscriptionStatistics.groups_dropped` counts every group. Empty in moq-lite-01 and -02, which
        have no such message.
        """
        return tuple(self._queue.dropped)

    @property
    def unread_groups(self) -> int:
        """Groups that wait to be received."""
        return len(self._queue)

    def statistics(self) -> SubscriptionStatistics:
        """Return the subscription's numbers so far."""
        return self._queue.statistics()

    def __repr__(self) -> str:
        queue = self._queue
        if queue.state is QueueState.UNOPENED:
            state = "not entered"
        else:
            state = "closed" if queue.error is not None else "finished" if queue.finishing else "open"
        received = queue.statistics().groups_received
        return f"<Subscription {self.track!r} of {str(self.path)!r} {state}, {received} groups received>"
