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
from ...model.sequences import SequenceSet
from ...timeouts import Timeout
from ..statistics import SubscriptionStatistics
from .group import FrameCounts, GroupBuffer, GroupReader
from .receive_queue import QueueState, ReceiveQueue

if TYPE_CHECKING:
    from ...limits import Limits

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

    def take_tail(self, buffer: GroupBuffer, source: GroupSource, start_frame: int, *, whole: bool) -> bool:
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
        self._limits = limits
        self._accepted = False
        self._unfinished: set[GroupSource] = set()
        self._unfinished_sweep_at = _FIRST_SWEEP
        self._unread: set[GroupBuffer] = set()
        self._unread_sweep_at = _FIRST_UNREAD_SWEEP
        # The groups that arrived, and those that never will.
        self._seen = SequenceSet(limits.cache_groups)
        self._received = 0
        self._dropped = 0
        self._expired = 0
        self._reset = 0
        self.counts = FrameCounts()
        self.head: Joined | None = None
        self.past: set[Awaited] = set()

    # -- from the groups' streams --------------------------------------------------------------------------

    def begin(self, reader: GroupReader, buffer: GroupBuffer, stream: GroupSource | None = None) -> bool:
        """Add a group whose header arrived; return False to have it refused.

        Args:
            reader: The reader for the application.
            buffer: Its frames.
            stream: The stream to refuse when the subscription ends before the group; None for a datagram.
        """
        if self.state in (QueueState.FAILED, QueueState.CLOSED) or reader.sequence in self._seen:
            return False
        buffer.reader, buffer.sequence, buffer.arrival = ref(reader), reader.sequence, self._received
        self._received += 1
        if stream is not None:
            self._add_stream(stream)
        self.put(reader)
        self._note(reader.sequence, reader.sequence)
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
        if not stream.over:
            self._add_stream(stream)

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

    def drop_untaken(self, sequences: set[int], code: int) -> None:
        """Drop groups that were not taken, and report them."""
        dropped = [reader for reader in self.items if reader.sequence in sequences]
        self.items = deque(reader for reader in self.items if reader.sequence not in sequences)
        for reader in dropped:
            reader.close(code)
        for sequence in sorted(reader.sequence for reader in dropped):
            self.drop(sequence, sequence, code)
        # They count as taken: as if they had arrived before the others.
        arrivals = {reader.sequence: number for number, reader in enumerate(self.items, self.taken)}
        for buffer in self.buffers():
            buffer.arrival = arrivals.get(buffer.sequence, buffer.arrival)

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

    def finish_later(self) -> None:
        """Called when the publisher finished the subscription; groups on their way may still arrive.

        The publisher finishes this stream after the groups' streams, but streams are not ordered among each other.
        """
        self.finishing = True
        if self.head is not None:
            # The rest of the group that was joined is late from now on, as other groups are.
            self.head.overtaken()
        if self._all_arrived():
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
        self.first_wanted, self.last_wanted = first, last
        self._wake_if_complete()

    def cut(self) -> None:
        """Called when a pause begins or ends: a group that it cut may come again from its middle, others never come."""
        self._seen = SequenceSet(self._limits.cache_groups)
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
        if self.finishing and self._all_arrived():
            self.finish()

    def _wake_if_complete(self) -> None:
        if self.complete:
            self._wake()

    @property
    def complete(self) -> bool:
        # Publishers keep the subscription of a complete range open: the range may still be extended.
        return self.ended or self._range_arrived()

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
        if self.end_group is None:
            return self._range_arrived()
        last = self.end_group - 1
        if self.last_wanted is not None:
            last = min(last, self.last_wanted)
        if self.start_group is None:
            return last < 0 or self._seen.lowest is not None
        return self._seen.covers(self.start_group, last)
