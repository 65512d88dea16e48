"""ProbeServer: answers the peer's probe with the bitrate and the round trip that this side measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import SessionClosed, StreamReset
from ...tasks import defer_interrupts
from ...wire.messages import Probe
from ..context import REPORT_CHANGE, REPORT_INTERVAL
from .request import RequestServer

if TYPE_CHECKING:
    from ...protocol.events import Event
    from ...protocol.probe import ProbeResponder
    from ...transport.stream import BidiStream
    from .request import Serving


@defer_interrupts
class ProbeServer(RequestServer):
    """Reports the bitrate and the round trip at once, on request, and when the bitrate has changed by a quarter."""

    machine: ProbeResponder

    def __init__(self, serving: Serving, stream: BidiStream, machine: ProbeResponder) -> None:
        super().__init__(serving, stream, machine)
        self._running = False

    def handle(self, event: Event) -> None:
        if not isinstance(event, Probe):
            super().handle(event)
        elif self._running:
            self.wakeup.set()
        else:
            self._running = True
            self.context.start(self._run)

    def send_ready(self) -> None:
        # A report is due on request or after the interval, not when the stream has room.
        pass

    async def _run(self) -> None:
        reported: float | None = None
        try:
            with self.scope:
                while True:
                    bitrate, rtt_ms = self.context.estimate()
                    if reported is None or abs(bitrate - reported) >= REPORT_CHANGE * max(reported, 1):
                        if self.stream.writable:
                            self.stream.write(self.machine.report(bitrate or None, rtt_ms))
                        reported = bitrate
                    with trio.move_on_after(REPORT_INTERVAL):
                        await self.wakeup.wait()
                        reported = None
        except (StreamReset, SessionClosed, trio.ClosedResourceError):
            pass
        finally:
            self.cancel(StreamCode.SESSION_CLOSED)
