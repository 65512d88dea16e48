"""The peer's streams that have not said yet what they are, and the end of those that never do.

It knows nothing of what a type means; whoever reads a stream takes it out once its type is there.
"""

from __future__ import annotations

from typing import Protocol

import trio

from ..codes import StreamCode


class Refusable(Protocol):
    """A stream that can be refused from this side."""

    def refuse(self, code: int) -> None:
        """Refuses the rest of the stream."""


class PendingStreams:
    """Refuses streams whose type does not come. One task does it for all of them, and sleeps while there are none.

    Args:
        timeout: Seconds that a stream has at the least; it may get up to twice as many.

    Limits: setup_timeout.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._waiting: set[Refusable] = set()
        self._some = trio.Event()

    def add(self, stream: Refusable) -> None:
        """Takes in a stream that was just opened."""
        self._waiting.add(stream)
        self._some.set()

    def discard(self, stream: Refusable) -> None:
        """Forgets a stream: its type is there, or it is over."""
        self._waiting.discard(stream)

    async def expire_forever(self) -> None:
        """Refuses, time and again, what has waited too long."""
        seen: set[Refusable] = set()
        while True:
            await self._some.wait()
            await trio.sleep(self._timeout)
            for stream in seen & self._waiting:
                self._waiting.discard(stream)
                stream.refuse(StreamCode.CONTROL_TIMEOUT)
            seen = set(self._waiting)
            if not seen:
                self._some = trio.Event()
