"""What the echo client takes along when its server sends it elsewhere: the messages still to be sent, and the count.

The talking on each session is in `conversation.py`; when the next session is opened, and where, is the library's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from urllib.parse import urlsplit

import trio

import moqt_trio as moqt

from .conversation import Conversation, EchoFailed
from .tally import Tally

Talk = Callable[[moqt.Session], Awaitable[None]]
Connect = Callable[[Talk, Callable[[moqt.Redirect], bool]], Awaitable[None]]
"""Talks on one session after another; the second function says which moves are allowed."""


class Outbox:
    """Messages on their way to whichever session is current. One that a session took and did not send comes back."""

    def __init__(self) -> None:
        self._returned: deque[bytes] = deque()
        # Without a buffer: a message is read when there is a session that has sent the one before.
        self._filling, self._emptying = trio.open_memory_channel[bytes](0)

    async def fill(self, messages: AsyncGenerator[bytes, None]) -> None:
        """Puts in every message, and says so when there are no more."""
        async with self._filling, aclosing(messages):
            async for message in messages:
                await self._filling.send(message)

    async def take(self) -> AsyncGenerator[bytes, None]:
        """Yields the messages that are left. Asking for the next one says that the one before was sent."""
        while True:
            if self._returned:
                message = self._returned.popleft()
            else:
                try:
                    message = await self._emptying.receive()
                except trio.EndOfChannel:
                    return
            sent = False
            try:
                yield message
                sent = True
            finally:
                if not sent:
                    self._returned.appendleft(message)


class Journey:
    """The conversations of one client, on one session after another.

    Args:
        url: Where the first session is.
        tally: Where everything is counted in the end.
        interval: Seconds from one message to the next.
        timeout: Seconds without any echo after which those that are missing count as lost.

    Attributes:
        outbox: What is to be sent.
        sessions: How many sessions there were.
    """

    def __init__(self, url: str, tally: Tally, *, interval: float, timeout: float) -> None:
        self.outbox = Outbox()
        self.sessions = 0
        self._url = url
        self._home = url
        self._total = tally
        self._running: list[Tally] = []
        self._interval = interval
        self._timeout = timeout
        self._shutting_down = False
        self._last: Conversation | None = None
        self._done = trio.CancelScope()

    def allows(self, redirect: moqt.Redirect) -> bool:
        """Lets the server send this client to another port and path of the same host, over either transport."""
        if redirect.host != urlsplit(self._home).hostname:
            return False
        self._url = redirect.to_url
        return True

    async def run(self, connect: Connect) -> None:
        """Talks until everything was sent and came back, or nothing more will come.

        Raises:
            EchoFailed: Not everything was sent and echoed.
            moqt.MoqtError: No session came about, or it ended early.
        """
        try:
            with self._done:
                await connect(self._talk, self.allows)
        except (moqt.Rejected, moqt.ConnectError, moqt.SessionClosed) as error:
            if not self._shutting_down:
                raise
            raise EchoFailed(f"the server is shutting down; stopped after {self._total.sent} messages") from error
        assert self._last is not None
        self._last.check(self._total)

    async def _talk(self, session: moqt.Session) -> None:
        self.sessions += 1
        how = "connected" if self.sessions == 1 else "moved"
        print(f"{how} to {self._url}: {session.version} over {session.transport}", flush=True)
        own = Tally()
        conversation = Conversation(
            session,
            self.outbox.take(),
            own,
            interval=self._interval,
            timeout=self._timeout,
            first=self._total.sent + sum(other.sent for other in self._running),
        )
        self._running.append(own)
        try:
            await conversation.run()
        finally:
            self._running.remove(own)
            self._total.add(own)
        if conversation.stopped_early:
            self._shutting_down = not conversation.sent_away
            return
        self._last = conversation
        if conversation.sent_away is not None:
            # The library would go on to the next session, but there is nothing left to say there.
            self._done.cancel()
