"""The versions before moq-lite-03: what they cannot express, what a peer may not send, and paths as tuples."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire import messages as m
from moqt_trio.wire.buffer import Incomplete, StreamBuffer, UnframedReader
from moqt_trio.wire.dialect import Quirks
from moqt_trio.wire.messages import Expect, StreamKind
from tests.protocol.harness import has_streams

LIMITS = Limits()
TRANSFORK = dialects.get("moq-transfork-03")
DEVELOP = dialects.get("gomoqt-develop")
LITE_02 = dialects.get("moq-lite-02")
LITE_01 = dialects.get("moq-lite-01")
WIP = dialects.get("moq-lite-06-wip")
LEGACY = (TRANSFORK, DEVELOP, LITE_02, LITE_01)
TUPLES = (TRANSFORK, DEVELOP)

each_tuple_version = pytest.mark.parametrize("dialect", TUPLES, ids=lambda dialect: dialect.name)


def read(dialect, expect, wire, limits=LIMITS):
    data = wire if isinstance(wire, bytes) else bytes.fromhex(wire)
    return dialect.read_untrusted(expect, StreamBuffer(data), limits)


def framed(dialect, body: str) -> str:
    """Returns a body as the version puts it on the wire; bodies here are shorter than 64 bytes."""
    return body if dialect is TRANSFORK else f"{len(body) // 2:02x}" + body


# -- the registry ---------------------------------------------------------------------------------------------


def test_a_draft_is_offered_only_when_named():
    """A version that never was published is not offered by itself."""
    assert WIP.name not in dialects.version_names()
    assert dialects.resolve(["moq-lite-06-wip", "moq-lite-01"]) == (WIP, LITE_01)


def test_numbers_and_protocols():
    """The numbers and protocols of the versions are those of their drafts and peers."""
    assert [dialect.number for dialect in LEGACY] == [0xFF0BAD03, 0xFFFFFF00, 0xFF0DAD02, 0xFF0DAD01]
    assert [dialect.alpns for dialect in LEGACY] == [("moq-00",), ("moq-00",), ("moql",), ("moql", "moql-01")]
    assert [dialect.webtransport_protocols for dialect in LEGACY] == [(), (), ("moql",), ("moql",)]
    assert all(dialect.in_band for dialect in LEGACY)
    assert not WIP.in_band
    assert WIP.number is None


def test_features():
    """What the versions can do, as their drafts say."""

    def column(name):
        return [getattr(dialect.features, name) for dialect in LEGACY]

    assert column("setup") == ["session", "session", "compat", "compat"]
    assert column("announce_ids") == [False] * 4
    assert column("announce_first") == ["none", "none", "init", "init"]
    assert column("announce_live") == [True, True, False, False]
    assert column("announce_tracks") == [True, True, False, False]
    assert column("sender_hop") == ["none"] * 4
    assert column("exclude_hop") == [False] * 4
    assert column("subscribe_typed") == [False] * 4
    assert column("subscribe_end") == [False] * 4
    assert column("subscribe_drop") == [True, True, False, False]
    assert column("update_keeps_range") == [True, False, False, False]
    assert column("max_age") == [True, False, False, False]
    assert [has_streams(dialect.name, StreamKind.FETCH) for dialect in LEGACY] == [True, True, False, False]
    assert column("fetch_update") == [True, True, False, False]
    assert [has_streams(dialect.name, StreamKind.TRACK) for dialect in LEGACY] == [True, True, False, False]
    assert column("unknown_stream_closes") == [True] * 4
    for name in ("timestamps", "track_info", "goaway", "datagrams", "frame_ranges", "subscribe_ok_needs_group"):
        assert column(name) == [False] * 4
    for name in ("announce_full_paths", "accept_before_groups", "stray_zeros", "plain_codes", "subscribes_early"):
        assert [getattr(dialect.quirks, name) for dialect in LEGACY] == [False, True, False, False]
    assert [dialect.quirks.refuses_updates for dialect in LEGACY] == [False, False, True, True]
    assert WIP.quirks == Quirks()
    assert WIP.features == attrs.evolve(dialects.get("moq-lite-05").features, announce_ids=True, exclude_hop=False)


# -- what has no place in a version ---------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", LEGACY, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    "message",
    [
        m.Goaway(),
        m.Probe(1),
        m.Setup(),
        m.SubscribeEnd(1),
        m.AnnounceUpdate(1),
        m.AnnounceOk(1, 0),
        m.AnnounceEnd(announce_id=1),
        m.AnnounceStart("a", restart=True),
        m.Subscribe(0, "a", "t", start_frame=1),
        m.Subscribe(0, "a", "t", end_group=1, end_frame=1),
        m.Group(0, 1, start_frame=1),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_that_no_version_here_carries(dialect, message):
    """What a version cannot express is refused, not left out."""
    with pytest.raises(LocalProtocolError):
        dialect.encode(message)


@pytest.mark.parametrize("dialect", [LITE_01, LITE_02], ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    "message",
    [
        m.Subscribe(0, "a", "t", start_group=0),
        m.SubscribeUpdate(end_group=5),
        m.Fetch("a", "t", 0, 0),
        m.FetchUpdate(1),
        m.TrackRequest("a", "t"),
        m.SubscribeDrop(0, 1),
        m.AnnounceRequest("a", exclude_hop=3),
    ],
    ids=lambda message: type(message).__name__,
)
def test_messages_that_lite_02_lacks(dialect, message):
    """moq-lite-01 and -02 have neither ranges nor requests for single groups."""
    with pytest.raises(LocalProtocolError):
        dialect.encode(message)


@each_tuple_version
@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (m.Fetch("a", "t", 0, 0, end_frame=3), "to its end"),
        (m.Subscribe(0, "a", "t", priority=256), "0 to 255"),
        (m.FetchUpdate(-1), "0 to 255"),
        (m.SubscribeDrop(5, 4), "no range"),
        (m.AnnounceRequest("a//b"), "empty part"),
        (m.AnnounceRequest("/a"), "empty part"),
        (m.AnnounceStart("a/"), "empty part"),
        (m.Subscribe(0, "a", ""), "track name ''"),
        (m.Subscribe(0, "a", "t/1"), "track name 't/1'"),
        (m.TrackRequest("a", "t/1"), "track name 't/1'"),
        (m.Fetch("a", "/", 0, 0), "track name '/'"),
        (m.TrackRequest("a", "\ud800"), "UTF-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_tuple_cannot_hold(dialect, message, problem):
    """What is no tuple of parts is refused with a message that says why."""
    with pytest.raises(LocalProtocolError, match=problem):
        dialect.encode(message)


def test_develop_has_no_group_0():
    """Where 0 stands for "none", a range that starts or ends at group 0 cannot be asked for: without a lower bound a
    subscription starts at the latest group, which is not what was meant."""
    for ends in ({"start_group": 0}, {"end_group": 0}):
        with pytest.raises(LocalProtocolError, match="can't start or end at group 0"):
            DEVELOP.encode(m.Subscribe(0, "a", "t", **ends))
        with pytest.raises(LocalProtocolError, match="can't start or end at group 0"):
            DEVELOP.encode(m.SubscribeUpdate(**ends))
    with pytest.raises(LocalProtocolError, match="parameter 0x2 is bytes"):
        DEVELOP.encode(m.AnnounceRequest("a", parameters=((2, 7),)))


# -- what a peer may not send ---------------------------------------------------------------------------------


@each_tuple_version
@pytest.mark.parametrize(
    ("expect", "body", "problem"),
    [
        (Expect.ANNOUNCE_REPLY, "03" + "00", "unknown status 3"),
        (Expect.SUBSCRIBE_UPDATE, "00" + "03" + "000000", "unknown group order 3"),
        (Expect.ANNOUNCE_REQUEST, "01" + "01ff", "not UTF-8"),
    ],
)
def test_malformed(dialect, expect, body, problem):
    """A value that does not exist breaks the session."""
    with pytest.raises(Malformed, match=problem) as caught:
        read(dialect, expect, framed(dialect, body))
    assert (caught.value.scope, caught.value.code) == ("session", 3)


@each_tuple_version
@pytest.mark.parametrize("part", ["00", "01" + "2f", "03" + "612f62"], ids=["empty", "slash", "a/b"])
def test_parts_that_no_path_with_slashes_holds(dialect, part):
    """A part that is empty or has a slash is legal there and has no place here: only the stream is reset."""
    for expect, body in (
        (Expect.ANNOUNCE_REQUEST, "02" + "0161" + part),
        (Expect.ANNOUNCE_REPLY, "01" + "02" + "0161" + part),
        (Expect.SUBSCRIBE, "07" + "02" + part + "0161" + "0000000000"),
        (Expect.TRACK_REQUEST, "02" + "0161" + part),
    ):
        with pytest.raises(Malformed, match="no path with slashes") as caught:
            read(dialect, expect, framed(dialect, body))
        assert (caught.value.scope, caught.value.code) == ("stream", 0x36)


@each_tuple_version
@pytest.mark.parametrize(
    ("body", "limits", "limit"),
    [
        ("03" + "0161" * 3, {"max_path_parts": 2}, "max_path_parts"),
        ("01" + "04" + "61616161", {"max_path": 3}, "max_path"),
        ("02" + "026161" + "026161", {"max_path": 4}, "max_path"),
    ],
)
def test_limits_of_a_path(dialect, body, limits, limit):
    """A path is bounded in parts and in bytes, the slashes between its parts counted in."""
    with pytest.raises(LimitExceeded) as caught:
        read(dialect, Expect.ANNOUNCE_REQUEST, framed(dialect, body), attrs.evolve(LIMITS, **limits))
    assert (caught.value.limit, caught.value.scope) == (limit, "session")


def test_limits_of_a_batch():
    """A batch has its own bound in bytes, and may not name more broadcasts than may be announced."""
    wire = bytes.fromhex("07" + "02" + "0161" + "03622f63")
    limits = attrs.evolve(LIMITS, max_message=1, max_announce_init=7)
    assert read(LITE_02, Expect.ANNOUNCE_FIRST_REPLY, wire, limits) == m.AnnounceInit(("a", "b/c"))
    with pytest.raises(LimitExceeded) as caught:
        read(LITE_02, Expect.ANNOUNCE_FIRST_REPLY, wire, attrs.evolve(LIMITS, max_message=1, max_announce_init=6))
    assert caught.value.limit == "max_message"
    with pytest.raises(LimitExceeded) as caught:
        read(LITE_02, Expect.ANNOUNCE_FIRST_REPLY, wire, attrs.evolve(LIMITS, max_announcements=1))
    assert (caught.value.limit, caught.value.scope) == ("max_announcements", "stream")
    with pytest.raises(Malformed, match="announces 2 items in 1 bytes"):
        read(LITE_02, Expect.ANNOUNCE_FIRST_REPLY, "02" + "02" + "00")


def test_limits_of_parameters():
    """Parameters are bounded in number, and by what is left of the message."""
    with pytest.raises(LimitExceeded) as caught:
        read(DEVELOP, Expect.ANNOUNCE_REQUEST, "04" + "00" + "02" + "0100", attrs.evolve(LIMITS, max_parameters=1))
    assert caught.value.limit == "max_parameters"
    with pytest.raises(Malformed, match="announces 2 items"):
        read(DEVELOP, Expect.ANNOUNCE_REQUEST, "04" + "00" + "02" + "0100")


@pytest.mark.parametrize("dialect", LEGACY, ids=lambda dialect: dialect.name)
def test_places_that_no_version_here_has(dialect):
    """Expecting a message that a version lacks is the caller's mistake, whatever the peer sent."""
    with pytest.raises(LocalProtocolError, match="GOAWAY"):
        read(dialect, Expect.GOAWAY, "0100")


# -- what has another form ------------------------------------------------------------------------------------


@each_tuple_version
def test_a_priority_above_255_counts_as_the_highest(dialect):
    """A priority is a varint on the wire and 0 to 255 here: a higher number is read as 255."""
    assert read(dialect, Expect.FETCH_UPDATE, framed(dialect, "4100")) == m.FetchUpdate(255)
    assert read(dialect, Expect.FETCH_UPDATE, framed(dialect, "40ff")) == m.FetchUpdate(255)


@each_tuple_version
def test_info_names_the_latest_group(dialect):
    """INFO has the newest group: the one that is named, else the first that will be sent, else none."""
    age = "00" if dialect is TRANSFORK else ""
    for message, latest in ((m.SubscribeOk(7), 7), (m.SubscribeOk(7, latest_group=9), 9), (m.SubscribeOk(), 0)):
        wire = framed(dialect, f"00{latest:02x}02" + age)
        assert dialect.encode(message).hex() == wire
        assert read(dialect, Expect.SUBSCRIBE_FIRST_REPLY, wire) == m.SubscribeOk(latest_group=latest or None)
    assert dialect.encode(m.TrackInfo(ordered=None)).hex() == framed(dialect, "000000" + age)


def test_a_measured_bitrate_of_0_is_sent_as_1():
    """0 stands for "unknown" in SESSION_UPDATE."""
    assert LITE_02.encode(m.SessionUpdate(0)).hex() == "0101"
    assert LITE_02.encode(m.SessionUpdate()).hex() == "0100"


def test_live_of_develop_has_an_empty_suffix():
    """We write LIVE with its empty suffix, and read it with any suffix, with none, and with parameters."""
    assert DEVELOP.encode(m.AnnounceLive()).hex() == "020200"
    assert DEVELOP.encode(m.AnnounceLive(((2, b"x"),))).hex() == "060200" + "01020178"
    named = "060200" + "01020178"
    for wire, parameters in (("0102", None), ("020200", None), ("0402010161", None), (named, ((2, b"x"),))):
        assert read(DEVELOP, Expect.ANNOUNCE_REPLY, wire) == m.AnnounceLive(parameters)


def test_an_order_that_is_not_said():
    """Where the subscriber leaves the order to the publisher, moq-lite sends its default: not ascending."""
    lite = dialects.get("moq-lite-03")
    assert lite.encode(m.SubscribeUpdate(ordered=None)) == lite.encode(m.SubscribeUpdate(ordered=False))


def test_a_path_of_no_parts_names_no_track():
    """A request without a path is read as one for a track without a name: there is none, and none can be asked for."""
    assert read(TRANSFORK, Expect.TRACK_REQUEST, "00") == m.TrackRequest("", "")
    with pytest.raises(LocalProtocolError):
        TRANSFORK.encode(m.TrackRequest("", ""))
    assert TRANSFORK.encode(m.TrackRequest("", "video")).hex() == "01" + "05766964656f"


# -- messages without a length --------------------------------------------------------------------------------


def test_a_field_is_looked_at_once_for_each_field(monkeypatch):
    """A message that arrives byte by byte is tried again only when the field that was missing is there."""
    wire = TRANSFORK.encode(m.Subscribe(1, "a" * 200 + "/" + "b" * 200, "c" * 200))
    tried = []
    finished = UnframedReader.__init__

    def count(self, *args):
        finished(self, *args)
        tried.append(1)

    monkeypatch.setattr(UnframedReader, "__init__", count)
    buffer = StreamBuffer()
    for byte in wire:
        buffer.feed(bytes((byte,)))
        message = TRANSFORK.read_untrusted(Expect.SUBSCRIBE, buffer, LIMITS)
    assert message is not None
    assert len(wire) > 600
    assert len(tried) < 25


def test_a_buffer_that_was_read_from_forgets_what_it_waited_for():
    """A reader does not wait for the bytes that a reader before it waited for."""
    buffer = StreamBuffer(b"\x09\x01\x01\x02")
    with pytest.raises(Incomplete):
        UnframedReader(buffer, 100, "TEST").data("max_path", 100)
    with pytest.raises(Incomplete):
        UnframedReader(buffer, 100, "TEST")
    buffer.skip(3)
    assert UnframedReader(buffer, 100, "TEST").varint() == 2


@pytest.mark.parametrize(
    ("expect", "wire"), [(Expect.SUBSCRIBE, "010114"), (Expect.FETCH, "0114"), (Expect.GROUP, "c0000000000000ffc0")]
)
def test_a_message_that_does_not_end(expect, wire):
    """A message without a length is bounded like the others."""
    limits = attrs.evolve(LIMITS, max_message=8)
    with pytest.raises(LimitExceeded) as caught:
        read(TRANSFORK, expect, wire, limits)
    assert caught.value.limit == "max_message"
    assert caught.value.scope == ("stream" if expect is Expect.GROUP else "session")


@pytest.mark.parametrize("dialect", [*LEGACY, WIP], ids=lambda dialect: dialect.name)
@given(data=st.data())
def test_any_bytes(dialect, data):
    """Whatever a peer sends is waited for, read, or refused with a documented exception."""
    expect = data.draw(st.sampled_from([expect for expect in Expect if expect in dialect._reads]))
    wire = data.draw(st.binary(max_size=48))
    buffer = StreamBuffer(wire)
    try:
        message = dialect.read_untrusted(expect, buffer, LIMITS)
    except RemoteProtocolError:
        return
    rest = buffer.take_all()
    assert wire.endswith(rest)
    # Nothing is taken while a message is not whole, but for develop's zeros.
    assert message is not None or not wire.removesuffix(rest).strip(b"\0")
