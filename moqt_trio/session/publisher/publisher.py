"""Publisher: the half of a session that serves the peer's requests from the origin."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

import trio

from ...model.origin import Origin, PublishedBroadcast
from ...protocol.ietf.publish_namespace import PublishNamespaceResponder
from ...timeouts import Timeout
from ...wire.messages import Goaway, StreamKind
from ..stream import ControlStream
from .ageing import Ageing
from .announce import AnnounceServer, NamespaceServer
from .fetch import FetchServer
from .fetch_range import RangeServer
from .namespaces import Namespaces
from .probe import ProbeServer
from .publish import Publication, announce, finish_all, withdraw
from .rate import RequestRate
from .request import RequestServer, RequestStream, ServedSubscription, Serving
from .scheduler import SendScheduler
from .subscribe import SubscribeServer
from .track import TrackInfoServer
from .tracks import TrackOffers, TracksServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...path import BroadcastPath
    from ...protocol.events import Event
    from ...protocol.machine import StreamMachine
    from ...transport.stream import BidiStream
    from ..context import SessionContext

_SERVERS: Mapping[StreamKind, type[RequestServer]] = {
    StreamKind.ANNOUNCE: AnnounceServer,
    StreamKind.SUBSCRIBE: SubscribeServer,
    StreamKind.FETCH: FetchServer,
    StreamKind.RANGE: RangeServer,
    StreamKind.TRACK: TrackInfoServer,
    StreamKind.PROBE: ProbeServer,
    StreamKind.TRACKS: TracksServer,
}
"""The server of each kind of request."""


class PeerOffer(Protocol):
    """A track that the peer offers, or no longer offers."""

    path: BroadcastPath
    track: str
    active: bool


class Publisher:
    """Answers the peer's requests for this side's broadcasts.

    Args:
        context: The session's.
        serve_offer: Returns the handler of a stream on which the peer offers a track.
        offered_by_peer: Returns whether the peer offers a track.

    Attributes:
        origin: What the session publishes.
    """

    def __init__(
        self,
        context: SessionContext,
        serve_offer: Callable[[BidiStream, StreamMachine], ControlStream],
        offered_by_peer: Callable[[BroadcastPath, str], bool],
    ) -> None:
        self.origin = Origin()
        self._serve_offer = serve_offer
        self._scheduler = SendScheduler(context.connection)
        self._rate = RequestRate(context)
        self._serving = Serving(
            context,
            self.origin,
            self._scheduler,
            Ageing(context),
            self._rate,
            Namespaces(context, self.origin),
            defaultdict(set),
            offered_by_peer=offered_by_peer,
        )
        # Requests that arrived before the session was admitted; None from then on.
        self._not_admitted: list[BidiStream] | None = []

    @property
    def subscriptions(self) -> list[ServedSubscription]:
        """The peer's subscriptions that are served now."""
        # Copies: statistics are read from any thread, and the sets change meanwhile.
        served = list(self._serving.subscriptions.values())
        return [subscription for subscriptions in served for subscription in list(subscriptions)]

    def publish(self, published: PublishedBroadcast, *, offer_tracks: bool = False) -> Publication:
        """Return the block in which a broadcast is announced, and its tracks are offered unasked if that is wanted."""
        offers = TrackOffers(self._serving, published.path, forward=False, only=published) if offer_tracks else None
        return Publication(self._serving, published, offers)

    def announce(self, published: PublishedBroadcast) -> None:
        """Announce a broadcast until `withdraw`. Raises ValueError when its path is taken."""
        announce(self._serving, published)

    def withdraw(self, published: PublishedBroadcast) -> None:
        """End `announce`. Subscriptions that run go on."""
        withdraw(self._serving, published)

    async def finish(self) -> None:
        """Finish every subscription: deliver what was written, for at most `Limits.close_timeout`."""
        await finish_all(self.subscriptions, self._serving.context.limits.close_timeout)

    # -- from the connection -------------------------------------------------------------------------------

    def stream_opened(self, stream: BidiStream) -> None:
        """Called for each bidirectional stream that the peer opens."""
        if self._not_admitted is not None:
            # Its bytes wait in the stream, within the stream's window.
            self._not_admitted.append(stream)
        elif self._rate.tokens > 0 and not self._rate.waiting:
            self._rate.tokens -= 1
            stream.handler = RequestStream(self._serving.context, stream, self._serve)
        else:
            self._rate.hold(stream, self._begin)

    def admit(self) -> None:
        """Start serving requests, first those that arrived before."""
        waiting, self._not_admitted = self._not_admitted, None
        self._serving.early = True
        self._serving.context.start(self._end_early)
        self._serving.namespaces.start()
        for stream in waiting or ():
            self.stream_opened(stream)

    @trio.lowlevel.enable_ki_protection
    async def _end_early(self) -> None:
        await Timeout(self._serving.context.limits.track_wait_timeout).wait(trio.sleep_forever)
        self._serving.early = False

    def _begin(self, stream: BidiStream) -> None:
        stream.handler = RequestStream(self._serving.context, stream, self._serve)

    def _serve(self, stream: BidiStream, kind: StreamKind, machine: StreamMachine) -> ControlStream:
        if isinstance(machine, PublishNamespaceResponder):
            return NamespaceServer(self._serving, stream, machine)
        if kind is StreamKind.PUBLISH:
            return self._serve_offer(stream, machine)
        server = _SERVERS.get(kind)
        if server is not None:
            return server(self._serving, stream, machine)
        return _GoawayStream(self._serving.context, stream, machine)

    def streams_available(self) -> None:
        """Called when the peer allows more streams."""
        waiting = self._serving.short_of_streams
        while waiting:
            server, _ = waiting.popitem(last=False)
            server.resume()
            if server in waiting:
                # No stream was left for it.
                waiting.move_to_end(server, last=False)
                break
        self.requests_available()

    def requests_available(self) -> None:
        """Called when the peer allows more requests."""
        for offers in tuple(self._serving.offering):
            offers.resume()

    def peer_offer_changed(self, offer: PeerOffer) -> None:
        """Called when the peer has begun or ended to offer a track: one that is its own is not offered to it."""
        if not offer.active:
            for offers in tuple(self._serving.offering):
                offers.offer_ended(offer.path, offer.track, None)

    def send_room(self) -> None:
        """Called when the link has room to send again."""
        self._scheduler.resume_waiting()

    def connection_lost(self) -> None:
        """Called when the connection has ended."""
        self._serving.ageing.connection_lost()
        for server in self.subscriptions:
            server.scope.cancel()


class _GoawayStream(ControlStream):
    """The stream of the peer's GOAWAY."""

    def __init__(self, context: SessionContext, stream: BidiStream, machine: StreamMachine) -> None:
        super().__init__(context, stream, machine)
        context.map_codes(stream, "stream")

    def handle(self, event: Event) -> None:
        if isinstance(event, Goaway):
            self.context.goaway_received.set()
            self.context.going_away.set()
