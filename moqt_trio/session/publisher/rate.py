"""RequestRate: how many requests of the peer are begun in a second; the others wait.

A subscription that is made and given up at once costs its peer one packet, and this side a task, a cursor and streams.
A token bucket bounds what a peer gets of that: each request takes a token, and a request without one waits, in order. A
stream that waits is not read. So its place is not given back, be it reset meanwhile or not, and a peer that goes on
comes to the end of its streams: it is held to the rate by QUIC's own means, and breaks nothing.

A request that was answered in full gives its token back: a peer that reads groups one by one waits for each of them.
A list of announcements costs more the longer it is. It takes further tokens, down to below zero, and the requests after
it wait for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ...tasks import defer_interrupts

if TYPE_CHECKING:
    from ...transport.stream import BidiStream
    from ..context import SessionContext

ANNOUNCEMENTS_PER_TOKEN = 8
"""Announcements that are listed for one token: they cost about as much time as a subscription."""

_STEP = 0.02
"""Seconds between two looks at what waits: a request that has waited may wait as long once more."""


@defer_interrupts
class RequestRate:
    """The bucket of one session.

    Args:
        context: The session's.

    Attributes:
        tokens: Requests that may begin now; below zero after a long list. It may be above `Limits.request_burst` after
            a quiet time, when tokens were earned that are not counted before the rest is used; never above twice that.
        waiting: The streams that wait.

    Limits: request_rate, request_burst.
    """

    def __init__(self, context: SessionContext) -> None:
        self.tokens = context.limits.request_burst
        self.waiting: deque[BidiStream] = deque()
        self._context = context
        self._earned_at = trio.current_time()

    def hold(self, stream: BidiStream, begin: Callable[[BidiStream], None]) -> None:
        """Called with a stream for which there is no token, to `begin` it once there is one: at once or later."""
        if not self.waiting:
            self._earn()
            if self.tokens > 0:
                self.tokens -= 1
                begin(stream)
                return
            self._context.start(self._begin_waiting, begin)
        self.waiting.append(stream)

    def charge(self, announcements: int) -> None:
        """Called with the length of a list that the peer asked for: at most half of a burst is taken for it."""
        self.tokens -= min(announcements // ANNOUNCEMENTS_PER_TOKEN, self._context.limits.request_burst // 2)

    def give_back(self) -> None:
        """Called when a request was answered in full."""
        self.tokens += 1

    def _earn(self) -> None:
        limits, now = self._context.limits, trio.current_time()
        earned = int((now - self._earned_at) * limits.request_rate)
        if earned >= limits.request_burst:
            earned, self._earned_at = limits.request_burst, now
        else:
            # What is left of the time counts for the next token.
            self._earned_at += earned / limits.request_rate
        self.tokens += earned

    async def _begin_waiting(self, begin: Callable[[BidiStream], None]) -> None:
        try:
            while self.waiting:
                await trio.sleep(_STEP)
                self._earn()
                while self.waiting and self.tokens > 0:
                    self.tokens -= 1
                    begin(self.waiting.popleft())
        finally:
            self.waiting.clear()
