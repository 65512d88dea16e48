"""The events that only the machines of moq-transport's drafts tell; `protocol/events.py` has the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from ...path import BroadcastPath
    from ...wire.messages import TrackInfo


@attrs.frozen
class PublishRequested:
    """The peer offers a track: a subscription to it, which waits to be accepted.

    Attributes:
        path: The broadcast's path; empty for one that no path can be.
        track: The track's name.
        newest: The place of the newest frame, its group and its index; None while there is none.
    """

    path: BroadcastPath
    track: str
    newest: tuple[int, int] | None


@attrs.frozen
class TracksRequested:
    """The peer asks for offers of the tracks below a prefix.

    Attributes:
        prefix: The prefix.
        forward: True when it wants what is published on them at once.
    """

    prefix: BroadcastPath
    forward: bool


@attrs.frozen
class TrackBlocked:
    """The peer has a track that it does not offer: no stream is left for it, or a filter excludes it."""

    path: BroadcastPath
    track: str


@attrs.frozen
class AliasShared:
    """The publisher has accepted a subscription under the alias of another one to the same track.

    What comes under the alias is the other's: this one gets nothing, and is to be cancelled.
    """


@attrs.frozen
class RequestUnsupported:
    """The peer's request asks for what this side does not do: it is to be refused."""


@attrs.frozen
class UpdateRefused:
    """The peer's update asks for what this side does not do: the subscription ends with it."""


@attrs.frozen
class UpdateAnswered:
    """The publisher has answered an update of ours.

    Attributes:
        newest: The place of the newest frame, where the publisher says so: its group and its index. None elsewhere.
    """

    newest: tuple[int, int] | None


@attrs.frozen
class TrackEnded:
    """A group's stream said where the track ends, and no frame before that.

    Attributes:
        subscribe_id: The subscription.
        group: The first group that does not exist.
    """

    subscribe_id: int
    group: int


@attrs.frozen
class PastRange:
    """Which of what a track has had is wanted.

    Attributes:
        start: The first frame, as its group and its index; or how many groups before the newest one it starts.
        end: The last frame, inclusive; without an index the whole group, None for the newest frame.
        descending: True for the newest group first.
    """

    start: tuple[int, int] | int
    end: tuple[int, int | None] | None
    descending: bool = False


@attrs.frozen
class FillRequested:
    """The peer wants something of the past of a track to which it is subscribed, with an update that follows.

    Attributes:
        request_id: The update's id, which the stream of the answer names.
        wanted: What it wants.
        priority: The subscriber's priority of it.
    """

    request_id: int
    wanted: PastRange
    priority: int


@attrs.frozen
class RangeRequested:
    """The peer fetches a range of a track.

    Attributes:
        path: The broadcast's path.
        track: The track's name.
        priority: 0 … 255, higher goes first.
        wanted: The range; None for one that lies in the future.
    """

    path: BroadcastPath
    track: str
    priority: int
    wanted: PastRange | None


@attrs.frozen
class JoinRequested:
    """The peer fetches what came before one of its subscriptions.

    Attributes:
        subscribe_id: The subscription. It may not have arrived yet.
        priority: 0 … 255, higher goes first.
        wanted: From where; the end, and the newest group, are those that the subscription began with.
    """

    subscribe_id: int
    priority: int
    wanted: PastRange


@attrs.frozen
class FetchAccepted:
    """The publisher will send a range that we fetch.

    Attributes:
        end: The last frame of it, inclusive; without an index its whole group.
        end_of_track: True when no frame comes after it.
    """

    end: tuple[int, int | None]
    end_of_track: bool


@attrs.frozen
class ReplyStarted:
    """The stream of a reply to one of our requests began.

    Attributes:
        request_id: The request.
    """

    request_id: int


@attrs.frozen
class TrackStatusReceived:
    """The peer says what it has of a track.

    Attributes:
        newest: The place of the newest frame, its group and its index; None while there is none.
        info: The track's properties; None where the version does not say them here.
    """

    newest: tuple[int, int] | None
    info: TrackInfo | None


@attrs.frozen
class RequestBytes:
    """A message about one request arrived on the control stream, for the request's virtual stream.

    Attributes:
        request_id: The request's id.
        data: The message.
        opens: True for the message that makes a request of the peer's.
        fin: True when nothing more will come for it.
        update: The id of the update that it is; None for another message.
    """

    request_id: int
    data: bytes
    opens: bool = False
    fin: bool = False
    update: int | None = None


@attrs.frozen
class RequestWithdrawn:
    """The peer has ended a request, its own or one that it accepted: its virtual stream is reset and stopped."""

    request_id: int


@attrs.frozen
class RequestsAllowed:
    """The peer allows further requests."""


@attrs.frozen
class ListAnswered:
    """The peer has accepted or refused to announce what is below a prefix for good (14).

    Attributes:
        prefix: What was asked for.
    """

    prefix: tuple[bytes, ...]
