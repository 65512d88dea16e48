"""The publishing side of a session: answers what the peer asks of our broadcasts.

Each request has one owner here, a task in the session's nursery: cancel it and its streams are reset, let it end
and they are finished. Serving a subscription reads the model through a cursor and writes group streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import trio

from ...codes import CodeSpace, StreamCode
from ...errors import LocalProtocolError, MoqtError, RemoteProtocolError, SessionClosed, StreamReset, printable
from ...path import BroadcastPath
from ...protocol.announce import AnnounceResponder
from ...protocol.events import (
    AnnouncementsRequested,
    Event,
    FetchRequested,
    FetchUpdated,
    GoawayReceived,
    ProbeRequested,
    RequestCancelled,
    SubscribeRequested,
    SubscribeUpdated,
    TrackInfoRequested,
)
from ...protocol.fetch import FetchResponder
from ...protocol.paths import track_path_local
from ...protocol.probe import ProbeResponder
from ...protocol.subscribe import SubscribeResponder
from ...protocol.track import TrackInfoResponder
from ...tasks import Wakeup
from ...wire.messages import Fetch, StreamKind, Subscribe, SubscribeUpdate, TrackInfo
from ..context import ControlStream, SessionContext, give_up, logger
from .fetch import FetchServer
from .subscribe import SubscribeServer

if TYPE_CHECKING:
    from ...model.origin import Origin, PublishedBroadcast
    from ...model.track import Track
    from ...transport.abc import BidiStream

_PROBE_INTERVAL = 5.0
_PROBE_CHANGE = 0.25

_SPACES: Final[Mapping[StreamKind | None, CodeSpace]] = {
    StreamKind.ANNOUNCE: "announce",
    StreamKind.SUBSCRIBE: "subscribe",
    StreamKind.FETCH: "fetch",
    StreamKind.TRACK: "info",
}
"""Where the codes of a request's stream stand."""


class RequestStream(ControlStream):
    """A bidi stream that the peer opened, until and after it is known what it asks for."""

    def __init__(
        self, context: SessionContext, origin: Origin, servers: set[SubscribeServer], stream: BidiStream
    ) -> None:
        self._incoming = context.core.accept_bidi()
        super().__init__(context, stream, self._incoming)
        self._origin = origin
        self._servers = servers
        self._scope = trio.CancelScope()
        self._track_server: SubscribeServer | None = None
        self._early_update: SubscribeUpdate | None = None
        self._fetch_server: FetchServer | None = None
        self._probe_wakeup: Wakeup | None = None
        self._wakeup = Wakeup()
        self._spelled = False

    def handle(self, event: Event) -> None:
        self._spell_codes()
        match event:
            case AnnouncementsRequested():
                self.context.start(self._serve_announcements)
            case SubscribeRequested():
                self._subscribe(event.request)
            case SubscribeUpdated():
                if self._track_server is not None:
                    self._track_server.update(event.update)
                else:
                    self._early_update = event.update
            case FetchRequested():
                self._fetch(event.request)
            case FetchUpdated():
                if self._fetch_server is not None:
                    self._fetch_server.update(event.priority)
            case TrackInfoRequested():
                self._track_info(event.broadcast, event.track)
            case ProbeRequested():
                if self._probe_wakeup is None:
                    self._probe_wakeup = Wakeup()
                    self.context.start(self._serve_probe, self._probe_wakeup)
                else:
                    self._probe_wakeup.set()
            case GoawayReceived():
                self.context.goaway_uri = event.uri
                self.context.going_away.set()
            case RequestCancelled():
                self._cancelled()
            case _:
                pass

    def data_received(self, data: bytes, fin: bool) -> None:
        super().data_received(data, fin)
        if self._incoming.kind is not None:
            self.context.untyped.discard(self)
        elif fin:
            self.refuse(StreamCode.CANCELLED)

    def reset_received(self, code: int) -> None:
        super().reset_received(code)
        if self._incoming.kind is None:
            self.refuse(StreamCode.CANCELLED)

    def _broken(self, error: RemoteProtocolError) -> None:
        self._spell_codes()
        super()._broken(error)

    def _spell_codes(self) -> None:
        """Has the stream's codes spelled for its kind, from when that is known or the stream is given up."""
        if not self._spelled:
            self._spelled = True
            self.context.map_codes(self.stream, _SPACES.get(self._incoming.kind, "stream"))

    def failed(self, error: MoqtError) -> None:
        self.context.untyped.discard(self)
        self._scope.cancel()

    def send_ready(self) -> None:
        self._wakeup.set()
        if self._track_server is not None:
            self._track_server.wakeup.set()
        if self._fetch_server is not None:
            self._fetch_server.wakeup.set()

    def _cancelled(self) -> None:
        # Both sides have to end a request's stream: the peer's end alone leaves ours open.
        self._scope.cancel()
        if not self.stream.send_ended:
            self.stream.reset(StreamCode.CANCELLED)
        self.stream.stop(StreamCode.CANCELLED)
        self.machine.release()

    def refuse(self, code: int) -> None:
        """Ends the stream from this side."""
        self._spell_codes()
        self.context.untyped.discard(self)
        give_up(self.stream, code)
        self.machine.release()

    # -- announcements -------------------------------------------------------------------------------------

    async def _serve_announcements(self) -> None:
        machine = self._incoming.machine
        assert isinstance(machine, AnnounceResponder)
        try:
            prefix = BroadcastPath.parse(machine.prefix)
        except ValueError:
            self.refuse(StreamCode.INTERNAL_ERROR)
            return
        self._origin.watch(self._wakeup.set)
        try:
            with self._scope:
                told = self._available(prefix)
                self.stream.write(
                    machine.accept([(path, item.hops, item.cost, item.cost) for path, item in told.items()])
                )
                while True:
                    await self._wakeup.wait()
                    if self.stream.writable:
                        told = self._tell_changes(machine, prefix, told)
        except (StreamReset, SessionClosed, trio.ClosedResourceError):
            pass
        finally:
            self._origin.unwatch(self._wakeup.set)
            self.refuse(StreamCode.SESSION_CLOSED)

    def _available(self, prefix: BroadcastPath) -> dict[str, PublishedBroadcast]:
        """Returns what to announce below a prefix, by path: broadcasts, or in the versions before moq-lite tracks."""
        if not self.context.core.dialect.features.announce_tracks:
            return {str(path): item for path, item in self._origin.below(prefix).items()}
        found: dict[str, PublishedBroadcast] = {}
        for path, item in self._origin.below(BroadcastPath()).items():
            for track in item.broadcast:
                try:
                    whole = track_path_local(str(path), track.name)
                except LocalProtocolError as error:
                    logger.info("a track cannot be announced in %s: %s", self.context.core.dialect.name, error)
                    continue
                if prefix.covers(BroadcastPath.parse(whole)):
                    found[whole] = item
        return found

    def _tell_changes(
        self, machine: AnnounceResponder, prefix: BroadcastPath, told: dict[str, PublishedBroadcast]
    ) -> dict[str, PublishedBroadcast]:
        # The difference to what was told, not a queue of changes: a slow peer costs no memory.
        current = self._available(prefix)
        changes = [machine.unannounce(path) for path, item in told.items() if current.get(path) is not item]
        changes += [
            machine.announce(path, item.hops, item.cost, item.cost)
            for path, item in current.items()
            if told.get(path) is not item
        ]
        data = b"".join(changes)
        if data:
            self.stream.write(data)
        return current

    # -- tracks --------------------------------------------------------------------------------------------

    def _find(self, broadcast: str, track: str) -> tuple[PublishedBroadcast, Track] | None:
        try:
            path = BroadcastPath.parse(broadcast)
        except ValueError:
            return None
        return self._origin.find(path, track)

    def _subscribe(self, request: Subscribe) -> None:
        found = self._find(request.broadcast, request.track)
        if found is None and self.context.core.dialect.features.subscribes_early:
            self.context.start(self._subscribe_later, request)
        else:
            self._answer_subscribe(request, found)

    async def _subscribe_later(self, request: Subscribe) -> None:
        """Answers a subscription once its track is published, or when `Limits.track_wait_timeout` is over."""
        changed = Wakeup()
        found: tuple[PublishedBroadcast, Track] | None = None
        self._origin.watch(changed.set)
        try:
            with self._scope, trio.move_on_after(self.context.limits.track_wait_timeout):
                while (found := self._find(request.broadcast, request.track)) is None:
                    await changed.wait()
        finally:
            self._origin.unwatch(changed.set)
        if not self._scope.cancel_called:
            # A scope serves one block only, and the track server enters its own.
            self._scope = trio.CancelScope()
            self._answer_subscribe(request, found)

    def _answer_subscribe(self, request: Subscribe, found: tuple[PublishedBroadcast, Track] | None) -> None:
        machine = self._incoming.machine
        assert isinstance(machine, SubscribeResponder)
        if found is None or self.context.going_away.is_set():
            code = StreamCode.NOT_FOUND if found is None else StreamCode.GOING_AWAY
            logger.info("refused track %s of %s", printable(request.track), printable(request.broadcast))
            self.refuse(code)
            return
        publication, track = found
        server = SubscribeServer(self.context, self.stream, machine, request, publication, track, self._scope)
        if self._early_update is not None:
            server.update(self._early_update)
        self._track_server = server
        self._servers.add(server)
        self.context.start(self._serve_track, server)

    async def _serve_track(self, server: SubscribeServer) -> None:
        try:
            await server.run()
        finally:
            self._servers.discard(server)
            self.machine.release()

    def _track_info(self, broadcast: str, name: str) -> None:
        found = self._find(broadcast, name)
        if found is None:
            self.refuse(StreamCode.NOT_FOUND)
            return
        machine = self._incoming.machine
        assert isinstance(machine, TrackInfoResponder)
        track = found[1]
        info = TrackInfo(priority=track.priority, max_age_ms=round(track.max_age * 1000), timescale=track.timescale)
        self.stream.write(machine.reply(info), fin=True)
        self.machine.release()

    def _fetch(self, request: Fetch) -> None:
        found = self._find(request.broadcast, request.track)
        if found is None:
            self.refuse(StreamCode.NOT_FOUND)
            return
        machine = self._incoming.machine
        assert isinstance(machine, FetchResponder)
        server = FetchServer(self.context, self.stream, machine, request, found[1], self._scope)
        self._fetch_server = server
        self.context.start(self._serve_fetch, server)

    async def _serve_fetch(self, server: FetchServer) -> None:
        try:
            await server.run()
        finally:
            self.machine.release()

    # -- probes --------------------------------------------------------------------------------------------

    async def _serve_probe(self, asked: Wakeup) -> None:
        machine = self._incoming.machine
        assert isinstance(machine, ProbeResponder)
        reported: float | None = None
        try:
            with self._scope:
                while True:
                    bitrate, rtt_ms = self._estimate()
                    if reported is None or abs(bitrate - reported) >= _PROBE_CHANGE * max(reported, 1):
                        if self.stream.writable:
                            self.stream.write(machine.report(bitrate or None, rtt_ms))
                        reported = bitrate
                    with trio.move_on_after(_PROBE_INTERVAL):
                        await asked.wait()
                        reported = None
        except (StreamReset, SessionClosed, trio.ClosedResourceError):
            pass
        finally:
            self.refuse(StreamCode.SESSION_CLOSED)

    def _estimate(self) -> tuple[int, int | None]:
        numbers = self.context.connection.statistics()
        if not numbers.rtt:
            return 0, None
        # A measured round trip below a millisecond still says "measured": 0 means unknown on the wire.
        return int(numbers.congestion_window * 8 / numbers.rtt), max(1, round(numbers.rtt * 1000))
