"""Backoff: how long to wait before another attempt to connect."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs

_MAX_DOUBLINGS = 64
"""The greatest exponent: a factor of 2 exceeds every maximum by then, and a factor of 100 does not overflow a float."""


def _random() -> float:
    # A function of this module is pickled by name; `random.random` takes its generator's state along, and every
    # client that is given the copy would wait as long as the others.
    return random.random()


@attrs.frozen(kw_only=True)
class Backoff:
    """The delays between attempts: exponential up to a bound, and partly random, so that the clients of a server that
    was restarted do not reconnect at the same moment.

    Attributes:
        retries: How many times in a row a lost session or a failed attempt is followed by another attempt; None for no
            bound.
        initial: Seconds before the first of them.
        factor: By how much each delay is longer than the one before.
        maximum: Seconds that no delay exceeds.
        jitter: The share of a delay that is random, from 0 to 1.
        random: Returns a number from 0 to 1; a test gives its own.
    """

    retries: int | None = attrs.field(default=8)
    initial: float = attrs.field(default=0.25)
    factor: float = attrs.field(default=2.0)
    maximum: float = attrs.field(default=30.0)
    jitter: float = attrs.field(default=0.5)
    random: Callable[[], float] = attrs.field(default=_random, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.retries is not None and self.retries < 0:
            raise ValueError(f"Backoff.retries is a number from 0 on, or None for no bound, not {self.retries}")
        if not 0 < self.initial <= self.maximum:
            raise ValueError(f"Backoff.initial is above 0 and at most Backoff.maximum, not {self.initial!r}")
        if not 1 <= self.factor <= 100:
            raise ValueError(f"Backoff.factor is from 1 to 100, not {self.factor!r}")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"Backoff.jitter is from 0 to 1, not {self.jitter!r}")

    def delay(self, retry: int) -> float:
        """Return the seconds to wait.

        Args:
            retry: Which of the attempts in a row this is for; the first one is 0.
        """
        bound = min(self.maximum, self.initial * self.factor ** min(retry, _MAX_DOUBLINGS))
        return bound * (1 - self.jitter * self.random())
