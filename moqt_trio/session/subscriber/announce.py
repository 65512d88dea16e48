"""What the peer announces, as the application reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from ...errors import SessionClosed, StreamReset
from ...path import BroadcastPath
from ...protocol.events import (
    Announced,
    AnnouncementsEnded,
    Event,
    InitialAnnouncementsDone,
    RequestRefused,
    Unannounced,
)
from .receive_queue import ReceiveQueue
from .request import Request, RequestStreamHandler

if TYPE_CHECKING:
    from types import TracebackType

    from ...errors import MoqtError
    from ..context import SessionContext


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

    def __init__(self, context: SessionContext, prefix: BroadcastPath) -> None:
        self._context = context
        self._prefix = prefix
        self._news: ReceiveQueue[Announcement] = ReceiveQueue()
        self._request = Request(context, self._news, "list of announcements")
        self._active: dict[BroadcastPath, Announcement] = {}
        self._told: dict[BroadcastPath, Announcement] = {}
        self._initial = trio.Event()

    # -- from the stream -----------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
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
                self._news.finish()
                self._initial.set()
                self._request.finish()
            case RequestRefused():
                self._failed(StreamReset(event.code))
            case _:
                pass

    def _failed(self, error: MoqtError) -> None:
        if not self._news.ended:
            if not isinstance(error, SessionClosed):
                # With the session everything of the peer's is over, and the error says so.
                self._all_gone()
            self._news.fail(error)
        self._initial.set()

    def _all_gone(self) -> None:
        gone = list(self._active)
        self._active.clear()
        for path in gone:
            self._add(Announcement(path, False))

    def _add(self, news: Announcement) -> None:
        self._news.put(news)
        unread = self._news.items
        if len(unread) > self._context.limits.max_queued_announcements:
            # Whoever reads so slowly gets the difference to what it was told last, instead of the history.
            unread.clear()
            unread.extend(Announcement(path, False) for path in self._told if path not in self._active)
            unread.extend(item for path, item in self._active.items() if self._told.get(path) is not item)

    # -- for the application -------------------------------------------------------------------------------

    async def __aenter__(self) -> Announcements:
        context = self._context
        with self._request.entering():
            machine = context.core.request_announcements(str(self._prefix))
            await self._request.open(
                "announce", lambda stream: RequestStreamHandler(context, stream, machine, self._handle, self._failed)
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._request.leave()
        self._initial.set()

    async def receive(self) -> Announcement:
        """Waits for the next news. Cancelling loses nothing.

        Raises:
            trio.EndOfChannel: The peer finished the list.
            StreamReset: The peer refused or gave the list up.
            RemoteProtocolError: The peer broke the protocol on the list's stream.
            SessionClosed: The session ended.
            LocalProtocolError: The block was not entered.
            trio.ClosedResourceError: This side closed the list.
            trio.BusyResourceError: Another task is receiving.
        """
        news = await self._news.receive()
        if news.active:
            self._told[news.path] = news
        else:
            self._told.pop(news.path, None)
        return news

    async def wait_initial(self) -> None:
        """Waits until everything that was announced before we asked has arrived, where the version says so.

        moq-lite-03 and -04 do not say: there it waits until the list ends.

        Raises:
            LocalProtocolError: The block was not entered.
        """
        self._request.check_entered()
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
