"""A request of ours: a block that is entered once, and the stream that it holds open.

It knows how a request begins and ends. What it asks for and what the answers mean is with whoever makes it:
announcements, subscriptions, fetches and probes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from ...errors import LocalProtocolError
from ..context import ControlStream, SessionContext

if TYPE_CHECKING:
    from ...codes import CodeSpace
    from ...errors import MoqtError
    from ...protocol.events import Event
    from ...protocol.machine import StreamMachine
    from ...transport.abc import BidiStream
    from .receive_queue import ReceiveQueue

T = TypeVar("T")
StreamT = TypeVar("StreamT", bound=ControlStream)


class RequestStreamHandler(ControlStream):
    """The stream of a request; what is said on it goes to whoever made the request.

    Args:
        context: The session's.
        stream: The stream.
        machine: Its state.
        handle: Takes each event.
        failed: Takes the end of the stream before its time: a mistake of the peer's, or the end of the session.
    """

    def __init__(
        self,
        context: SessionContext,
        stream: BidiStream,
        machine: StreamMachine,
        handle: Callable[[Event], None],
        failed: Callable[[MoqtError], None],
    ) -> None:
        super().__init__(context, stream, machine)
        self._handle = handle
        self._failed = failed

    def handle(self, event: Event) -> None:
        self._handle(event)

    def failed(self, error: MoqtError) -> None:
        self._failed(error)


async def open_request(context: SessionContext, codes: CodeSpace, attach: Callable[[BidiStream], StreamT]) -> StreamT:
    """Opens a stream and sends what its machine opens it with. Cancelled, nothing was sent.

    Args:
        context: The session's.
        codes: Where the stream's error codes stand.
        attach: Makes the stream's handler.

    Raises:
        SessionClosed: The session ended.
    """
    stream = await context.connection.open_bidi()
    handler = attach(stream)
    context.map_codes(stream, codes)
    stream.write(handler.machine.opening)
    stream.handler = handler
    return handler


class Request(Generic[T]):
    """The block of one request, and the inbox for what it brings.

    Before the block a reader of the inbox is told to enter it, after it that this side has closed it.

    Args:
        context: The session's.
        inbox: Where the answers go.
        noun: What the application calls the request, for messages.
    """

    def __init__(self, context: SessionContext, inbox: ReceiveQueue[T], noun: str) -> None:
        self._context = context
        self._inbox = inbox
        self._noun = noun
        self._entered = False
        self._handler: ControlStream | None = None
        inbox.error = LocalProtocolError(f"enter the {noun} with 'async with' first")

    @contextmanager
    def entering(self) -> Iterator[None]:
        """Surrounds what enters the block; leaves it again when that fails.

        Raises:
            LocalProtocolError: The block was entered before, which is left undisturbed.
            SessionClosed: The session ended.
            GoingAway: The peer asked us to leave.
        """
        if self._entered:
            raise LocalProtocolError(f"this {self._noun} was entered before: it can be entered only once")
        self._context.check_may_ask()
        self._entered = True
        self._inbox.error = None
        try:
            yield
        except BaseException:
            self.leave()
            raise

    async def open(self, codes: CodeSpace, attach: Callable[[BidiStream], ControlStream]) -> None:
        """Opens the request's stream; see `open_request`."""
        self._handler = await open_request(self._context, codes, attach)

    def check_entered(self) -> None:
        """Raises LocalProtocolError before the block was entered."""
        if not self._entered:
            self._inbox.check_end()

    def check_running(self) -> None:
        """Raises why the request is not running, unless it is or the peer has finished it."""
        if self._inbox.error is not None:
            raise self._inbox.error.with_traceback(None)

    def send(self, data: bytes) -> None:
        """Sends more on the request's stream."""
        if self._handler is not None:
            self._handler.stream.write(data)

    def finish(self) -> None:
        """Ends our half of the stream: the peer has finished its own."""
        if self._handler is not None:
            self._handler.stream.finish()

    def cancel(self, code: int) -> None:
        """Gives the stream up with a code; the inbox stays as it is."""
        if self._handler is not None:
            self._handler.cancel(code)

    def leave(self) -> None:
        """Ends the request from this side: cancels what is not over, and closes the inbox."""
        if self._handler is not None:
            self._handler.cancel()
        self._inbox.close(f"this side closed the {self._noun}")
