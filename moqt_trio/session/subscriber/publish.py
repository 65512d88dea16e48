"""Offers: the tracks that the peer offers (PUBLISH). Each is a subscription that sleeps until it is wanted.

Theory of operation. The peer opens a stream for each track. This side accepts it with nothing sent, so an offer costs
its publisher no bandwidth, and stays until the publisher ends it. A `Subscription` to the same track attaches to the
offer instead of asking anew: one update wakes it up, and another puts it to sleep again when the subscription's block
is left. One subscription reads an offer at a time; a second one makes a request of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import SessionClosed, StreamReset, printable
from ...loggers import Logger
from ...protocol.events import Event, RequestFinished, RequestRefused
from ...protocol.ietf.events import PublishRequested, UpdateAnswered
from ...protocol.ietf.machine import request_code
from ...protocol.ietf.publish import DUPLICATE_SUBSCRIPTION, UNINTERESTED, PublishResponder
from ...wire.messages import SubscribeOk
from ..stream import ControlStream

if TYPE_CHECKING:
    from ...errors import MoqtError
    from ...path import BroadcastPath
    from ...protocol.machine import StreamMachine
    from ...protocol.subscribe import StartPlace, SubscriptionChanges
    from ...transport.stream import BidiStream
    from ..context import SessionContext

logger = Logger(__name__)

Changed = Callable[["Offer"], None]
"""Called with an offer that came or went; `Offer.active` says which."""


class Offer(ControlStream):
    """One track that the peer offers, from PUBLISH to its end.

    Attributes:
        path: The broadcast's path.
        track: The track's name.
        active: True from the acceptance to the publisher's end.
    """

    machine: PublishResponder
    path: BroadcastPath
    track: str

    def __init__(self, context: SessionContext, stream: BidiStream, machine: PublishResponder, offers: Offers) -> None:
        super().__init__(context, stream, machine)
        context.map_codes(stream, "subscribe")
        self.active = False
        self._offers = offers
        self._on_event: Callable[[Event], None] | None = None
        self._on_failure: Callable[[MoqtError], None] | None = None
        self._accepted = False

    # -- from the peer -------------------------------------------------------------------------------------

    def handle(self, event: Event) -> None:
        match event:
            case PublishRequested():
                self._offered(event)
                return
            case UpdateAnswered():
                self._answered(event)
                return
            case RequestFinished() | RequestRefused():
                self._end()
            case _:
                pass
        if self._on_event is not None:
            self._on_event(event)
        elif isinstance(event, RequestFinished):
            with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
                self.stream.finish()
            self.machine.release()
        elif isinstance(event, RequestRefused):
            self.cancel()

    def _offered(self, event: PublishRequested) -> None:
        self.path, self.track = event.path, event.track
        number = self._offers.problem_of(self)
        if number is not None:
            logger.info("refused the offer of track %s of %s", printable(event.track), printable(str(event.path)))
            self._write(self.machine.refuse(number), fin=True)
            # Its groups that came before it have no reader, and are refused.
            self.context.read_parked(self.machine.subscribe_id)
            self.stream.stop(StreamCode.CANCELLED)
            self.machine.release()
            return
        self.active = True
        self._write(self.machine.accept())
        # What came before the offer was sent without being asked for.
        self.context.read_parked(self.machine.subscribe_id)
        self._offers.add(self)

    def _answered(self, event: UpdateAnswered) -> None:
        self._write(self.machine.take_update())
        if self._on_event is not None and not self._accepted and not self.machine.unanswered:
            self._accepted = True
            self._on_event(SubscribeOk(None, newest=event.newest, info=self.machine.info))

    def _end(self, *, report: bool = True) -> None:
        if self.active:
            self.active = False
            self._offers.remove(self, report=report)

    def failed(self, error: MoqtError) -> None:
        # The end of the session ends every offer of the peer, and is reported as such.
        self._end(report=not isinstance(error, SessionClosed))
        if self._on_failure is not None:
            self._on_failure(error)

    def cancel(self, code: int = StreamCode.CANCELLED) -> None:
        self._end()
        super().cancel(code)

    def _write(self, data: bytes, fin: bool = False) -> None:
        # The peer may have left meanwhile, or the session.
        with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
            if data or fin:
                self.stream.write(data, fin)

    def __repr__(self) -> str:
        state = "ended" if not self.active else "free" if self._on_event is None else "read"
        return (
            f"<Offer {state}>" if not hasattr(self, "path") else f"<Offer {self.track!r} of {str(self.path)!r} {state}>"
        )

    # -- from a subscription -------------------------------------------------------------------------------

    @property
    def free(self) -> bool:
        """True while a subscription may attach."""
        return self.active and self._on_event is None

    def attach(
        self,
        on_event: Callable[[Event], None],
        on_failure: Callable[[MoqtError], None],
        wanted: SubscriptionChanges,
        start: StartPlace,
    ) -> None:
        """Wake the subscription up, and pass on what happens to it.

        Args:
            on_event: Called for each event: as for a subscription that was asked for.
            on_failure: Called when the stream ends early.
            wanted: The fields of the request.
            start: Where it starts, when they name no group.

        Raises:
            LocalProtocolError: The version cannot carry what is wanted.
        """
        data = self.machine.wake(start, **wanted)
        self._on_event, self._on_failure = on_event, on_failure
        self._accepted = False
        self._write(data)
        if not self.machine.unanswered:
            # Nothing changes, and it is to sleep on; or nothing answers an update, in draft 14.
            self._accepted = True
            on_event(SubscribeOk(None))

    def detach(self) -> None:
        """Put the subscription to sleep again; release it when it has ended."""
        self._on_event = self._on_failure = None
        if self.active:
            self._write(self.machine.sleep())
        else:
            if not self.stream.send_ended:
                self.cancel()
            self.machine.release()


class Offers:
    """The tracks that the peer offers on one session.

    Args:
        context: The session's.

    Attributes:
        asked: Prefixes below which this side asks for offers now.

    Limits: max_offered_tracks.
    """

    def __init__(self, context: SessionContext) -> None:
        self.asked: Counter[BroadcastPath] = Counter()
        self._context = context
        self._offers: dict[tuple[BroadcastPath, str], Offer] = {}
        self._watchers: dict[Changed, None] = {}

    def serve(self, stream: BidiStream, machine: StreamMachine) -> Offer:
        """Return the handler of a stream on which the peer makes an offer."""
        assert isinstance(machine, PublishResponder)
        return Offer(self._context, stream, machine, self)

    def find(self, path: BroadcastPath, track: str) -> Offer | None:
        """Return the offer of a track, or None."""
        return self._offers.get((path, track))

    def has(self, path: BroadcastPath, track: str) -> bool:
        """Return whether a track is offered."""
        return (path, track) in self._offers

    def all(self) -> list[Offer]:
        """Return all offers, the oldest first."""
        return list(self._offers.values())

    def problem_of(self, offer: Offer) -> int | None:
        """Return the code with which a new offer has to be refused; None for one that is accepted."""
        if offer.machine.problem is not None:
            return offer.machine.problem
        if self._context.going_away.is_set():
            return request_code(StreamCode.GOING_AWAY)
        if self.has(offer.path, offer.track):
            # Draft 19 has dropped the code: there a track may have several subscriptions.
            return DUPLICATE_SUBSCRIPTION if offer.machine.knows_duplicates else UNINTERESTED
        if len(self._offers) >= self._context.limits.max_offered_tracks:
            return request_code(StreamCode.NO_CAPACITY)
        return None

    def add(self, offer: Offer) -> None:
        """Add an offer that was accepted."""
        self._offers[offer.path, offer.track] = offer
        self._tell(offer)

    def remove(self, offer: Offer, *, report: bool) -> None:
        """Remove an offer that has ended, and report it if that is wanted."""
        del self._offers[offer.path, offer.track]
        if report:
            self._tell(offer)

    def _tell(self, offer: Offer) -> None:
        for changed in tuple(self._watchers):
            changed(offer)

    def watch(self, changed: Changed) -> None:
        """Have `changed` called with each offer that comes or goes."""
        self._watchers[changed] = None

    def unwatch(self, changed: Changed) -> None:
        """End `watch`."""
        self._watchers.pop(changed, None)
