"""GroupQueue: the groups of one subscription that arrived, and when a range or a track is complete.

Theory of operation. The groups' streams add readers as headers arrive (`begin`) and call `end` when they have ended.
The subscribe stream adds the publisher's messages (`accept`, `drop`, `end_group`, `finish_later`). Streams are not
ordered among each other: a group may overtake the acceptance, and the publisher's FIN may overtake the last groups. So
the queue records which sequences it has seen, as ranges, and is complete when no group that was asked for is missing.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Protocol
from weakref import ref

import attrs
import trio

from ...codes import StreamCode
from ...errors import SessionClosed, StreamReset
from ...model.keys import DATAGRAM, PartKey
from ...model.sequences import KeySet
from ...protocol.ietf.ends import TrackEnds
from ...timeouts import Timeout
from ...wire.ietf.objects import MalformedTrack, gaps_of, malformed_track
from ..statistics import SubscriptionStatistics
from .group import GroupBuffer, GroupReader
from .receive_queue import FrameCounts, QueueState, ReceiveQueue

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...errors import RemoteProtocolError
    from ...limits import Limits
    from ...model.keys import GroupKey
    from ...protocol.events import DatagramReceived, GroupStarted
    from ...wire.ietf.subgroups import SubgroupDecoder

DROPS_KEPT = 256
"""Ranges of dropped groups that are kept, the newest ones: a publisher may report ranges without end. Statistics count
all of them."""

_FIRST_SWEEP = 64
"""Streams at which those that have ended are first removed: fewer cost almost no memory."""
_FIRST_UNREAD_SWEEP = 2
"""Groups at which those that were read are first removed: so few that a reader that keeps up has no look at them, see
`UnreadGroups`."""


@attrs.frozen
class DroppedGroups:
    """Adjacent groups that the publisher will not deliver.

    Attributes:
        first: The first one's sequence.
        last: The last one's sequence, inclusive.
        code: Why: a stream error code such as `StreamCode.OLD`, or 0 for no particular reason. An unknown code stays
            as it is.
    """

    first: int
    last: int
    code: int


class GroupSource(Protocol):
    """The stream of a received group."""

    @property
    def buffer(self) -> GroupBuffer | None:
        """The group's frames, once its header arrived."""
        ...

    @property
    def over(self) -> bool:
        """True when no more will arrive, also because this side refused the rest."""
        ...

    def refuse(self, code: int) -> None:
        """Refuse the rest."""


class Awaited(Protocol):
    """A group of the past that was asked for: `head.PastGroup`."""

    sequence: int
    decided: trio.Event

    def end(self, error: Exception | None) -> None:
        """Called when the subscription has ended."""


class Joined(Awaited, Protocol):
    """The group in whose middle the subscription began: `head.GroupHead`."""

    def take_tail(self, buffer: GroupBuffer, source: GroupSource, event: GroupStarted) -> bool:
        """Take a stream of the group as its tail; return False when it is a group of its own."""
        ...

    def group_began(self, sequence: int) -> None:
        """Called when another group of the subscription has begun."""

    def overtaken(self) -> None:
        """Called when the rest of the group is late, should it not have begun."""


class GroupQueue(ReceiveQueue[GroupReader]):
    """Received groups of one subscription, waiting to be read, and the sequences that will not arrive.

    Args:
        limits: The bounds.

    Attributes:
        start_group: The first group that will arrive; None until the publisher has sent it.
        end_group: The first sequence that will never arrive; None until the publisher has sent it.
        dropped: The ranges that the publisher dropped, the newest last.
        first_wanted: The first group that was asked for; None for the latest.
        last_wanted: The last group that was asked for, inclusive; None for no end.
        finishing: True once the publisher has finished the subscription; groups may still be on their way.
        ordered: True when all groups are wanted, in order.
        max_age: Seconds after which a group is not wanted any more.
        counts: The frames that arrived.
        head: The head of the group that was the newest when the subscription began; None where there is none.
        past: The groups of the past that were asked for, the head among them.
        on_malformed: Called when the track contradicts itself; it has to end the subscription.
        on_middle: Called with the number of the first group that arrives, if that may be the rest of one: it makes the
            head, where it is not known before in which group the subscription begins.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__("subscription")
        self.start_group: int | None = None
        self.end_group: int | None = None
        self.dropped: deque[DroppedGroups] = deque(maxlen=DROPS_KEPT)
        self.first_wanted: int | None = None
        self.last_wanted: int | None = None
        self.finishing = False
        self.ordered = False
        self.max_age = math.inf
        self.on_malformed: Callable[[RemoteProtocolError], None] | None = None
        self.on_middle: Callable[[int], None] | None = None
        self._ends = TrackEnds()
        self._limits = limits
        self._accepted = False
        self._unfinished: set[GroupSource] = set()
        self._unfinished_sweep_at = _FIRST_SWEEP
        self._unread: set[GroupBuffer] = set()
        self._unread_sweep_at = _FIRST_UNREAD_SWEEP
        # The groups that arrived, and those that never will.
        self._seen = KeySet(limits.cache_groups)
        # Where the publisher says how many streams it opened: those that are still to come, once it has finished.
        self._streams_due: int | None = None
        # True once there was a part of a group, so that others may follow; and whether those of a range had their time.
        self._in_parts = False
        self._range_over = False
        self._received = 0
        self._dropped = 0
        self._expired = 0
        self._reset = 0
        self.counts = FrameCounts()
        self.head: Joined | None = None
        self.past: set[Awaited] = set()

    # -- from the groups' streams --------------------------------------------------------------------------

    def begin(
        self,
        reader: GroupReader,
        buffer: GroupBuffer,
        stream: GroupSource | None = None,
        key: GroupKey | None = None,
    ) -> bool:
        """Add a group whose header arrived; return False to have it refused.

        Args:
            reader: The reader for the application.
            buffer: Its frames.
            stream: The stream to refuse when the subscription ends before the group; None for a datagram.
            key: The group's key where the version has parts of groups; None for its sequence.
        """
        if self.state in (QueueState.FAILED, QueueState.CLOSED):
            return False
        if key is None:
            key = reader.sequence
        if self._has_part(key) if isinstance(key, PartKey) or self._seen.in_parts else key in self._seen:
            return False
        buffer.reader, buffer.sequence, buffer.arrival = ref(reader), reader.sequence, self._received
        buffer.key = key
        self._received += 1
        if stream is not None:
            self._add_stream(stream)
        self.put(reader)
        self._note(reader.sequence, reader.sequence)
        if isinstance(key, PartKey) or not reader.ends_group:
            self._in_parts = True
        if self._in_parts and not self.finishing and self._range_arrived():
            # Each group has come, and it is not known how many parts the last ones have.
            self.expect_within(Timeout(self._limits.late_group_timeout), self._end_range)
        if self.head is not None:
            self.head.group_began(reader.sequence)
        if self.past:
            self.past_decided()
        return True

    def _add_stream(self, stream: GroupSource) -> None:
        if len(self._unfinished) >= self._unfinished_sweep_at:
            # A stream whose group the application closed does not call `end`. The cost of a sweep is as below.
            self._unfinished = {item for item in self._unfinished if not item.over}
            self._unfinished_sweep_at = max(_FIRST_SWEEP, 2 * len(self._unfinished))
        self._unfinished.add(stream)

    def continue_group(self, buffer: GroupBuffer, before: GroupBuffer, stream: GroupSource) -> None:
        """Add a stream that continues a group; see `GroupHead`.

        Args:
            buffer: Its frames.
            before: The frames of the group so far.
            stream: The stream.
        """
        buffer.reader, buffer.sequence, buffer.arrival = before.reader, before.sequence, before.arrival
        buffer.key = before.key
        if not stream.over:
            self._add_stream(stream)

    def _end_range(self) -> None:
        self._range_over = True
        self.wait_on()
        self._wake()

    def _has_part(self, key: GroupKey) -> bool:
        """Return whether a part of a group arrived before, and add it. A group may have any number of datagrams."""
        if isinstance(key, PartKey) and key.part >= DATAGRAM:
            self._seen.add_key(PartKey(key.sequence, DATAGRAM))
            return False
        found = self._seen.has_key(key)
        self._seen.add_key(key)
        return found

    def note_gap(self, sequence: int, count: int) -> None:
        """Called when an object says that so many groups before its own do not exist. Its track may be malformed."""
        if not count or not self._ends.remembers(sequence) or self._ends.gap(sequence) == count:
            return
        problem = self._ends.note_gap(sequence, count)
        first, last = sequence - count, sequence - 1
        if problem is None and self._seen.gaps(first, last) != [(first, last)]:
            problem = f"group {sequence} says that {count} groups before it do not exist, of which some arrived"
        if problem is None:
            self.drop(first, last, 0)
        else:
            self.malformed(malformed_track(problem))

    def read_whole(self, sequence: int, decoder: SubgroupDecoder, *, ends_group: bool) -> None:
        """Called when a subgroup's stream was read to its end; see `TrackEnds.finish`. Its track may be malformed."""
        problem = self._ends.finish(sequence, decoder, ends_group=ends_group)
        self.end_group = self._ends.end_group
        if problem is not None:
            self.malformed(malformed_track(problem))

    def note_datagram(self, event: DatagramReceived) -> None:
        """Called for a datagram of a group that may have several. Its track may be malformed."""
        number = event.frame.object_id or 0
        try:
            self.note_gap(event.sequence, gaps_of(event.frame.properties)[0])
        except MalformedTrack as error:
            self.malformed(error)
        if event.end == "track":
            self.track_ended(event.sequence + (number > 0))
        last, end = (number, number + 1 if event.ends_group else None) if event.end is None else (-1, number)
        problem = self._ends.note(event.sequence, last, end)
        if problem is not None:
            self.malformed(malformed_track(problem))

    def track_ended(self, group: int) -> None:
        """Called when a group's stream said that no group from this one on exists."""
        self._ends.end_track(group)
        self.end_group = self._ends.end_group

    def malformed(self, error: RemoteProtocolError) -> None:
        """Called when the track contradicts itself, in the versions where that ends its subscription."""
        if self.on_malformed is not None:
            self.on_malformed(error)

    def stream_arrived(self) -> None:
        """Called for each stream of a group, in the versions whose publishers count them."""
        if self._streams_due is not None:
            self._streams_due -= 1
            if self._streams_due <= 0:
                self.finish()

    def end(self, stream: GroupSource, buffer: GroupBuffer, *, reset: bool = False) -> None:
        """Remove a stream that has ended, and keep its buffer for as long as there is something to read.

        Args:
            stream: The stream.
            buffer: Its frames; those that are unread hold the publisher's credit.
            reset: True when the publisher reset the group.
        """
        self._unfinished.discard(stream)
        self._reset += reset
        if buffer.read_whole:
            return
        if len(self._unread) >= self._unread_sweep_at:
            # Readers do not report that they were read. Sweeping at twice the number left costs a constant per group.
            self._unread = {item for item in self._unread if not item.read_whole}
            self._unread_sweep_at = max(_FIRST_UNREAD_SWEEP, 2 * len(self._unread))
        self._unread.add(buffer)

    # -- unread groups -------------------------------------------------------------------------------------

    @property
    def taken(self) -> int:
        """How many groups the application has taken; they are taken in the order of their arrival."""
        return self._received - len(self.items)

    @property
    def unread_count(self) -> int:
        """The most groups that may be unread: those that have not ended, and ended ones that were not swept yet."""
        return len(self._unfinished) + len(self._unread)

    def buffers(self) -> list[GroupBuffer]:
        """Return the frames of the groups that may be unread."""
        return [*self._unread, *(item.buffer for item in self._unfinished if item.buffer is not None)]

    def close_unreferenced(self, buffer: GroupBuffer) -> None:
        """Close a group whose reader the application no longer has."""
        buffer.close("its reader is gone")
        self._unread.discard(buffer)

    def drop_untaken(self, keys: set[GroupKey], code: int) -> None:
        """Drop groups that were not taken, and report them."""
        dropped = [reader for reader in self.items if _key_of(reader) in keys]
        self.items = deque(reader for reader in self.items if _key_of(reader) not in keys)
        for reader in dropped:
            reader.close(code)
        for sequence in sorted({reader.sequence for reader in dropped}):
            self.drop(sequence, sequence, code)
        # They count as taken: as if they had arrived before the others.
        arrivals = {_key_of(reader): number for number, reader in enumerate(self.items, self.taken)}
        for buffer in self.buffers():
            buffer.arrival = arrivals.get(buffer.key, buffer.arrival)

    def drop_unread(self, buffer: GroupBuffer, code: int) -> None:
        """Drop what is unread of a group, and report it."""
        buffer.drop(code)
        self._unread.discard(buffer)
        self.drop(buffer.sequence, buffer.sequence, code)

    # -- from the subscribe stream -------------------------------------------------------------------------

    def accept(self, start_group: int | None) -> None:
        """Called when the publisher accepts, with the first group that it will send where the version has it."""
        self._accepted = True
        self.start_group = start_group
        self.wait_on()
        self._wake_if_complete()

    def drop(self, first: int, last: int, code: int) -> None:
        """Called when the publisher will not deliver the groups from `first` to `last`, inclusive."""
        count = last - first + 1
        self._dropped += count
        if code == StreamCode.OLD:
            self._expired += count
        self._note(first, last)
        before = self.dropped[-1] if self.dropped else None
        if before is not None and (before.last + 1, before.code) == (first, code):
            # For a slow subscriber one group after another is dropped.
            first = self.dropped.pop().first
        self.dropped.append(DroppedGroups(first, last, code))
        self._wake_if_complete()

    def finish_later(self, streams: int | None = None) -> None:
        """Called when the publisher finished the subscription; groups on their way may still arrive.

        The publisher finishes this stream after the groups' streams, but streams are not ordered among each other.

        Args:
            streams: How many streams of groups are still to come; None where it does not say.
        """
        self.finishing = True
        if self.head is not None:
            # The rest of the group that was joined is late from now on, as other groups are.
            self.head.overtaken()
        self._streams_due = streams
        if self._all_arrived() if streams is None else streams <= 0:
            self.finish()
        else:
            self.expect_within(Timeout(self._limits.late_group_timeout), self.finish)

    def finish(self) -> None:
        if not all(group.decided.is_set() for group in self.past):
            # What was published before is still on its way, though the subscription is over: `past_decided` goes on.
            self.wait_on()
            return
        super().finish()
        self._end_past(None)

    def past_decided(self) -> None:
        """Called once it is known whether a group of the past comes."""
        if self.finishing and not self.ended and self._timeout is None:
            self.finish()

    def _end_past(self, error: Exception | None) -> None:
        for group in tuple(self.past):
            group.end(error)

    def fail(self, error: Exception) -> None:
        # What has arrived of a group whose first frames were still to come stays readable.
        if not self.finishing:
            self._end_past(error)
            super().fail(error)
        else:
            # What happens to the stream of a subscription that is over says nothing about its groups.
            self._end_past(error if isinstance(error, SessionClosed) else None)
            self.past_decided()

    def close(self, reason: str) -> None:
        """End the queue: refuse the groups that are on their way, and drop those that were not taken."""
        self._end_past(trio.ClosedResourceError(reason))
        for stream in list(self._unfinished):
            stream.refuse(StreamCode.CANCELLED)
            if (buffer := stream.buffer) is not None:
                buffer.uncount()
        for reader in self.items:
            reader.close()
        # The application may go on reading a group that it took. The publisher need not wait for that.
        for buffer in self._unread:
            buffer.release()
            buffer.uncount()
        self._unread.clear()
        super().close(reason)

    # -- for the subscription ------------------------------------------------------------------------------

    def want(self, first: int | None, last: int | None) -> None:
        """Set which groups are asked for from now on; see `first_wanted` and `last_wanted`."""
        if last != self.last_wanted and self._in_parts and not self.finishing:
            self._range_over = False
            self.wait_on()
        self.first_wanted, self.last_wanted = first, last
        self._wake_if_complete()

    def cut(self) -> None:
        """Called when a pause begins or ends: a group that it cut may come again from its middle, others never come."""
        self._seen = KeySet(self._limits.cache_groups)
        if self.head is not None:
            self.head.end(StreamReset(StreamCode.CANCELLED, by_peer=False))
            self.head = None
            self.past_decided()

    def statistics(self) -> SubscriptionStatistics:
        """Return the numbers so far."""
        return SubscriptionStatistics(
            self._received, self._dropped, self._reset, self.counts.frames, self.counts.bytes, self._expired
        )

    def _note(self, first: int, last: int) -> None:
        """Record groups that arrived, or never will."""
        self._seen.add_range(first, last)
        if self.finishing and self._streams_due is None and self._all_arrived():
            self.finish()

    def _wake_if_complete(self) -> None:
        if self.complete:
            self._wake()

    @property
    def complete(self) -> bool:
        # Publishers keep the subscription of a complete range open: the range may still be extended.
        return self.ended or (self._range_arrived() and (self._range_over or not self._in_parts))

    def _range_arrived(self) -> bool:
        """True when every group that was asked for was seen."""
        last = self.last_wanted
        if last is None or last not in self._seen:
            return False
        known = [first for first in (self.first_wanted, self.start_group) if first is not None]
        if not known and not self._accepted:
            # Groups may overtake the acceptance, which names the first of them.
            return False
        first = max(known) if known else self._seen.lowest
        return first is not None and self._seen.covers(first, last)

    def _all_arrived(self) -> bool:
        """True when no more groups can arrive: every group of the known range was seen."""
        if self.end_group is None or self._ends.end_group is not None:
            # What a group's stream says of the end of the track says nothing about the other streams.
            return self._range_arrived() and not self._in_parts
        last = self.end_group - 1
        if self.last_wanted is not None:
            last = min(last, self.last_wanted)
        if self.start_group is None:
            return last < 0 or self._seen.lowest is not None
        return self._seen.covers(self.start_group, last)


def _key_of(reader: GroupReader) -> GroupKey:
    return reader._frames.key
