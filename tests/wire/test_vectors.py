"""The vectors of moq-lite-03 to -06: each is read to its fields and written back byte for byte.

The fields of a vector are as they are on the wire; what they mean in a message value is written out here, by hand.
"""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed
from moqt_trio.limits import Limits
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire import messages as m
from moqt_trio.wire.buffer import StreamBuffer
from moqt_trio.wire.messages import Expect, StreamKind
from tests.wire.strict import Frame, feed, pull_varint

LIMITS = Limits()
NAMES = ("moq-lite-03", "moq-lite-04", "moq-lite-05", "moq-lite-06")
VECTORS = [
    vector
    for vector in json.loads((Path(__file__).parents[1] / "vectors" / "moq-lite.json").read_text())["vectors"]
    if vector["dialect"] in NAMES
]
NOT_MESSAGES = {"STREAM_TYPE", "FRAME", "GROUP_STREAM", "FETCH_RESPONSE", "SETUP_STREAM", "DATAGRAM"}
STREAM_KINDS = {
    "ANNOUNCE": StreamKind.ANNOUNCE,
    "SUBSCRIBE": StreamKind.SUBSCRIBE,
    "FETCH": StreamKind.FETCH,
    "PROBE": StreamKind.PROBE,
    "GOAWAY": StreamKind.GOAWAY,
    "TRACK": StreamKind.TRACK,
    "GROUP": StreamKind.GROUP,
    "SETUP": StreamKind.SETUP,
}


@attrs.frozen
class Case:
    """One message vector: its bytes, the place where it is expected, and its fields."""

    version: str
    expect: Expect
    wire: bytes
    message: m.Message
    decode_only: bool = False

    @property
    def dialect(self):
        return dialects.get(self.version)

    @property
    def header(self) -> tuple[bytes, bytes]:
        """The type, if there is one, and the body. Every length in these vectors fits in one byte."""
        typed = self.expect is Expect.SUBSCRIBE_REPLY or (
            self.version == "moq-lite-06" and self.expect is Expect.ANNOUNCE_REPLY
        )
        size = 1 if typed else 0
        assert self.wire[size] == len(self.wire) - size - 1
        return self.wire[:size], self.wire[size + 1 :]


def _range(version: str, fields: dict) -> dict:
    if version != "moq-lite-06":
        return {
            "ordered": bool(fields["ordered"]),
            "max_age_ms": fields["max_latency_ms"],
            "start_group": fields["start"],
            "end_group": fields["end"],
        }
    return {
        "max_age_ms": fields["max_age_ms"],
        "start_group": fields["group_start"] or None,
        "end_group": fields["group_end"] - 1 if fields["group_end"] else None,
        "start_frame": fields["frame_start"],
        "end_frame": fields["frame_end"] - 1 if fields["frame_end"] else None,
    }


def _announce(fields: dict) -> m.Message:
    hops = fields["hops"]
    hops = (0,) * hops if isinstance(hops, int) else tuple(hops)
    if fields["status"] == "ended":
        return m.AnnounceEnd(suffix=fields["suffix"], hops=hops)
    return m.AnnounceStart(fields["suffix"], hops, restart=fields["status"] == "restart")


def _setup(fields: dict) -> m.Setup:
    params = fields["params"]
    role = {None: m.Role.BOTH, "publisher": m.Role.PUBLISHER, "subscriber": m.Role.SUBSCRIBER}[params.get("role")]
    return m.Setup(
        probe=m.ProbeLevel(params.get("probe", 0)),
        path=params.get("path"),
        role=role,
        cost=params.get("cost"),
        hop_id=params.get("origin", 0),
    )


def _meaning(vector: dict) -> tuple[Expect, m.Message]:
    version, name, f = vector["dialect"], vector["message"], vector["fields"]
    match name:
        case "ANNOUNCE_PLEASE" | "ANNOUNCE_INTEREST" | "ANNOUNCE_REQUEST":
            return Expect.ANNOUNCE_REQUEST, m.AnnounceRequest(f["prefix"], f.get("exclude_hop", 0))
        case "ANNOUNCE" | "ANNOUNCE_BROADCAST":
            return Expect.ANNOUNCE_REPLY, _announce(f)
        case "ANNOUNCE_OK":
            return Expect.ANNOUNCE_FIRST_REPLY, m.AnnounceOk(f["hop_id"], f["active_count"])
        case "ANNOUNCE_START":
            return Expect.ANNOUNCE_REPLY, m.AnnounceStart(f["suffix"], tuple(f["hops"]), f["cost"], f["cold"])
        case "ANNOUNCE_UPDATE":
            return Expect.ANNOUNCE_REPLY, m.AnnounceUpdate(f["id"], tuple(f["hops"]), f["cost"], f["cold"])
        case "ANNOUNCE_END":
            return Expect.ANNOUNCE_REPLY, m.AnnounceEnd(f["id"])
        case "SUBSCRIBE":
            values = _range(version, f)
            return Expect.SUBSCRIBE, m.Subscribe(f["id"], f["broadcast"], f["track"], f["priority"], **values)
        case "SUBSCRIBE_UPDATE":
            return Expect.SUBSCRIBE_UPDATE, m.SubscribeUpdate(f["priority"], **_range(version, f))
        case "SUBSCRIBE_OK":
            if "group" in f:
                return Expect.SUBSCRIBE_REPLY, m.SubscribeOk(f["group"])
            return Expect.SUBSCRIBE_REPLY, m.SubscribeOk(priority=f["priority"], **_range(version, f))
        case "SUBSCRIBE_END":
            return Expect.SUBSCRIBE_REPLY, m.SubscribeEnd(f["group"])
        case "SUBSCRIBE_DROP":
            return Expect.SUBSCRIBE_REPLY, m.SubscribeDrop(f["start"], f["end"], f["code"])
        case "GROUP":
            return Expect.GROUP, m.Group(f["subscribe"], f["group"], f.get("frame_start", 0))
        case "FETCH":
            end = f["frame_end"] - 1 if f.get("frame_end") else None
            start = f.get("frame_start", 0)
            return Expect.FETCH, m.Fetch(f["broadcast"], f["track"], f["priority"], f["group"], start, end)
        case "TRACK":
            return Expect.TRACK_REQUEST, m.TrackRequest(f["broadcast"], f["track"])
        case "TRACK_INFO":
            max_age_ms = f["max_latency_ms"] if version == "moq-lite-05" else f["max_age_ms"]
            return Expect.TRACK_INFO, m.TrackInfo(f["priority"], bool(f.get("ordered", 0)), max_age_ms, f["timescale"])
        case "PROBE":
            return Expect.PROBE, m.Probe(f["bitrate"], f.get("rtt_ms"))
        case "GOAWAY":
            return Expect.GOAWAY, m.Goaway(f["uri"])
        case "SETUP":
            return Expect.SETUP, _setup(f)
    raise AssertionError(f"no meaning is written down for {name}")


def _case(vector: dict) -> Case:
    expect, message = _meaning(vector)
    decode_only = vector.get("note", "").startswith("decode-only")
    return Case(vector["dialect"], expect, bytes.fromhex(vector["hex"]), message, decode_only)


CASES = [_case(vector) for vector in VECTORS if vector["message"] not in NOT_MESSAGES]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.version}-{case.wire.hex()[:32]}")


def _others(*names: str):
    found = [vector for vector in VECTORS if vector["message"] in names]
    return pytest.mark.parametrize("vector", found, ids=lambda v: f"{v['dialect']}-{v['message']}-{v['hex'][:24]}")


def test_no_vector_is_left_out():
    """Each version has its vectors here: none is skipped by a misspelled name."""
    counts = {name: sum(vector["dialect"] == name for vector in VECTORS) for name in NAMES}
    assert counts == {"moq-lite-03": 24, "moq-lite-04": 29, "moq-lite-05": 46, "moq-lite-06": 48}


@each_case
def test_vector_is_read_and_written_back(case):
    """A vector is read to its fields, and the fields are written to the vector."""
    buffer = StreamBuffer(case.wire)
    assert case.dialect.read_untrusted(case.expect, buffer, LIMITS) == case.message
    assert len(buffer) == 0
    if case.decode_only:
        with pytest.raises(LocalProtocolError):
            case.dialect.encode(case.message)
    else:
        assert case.dialect.encode(case.message) == case.wire


@each_case
def test_vector_byte_by_byte(case):
    """Fed one byte at a time, nothing is read and nothing is taken before the last byte; then all of it is."""
    buffer = StreamBuffer()
    for count, byte in enumerate(case.wire, 1):
        assert len(buffer) == count - 1
        buffer.feed(bytes((byte,)))
        message = case.dialect.read_untrusted(case.expect, buffer, LIMITS)
        assert (message is None) == (count < len(case.wire))
    assert message == case.message
    assert len(buffer) == 0


@each_case
def test_vector_leaves_what_follows(case):
    """What follows a message on the stream is not touched."""
    buffer = StreamBuffer(case.wire + case.wire + b"\x7f")
    for _ in range(2):
        assert case.dialect.read_untrusted(case.expect, buffer, LIMITS) == case.message
    assert buffer.take_all() == b"\x7f"


@each_case
def test_body_cut_anywhere_is_malformed(case):
    """A body whose length says that it ends within its fields is Malformed, at every cut."""
    kind, body = case.header
    for cut in range(len(body)):
        buffer = StreamBuffer(kind + bytes((cut,)) + body)
        with pytest.raises(Malformed) as caught:
            case.dialect.read_untrusted(case.expect, buffer, LIMITS)
        _check_scope(case.expect, caught.value)


@each_case
def test_body_with_a_byte_too_many_is_malformed(case):
    """A body whose length says that it exceeds its fields is Malformed."""
    kind, body = case.header
    for extra in (b"\x00", b"\xff"):
        buffer = StreamBuffer(kind + bytes((len(body) + 1,)) + body + extra)
        with pytest.raises(Malformed) as caught:
            case.dialect.read_untrusted(case.expect, buffer, LIMITS)
        _check_scope(case.expect, caught.value)


@each_case
def test_length_over_the_limit_fails_before_the_body(case):
    """A message may be as long as `max_message`; one byte more, or 2^62-1, fails without waiting for the body."""
    kind, body = case.header
    assert case.dialect.read_untrusted(
        case.expect, StreamBuffer(case.wire), attrs.evolve(LIMITS, max_message=len(body))
    )
    for limit, size in ((len(body) - 1, bytes((len(body),))), (LIMITS.max_message, b"\xff" * 8)):
        if limit == 0:
            continue
        with pytest.raises(LimitExceeded) as caught:
            case.dialect.read_untrusted(case.expect, StreamBuffer(kind + size), attrs.evolve(LIMITS, max_message=limit))
        assert caught.value.limit == "max_message"
        _check_scope(case.expect, caught.value)


@each_case
def test_padded_lengths_are_accepted(case):
    """A length that takes eight bytes where one would do means the same."""
    kind, body = case.header
    wire = kind + b"\xc0" + len(body).to_bytes(7, "big") + body
    assert case.dialect.read_untrusted(case.expect, StreamBuffer(wire), LIMITS) == case.message


def _check_scope(expect: Expect, error: Malformed | LimitExceeded) -> None:
    if expect is Expect.GROUP:
        assert (error.scope, error.code) == ("stream", 0x12)
    else:
        assert (error.scope, error.code) == ("session", 3)


@_others("STREAM_TYPE")
def test_stream_types(vector):
    """Each stream type stands for its kind in its direction, and the kind is written as that type."""
    dialect = dialects.get(vector["dialect"])
    kind = STREAM_KINDS[vector["fields"]["name"]]
    wire = bytes.fromhex(vector["hex"])
    assert dialect.stream_type(kind) == wire
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
    dialect = dialects.get(name)
    for number in [*range(16), 0x20, (1 << 62) - 1]:
        assert (dialect.stream_kind_untrusted(number, bidirectional=bidirectional) is not None) == (number in known)


def _frames(fields: list[dict]) -> list[Frame]:
    return [Frame(bytes.fromhex(f["payload"]), f.get("timestamp")) for f in fields]


@_others("FRAME")
def test_frame_vectors(vector):
    """A frame is written as its vector, and read back from it, counted from the timestamp before."""
    dialect, wire = dialects.get(vector["dialect"]), bytes.fromhex(vector["hex"])
    previous = vector["fields"].get("prev_timestamp", 0)
    (frame,) = _frames([vector["fields"]])
    assert dialect.encode_frame(frame.payload, frame.timestamp, previous) == wire
    for step in (1, 2, 3, 1000):
        decoder = dialect.frame_decoder(LIMITS)
        if previous:
            assert previous == 5000
            feed(decoder, bytes.fromhex("671000"))
        read = [f for at in range(0, len(wire), step) for f in feed(decoder, wire[at : at + step])]
        assert read == [frame]
        assert read[0].wire_size == len(wire)


@_others("GROUP_STREAM", "FETCH_RESPONSE")
def test_streams_of_frames(vector):
    """A whole stream is written from its parts, and read back from pieces of any size."""
    dialect, wire = dialects.get(vector["dialect"]), bytes.fromhex(vector["hex"])
    fields = vector["fields"]
    frames = _frames(fields["frames"])
    head = b""
    if vector["message"] == "GROUP_STREAM":
        group = m.Group(fields["subscribe"], fields["group"], fields.get("frame_start", 0))
        head = dialect.stream_type(StreamKind.GROUP) + dialect.encode(group)
    last = frames[-1].timestamp or 0
    encoder = dialect.frame_encoder()
    assert head + encoder.encode(frames) == wire
    assert encoder.encode([Frame(b"", last)]).endswith(b"\x00\x00" if dialect.features.timestamps else b"\x00")
    for step in (1, 2, 3, 7, 1000):
        buffer, decoder, read = StreamBuffer(), dialect.frame_decoder(LIMITS), []
        missing = 2 if head else 0
        for at in range(0, len(wire), step):
            buffer.feed(wire[at : at + step])
            if missing == 2 and (number := pull_varint(buffer)) is not None:
                assert dialect.stream_kind_untrusted(number, bidirectional=False) is StreamKind.GROUP
                missing = 1
            if missing == 1 and dialect.read_untrusted(Expect.GROUP, buffer, LIMITS) is not None:
                missing = 0
            if missing == 0:
                read += feed(decoder, buffer.take_all())
        assert read == frames
        assert decoder.pending_bytes == 0
        assert sum(frame.wire_size for frame in read) == len(wire) - len(head)


@_others("FRAME", "FETCH_RESPONSE")
def test_frames_cut_anywhere_are_incomplete(vector):
    """Cut at any byte, what stands before the cut is read whole, and what is left over is pending, not lost."""
    dialect, wire = dialects.get(vector["dialect"]), bytes.fromhex(vector["hex"])
    whole = feed(dialect.frame_decoder(LIMITS), wire) if vector["message"] == "FETCH_RESPONSE" else None
    for cut in range(len(wire)):
        decoder = dialect.frame_decoder(LIMITS)
        if vector["fields"].get("prev_timestamp"):
            feed(decoder, bytes.fromhex("671000"))
        read = feed(decoder, wire[:cut])
        assert sum(frame.wire_size for frame in read) + decoder.pending_bytes == cut
        assert read == ([] if whole is None else whole[: len(read)])


@_others("FRAME", "GROUP_STREAM", "FETCH_RESPONSE")
def test_a_byte_after_frames_begins_the_next(vector):
    """A byte too many belongs to a further frame, which is not complete: the end of the stream there is an error."""
    dialect, wire = dialects.get(vector["dialect"]), bytes.fromhex(vector["hex"])
    if vector["message"] == "GROUP_STREAM":
        buffer = StreamBuffer(wire)
        pull_varint(buffer)
        assert dialect.read_untrusted(Expect.GROUP, buffer, LIMITS) is not None
        wire = buffer.take_all()
    decoder = dialect.frame_decoder(LIMITS)
    if vector["fields"].get("prev_timestamp"):
        feed(decoder, bytes.fromhex("671000"))
    feed(decoder, wire)
    assert decoder.pending_bytes == 0
    assert feed(decoder, b"\x01") == []
    assert decoder.pending_bytes == 1


@_others("SETUP_STREAM")
def test_setup_stream(vector):
    """The setup stream is its type and one message, byte by byte as well; a byte after it is left over."""
    dialect, wire = dialects.get(vector["dialect"]), bytes.fromhex(vector["hex"])
    assert dialect.stream_type(StreamKind.SETUP) + dialect.encode(m.Setup()) == wire
    buffer = StreamBuffer()
    buffer.feed(wire[:1])
    assert dialect.stream_kind_untrusted(pull_varint(buffer), bidirectional=False) is StreamKind.SETUP
    for byte in wire[1:-1]:
        buffer.feed(bytes((byte,)))
        assert dialect.read_untrusted(Expect.SETUP, buffer, LIMITS) is None
    buffer.feed(wire[-1:] + b"\x00")
    assert dialect.read_untrusted(Expect.SETUP, buffer, LIMITS) == m.Setup()
    assert len(buffer) == 1


@_others("DATAGRAM")
def test_datagram_vectors(vector):
    """A datagram is read to its fields and written back, and is Malformed when it is cut within its numbers."""
    dialect, wire, f = dialects.get(vector["dialect"]), bytes.fromhex(vector["hex"]), vector["fields"]
    datagram = m.Datagram(f["subscribe"], f["group"], f["timestamp"], bytes.fromhex(f["payload"]))
    assert dialect.read_datagram_untrusted(wire) == datagram
    assert dialect.encode_datagram(datagram) == wire
    for cut in range(len(wire) - len(datagram.payload)):
        with pytest.raises(Malformed) as caught:
            dialect.read_datagram_untrusted(wire[:cut])
        assert caught.value.scope == "stream"
    longer = dialect.read_datagram_untrusted(wire + b"!")
    assert longer == attrs.evolve(datagram, payload=datagram.payload + b"!")
