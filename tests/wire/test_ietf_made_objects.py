"""Objects of IETF moq-transport that are made here: what they say comes back, and what no draft says is refused."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest

from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed
from moqt_trio.frame import Frame
from moqt_trio.limits import Limits
from moqt_trio.wire.ietf import objects
from moqt_trio.wire.ietf.fetch_objects import FetchDecoder, FetchedObject, FetchEncoder, Missing, MissingRange
from moqt_trio.wire.ietf.names import Location
from moqt_trio.wire.ietf.objects import ObjectDatagram, Status, SubgroupHeader
from moqt_trio.wire.ietf.profile import PROFILES
from moqt_trio.wire.ietf.properties import read_block, read_pairs
from moqt_trio.wire.ietf.subgroups import SubgroupDecoder, SubgroupEncoder

LIMITS = Limits()


def frame(object_id, payload=b"x", timestamp=None, pairs=()):
    made = Frame(payload, timestamp)
    made.object_id = object_id
    if pairs:
        made.properties = pairs
    return made


def subgroup(draft, data, *, with_properties=False):
    decoder = SubgroupDecoder(PROFILES[draft], LIMITS, properties=with_properties)
    frames = []
    decoder.feed_untrusted(data, frames, [])
    return decoder, frames


@pytest.mark.parametrize("draft", PROFILES)
def test_objects_after_the_end_make_the_track_malformed(draft):
    """An object behind the end of its group ends the subscription, and not the session."""
    with pytest.raises(Malformed) as caught:
        subgroup(draft, b"\x00\x01a\x00\x00\x03\x00\x01b")
    assert caught.value.scope == "stream"


@pytest.mark.parametrize("draft", PROFILES)
def test_statuses(draft):
    """A status that the draft lacks ends the session; one that says "does not exist" was one up to draft 15."""
    with pytest.raises(Malformed) as caught:
        subgroup(draft, b"\x00\x00\x02")
    assert caught.value.scope == "session"
    if draft <= 15:
        assert subgroup(draft, b"\x00\x00\x01\x00\x01b")[1] == [b"b"]
        assert subgroup(draft, b"\x00\x00\x01\x00\x01b")[1][0].object_id == 1
    else:
        with pytest.raises(Malformed):
            subgroup(draft, b"\x00\x00\x01")


@pytest.mark.parametrize("draft", PROFILES)
def test_an_object_that_is_too_long(draft):
    """It is refused as soon as its length is there."""
    size = PROFILES[draft].encode(LIMITS.max_frame + 1)
    with pytest.raises(LimitExceeded) as caught:
        subgroup(draft, b"\x00" + size)
    assert caught.value.scope == "stream"


@pytest.mark.parametrize("draft", PROFILES)
def test_stream_types(draft):
    """The types of subgroups are those of the draft's table."""
    known = {*range(0x10, 0x16), *range(0x18, 0x1E)}
    if draft >= 15:
        known |= {*range(0x30, 0x36), *range(0x38, 0x3E)}
    if draft >= 18:
        known |= {number | 0x40 for number in known}
    assert {number for number in range(0x200) if objects.is_subgroup(number, PROFILES[draft])} == known


@pytest.mark.parametrize("draft", PROFILES)
@pytest.mark.parametrize("subgroup", [None, 0, 3])
@pytest.mark.parametrize("priority", [None, 5])
@pytest.mark.parametrize("bits", range(8))
def test_headers_come_back(draft, subgroup, priority, bits):
    """A header that is made of what it says comes back; a draft that has no default priority refuses it."""
    profile = PROFILES[draft]
    flags = objects.subgroup_flags(
        profile,
        properties=bool(bits & 1),
        ends_group=bool(bits & 2),
        is_first=bool(bits & 4),
        subgroup=subgroup,
        priority=priority,
    )
    header = SubgroupHeader(flags, 300, 7, subgroup, priority)
    if draft == 14 and priority is None:
        with pytest.raises(LocalProtocolError):
            objects.write_subgroup_header(header, profile)
        return
    wire = objects.write_subgroup_header(header, profile)
    assert objects.read_subgroup_header(wire + b"more", profile) == (header, len(wire))
    assert (header.has_properties, header.ends_group) == (bool(bits & 1), bool(bits & 2))
    assert header.is_first == (bool(bits & 4) and draft >= 18)
    for size in range(len(wire)):
        assert objects.read_subgroup_header(wire[:size], profile) is None


def test_a_subgroup_without_its_id():
    """A header that says that it has an id has one, and an id has a header that says so."""
    with pytest.raises(LocalProtocolError, match="has an id"):
        objects.write_subgroup_header(SubgroupHeader(0x14, 1, 1, None), PROFILES[18])
    with pytest.raises(LocalProtocolError, match="without its id"):
        objects.write_subgroup_header(SubgroupHeader(0x10, 1, 1, 5), PROFILES[18])


@pytest.mark.parametrize("draft", PROFILES)
def test_a_status_that_a_draft_lacks(draft):
    """Up to draft 15 an object may say that it does not exist; later it is refused where it is written."""
    datagram = ObjectDatagram(0x20, 1, 1, frame(5, b""), status=Status.DOES_NOT_EXIST)
    if draft <= 15:
        assert SubgroupEncoder(PROFILES[draft], properties=False).encode_status(0, Status.DOES_NOT_EXIST)
        assert objects.write_datagram(datagram, PROFILES[draft])
        return
    with pytest.raises(LocalProtocolError, match="no status DOES_NOT_EXIST"):
        SubgroupEncoder(PROFILES[draft], properties=False).encode_status(0, Status.DOES_NOT_EXIST)
    with pytest.raises(LocalProtocolError, match="no status DOES_NOT_EXIST"):
        objects.write_datagram(datagram, PROFILES[draft])


def test_numbers_of_seven_bytes():
    """Draft 17 has none, wherever they are; draft 18 has."""
    data = b"\x10\xfc" + bytes(4) + b"\0\1\0\x80"
    assert objects.read_subgroup_header(data, PROFILES[18])[0].alias == 1
    with pytest.raises(Malformed, match="seven bytes"):
        objects.read_subgroup_header(data, PROFILES[17])


@pytest.mark.parametrize("draft", PROFILES)
def test_frames_of_an_application(draft):
    """Frames without ids are numbered; a timestamp is a property, which comes back as one."""
    profile = PROFILES[draft]
    frames = [Frame(b"a", 5), Frame(b"", 6), Frame(b"c" * 300, 2**40)]
    encoder = SubgroupEncoder(profile, properties=True)
    decoder, found = subgroup(draft, encoder.encode(frames[:1]) + encoder.encode(frames[1:]), with_properties=True)
    assert [(item.object_id, item, item.timestamp) for item in found] == [
        (index, item, item.timestamp) for index, item in enumerate(frames)
    ]
    assert decoder.pending_bytes == 0
    assert repr(decoder) == "<SubgroupDecoder 0 bytes pending>"


@pytest.mark.parametrize("draft", PROFILES)
def test_a_timestamp_of_an_older_draft(draft):
    """The property that was a timestamp once is read where there is no other; from draft 19 on it is a timeout."""
    profile = PROFILES[draft]
    assert objects.timestamp_of(((6, 5),), profile) == (5 if draft < 19 else None)
    assert objects.timestamp_of(((6, 5), (16, 7)), profile) == 7
    assert objects.timestamp_of(((2, 1),), profile) is None


def test_ids_only_grow():
    """An id that is not above the one before is refused where it is written, and nothing is written."""
    encoder = SubgroupEncoder(PROFILES[18], properties=False)
    assert encoder.encode([frame(4)]) == b"\4\1x"
    for bad in ([frame(4)], [frame(3)]):
        with pytest.raises(LocalProtocolError, match="object"):
            encoder.encode(bad)
    with pytest.raises(LocalProtocolError, match="object 2"):
        encoder.encode_status(2, Status.END_OF_GROUP)
    with pytest.raises(LocalProtocolError, match="without them"):
        encoder.encode([frame(9, pairs=((2, 1),))])
    assert encoder.encode([frame(6)]) == b"\1\1x"


@pytest.mark.parametrize(("draft", "scope"), [(14, "stream"), (18, "session")])
def test_properties_beside_a_status(draft, scope):
    """From draft 18 on they end the session; before they mean nothing."""
    data = b"\0\2\2\1\0\3"
    if draft == 14:
        assert subgroup(draft, data, with_properties=True)[0].end == (Status.END_OF_GROUP, 0)
        return
    with pytest.raises(Malformed) as caught:
        subgroup(draft, data, with_properties=True)
    assert caught.value.scope == scope


@pytest.mark.parametrize("draft", PROFILES)
def test_properties_that_are_too_many(draft):
    """65,535 bytes and `Limits.max_parameters` properties are the most that an object has here. More than that breaks
    its stream, and not the session; the bytes are refused before they come."""
    data = b"\0" + PROFILES[draft].encode(65_536)
    with pytest.raises(LimitExceeded) as caught:
        subgroup(draft, data, with_properties=True)
    assert caught.value.scope == "stream"
    many = b"\0\0" * (LIMITS.max_parameters + 1)
    with pytest.raises(LimitExceeded) as caught:
        subgroup(draft, b"\0" + PROFILES[draft].encode(len(many)) + many, with_properties=True)
    assert caught.value.scope == "stream"
    head = b"\x3c\1\0\5" if draft >= 15 else b"\1\0\0\5"
    with pytest.raises(LimitExceeded):
        FetchDecoder(PROFILES[draft], LIMITS).feed_untrusted(head + PROFILES[draft].encode(65_536))


def test_an_id_beyond_62_bits():
    """Ids have at most 62 bits here."""
    with pytest.raises(Malformed) as caught:
        subgroup(18, PROFILES[18].encode(2**62) + b"\1x")
    assert caught.value.scope == "stream"


def test_a_few_objects_at_a_time():
    """A reader that wants few objects gets as many, and the offset behind them, also behind one that came in pieces."""
    decoder = SubgroupDecoder(PROFILES[18], LIMITS, properties=False)
    frames, sizes = [], []
    assert decoder.feed_untrusted(b"\0\4ab", frames, sizes) == 4
    assert decoder.pending_bytes == 4
    data = b"cd\0\1e\0\1f"
    assert decoder.feed_untrusted(data, frames, sizes, 0, 2) == 5
    assert (frames, sizes) == ([b"abcd", b"e"], [6, 3])
    assert decoder.feed_untrusted(data, frames, sizes, 5) == len(data)
    assert frames[-1].object_id == 2


@pytest.mark.parametrize("draft", PROFILES)
@pytest.mark.parametrize("ends_group", [True, False])
@pytest.mark.parametrize("object_id", [0, 7])
@pytest.mark.parametrize("timestamp", [None, 9])
@pytest.mark.parametrize(("priority", "status"), [(5, None), (None, None), (5, Status.END_OF_GROUP)])
def test_datagrams_come_back(draft, ends_group, object_id, timestamp, priority, status):
    """A datagram that is made of what it says comes back; what a draft cannot say is refused."""
    profile = PROFILES[draft]
    sent = frame(object_id, b"" if status else b"x", timestamp)
    flags = objects.datagram_flags(sent, ends_group=ends_group, priority=priority, status=status)
    datagram = ObjectDatagram(flags, 3, 4, sent, priority, status)
    if (draft == 14 and priority is None) or (status and ends_group):
        with pytest.raises(LocalProtocolError):
            objects.write_datagram(datagram, profile)
        return
    found = objects.read_datagram(objects.write_datagram(datagram, profile), profile, LIMITS)
    assert (found.alias, found.group, found.priority, found.status) == (3, 4, priority, status)
    assert (found.frame, found.frame.object_id) == (sent, object_id)
    assert found.frame.timestamp == (None if status else timestamp)
    assert found.ends_group == ends_group


@pytest.mark.parametrize(
    ("draft", "data"),
    [
        (14, b"\x08\0\0\0x"),
        (18, b"\x10\0\0\0x"),
        (18, b"\x22\0\0\0\0\3"),
        (18, b"\1\0\0\0\5\0x"),
        (18, b"\x20\0\0\0\5\2"),
        (18, b"\x20\0\0\0\5\3\0"),
        (18, b"\x21\0\0\0\5\2\2\1\3"),
    ],
    ids=["priority", "type", "last", "no properties", "status", "more", "properties"],
)
def test_datagrams_that_are_none(draft, data):
    """Types, statuses and properties that a draft has not."""
    with pytest.raises(Malformed):
        objects.read_datagram(data, PROFILES[draft], LIMITS)


def fetched_object(group, object_id, subgroup=0, priority=5, payload=b"x", **values):
    return FetchedObject(group, subgroup, priority, frame(object_id, payload), **values)


LONG_FETCH = [
    fetched_object(3, 0),
    fetched_object(3, 1),
    fetched_object(3, 2, subgroup=1),
    fetched_object(3, 3, subgroup=1),
    fetched_object(3, 9, subgroup=7, priority=6),
    fetched_object(4, 0, payload=b""),
    fetched_object(9, 5, subgroup=2),
]


@pytest.mark.parametrize("draft", PROFILES)
@pytest.mark.parametrize("descending", [False, True])
def test_fetches_come_back(draft, descending):
    """Objects of several groups and subgroups come back, in either order of the groups."""
    items = sorted(LONG_FETCH, key=lambda item: -item.group) if descending else LONG_FETCH
    profile = PROFILES[draft]
    encoder = FetchEncoder(profile, descending=descending)
    data = b"".join(map(encoder.encode, items))
    assert FetchDecoder(profile, LIMITS, descending=descending).feed_untrusted(data) == items


@pytest.mark.parametrize("draft", PROFILES)
def test_objects_of_a_fetch_that_were_datagrams(draft):
    """From draft 16 on a fetch says so; draft 14 writes the object's id in place of the subgroup's, and 15 cannot."""
    item = fetched_object(3, 4, subgroup=None)
    encoder = FetchEncoder(PROFILES[draft])
    if draft == 15:
        with pytest.raises(LocalProtocolError, match="datagram"):
            encoder.encode(item)
        return
    following = fetched_object(3, 5, subgroup=1)
    data = encoder.encode(item) + encoder.encode(following)
    found = FetchDecoder(PROFILES[draft], LIMITS).feed_untrusted(data)
    assert found == ([fetched_object(3, 4, subgroup=4), following] if draft == 14 else [item, following])


@pytest.mark.parametrize("draft", PROFILES)
def test_ranges_that_are_missing(draft):
    """From draft 16 on a fetch says which objects it leaves out, and why; the objects behind follow from the mark."""
    marks = [MissingRange(Location(4, 7), Missing.UNKNOWN), MissingRange(Location(5, 0), Missing.NOT_EXISTENT)]
    if draft >= 20:
        marks.append(MissingRange(Location(6, 1), Missing.TIMED_OUT))
    encoder = FetchEncoder(PROFILES[draft])
    if draft <= 15:
        with pytest.raises(LocalProtocolError, match="leaves out"):
            encoder.encode_missing(marks[0])
        return
    items = [fetched_object(3, 0), *marks, fetched_object(6, 2)]
    data = b"".join(
        encoder.encode_missing(item) if isinstance(item, MissingRange) else encoder.encode(item) for item in items
    )
    assert FetchDecoder(PROFILES[draft], LIMITS).feed_untrusted(data) == items
    first = FetchEncoder(PROFILES[draft])
    data = first.encode_missing(marks[0]) + first.encode(items[-1])
    assert FetchDecoder(PROFILES[draft], LIMITS).feed_untrusted(data) == [marks[0], items[-1]]


@pytest.mark.parametrize(
    ("draft", "data", "scope"),
    [
        (18, b"\x10\5\1x", "session"),
        (18, b"\x0c\1\0\1x", "session"),
        (18, b"\x1d\1\0\5\1x", "session"),
        (18, b"\x82\x0c\1\0", "session"),
        (18, b"\x80\x8d\1\0", "session"),
        (15, b"\x8c\1\0", "session"),
        (16, b"\x1c\1\5\5\1x\4\5\1x", "stream"),
        (16, b"\x1c\2\5\5\1x\x0c\1\5\1x", "stream"),
        (14, b"\1\0\0\5\0\0\2", "session"),
    ],
    ids=["no place", "no priority", "no subgroup", "timed out", "mark", "mark in 15", "object", "group", "status"],
)
def test_fetches_that_are_none(draft, data, scope):
    """Flags without what they stand for end the session; locations that do not ascend end the fetch."""
    with pytest.raises(Malformed) as caught:
        FetchDecoder(PROFILES[draft], LIMITS).feed_untrusted(data)
    assert caught.value.scope == scope


@pytest.mark.parametrize("draft", PROFILES)
def test_an_object_of_a_fetch_that_is_too_long(draft):
    """It is refused as soon as its length is there."""
    head = b"\1\0\0\5\0" if draft == 14 else b"\x1c\1\0\5"
    with pytest.raises(LimitExceeded):
        FetchDecoder(PROFILES[draft], LIMITS).feed_untrusted(head + PROFILES[draft].encode(LIMITS.max_frame + 1))


def test_objects_that_a_fetch_cannot_write():
    """An object has an id, a status only up to draft 15, and comes after the one before."""
    encoder = FetchEncoder(PROFILES[18])
    with pytest.raises(LocalProtocolError, match="has an id"):
        encoder.encode(FetchedObject(1, 0, 5, Frame(b"x")))
    with pytest.raises(LocalProtocolError, match="no status"):
        encoder.encode(fetched_object(1, 0, payload=b"", status=Status.DOES_NOT_EXIST))
    encoder.encode(fetched_object(5, 5))
    with pytest.raises(LocalProtocolError, match="object 4"):
        encoder.encode(fetched_object(5, 4))
    with pytest.raises(LocalProtocolError, match="group 4"):
        encoder.encode(fetched_object(4, 0))


def test_statuses_of_a_fetch():
    """Up to draft 15 an object of a fetch may have one."""
    for draft in (14, 15):
        item = fetched_object(1, 0, payload=b"", status=Status.END_OF_GROUP)
        assert FetchDecoder(PROFILES[draft], LIMITS).feed_untrusted(FetchEncoder(PROFILES[draft]).encode(item)) == [
            item
        ]


def test_equality_of_objects():
    """Objects and datagrams are equal when their bytes, ids and properties are."""
    assert fetched_object(1, 0) == fetched_object(1, 0, size=7)
    assert fetched_object(1, 0) != fetched_object(1, 1)
    assert fetched_object(1, 2).location == Location(1, 2)
    assert ObjectDatagram(0, 1, 1, frame(0)) == ObjectDatagram(0, 1, 1, frame(0))
    assert ObjectDatagram(0, 1, 1, frame(0)) != ObjectDatagram(0, 1, 1, frame(0, pairs=((2, 1),)))


@pytest.mark.parametrize("draft", PROFILES)
def test_a_timestamp_alone(draft):
    """It is read as any list of properties is, in every form of its number, and with bytes after it."""

    def outcome(read):
        try:
            return read()
        except (Malformed, LimitExceeded) as error:
            return type(error), getattr(error, "scope", None), getattr(error, "code", None)

    profile = PROFILES[draft]
    for first, size in itertools.product(range(256), range(11)):
        block = bytes((objects.TIMESTAMP_PROPERTY, first, *range(1, size)))
        reader = profile.reader(block, "an object's properties")
        assert outcome(lambda block=block: read_block(block, profile, LIMITS)) == outcome(
            lambda reader=reader: read_pairs(reader, profile, LIMITS)
        )


@pytest.mark.parametrize("draft", PROFILES)
def test_timestamps_that_repeat(draft):
    """Each frame has its own, also where the one before had the same, another, or none."""
    profile = PROFILES[draft]
    stamps = [5, 5, None, 5, 1 << 40, 0, 0, None]
    data = SubgroupEncoder(profile, properties=True).encode([Frame(b"x", stamp) for stamp in stamps])
    frames, sizes = [], []
    SubgroupDecoder(profile, LIMITS, properties=True).feed_untrusted(data, frames, sizes)
    assert [frame.timestamp for frame in frames] == stamps


def test_a_decoder_keeps_no_long_properties():
    """A peer that leaves many streams open holds no memory by what it sent beside payloads that were read."""
    profile, count, size = PROFILES[18], 50, 60_000
    encoder = SubgroupEncoder(profile, properties=True)
    blob = Frame(b"x")
    blob.properties = ((0x79, bytes(size)),)
    data = encoder.encode([blob])
    decoders = [SubgroupDecoder(profile, LIMITS, properties=True) for _ in range(count)]
    tracemalloc.start()
    try:
        for decoder in decoders:
            frames, sizes = [], []
            decoder.feed_untrusted(data, frames, sizes)
            assert len(frames) == 1
        del frames
        assert tracemalloc.get_traced_memory()[0] < 2 * size
    finally:
        tracemalloc.stop()
