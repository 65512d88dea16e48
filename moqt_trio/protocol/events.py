"""What happened on a stream, as its machine says it.

Where a message says all there is to say, the message itself is the event: `SubscribeOk`, `SubscribeUpdate`, `Setup`
and the others in `Event`, with the fields that the wire had. The classes here are for the rest: what a stream's end
means, and what names a path, which is decoded once and is a `BroadcastPath` from here on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import attrs

from ..wire.messages import (
    FetchUpdate,
    Goaway,
    Probe,
    SessionUpdate,
    Setup,
    SubscribeDrop,
    SubscribeEnd,
    SubscribeOk,
    SubscribeUpdate,
    TrackInfo,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..frame import Frame
    from ..path import BroadcastPath
    from ..wire.dialect import Dialect
    from ..wire.messages import AnnounceRequest, Fetch, Parameters, Subscribe


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
class SessionStreamEnded:
    """The peer ended the stream of the handshake, and with it the session.

    Attributes:
        code: The reset's code; None for a FIN.
    """

    code: int | None


@attrs.frozen
class AnnouncementsRequested:
    """The peer wants announcements below a prefix.

    Attributes:
        prefix: The prefix.
        request: The message, with the prefix as the peer wrote it.
    """

    prefix: BroadcastPath
    request: AnnounceRequest


@attrs.frozen
class Announced:
    """The peer offers a broadcast.

    Attributes:
        path: The full path.
        hops: Hop ids from the origin to the peer, the peer's own included where it is known; 0 is unknown.
        warm_cost: As the peer gave it.
        cold_cost: As the peer gave it.
        initial: True when it belongs to the set that was there before we asked, as far as the version says.
        updated: True when the path was offered before, and this replaces what was known of it.
    """

    path: BroadcastPath
    hops: tuple[int, ...] = ()
    warm_cost: int = 0
    cold_cost: int = 0
    initial: bool = False
    updated: bool = False


@attrs.frozen
class Unannounced:
    """The peer no longer offers a broadcast. Subscriptions that run are not disturbed."""

    path: BroadcastPath


@attrs.frozen
class TrackAnnounced:
    """The peer offers one track of a broadcast, where the version announces tracks.

    The broadcast is offered from the first of its tracks on: its own `Announced` comes before.

    Attributes:
        path: The broadcast's path.
        track: The track's name.
    """

    path: BroadcastPath
    track: str


@attrs.frozen
class TrackUnannounced:
    """The peer no longer offers a track. The broadcast's own `Unannounced` follows the last one of a broadcast."""

    path: BroadcastPath
    track: str


@attrs.frozen
class InitialAnnouncementsDone:
    """Everything that was available before we asked was announced; only in versions that say so."""


@attrs.frozen
class AnnouncementsEnded:
    """The peer finished the announce stream: what it announced there is gone, and nothing more will come."""


@attrs.frozen
class SubscribeRequested:
    """The peer asks for a track.

    Attributes:
        path: The broadcast's path.
        request: The message, with the path as the peer wrote it.
    """

    path: BroadcastPath
    request: Subscribe


@attrs.frozen
class RequestCancelled:
    """The peer cancelled its request, by FIN or by reset.

    Attributes:
        code: The reset's code; None for a FIN.
    """

    code: int | None


@attrs.frozen
class RequestFinished:
    """The publisher has sent everything on this request (FIN)."""


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
    """The peer asks for one group.

    Attributes:
        path: The broadcast's path.
        request: The message, with the path as the peer wrote it.
    """

    path: BroadcastPath
    request: Fetch


@attrs.frozen
class TrackInfoRequested:
    """The peer asks for a track's properties."""

    path: BroadcastPath
    track: str


@attrs.frozen
class DatagramReceived:
    """A group of one frame came as a datagram, for a subscription that exists."""

    subscribe_id: int
    sequence: int
    frame: Frame = attrs.field(eq=lambda frame: (bytes(frame), frame.timestamp))


Event: TypeAlias = (
    SessionNegotiated
    | SessionUpdate
    | SessionStreamEnded
    | Setup
    | AnnouncementsRequested
    | Announced
    | Unannounced
    | InitialAnnouncementsDone
    | AnnouncementsEnded
    | TrackAnnounced
    | TrackUnannounced
    | SubscribeRequested
    | SubscribeUpdate
    | RequestCancelled
    | SubscribeOk
    | SubscribeEnd
    | SubscribeDrop
    | RequestFinished
    | RequestRefused
    | GroupStarted
    | FramesReceived
    | GroupFinished
    | GroupReset
    | FetchRequested
    | FetchUpdate
    | TrackInfoRequested
    | TrackInfo
    | Probe
    | Goaway
    | DatagramReceived
)
