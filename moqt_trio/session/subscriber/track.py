"""TrackInfoRequest: asks for a track's properties, which some versions send on a stream of their own.

`ask_status` asks the same apart from any subscription.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import trio

from ...codes import StreamCode, describe_stream_code
from ...errors import NotFound, StreamReset
from ...protocol.events import RequestRefused
from ...protocol.ietf.events import TrackStatusReceived
from ...timeouts import Timeout
from ...wire.messages import TrackInfo
from .receive_queue import ReceiveQueue
from .request import RequestControl, open_control

if TYPE_CHECKING:
    from ...errors import MoqtError
    from ...frame import Properties
    from ...path import BroadcastPath
    from ...protocol.events import Event
    from ..context import SessionContext


@attrs.frozen
class TrackProperties:
    """A track's properties as its publisher gives them.

    Attributes:
        priority: 0 … 255; decides between subscriptions of equal priority.
        max_age: Seconds that the publisher keeps a group after a newer one was opened.
        timescale: Timestamp units per second.
        properties: What moq-transport says of a track beside these, as `(type, value)`; empty in the other versions.
    """

    priority: int
    max_age: float
    timescale: int
    properties: Properties = ()


def properties_from(info: TrackInfo) -> TrackProperties:
    """Return a track's properties for the application."""
    return TrackProperties(info.priority, info.max_age_ms / 1000, info.timescale, info.properties)


@attrs.frozen
class TrackStatus:
    """What a publisher says of a track, apart from any subscription.

    Attributes:
        latest_group: The group of the newest frame; None when nothing was published, or the version does not say.
        latest_frame: The index of that frame in its group, or None.
        properties: The track's properties; None where the version does not say them.
    """

    latest_group: int | None
    latest_frame: int | None
    properties: TrackProperties | None


class TrackInfoRequest:
    """Asks for a track's properties. A refusal is no error: the subscription to the same track fails with it."""

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._timeout = Timeout(context.limits.reply_timeout)
        self._answered = trio.Event()
        self._properties: TrackProperties | None = None
        self._control: RequestControl | None = None

    async def open(self, path: BroadcastPath, track: str) -> None:
        """Send the request."""
        context = self._context
        machine = context.core.request_track_info(path, track)
        self._control = await open_control(
            context,
            "info",
            lambda stream: RequestControl(context, stream, machine, self._on_event, self._on_failure),
        )

    def _on_event(self, event: Event) -> None:
        if isinstance(event, TrackInfo):
            self._properties = properties_from(event)
        self._answered.set()
        if self._control is not None:
            # A FIN before the answer would cancel the request; after it, it frees the stream.
            self._control.stream.finish()

    def _on_failure(self, error: MoqtError) -> None:
        self._answered.set()

    async def wait(self) -> TrackProperties | None:
        """Return the answer; None for a refusal, and when none arrived within `Limits.reply_timeout`."""
        if not await self._timeout.wait(self._answered.wait) and not self._answered.is_set():
            self.cancel(StreamCode.CONTROL_TIMEOUT)
        return self._properties

    def cancel(self, code: int = StreamCode.CANCELLED) -> None:
        """Cancel the request with a code."""
        self._answered.set()
        if self._control is not None:
            self._control.cancel(code)
            # Its stream knows this request: see `Request._close`.
            self._control = None


async def ask_status(context: SessionContext, path: BroadcastPath, track: str) -> TrackStatus:
    """Ask the peer what it has of a track; see `Session.track_status`."""
    context.check_may_ask()
    machine = context.core.request_track_info(path, track)
    answer: ReceiveQueue[TrackStatus] = ReceiveQueue()

    def on_event(event: Event) -> None:
        if isinstance(event, TrackInfo):
            answer.put(TrackStatus(event.latest_group, None, properties_from(event)))
        elif isinstance(event, TrackStatusReceived):
            info = event.info
            properties = None if info is None else properties_from(info)
            group, frame = event.newest or (None, None)
            answer.put(TrackStatus(group, frame, properties))
        elif isinstance(event, RequestRefused) and event.code in (StreamCode.NOT_FOUND, StreamCode.UNROUTABLE):
            answer.fail(NotFound(str(path), track, f"code {describe_stream_code(event.code)}"))
        elif isinstance(event, RequestRefused):
            answer.fail_by_reset(StreamReset(event.code), context.connection)

    late = StreamReset(StreamCode.CONTROL_TIMEOUT, by_peer=False)
    answer.expect_within(Timeout(context.limits.reply_timeout), lambda: answer.fail(late))
    try:
        control = await open_control(
            context, "info", lambda stream: RequestControl(context, stream, machine, on_event, answer.fail)
        )
    except BaseException:
        machine.release()
        raise
    try:
        status = await answer.receive()
    except BaseException:
        control.cancel()
        raise
    # A FIN before the answer would cancel the request; after it, it frees the stream.
    control.stream.finish()
    machine.release()
    return status
