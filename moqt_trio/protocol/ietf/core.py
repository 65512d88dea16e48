"""`IetfCore`: one IETF session without I/O; its interface is that of `protocol.core.SessionCore`.

Spec: draft-ietf-moq-transport-18, section 3.3.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from ...errors import LocalProtocolError
from ...frame import Frame
from ...path import BroadcastPath
from ...wire.ietf import messages as ietf
from ...wire.ietf.filters import Filter
from ...wire.ietf.names import Location
from ...wire.ietf.objects import FETCH_STREAM, PADDING_STREAM, is_subgroup
from ...wire.messages import StreamKind, SubscribeUpdate
from ..core import IncomingStream, SessionCore
from ..group import Subgroup
from ..machine import StreamMachine
from ..paths import no_words_for_hidden
from .control import ControlReceiver, GoawaySender, setup_message
from .control_stream import RequestsStream
from .datagrams import encode_datagram, park_datagram, receive_datagram_untrusted
from .fetch import FetchRequester, FetchResponder, ReplyReceiver, fetch_of
from .machine import violation
from .namespaces import NamespaceRequester, NamespaceResponder
from .publish import PublishRequester, PublishResponder
from .publish_namespace import PublishNamespaceRequester, PublishNamespaceResponder
from .state import IetfState
from .subgroup import SubgroupReceiver, SubgroupSender
from .subscribe import SubscribeRequester, SubscribeResponder
from .track_status import TrackStatusRequester, TrackStatusResponder
from .tracks import TracksRequester, TracksResponder

if TYPE_CHECKING:
    from ...wire.messages import TrackInfo
    from ..events import DatagramReceived, Event
    from ..subscribe import StartPlace

_REQUESTS = {
    ietf.Subscribe: (StreamKind.SUBSCRIBE, SubscribeResponder),
    ietf.SubscribeNamespace: (StreamKind.ANNOUNCE, NamespaceResponder),
    ietf.PublishNamespace: (StreamKind.ANNOUNCE, PublishNamespaceResponder),
    ietf.Fetch: (StreamKind.RANGE, FetchResponder),
    ietf.SubscribeTracks: (StreamKind.TRACKS, TracksResponder),
    ietf.Publish: (StreamKind.PUBLISH, PublishResponder),
    ietf.TrackStatus: (StreamKind.TRACK, TrackStatusResponder),
}
"""What a request is served as, by its first message."""

_SETUP = 0x2F00


class _Ignored(StreamMachine):
    """A stream whose bytes say nothing: padding, and what this side did not ask for."""


class IetfIncoming(IncomingStream):
    """A stream that the peer opened. Its first number is a part of the message or of the header that it begins with."""

    _session: IetfState

    def receive_data(self, data: bytes, fin: bool) -> list[Event]:
        if self.machine is not None:
            return self.machine.receive_data(data, fin)
        if self._closed:
            return []
        data = self._head + data
        profile = self._session.profile
        if data and data[0] < profile.one_byte:
            number = data[0]
        elif (found := profile.decode(data, 0)) is None:
            self._head = data
            self._closed = fin
            return []
        else:
            number = found[0]
        self._head = b""
        self._closed = True
        self.kind, self.machine = self._kind_untrusted(number)
        return self.machine.receive_data(data, fin)

    def _kind_untrusted(self, number: int) -> tuple[StreamKind, StreamMachine]:
        raise NotImplementedError


class IncomingRequest(IetfIncoming):
    """A bidirectional stream: a request."""

    _bidirectional = True

    def _kind_untrusted(self, number: int) -> tuple[StreamKind, StreamMachine]:
        message = self._session.codec.message_type(number)
        found = None if message is None else _REQUESTS.get(message)
        if found is not None:
            kind, machine = found
            if kind is StreamKind.ANNOUNCE and self._session.profile.namespaces != "split":
                # There it may ask for tracks, too.
                kind = StreamKind.TRACKS
            return kind, machine(self._session)
        raise violation(f"a request of type {number:#x}")


class IncomingData(IetfIncoming):
    """A unidirectional stream: the control stream, or objects."""

    _bidirectional = False

    def _kind_untrusted(self, number: int) -> tuple[StreamKind, StreamMachine]:
        session = self._session
        if is_subgroup(number, session.profile):
            return StreamKind.GROUP, SubgroupReceiver(session)
        if number == _SETUP:
            return StreamKind.SETUP, ControlReceiver(session)
        if number == FETCH_STREAM:
            return StreamKind.REPLY, ReplyReceiver(session)
        if number == PADDING_STREAM and session.profile.first_object:
            return StreamKind.SESSION, _Ignored()
        raise violation(f"a stream of unknown type {number:#x}")


class IetfCore(SessionCore):
    """Both roles of one session; see `SessionCore`, whose interface this is."""

    _state: IetfState
    _state_type = IetfState

    # -- streams that this side opens ----------------------------------------------------------------------

    @property
    def keeps_setup_stream(self) -> bool:
        return True

    @property
    def requests(self) -> RequestsStream | None:
        return self._requests

    @cached_property
    def _requests(self) -> RequestsStream | None:
        return RequestsStream(self._state) if self._state.profile.one_control_stream else None

    def setup_stream(self) -> bytes | None:
        if self.requests is not None:
            return self.requests.setup(self.setup)
        return self._state.codec.encode(setup_message(self.setup, self._state.profile))

    @property
    def answers_by_requests(self) -> bool:
        """True where this side announces by requests also what the peer asked for (up to draft 15)."""
        return self._state.profile.namespaces == "control"

    def publish_namespace(self, path: BroadcastPath) -> PublishNamespaceRequester:
        """Announce a broadcast by a request. Raises `LocalProtocolError` for a path that the draft cannot carry."""
        return PublishNamespaceRequester(self._state, path)

    @property
    def asks_hidden(self) -> bool:
        # In draft 14 a list goes on for the session; one that was asked for cannot be asked for otherwise.
        return self._state.peer_knows_hidden and not self._state.profile.fixed_fields

    def request_announcements(  # type: ignore[override]
        self, prefix: BroadcastPath | str, *, hidden: bool = False
    ) -> NamespaceRequester:
        if hidden and not self.asks_hidden:
            raise no_words_for_hidden(self.dialect.name)
        return NamespaceRequester(self._state, prefix, hidden=hidden)

    def subscribe(  # type: ignore[override]
        self,
        broadcast: BroadcastPath | str,
        track: str,
        *,
        priority: int = 0,
        ordered: bool | None = False,
        max_age_ms: int = 0,
        start_group: int | None = None,
        end_group: int | None = None,
        start_frame: int = 0,
        end_frame: int | None = None,
        forward: bool = True,
        delivery_timeout_ms: int = 0,
        rendezvous_ms: int = 0,
        start: StartPlace = "latest_group",
    ) -> SubscribeRequester:
        wanted = SubscribeUpdate(
            priority,
            ordered,
            max_age_ms,
            start_group,
            end_group,
            start_frame,
            end_frame,
            forward=forward,
            delivery_timeout_ms=delivery_timeout_ms,
        )
        return SubscribeRequester(self._state, BroadcastPath.parse(broadcast), track, wanted, rendezvous_ms, start)

    def request_tracks(self, prefix: BroadcastPath | str) -> TracksRequester:
        return TracksRequester(self._state, prefix)

    def offer(
        self,
        path: BroadcastPath,
        track: str,
        *,
        forward: bool,
        newest: tuple[int, int] | None = None,
        info: TrackInfo | None = None,
    ) -> PublishRequester:
        return PublishRequester(self._state, path, track, forward=forward, newest=newest, info=info)

    def fetch(  # type: ignore[override]
        self,
        broadcast: BroadcastPath | str,
        track: str,
        group: int,
        *,
        priority: int = 0,
        start_frame: int = 0,
        end_frame: int | None = None,
    ) -> FetchRequester:
        return self.fetch_range(broadcast, track, (group, start_frame), (group, end_frame), priority=priority)

    def fetch_range(
        self,
        broadcast: BroadcastPath | str,
        track: str,
        start: tuple[int, int],
        end: tuple[int, int | None],
        *,
        priority: int = 0,
        descending: bool = False,
    ) -> FetchRequester:
        if end[0] < start[0] or (end[0] == start[0] and end[1] is not None and end[1] < start[1]):
            raise LocalProtocolError(f"a range that ends at {end}, before {start}")
        wanted = Filter(Location(*start), *end)
        return fetch_of(self._state, broadcast, track, wanted, priority=priority, descending=descending)

    def request_track_info(self, broadcast: BroadcastPath | str, track: str) -> TrackStatusRequester:  # type: ignore[override]
        return TrackStatusRequester(self._state, broadcast, track)

    def probe(self, bitrate: int | None = None) -> NoReturn:
        raise self._lacks("probes")

    def _lacks(self, what: str) -> LocalProtocolError:
        return LocalProtocolError(f"{self.dialect.name} has no {what} here")

    def goaway(self, uri: str = "", timeout_ms: int = 0) -> GoawaySender:  # type: ignore[override]
        return GoawaySender(self._state, uri, timeout_ms)

    def group(  # type: ignore[override]
        self, subscribe_id: int, sequence: int, start_frame: int = 0, subgroup: Subgroup | None = None
    ) -> SubgroupSender:
        subgroup = subgroup or Subgroup(is_first=start_frame == 0)
        return SubgroupSender(self._state, subscribe_id, sequence, start_frame, subgroup)

    def parked(self, subscribe_id: int) -> list[StreamMachine]:
        aliases = self._state.aliases
        fill = self._state.parked_replies.get(subscribe_id)
        return [
            *([] if fill is None else [fill]),
            *(
                receiver
                for alias, waiting in list(aliases.parked.items())
                if aliases.find(alias) == subscribe_id
                for receiver in list(waiting)
            ),
        ]

    def parked_datagrams(self, subscribe_id: int) -> list[bytes]:
        return self._state.aliases.take_datagrams(subscribe_id)

    # -- streams that the peer opens -----------------------------------------------------------------------

    def accept_bidi(self) -> IncomingRequest:  # type: ignore[override]
        return IncomingRequest(self._state)

    def accept_uni(self) -> IncomingData:  # type: ignore[override]
        return IncomingData(self._state)

    # -- datagrams -----------------------------------------------------------------------------------------

    def datagram(
        self, subscribe_id: int, sequence: int, timestamp: int, payload: bytes, subgroup: Subgroup | None = None
    ) -> bytes:
        if subscribe_id not in self._state.peers:
            raise LocalProtocolError(f"the peer has no subscription {subscribe_id}")
        frame = payload if isinstance(payload, Frame) else Frame(payload, timestamp)
        return encode_datagram(self._state.profile, subscribe_id, sequence, frame, subgroup or Subgroup())

    def receive_datagram(self, data: bytes) -> DatagramReceived | None:
        """Return what a datagram carries; None, and one more in `dropped_datagrams`, when it is of no use.

        Raises:
            RemoteProtocolError: It is no datagram of the draft, which ends the session.
        """
        event = receive_datagram_untrusted(data, self._state)
        if event is None and not park_datagram(data, self._state):
            self.dropped_datagrams += 1
        return event
