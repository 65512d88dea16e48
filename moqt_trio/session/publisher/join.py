"""JoinPoints: where the peer's subscriptions began, for the fetches that ask for what came before."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs
import trio

from ...timeouts import Timeout

if TYPE_CHECKING:
    from ...model.past import Place
    from ...model.track import Track

_WAIT = 1.0
"""Seconds that a fetch waits for its subscription: both are on their way, on streams of their own."""

_ENDED_KEPT = 16
"""Subscriptions that have ended, and that a fetch may still join."""


@attrs.frozen
class JoinPoint:
    """Where a subscription began.

    Attributes:
        track: Its track.
        newest: The newest frame then; None when there was none.
    """

    track: Track
    newest: Place | None


class JoinPoints:
    """The subscriptions of one session that a fetch may join, by their ids."""

    def __init__(self) -> None:
        self._points: dict[int, JoinPoint] = {}
        self._ended: deque[int] = deque()
        self._changed: trio.Event | None = None

    def add(self, subscribe_id: int, point: JoinPoint) -> None:
        """Add a subscription that was accepted."""
        self._points[subscribe_id] = point
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def end(self, subscribe_id: int) -> None:
        """Record that a subscription has ended; the last ones are kept, as a fetch may still be on its way."""
        if subscribe_id in self._points:
            self._ended.append(subscribe_id)
            if len(self._ended) > _ENDED_KEPT:
                del self._points[self._ended.popleft()]

    async def find(self, subscribe_id: int) -> JoinPoint | None:
        """Return where a subscription began. One that is not there yet has a moment to arrive; then it is None."""

        async def arrived() -> None:
            while subscribe_id not in self._points:
                if self._changed is None:
                    self._changed = trio.Event()
                await self._changed.wait()

        await Timeout(_WAIT).wait(arrived)
        return self._points.get(subscribe_id)
