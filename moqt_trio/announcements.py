"""What the peer announces, as the application reads it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import attrs
import trio

from .driver import RequestSink, SessionDriver
from .errors import LocalProtocolError
from .path import BroadcastPath
from .session.events import (
    Announced,
    AnnouncementsEnded,
    Event,
    InitialAnnouncementsDone,
    RequestRefused,
    Unannounced,
)
from .transport.errors import StreamReset

if TYPE_CHECKING:
    from types import TracebackType

    from .errors import MoqtError


@attrs.frozen
class Announcement:
    """News of a broadcast that the peer offers.

    Attributes:
        path: Its full path.
        active: True when it became available or changed, False when it went away.
        hops: Hop ids from its origin to the peer; 0 is an unknown hop. Empty where the version has none.
        cost: What subscribing costs, in the deployment's units; 0 where the version has none.
        updated: True when it was active before and only its route changed.
    """

    path: BroadcastPath
    active: bool
    hops: tuple[int, ...] = ()
    cost: int = 0
    updated: bool = False


class Announcements:
    """What the peer announces below a prefix. Use it as `async with session.announcements(prefix) as announcements`.

    Iterate it for news. What is there already comes first. Iteration ends when the peer finishes the list; every
    broadcast that was active is reported as gone before.
    """

    def __init__(self, driver: SessionDriver, prefix: BroadcastPath) -> None:
        self._driver = driver
        self._prefix = prefix
        self._sink: RequestSink | None = None
        self._news: deque[Announcement] = deque()
        self._active: dict[BroadcastPath, Announcement] = {}
        self._told: dict[BroadcastPath, Announcement] = {}
        self._ended = False
        self._error: Exception | None = None
        self._initial = trio.Event()
        self._waiter: trio.Event | None = None
        self._busy = False

    # -- from the stream -----------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        """Takes what the stream says; for the session's driver."""
        match event:
            case Announced():
                path = BroadcastPath.parse(event.path)
                news = Announcement(path, True, event.hops, event.warm_cost, event.updated)
                self._active[path] = news
                self._add(news)
            case Unannounced():
                path = BroadcastPath.parse(event.path)
                if self._active.pop(path, None) is not None:
                    self._add(Announcement(path, False))
            case InitialAnnouncementsDone():
                self._initial.set()
            case AnnouncementsEnded():
                self._all_gone()
                self._ended = True
                if self._sink is not None:
                    self._sink.stream.finish()
                self._wake()
            case RequestRefused():
                self._all_gone()
                self._error = StreamReset(event.code)
                self._wake()
            case _:
                pass

    def failed(self, error: MoqtError) -> None:
        """Takes the end of the stream before its time; for the session's driver."""
        if self._error is None and not self._ended:
            self._error = error
        self._wake()

    def _all_gone(self) -> None:
        gone = list(self._active)
        self._active.clear()
        for path in gone:
            self._add(Announcement(path, False))

    def _add(self, news: Announcement) -> None:
        self._news.append(news)
        if len(self._news) > self._driver.limits.max_queued_announcements:
            # Whoever reads so slowly gets the difference to what it was told last, instead of the history.
            self._news.clear()
            self._news.extend(Announcement(path, False) for path in self._told if path not in self._active)
            self._news.extend(item for path, item in self._active.items() if self._told.get(path) is not item)
        self._wake()

    def _wake(self) -> None:
        if self._ended or self._error is not None:
            self._initial.set()
        if self._waiter is not None:
            self._waiter.set()

    # -- for the application -------------------------------------------------------------------------------

    async def __aenter__(self) -> Announcements:
        if self._sink is not None:
            raise LocalProtocolError("these announcements were entered before; ask for new ones")
        self._driver.check_open()
        stream = await self._driver.connection.open_bidi()
        machine = self._driver.core.request_announcements(str(self._prefix))
        self._sink = sink = RequestSink(self._driver, stream, machine, self)
        self._driver.spell_codes(stream, "announce")
        stream.write(machine.opening)
        stream.sink = sink
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._sink is not None:
            self._sink.cancel()
        if self._error is None:
            self._error = trio.ClosedResourceError("the announcements were closed")
        self._wake()

    async def receive(self) -> Announcement:
        """Waits for the next news. Cancelling loses nothing.

        Raises:
            trio.EndOfChannel: The peer finished the list.
            StreamReset: The peer refused or gave the list up.
            SessionClosed: The session ended.
            trio.ClosedResourceError: This side closed the list.
            trio.BusyResourceError: Another task is receiving.
        """
        if self._sink is None and self._error is None:
            raise LocalProtocolError("enter the announcements with 'async with' first")
        if self._busy:
            raise trio.BusyResourceError("another task is reading these announcements")
        self._busy = True
        try:
            await trio.lowlevel.checkpoint()
            while not self._news:
                if self._error is not None:
                    raise self._error
                if self._ended:
                    raise trio.EndOfChannel
                self._waiter = waiter = trio.Event()
                try:
                    await waiter.wait()
                finally:
                    self._waiter = None
            news = self._news.popleft()
            if news.active:
                self._told[news.path] = news
            else:
                self._told.pop(news.path, None)
            return news
        finally:
            self._busy = False

    async def wait_initial(self) -> None:
        """Waits until everything that was announced before we asked has arrived, where the version says so.

        moq-lite-03 and -04 do not say: there it waits until the list ends.
        """
        await self._initial.wait()

    @property
    def active(self) -> tuple[Announcement, ...]:
        """What is available now, as far as it has arrived."""
        return tuple(self._active.values())

    def __aiter__(self) -> Announcements:
        return self

    async def __anext__(self) -> Announcement:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        return f"<Announcements below {str(self._prefix)!r}, {len(self._active)} active, {len(self._news)} unread>"
