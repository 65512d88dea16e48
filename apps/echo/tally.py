"""What the echo client sent and what came back: the count that decides its exit code. It knows no session."""

from __future__ import annotations

import math

import attrs


@attrs.define(eq=False)
class Tally:
    """What was sent and what came back.

    Attributes:
        waiting: The payload and the time in seconds of each message that is not yet back, by group sequence.
        round_trips: Seconds, one for each message that came back as it was sent.
        sent: Messages sent.
        lost: Messages that were given up before the end.
        wrong: Messages that came back changed, twice, or without having been sent.
    """

    waiting: dict[int, tuple[bytes, float]] = attrs.field(factory=dict)
    round_trips: list[float] = attrs.field(factory=list)
    sent: int = 0
    lost: int = 0
    wrong: int = 0

    def note_sent(self, sequence: int, payload: bytes, at: float) -> None:
        """Counts a message that went out."""
        self.waiting[sequence] = (payload, at)
        self.sent += 1

    def note_echo(self, sequence: int, payload: bytes, at: float) -> float | None:
        """Counts a message that came back.

        Returns:
            Its round trip in seconds; None when it is not what is missing under this sequence.
        """
        original, left = self.waiting.get(sequence, (None, 0.0))
        if original != payload:
            self.wrong += 1
            return None
        del self.waiting[sequence]
        self.round_trips.append(at - left)
        return at - left

    def note_lost(self, sequence: int) -> bool:
        """Gives a message up. Returns False when it had come back already, or was never sent."""
        if self.waiting.pop(sequence, None) is None:
            return False
        self.lost += 1
        return True

    def add(self, other: Tally) -> None:
        """Counts in what another one has counted to its end: what is not yet back there is lost."""
        self.round_trips += other.round_trips
        self.sent += other.sent
        self.lost += other.lost + len(other.waiting)
        self.wrong += other.wrong

    def summary(self) -> str:
        """Returns one line for people."""
        text = f"sent {self.sent}, echoed {len(self.round_trips)}, lost {self.lost + len(self.waiting)}"
        if self.wrong:
            text += f", wrong {self.wrong}"
        if self.round_trips:
            p50, p99 = (percentile(self.round_trips, share) * 1000 for share in (0.50, 0.99))
            text += f", round trip p50 {p50:.2f} ms, p99 {p99:.2f} ms"
        return text


def percentile(values: list[float], share: float) -> float:
    """Returns the smallest of the values that at least this share of them does not exceed (the nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
