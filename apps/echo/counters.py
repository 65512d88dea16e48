"""What the echo client counts, and the line that it ends with."""

from __future__ import annotations

import math

import attrs


@attrs.define(eq=False)
class Counters:
    """The messages of one run of the client, over all of its sessions.

    Attributes:
        sent: Messages sent.
        round_trips: Seconds, one for each message that came back as it was sent.
        wrong: Messages that came back changed, twice, or without having been sent.
    """

    sent: int = 0
    round_trips: list[float] = attrs.field(factory=list)
    wrong: int = 0

    @property
    def lost(self) -> int:
        """Messages that have not come back."""
        return self.sent - len(self.round_trips)

    def summary(self) -> str:
        """Return one line for people."""
        text = f"sent {self.sent}, echoed {len(self.round_trips)}, lost {self.lost}"
        if self.wrong:
            text += f", wrong {self.wrong}"
        if self.round_trips:
            p50, p99 = (percentile(self.round_trips, share) * 1000 for share in (0.50, 0.99))
            text += f", round trip p50 {p50:.2f} ms, p99 {p99:.2f} ms"
        return text


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed (the nearest rank)."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
