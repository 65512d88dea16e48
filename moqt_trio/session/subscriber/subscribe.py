"""Subscription: a track of the peer, as the application reads it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

import attrs
import trio

from ...codes import StreamCode, describe_stream_code
from ...errors import LocalProtocolError, NotFound, SessionClosed, StreamReset
from ...model.track_state import AGE_BOUND
from ...protocol.events import Event, RequestFinished, RequestRefused
from ...protocol.ietf.subscribe import SubscribeRequester as IetfSubscribeRequester
from ...tasks import defer_interrupts
from ...timeouts import Timeout
from ...wire.messages import SubscribeDrop, SubscribeEnd, SubscribeOk
from .group import GroupReader
from .group_queue import DroppedGroups, GroupQueue, SubscriptionStatistics
from .head import GroupHead
from .receive_queue import QueueState
from .request import Request, RequestControl, open_control
from .track import TrackInfoRequest, TrackProperties

if TYPE_CHECKING:
    from ...codes import CodeSpace
    from ...errors import MoqtError
    from ...path import BroadcastPath
    from ...protocol.ietf.fetch import FetchRequester
    from ...protocol.subscribe import SubscribeRequester
    from ...transport.stream import BidiStream
    from ..context import SessionContext


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
        path: BroadcastPath,
        track: str,
        options: SubscribeOptions,
    ) -> None:
        super().__init__(context, GroupQueue(context.limits), str(path), track)
        self.path = path
        self.track = track
        self._queues = queues
        self._options = options
        self._want(options)
        self._machine: SubscribeRequester | None = None
        self._info: TrackInfoRequest | None = None
        self._accepted = trio.Event()
        self._timeout: Timeout | None = None

    # -- from the stream -----------------------------------------------------------------------------------

    async def _open(self) -> None:
        context, options = self._context, self._options
        self._machine = machine = context.core.subscribe(
            self.path,
            self.track,
            priority=options.priority,
            ordered=options.ordered,
            max_age_ms=round(options.max_age * 1000),
            start_group=options.start_group,
            end_group=options.end_group,
            start_frame=options.start_frame,
            end_frame=options.end_frame,
        )
        if context.dialect.features.track_info:
            self._info = TrackInfoRequest(context)
            await self._info.open(self.path, self.track)

        def attach(stream: BidiStream) -> RequestControl:
            # Groups may overtake the reply, so the queue is registered before the request is sent.
            self._queues[machine.subscribe_id] = self._queue
            if not context.dialect.features.subscribe_ok_needs_group:
                # In the other versions the reply comes with the first group, which may take long.
                self._timeout = Timeout(context.limits.reply_timeout)
                self._queue.expect_within(self._timeout, self._on_timeout)
            return RequestControl(context, stream, machine, self._on_event, self._on_failure)

        self._control = await open_control(context, self._codes, attach)

    def _on_event(self, event: Event) -> None:
        match event:
            case SubscribeOk():
                self._queue.accept(event.start_group)
                self._accepted.set()
                if event.newest is not None:
                    self._join(event.newest[0])
                self._take_parked()
            case SubscribeEnd():
                self._queue.end_group = event.group
            case SubscribeDrop():
                self._queue.drop(event.start, event.end, event.code)
            case RequestFinished():
                self._queue.finish_later()
                self._accepted.set()
                self._finish()
            case RequestRefused() if event.code in (StreamCode.NOT_FOUND, StreamCode.UNROUTABLE):
                self._on_failure(NotFound(str(self.path), self.track, f"code {describe_stream_code(event.code)}"))
            case RequestRefused():
                self._on_reset(event.code)
                self._accepted.set()
            case _:
                pass

    def _take_parked(self) -> None:
        """Read the groups that came before it was known that they belong to this subscription."""
        assert self._machine is not None
        for machine in self._context.core.parked(self._machine.subscribe_id):
            stream = self._context.parked.pop(machine, None)
            if stream is not None:
                stream.go_on()

    def _join(self, sequence: int) -> None:
        """Ask for what the newest group has already, where the subscription starts behind it."""
        context, machine = self._context, self._machine
        if not isinstance(machine, IetfSubscribeRequester) or not machine.joins:
            return
        head = GroupHead(context, self._queue, sequence)
        self._queue.head = head
        if machine.fills:
            context.replies[machine.subscribe_id] = head.begin
            context.start(self._wait_head, head)
        else:
            context.start(self._fetch_head, head, machine.join(sequence))

    async def _fetch_head(self, head: GroupHead, fetch: FetchRequester) -> None:
        context = self._context

        def on_event(event: Event) -> None:
            if isinstance(event, RequestRefused):
                head.refused()

        context.replies[fetch.request_id] = head.begin
        control: RequestControl | None = None
        try:
            with suppress(SessionClosed):
                control = await open_control(
                    context,
                    "fetch",
                    lambda stream: RequestControl(context, stream, fetch, on_event, lambda _: head.refused()),
                )
                await self._wait_head(head)
                await head.closed.wait()
        finally:
            context.replies.pop(fetch.request_id, None)
            if control is not None:
                control.cancel()
            fetch.release()

    async def _wait_head(self, head: GroupHead) -> None:
        """Give the head up when its stream does not begin in time."""
        await Timeout(self._context.limits.reply_timeout).wait(head.decided.wait)
        head.refused()

    def _on_failure(self, error: MoqtError) -> None:
        self._queue.fail(error)
        self._accepted.set()

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
        if self._info is not None:
            self._info.cancel()
        if self._machine is not None:
            self._context.replies.pop(self._machine.subscribe_id, None)
            self._machine.release()
            self._queues.pop(self._machine.subscribe_id, None)
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
            LocalProtocolError: The block was not entered.
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
        return None if self._info is None else await self._info.wait()

    async def update(
        self,
        *,
        priority: int | None = None,
        ordered: bool | None = None,
        max_age: float | None = None,
        start_group: int | None = None,
        end_group: int | None = None,
    ) -> None:
        """Change the subscription; arguments left out do not change. Does nothing once the publisher has finished.

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
        )
        if not 0 <= changed.max_age < AGE_BOUND:
            raise LocalProtocolError(f"max_age is a number of seconds from 0 on and below 2**51, not {changed.max_age}")
        data = self._machine.update(
            priority=changed.priority,
            ordered=changed.ordered,
            max_age_ms=round(changed.max_age * 1000),
            start_group=changed.start_group,
            end_group=changed.end_group,
            start_frame=changed.start_frame,
            end_frame=changed.end_frame,
        )
        if data:
            self._send(data)
        self._options = changed
        self._want(changed)

    def _want(self, options: SubscribeOptions) -> None:
        queue = self._queue
        queue.want(options.start_group, options.end_group)
        queue.ordered, queue.max_age = options.ordered, options.max_age

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
