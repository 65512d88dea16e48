"""Counts the instructions that Python executes: a cost that is the same on every machine and under every load."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

Trace = Callable[[FrameType, str, Any], Any]


class InstructionCounter:
    """Counts the bytecode instructions of every task and callback, for as long as the block lasts.

    Attributes:
        count: Their number.
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: Trace | None = None

    def __enter__(self) -> InstructionCounter:
        self._before = sys.gettrace()
        # Python 3.12 looks only at this call whether any frame wants its instructions traced.
        sys._getframe().f_trace_opcodes = True
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, kind: str, _argument: object) -> Trace:
        if kind == "call":
            frame.f_trace_lines = False
            frame.f_trace_opcodes = True
        elif kind == "opcode":
            self.count += 1
        return self._trace


async def instructions(event: Callable[[], Awaitable[object]], *, repeats: int = 5) -> int:
    """Return the fewest instructions that an event took: timers and acknowledgements belong to only some of them."""
    # Python 3.13 begins to trace a suspended frame only after it was resumed once.
    with InstructionCounter():
        await event()
    fewest = sys.maxsize
    for _ in range(repeats):
        with InstructionCounter() as counter:
            await event()
        fewest = min(fewest, counter.count)
    return fewest
