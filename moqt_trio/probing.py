"""The peer's estimate of the path, as the application reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from .driver import RequestSink, SessionDriver
from .errors import LocalProtocolError, MoqtError
from .session.events import Event, ProbeReported, RequestFinished, RequestRefused
from .transport.errors import StreamReset

if TYPE_CHECKING:
    from types import TracebackType


@attrs.frozen
class ProbeReport:
    """What the peer measures of its way to us.

    Attributes:
        bitrate: Bits per second that it could send; None when unknown.
        rtt: The smoothed round trip in seconds; None when unknown, or where the version does not tell it.
    """

    bitrate: int | None
    rtt: float | None


class Probe:
    """The peer's reports. Use it as `async with session.probe() as probe`, and iterate it.

    Only the newest report is kept: who reads slowly misses those in between.
    """

    def __init__(self, driver: SessionDriver, bitrate: int | None) -> None:
        self._driver = driver
        self._machine = driver.core.probe(bitrate)
        self._sink: RequestSink | None = None
        self._report: ProbeReport | None = None
        self._ended = False
        self._error: Exception | None = None
        self._waiter: trio.Event | None = None
        self._busy = False

    def handle(self, event: Event) -> None:
        """Takes what the peer's stream says; for the session's driver."""
        match event:
            case ProbeReported():
                self._report = ProbeReport(event.bitrate, None if event.rtt_ms is None else event.rtt_ms / 1000)
            case RequestFinished():
                self._ended = True
            case RequestRefused():
                self._error = StreamReset(event.code)
            case _:
                pass
        self._wake()

    def failed(self, error: MoqtError) -> None:
        """Takes the end of the stream before its time; for the session's driver."""
        if self._error is None:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None:
            self._waiter.set()

    async def __aenter__(self) -> Probe:
        self._driver.check_open()
        stream = await self._driver.connection.open_bidi()
        self._sink = sink = RequestSink(self._driver, stream, self._machine, self)
        stream.write(self._machine.opening)
        stream.sink = sink
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._sink is not None:
            self._sink.cancel()
        if self._error is None:
            self._error = trio.ClosedResourceError("the probe was closed")
        self._wake()

    async def receive(self) -> ProbeReport:
        """Waits for a report that was not read yet. Cancelling loses nothing.

        Raises:
            trio.EndOfChannel: The peer reports no more.
            StreamReset: The peer does not report.
            SessionClosed: The session ended.
            trio.ClosedResourceError: This side closed the probe.
            trio.BusyResourceError: Another task is receiving.
        """
        if self._busy:
            raise trio.BusyResourceError("another task is reading this probe")
        self._busy = True
        try:
            await trio.lowlevel.checkpoint()
            while self._report is None:
                if self._error is not None:
                    raise self._error
                if self._ended:
                    raise trio.EndOfChannel
                self._waiter = waiter = trio.Event()
                try:
                    await waiter.wait()
                finally:
                    self._waiter = None
            report, self._report = self._report, None
            return report
        finally:
            self._busy = False

    async def update(self, bitrate: int) -> None:
        """Tells the peer another target in bits per second.

        Raises:
            LocalProtocolError: The block was not entered.
        """
        await trio.lowlevel.checkpoint()
        if self._sink is None:
            raise LocalProtocolError("enter the probe with 'async with' first")
        if self._error is not None:
            raise self._error
        self._sink.stream.write(self._machine.update(bitrate))

    def __aiter__(self) -> Probe:
        return self

    async def __anext__(self) -> ProbeReport:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        return f"<Probe, last report {self._report}>"
