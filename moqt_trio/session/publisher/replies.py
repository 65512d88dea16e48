"""Replies: the messages on the stream of a served subscription: SUBSCRIBE_OK, SUBSCRIBE_DROP, SUBSCRIBE_END."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...codes import StreamCode
from ...wire.messages import TrackInfo

if TYPE_CHECKING:
    from ...model.cursor import Cursor
    from ...model.track import Track
    from ...model.track_state import TrackState
    from ...protocol.subscribe import SubscribeResponder
    from ...transport.stream import BidiStream
    from ...wire.dialect import Features


class Replies:
    """Writes the replies of one subscription.

    Drops wait until the subscription is accepted and the stream is writable. Adjacent groups with the same code go into
    one message, so that a slow peer costs little memory.

    Attributes:
        drops: The ranges that are not reported yet: first and last sequence, and the code.
    """

    def __init__(self, stream: BidiStream, machine: SubscribeResponder, features: Features) -> None:
        self._stream = stream
        self._machine = machine
        self._features = features
        self._end_sent = False
        # The first sequence of a complete range that was not reported yet.
        self._unreported = 0
        self.drops: list[tuple[int, int, int]] = []

    @property
    def accepted(self) -> bool:
        """True once the subscription was accepted."""
        return self._machine.accepted

    def accept(self, first: int | None, latest: int | None = None, newest: tuple[int, int] | None = None) -> None:
        """Accept the subscription; see `SubscribeResponder.accept`."""
        data = self._machine.accept(first, latest_group=latest, newest=newest)
        if data:
            self._stream.write(data)

    def drop(self, sequence: int, code: int) -> None:
        """Add a group that is not delivered."""
        if self.drops:
            first, last, last_code = self.drops[-1]
            if sequence == last + 1 and code == last_code:
                self.drops[-1] = (first, sequence, code)
                return
        self.drops.append((sequence, sequence, code))

    def drop_missing(self, cursor: Cursor, log: TrackState) -> None:
        """Add the groups of a complete range that do not exist, so that the subscriber knows that none is missing."""
        wanted, earliest = cursor.range, cursor.earliest
        last = wanted.end_group
        if last is None or last < self._unreported:
            return
        unreported, self._unreported = self._unreported, last + 1
        first = last if wanted.start_group is None else wanted.start_group
        # First the groups that are no longer kept, then those that never existed.
        before = last if earliest is None else min(earliest - 1, last)
        missing = [(max(first, unreported), before)]
        if earliest is not None:
            missing += log.gaps(max(earliest, unreported), last)
        self.drops += [(low, high, StreamCode.NOT_FOUND) for low, high in missing if low <= high]

    def flush(self) -> None:
        """Write the drops that wait, if that is possible; discard them where the version has no such message."""
        if not self.drops:
            return
        if self._machine.accepted and self._stream.writable:
            self._stream.write(b"".join(self._machine.drop(*drop) for drop in self.drops))
            self.drops.clear()
        elif not self._features.subscribe_drop:
            self.drops.clear()

    def end(self, end: int) -> None:
        """Write, once, that no group from `end` on will be published."""
        if not self._end_sent:
            self._end_sent = True
            self._stream.write(self._machine.end(end))

    def finish(self) -> None:
        """Finish the stream."""
        self._machine.finish()
        self._stream.finish()


def info_of(track: Track) -> TrackInfo:
    """Return a track's properties."""
    return TrackInfo(
        priority=track.priority,
        max_age_ms=round(track.max_age * 1000),
        timescale=track.timescale,
        properties=track.properties,
    )
