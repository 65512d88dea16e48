"""Request: a request of this side, as a block that is entered once and iterated.

Announcements, subscriptions, fetches and probes derive from it. Each defines how its stream is opened, and what the
events of that stream mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Generic, Self, TypeVar

import trio

from ...block import Block
from ...codes import StreamCode
from ...errors import LocalProtocolError, StreamReset, printable
from ..stream import ControlStream

if TYPE_CHECKING:
    from types import TracebackType

    from ...codes import CodeSpace
    from ...errors import MoqtError
    from ...protocol.events import Event
    from ...protocol.machine import StreamMachine
    from ...transport.stream import BidiStream
    from ..context import SessionContext
    from .receive_queue import ReceiveQueue

T = TypeVar("T")
ControlT = TypeVar("ControlT", bound=ControlStream)


class RequestControl(ControlStream):
    """The stream of a request. It passes its events and its failure to callbacks.

    Args:
        context: The session's.
        stream: The stream.
        machine: Its state.
        on_event: Called for each event.
        on_failure: Called when the stream ends early, by a mistake of the peer or with the session.
    """

    def __init__(
        self,
        context: SessionContext,
        stream: BidiStream,
        machine: StreamMachine,
        on_event: Callable[[Event], None],
        on_failure: Callable[[MoqtError], None],
    ) -> None:
        super().__init__(context, stream, machine)
        self._on_event = on_event
        self._on_failure = on_failure

    def handle(self, event: Event) -> None:
        self._on_event(event)

    def failed(self, error: MoqtError) -> None:
        self._on_failure(error)


async def open_control(
    context: SessionContext, codes: CodeSpace, make: Callable[[BidiStream], ControlT], *, own_stream: bool = False
) -> ControlT:
    """Return the handler of a new stream, on which the machine's opening was sent. If cancelled, nothing was sent.

    Args:
        context: The session's.
        codes: The code space of this kind of stream.
        make: Called with the stream; returns its handler.
        own_stream: True for a request that has a stream where the others share one.

    Raises:
        SessionClosed: The session ended.
    """
    stream = await context.open_request(own_stream=own_stream)
    control = make(stream)
    context.map_codes(stream, codes)
    stream.write(control.machine.opening)
    stream.handler = control
    return control


class Request(Block, Generic[T]):
    """One request. Enter it with `async with`, once, and iterate over it inside."""

    _codes: ClassVar[CodeSpace] = "stream"
    _block: ClassVar[str] = "request"
    """The request's name in messages."""
    _line: ClassVar[str] = ""
    """The line that enters it; a warning fills in the arguments."""
    _brings_frames: ClassVar[bool] = False
    """True for one whose answers fill the session's window."""

    def __init__(self, context: SessionContext, queue: ReceiveQueue[T], *arguments: object) -> None:
        block, line = self._block, self._line
        self._expect_entry(
            lambda: (
                f"the {block} was never entered, so nothing was asked; "
                f"write: async with {line.format(*(printable(repr(value)) for value in arguments))}:"
            )
        )
        self._context = context
        self._queue = queue
        self._opened = False
        self._control: ControlStream | None = None

    # -- what a kind of request adds -----------------------------------------------------------------------

    async def _open(self) -> None:
        """Make the request, by `_open_stream`."""
        raise NotImplementedError

    def _on_event(self, event: Event) -> None:
        """Called for each event of the request's stream."""
        raise NotImplementedError

    def _on_failure(self, error: MoqtError) -> None:
        """Called when the stream ends early."""
        self._queue.fail(error)

    def _on_reset(self, code: int) -> None:
        """End the request with a code of the peer's."""
        self._queue.fail_by_reset(StreamReset(code), self._context.connection)

    def _close(self) -> None:
        """End the request from this side: cancel its stream, and close the queue."""
        self._context.receiving -= self._brings_frames
        self._cancel()
        # Its stream knows the request: parted here, they cost the garbage collector nothing.
        self._control = None
        self._queue.close(f"this side closed the {self._block}")

    # -- what every request has ----------------------------------------------------------------------------

    async def _open_stream(self, machine: StreamMachine) -> None:
        self._control = await open_control(
            self._context,
            self._codes,
            lambda stream: RequestControl(self._context, stream, machine, self._on_event, self._on_failure),
            own_stream=machine.own_stream,
        )

    async def _check_running(self) -> None:
        """Raise why the request is not running; return when it is, or when the peer has finished it."""
        queue = self._queue
        queue.check_open()
        await queue.wait_departure()
        queue.check_failed()

    def _send(self, data: bytes) -> None:
        """Send more on the request's stream."""
        if self._control is not None:
            self._control.stream.write(data)

    def _finish(self) -> None:
        """Finish this side's half of the stream: the peer has finished its own."""
        if self._control is not None:
            self._control.stream.finish()

    def _cancel(self, code: int = StreamCode.CANCELLED) -> None:
        """Cancel the stream with a code; the queue stays as it is."""
        if self._control is not None:
            self._control.cancel(code)

    async def __aenter__(self) -> Self:
        self._entered()
        if self._opened:
            raise LocalProtocolError(f"this {self._block} was entered before: it can be entered only once")
        self._context.check_may_ask()
        self._opened = True
        self._context.receiving += self._brings_frames
        self._queue.open()
        try:
            await self._open()
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    async def receive(self) -> T:
        """Wait for the next item. Cancelling loses nothing."""
        return await self._queue.receive()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
