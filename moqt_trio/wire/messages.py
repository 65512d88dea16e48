"""The messages of every dialect, as values.

One set of messages serves every wire version. A codec (`lite/`, `transfork/`) writes what its version can carry and
reads what the message has; a field that a version lacks has the default given here. The layout of each version is in
the docstring of the codec's function.

Units: `*_ms` are milliseconds, `*_frame` and `*_group` are absolute indices, and an `end_*` is inclusive
(the wire's "+1" or exclusive forms stay in the codec). `None` means that the field is absent.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import attrs


class StreamKind(enum.Enum):
    """What a stream carries. Its number on the wire depends on the dialect, as its name does: INFO is `TRACK`.

    A fetch of one group is answered on its own stream (`FETCH`); one of any range (`RANGE`, moq-transport) has its
    objects on another (`REPLY`).
    """

    SESSION = "session"
    ANNOUNCE = "announce"
    SUBSCRIBE = "subscribe"
    FETCH = "fetch"
    RANGE = "range"
    REPLY = "reply"
    PROBE = "probe"
    GOAWAY = "goaway"
    TRACK = "track"
    GROUP = "group"
    SETUP = "setup"
    PUBLISH = "publish"
    TRACKS = "tracks"


class Expect(enum.Enum):
    """The message that a reader expects next; each place in a stream has one set of possible messages."""

    SESSION_UPDATE = "SESSION_UPDATE"
    SETUP = "SETUP"
    ANNOUNCE_REQUEST = "ANNOUNCE_REQUEST"
    ANNOUNCE_FIRST_REPLY = "ANNOUNCE_FIRST_REPLY"
    ANNOUNCE_REPLY = "ANNOUNCE_REPLY"
    SUBSCRIBE = "SUBSCRIBE"
    SUBSCRIBE_UPDATE = "SUBSCRIBE_UPDATE"
    SUBSCRIBE_FIRST_REPLY = "SUBSCRIBE_FIRST_REPLY"
    SUBSCRIBE_REPLY = "SUBSCRIBE_REPLY"
    GROUP = "GROUP"
    FETCH = "FETCH"
    FETCH_UPDATE = "FETCH_UPDATE"
    FETCH_REPLY = "FETCH_REPLY"
    TRACK_REQUEST = "TRACK_REQUEST"
    TRACK_INFO = "TRACK_INFO"
    PROBE = "PROBE"
    GOAWAY = "GOAWAY"


class Message:
    """The base of every message value."""

    __slots__ = ()


class ProbeLevel(enum.IntEnum):
    """What a publisher can do on a probe stream (moq-lite-06, section 7.3.1)."""

    NONE = 0
    REPORT = 1
    INCREASE = 2


class Role(enum.IntEnum):
    """Whether a client will publish, subscribe or both (moq-lite-06, section 7.3.3)."""

    BOTH = 0
    PUBLISHER = 1
    SUBSCRIBER = 2


Parameters: TypeAlias = tuple[tuple[int, "int | bytes"], ...]
"""Parameters of a handshake, as `(id, value)` in the order of the wire; a number where the form says that it is one."""


@attrs.frozen
class SessionClient(Message):
    """Opens the handshake of the versions up to moq-lite-02.

    Attributes:
        versions: The numbers of the versions that the client speaks, best first.
        parameters: The client's parameters; None where the message ends before their count (develop).
    """

    versions: tuple[int, ...]
    parameters: Parameters | None = ()


@attrs.frozen
class SessionServer(Message):
    """Answers `SessionClient` with the number of the version that the server chose."""

    version: int
    parameters: Parameters | None = ()


@attrs.frozen
class SessionUpdate(Message):
    """The sender's estimate of the connection in bits per second; None for unknown (up to moq-lite-02)."""

    bitrate: int | None = None


@attrs.frozen
class Token:
    """An authorization token: what a client shows in its SETUP (IETF).

    Attributes:
        value: The token itself, which is left out of the repr.
        kind: The token's type, as IANA numbers them; 0 when both sides know it otherwise.
    """

    value: bytes = attrs.field(repr=False)
    kind: int = 0


@attrs.frozen
class Setup(Message):
    """Capabilities of one side (moq-lite-05 and later).

    Attributes:
        probe: What the sender does on probe streams.
        path: The request target, `path?query`; clients on raw QUIC only.
        role: Whether a client will publish, subscribe or both.
        cost: What subscribing from the sender costs; None when the field is absent (which means 1).
        hop_id: The sender's hop id; 0 for none.
        tokens: The sender's authorization tokens (IETF).
        unknown: Parameters that this library does not know, as `(id, value)`; read, never written.
    """

    probe: ProbeLevel = ProbeLevel.NONE
    path: str | None = None
    role: Role = Role.BOTH
    cost: int | None = None
    hop_id: int = 0
    unknown: tuple[tuple[int, bytes], ...] = ()
    tokens: tuple[Token, ...] = ()


@attrs.frozen
class AnnounceRequest(Message):
    """Requests the announcements under a prefix. `exclude_hop` is 0 for none (moq-lite-04 and -05 only).

    `parameters`, here and below, are what gomoqt's develop version adds to some messages: as bytes, None for none.
    """

    prefix: str
    exclude_hop: int = 0
    parameters: Parameters | None = None


@attrs.frozen
class AnnounceInit(Message):
    """The broadcasts that were active when the announce stream was opened (moq-lite-01 and -02)."""

    suffixes: tuple[str, ...]


@attrs.frozen
class AnnounceOk(Message):
    """Opens the replies of an announce stream (moq-lite-05 and later)."""

    hop_id: int
    active_count: int


@attrs.frozen
class AnnounceStart(Message):
    """A broadcast (in moq-lite-06: a route) is available.

    Attributes:
        suffix: What follows the requested prefix.
        hops: Hop ids from the origin on; 0 for an unknown hop. moq-lite-03 carries only their count.
        warm_cost: What subscribing costs (moq-lite-06).
        cold_cost: The same without any discount for a cached copy (moq-lite-06).
        restart: True for the explicit restart status of moq-lite-05 (status 2): read, never written.
    """

    suffix: str
    hops: tuple[int, ...] = ()
    warm_cost: int = 0
    cold_cost: int = 0
    restart: bool = False
    parameters: Parameters | None = None


@attrs.frozen
class AnnounceUpdate(Message):
    """An announcement has new hops or costs (moq-lite-06)."""

    announce_id: int
    hops: tuple[int, ...] = ()
    warm_cost: int = 0
    cold_cost: int = 0


@attrs.frozen
class AnnounceEnd(Message):
    """A broadcast is no longer available; named by id in moq-lite-06, by suffix before.

    `hops` is what moq-lite-03 to -05 carry along with an ended status, as they encode one layout for both.
    """

    announce_id: int | None = None
    suffix: str | None = None
    hops: tuple[int, ...] = ()
    parameters: Parameters | None = None


@attrs.frozen
class AnnounceLive(Message):
    """The initial set has been announced (moq-transfork-03 and develop).

    Attributes:
        parameters: What develop adds at its end; None for nothing.
        suffix_written: False where the field of the suffix was left out of develop's message, as gomoqt does.
    """

    parameters: Parameters | None = None
    suffix_written: bool = attrs.field(default=True, eq=False)


@attrs.frozen
class Subscribe(Message):
    """Subscribes to the groups of one track.

    Attributes:
        subscribe_id: Chosen by the subscriber, never used twice in a session.
        broadcast: The broadcast's path.
        track: The track's name.
        priority: 0 … 255, higher goes first.
        ordered: True for groups in sequence order, False for newest first (absent from moq-lite-06), None to
            leave it to the publisher (before moq-lite).
        max_age_ms: How old a group that is not the latest may get before it is dropped.
        start_group: The first group wanted; None for the latest (up to moq-lite-05) or for no lower bound (-06).
        end_group: The last group wanted, inclusive; None for no end.
        start_frame: The first frame wanted of `start_group` (moq-lite-06).
        end_frame: The last frame wanted of `end_group`, inclusive; None for all of it (moq-lite-06).
        forward: False to be sent nothing for now (IETF).
        delivery_timeout_ms: How old a frame may get before its group is given up; 0 for no bound (IETF).
        rendezvous_ms: How long the request waits for a track that is not there; 0 for not at all (IETF).
    """

    subscribe_id: int
    broadcast: str
    track: str
    priority: int = 0
    ordered: bool | None = False
    max_age_ms: int = 0
    start_group: int | None = None
    end_group: int | None = None
    start_frame: int = 0
    end_frame: int | None = None
    parameters: Parameters | None = None
    forward: bool = True
    delivery_timeout_ms: int = 0
    rendezvous_ms: int = 0


@attrs.frozen
class SubscribeUpdate(Message):
    """Changes a subscription; the fields are those of `Subscribe`.

    In moq-transfork-03 None leaves a bound of the range as it is; elsewhere it lifts the bound.

    Attributes:
        restart: True when it says anew where delivery starts (IETF), as the end of a pause may.
    """

    priority: int = 0
    ordered: bool | None = False
    max_age_ms: int = 0
    start_group: int | None = None
    end_group: int | None = None
    start_frame: int = 0
    end_frame: int | None = None
    parameters: Parameters | None = None
    forward: bool = True
    delivery_timeout_ms: int = 0
    restart: bool = False


@attrs.frozen
class SubscribeOk(Message):
    """Accepts a subscription.

    Attributes:
        start_group: The first group that will be sent; None when it is not named.
        priority, ordered, max_age_ms, end_group: The publisher's values (moq-lite-03 and -04; -01 has the priority,
            and the versions before moq-lite all but the last).
        latest_group: The newest group that the publisher has (before moq-lite); written as `start_group` when None.
        newest: The newest frame that the publisher has, as its group and its index (moq-transport).
        info: The track's properties, where they come with this message; None elsewhere.
    """

    start_group: int | None = None
    priority: int = 0
    ordered: bool | None = False
    max_age_ms: int = 0
    end_group: int | None = None
    latest_group: int | None = None
    newest: tuple[int, int] | None = None
    info: TrackInfo | None = attrs.field(default=None, eq=False)


@attrs.frozen
class SubscribeEnd(Message):
    """No group at or after `group` will be sent; 0 when none ever was (moq-lite-05 and later)."""

    group: int


@attrs.frozen
class SubscribeDrop(Message):
    """The groups `start` to `end`, inclusive, will not be sent."""

    start: int
    end: int
    code: int = 0


@attrs.frozen
class Group(Message):
    """Heads a group stream; `start_frame` is the index of the first frame on it (moq-lite-06)."""

    subscribe_id: int
    sequence: int
    start_frame: int = 0


@attrs.frozen
class Fetch(Message):
    """Fetches one group.

    Attributes:
        subscribe_id: develop only.
        start_frame: The first frame wanted (before moq-lite, and moq-lite-06).
        end_frame: The last frame wanted, inclusive; None for the whole group (moq-lite-06).
    """

    broadcast: str
    track: str
    priority: int
    group: int
    start_frame: int = 0
    end_frame: int | None = None
    subscribe_id: int = 0


@attrs.frozen
class FetchUpdate(Message):
    """Changes the priority of a fetch (before moq-lite)."""

    priority: int


@attrs.frozen
class TrackRequest(Message):
    """Requests a track's properties (moq-lite-05 and later: TRACK; before moq-lite: INFO_PLEASE)."""

    broadcast: str
    track: str


@attrs.frozen
class TrackInfo(Message):
    """A track's properties, fixed for its life, but for the latest group (before moq-lite: INFO).

    Attributes:
        priority: The publisher's priority, 0 … 255; it decides ties.
        ordered: True when the publisher prefers sequence order (moq-lite-05), None when it leaves that open (before).
        max_age_ms: How long the publisher keeps a group that is not the latest.
        timescale: Timestamp units per second; at least 1.
        latest_group: The newest group that there is (before moq-lite); None for none or unknown.
        properties: What moq-transport has beside that, as `(type, value)`.
    """

    priority: int = 0
    ordered: bool | None = False
    max_age_ms: int = 0
    timescale: int = 1000
    latest_group: int | None = None
    properties: Parameters = ()


@attrs.frozen
class Probe(Message):
    """A bit rate in bits per second (a target from the subscriber, an estimate from the publisher) and a round trip."""

    bitrate: int | None = None
    rtt_ms: int | None = None


@attrs.frozen
class Goaway(Message):
    """Asks the peer to end the session, and to connect to the URI instead if it is not empty."""

    uri: str = ""


@attrs.frozen
class Datagram(Message):
    """A group of one frame, sent without a stream (moq-lite-05 and later)."""

    subscribe_id: int
    sequence: int
    timestamp: int
    payload: bytes
