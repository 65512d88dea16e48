"""For the tests of hostile bytes: every version, every place in a stream where it reads, and its vectors.

A `Place` is where a message is due: it makes the machine that reads there, with everything in front already read.
The bytes come from the vectors, so nothing here depends on what this library writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

import moqt_trio.wire  # noqa: F401  (registers the versions)
from moqt_trio.errors import RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.protocol.core import SessionCore
from moqt_trio.protocol.events import Event
from moqt_trio.protocol.handshake import ClientHandshake, ServerHandshake
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.handshake import HandshakeForm
from moqt_trio.wire.messages import Expect, StreamKind
from tests.protocol.harness import merged

if TYPE_CHECKING:
    from moqt_trio.protocol.machine import StreamMachine
    from moqt_trio.wire.dialect import Dialect

NAMES = (
    "moq-lite-06",
    "moq-lite-06-wip",
    "moq-lite-05",
    "moq-lite-04",
    "moq-lite-03",
    "moq-lite-02",
    "moq-lite-01",
    "moq-transfork-03",
    "gomoqt-develop",
)
"""All of them: those that are offered, and the one that has to be named."""
UNFRAMED = "moq-transfork-03"
"""The version whose messages have no length in front."""
DEVELOP = "gomoqt-develop"
"""The version whose peers leave fields out and write zeros between messages."""
TUPLES = (UNFRAMED, DEVELOP)
"""The versions whose paths are tuples."""
TIMED = ("moq-lite-06", "moq-lite-06-wip", "moq-lite-05")
"""The versions whose frames have timestamps."""

MAX = 2**62 - 1
LARGEST = b"\xff" * 8
"""The largest varint, 2^62-1."""
LIMITS = Limits()
VIOLATION = 0x3
"""PROTOCOL_VIOLATION of the session; every version has this number for it."""
MALFORMED_TRACK = 0x12

_IN_FILE = {"transfork-03": UNFRAMED}
_EVERY_VECTOR = json.loads((Path(__file__).parents[1] / "vectors" / "moq-lite.json").read_text())["vectors"]

_PLACES_OF = {
    "SESSION_UPDATE": (Expect.SESSION_UPDATE,),
    "SETUP": (Expect.SETUP,),
    "ANNOUNCE_PLEASE": (Expect.ANNOUNCE_REQUEST,),
    "ANNOUNCE_INTEREST": (Expect.ANNOUNCE_REQUEST,),
    "ANNOUNCE_REQUEST": (Expect.ANNOUNCE_REQUEST,),
    "ANNOUNCE_INIT": (Expect.ANNOUNCE_FIRST_REPLY,),
    "ANNOUNCE_OK": (Expect.ANNOUNCE_FIRST_REPLY,),
    "ANNOUNCE": (Expect.ANNOUNCE_REPLY,),
    "ANNOUNCE_BROADCAST": (Expect.ANNOUNCE_REPLY,),
    "ANNOUNCE_START": (Expect.ANNOUNCE_REPLY,),
    "ANNOUNCE_END": (Expect.ANNOUNCE_REPLY,),
    "ANNOUNCE_UPDATE": (Expect.ANNOUNCE_REPLY,),
    "ANNOUNCE_RESTART": (Expect.ANNOUNCE_REPLY,),
    "SUBSCRIBE": (Expect.SUBSCRIBE,),
    "SUBSCRIBE_UPDATE": (Expect.SUBSCRIBE_UPDATE,),
    "SUBSCRIBE_OK": (Expect.SUBSCRIBE_FIRST_REPLY, Expect.SUBSCRIBE_REPLY),
    "SUBSCRIBE_END": (Expect.SUBSCRIBE_REPLY,),
    "SUBSCRIBE_DROP": (Expect.SUBSCRIBE_REPLY,),
    "SUBSCRIBE_GAP": (Expect.SUBSCRIBE_REPLY,),
    "INFO": (Expect.TRACK_INFO, Expect.SUBSCRIBE_FIRST_REPLY),
    "INFO_PLEASE": (Expect.TRACK_REQUEST,),
    "INFO_REQUEST": (Expect.TRACK_REQUEST,),
    "TRACK": (Expect.TRACK_REQUEST,),
    "TRACK_INFO": (Expect.TRACK_INFO,),
    "FETCH": (Expect.FETCH,),
    "FETCH_UPDATE": (Expect.FETCH_UPDATE,),
    "GROUP": (Expect.GROUP,),
    "PROBE": (Expect.PROBE,),
    "GOAWAY": (Expect.GOAWAY,),
}
"""Where a message of the vectors is read, if the version has the place."""

_STREAMS = {
    Expect.SETUP: StreamKind.SETUP,
    Expect.ANNOUNCE_REQUEST: StreamKind.ANNOUNCE,
    Expect.SUBSCRIBE: StreamKind.SUBSCRIBE,
    Expect.SUBSCRIBE_UPDATE: StreamKind.SUBSCRIBE,
    Expect.GROUP: StreamKind.GROUP,
    Expect.FETCH: StreamKind.FETCH,
    Expect.FETCH_UPDATE: StreamKind.FETCH,
    Expect.TRACK_REQUEST: StreamKind.TRACK,
    Expect.PROBE: StreamKind.PROBE,
    Expect.GOAWAY: StreamKind.GOAWAY,
}
"""The streams that a peer opens, by what is read there."""


def vectors(name: str, *messages: str, quirks: bool = False) -> list[bytes]:
    """Return the bytes of a version's vectors of these messages."""
    return [
        bytes.fromhex(vector["hex"])
        for vector in _EVERY_VECTOR
        if _IN_FILE.get(vector["dialect"], vector["dialect"]) == name
        and vector["message"] in messages
        and (quirks or not vector.get("quirk"))
    ]


def all_vectors(name: str) -> list[bytes]:
    """Return the bytes of every vector of a version."""
    return [
        bytes.fromhex(vector["hex"])
        for vector in _EVERY_VECTOR
        if _IN_FILE.get(vector["dialect"], vector["dialect"]) == name
    ]


def client_opening(name: str) -> bytes:
    """Return the first bytes of a client of a version with a handshake, its stream's type included."""
    if name in TUPLES:
        return b"\x00" + vectors(name, "SESSION_CLIENT")[-1]
    return vectors(name, "CLIENT_SETUP")[-1]


def server_answer(name: str) -> bytes:
    """Return the answer of a server of such a version."""
    return vectors(name, "SESSION_SERVER" if name in TUPLES else "SERVER_SETUP")[-1]


@attrs.frozen
class Place:
    """Where a message is due on a stream.

    Attributes:
        version: The version's name.
        expect: What is due.
        ours: True on a stream that this side opened, where the peer answers.
        before: The bytes of the peer before it on the stream, the stream's type included.
    """

    version: str
    expect: Expect
    ours: bool
    before: bytes

    def __str__(self) -> str:
        side = "reply" if self.ours else "request"
        return f"{self.version}-{self.expect.value}-{side}"

    @property
    def dialect(self) -> Dialect:
        return dialects.get(self.version)

    @property
    def control(self) -> bool:
        """True where an undecodable message breaks the session: everywhere but in the header of a group."""
        return self.expect is not Expect.GROUP

    @property
    def bidirectional(self) -> bool:
        return self.expect not in (Expect.SETUP, Expect.GROUP)

    @property
    def types(self) -> tuple[bytes, ...]:
        """The message types that may stand in front of the length; one empty one where there are none."""
        if self.expect is Expect.SUBSCRIBE_REPLY and self.dialect.features.subscribe_typed:
            return (b"\x00", b"\x01", b"\x02") if self.dialect.features.subscribe_end else (b"\x00", b"\x01")
        if self.expect is Expect.ANNOUNCE_REPLY and self.dialect.features.announce_ids:
            return b"\x00", b"\x01", b"\x02"
        return (b"",)

    def machine(self, limits: Limits = LIMITS) -> StreamMachine:
        """Return the machine that reads here, in a session of its own, with everything before read."""
        made = self._make(limits)
        if self.before:
            made.receive_data(self.before, False)
        return made

    def _make(self, limits: Limits) -> StreamMachine:
        if self.expect is Expect.SESSION_UPDATE:
            offered = (self.dialect,)
            if not self.ours:
                return ServerHandshake(offered, limits, path_on_wire=True)
            return ClientHandshake(offered, limits, form=self.dialect.handshakes[0], path="/")
        # Only a server names another place in its GOAWAY, and only a client a path in its SETUP.
        side = SessionCore(
            self.dialect, is_client=self.expect is Expect.GOAWAY, limits=limits, path_on_wire=True, hop_id=11
        )
        if not self.ours:
            for number in range(9):  # the ids of the groups in the vectors
                side.subscribe("a", f"t{number}")
            return side.accept_bidi() if self.bidirectional else side.accept_uni()
        makers: dict[Expect, Callable[[], StreamMachine]] = {
            Expect.ANNOUNCE_FIRST_REPLY: lambda: side.request_announcements(""),
            Expect.ANNOUNCE_REPLY: lambda: side.request_announcements(""),
            Expect.SUBSCRIBE_FIRST_REPLY: lambda: side.subscribe("a", "t"),
            Expect.SUBSCRIBE_REPLY: lambda: side.subscribe("a", "t"),
            Expect.TRACK_INFO: lambda: side.request_track_info("a", "t"),
            Expect.PROBE: side.probe,
        }
        return makers[self.expect]()

    def vectors(self) -> list[bytes]:
        """Return the version's vectors of the messages that are due here."""
        names = [name for name, places in _PLACES_OF.items() if self.expect in places]
        # INFO_PLEASE and its like stand in one place; SUBSCRIBE_OK in the one that the version has.
        if self.expect is Expect.SUBSCRIBE_REPLY and not self.dialect.features.subscribe_typed:
            names.remove("SUBSCRIBE_OK")
        return vectors(self.version, *names)


def _places(name: str) -> list[Place]:
    dialect = dialects.get(name)
    features = dialect.features
    opening = {kind: dialect.stream_type(kind) for kind in StreamKind if _has(dialect, kind)}

    def first(*messages: str) -> bytes:
        return vectors(name, *messages)[0]

    found: list[Place] = []
    for expect, kind in _STREAMS.items():
        if kind in opening and (expect is not Expect.FETCH_UPDATE or features.fetch_update):
            before = opening[kind]
            if expect in (Expect.SUBSCRIBE_UPDATE, Expect.FETCH_UPDATE):
                before += first("SUBSCRIBE" if expect is Expect.SUBSCRIBE_UPDATE else "FETCH")
            found.append(Place(name, expect, False, before))
    if features.probe != "none":
        found.append(Place(name, Expect.PROBE, True, b""))
    if StreamKind.TRACK in opening:
        found.append(Place(name, Expect.TRACK_INFO, True, b""))
    before = b""
    if features.announce_first != "none":
        found.append(Place(name, Expect.ANNOUNCE_FIRST_REPLY, True, b""))
        before = first("ANNOUNCE_INIT", "ANNOUNCE_OK")
    found.append(Place(name, Expect.ANNOUNCE_REPLY, True, before))
    before = b""
    if not features.subscribe_typed:
        found.append(Place(name, Expect.SUBSCRIBE_FIRST_REPLY, True, b""))
        before = first("SUBSCRIBE_OK", "INFO")
    if features.subscribe_drop:
        found.append(Place(name, Expect.SUBSCRIBE_REPLY, True, before))
    if dialect.in_band:
        found += [
            Place(name, Expect.SESSION_UPDATE, False, client_opening(name)),
            Place(name, Expect.SESSION_UPDATE, True, server_answer(name)),
        ]
    return found


def _has(dialect: Dialect, kind: StreamKind) -> bool:
    try:
        dialect.stream_type(kind)
    except Exception:
        return False
    return True


PLACES = [place for name in NAMES for place in _places(name)]
"""Every place of every version."""
CASES = [(place, wire) for place in PLACES for wire in place.vectors()]
"""Every vector of a message, at each place where it is due."""


def case_id(value: object) -> str:
    """Names a test's case: a place by its name, bytes by their first digits."""
    return value.hex()[:24] if isinstance(value, bytes) else str(value)


# -- the handshakes of the versions up to moq-lite-02 -------------------------------------------------------------


@attrs.frozen
class Shake:
    """One message of a handshake, as a client or as a server sends it.

    Attributes:
        version: The version's name.
        form: How it is framed.
        by_client: True for the message that a server reads.
        wire: A vector of it, a client's stream type included.
        head: How many bytes stand before its length, or before its first field where it has none.
    """

    version: str
    form: HandshakeForm
    by_client: bool
    wire: bytes
    head: int

    def __str__(self) -> str:
        return f"{self.version}-{self.form.value}-{'client' if self.by_client else 'server'}"

    def machine(self, limits: Limits = LIMITS) -> StreamMachine:
        """Return the machine that reads this message."""
        offered = (dialects.get(self.version),)
        if self.by_client:
            return ServerHandshake(offered, limits, path_on_wire=True)
        return ClientHandshake(offered, limits, form=self.form, path="/")

    def framed(self, body: bytes) -> bytes:
        """Return a message of this form with another body."""
        match self.form:
            case HandshakeForm.UNFRAMED:
                length = b""
            case HandshakeForm.COMPAT:
                length = len(body).to_bytes(2, "big")
            case _:
                length = bytes((len(body),))
        return self.wire[: self.head] + length + body

    @property
    def body(self) -> bytes:
        """The fields of the vector."""
        return self.wire[self.head + {HandshakeForm.UNFRAMED: 0, HandshakeForm.COMPAT: 2}.get(self.form, 1) :]


def _shakes() -> list[Shake]:
    found: list[Shake] = []
    for name in NAMES:
        if not dialects.get(name).in_band:
            continue
        native = HandshakeForm.UNFRAMED if name == UNFRAMED else HandshakeForm.PREFIXED
        found += [
            Shake(name, HandshakeForm.COMPAT, by_client, wire, 1)
            for by_client, message in ((True, "CLIENT_SETUP"), (False, "SERVER_SETUP"))
            for wire in vectors(name, message)
        ]
        for wire in vectors(name, "SESSION_CLIENT"):
            # The vectors of the older two leave the stream's type out.
            found.append(Shake(name, native, True, b"\x00" + wire if name in TUPLES else wire, 1))
        found += [Shake(name, native, False, wire, 0) for wire in vectors(name, "SESSION_SERVER")]
    return found


SHAKES = _shakes()
"""Every vector of a handshake."""

# -- the outcome of a stream ----------------------------------------------------------------------------------

Outcome = tuple[list[Event], tuple[type, int, str] | None]


def outcome(machine: StreamMachine, pieces: Iterable[bytes], *, fin: bool = False) -> Outcome:
    """Return the outcome of a stream in pieces: the events until the end or an error, and the error.

    Events of the piece with the error are included. Adjacent frames are joined into one event, as in an uncut stream.
    """
    events: list[Event] = []
    try:
        for piece in pieces:
            events += machine.receive_data(piece, False)
        if fin:
            events += machine.receive_data(b"", True)
    except RemoteProtocolError as error:
        return merged([*events, *machine.partial_events]), (type(error), error.code, error.scope)
    return merged(events), None
