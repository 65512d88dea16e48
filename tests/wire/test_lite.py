"""What the moq-lite codecs refuse, from a peer and from a caller, and where each bound lies."""

from __future__ import annotations

import attrs
import pytest

from moqt_trio import varint
from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed
from moqt_trio.limits import Limits
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire import messages as m
from moqt_trio.wire.buffer import StreamBuffer
from moqt_trio.wire.messages import Expect, StreamKind

LIMITS = Limits()
NAMES = ("moq-lite-03", "moq-lite-04", "moq-lite-05", "moq-lite-06")
LITE_03, LITE_04, LITE_05, LITE_06 = ALL = tuple(dialects.get(name) for name in NAMES)


def _read(dialect, expect, wire, limits=LIMITS):
    buffer = StreamBuffer(bytes.fromhex(wire) if isinstance(wire, str) else wire)
    return dialect.read_untrusted(expect, buffer, limits)


def _framed(body: bytes, kind: int | None = None) -> bytes:
    return (b"" if kind is None else bytes((kind,))) + varint.encode(len(body)) + body


def _text(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return varint.encode(len(raw)) + raw


# -- what a version has ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ALL, ids=repr)
def test_a_version_is_offered_under_its_name(dialect):
    """ALPN and the WebTransport subprotocol are the version's name."""
    assert dialect.alpns == dialect.webtransport_protocols == (dialect.name,)
    assert repr(dialect) == f"<Dialect {dialect.name}>"


@pytest.mark.parametrize(
    ("dialect", "kind"),
    [
        (LITE_03, StreamKind.GOAWAY),
        (LITE_04, StreamKind.TRACK),
        (LITE_04, StreamKind.SETUP),
        (LITE_06, StreamKind.SESSION),
    ],
)
def test_stream_kinds_that_a_version_lacks(dialect, kind):
    """A stream that a version lacks can't be opened."""
    with pytest.raises(LocalProtocolError, match=dialect.name):
        dialect.stream_type(kind)


@pytest.mark.parametrize(
    ("dialect", "expect"),
    [
        (LITE_03, Expect.GOAWAY),
        (LITE_03, Expect.ANNOUNCE_FIRST_REPLY),
        (LITE_04, Expect.SETUP),
        (LITE_04, Expect.TRACK_INFO),
        (LITE_06, Expect.SESSION_UPDATE),
        (LITE_06, Expect.FETCH_UPDATE),
    ],
)
def test_places_that_a_version_lacks(dialect, expect):
    """Expecting a message that a version lacks is the caller's mistake, whatever the peer sent."""
    with pytest.raises(LocalProtocolError, match=expect.value):
        _read(dialect, expect, "0100")


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        (LITE_03, m.Goaway("")),
        (LITE_03, m.AnnounceInit(())),
        (LITE_04, m.Setup()),
        (LITE_04, m.AnnounceOk(0, 0)),
        (LITE_04, m.SubscribeEnd(0)),
        (LITE_04, m.TrackInfo()),
        (LITE_05, m.AnnounceUpdate(0)),
        (LITE_06, m.AnnounceLive()),
    ],
)
def test_messages_that_a_version_lacks(dialect, message):
    """A message that a version lacks is refused, never dropped."""
    with pytest.raises(LocalProtocolError, match=type(message).__name__):
        dialect.encode(message)


def test_datagrams_begin_with_moq_lite_05():
    """Before moq-lite-05 a datagram can be neither written nor read, whatever it holds."""
    datagram = m.Datagram(7, 1, 7000, b"dgram")
    for dialect in (LITE_03, LITE_04):
        with pytest.raises(LocalProtocolError):
            dialect.encode_datagram(datagram)
        with pytest.raises(Malformed) as caught:
            dialect.read_datagram_untrusted(LITE_05.encode_datagram(datagram))
        assert caught.value.scope == "stream"


# -- what a caller can't send -----------------------------------------------------------------------------------

_SUBSCRIBE = m.Subscribe(0, "b", "t")
_UPDATE = m.SubscribeUpdate()
_FETCH = m.Fetch("b", "t", 0, 0)


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        (LITE_03, m.AnnounceRequest("", exclude_hop=5)),
        (LITE_06, m.AnnounceRequest("", exclude_hop=5)),
        (LITE_03, m.AnnounceStart("a", restart=True)),
        (LITE_05, m.AnnounceStart("a", restart=True)),
        (LITE_06, m.AnnounceStart("a", restart=True)),
        (LITE_05, m.AnnounceEnd(announce_id=0)),
        (LITE_06, m.AnnounceEnd(suffix="a")),
        (LITE_05, attrs.evolve(_SUBSCRIBE, start_frame=1)),
        (LITE_05, attrs.evolve(_SUBSCRIBE, end_group=1, end_frame=0)),
        (LITE_05, attrs.evolve(_UPDATE, start_frame=1)),
        (LITE_06, attrs.evolve(_SUBSCRIBE, end_frame=0)),
        (LITE_06, attrs.evolve(_UPDATE, end_frame=0)),
        (LITE_06, m.SubscribeOk(None)),
        (LITE_06, m.SubscribeDrop(5, 4)),
        (LITE_05, m.Group(0, 0, start_frame=1)),
        (LITE_05, attrs.evolve(_FETCH, start_frame=1)),
        (LITE_05, attrs.evolve(_FETCH, end_frame=1)),
        (LITE_06, attrs.evolve(_FETCH, start_frame=2, end_frame=1)),
        (LITE_05, m.TrackInfo(timescale=0)),
        (LITE_06, m.TrackInfo(timescale=0)),
        (LITE_06, attrs.evolve(_SUBSCRIBE, priority=256)),
        (LITE_06, attrs.evolve(_SUBSCRIBE, subscribe_id=-1)),
        (LITE_06, attrs.evolve(_SUBSCRIBE, track="\udfff")),
        (LITE_06, m.Setup(hop_id=1 << 62)),
    ],
)
def test_values_that_a_version_cannot_carry(dialect, message):
    """A value that would be lost or would not fit is the caller's mistake."""
    with pytest.raises(LocalProtocolError):
        dialect.encode(message)


def test_preferences_that_a_version_lacks_are_left_out():
    """Order, costs and round trips are hints: a version without them sends the rest."""
    plain = LITE_06.encode(_SUBSCRIBE)
    assert LITE_06.encode(attrs.evolve(_SUBSCRIBE, ordered=True)) == plain
    assert LITE_06.encode(m.TrackInfo(ordered=True)) == LITE_06.encode(m.TrackInfo())
    assert LITE_05.encode(m.AnnounceStart("a", (), 3, 4)) == LITE_05.encode(m.AnnounceStart("a"))
    assert LITE_03.encode(m.Probe(1, 2)) == LITE_03.encode(m.Probe(1))


def test_no_floor_and_a_floor_of_0_are_the_same_in_moq_lite_06():
    """In moq-lite-06 group 0 as a start excludes nothing, and is read as no lower bound."""
    wire = LITE_06.encode(attrs.evolve(_SUBSCRIBE, start_group=0))
    assert wire == LITE_06.encode(_SUBSCRIBE)
    assert _read(LITE_06, Expect.SUBSCRIBE, wire) == _SUBSCRIBE


def test_a_measured_0_is_sent_as_1():
    """0 means unknown in PROBE, so a measured 0 is sent as the smallest number that is known."""
    assert LITE_06.encode(m.Probe(0, 0)).hex() == "020101"
    assert _read(LITE_06, Expect.PROBE, "020000") == m.Probe(None, None)


# -- what a peer can't send -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "expect"),
    [(dialect, Expect.SUBSCRIBE_REPLY) for dialect in ALL] + [(LITE_06, Expect.ANNOUNCE_REPLY)],
)
def test_an_unknown_reply_type_breaks_the_stream_at_once(dialect, expect):
    """A reply of unknown type breaks its stream with its first byte; a half type is waited for."""
    with pytest.raises(Malformed) as caught:
        _read(dialect, expect, "03")
    assert caught.value.scope == "stream"
    assert _read(dialect, expect, "40") is None
    assert _read(dialect, expect, "") is None
    assert _read(dialect, expect, "00") is None


@pytest.mark.parametrize(("dialect", "highest"), [(LITE_03, 1), (LITE_04, 1), (LITE_05, 2)])
def test_announce_statuses(dialect, highest):
    """An announce status that a version does not have is Malformed."""
    for status in range(highest + 1):
        assert _read(dialect, Expect.ANNOUNCE_REPLY, _framed(bytes((status,)) + _text("a") + b"\x00"))
    for status in (highest + 1, 0xFF):
        with pytest.raises(Malformed, match="status"):
            _read(dialect, Expect.ANNOUNCE_REPLY, _framed(bytes((status,)) + _text("a") + b"\x00"))


_LISTS = {
    LITE_04: lambda hops: _framed(b"\x01" + _text("a") + hops),
    LITE_05: lambda hops: _framed(b"\x01" + _text("a") + hops),
    LITE_06: lambda hops: _framed(_text("a") + hops + b"\x00\x00", 0),
}


@pytest.mark.parametrize("dialect", _LISTS, ids=repr)
def test_hop_lists(dialect):
    """A hop list has at most `max_hops` entries, and its count is checked before its entries."""
    most = bytes(range(1, 33))
    message = _read(dialect, Expect.ANNOUNCE_REPLY, _LISTS[dialect](b"\x20" + most))
    assert message.hops == tuple(most)
    with pytest.raises(LimitExceeded) as caught:
        _read(dialect, Expect.ANNOUNCE_REPLY, _LISTS[dialect](b"\x21" + most + b"\x21"))
    assert (caught.value.limit, caught.value.value, caught.value.scope) == ("max_hops", 33, "session")
    with pytest.raises(Malformed):
        _read(dialect, Expect.ANNOUNCE_REPLY, _LISTS[dialect](b"\x20" + most[:20]))
    with pytest.raises(LimitExceeded):
        _read(dialect, Expect.ANNOUNCE_REPLY, _LISTS[dialect](varint.encode(1_000_000)))


def test_hop_counts_of_moq_lite_03():
    """A hop count is at most `max_hops`; no hop is known, so each is 0."""
    wire = b"\x01" + _text("a")
    assert _read(LITE_03, Expect.ANNOUNCE_REPLY, _framed(wire + b"\x20")) == m.AnnounceStart("a", (0,) * 32)
    for count in (33, 1_000_000, varint.MAX):
        with pytest.raises(LimitExceeded):
            _read(LITE_03, Expect.ANNOUNCE_REPLY, _framed(wire + varint.encode(count)))


def test_a_hop_that_is_there_twice():
    """In moq-lite-06 a hop that is there twice is Malformed; an unknown hop, 0, may repeat."""
    start = _LISTS[LITE_06]
    assert _read(LITE_06, Expect.ANNOUNCE_REPLY, start(b"\x04\x00\x05\x00\x06")).hops == (0, 5, 0, 6)
    with pytest.raises(Malformed, match="twice"):
        _read(LITE_06, Expect.ANNOUNCE_REPLY, start(b"\x03\x05\x06\x05"))
    with pytest.raises(Malformed, match="twice"):
        _read(LITE_06, Expect.ANNOUNCE_REPLY, _framed(b"\x00\x02\x05\x05\x00\x00", 2))
    assert _read(LITE_05, Expect.ANNOUNCE_REPLY, _LISTS[LITE_05](b"\x02\x05\x05")).hops == (5, 5)


_TEXTS = [
    ("max_path", Expect.ANNOUNCE_REQUEST, lambda text: _framed(_text(text))),
    ("max_path", Expect.ANNOUNCE_REPLY, lambda text: _framed(_text(text) + b"\x00\x00\x00", 0)),
    ("max_path", Expect.SUBSCRIBE, lambda text: _framed(b"\x00" + _text(text) + _text("t") + bytes(6))),
    ("max_track_name", Expect.SUBSCRIBE, lambda text: _framed(b"\x00" + _text("b") + _text(text) + bytes(6))),
    ("max_path", Expect.FETCH, lambda text: _framed(_text(text) + _text("t") + bytes(4))),
    ("max_track_name", Expect.FETCH, lambda text: _framed(_text("b") + _text(text) + bytes(4))),
    ("max_path", Expect.TRACK_REQUEST, lambda text: _framed(_text(text) + _text("t"))),
    ("max_track_name", Expect.TRACK_REQUEST, lambda text: _framed(_text("b") + _text(text))),
    ("max_uri", Expect.GOAWAY, lambda text: _framed(_text(text))),
    ("max_uri", Expect.SETUP, lambda text: _framed(b"\x01\x02" + _text(text))),
]


@pytest.mark.parametrize(("limit", "expect", "wire"), _TEXTS, ids=[f"{e.value}-{n}" for n, e, _ in _TEXTS])
def test_texts(limit, expect, wire):
    """A text has at most as many bytes as its limit says, and is UTF-8."""
    bound = getattr(LIMITS, limit)
    assert _read(LITE_06, expect, wire("x" * bound))
    with pytest.raises(LimitExceeded) as caught:
        _read(LITE_06, expect, wire("x" * (bound + 1)))
    assert (caught.value.limit, caught.value.value, caught.value.scope) == (limit, bound + 1, "session")
    for bad in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"):
        with pytest.raises(Malformed, match="UTF-8") as malformed:
            _read(LITE_06, expect, wire(bad))
        assert (malformed.value.scope, malformed.value.code) == ("session", 3)


def test_texts_are_opaque():
    """A track name may hold any character; escaping it for a log is not the codec's work."""
    request = m.TrackRequest("a/../b", "\x00\r\n\x1b[31m")
    assert _read(LITE_06, Expect.TRACK_REQUEST, LITE_06.encode(request)) == request


def test_path_parts():
    """A path has at most `max_path_parts` parts; slashes that separate nothing do not count."""
    most = "/".join(["a"] * LIMITS.max_path_parts)
    for path in (most, f"//{most}//", "/" * 100):
        assert _read(LITE_06, Expect.ANNOUNCE_REQUEST, _framed(_text(path))) == m.AnnounceRequest(path)
    with pytest.raises(LimitExceeded) as caught:
        _read(LITE_06, Expect.ANNOUNCE_REQUEST, _framed(_text(most + "/a")))
    assert (caught.value.limit, caught.value.value) == ("max_path_parts", 33)


@pytest.mark.parametrize(
    ("dialect", "expect", "body"),
    [
        (LITE_03, Expect.SUBSCRIBE_UPDATE, "0002000000"),
        (LITE_05, Expect.SUBSCRIBE_UPDATE, "00ff000000"),
        (LITE_05, Expect.TRACK_INFO, "00020001"),
    ],
)
def test_flags_are_0_or_1(dialect, expect, body):
    """`ordered` is 0 or 1, and anything else is Malformed."""
    with pytest.raises(Malformed, match="0 or 1"):
        _read(dialect, expect, _framed(bytes.fromhex(body)))


@pytest.mark.parametrize(("dialect", "wire"), [(LITE_05, "0400000000"), (LITE_06, "03000000")])
def test_a_timescale_of_0(dialect, wire):
    """A timescale of 0 units per second is Malformed."""
    with pytest.raises(Malformed, match="timescale") as caught:
        _read(dialect, Expect.TRACK_INFO, wire)
    assert caught.value.scope == "session"


@pytest.mark.parametrize(
    ("expect", "wire"),
    [
        (Expect.SUBSCRIBE, _framed(b"\x00" + _text("b") + _text("t") + bytes.fromhex("000000000001"))),
        (Expect.SUBSCRIBE_UPDATE, "06000000000001"),
        (Expect.FETCH, _framed(_text("b") + _text("t") + bytes.fromhex("00000201"))),
        (Expect.FETCH, _framed(_text("b") + _text("t") + bytes.fromhex("00000202"))),
        (Expect.SUBSCRIBE_REPLY, "0203050400"),
    ],
    ids=["subscribe", "update", "fetch-backwards", "fetch-empty", "drop"],
)
def test_ranges_that_make_no_sense_break_only_their_stream(expect, wire):
    """In moq-lite-06 an end frame without an end group, and a range of nothing, break the stream they came on."""
    with pytest.raises(Malformed) as caught:
        _read(LITE_06, expect, wire)
    assert (caught.value.scope, caught.value.code) == ("stream", 0)


def test_fetch_ranges():
    """The last frame of a fetch is inclusive: a range of one frame has the same start and end."""
    wire = _framed(_text("b") + _text("t") + bytes.fromhex("00000203"))
    assert _read(LITE_06, Expect.FETCH, wire) == m.Fetch("b", "t", 0, 0, 2, 2)


# -- SETUP ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", [LITE_05, LITE_06], ids=repr)
class TestSetup:
    """SETUP parameters."""

    def test_unknown_parameters_are_kept_apart(self, dialect):
        """A parameter that is not known is no error: it is listed, and never written."""
        setup = _read(dialect, Expect.SETUP, "0a034abc000101010701ff")
        assert setup == m.Setup(m.ProbeLevel.REPORT, unknown=((0xABC, b""), (7, b"\xff")))
        assert dialect.encode(setup) == dialect.encode(m.Setup(m.ProbeLevel.REPORT))

    def test_unknown_values(self, dialect):
        """A probe level that is not known counts as the highest, a role that is not known as both."""
        assert _read(dialect, Expect.SETUP, "0401010109") == m.Setup(m.ProbeLevel.INCREASE)
        assert _read(dialect, Expect.SETUP, "0401030109") == m.Setup(role=m.Role.BOTH)
        assert _read(dialect, Expect.SETUP, "0b010308ffffffffffffffff") == m.Setup()

    def test_a_parameter_twice_is_a_violation(self, dialect):
        """The same parameter twice closes the session with PROTOCOL_VIOLATION (moq-lite-06, section 7.3)."""
        for wire in ("0702010101010101", "050207000700", "0702050101050101"):
            body = bytes.fromhex(wire[2:])
            with pytest.raises(Malformed, match="twice") as caught:
                _read(dialect, Expect.SETUP, _framed(body))
            assert (caught.value.scope, caught.value.code) == ("session", 3)

    @pytest.mark.parametrize("number", [1, 3, 4, 5])
    def test_a_number_fills_its_value(self, dialect, number):
        """A value that should be one number and is cut, or has bytes after it, is Malformed."""
        for value in (b"", b"\x40", b"\x01\x01"):
            with pytest.raises(Malformed):
                _read(dialect, Expect.SETUP, _framed(bytes((1, number)) + _text(value)))
        assert _read(dialect, Expect.SETUP, _framed(bytes((1, number)) + _text(b"\x40\x01"))) is not None

    def test_parameter_counts(self, dialect):
        """There are at most `max_parameters`, and no more than there are bytes for."""
        many = b"".join(varint.encode(0x100 + i) + b"\x00" for i in range(65))
        assert len(_read(dialect, Expect.SETUP, _framed(b"\x40\x40" + many[:-3])).unknown) == 64
        for count in (65, 1_000_000, varint.MAX):
            with pytest.raises(LimitExceeded) as caught:
                _read(dialect, Expect.SETUP, _framed(varint.encode(count) + many))
            assert caught.value.limit == "max_parameters"
        with pytest.raises(Malformed):
            _read(dialect, Expect.SETUP, _framed(b"\x02\x07\x00\x08"))

    def test_every_parameter_comes_back(self, dialect):
        """A SETUP with everything in it is read as it was written."""
        setup = m.Setup(m.ProbeLevel.INCREASE, "/a?b=ü", m.Role.SUBSCRIBER, 0, (1 << 62) - 1)
        assert _read(dialect, Expect.SETUP, dialect.encode(setup)) == setup
