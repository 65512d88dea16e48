"""TrackRequests: requests of peers for tracks that a broadcast does not have, which the application answers.

Theory of operation. A request for a track that is not there makes a `TrackRequest`, or joins the one that is open for
the same path and name: however many subscribers ask, the application is asked once. A request is open until it is
answered, until the last of those who wait has left, or until the block ends; and it is unread until the application has
taken it. Those who wait are tasks of the sessions, and are counted by `waiting_for`. Nothing here waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ..arguments import want
from ..block import Block
from ..errors import LocalProtocolError, printable
from ..loggers import Logger
from ..tasks import Wakeup, defer_interrupts
from .track import Track

if TYPE_CHECKING:
    from types import TracebackType

    from ..path import BroadcastPath

logger = Logger(__name__)


@defer_interrupts
class TrackRequest:
    """A track that peers ask for and that is not there. Answer it with `accept` or `refuse`, once.

    Attributes:
        path: The path of the request without the broadcast's own; empty for the broadcast itself.
        track: The track's name.
    """

    def __init__(self, path: BroadcastPath, track: str, ended: Callable[[TrackRequest], None]) -> None:
        self.path = path
        self.track = track
        self._ended = ended
        self._waiting = 0
        self._answered = False
        self._made: Track | None = None
        self._over = trio.Event()

    @property
    def wanted(self) -> bool:
        """False once it is answered, and once all who asked have left or have waited for `Limits.reply_timeout`."""
        return not self._over.is_set()

    def accept(self, track: Track) -> None:
        """Serve a track to all who wait for it, mostly a new one of the broadcast. Without effect when none waits.

        Raises:
            TypeError: It is no track.
            LocalProtocolError: The request was answered before.
        """
        want(track, Track, "a request is accepted with a Track")
        self._answer(track)

    def refuse(self) -> None:
        """Refuse: there is no such track.

        Raises:
            LocalProtocolError: The request was answered before.
        """
        self._answer(None)

    def _answer(self, track: Track | None) -> None:
        if self._answered:
            raise LocalProtocolError(f"the request for {printable(self.track)} was answered before")
        self._answered = True
        if self.wanted:
            self._made = track
            self._end()

    def _end(self) -> None:
        self._over.set()
        self._ended(self)

    def __repr__(self) -> str:
        state = "wanted" if self.wanted else "over"
        return f"<TrackRequest for {printable(self.track)} below {printable(str(self.path))!r}, {state}>"


@contextmanager
def waiting_for(request: TrackRequest) -> Iterator[trio.Event]:
    """Wait for an answer within a block, with the event that is set then; the request ends with the last who waits."""
    request._waiting += 1
    try:
        yield request._over
    finally:
        request._waiting -= 1
        if not request._waiting and request.wanted:
            request._end()


def track_of(request: TrackRequest) -> Track | None:
    """Return the track with which a request was accepted; None for one that was not."""
    return request._made


@defer_interrupts
class TrackRequests(Block):
    """Requests for tracks that a broadcast does not have; `Broadcast.requests` returns it.

    Use it as `async with broadcast.requests() as requests`, and iterate over it. At the end of the block, what was not
    answered is refused.
    """

    def __init__(self, most: int, changed: Callable[[TrackRequests], None]) -> None:
        self._most = most
        self._changed = changed
        self._open: dict[tuple[BroadcastPath, str], TrackRequest] = {}
        self._unread: dict[TrackRequest, None] = {}
        self._wakeup = Wakeup()
        self._active: bool | None = None
        self._expect_entry(
            lambda: (
                "tracks that are asked for are refused, as the block of their requests was never entered; "
                "write: async with broadcast.requests() as requests:"
            )
        )

    async def __aenter__(self) -> TrackRequests:
        self._entered()
        await trio.lowlevel.checkpoint()
        if self._active is not None:
            raise LocalProtocolError("this block was entered before")
        self._changed(self)
        self._active = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._active = False
        self._changed(self)
        for request in list(self._open.values()):
            request._end()
        self._wakeup.set()

    def _request(self, path: BroadcastPath, track: str) -> TrackRequest | None:
        """Return the open request for a track, or a new one; None when there are too many."""
        key = path, track
        if (request := self._open.get(key)) is None:
            if len(self._open) >= self._most:
                logger.info("a request for a track was refused: max_track_requests (%d)", self._most)
                return None
            request = self._open[key] = TrackRequest(path, track, self._request_ended)
            self._unread[request] = None
            self._wakeup.set()
        return request

    def _request_ended(self, request: TrackRequest) -> None:
        self._open.pop((request.path, request.track), None)
        self._unread.pop(request, None)

    def __aiter__(self) -> TrackRequests:
        return self

    async def __anext__(self) -> TrackRequest:
        return await self.receive()

    async def receive(self) -> TrackRequest:
        """Wait for the next request. Cancelling loses nothing.

        Raises:
            LocalProtocolError: The block was not entered.
            trio.ClosedResourceError: The block has ended.
            trio.BusyResourceError: Another task is receiving.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._active is None:
                raise LocalProtocolError("enter the block first: async with broadcast.requests() as requests:")
            if not self._active:
                raise trio.ClosedResourceError("the block of these requests has ended")
            if self._unread:
                request = next(iter(self._unread))
                del self._unread[request]
                return request
            await self._wakeup.wait()

    def __repr__(self) -> str:
        return f"<TrackRequests: {len(self._open)} open, {len(self._unread)} unread>"


def request_of(requests: TrackRequests, path: BroadcastPath, track: str) -> TrackRequest | None:
    """Return the request for a track, which the application answers; None when there are too many."""
    return requests._request(path, track)
