"""The vectors of the versions before moq-lite-03, and of moq-lite-06-wip: each is read, and written back byte for byte.

The fields of a vector are as they are on the wire; what they mean in a message value is written out here, by hand.
The last test counts: with `test_vectors.py`, `test_varint.py`, `test_codes.py` and `test_paper_vectors.py`, every
vector is used.
"""

from __future__ import annotations

import collections
import json
from pathlib import Path

import attrs
import pytest

from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed
from moqt_trio.limits import Limits
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire import handshake
from moqt_trio.wire import messages as m
from moqt_trio.wire.buffer import StreamBuffer
from moqt_trio.wire.handshake import HandshakeForm
from moqt_trio.wire.messages import Expect, StreamKind
from tests.wire.strict import Frame, encode, feed

LIMITS = Limits()
# What the file of vectors calls a version, and what this library calls it.
NAMES = {
    "transfork-03": "moq-transfork-03",
    "gomoqt-develop": "gomoqt-develop",
    "moq-lite-01": "moq-lite-01",
    "moq-lite-02": "moq-lite-02",
    "moq-lite-06-wip": "moq-lite-06-wip",
}
ALL_VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "moq-lite.json").read_text())["vectors"]
VECTORS = [vector for vector in ALL_VECTORS if vector["dialect"] in NAMES]
HANDSHAKES = {"CLIENT_SETUP", "SERVER_SETUP", "SESSION_CLIENT", "SESSION_SERVER"}
STREAMS = {"STREAM_TYPE", "FRAME", "GROUP_STREAM", "FETCH_RESPONSE", "SETUP_STREAM", "SESSION_STREAM", "DATAGRAM"}
# INFO streams are TRACK streams by another name.
STREAM_KINDS = {kind.name: kind for kind in StreamKind} | {"INFO": StreamKind.TRACK}
ORDERS = {"default": None, "ascending": True, "descending": False, 0: None, 1: True, 2: False}


def _parameters(fields: dict | None) -> m.Parameters | None:
    if fields is None:
        return None
    return tuple((int(key, 0), bytes.fromhex(value)) for key, value in fields.items())


def _path(parts: list[str] | None) -> str:
    return "/".join(parts or ())


def _track(parts: list[str] | None) -> tuple[str, str]:
    return ("/".join(parts[:-1]), parts[-1]) if parts else ("", "")


def _transfork(name: str, f: dict) -> tuple[Expect, m.Message]:
    match name:
        case "ANNOUNCE_PLEASE":
            request = m.AnnounceRequest(_path(f["prefix"]), parameters=_parameters(f.get("params")))
            return Expect.ANNOUNCE_REQUEST, request
        case "ANNOUNCE":
            parameters = _parameters(f.get("params"))
            announce = {
                "active": lambda: m.AnnounceStart(_path(f["suffix"]), parameters=parameters),
                "ended": lambda: m.AnnounceEnd(suffix=_path(f["suffix"]), parameters=parameters),
                "live": lambda: m.AnnounceLive(parameters),
            }
            return Expect.ANNOUNCE_REPLY, announce[f["status"]]()
        case "SUBSCRIBE" | "SUBSCRIBE_UPDATE":
            values = {
                "priority": f["priority"],
                "ordered": ORDERS[f["order"]],
                "max_age_ms": f.get("expires_ms", 0),
                "start_group": f["group_min"] if "group_min" in f else f["min"] or None,
                "end_group": f["group_max"] if "group_max" in f else f["max"] or None,
                "parameters": _parameters(f.get("params")),
            }
            if name == "SUBSCRIBE":
                return Expect.SUBSCRIBE, m.Subscribe(f["id"], *_track(f["path"]), **values)
            return Expect.SUBSCRIBE_UPDATE, m.SubscribeUpdate(**values)
        case "SUBSCRIBE_GAP":
            end = f["start"] + f["count"] if "count" in f else f["max"]
            return Expect.SUBSCRIBE_REPLY, m.SubscribeDrop(f.get("start", f.get("min")), end, f["code"])
        case "INFO":
            age, latest = f.get("expires_ms", 0), f["group_latest"]
            return Expect.TRACK_INFO, m.TrackInfo(f["priority"], ORDERS[f["order"]], age, latest_group=latest)
        case "INFO_PLEASE" | "INFO_REQUEST":
            return Expect.TRACK_REQUEST, m.TrackRequest(*_track(f["path"]))
        case "FETCH":
            track, subscribe = _track(f["path"]), f.get("subscribe", 0)
            return Expect.FETCH, m.Fetch(*track, f["priority"], f["group"], f["frame"], subscribe_id=subscribe)
        case "FETCH_UPDATE":
            return Expect.FETCH_UPDATE, m.FetchUpdate(f["priority"])
        case "GROUP":
            return Expect.GROUP, m.Group(f["subscribe"], f["group"])
        case "SESSION_UPDATE":
            return Expect.SESSION_UPDATE, m.SessionUpdate(f["bitrate"])
    raise AssertionError(f"no meaning is written down for {name}")


def _lite(version: str, name: str, f: dict) -> tuple[Expect, m.Message]:
    match name:
        case "ANNOUNCE_PLEASE" | "ANNOUNCE_REQUEST":
            return Expect.ANNOUNCE_REQUEST, m.AnnounceRequest(f["prefix"])
        case "ANNOUNCE_INIT":
            return Expect.ANNOUNCE_FIRST_REPLY, m.AnnounceInit(tuple(f["suffixes"]))
        case "ANNOUNCE_OK":
            return Expect.ANNOUNCE_FIRST_REPLY, m.AnnounceOk(f["hop_id"], f["active_count"])
        case "ANNOUNCE":
            active = f["status"] == "active"
            return Expect.ANNOUNCE_REPLY, m.AnnounceStart(f["suffix"]) if active else m.AnnounceEnd(suffix=f["suffix"])
        case "ANNOUNCE_START":
            return Expect.ANNOUNCE_REPLY, m.AnnounceStart(f["suffix"], tuple(f["hops"]), f["cost"])
        case "ANNOUNCE_END":
            return Expect.ANNOUNCE_REPLY, m.AnnounceEnd(f["id"])
        case "ANNOUNCE_RESTART":
            return Expect.ANNOUNCE_REPLY, m.AnnounceUpdate(f["id"], tuple(f["hops"]), f["cost"])
        case "SUBSCRIBE" | "SUBSCRIBE_UPDATE":
            values = {"priority": f["priority"]}
            if "ordered" in f:
                values |= {"ordered": bool(f["ordered"]), "max_age_ms": f["max_latency_ms"]}
                values |= {"start_group": f["start"], "end_group": f["end"]}
            if name == "SUBSCRIBE":
                return Expect.SUBSCRIBE, m.Subscribe(f["id"], f["broadcast"], f["track"], **values)
            return Expect.SUBSCRIBE_UPDATE, m.SubscribeUpdate(**values)
        case "SUBSCRIBE_OK":
            if version == "moq-lite-06-wip":
                return Expect.SUBSCRIBE_REPLY, m.SubscribeOk(f["group"])
            return Expect.SUBSCRIBE_FIRST_REPLY, m.SubscribeOk(priority=f.get("priority", 0))
        case "SUBSCRIBE_END":
            return Expect.SUBSCRIBE_REPLY, m.SubscribeEnd(f["group"])
        case "SUBSCRIBE_DROP":
            return Expect.SUBSCRIBE_REPLY, m.SubscribeDrop(f["start"], f["end"], f["code"])
        case "GROUP":
            return Expect.GROUP, m.Group(f["subscribe"], f["group"])
        case "FETCH":
            return Expect.FETCH, m.Fetch(f["broadcast"], f["track"], f["priority"], f["group"])
        case "TRACK":
            return Expect.TRACK_REQUEST, m.TrackRequest(f["broadcast"], f["track"])
        case "TRACK_INFO":
            info = m.TrackInfo(f["priority"], bool(f["ordered"]), f["max_latency_ms"], f["timescale"])
            return Expect.TRACK_INFO, info
        case "PROBE":
            return Expect.PROBE, m.Probe(f["bitrate"], f["rtt_ms"])
        case "GOAWAY":
            return Expect.GOAWAY, m.Goaway(f["uri"])
        case "SESSION_UPDATE":
            return Expect.SESSION_UPDATE, m.SessionUpdate(f["bitrate"])
        case "SETUP":
            p = f["params"]
            role = {None: m.Role.BOTH, "publisher": m.Role.PUBLISHER, "subscriber": m.Role.SUBSCRIBER}[p.get("role")]
            probe = m.ProbeLevel(p.get("probe", 0))
            return Expect.SETUP, m.Setup(probe, p.get("path"), role, p.get("cost"), p.get("origin", 0))
    raise AssertionError(f"no meaning is written down for {name}")


@attrs.frozen
class Case:
    """One message vector: its bytes, the place where it is expected, and its fields."""

    version: str
    expect: Expect
    wire: bytes
    message: m.Message
    quirk: bool

    @property
    def dialect(self):
        return dialects.get(self.version)

    def read(self, buffer: StreamBuffer, limits: Limits = LIMITS):
        return self.dialect.read_untrusted(self.expect, buffer, limits)

    @property
    def unframed(self) -> bool:
        return self.version == "moq-transfork-03"

    @property
    def header(self) -> tuple[bytes, bytes]:
        """The type, if there is one, and the body. Every length in these vectors fits in one byte."""
        wip = self.version == "moq-lite-06-wip"
        size = int(wip and self.expect in (Expect.SUBSCRIBE_REPLY, Expect.ANNOUNCE_REPLY))
        assert self.wire[size] == len(self.wire) - size - 1
        return self.wire[:size], self.wire[size + 1 :]


def _case(vector: dict) -> Case:
    version = NAMES[vector["dialect"]]
    if "lite" in version:
        expect, message = _lite(version, vector["message"], vector["fields"])
    else:
        expect, message = _transfork(vector["message"], vector["fields"])
    return Case(version, expect, bytes.fromhex(vector["hex"]), message, vector.get("quirk", False))


_MESSAGES = [_case(vector) for vector in VECTORS if vector["message"] not in HANDSHAKES | STREAMS]
# INFO stands on two kinds of streams: it answers INFO_PLEASE, and it accepts a subscription.
_ACCEPTING = [
    attrs.evolve(
        case,
        expect=Expect.SUBSCRIBE_FIRST_REPLY,
        message=m.SubscribeOk(
            priority=case.message.priority,
            ordered=case.message.ordered,
            max_age_ms=case.message.max_age_ms,
            latest_group=case.message.latest_group,
        ),
    )
    for case in _MESSAGES
    if case.expect is Expect.TRACK_INFO and "lite" not in case.version
]
CASES = [case for case in _MESSAGES + _ACCEPTING if not case.quirk]
PREFIXED = [case for case in CASES if not case.unframed]


def _id(case: Case) -> str:
    return f"{case.version}-{case.expect.name}-{case.wire.hex()[:24]}"


each_case = pytest.mark.parametrize("case", CASES, ids=_id)
each_prefixed = pytest.mark.parametrize("case", PREFIXED, ids=_id)


def _others(*names: str):
    found = [vector for vector in VECTORS if vector["message"] in names]
    return pytest.mark.parametrize("vector", found, ids=lambda v: f"{v['dialect']}-{v['message']}-{v['hex'][:24]}")


@each_case
def test_vector_is_read_and_written_back(case):
    """A vector is read to its fields, and the fields are written to the vector."""
    buffer = StreamBuffer(case.wire)
    assert case.read(buffer) == case.message
    assert len(buffer) == 0
    assert case.dialect.encode(case.message) == case.wire


@each_case
def test_vector_byte_by_byte(case):
    """Fed one byte at a time, nothing is read and nothing is taken before the last byte; then all of it is."""
    buffer = StreamBuffer()
    for count, byte in enumerate(case.wire, 1):
        assert len(buffer) == count - 1
        buffer.feed(bytes((byte,)))
        message = case.read(buffer)
        assert (message is None) == (count < len(case.wire))
    assert message == case.message
    assert len(buffer) == 0


@each_case
def test_vector_leaves_what_follows(case):
    """What follows a message on the stream is not touched."""
    buffer = StreamBuffer(case.wire + case.wire + b"\x7f")
    for _ in range(2):
        assert case.read(buffer) == case.message
    assert buffer.take_all() == b"\x7f"


@each_prefixed
def test_body_cut_anywhere_is_malformed(case):
    """A body whose length says that it ends within its fields is Malformed, but for what develop may leave out."""
    kind, body = case.header
    # A length of 0 may be a zero between messages there, which another test reads.
    first = 1 if case.version == "gomoqt-develop" and case.expect not in NEVER_STRAY else 0
    for cut in range(first, len(body)):
        buffer = StreamBuffer(kind + bytes((cut,)) + body)
        try:
            message = case.read(buffer)
        except Malformed as error:
            _check_scope(case.expect, error)
        else:
            assert case.version == "gomoqt-develop"
            assert message in _without_optional_fields(case.message, cut)


NEVER_STRAY = (Expect.ANNOUNCE_REQUEST, Expect.TRACK_REQUEST, Expect.SUBSCRIBE, Expect.FETCH, Expect.GROUP)


def _without_optional_fields(message: m.Message, cut: int) -> list[m.Message]:
    match message:
        case m.AnnounceRequest():
            return [m.AnnounceRequest("")] if cut == 0 else [attrs.evolve(message, parameters=None)]
        case m.TrackRequest():
            return [m.TrackRequest("", "")] if cut == 0 else []
        case m.Fetch():
            return [attrs.evolve(message, start_frame=0)]
        case m.AnnounceLive():
            return [message]
        case m.AnnounceStart() | m.Subscribe():
            return [attrs.evolve(message, parameters=None)]
        case _:
            return []


@each_prefixed
def test_body_with_a_byte_too_many_is_malformed(case):
    """A body whose length says that it exceeds its fields is Malformed, but where parameters may follow."""
    kind, body = case.header
    for extra in (b"\x00", b"\xff"):
        buffer = StreamBuffer(kind + bytes((len(body) + 1,)) + body + extra)
        open_ended = getattr(case.message, "parameters", ()) is None
        if case.version == "gomoqt-develop" and open_ended and extra == b"\x00":
            assert case.read(buffer) == attrs.evolve(case.message, parameters=())
            continue
        with pytest.raises(Malformed) as caught:
            case.read(buffer)
        _check_scope(case.expect, caught.value)


@each_case
def test_length_over_the_limit_fails(case):
    """A message may be as long as `max_message`, or `max_announce_init` for a batch, and not a byte longer."""
    kind, body = (b"", case.wire) if case.unframed else case.header
    for spare in (0, -1):
        bound = len(body) + spare
        if bound <= 0:
            continue
        limits = attrs.evolve(LIMITS, max_message=bound, max_announce_init=bound)
        if spare == 0:
            assert case.read(StreamBuffer(case.wire), limits) == case.message
            continue
        with pytest.raises(LimitExceeded) as caught:
            case.read(StreamBuffer(case.wire if case.unframed else kind + bytes((len(body),))), limits)
        assert caught.value.limit in ("max_message", "max_path_parts")
        _check_scope(case.expect, caught.value)


def _check_scope(expect: Expect, error: Malformed | LimitExceeded) -> None:
    if expect is Expect.GROUP:
        assert (error.scope, error.code) == ("stream", 0x12)
    else:
        assert (error.scope, error.code) == ("session", 3)


# -- what gomoqt writes and this library does not -------------------------------------------------------------


def test_every_quirk_is_known():
    """The quirks among the vectors are the three that the tests below read."""
    assert {case.wire.hex() for case in _MESSAGES if case.quirk} == {"0000", "010200", "040000000000"}


@pytest.mark.parametrize("case", [case for case in _MESSAGES if case.quirk], ids=_id)
def test_quirks_are_read_and_never_written(case):
    """A message that gomoqt counted a byte short is read, and the zero after it is left; we never write one."""
    buffer = StreamBuffer(case.wire)
    assert case.read(buffer) == case.message
    assert buffer.take_all() == b"\x00"
    if isinstance(case.message, m.Fetch):
        with pytest.raises(LocalProtocolError, match="track name ''"):
            case.dialect.encode(case.message)
    else:
        assert case.dialect.encode(case.message) != case.wire


@pytest.mark.parametrize("expect", [Expect.ANNOUNCE_REPLY, Expect.FETCH_UPDATE, Expect.SUBSCRIBE_UPDATE])
def test_zeros_between_messages_are_no_messages(expect):
    """Between the messages of develop zeros are ignored; in moq-transfork-03 they are messages."""
    develop = dialects.get("gomoqt-develop")
    wire = {
        Expect.ANNOUNCE_REPLY: "020200",
        Expect.FETCH_UPDATE: "0109",
        Expect.SUBSCRIBE_UPDATE: "0405020009",
    }[expect]
    buffer = StreamBuffer(bytes.fromhex("0000" + wire + "00" + wire + "000000"))
    messages = [develop.read_untrusted(expect, buffer, LIMITS) for _ in range(3)]
    assert messages[0] == messages[1] is not None
    assert messages[2] is None
    assert len(buffer) == 0


# -- streams --------------------------------------------------------------------------------------------------


@_others("STREAM_TYPE")
def test_stream_types(vector):
    """Each stream type stands for its kind in its direction, and the kind is written as that type."""
    dialect = dialects.get(NAMES[vector["dialect"]])
    kind = STREAM_KINDS[vector["fields"]["name"]]
    wire = bytes.fromhex(vector["hex"])
    assert dialect.stream_type(kind) == wire
    assert dialect.split_stream_type(wire + b"\xff") == (wire[0], 1)
    assert dialect.split_stream_type(b"") is None
    assert dialect.stream_kind_untrusted(wire[0], bidirectional=vector["fields"]["dir"] == "bidi") is kind


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_stream_types_that_the_vectors_lack_are_unknown(name, bidirectional):
    """A number stands for a stream kind only where the version has it."""
    direction = "bidi" if bidirectional else "uni"
    known = {
        int(v["hex"], 16)
        for v in VECTORS
        if v["dialect"] == name and v["message"] == "STREAM_TYPE" and v["fields"]["dir"] == direction
    }
    dialect = dialects.get(NAMES[name])
    for number in [*range(16), 0x20, (1 << 62) - 1]:
        assert (dialect.stream_kind_untrusted(number, bidirectional=bidirectional) is not None) == (number in known)


def test_stream_types_of_develop_are_bytes():
    """In develop a stream type is one byte, whatever its upper bits; elsewhere they say how long a varint is."""
    assert dialects.get("gomoqt-develop").split_stream_type(b"\x40") == (0x40, 1)
    assert dialects.get("moq-transfork-03").split_stream_type(b"\x40") is None
    assert dialects.get("moq-transfork-03").split_stream_type(b"\x40\x01") == (1, 2)


def _frames(fields: list[dict | str]) -> list[Frame]:
    found = [{"payload": f} if isinstance(f, str) else f for f in fields]
    return [Frame(bytes.fromhex(f["payload"]), f.get("timestamp")) for f in found]


@_others("FRAME")
def test_frame_vectors(vector):
    """A frame is written as its vector; one that counts from 0 is read back from it."""
    dialect, wire = dialects.get(NAMES[vector["dialect"]]), bytes.fromhex(vector["hex"])
    previous = vector["fields"].get("prev_timestamp", 0)
    (frame,) = _frames([vector["fields"]])
    assert dialect.encode_frame(frame.payload, frame.timestamp, previous) == wire
    if not previous:
        assert feed(dialect.frame_decoder(LIMITS), wire) == [frame]


@_others("GROUP_STREAM", "FETCH_RESPONSE")
def test_streams_of_frames(vector):
    """A whole stream is written from its parts, and read back from pieces of any size."""
    dialect, wire = dialects.get(NAMES[vector["dialect"]]), bytes.fromhex(vector["hex"])
    fields = vector["fields"]
    frames = _frames(fields["frames"])
    head = b""
    if vector["message"] == "GROUP_STREAM":
        group = m.Group(fields["subscribe"], fields["group"])
        head = dialect.stream_type(StreamKind.GROUP) + dialect.encode(group)
    assert head + encode(dialect, frames) == wire
    for step in (1, 2, 3, 7, 1000):
        buffer, decoder, read = StreamBuffer(), dialect.frame_decoder(LIMITS), []
        missing = 2 if head else 0
        for at in range(0, len(wire), step):
            buffer.feed(wire[at : at + step])
            if missing == 2:
                assert buffer.take(1) == b"\x00"
                missing = 1
            if missing == 1 and dialect.read_untrusted(Expect.GROUP, buffer, LIMITS) is not None:
                missing = 0
            if missing == 0:
                read += feed(decoder, buffer.take_all())
        assert read == frames
        assert decoder.pending_bytes == 0


@_others("SETUP_STREAM")
def test_setup_stream(vector):
    """The setup stream is its type and one message."""
    dialect = dialects.get(NAMES[vector["dialect"]])
    assert dialect.stream_type(StreamKind.SETUP) + dialect.encode(m.Setup()) == bytes.fromhex(vector["hex"])


@_others("DATAGRAM")
def test_datagram_vectors(vector):
    """A datagram is read to its fields and written back."""
    dialect, wire, f = dialects.get(NAMES[vector["dialect"]]), bytes.fromhex(vector["hex"]), vector["fields"]
    datagram = m.Datagram(f["subscribe"], f["group"], f["timestamp"], bytes.fromhex(f["payload"]))
    assert dialect.read_datagram_untrusted(wire) == datagram
    assert dialect.encode_datagram(datagram) == wire


# -- handshakes -----------------------------------------------------------------------------------------------


def _handshake(vector: dict) -> tuple[HandshakeForm, m.SessionClient | m.SessionServer, bytes]:
    """Returns the form, the value and the bytes; a client's with the stream's type in front."""
    f, wire = vector["fields"], bytes.fromhex(vector["hex"])
    raw = f.get("params", f.get("extensions"))
    compat = vector["message"] in ("CLIENT_SETUP", "SERVER_SETUP")
    if compat:
        form = HandshakeForm.COMPAT
        parameters = tuple((int(key, 0), v if isinstance(v, int) else v.encode()) for key, v in raw.items())
    else:
        form = HandshakeForm.UNFRAMED if vector["dialect"] == "transfork-03" else HandshakeForm.PREFIXED
        parameters = _parameters(raw)
    if "versions" in f:
        if "framing" not in vector:
            wire = b"\x00" + wire
        return form, m.SessionClient(tuple(int(v, 16) for v in f["versions"]), parameters), wire
    return form, m.SessionServer(int(f["version"], 16), parameters), wire


HANDSHAKE_CASES = [_handshake(vector) for vector in VECTORS if vector["message"] in HANDSHAKES]
each_handshake = pytest.mark.parametrize(
    ("form", "message", "wire"), HANDSHAKE_CASES, ids=[f"{c[0].value}-{c[2].hex()[:40]}" for c in HANDSHAKE_CASES]
)


def _read(form: HandshakeForm, message: m.Message, buffer: StreamBuffer, limits: Limits = LIMITS):
    if isinstance(message, m.SessionServer):
        return handshake.read_server_untrusted(form, buffer, limits)
    found = handshake.read_client_untrusted(buffer, limits)
    if found is None:
        return None
    assert found[0] is form
    return found[1]


@each_handshake
def test_handshake_vectors(form, message, wire):
    """A message of the handshake is recognised by its first bytes, read, and written back byte for byte."""
    buffer = StreamBuffer(wire + b"\x04")
    assert _read(form, message, buffer) == message
    assert buffer.take_all() == b"\x04"
    encode = handshake.encode_client if isinstance(message, m.SessionClient) else handshake.encode_server
    assert encode(form, message) == wire


@each_handshake
def test_handshake_byte_by_byte(form, message, wire):
    """Nothing is read and nothing is taken before the last byte."""
    buffer = StreamBuffer()
    for count, byte in enumerate(wire, 1):
        assert len(buffer) == count - 1
        buffer.feed(bytes((byte,)))
        assert _read(form, message, buffer) == (message if count == len(wire) else None)
    assert len(buffer) == 0


def test_session_stream():
    """The whole opening of a client of develop, with a path: type, length, version and parameter."""
    (vector,) = [vector for vector in VECTORS if vector["message"] == "SESSION_STREAM"]
    message = m.SessionClient((0xFFFFFF00,), ((handshake.PATH, b"/echo"),))
    assert handshake.encode_client(HandshakeForm.PREFIXED, message) == bytes.fromhex(vector["hex"])


# -- the whole file -------------------------------------------------------------------------------------------

ELSEWHERE = {
    "moq-lite-03": "test_vectors.py",
    "moq-lite-04": "test_vectors.py",
    "moq-lite-05": "test_vectors.py",
    "moq-lite-06": "test_vectors.py",
    "quic-varint": "test_varint.py",
    "zigzag-quic-varint": "test_varint.py",
    "webtransport-code": "test_codes.py",
    "moq-lite-06-text-2026-08": "test_paper_vectors.py",
}


def test_every_vector_is_used():
    """Each of the 343 vectors has a test."""
    counts = collections.Counter(vector["dialect"] for vector in ALL_VECTORS)
    assert sum(counts.values()) == 343
    assert counts.keys() == NAMES.keys() | ELSEWHERE.keys()
    assert {name: counts[name] for name in NAMES} == {
        "transfork-03": 28,
        "gomoqt-develop": 34,
        "moq-lite-01": 26,
        "moq-lite-02": 26,
        "moq-lite-06-wip": 46,
    }
    used = [vector for vector in VECTORS if vector["message"] in HANDSHAKES | STREAMS]
    assert len(_MESSAGES) + len(used) == len(VECTORS)
