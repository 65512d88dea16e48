"""What the stream of a served subscription says beside its groups: SUBSCRIBE_OK, SUBSCRIBE_DROP, SUBSCRIBE_END."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...codes import StreamCode

if TYPE_CHECKING:
    from ...model.cursor import Cursor
    from ...model.track_state import TrackState
    from ...protocol.subscribe import SubscribeResponder
    from ...transport.stream import BidiStream
    from ...wire.dialect import Features


class Replies:
    """Writes the replies of one subscription.

    Drops wait until the subscription is accepted and the stream is writable. Neighbours with the same code go into one
    message, so that a slow peer costs little memory.

    Attributes:
        drops: The ranges that wait to be told: first and last sequence, and the code.
    """

    def __init__(self, stream: BidiStream, machine: SubscribeResponder, features: Features) -> None:
        self._stream = stream
        self._machine = machine
        self._features = features
        self._end_sent = False
        # Of a range that is over, the first sequence of which nothing was said yet.
        self._unreported = 0
        self.drops: list[tuple[int, int, int]] = []

    @property
    def accepted(self) -> bool:
        """True once the subscription was accepted."""
        return self._machine.accepted

    def accept(self, first: int | None, latest: int | None = None) -> None:
        """Accept the subscription; see `SubscribeResponder.accept`."""
        self._stream.write(self._machine.accept(first, latest_group=latest))

    def drop(self, sequence: int, code: int) -> None:
        """Add a group that the subscriber will not get."""
        if self.drops:
            first, last, last_code = self.drops[-1]
            if sequence == last + 1 and code == last_code:
                self.drops[-1] = (first, sequence, code)
                return
        self.drops.append((sequence, sequence, code))

    def drop_missing(self, cursor: Cursor, log: TrackState) -> None:
        """Add the groups of a range that is over which will never come: the subscriber sees that it has them all."""
        wanted, earliest = cursor.range, cursor.earliest
        last = wanted.end_group
        if last is None or last < self._unreported:
            return
        unreported, self._unreported = self._unreported, last + 1
        first = last if wanted.start_group is None else wanted.start_group
        # What is not kept any more, and then what never was.
        before = last if earliest is None else min(earliest - 1, last)
        missing = [(max(first, unreported), before)]
        if earliest is not None:
            missing += log.gaps(max(earliest, unreported), last)
        self.drops += [(low, high, StreamCode.NOT_FOUND) for low, high in missing if low <= high]

    def flush(self) -> None:
        """Write the drops that wait, if they may be written; forget them where the version has no such message."""
        if not self.drops:
            return
        if self._machine.accepted and self._stream.writable:
            self._stream.write(b"".join(self._machine.drop(*drop) for drop in self.drops))
            self.drops.clear()
        elif not self._features.subscribe_drop:
            self.drops.clear()

    def end(self, end: int) -> None:
        """Say once that no group from `end` on will come."""
        if not self._end_sent:
            self._end_sent = True
            self._stream.write(self._machine.end(end))

    def finish(self) -> None:
        """Finish the stream."""
        self._machine.finish()
        self._stream.finish()
