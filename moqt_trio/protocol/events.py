"""What the session machines tell their driver: one value for each thing that happened on a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..frame import Frame
    from ..wire.dialect import Dialect
    from ..wire.messages import Fetch, Parameters, Setup, Subscribe, SubscribeUpdate, TrackInfo


def _with_timestamps(frames: Iterable[Frame]) -> list[tuple[bytes, int | None]]:
    """Return what makes frames equal here: as bytes they are equal whatever their timestamps."""
    return [(bytes(frame), frame.timestamp) for frame in frames]


@attrs.frozen
class SessionNegotiated:
    """The two sides agreed on a version, in the handshake of the versions up to moq-lite-02.

    Attributes:
        dialect: The version.
        path: The request target, `path?query` with one slash in front, that a client sent over raw QUIC; None for none.
        parameters: All parameters of the peer's message; None where it had not even their count.
    """

    dialect: Dialect
    path: str | None
    parameters: Parameters | None


@attrs.frozen
class BitrateReported:
    """The peer's estimate of the connection (SESSION_UPDATE).

    Attributes:
        bitrate: Bits per second; None when unknown.
    """

    bitrate: int | None


@attrs.frozen
class SessionStreamEnded:
    """The peer ended the stream of the handshake, and with it the session.

    Attributes:
        code: The reset's code; None for a FIN.
    """

    code: int | None


@attrs.frozen
class SetupReceived:
    """The peer's capabilities are known."""

    setup: Setup


@attrs.frozen
class AnnouncementsRequested:
    """The peer wants announcements below a prefix.

    Attributes:
        prefix: The prefix as it was spelled on the wire.
        exclude_hop: Announcements that passed this hop are not wanted; 0 for none.
        parameters: What gomoqt's develop version says beside that; None for nothing.
    """

    prefix: str
    exclude_hop: int
    parameters: Parameters | None = None


@attrs.frozen
class Announced:
    """The peer offers a broadcast.

    Attributes:
        path: The full path, canonical: parts joined by single slashes.
        hops: Hop ids from the origin to the peer, the peer's own included where it is known; 0 is unknown.
        warm_cost: As the peer gave it.
        cold_cost: As the peer gave it.
        initial: True when it belongs to the set that was there before we asked, as far as the version says.
        updated: True when the path was offered before, and this replaces what was known of it.
    """

    path: str
    hops: tuple[int, ...] = ()
    warm_cost: int = 0
    cold_cost: int = 0
    initial: bool = False
    updated: bool = False


@attrs.frozen
class Unannounced:
    """The peer no longer offers a broadcast. Subscriptions that run are not disturbed."""

    path: str


@attrs.frozen
class TrackAnnounced:
    """The peer offers one track of a broadcast, where the version announces tracks.

    The broadcast is offered from the first of its tracks on: its own `Announced` comes before.

    Attributes:
        path: The broadcast's path.
        track: The track's name.
    """

    path: str
    track: str


@attrs.frozen
class TrackUnannounced:
    """The peer no longer offers a track. Behind the last one of a broadcast comes the broadcast's own `Unannounced`."""

    path: str
    track: str


@attrs.frozen
class InitialAnnouncementsDone:
    """Everything that was there before we asked has been told; only in versions that say so."""


@attrs.frozen
class AnnouncementsEnded:
    """The peer finished the announce stream: what it announced there is gone, and nothing more will come."""


@attrs.frozen
class SubscribeRequested:
    """The peer asks for a track."""

    request: Subscribe


@attrs.frozen
class SubscribeUpdated:
    """The peer changed its subscription."""

    update: SubscribeUpdate


@attrs.frozen
class RequestCancelled:
    """The peer withdrew its request, by FIN or by reset.

    Attributes:
        code: The reset's code; None for a FIN.
    """

    code: int | None


@attrs.frozen
class SubscribeAccepted:
    """The publisher accepted.

    Attributes:
        start_group: The first group that will come; None where the version or the publisher does not say.
        latest_group: The newest group that the publisher has; None where the version or the publisher does not say.
    """

    start_group: int | None
    latest_group: int | None = None


@attrs.frozen
class SubscribeEnded:
    """The track ended: no group at or after `end_group` will come.

    Attributes:
        end_group: The first sequence that will never come; None where the version does not say.
    """

    end_group: int | None


@attrs.frozen
class GroupsDropped:
    """The publisher will not deliver some groups.

    Attributes:
        first: The first sequence.
        last: The last sequence, inclusive.
        code: Why; 0 for no particular reason.
    """

    first: int
    last: int
    code: int


@attrs.frozen
class RequestFinished:
    """The publisher has said all there is to say on this request (FIN)."""


@attrs.frozen
class RequestRefused:
    """The publisher gave our request up (reset, or STOP_SENDING before its answer)."""

    code: int


@attrs.frozen
class GroupStarted:
    """A group stream's header arrived.

    Attributes:
        subscribe_id: The subscription that it serves.
        sequence: The group's number.
        start_frame: The index of the first frame on this stream.
    """

    subscribe_id: int
    sequence: int
    start_frame: int


@attrs.define
class FramesReceived:
    """Frames arrived whole, in order.

    Attributes:
        frames: The frames.
        sizes: The bytes that each took on the stream: the credit to give back once it is read.
    """

    frames: list[Frame] = attrs.field(eq=_with_timestamps)
    sizes: list[int] = attrs.field(factory=list, eq=False)


@attrs.frozen
class GroupFinished:
    """The group is complete (FIN at a frame boundary)."""


@attrs.frozen
class GroupReset:
    """The publisher gave the group up."""

    code: int


@attrs.frozen
class FetchRequested:
    """The peer asks for one group."""

    request: Fetch


@attrs.frozen
class FetchUpdated:
    """The peer changed the priority of its fetch."""

    priority: int


@attrs.frozen
class TrackInfoRequested:
    """The peer asks for a track's properties."""

    broadcast: str
    track: str


@attrs.frozen
class TrackInfoReceived:
    """The properties that we asked for."""

    info: TrackInfo


@attrs.frozen
class ProbeRequested:
    """The peer wants to know our estimate, or set a target.

    Attributes:
        bitrate: The target in bits per second; None for none.
    """

    bitrate: int | None


@attrs.frozen
class ProbeReported:
    """The publisher's estimate.

    Attributes:
        bitrate: Bits per second; None when unknown.
        rtt_ms: The smoothed round trip in milliseconds; None when unknown.
    """

    bitrate: int | None
    rtt_ms: int | None


@attrs.frozen
class GoawayReceived:
    """The peer asks us to leave.

    Attributes:
        uri: Where to go instead; empty for nowhere in particular.
    """

    uri: str


@attrs.frozen
class DatagramReceived:
    """A group of one frame came as a datagram, for a subscription that exists."""

    subscribe_id: int
    sequence: int
    frame: Frame = attrs.field(eq=lambda frame: (bytes(frame), frame.timestamp))


Event: TypeAlias = (
    SessionNegotiated
    | BitrateReported
    | SessionStreamEnded
    | SetupReceived
    | AnnouncementsRequested
    | Announced
    | Unannounced
    | InitialAnnouncementsDone
    | AnnouncementsEnded
    | TrackAnnounced
    | TrackUnannounced
    | SubscribeRequested
    | SubscribeUpdated
    | RequestCancelled
    | SubscribeAccepted
    | SubscribeEnded
    | GroupsDropped
    | RequestFinished
    | RequestRefused
    | GroupStarted
    | FramesReceived
    | GroupFinished
    | GroupReset
    | FetchRequested
    | FetchUpdated
    | TrackInfoRequested
    | TrackInfoReceived
    | ProbeRequested
    | ProbeReported
    | GoawayReceived
    | DatagramReceived
)
