"""GroupQueue: the groups of one subscription that arrived, and when a range or a track is complete.

Theory of operation. The groups' streams add readers as headers arrive (`begin`) and tell when they are over (`end`);
the subscribe stream adds what the publisher says (`accept`, `drop`, `end_group`, `finish_later`). Streams are not
ordered among each other: a group may overtake the acceptance, and the publisher's FIN may overtake the last groups. So
the queue remembers which sequences it has seen, as ranges, and is complete when nothing that was asked for is missing.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from ...codes import StreamCode
from ...model.sequences import SequenceSet
from .group import FrameCounts, GroupBuffer, GroupReader
from .receive_queue import QueueState, ReceiveQueue

if TYPE_CHECKING:
    from ...limits import Limits

DROPS_KEPT = 256
"""How many ranges of dropped groups are remembered, the newest ones: a publisher may report ranges for ever."""

_FIRST_SWEEP = 64
"""Streams or buffers after which those that are over are looked for the first time: fewer cost next to nothing."""


@attrs.frozen
class DroppedGroups:
    """Groups next to each other that the publisher said it would not deliver.

    Attributes:
        first: The first one's sequence.
        last: The last one's sequence, inclusive.
        code: Why: a stream error code such as `StreamCode.OLD`, or 0 for no particular reason. An unknown code stays
            as it is.
    """

    first: int
    last: int
    code: int


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


class GroupSource(Protocol):
    """What a group comes from."""

    @property
    def over(self) -> bool:
        """True when nothing more will come, also because this side refused it."""
        ...

    def refuse(self, code: int) -> None:
        """Refuse the rest."""


class GroupQueue(ReceiveQueue[GroupReader]):
    """Groups that arrived and were not taken, and what is known of those that did not.

    Args:
        limits: The bounds.

    Attributes:
        start_group: The first group that will come; None while the publisher has not said so.
        end_group: The first sequence that will never come; None while the publisher has not said so.
        dropped: The ranges that the publisher dropped, the newest last.
        first_wanted: The first group that was asked for; None for the latest.
        last_wanted: The last group that was asked for, inclusive; None for no end.
        finishing: True once the publisher has finished the subscription; groups may still be on their way.
        counts: The frames that arrived.
    """

    def __init__(self, limits: Limits) -> None:
        super().__init__("subscription")
        self.start_group: int | None = None
        self.end_group: int | None = None
        self.dropped: deque[DroppedGroups] = deque(maxlen=DROPS_KEPT)
        self.first_wanted: int | None = None
        self.last_wanted: int | None = None
        self.finishing = False
        self._limits = limits
        self._accepted = False
        self._unfinished: set[GroupSource] = set()
        self._unfinished_sweep_at = _FIRST_SWEEP
        self._unread: set[GroupBuffer] = set()
        self._unread_sweep_at = _FIRST_SWEEP
        # Those that came, and those that never will.
        self._seen = SequenceSet(limits.cache_groups)
        self._received = 0
        self._dropped = 0
        self._expired = 0
        self._reset = 0
        self.counts = FrameCounts()

    # -- from the groups' streams --------------------------------------------------------------------------

    def begin(self, reader: GroupReader, stream: GroupSource | None = None) -> bool:
        """Take a group whose header arrived; return False to have it refused.

        Args:
            reader: What the application gets.
            stream: What has to be refused when the subscription ends before the group; None for a datagram.
        """
        if self.state in (QueueState.FAILED, QueueState.CLOSED) or reader.sequence in self._seen:
            return False
        self._received += 1
        if stream is not None:
            if len(self._unfinished) >= self._unfinished_sweep_at:
                # Streams of groups that the application closed do not tell; sweeping costs as little as below.
                self._unfinished = {item for item in self._unfinished if not item.over}
                self._unfinished_sweep_at = max(_FIRST_SWEEP, 2 * len(self._unfinished))
            self._unfinished.add(stream)
        self.put(reader)
        self._note(reader.sequence, reader.sequence)
        return True

    def end(self, stream: GroupSource, buffer: GroupBuffer, *, reset: bool = False) -> None:
        """Forget a stream that is over, and keep its buffer for as long as there is something to read.

        Args:
            stream: The stream.
            buffer: Its frames; unread they hold the publisher's credit.
            reset: True when the publisher gave the group up.
        """
        self._unfinished.discard(stream)
        self._reset += reset
        if buffer.read_whole:
            return
        if len(self._unread) >= self._unread_sweep_at:
            # Readers do not tell when they were read; sweeping at twice what was left costs a constant each.
            self._unread = {item for item in self._unread if not item.read_whole}
            self._unread_sweep_at = max(_FIRST_SWEEP, 2 * len(self._unread))
        self._unread.add(buffer)

    # -- from the subscribe stream -------------------------------------------------------------------------

    def accept(self, start_group: int | None) -> None:
        """Take the publisher's acceptance, and the first group that it will send where it says so."""
        self._accepted = True
        self.start_group = start_group
        self.wait_on()
        self._wake_if_complete()

    def drop(self, first: int, last: int, code: int) -> None:
        """Take what the publisher will not deliver: the groups from `first` to `last`, inclusive."""
        count = last - first + 1
        self._dropped += count
        if code == StreamCode.OLD:
            self._expired += count
        self._note(first, last)
        before = self.dropped[-1] if self.dropped else None
        if before is not None and (before.last + 1, before.code) == (first, code):
            # A slow subscriber loses one group after another.
            first = self.dropped.pop().first
        self.dropped.append(DroppedGroups(first, last, code))
        self._wake_if_complete()

    def finish_later(self) -> None:
        """Take the publisher's end of the subscription: what is on its way may still come.

        The publisher finishes this stream after the groups' streams, but streams are not ordered among each other.
        """
        self.finishing = True
        if self._all_arrived():
            self.finish()
        else:
            self.expect_by(trio.current_time() + self._limits.late_group_timeout, self.finish)

    def fail(self, error: Exception) -> None:
        if not self.finishing:
            super().fail(error)

    def close(self, reason: str) -> None:
        """End the queue: refuse the groups that are on their way, and drop those that were not taken."""
        for stream in list(self._unfinished):
            stream.refuse(StreamCode.CANCELLED)
        for reader in self.items:
            reader.close()
        # The application may read on in a group that it took; the publisher need not wait for that.
        for buffer in self._unread:
            buffer.release()
        self._unread.clear()
        super().close(reason)

    # -- for the subscription ------------------------------------------------------------------------------

    def want(self, first: int | None, last: int | None) -> None:
        """Take which groups are asked for from now on; see `first_wanted` and `last_wanted`."""
        self.first_wanted, self.last_wanted = first, last
        self._wake_if_complete()

    def statistics(self) -> SubscriptionStatistics:
        """Return the numbers so far."""
        return SubscriptionStatistics(
            self._received, self._dropped, self._reset, self.counts.frames, self.counts.bytes, self._expired
        )

    def _note(self, first: int, last: int) -> None:
        """Remember groups that came, or never will."""
        self._seen.add_range(first, last)
        if self.finishing and self._all_arrived():
            self.finish()

    def _wake_if_complete(self) -> None:
        if self.complete:
            self._wake()

    @property
    def complete(self) -> bool:
        # Publishers leave a range that is over open: it may still be extended.
        return self.ended or self._range_arrived()

    def _range_arrived(self) -> bool:
        """True when every group that was asked for was seen."""
        last = self.last_wanted
        if last is None or last not in self._seen:
            return False
        known = [first for first in (self.first_wanted, self.start_group) if first is not None]
        if not known and not self._accepted:
            # Groups may overtake the acceptance, which says where they begin.
            return False
        first = max(known) if known else self._seen.lowest
        return first is not None and self._seen.covers(first, last)

    def _all_arrived(self) -> bool:
        """True when nothing more can come: every group of the known range was seen."""
        if self.end_group is None:
            return self._range_arrived()
        last = self.end_group - 1
        if self.last_wanted is not None:
            last = min(last, self.last_wanted)
        if self.start_group is None:
            return last < 0 or self._seen.lowest is not None
        return self._seen.covers(self.start_group, last)
