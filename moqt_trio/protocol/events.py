"""The events of the machines: what happened on a stream.

A message is its own event when nothing is to be added: `SubscribeOk`, `SubscribeUpdate`, `Setup` and the others in
`Event`, with the fields of the wire. The classes here are for the rest: ends of streams, and messages that name a path,
which is decoded once and is a `BroadcastPath` from here on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

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
from .ietf.events import (
    AliasShared,
    FetchAccepted,
    FillRequested,
    JoinRequested,
    ListAnswered,
    PublishRequested,
    RangeRequested,
    ReplyStarted,
    RequestBytes,
    RequestsAllowed,
    RequestUnsupported,
    RequestWithdrawn,
    TrackBlocked,
    TrackEnded,
    TracksRequested,
    TrackStatusReceived,
    UpdateAnswered,
    UpdateRefused,
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
    """The peer requests the announcements below a prefix.

    Attributes:
        prefix: The prefix.
        request: The message, with the prefix as the peer wrote it.
    """

    prefix: BroadcastPath
    request: AnnounceRequest


@attrs.frozen
class Announced:
    """The peer announces a broadcast, or changes its announcement.

    Attributes:
        path: The full path.
        hops: Hop ids from the origin to the peer, the peer's own included where it is known; 0 is unknown.
        warm_cost: What subscribing costs, as the peer gave it.
        cold_cost: The same without any discount for a cached copy.
        initial: True when it belongs to the initial set, as far as the version marks it.
        updated: True when the path is announced already, and this replaces its hops and costs.
    """

    path: BroadcastPath
    hops: tuple[int, ...] = ()
    warm_cost: int = 0
    cold_cost: int = 0
    initial: bool = False
    updated: bool = False


@attrs.frozen
class Unannounced:
    """The peer unannounces a broadcast. Running subscriptions go on."""

    path: BroadcastPath


@attrs.frozen
class TrackAnnounced:
    """The peer announces one track of a broadcast, where the version announces tracks.

    The broadcast's own `Announced` comes before its first track.

    Attributes:
        path: The broadcast's path.
        track: The track's name.
    """

    path: BroadcastPath
    track: str


@attrs.frozen
class TrackUnannounced:
    """The peer unannounces a track. The broadcast's own `Unannounced` follows its last track."""

    path: BroadcastPath
    track: str


@attrs.frozen
class InitialAnnouncementsDone:
    """The initial set has been announced; only in versions that mark it."""


@attrs.frozen
class AnnouncementsEnded:
    """The peer finished the announce stream: its announcements there have ended, and no more will arrive."""


@attrs.frozen
class SubscribeRequested:
    """The peer subscribes to a track.

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
    """The publisher has finished this request (FIN).

    Attributes:
        streams: How many streams of groups of a subscription are still to come; None where it does not say.
    """

    streams: int | None = None


@attrs.frozen
class RequestRefused:
    """The publisher refused or ended our request (reset, or STOP_SENDING before its answer)."""

    code: int


@attrs.define
class GroupStarted:
    """A group stream's header arrived.

    Attributes:
        subscribe_id: The subscription of the group.
        sequence: The group's number.
        start_frame: The index of the first frame on this stream.
        whole: False when it is not known to be the group's first frame, or that of the subgroup.
        subgroup: Which of the group's subgroups it is, in the versions that have them.
        priority: The publisher's, 0 … 255, higher goes first; None for the track's.
        ends_group: True when the last frame on the stream is the last one of the group.
    """

    subscribe_id: int
    sequence: int
    start_frame: int
    whole: bool = True
    subgroup: int = 0
    priority: int | None = None
    ends_group: bool = True


@attrs.define
class FramesReceived:
    """Frames arrived whole, in order.

    Attributes:
        frames: The frames.
        sizes: The bytes that each took on the stream: the credit to return once it is read.
    """

    frames: list[Frame] = attrs.field(eq=_with_timestamps)
    sizes: list[int] = attrs.field(factory=list, eq=False)


@attrs.frozen
class GroupFinished:
    """The group is complete (FIN at a frame boundary)."""


@attrs.frozen
class GroupReset:
    """The publisher reset the group."""

    code: int


@attrs.frozen
class FetchRequested:
    """The peer fetches one group.

    Attributes:
        path: The broadcast's path.
        request: The message, with the path as the peer wrote it.
    """

    path: BroadcastPath
    request: Fetch


@attrs.frozen
class TrackInfoRequested:
    """The peer requests a track's properties."""

    path: BroadcastPath
    track: str


@attrs.frozen
class DatagramReceived:
    """A frame arrived as a datagram, for a subscription that exists.

    By itself it is a group, but in the versions in which frames have numbers.

    Attributes:
        subscribe_id: The subscription.
        sequence: The group's number.
        frame: The frame.
        priority: The publisher's, 0 … 255, higher goes first; None for the track's.
        ends_group: True for the last frame of its group.
        end: What it says instead: the `frame` and those behind it do not exist, in the `"group"` or in the `"track"`.
            None for a frame that exists.
    """

    subscribe_id: int
    sequence: int
    frame: Frame = attrs.field(eq=lambda frame: (bytes(frame), frame.timestamp))
    priority: int | None = None
    ends_group: bool = True
    end: Literal["group", "track"] | None = None


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
    | PublishRequested
    | TracksRequested
    | TrackBlocked
    | FillRequested
    | UpdateRefused
    | UpdateAnswered
    | RequestCancelled
    | RequestUnsupported
    | AliasShared
    | SubscribeOk
    | SubscribeEnd
    | SubscribeDrop
    | RequestFinished
    | RequestRefused
    | GroupStarted
    | FramesReceived
    | GroupFinished
    | TrackEnded
    | GroupReset
    | FetchRequested
    | RangeRequested
    | JoinRequested
    | FetchAccepted
    | ReplyStarted
    | FetchUpdate
    | TrackInfoRequested
    | TrackInfo
    | TrackStatusReceived
    | Probe
    | Goaway
    | DatagramReceived
    | RequestBytes
    | RequestWithdrawn
    | RequestsAllowed
    | ListAnswered
)
