"""How slow the machine is now: the bound of a test in seconds holds for one that runs `_WORK` in `_USUAL`."""

from __future__ import annotations

import time

_WORK = 200_000
_USUAL = 0.008
"""Seconds of a machine on which the figures of the tests were taken."""


def _work() -> float:
    began = time.perf_counter()
    for _ in range(_WORK):
        pass
    return time.perf_counter() - began


def seconds(figure: float) -> float:
    """Return what so many seconds of a usual machine are on this one now: never less.

    A slow machine, or one with other work, gets more time. What is meant to be a matter of milliseconds and takes a
    hundred times as long still fails.
    """
    return figure * max(1.0, min(_work() for _ in range(3)) / _USUAL)
