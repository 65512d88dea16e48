"""Probe: the peer's reports of bitrate and round trip, as the application reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from ...protocol.events import Event, RequestFinished, RequestRefused
from ...tasks import defer_interrupts
from ...wire import messages
from .receive_queue import ReceiveQueue
from .request import Request

if TYPE_CHECKING:
    from ..context import SessionContext


@attrs.frozen
class ProbeReport:
    """What the peer measures on the path to this side.

    Attributes:
        bitrate: Bits per second that it could send; None when unknown.
        rtt: The smoothed round trip in seconds; None when unknown, or where the version has no such field.
    """

    bitrate: int | None
    rtt: float | None


@defer_interrupts
class Probe(Request[ProbeReport]):
    """The peer's reports. Use it as `async with session.probe() as probe`, and iterate over it.

    Only the newest report is kept: a slow reader does not get the older ones.
    """

    _block = "probe"
    _line = "session.probe() as reports"

    def __init__(self, context: SessionContext, bitrate: int | None) -> None:
        machine = context.core.probe(bitrate)
        super().__init__(context, ReceiveQueue(self._block))
        self._machine = machine
        self._last: ProbeReport | None = None

    async def _open(self) -> None:
        await self._open_stream(self._machine)

    def _on_event(self, event: Event) -> None:
        match event:
            case messages.Probe():
                self._last = ProbeReport(event.bitrate, None if event.rtt_ms is None else event.rtt_ms / 1000)
                self._queue.items.clear()
                self._queue.put(self._last)
            case RequestFinished():
                self._queue.finish()
            case RequestRefused():
                self._on_reset(event.code)
            case _:
                pass

    async def receive(self) -> ProbeReport:
        """Wait for a report that was not read yet. Cancelling loses nothing.

        Raises:
            trio.EndOfChannel: The peer has finished its reports.
            StreamReset: The peer refused or reset the probe.
            RemoteProtocolError: The peer broke the protocol on the probe's stream.
            SessionClosed: The session ended.
            LocalProtocolError: The block was not entered.
            trio.ClosedResourceError: This side closed the probe.
            trio.BusyResourceError: Another task is receiving.
        """
        return await self._queue.receive()

    async def update(self, bitrate: int) -> None:
        """Send the peer another target, in bits per second.

        Raises:
            LocalProtocolError: The block was not entered.
            Otherwise why the probe has ended, as `receive`.
        """
        await trio.lowlevel.checkpoint()
        await self._check_running()
        self._send(self._machine.update(bitrate))

    def __repr__(self) -> str:
        return f"<Probe, last report {self._last}>"
