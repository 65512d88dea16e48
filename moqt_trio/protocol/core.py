"""`SessionCore`: one MoQ session without I/O.

It makes the machines of the streams that this side opens, reads the type of those that the peer opens, which decides
their machine, and routes datagrams.

Spec: draft-lcurley-moq-lite-03 to -06.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, Final

import attrs

from ..codes import SessionCode, StreamCode
from ..errors import LocalProtocolError, Malformed, RemoteProtocolError
from ..frame import Frame
from ..limits import MAX_DATAGRAM, Limits
from ..path import BroadcastPath
from ..wire.messages import Datagram, Fetch, Setup, StreamKind, SubscribeUpdate
from .announce import AnnounceRequester, AnnounceResponder
from .events import DatagramReceived
from .fetch import FetchRequester, FetchResponder
from .goaway import GoawayReceiver, GoawaySender
from .group import GroupReceiver, GroupSender, Subgroup
from .machine import StreamMachine
from .paths import format_requested, no_words_for_hidden
from .probe import ProbeRequester, ProbeResponder
from .setup import SetupReceiver, check_setup
from .state import MessageBudget, SessionState
from .subscribe import StartPlace, SubscribeRequester, SubscribeResponder
from .track import TrackInfoRequester, TrackInfoResponder

if TYPE_CHECKING:
    from ..wire.dialect import Dialect
    from .events import Event
    from .ietf.control_stream import RequestsStream
    from .ietf.fetch import FetchRequester as RangeRequester

_BIDIRECTIONAL: Final[Mapping[StreamKind, Callable[[SessionState], StreamMachine]]] = {
    StreamKind.ANNOUNCE: AnnounceResponder,
    StreamKind.SUBSCRIBE: SubscribeResponder,
    StreamKind.FETCH: FetchResponder,
    StreamKind.TRACK: TrackInfoResponder,
    StreamKind.PROBE: ProbeResponder,
    StreamKind.GOAWAY: GoawayReceiver,
}
"""What a bidirectional stream of the peer's is for, by its kind."""


class IncomingStream(StreamMachine):
    """A stream that the peer opened: its type decides the machine for the rest.

    A stream that ends before its type is complete has no machine and no events.

    Attributes:
        kind: What it carries; None until its type arrived.
        machine: What handles it; None until its type arrived. It may be driven directly from then on.
    """

    _bidirectional: ClassVar[bool]

    def __init__(self, session: SessionState) -> None:
        self.kind: StreamKind | None = None
        self.machine: StreamMachine | None = None
        self._session = session
        self._head = b""

    @property
    def partial_events(self) -> list[Event]:
        return [] if self.machine is None else self.machine.partial_events

    def receive_data(self, data: bytes, fin: bool) -> list[Event]:
        if self.machine is not None:
            return self.machine.receive_data(data, fin)
        if self._closed:
            return []
        if self._head:
            data = self._head + data
        dialect = self._session.dialect
        found = dialect.split_stream_type(data)
        if found is None:
            self._head = data
            self._closed = fin
            return []
        number, end = found
        self._head = b""
        # Whatever still arrives for a stream that is refused here is ignored.
        self._closed = True
        kind = dialect.stream_kind_untrusted(number, bidirectional=self._bidirectional)
        machine = self._make_untrusted(kind, end)
        if machine is None:
            raise self._unknown(number)
        self.kind, self.machine = kind, machine
        return machine.receive_data(data[end:], fin)

    def receive_reset(self, code: int) -> list[Event]:
        self._closed = True
        return [] if self.machine is None else self.machine.receive_reset(code)

    def receive_stop(self, code: int) -> list[Event]:
        self._closed = True
        return [] if self.machine is None else self.machine.receive_stop(code)

    def release(self) -> None:
        self._closed = True
        if self.machine is not None:
            self.machine.release()

    def _make_untrusted(self, kind: StreamKind | None, type_bytes: int) -> StreamMachine | None:
        """Return the machine for a kind of stream, or None for a kind that has none in this direction."""
        raise NotImplementedError

    def _unknown(self, number: int) -> RemoteProtocolError:
        problem = f"a stream of unknown type {number:#x}"
        if self._session.dialect.features.unknown_stream_closes:
            return RemoteProtocolError(problem, code=SessionCode.PROTOCOL_VIOLATION)
        return RemoteProtocolError(problem, code=StreamCode.CANCELLED, scope="stream")


class IncomingBidi(IncomingStream):
    """A bidirectional stream that the peer opened."""

    _bidirectional = True

    def _make_untrusted(self, kind: StreamKind | None, type_bytes: int) -> StreamMachine | None:
        make = None if kind is None else _BIDIRECTIONAL.get(kind)
        return None if make is None else make(self._session)


class IncomingUni(IncomingStream):
    """A unidirectional stream that the peer opened."""

    _bidirectional = False

    def _make_untrusted(self, kind: StreamKind | None, type_bytes: int) -> StreamMachine | None:
        if kind is StreamKind.GROUP:
            return GroupReceiver(self._session, type_bytes)
        return SetupReceiver(self._session) if kind is StreamKind.SETUP else None


class SessionCore:
    """Both roles of one session: it makes requests of the peer, and answers the peer's.

    Each method that makes a machine allocates what the machine needs in the session (an id, a slot) at once, so the
    caller calls its `release()` when the stream is over, even if nothing was ever written. A version that lacks a
    kind of stream raises `LocalProtocolError` for it.

    Attributes:
        setup: This side's SETUP.
        dropped_datagrams: Datagrams that were dropped: undecodable, too long, or for no subscription.
    """

    _state_type: ClassVar[type[SessionState]] = SessionState

    def __init__(
        self,
        dialect: Dialect,
        *,
        is_client: bool,
        limits: Limits | None = None,
        setup: Setup | None = None,
        path_on_wire: bool = False,
        hop_id: int = 0,
        frames_apart: bool = False,
    ) -> None:
        """Make the core of a session that is just starting.

        Args:
            dialect: The version that was negotiated.
            is_client: True on the side that opened the session.
            limits: The bounds that the peer is held to.
            setup: What this side can do. Its hop id is that of the session when it has none of its own.
            path_on_wire: True where a client's SETUP may carry the request path: on raw QUIC, without a URI.
            hop_id: This side's hop id, by which it recognises its own announcements coming back; 0 for none.
            frames_apart: True for a caller that reads the frames of groups itself; see `GroupReceiver`.

        Raises:
            LocalProtocolError: The setup has a path or a role that this side may not send.
        """
        setup = setup if setup is not None else Setup()
        check_setup(setup, from_client=is_client, path_on_wire=path_on_wire)
        self.setup = setup if setup.hop_id else attrs.evolve(setup, hop_id=hop_id)
        self.dropped_datagrams = 0
        self._state = self._state_type(
            dialect=dialect,
            is_client=is_client,
            limits=limits if limits is not None else Limits(),
            path_on_wire=path_on_wire,
            hop_id=hop_id,
            frames_apart=frames_apart,
        )

    def __repr__(self) -> str:
        role = "client" if self.is_client else "server"
        ours, theirs = len(self._state.issued), len(self._state.peers)
        return f"<SessionCore {role} {self.dialect.name}: {ours} subscriptions of ours, {theirs} of the peer's>"

    @property
    def dialect(self) -> Dialect:
        """The version that the session speaks."""
        return self._state.dialect

    @property
    def is_client(self) -> bool:
        """True on the side that opened the session."""
        return self._state.is_client

    @property
    def limits(self) -> Limits:
        """The bounds that the peer is held to."""
        return self._state.limits

    @property
    def budget(self) -> MessageBudget:
        """Bounds the messages that the session's streams read at once."""
        return self._state.budget

    @property
    def hop_id(self) -> int:
        """This side's hop id; 0 for none."""
        return self._state.hop_id

    @property
    def peer_setup(self) -> Setup | None:
        """The peer's SETUP; None before it, and where the version has none."""
        return self._state.peer_setup

    @property
    def goaway_received(self) -> str | None:
        """The URI of the peer's GOAWAY, "" for an empty one or after a drain; None before either."""
        received = self._state.goaway_received
        return "" if received is None and self._state.drained else received

    def receive_drain(self) -> None:
        """Record that the transport (DRAIN_WEBTRANSPORT_SESSION) asks this side to end the session.

        A GOAWAY with a URI may still follow.
        """
        self._state.drained = True

    # -- streams that this side opens ----------------------------------------------------------------------

    @property
    def keeps_setup_stream(self) -> bool:
        """True when the stream of SETUP stays open, for a GOAWAY."""
        return False

    @property
    def requests(self) -> RequestsStream | None:
        """The control stream that all requests share; None where each has a stream of its own."""
        return None

    def setup_stream(self) -> bytes | None:
        """Return what this side's SETUP stream carries; None where the version has none."""
        if self.dialect.features.setup != "uni":
            return None
        return self.dialect.stream_type(StreamKind.SETUP) + self.dialect.encode(self.setup)

    def show_hidden(self) -> None:
        """Announce hidden paths to the peer, too, without being asked for them; call it before its first request."""
        self._state.shows_hidden = True

    @property
    def shows_hidden(self) -> bool:
        """True once `show_hidden` was called."""
        return self._state.shows_hidden

    @property
    def asks_hidden(self) -> bool:
        """True where the peer can be asked for hidden paths."""
        return False

    def request_announcements(self, prefix: BroadcastPath | str, *, hidden: bool = False) -> AnnounceRequester:
        """Request the announcements below a prefix; "" for everything.

        Raises:
            LocalProtocolError: Hidden ones are wanted, and the peer cannot be asked for them.
        """
        if hidden:
            raise no_words_for_hidden(self.dialect.name)
        return AnnounceRequester(self._state, prefix)

    def subscribe(
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
        """Subscribe to a track; the arguments are the fields of `Subscribe`. The id is in use when this returns.

        Raises:
            LocalProtocolError: The version cannot carry what is wanted.
        """
        if rendezvous_ms:
            raise LocalProtocolError(f"{self.dialect.name} has no subscriptions that wait for a track")
        if start != "latest_group":
            raise LocalProtocolError(f"{self.dialect.name} starts with the newest group, or with one that is named")
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
        return SubscribeRequester(self._state, BroadcastPath.parse(broadcast), track, wanted)

    def fetch(
        self,
        broadcast: BroadcastPath | str,
        track: str,
        group: int,
        *,
        priority: int = 0,
        start_frame: int = 0,
        end_frame: int | None = None,
    ) -> FetchRequester:
        """Fetch one group; the arguments are the fields of `Fetch`."""
        path = format_requested(broadcast, track, self.dialect, self.limits)
        return FetchRequester(self._state, Fetch(path, track, priority, group, start_frame, end_frame))

    def fetch_range(
        self,
        broadcast: BroadcastPath | str,
        track: str,
        start: tuple[int, int],
        end: tuple[int, int | None],
        *,
        priority: int = 0,
        descending: bool = False,
    ) -> RangeRequester:
        """Fetch from one frame to another, inclusive, each as its group and its index; None for the end of a group.

        Raises:
            LocalProtocolError: The version has no such fetch, or the range ends before it starts.
        """
        raise LocalProtocolError(f"{self.dialect.name} can fetch single groups only")

    def request_track_info(self, broadcast: BroadcastPath | str, track: str) -> TrackInfoRequester:
        """Request a track's properties."""
        return TrackInfoRequester(self._state, broadcast, track)

    def probe(self, bitrate: int | None = None) -> ProbeRequester:
        """Request the peer's estimates, with a target in bits per second or with none.

        Raises:
            LocalProtocolError: The version has no probes, or the peer's SETUP excludes them.
        """
        return ProbeRequester(self._state, bitrate)

    def goaway(self, uri: str = "", timeout_ms: int = 0) -> GoawaySender:
        """Send GOAWAY, once in a session; a server may name a URI. These versions do not carry a time to go by."""
        return GoawaySender(self._state, uri)

    def group(
        self, subscribe_id: int, sequence: int, start_frame: int = 0, subgroup: Subgroup | None = None
    ) -> GroupSender:
        """Deliver a group for a subscription that the peer made and that is not released.

        Args:
            subscribe_id: The subscription.
            sequence: The group's number.
            start_frame: The index of the first frame.
            subgroup: What else the header says, where the version has subgroups.
        """
        return GroupSender(self._state, subscribe_id, sequence, start_frame)

    def parked(self, subscribe_id: int) -> list[StreamMachine]:
        """Return the machines of groups that came before it was known that they belong to this subscription."""
        return []

    def parked_datagrams(self, subscribe_id: int) -> list[bytes]:
        """Return the datagrams that did, once; they are received again."""
        return []

    # -- streams that the peer opens -----------------------------------------------------------------------

    def accept_bidi(self) -> IncomingBidi:
        """Return the machine for a bidirectional stream that the peer opened."""
        return IncomingBidi(self._state)

    def accept_uni(self) -> IncomingUni:
        """Return the machine for a unidirectional stream that the peer opened."""
        return IncomingUni(self._state)

    # -- datagrams -----------------------------------------------------------------------------------------

    def datagram(
        self, subscribe_id: int, sequence: int, timestamp: int, payload: bytes, subgroup: Subgroup | None = None
    ) -> bytes:
        """Return a group of one frame as a datagram, for a subscription that the peer made.

        Args:
            subscribe_id: The subscription.
            sequence: The group's number.
            timestamp: The frame's.
            payload: Its payload; a `Frame` where it has a number and properties.
            subgroup: Its priority and whether it ends its group, where the version has that.

        Raises:
            LocalProtocolError: There is no such subscription, the version has no datagrams, or it is too long.
        """
        if subscribe_id not in self._state.peers:
            raise LocalProtocolError(f"the peer has no subscription {subscribe_id}")
        data = self.dialect.encode_datagram(Datagram(subscribe_id, sequence, timestamp, payload))
        if len(data) > MAX_DATAGRAM:
            raise LocalProtocolError(f"a datagram has at most {MAX_DATAGRAM} bytes, not {len(data)}")
        return data

    def receive_datagram(self, data: bytes) -> DatagramReceived | None:
        """Return what a datagram carries; None, and one more in `dropped_datagrams`, when it is of no use."""
        if self.dialect.features.datagrams and len(data) <= MAX_DATAGRAM:
            try:
                datagram = self.dialect.read_datagram_untrusted(data)
            except Malformed:
                pass
            else:
                if datagram.subscribe_id in self._state.issued:
                    frame = Frame(datagram.payload, datagram.timestamp)
                    return DatagramReceived(datagram.subscribe_id, datagram.sequence, frame)
        self.dropped_datagrams += 1
        return None
