"""The control messages of moq-transport, as values.

One set serves every draft. Up to draft 16 a reply names its request: `request_id`. From 17 on the stream says which it
is, and the field is None. A field that a draft lacks has its default.

Spec: draft-ietf-moq-transport-14 to -19, section 9.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import attrs

from ..messages import Message
from .parameters import NONE, Parameters

if TYPE_CHECKING:
    from .filters import Filter
    from .names import Namespace, TrackName
    from .properties import Pairs

UNKNOWN_STREAMS: Final = ((1 << 62) - 1, (1 << 64) - 1)
"""Stream counts of PUBLISH_DONE that mean that the publisher does not know."""


class Option(enum.IntEnum):
    """The options of SETUP. HIDDEN is that of an extension (draft-lcurley-moq-hidden-00)."""

    PATH = 1
    MAX_REQUEST_ID = 2
    AUTHORIZATION_TOKEN = 3
    MAX_AUTH_TOKEN_CACHE_SIZE = 4
    AUTHORITY = 5
    MAX_FILTER_RANGES = 6
    MOQT_IMPLEMENTATION = 7
    MAX_REQUEST_UPDATES = 8
    HIDDEN = 0x40B5C


@attrs.frozen
class ClientSetup(Message):
    """Opens the control stream (up to 16). `versions` are the numbers that the client speaks (14)."""

    options: Pairs
    versions: tuple[int, ...] = ()


@attrs.frozen
class ServerSetup(Message):
    """Answers `ClientSetup`. `version` is the number that the server chose (14)."""

    options: Pairs
    version: int | None = None


@attrs.frozen
class Setup(Message):
    """Opens a side's control stream (from 17 on)."""

    options: Pairs


@attrs.frozen
class Goaway(Message):
    """Asks the peer to go, to another URI if there is one.

    Attributes:
        uri: Where to; empty for the same one.
        timeout_ms: When the session is closed (from 17 on); 0 for an open end.
        request_id: The first request that was not processed (18); None without one.
    """

    uri: str = ""
    timeout_ms: int = 0
    request_id: int | None = None


@attrs.frozen
class MaxRequestId(Message):
    """The first request id that the peer may not use yet (up to 16)."""

    limit: int


@attrs.frozen
class RequestsBlocked(Message):
    """The limit that keeps the peer from a request (up to 16)."""

    limit: int


@attrs.frozen
class Subscribe(Message):
    """Subscribes to a track."""

    request_id: int
    track: TrackName
    parameters: Parameters = NONE


@attrs.frozen
class TrackStatus(Message):
    """Asks what SUBSCRIBE_OK would say."""

    request_id: int
    track: TrackName
    parameters: Parameters = NONE


@attrs.frozen
class SubscribeOk(Message):
    """Accepts a subscription, whose objects carry the alias."""

    request_id: int | None
    alias: int
    parameters: Parameters = NONE
    properties: Pairs = ()


class Answered(enum.Enum):
    """What an acceptance or a refusal answers. Only draft 14 has a message for each."""

    ANY = "any request"
    SUBSCRIBE = "SUBSCRIBE"
    PUBLISH = "PUBLISH"
    FETCH = "FETCH"
    TRACK_STATUS = "TRACK_STATUS"
    PUBLISH_NAMESPACE = "PUBLISH_NAMESPACE"
    SUBSCRIBE_NAMESPACE = "SUBSCRIBE_NAMESPACE"


@attrs.frozen
class TrackStatusOk(Message):
    """Answers TRACK_STATUS (14)."""

    request_id: int
    parameters: Parameters = NONE


@attrs.frozen
class RequestOk(Message):
    """Accepts a request. `properties` are those of a track (from 18 on)."""

    request_id: int | None
    parameters: Parameters = NONE
    properties: Pairs = ()
    answered: Answered = Answered.ANY


@attrs.frozen
class Redirect:
    """Where a refused request may be made; what is empty stays as it was."""

    uri: str
    track: TrackName


@attrs.frozen
class RequestError(Message):
    """Refuses a request.

    Attributes:
        code: Why; each draft has numbers of its own.
        reason: For people.
        retry_ms: When it may be made again (from 16 on); None for never.
        redirect: Where it may be made (from 18 on).
        answered: What it refuses (14).
    """

    request_id: int | None
    code: int
    reason: str = ""
    retry_ms: int | None = None
    redirect: Redirect | None = None
    answered: Answered = Answered.ANY


@attrs.frozen
class RequestUpdate(Message):
    """Changes a request: SUBSCRIBE_UPDATE up to 15. What is not named stays.

    Attributes:
        request_id: Of this message, which has one of its own.
        existing_id: Of the request that it changes; None from 17 on.
    """

    request_id: int
    existing_id: int | None
    parameters: Parameters = NONE


@attrs.frozen
class Unsubscribe(Message):
    """Ends a subscription, as its subscriber (up to 16)."""

    request_id: int


@attrs.frozen
class PublishDone(Message):
    """Ends a subscription, as its publisher. `streams` is how many were opened for it."""

    request_id: int | None
    status: int
    streams: int
    reason: str = ""


@attrs.frozen
class Publish(Message):
    """Offers a track: a subscription that its publisher opens."""

    request_id: int
    track: TrackName
    alias: int
    parameters: Parameters = NONE
    properties: Pairs = ()


@attrs.frozen
class PublishOk(Message):
    """Accepts PUBLISH (up to 17)."""

    request_id: int | None
    parameters: Parameters = NONE


@attrs.frozen
class Joining:
    """The range of a joining fetch: from `start` up to where a subscription began (up to 19).

    Attributes:
        request_id: The subscription.
        start: Groups back from the subscription's first, or the number of a group.
        absolute: True for the number of a group.
    """

    request_id: int
    start: int
    absolute: bool = False


@attrs.frozen
class Fetch(Message):
    """Fetches objects of the past.

    Attributes:
        track: The track; None for a joining fetch, which has that of its subscription.
        range: What of it, up to 19: a filter from a location to an inclusive end, or a joining range. None from 20 on,
            where it is in the parameters.
    """

    request_id: int
    track: TrackName | None
    range: Filter | Joining | None = None
    parameters: Parameters = NONE


@attrs.frozen
class FetchOk(Message):
    """Accepts a fetch.

    Attributes:
        end_of_track: True when the last object of the track is in it.
        end_group: The last group.
        end_object: The last object of it, inclusive; None for all of them.
    """

    request_id: int | None
    end_of_track: bool
    end_group: int
    end_object: int | None
    parameters: Parameters = NONE
    properties: Pairs = ()


@attrs.frozen
class FetchCancel(Message):
    """Ends a fetch (up to 16)."""

    request_id: int


@attrs.frozen
class PublishNamespace(Message):
    """Announces a namespace."""

    request_id: int
    namespace: Namespace
    parameters: Parameters = NONE


@attrs.frozen
class PublishNamespaceDone(Message):
    """Ends an announcement (up to 16); 14 and 15 name the namespace, 16 the request."""

    request_id: int | None
    namespace: Namespace | None = None


@attrs.frozen
class PublishNamespaceCancel(Message):
    """Ends an announcement that was accepted (up to 16); 14 and 15 name the namespace, 16 the request."""

    request_id: int | None
    namespace: Namespace | None
    code: int
    reason: str = ""


class NamespaceOptions(enum.IntEnum):
    """How a namespace subscription is told (16, 17)."""

    TRACKS = 0
    """By PUBLISH."""
    NAMESPACES = 1
    """By NAMESPACE."""
    BOTH = 2


@attrs.frozen
class SubscribeNamespace(Message):
    """Asks which namespaces there are below a prefix."""

    request_id: int
    prefix: Namespace
    options: NamespaceOptions | None = None
    parameters: Parameters = NONE


@attrs.frozen
class UnsubscribeNamespace(Message):
    """Ends a namespace subscription: 14 names the prefix, 15 the request."""

    request_id: int | None
    prefix: Namespace | None = None


@attrs.frozen
class SubscribeTracks(Message):
    """Asks for the tracks below a prefix, which are offered by PUBLISH (from 18 on)."""

    request_id: int
    prefix: Namespace
    parameters: Parameters = NONE


@attrs.frozen
class NamespaceFound(Message):
    """A namespace is there: NAMESPACE. The suffix follows the prefix that was asked for.

    `parameters` are moq-rs's own: its hops and costs.
    """

    suffix: Namespace
    parameters: Parameters = NONE


@attrs.frozen
class NamespaceDone(Message):
    """It is there no more."""

    suffix: Namespace


@attrs.frozen
class PublishBlocked(Message):
    """A track is not offered: no stream is left for it, or, from 19 on (PUBLISH_SKIPPED), a filter excludes it."""

    suffix: Namespace
    name: bytes


@attrs.frozen
class PublishStateNotify(Message):
    """What changed for a subscription (from 20 on)."""

    parameters: Parameters = NONE
