"""The parts of IETF messages: numbers, names, filters, parameters, properties, tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moqt_trio.codes import SessionCode
from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed
from moqt_trio.limits import Limits
from moqt_trio.wire.buffer import StreamBuffer
from moqt_trio.wire.ietf import messages as m
from moqt_trio.wire.ietf import names, numbers, properties
from moqt_trio.wire.ietf.codec import ControlCodec
from moqt_trio.wire.ietf.filters import Filter, Start, read_filter, write_filter
from moqt_trio.wire.ietf.names import Location, TrackName
from moqt_trio.wire.ietf.parameters import Parameters
from moqt_trio.wire.ietf.profile import PROFILES
from moqt_trio.wire.ietf.tokens import AliasType, Token

LIMITS = Limits()
CODECS = {draft: ControlCodec(profile) for draft, profile in PROFILES.items()}
TRACK = TrackName((b"live", b"cam"), b"video")
LONG = [draft for draft in PROFILES if draft >= 17]


def read(draft, data):
    return CODECS[draft].read_untrusted(StreamBuffer(data), LIMITS)


def body(draft, number, content):
    """A message with a type of one byte and this body."""
    return PROFILES[draft].encode(number) + len(content).to_bytes(2, "big") + content


# -- numbers -----------------------------------------------------------------------------------------------------

# Examples of the draft, section 1.4.1, and of the peers.
NUMBERS = {
    37: "25",
    15293: "bbbd",
    0x2F00: "af00",
    10000: "a710",
    1000000: "cf4240",
    226442877: "ed7f3e7d",
    0x132B3E28: "f0132b3e28",
    2**64 - 1: "ff" * 9,
}


@pytest.mark.parametrize(("value", "shown"), NUMBERS.items())
def test_examples_of_numbers(value, shown):
    """A number is read and written as in the draft."""
    assert numbers.decode(bytes.fromhex(shown)) == (value, len(shown) // 2)
    assert numbers.encode(value) == bytes.fromhex(shown)


@given(st.integers(0, numbers.MAX))
def test_numbers_come_back(value):
    """Every number comes back, and is not there before its last byte."""
    data = numbers.encode(value)
    assert numbers.decode(b"x" + data + b"y", 1) == (value, 1 + len(data))
    assert all(numbers.decode(data[:size]) is None for size in range(len(data)))


@pytest.mark.parametrize("value", [-1, 2**64])
def test_numbers_out_of_range(value):
    """A number has 64 bits."""
    with pytest.raises(LocalProtocolError, match="2\\*\\*64-1"):
        numbers.encode(value)


def test_seven_bytes():
    """A number may take more bytes than it needs, but seven not in draft 17."""
    seven = b"\xfc" + bytes(5) + b"\x05"
    assert numbers.decode(seven) == (5, 7)
    message = body(18, 0x10, b"\0" + seven)
    assert read(18, message) == m.Goaway("", 5)
    with pytest.raises(Malformed, match="seven bytes"):
        read(17, message)


@pytest.mark.parametrize("draft", LONG)
def test_a_number_that_is_cut_off(draft):
    """A number that reaches beyond its message is refused."""
    with pytest.raises(Malformed, match="ends where a number is due"):
        read(draft, body(draft, 0x10, b"\0\xff\0"))


# -- names -------------------------------------------------------------------------------------------------------


def fields(profile, namespace, *behind):
    """A reader of a namespace, whatever its size, and of what follows it."""
    writer = profile.writer()
    writer.varint(len(namespace))
    for field in (*namespace, *behind):
        writer.data(field)
    return profile.reader(writer.getvalue(), "NAMESPACE")


@pytest.mark.parametrize("draft", PROFILES)
def test_namespaces_that_are_too_large(draft):
    """A namespace has at most 32 fields, and with the track's name 4,096 bytes; both ways."""
    codec = CODECS[draft]
    many = (b"x",) * 33
    long = (b"x" * 2048, b"y" * 2049)
    for namespace in (many, long):
        with pytest.raises(LocalProtocolError):
            codec.encode(m.PublishNamespace(2, namespace))
    with pytest.raises(LocalProtocolError):
        codec.encode(m.Subscribe(2, TrackName((b"x" * 4000,), b"y" * 97), wanted(draft)))
    profile = PROFILES[draft]
    with pytest.raises(Malformed, match="33 fields"):
        names.read_namespace(fields(profile, many), profile)
    with pytest.raises(Malformed, match="4097 bytes"):
        names.read_namespace(fields(profile, long), profile)
    with pytest.raises(Malformed, match="full track name"):
        names.read_track(fields(profile, (b"x" * 4000,), b"y" * 97), profile)


@pytest.mark.parametrize("draft", PROFILES)
def test_empty_fields(draft):
    """An empty field of a namespace ends the session from draft 16 on."""
    profile = PROFILES[draft]
    if draft <= 15:
        assert names.read_namespace(profile.reader(b"\1\0", "NAMESPACE"), profile) == (b"",)
        return
    with pytest.raises(Malformed, match="empty field"):
        names.read_namespace(profile.reader(b"\1\0", "NAMESPACE"), profile)
    with pytest.raises(LocalProtocolError, match="empty field"):
        CODECS[draft].encode(m.PublishNamespace(2, (b"",)))


@pytest.mark.parametrize("draft", PROFILES)
def test_reasons(draft):
    """A reason is cut to its length between two characters, and read whatever its bytes are."""
    codec = CODECS[draft]
    id_ = 2 if draft <= 16 else None
    done = codec.encode(m.PublishDone(id_, 2, 1, "é" * 1000))
    found = read(draft, done)
    assert found.reason == "é" * 512
    broken = codec.encode(m.PublishDone(id_, 2, 1, "xx")).replace(b"xx", b"\xff\xfe")
    assert read(draft, broken).reason == "\ufffd\ufffd"


# -- filters -----------------------------------------------------------------------------------------------------

LOCATIONS = st.builds(Location, st.integers(0, 2**40), st.integers(0, 2**40))
RANGES = st.builds(
    lambda start, groups, objects: Filter(
        start, start.group + groups, None if objects is None else objects + (0 if groups else start.object)
    ),
    LOCATIONS,
    st.integers(0, 1000),
    st.none() | st.integers(0, 1000),
)
FILTERS = (
    st.builds(Filter, st.sampled_from(Start))
    | st.builds(Filter, st.integers(1, 1000))
    | st.builds(Filter, LOCATIONS)
    | RANGES
)


def fits(draft, chosen):
    """Whether a draft can say it."""
    if draft >= 20:
        return draft == 22 or chosen != Filter(Location(0, 0))
    return not isinstance(chosen.start, int) and chosen.end_object is None


@pytest.mark.parametrize("draft", PROFILES)
@given(chosen=FILTERS)
def test_filters_come_back(draft, chosen):
    """What a draft can say comes back; what it can't is refused."""
    profile = PROFILES[draft]
    writer = profile.writer()
    if not fits(draft, chosen):
        with pytest.raises(LocalProtocolError):
            write_filter(writer, chosen, profile)
        return
    write_filter(writer, chosen, profile)
    reader = profile.reader(writer.getvalue(), "filter")
    assert read_filter(reader, profile) == chosen
    reader.expect_end()


@pytest.mark.parametrize("draft", PROFILES)
@pytest.mark.parametrize(
    "chosen",
    [
        Filter(Start.NEXT_GROUP, 5),
        Filter(3, 5),
        Filter(0),
        Filter(-1),
        Filter(Location(5, 0), 4),
        Filter(Location(5, 0), None, 4),
    ],
    ids=str,
)
def test_filters_that_nobody_can_say(draft, chosen):
    """An end needs a location before it, and comes after it."""
    if draft <= 16 and chosen == Filter(Location(5, 0), 4):
        return  # the end is absolute there; the peer refuses it
    with pytest.raises(LocalProtocolError):
        write_filter(PROFILES[draft].writer(), chosen, PROFILES[draft])


@pytest.mark.parametrize(
    ("draft", "data"),
    [
        (14, b"\0"),
        (16, b"\5"),
        (16, b"\4\5\0\4"),
        (18, b"\0"),
        (20, bytes(5)),
        (20, b"\5\5\0\4"),
        (22, b"\6"),
        (22, b"\4\5\5\0\4"),
    ],
)
def test_filters_that_are_none(draft, data):
    """Types, counts and ranges that no filter has."""
    with pytest.raises(Malformed):
        read_filter(PROFILES[draft].reader(data, "filter"), PROFILES[draft])


@pytest.mark.parametrize("draft", [20, 21, 22])
def test_no_filter(draft):
    """From draft 20 on a filter may say that everything passes."""
    message = m.Subscribe(2, TRACK, Parameters(filter=()))
    assert read(draft, CODECS[draft].encode(message)) == message


# -- parameters --------------------------------------------------------------------------------------------------


def wanted(draft):
    """The parameters that SUBSCRIBE has at the least."""
    return Parameters(filter=Filter(Start.NEXT_OBJECT)) if draft == 14 else Parameters()


@pytest.mark.parametrize("draft", PROFILES)
def test_unknown_parameters(draft):
    """A parameter of unknown type is kept up to draft 15, and ends the session from 16 on."""
    head = CODECS[draft].encode(m.Subscribe(2, TRACK, wanted(draft)))[3:-1]
    message = body(draft, 0x03, head + b"\2\x1c\5\1\2ab" if draft >= 16 else head + b"\2\x1c\5\x1d\2ab")
    if draft >= 16:
        with pytest.raises(Malformed, match="unknown type 0x1c"):
            read(draft, message)
        return
    found = read(draft, message)
    assert found.parameters.unknown == ((0x1C, 5), (0x1D, b"ab"))
    assert CODECS[draft].encode(found) == message


@pytest.mark.parametrize("draft", LONG)
def test_misplaced_parameters(draft):
    """From draft 17 on a message has its own parameters only, both ways; before, one out of place means nothing."""
    message = m.PublishNamespace(2, (b"live",), Parameters(forward=True))
    with pytest.raises(LocalProtocolError, match="no parameter forward in this message"):
        CODECS[draft].encode(message)
    head = CODECS[draft].encode(m.PublishNamespace(2, (b"live",)))[3:-1]
    with pytest.raises(Malformed, match="may not carry"):
        read(draft, body(draft, 0x06, head + b"\1\x10\1"))
    assert read(16, CODECS[16].encode(message)) == message


@pytest.mark.parametrize("draft", [draft for draft in PROFILES if draft >= 15])
@pytest.mark.parametrize("twice", [b"\2\x10\1\0\1", b"\2\x20\5\0\5"], ids=["forward", "priority"])
def test_parameters_twice(draft, twice):
    """Only tokens and range filters may be there more than once."""
    if draft == 15:
        twice = twice[:3] + twice[1:3]
    head = CODECS[draft].encode(m.Subscribe(2, TRACK))[3:-1]
    with pytest.raises(Malformed, match="two parameters"):
        read(draft, body(draft, 0x03, head + twice))


@pytest.mark.parametrize("draft", [16, 18, 22])
@pytest.mark.parametrize("content", [b"\1\x10\2", b"\1\x22\0", b"\1\x22\3"], ids=["forward 2", "order 0", "order 3"])
def test_values_out_of_range(draft, content):
    """A value that its type does not have ends the session."""
    head = CODECS[draft].encode(m.Subscribe(2, TRACK))[3:-1]
    with pytest.raises(Malformed):
        read(draft, body(draft, 0x03, head + content))


def test_a_priority_beyond_a_byte():
    """Up to draft 16 a priority is a number that may be too large; both ways."""
    head = CODECS[16].encode(m.Subscribe(2, TRACK))[3:-1]
    with pytest.raises(Malformed, match="priority of 256"):
        read(16, body(16, 0x03, head + b"\1\x20\x41\0"))
    for draft in (16, 18):
        with pytest.raises(LocalProtocolError):
            CODECS[draft].encode(m.Subscribe(2, TRACK, Parameters(priority=256)))


@pytest.mark.parametrize(
    ("draft", "values"),
    [
        (14, {"rendezvous_ms": 5}),
        (16, {"rendezvous_ms": 5}),
        (17, {"subgroup_timeout_ms": 5}),
        (18, {"include_properties": False}),
        (19, {"fill": Parameters()}),
        (18, {"range_filters": ((0x25, b"\0"),)}),
        (16, {"max_cache_ms": 5}),
    ],
)
def test_parameters_that_a_draft_lacks(draft, values):
    """They are refused where they are written."""
    chosen = Parameters(filter=wanted(draft).filter, **values)
    with pytest.raises(LocalProtocolError, match=f"draft {draft} has no parameter"):
        CODECS[draft].encode(m.Subscribe(2, TRACK, chosen))


@pytest.mark.parametrize("draft", PROFILES)
def test_too_many_parameters(draft):
    """`Limits.max_parameters` bounds them before anything is allocated."""
    head = CODECS[draft].encode(m.Subscribe(2, TRACK, wanted(draft)))[3:-1]
    with pytest.raises(LimitExceeded):
        read(draft, body(draft, 0x03, head + PROFILES[draft].encode(10_000)))


@pytest.mark.parametrize("draft", [18, 20, 22])
def test_a_prefix_that_does_not_decode(draft):
    """TRACK_NAMESPACE_PREFIX is read in both of the forms that peers write, and in no other."""
    for content in (b"\2\1a\1b", b"\5\2\1a\1b"):
        found = read(draft, body(draft, 0x02, b"\2\1\x34" + content))
        assert found.parameters.prefix == (b"a", b"b")
    name = "日本".encode()
    found = read(draft, body(draft, 0x02, b"\2\1\x34\x08\1\6" + name))
    assert found.parameters.prefix == (name,)
    with pytest.raises(Malformed, match="prefix"):
        read(draft, body(draft, 0x02, b"\2\1\x34\x7f\1"))


TOKENS = [
    Token(b"secret", 3),
    Token(b"", 0, AliasType.USE_ALIAS, 7),
    Token(b"", 0, AliasType.DELETE, 7),
    Token(b"secret", 0, AliasType.REGISTER, 7),
]


@pytest.mark.parametrize("draft", PROFILES)
def test_tokens(draft):
    """Tokens come back in their order, however many there are, and their value is in no repr."""
    message = m.PublishNamespace(2, (b"live",), Parameters(tokens=tuple(TOKENS)))
    assert read(draft, CODECS[draft].encode(message)) == message
    assert "secret" not in repr(message)


@pytest.mark.parametrize("draft", PROFILES)
def test_tokens_that_are_none(draft):
    """An alias type that there is not, and an alias where it does not belong."""
    with pytest.raises(Malformed, match="alias type 4") as caught:
        read(draft, body(draft, 0x06, (b"\2\0" if draft == 17 else b"\2") + b"\1\1a\1\3\1\4"))
    assert caught.value.code == SessionCode.KEY_VALUE_FORMATTING_ERROR
    for token in (Token(b"x", 0, AliasType.USE_VALUE, 7), Token(b"", 0, AliasType.DELETE)):
        with pytest.raises(LocalProtocolError, match="alias"):
            CODECS[draft].encode(m.PublishNamespace(2, (b"live",), Parameters(tokens=(token,))))


# -- properties --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pairs",
    [((2, b"x"),), ((3, 5),), ((3, bytes(properties.MAX_VALUE + 1)),)],
    ids=["bytes for a number", "a number for bytes", "too long"],
)
def test_pairs_that_do_not_fit(pairs):
    """The type says which value it has."""
    for draft in (14, 22):
        with pytest.raises(LocalProtocolError):
            properties.write_pairs(PROFILES[draft].writer(), pairs, PROFILES[draft])


def test_pairs_out_of_order():
    """From draft 16 on the types ascend; before, any order is kept."""
    pairs = ((4, 1), (2, 1))
    with pytest.raises(LocalProtocolError, match="0x2 after one of 0x4"):
        properties.write_pairs(PROFILES[16].writer(), pairs, PROFILES[16])
    writer = PROFILES[15].writer()
    properties.write_pairs(writer, pairs, PROFILES[15])
    assert properties.read_pairs(PROFILES[15].reader(writer.getvalue(), "x"), PROFILES[15], LIMITS) == pairs


def test_types_beyond_64_bits():
    """The sum of the differences stays below 2**64."""
    data = numbers.encode(2**64 - 2) + b"\0" + b"\2\0"
    with pytest.raises(Malformed, match="2\\*\\*64-1"):
        properties.read_pairs(PROFILES[18].reader(data, "x"), PROFILES[18], LIMITS)


def test_too_many_pairs():
    """`Limits.max_parameters` bounds a list that reaches to the end of its message, too."""
    data = b"\0\0" * (LIMITS.max_parameters + 1)
    with pytest.raises(LimitExceeded):
        properties.read_pairs(PROFILES[18].reader(data, "x"), PROFILES[18], LIMITS)


@pytest.mark.parametrize("draft", [14, 16, 18])
def test_a_fetch_of_no_objects(draft):
    """A range that ends where it starts is an empty one, which is answered and no mistake."""
    message = m.Fetch(2, TRACK, Filter(Location(5, 3), 5, 2), wanted(draft) if draft > 14 else Parameters(priority=128))
    assert read(draft, CODECS[draft].encode(message)) == message


# -- messages that a draft lacks, or that lack something ---------------------------------------------------------


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        (18, m.Unsubscribe(2)),
        (14, m.SubscribeTracks(2, ())),
        (16, m.SubscribeTracks(2, ())),
        (18, m.PublishOk(None)),
        (14, m.RequestOk(2, answered=m.Answered.FETCH)),
        (14, m.RequestError(2, 1)),
        (14, m.RequestError(None, 1, answered=m.Answered.FETCH)),
        (14, m.RequestOk(None, answered=m.Answered.PUBLISH_NAMESPACE)),
        (14, m.SubscribeOk(None, 1)),
        (14, m.PublishOk(None)),
        (14, m.FetchOk(None, False, 1, None)),
        (14, m.RequestUpdate(4, None)),
        (14, m.ServerSetup(())),
        (16, m.SubscribeOk(None, 1)),
        (18, m.SubscribeOk(2, 1)),
        (16, m.PublishNamespaceDone(None, (b"a",))),
        (14, m.PublishNamespaceDone(2)),
        (15, m.UnsubscribeNamespace(None, (b"a",))),
        (14, m.UnsubscribeNamespace(2)),
        (18, m.Fetch(2, None, None)),
        (18, m.Fetch(2, TRACK, Filter(Start.NEXT_GROUP))),
        (20, m.Fetch(2, None)),
        (20, m.RequestOk(None, Parameters(forward=True))),
        (19, m.RequestOk(None, Parameters(ordered=True))),
        (18, m.SubscribeNamespace(2, (), m.NamespaceOptions.BOTH)),
        (16, m.SubscribeNamespace(2, ())),
        (20, m.Fetch(2, TRACK, m.Joining(0, 1))),
        (20, m.FetchOk(None, False, 1, None)),
        (18, m.RequestError(None, 0x34)),
        (15, m.SubscribeOk(2, 1, properties=((2, 1),))),
        (17, m.RequestOk(None, properties=((2, 1),))),
        (18, m.PublishBlocked((b"x" * 5000,), b"")),
        (22, m.Setup(((1, b"x" * 65_000), (3, b"y" * 65_000)))),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, int) else str(value),
)
def test_messages_that_do_not_fit(draft, message):
    """They are refused where they are written."""
    with pytest.raises(LocalProtocolError):
        CODECS[draft].encode(message)


@pytest.mark.parametrize(
    ("draft", "number", "content"),
    [
        (16, 0x16, b"\2\4"),
        (16, 0x16, b"\2\1\1\1a\1b\5\0\4\0\0"),
        (16, 0x16, b"\2\1\1\1a\1b\5\3\5\2\0"),
        (16, 0x03, b"\2\0\1b\0"),
        (14, 0x06, b"\2\0\0"),
        (15, 0x09, b"\0"),
        (16, 0x03, b"\2\1\1a\1b\1\2\0"),
        (16, 0x08, b"\0\1\x10\1"),
        (16, 0x11, b"\2\1\1a\3\0"),
        (14, 0x03, b"\2\1\1a\1b\0\3\1\2\0"),
        (14, 0x04, b"\1\0\0\0\0\0"),
        (14, 0x02, b"\4\2\5\0\5\0\1\0"),
        (17, 0x03, b"\2\2\1\1a\1b\0"),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else f"{value:x}",
)
def test_messages_that_are_none(draft, number, content):
    """Fields that contradict the draft end the session."""
    with pytest.raises(Malformed) as caught:
        read(draft, body(draft, number, content))
    assert caught.value.scope == "session"


def test_what_15_says_of_a_namespace_subscription():
    """Draft 15 ends it by its request."""
    message = m.UnsubscribeNamespace(4)
    assert read(15, CODECS[15].encode(message)) == message


def test_reprs():
    """A codec shows its draft, and knows its messages."""
    assert repr(CODECS[18]) == "<ControlCodec draft 18>"
    assert CODECS[18].message_type(0x50) is m.SubscribeNamespace
    assert CODECS[14].message_type(0x50) is None
