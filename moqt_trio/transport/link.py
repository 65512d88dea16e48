"""A network path for the memory transport that delays, reorders and loses, the same way on every run.

It computes only when things arrive; `memory.py` delivers them. It reads no clock.
"""

from __future__ import annotations

import random
from typing import Protocol

import attrs


class Link(Protocol):
    """A model of a network path: when a message arrives, if it does."""

    def backlog(self, now: float, *, from_client: bool) -> float:
        """Return for how many seconds what was sent before keeps the link busy; 0.0 where it has no rate."""
        ...

    def arrival(self, now: float, size: int, *, from_client: bool, reliable: bool) -> float | None:
        """Return when a message arrives, on trio's clock, or None when it is lost.

        Args:
            now: The time of sending.
            size: The message's bytes.
            from_client: The direction.
            reliable: True when it is sent again until it arrives; such a message must not be lost.
        """
        ...


@attrs.define(kw_only=True, eq=False)
class LossyLink:
    """A path with one delay and one rate in each direction. Give it to `session_pair(link=…)`.

    Stream bytes that are lost arrive late, by the time that a sender needs to notice and send again; a datagram that
    is lost is lost.

    Attributes:
        delay: Seconds from one side to the other.
        jitter: Seconds by which the delay varies, at most, to either side.
        loss: The share of messages that are lost, from 0 to below 1.
        reorder: The share of messages that are overtaken by those sent within another `delay`.
        rate: Bytes per second in each direction; None is without limit.
        seed: What the random numbers start from.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = attrs.field(default=0.0, validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)])
    reorder: float = 0.0
    rate: float | None = None
    seed: int = 0
    _random: random.Random = attrs.field(init=False)
    _busy_until: dict[bool, float] = attrs.field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def backlog(self, now: float, *, from_client: bool) -> float:
        """Return for how many seconds the link is busy; see `Link`."""
        return max(0.0, self._busy_until.get(from_client, now) - now)

    def arrival(self, now: float, size: int, *, from_client: bool, reliable: bool) -> float | None:
        """Return when a message arrives, or None when it is lost; see `Link`."""
        at = max(now, self._busy_until.get(from_client, now))
        if self.rate is not None:
            at += size / self.rate
            self._busy_until[from_client] = at
        at += self._one_way()
        while self._random.random() < self.loss:
            if not reliable:
                return None
            # A round trip until the gap is noticed, and the way once more.
            at += 2 * self.delay + self._one_way()
        return at

    def _one_way(self) -> float:
        seconds = self.delay + self._random.uniform(-self.jitter, self.jitter)
        if self._random.random() < self.reorder:
            seconds += self.delay
        return max(0.0, seconds)
