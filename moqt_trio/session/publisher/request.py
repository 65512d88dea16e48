"""RequestStream: a request of the peer until its kind is known. RequestServer: the base of the servers of requests.

`RequestStream` reads the type, and passes the stream to the server of its kind. A server is a `ControlStream` that
answers from a task of the session, in a cancel scope of its own. Cancelling the scope resets the streams; when the task
ends by itself, they are finished. The servers are independent of each other.

Both sides begin at the same time, and neither can know when the other has published what it is going to publish. So in
a session's first seconds a request for a broadcast that is not published waits for it, and is refused only then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

import attrs
import trio

from ...codes import StreamCode
from ...errors import RemoteProtocolError, printable
from ...loggers import Logger
from ...model.track_requests import TrackRequest, track_of, waiting_for
from ...protocol.events import Event, RequestCancelled
from ...protocol.ietf.events import RequestUnsupported
from ...protocol.machine import Responder
from ...tasks import Wakeup, open_unwrapping_nursery
from ...timeouts import Timeout
from ...transport.interface import StreamHandler
from ..stream import ControlStream, reset_and_stop
from .join import JoinPoints

if TYPE_CHECKING:
    from ...codes import CodeSpace
    from ...errors import MoqtError
    from ...model.origin import Origin, PublishedBroadcast
    from ...model.track import Track
    from ...path import BroadcastPath
    from ...protocol.machine import StreamMachine
    from ...transport.stream import BidiStream
    from ...wire.messages import StreamKind
    from ..context import SessionContext
    from .ageing import Ageing
    from .namespaces import Namespaces
    from .rate import RequestRate
    from .scheduler import SendScheduler

logger = Logger(__name__)

Found: TypeAlias = "tuple[PublishedBroadcast, Track]"
"""A track that was asked for, and the publication that has it."""


class ServedSubscription(Protocol):
    """A subscription of the peer's that is served; the server itself is in `subscribe.py`."""

    publication: PublishedBroadcast
    scope: trio.CancelScope
    ended: trio.Event

    @property
    def track(self) -> Track:
        """What is served."""
        ...

    @property
    def undelivered(self) -> int:
        """Bytes that were written and that the subscriber has not acknowledged."""
        ...

    def finish(self) -> None:
        """End it once what was written has been delivered."""

    @property
    def dropped_groups(self) -> int:
        """Groups that were dropped for the subscriber."""
        ...


class StreamWaiter(Protocol):
    """A server that needs another stream for its groups."""

    def resume(self) -> None:
        """Called when the peer allows more streams: it opens what it has groups for."""


class Offering(Protocol):
    """What offers the tracks below a prefix."""

    def resume(self) -> None:
        """Called when there may be room for further offers."""

    def offer_ended(self, path: BroadcastPath, track: str, served: Found | None) -> None:
        """Called when an offer of this side's has ended, with what it served; or one of the peer's, with None."""


def _nothing(path: BroadcastPath, track: str) -> bool:
    return False


@attrs.define
class Serving:
    """What the servers of one session share.

    Attributes:
        context: The session's.
        origin: What is published on the session.
        scheduler: Decides which server may write next on a full link.
        ageing: Has the broadcasts drop what is too old.
        rate: How many requests begin in a second.
        namespaces: Announces by requests of this side's, where the version has them.
        subscriptions: The subscriptions that are served now, by their publication.
        lists: Announce streams of the peer that are served now.
        listed: Announcements that these have together.
        short_of_streams: Servers that wait for the peer to allow another stream, in the order of service.
        early: True while requests wait for broadcasts that are not published yet.
        join_points: Where subscriptions began, in the versions in which a fetch may join one.
        offers: The tracks that this side offers to the peer, by the broadcast's path and the track's name.
        offered_by_peer: Returns whether the peer offers a track to this side.
        offering: What offers tracks now.
    """

    context: SessionContext
    origin: Origin
    scheduler: SendScheduler
    ageing: Ageing
    rate: RequestRate
    namespaces: Namespaces
    subscriptions: dict[PublishedBroadcast, set[ServedSubscription]]
    lists: int = 0
    listed: int = 0
    short_of_streams: OrderedDict[StreamWaiter, None] = attrs.Factory(OrderedDict)
    early: bool = False
    join_points: JoinPoints = attrs.Factory(JoinPoints)
    offers: dict[tuple[BroadcastPath, str], ServedSubscription] = attrs.Factory(dict)
    offered_by_peer: Callable[[BroadcastPath, str], bool] = _nothing
    offering: dict[Offering, None] = attrs.Factory(dict)


class RequestServer(ControlStream):
    """Answers one request of the peer, until it is answered or cancelled.

    Attributes:
        codes: The code space of this kind of stream.
        scope: Cancel it to end the request at once.
        wakeup: Set whenever the task may have work.
    """

    codes: ClassVar[CodeSpace] = "stream"

    def __init__(self, serving: Serving, stream: BidiStream, machine: StreamMachine) -> None:
        super().__init__(serving.context, stream, machine)
        self.serving = serving
        self.scope = trio.CancelScope()
        self.wakeup = Wakeup()
        serving.context.map_codes(stream, self.codes)

    def handle(self, event: Event) -> None:
        if isinstance(event, RequestUnsupported):
            logger.info("a request was refused: it asks for what this side does not do")
            self.cancel(StreamCode.INTERNAL_ERROR)
        elif isinstance(event, RequestCancelled):
            # The peer has ended only its own half of the stream.
            self.scope.cancel()
            if not self.stream.send_ended:
                self.stream.reset(StreamCode.CANCELLED)
            self.stream.stop(StreamCode.CANCELLED)
            self.machine.release()

    def find(
        self, path: BroadcastPath, track: str, answer: Callable[[Found | None], None], *, rendezvous: float = 0
    ) -> None:
        """Call `answer` with the track and its publication, or with None when there is no such track.

        At once, or from a task of the session when the request came before the publication. A request that is cancelled
        meanwhile is not answered.

        Args:
            path: The broadcast's path.
            track: The track's name.
            answer: See above.
            rendezvous: Seconds that the peer wants its request to wait; 0 to wait only as every request does.

        Limits: track_wait_timeout, max_rendezvous.
        """
        found = self.serving.origin.request(path, track)
        limits, patience = self.context.limits, 0.0
        if rendezvous:
            patience = min(rendezvous, limits.max_rendezvous)
        elif self.context.dialect.quirks.subscribes_early or self.serving.early:
            patience = limits.track_wait_timeout
        if found is None and patience and self._may_come(path, rendezvous):
            self.context.start(self._wait_published, path, track, answer, patience, rendezvous)
        else:
            self._answer_with(found, answer)

    def _answer_with(
        self, found: tuple[PublishedBroadcast, Track | TrackRequest] | None, answer: Callable[[Found | None], None]
    ) -> None:
        """Call `answer`, once the track is made."""
        if found is None:
            answer(None)
        elif isinstance(found[1], TrackRequest):
            self.context.start(self._wait_made, found[0], found[1], answer)
        else:
            answer((found[0], found[1]))

    async def _wait_made(
        self, publication: PublishedBroadcast, request: TrackRequest, answer: Callable[[Found | None], None]
    ) -> None:
        """Wait for the application to make a track. Limits: reply_timeout."""
        in_time = False
        with self.scope, waiting_for(request) as over:
            in_time = await Timeout(self.context.limits.reply_timeout).wait(over.wait)
        if self.scope.cancel_called:
            return
        # A scope can be entered once, and the serving task enters this one.
        self.scope = trio.CancelScope()
        track = track_of(request)
        if not in_time:
            logger.info("a request for track %s was not answered in time: reply_timeout", printable(request.track))
            self.cancel(StreamCode.CONTROL_TIMEOUT)
        elif track is None or self.serving.origin.get(publication.path) is not publication:
            answer(None)
        else:
            answer((publication, track))

    def _may_come(self, path: BroadcastPath, rendezvous: float) -> bool:
        """Return whether a track of this path that is not published may still be."""
        if self.context.going_away.is_set():
            return False
        # A broadcast that is published has its tracks; one that it lacks now may be missing for good.
        return bool(rendezvous) or self.context.dialect.quirks.subscribes_early or path not in self.serving.origin

    async def _wait_published(
        self,
        path: BroadcastPath,
        track: str,
        answer: Callable[[Found | None], None],
        patience: float,
        rendezvous: float,
    ) -> None:
        origin, changed = self.serving.origin, Wakeup()
        # What ended the wait: asked a second time, a broadcast might make the track a second time.
        found: tuple[PublishedBroadcast, Track | TrackRequest] | None = None

        def note(_: PublishedBroadcast, name: str | None) -> None:
            if name is None or name == track:
                changed.set()

        async def published() -> None:
            nonlocal found
            while (found := origin.request(path, track)) is None and self._may_come(path, rendezvous):
                await changed.wait()

        origin.watch_requests(path, note)
        try:
            with self.scope:
                async with open_unwrapping_nursery() as nursery:
                    nursery.start_soon(self._wake_to_leave, changed)
                    # The application, too, may have had no turn in which to publish it.
                    await Timeout(patience).wait(published)
                    nursery.cancel_scope.cancel()
        finally:
            origin.unwatch_requests(path, note)
        if found is not None and (self.scope.cancel_called or origin.get(found[0].path) is not found[0]):
            if isinstance(found[1], TrackRequest):
                with waiting_for(found[1]):
                    # It ends, unless others wait for it.
                    pass
            found = None
        if not self.scope.cancel_called:
            # A scope can be entered once, and the serving task enters this one.
            self.scope = trio.CancelScope()
            self._answer_with(found or origin.request(path, track), answer)

    async def _wake_to_leave(self, changed: Wakeup) -> None:
        """Wake a request that waits for a track when nothing comes any more."""
        await self.context.going_away.wait()
        changed.set()

    def reset_received(self, code: int) -> None:
        super().reset_received(code)
        self._release_unasked()

    def stop_received(self, code: int) -> None:
        super().stop_received(code)
        self._release_unasked()

    def _release_unasked(self) -> None:
        """Release the place of a request that was given up before all of it had arrived."""
        if isinstance(self.machine, Responder) and not self.machine.asked:
            if not self.stream.send_ended:
                self.stream.reset(StreamCode.CANCELLED)
            self.stream.stop(StreamCode.CANCELLED)
            self.machine.release()

    def send_ready(self) -> None:
        self.wakeup.set()

    def failed(self, error: MoqtError) -> None:
        self.scope.cancel()


class RequestStream(StreamHandler):
    """A bidirectional stream of the peer, until its type is known.

    Args:
        context: The session's.
        stream: The stream.
        serve: Called with the kind and its machine, once the type has arrived; returns the stream's server.
    """

    def __init__(
        self,
        context: SessionContext,
        stream: BidiStream,
        serve: Callable[[BidiStream, StreamKind, StreamMachine], ControlStream],
    ) -> None:
        self._context = context
        self._stream = stream
        self._serve = serve
        self._incoming = context.core.accept_bidi()
        context.pending_streams.add(self)

    def data_received(self, data: bytes, fin: bool) -> None:
        # As `receive_events` does, in line: this is done for every request.
        error: RemoteProtocolError | None = None
        try:
            events = self._incoming.receive_data(data, fin)
        except RemoteProtocolError as mistake:
            events, error = self._incoming.partial_events, mistake
        kind, machine = self._incoming.kind, self._incoming.machine
        if kind is not None and machine is not None:
            self._context.pending_streams.discard(self)
            server = self._serve(self._stream, kind, machine)
            self._stream.handler = server
            server.handle_all(events, error)
            if machine.unread:
                server.read_later(len(data))
                return
        elif error is not None:
            self._broken(error)
        elif fin:
            self.refuse(StreamCode.CANCELLED)
        self._stream.consumed(len(data))

    def _broken(self, error: RemoteProtocolError) -> None:
        if error.scope == "session":
            self._release()
            self._context.violated(error)
        else:
            logger.info("stream %d reset, the peer broke the protocol: %s", self._stream.stream_id, error)
            self.refuse(error.code)

    def reset_received(self, code: int) -> None:
        self.refuse(StreamCode.CANCELLED)

    def stop_received(self, code: int) -> None:
        # No answer can be sent any more; what still arrives is ignored.
        self._incoming.receive_stop(code)

    def connection_lost(self, error: MoqtError) -> None:
        self._release()

    def refuse(self, code: int) -> None:
        """End the stream from this side."""
        self._release()
        self._context.map_codes(self._stream, "stream")
        reset_and_stop(self._stream, code)

    def _release(self) -> None:
        self._context.pending_streams.discard(self)
        self._incoming.release()
