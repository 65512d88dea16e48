"""The subscribing side of a session: tracks as they arrive."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs
import trio

from .codes import StreamCode
from .driver import RequestSink, SessionDriver
from .errors import LocalProtocolError, MoqtError, NotFound
from .session.events import (
    Event,
    GroupsDropped,
    RequestFinished,
    RequestRefused,
    SubscribeAccepted,
    SubscribeEnded,
    TrackInfoReceived,
)
from .transport.errors import StreamReset

if TYPE_CHECKING:
    from types import TracebackType

    from .group_reader import GroupReader
    from .path import BroadcastPath
    from .session.subscribe import TrackSubscriber
    from .untyped import Refusable
    from .wire.messages import Frame as WireFrame

_FIRST_SWEEP = 64


@attrs.frozen
class TrackProperties:
    """A track's properties as its publisher gives them.

    Attributes:
        priority: 0 … 255; decides ties.
        max_age: Seconds that the publisher keeps a group after a newer one has come.
        timescale: Timestamp units per second.
    """

    priority: int
    max_age: float
    timescale: int


@attrs.frozen
class SubscriptionStatistics:
    """Numbers of one subscription.

    Attributes:
        groups_received: Groups whose header arrived.
        groups_dropped: Groups that the publisher said it would not deliver.
        groups_reset: Groups that the publisher gave up after they had begun.
        frames_received: Frames that arrived whole.
        bytes_received: Payload bytes of those frames.
        groups_expired: Of the groups dropped, those that were too old.
    """

    groups_received: int = 0
    groups_dropped: int = 0
    groups_reset: int = 0
    frames_received: int = 0
    bytes_received: int = 0
    groups_expired: int = 0


class _TrackInfoRequest:
    """Learns a track's properties beside a subscription; its failure is the subscription's to report."""

    def __init__(self, answer_by: float) -> None:
        self.answer_by = answer_by
        self.known = trio.Event()
        self.properties: TrackProperties | None = None
        self.sink: RequestSink | None = None

    def handle(self, event: Event) -> None:
        """Takes what the stream says; for the session's driver."""
        if isinstance(event, TrackInfoReceived):
            info = event.info
            self.properties = TrackProperties(info.priority, info.max_age_ms / 1000, info.timescale)
        self.known.set()
        if self.sink is not None:
            # Not before the answer, which a FIN would cancel; but the stream counts until then.
            self.sink.stream.finish()

    def failed(self, error: MoqtError) -> None:
        """Takes the end of the stream before its time; for the session's driver."""
        self.known.set()

    def give_up(self) -> None:
        """Ends the stream: the publisher did not answer in time."""
        self.known.set()
        if self.sink is not None:
            self.sink.cancel(StreamCode.CONTROL_TIMEOUT)


@attrs.frozen
class SubscribeOptions:
    """What `Session.subscribe` was asked for; see there."""

    priority: int
    ordered: bool
    max_age: float
    start_group: int | None
    end_group: int | None
    start_frame: int
    end_frame: int | None


class Subscription:
    """A track as it arrives. Use it as `async with session.subscribe(path, track) as subscription`.

    Iterate it for groups, in the order in which they arrive; late and missing groups are normal. Iteration ends when
    the publisher has ended the track. Leaving the block unsubscribes and refuses what is still on its way.

    Attributes:
        path: The broadcast's path.
        track: The track's name.
        start_group: The first group that the publisher will send, once it has said so.
        end_group: The first sequence that will never come, once the publisher has said so.
    """

    def __init__(self, driver: SessionDriver, path: BroadcastPath, track: str, options: SubscribeOptions) -> None:
        self.path = path
        self.track = track
        self.start_group: int | None = None
        self.end_group: int | None = None
        self._driver = driver
        self._options = options
        self._machine: TrackSubscriber | None = None
        self._sink: RequestSink | None = None
        self._info: _TrackInfoRequest | None = None
        self._groups: deque[GroupReader] = deque()
        self._unfinished: set[Refusable] = set()
        self._unread: set[GroupReader] = set()
        self._sweep_at = _FIRST_SWEEP
        self._accepted = trio.Event()
        self._finished = False
        self._stragglers_until = 0.0
        self._error: Exception | None = None
        self._waiter: trio.Event | None = None
        self._busy = False
        self._seen: set[int] = set()
        self._received = 0
        self._dropped = 0
        self._expired = 0
        self._reset = 0
        self._frames = 0
        self._bytes = 0

    # -- from the streams ----------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Takes what the stream says; for the session's driver."""
        match event:
            case SubscribeAccepted():
                self.start_group = event.start_group
                self._accepted.set()
            case SubscribeEnded():
                self.end_group = event.end_group
            case GroupsDropped():
                count = event.last - event.first + 1
                self._dropped += count
                if event.code == StreamCode.OLD:
                    self._expired += count
                if event.last - event.first < self._driver.limits.cache_groups:
                    self._note(range(event.first, event.last + 1))
            case RequestFinished():
                self._finished = True
                self._stragglers_until = trio.current_time() + self._driver.limits.straggler_timeout
                self._accepted.set()
                if self._sink is not None:
                    self._sink.stream.finish()
                self._wake()
            case RequestRefused():
                self._fail(self._refusal(event.code))
            case _:
                pass

    def failed(self, error: MoqtError) -> None:
        """Takes the end of the stream before its time; for the session's driver."""
        self._fail(error)

    def add_group(self, reader: GroupReader) -> bool:
        """Takes a group that arrives; returns False for one that was there before."""
        if self._error is not None or reader.sequence in self._seen:
            return False
        self._note((reader.sequence,))
        self._received += 1
        self._groups.append(reader)
        self._wake()
        return True

    def count(self, frames: list[WireFrame]) -> None:
        """Counts frames that arrived."""
        self._frames += len(frames)
        self._bytes += sum(len(frame.payload) for frame in frames)

    def group_begun(self, incoming: Refusable) -> None:
        """Keeps track of a stream that has to be refused when the subscription ends."""
        self._unfinished.add(incoming)

    def group_complete(self, incoming: Refusable, reader: GroupReader) -> None:
        """Forgets a stream that the peer finished, and keeps its reader for as long as there is something to read."""
        self._unfinished.discard(incoming)
        self._keep(reader)
        self._wake()

    def _keep(self, reader: GroupReader) -> None:
        """Keeps a reader whose stream is over for as long as there is something to read: that holds credit."""
        if not reader.read_whole:
            if len(self._unread) >= self._sweep_at:
                # Readers do not tell when they were read; sweeping at twice what was left costs a constant each.
                self._unread = {item for item in self._unread if not item.read_whole}
                self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._unread))
            self._unread.add(reader)

    def group_over(self, incoming: Refusable, reader: GroupReader, *, reset: bool) -> None:
        """Forgets a stream that ended before its time."""
        self._unfinished.discard(incoming)
        self._reset += reset
        self._keep(reader)
        self._wake()

    def _note(self, sequences: range | tuple[int, ...]) -> None:
        self._seen.update(sequences)
        if len(self._seen) > 2 * self._driver.limits.cache_groups:
            # Only the recent ones can still come twice or be waited for.
            self._seen = set(sorted(self._seen)[-self._driver.limits.cache_groups :])

    def _refusal(self, code: int) -> Exception:
        if code in (StreamCode.NOT_FOUND, StreamCode.UNROUTABLE):
            return NotFound(str(self.path), self.track, f"code {code:#x}")
        return StreamReset(code)

    def _fail(self, error: Exception) -> None:
        if self._error is None and not self._finished:
            self._error = error
        self._accepted.set()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.set()

    def _all_arrived(self) -> bool:
        """True when nothing more can come: every group of the known range was seen, and none is still running."""
        if self.end_group is None:
            return False
        if self.start_group is None:
            return self.end_group == 0 or bool(self._seen)
        return all(number in self._seen for number in range(self.start_group, self.end_group))

    # -- for the application -------------------------------------------------------------------------------

    async def __aenter__(self) -> Subscription:
        if self._sink is not None:
            raise LocalProtocolError("this subscription was entered before; subscribe anew")
        driver, options = self._driver, self._options
        driver.check_open()
        self._machine = machine = driver.core.subscribe(
            str(self.path),
            self.track,
            priority=options.priority,
            ordered=options.ordered,
            max_age_ms=round(options.max_age * 1000),
            start_group=options.start_group,
            end_group=options.end_group,
            start_frame=options.start_frame,
            end_frame=options.end_frame,
        )
        try:
            if driver.core.dialect.features.track_info:
                await self._ask_track_info()
            stream = await driver.connection.open_bidi()
        except BaseException:
            self._leave()
            raise
        driver.subscriptions[machine.subscribe_id] = self
        self._sink = sink = RequestSink(driver, stream, machine, self)
        driver.spell_codes(stream, "subscribe")
        stream.write(machine.opening)
        stream.sink = sink
        return self

    async def _ask_track_info(self) -> None:
        driver = self._driver
        machine = driver.core.request_track_info(str(self.path), self.track)
        stream = await driver.connection.open_bidi()
        self._info = info = _TrackInfoRequest(trio.current_time() + driver.limits.reply_timeout)
        info.sink = RequestSink(driver, stream, machine, info)
        driver.spell_codes(stream, "info")
        stream.write(machine.opening)
        stream.sink = info.sink

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        if self._error is None:
            self._error = trio.ClosedResourceError("the subscription was closed")
        if self._info is not None and self._info.sink is not None:
            self._info.sink.cancel()
        if self._sink is not None:
            self._sink.cancel()
        if self._machine is not None:
            self._machine.release()
            self._driver.subscriptions.pop(self._machine.subscribe_id, None)
        for incoming in list(self._unfinished):
            incoming.refuse(StreamCode.CANCELLED)
        for reader in self._groups:
            reader.close()
        self._groups.clear()
        # The application may read on in a group that it took; the publisher need not wait for that.
        for reader in self._unread:
            reader.release()
        self._unread.clear()
        self._accepted.set()
        self._wake()

    async def receive(self) -> GroupReader:
        """Waits for the next group. Cancelling loses nothing.

        Raises:
            trio.EndOfChannel: The track has ended and every group was received.
            NotFound: The publisher has no such broadcast or track.
            StreamReset: The publisher ended the subscription with another code.
            SessionClosed: The session ended.
            trio.ClosedResourceError: This side closed the subscription.
            trio.BusyResourceError: Another task is receiving.
        """
        if self._sink is None and self._error is None:
            raise LocalProtocolError("enter the subscription with 'async with' first")
        if self._busy:
            raise trio.BusyResourceError("another task is receiving from this subscription")
        self._busy = True
        try:
            if self._groups or self._finished or self._error is not None:
                await trio.lowlevel.checkpoint()
            while not self._groups:
                if self._error is not None:
                    raise self._error
                deadline = float("inf")
                if self._finished:
                    # The publisher finishes its stream after the groups' streams, but streams are not ordered
                    # among each other: the last groups may still be on their way.
                    deadline = self._stragglers_until
                    if self._all_arrived() or trio.current_time() >= deadline:
                        raise trio.EndOfChannel
                self._waiter = waiter = trio.Event()
                try:
                    with trio.CancelScope(deadline=deadline):
                        await waiter.wait()
                finally:
                    self._waiter = None
            return self._groups.popleft()
        finally:
            self._busy = False

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> GroupReader:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    async def wait_accepted(self) -> None:
        """Waits until the publisher has accepted; from moq-lite-05 on that is when the first group exists.

        Raises: as `receive`.
        """
        await self._accepted.wait()
        if self._error is not None:
            raise self._error

    async def track_properties(self) -> TrackProperties | None:
        """Returns what the publisher says of the track.

        None where the version has no such message, and when the publisher refused or said nothing within
        `Limits.reply_timeout`.
        """
        await trio.lowlevel.checkpoint()
        info = self._info
        if info is None:
            return None
        with trio.CancelScope(deadline=info.answer_by) as scope:
            await info.known.wait()
        if scope.cancelled_caught and not info.known.is_set():
            info.give_up()
        return info.properties

    async def update(
        self,
        *,
        priority: int | None = None,
        ordered: bool | None = None,
        max_age: float | None = None,
        start_group: int | None = None,
        end_group: int | None = None,
    ) -> None:
        """Changes the subscription; what is left out stays as it is. Does nothing once the publisher has finished.

        Args: as for `Session.subscribe`.
        """
        await trio.lowlevel.checkpoint()
        if self._error is not None:
            raise self._error
        assert self._machine is not None
        assert self._sink is not None
        options = self._options
        changed = attrs.evolve(
            options,
            priority=options.priority if priority is None else priority,
            ordered=options.ordered if ordered is None else ordered,
            max_age=options.max_age if max_age is None else max_age,
            start_group=options.start_group if start_group is None else start_group,
            end_group=options.end_group if end_group is None else end_group,
        )
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
            self._sink.stream.write(data)
        self._options = changed

    @property
    def unread_groups(self) -> int:
        """Groups that wait to be received."""
        return len(self._groups)

    def statistics(self) -> SubscriptionStatistics:
        """Returns the subscription's numbers so far."""
        return SubscriptionStatistics(
            self._received, self._dropped, self._reset, self._frames, self._bytes, self._expired
        )

    def __repr__(self) -> str:
        state = "closed" if self._error is not None else "finished" if self._finished else "open"
        return f"<Subscription {self.track!r} of {str(self.path)!r} {state}, {self._received} groups received>"
