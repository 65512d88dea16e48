"""The peer's estimate of the path, as the application reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from ...errors import StreamReset
from ...protocol.events import Event, ProbeReported, RequestFinished, RequestRefused
from .receive_queue import ReceiveQueue
from .request import Request, RequestStreamHandler

if TYPE_CHECKING:
    from types import TracebackType

    from ..context import SessionContext


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

    def __init__(self, context: SessionContext, bitrate: int | None) -> None:
        self._context = context
        self._machine = context.core.probe(bitrate)
        self._reports: ReceiveQueue[ProbeReport] = ReceiveQueue()
        self._request = Request(context, self._reports, "probe")
        self._last: ProbeReport | None = None

    def _handle(self, event: Event) -> None:
        match event:
            case ProbeReported():
                self._last = ProbeReport(event.bitrate, None if event.rtt_ms is None else event.rtt_ms / 1000)
                self._reports.items.clear()
                self._reports.put(self._last)
            case RequestFinished():
                self._reports.finish()
            case RequestRefused():
                self._reports.fail(StreamReset(event.code))
            case _:
                pass

    async def __aenter__(self) -> Probe:
        with self._request.entering():
            await self._request.open(
                "stream",
                lambda stream: RequestStreamHandler(
                    self._context, stream, self._machine, self._handle, self._reports.fail
                ),
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._request.leave()

    async def receive(self) -> ProbeReport:
        """Waits for a report that was not read yet. Cancelling loses nothing.

        Raises:
            trio.EndOfChannel: The peer reports no more.
            StreamReset: The peer does not report.
            RemoteProtocolError: The peer broke the protocol on the probe's stream.
            SessionClosed: The session ended.
            LocalProtocolError: The block was not entered.
            trio.ClosedResourceError: This side closed the probe.
            trio.BusyResourceError: Another task is receiving.
        """
        return await self._reports.receive()

    async def update(self, bitrate: int) -> None:
        """Tells the peer another target in bits per second.

        Raises:
            LocalProtocolError: The block was not entered.
            Otherwise why the probe is over, as `receive`.
        """
        await trio.lowlevel.checkpoint()
        self._request.check_running()
        self._request.send(self._machine.update(bitrate))

    def __aiter__(self) -> Probe:
        return self

    async def __anext__(self) -> ProbeReport:
        try:
            return await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None

    def __repr__(self) -> str:
        return f"<Probe, last report {self._last}>"
