"""The objects of IETF moq-transport on subgroup and fetch streams and in datagrams: real bytes, cut anywhere."""

from __future__ import annotations

import pytest

from moqt_trio.errors import Malformed
from moqt_trio.limits import Limits
from moqt_trio.wire.ietf import objects
from moqt_trio.wire.ietf.fetch_objects import FetchDecoder, FetchEncoder, Missing, MissingRange
from moqt_trio.wire.ietf.objects import Status
from moqt_trio.wire.ietf.profile import PROFILES
from moqt_trio.wire.ietf.subgroups import SubgroupDecoder, SubgroupEncoder
from tests.wire.ietf_vectors import RECORDS, properties

LIMITS = Limits()
STATUSES = {
    None: None,
    "end_of_group": Status.END_OF_GROUP,
    "end_of_track": Status.END_OF_TRACK,
    "does_not_exist": Status.DOES_NOT_EXIST,
    "normal": Status.NORMAL,
}


def records(message):
    return [record for record in RECORDS if record["message"] == message]


def ids(record):
    return f"{record['draft']}-{record['hex'][:24]}"


def shown(frame):
    return frame.object_id, bytes(frame), frame.properties


# -- subgroups ---------------------------------------------------------------------------------------------------


class Stream:
    """Reads a subgroup's stream a piece at a time."""

    def __init__(self, draft):
        self.profile = PROFILES[draft]
        self.header = None
        self.decoder = None
        self.frames = []
        self.sizes = []
        self._head = b""

    def feed(self, data):
        if self.decoder is None:
            self._head += data
            found = objects.read_subgroup_header(self._head, self.profile)
            if found is None:
                return
            self.header, end = found
            data = self._head[end:]
            self.decoder = SubgroupDecoder(self.profile, LIMITS, properties=self.header.has_properties)
        self.decoder.feed_untrusted(data, self.frames, self.sizes)


def expected_objects(record):
    """The objects of a record that have a payload, which may be empty."""
    return [
        (item["object"], bytes.fromhex(item.get("payload", "")), properties(item.get("properties")))
        for item in record["fields"]["objects"]
        if item.get("status", "normal") == "normal"
    ]


@pytest.mark.parametrize("record", records("SUBGROUP_STREAM"), ids=ids)
def test_subgroups(record):
    """Each stream is read to its header and its objects, and written back byte for byte."""
    wire, header = bytes.fromhex(record["hex"]), record["fields"]["header"]
    stream = Stream(record["draft"])
    stream.feed(wire)
    profile = stream.profile
    assert objects.is_subgroup(stream.header.flags, profile)
    assert (stream.header.alias, stream.header.group) == (header["track_alias"], header["group"])
    assert stream.header.subgroup == header.get("subgroup", 0)
    assert stream.header.priority == header["priority"]
    assert stream.header.ends_group == header["end_of_group"]
    assert stream.header.is_first == header.get("first_object", False)
    wanted = expected_objects(record)
    if record["fields"].get("end") != "fin" and stream.decoder.pending_bytes:
        wanted = wanted[: len(stream.frames)]
    assert list(map(shown, stream.frames)) == wanted
    ends = [item for item in record["fields"]["objects"] if item.get("status", "normal") != "normal"]
    assert stream.decoder.end == ((STATUSES[ends[0]["status"]], ends[0]["object"]) if ends else None)
    encoder = SubgroupEncoder(profile, properties=stream.header.has_properties)
    written = objects.write_subgroup_header(stream.header, profile) + encoder.encode(stream.frames)
    if stream.decoder.end is not None:
        status, index = stream.decoder.end
        written += encoder.encode_status(index, status)
    assert written == wire[: len(wire) - stream.decoder.pending_bytes]


@pytest.mark.parametrize("record", records("SUBGROUP_STREAM"), ids=ids)
def test_subgroups_byte_by_byte(record):
    """Cut at every byte, a stream gives the same; the sizes of the objects are their bytes on the wire."""
    wire = bytes.fromhex(record["hex"])
    whole, cut = Stream(record["draft"]), Stream(record["draft"])
    whole.feed(wire)
    for index in range(len(wire)):
        cut.feed(wire[index : index + 1])
    assert list(map(shown, cut.frames)) == list(map(shown, whole.frames))
    assert cut.sizes == whole.sizes
    assert cut.decoder.end == whole.decoder.end
    assert cut.decoder.pending_bytes == whole.decoder.pending_bytes
    head = objects.read_subgroup_header(wire, whole.profile)[1]
    after = len(wire) - head - sum(whole.sizes) - whole.decoder.pending_bytes
    assert (after > 0) == (whole.decoder.end is not None)


# -- fetches -----------------------------------------------------------------------------------------------------


def fetched(record):
    """The decoder of a record's stream, where its objects begin, and its bytes."""
    profile, wire = PROFILES[record["draft"]], bytes.fromhex(record["hex"])
    number, offset = profile.decode(wire, 0)
    assert number == objects.FETCH_STREAM
    request_id, offset = profile.decode(wire, offset)
    assert request_id == record["fields"]["request_id"]
    descending = record["fields"]["group_order"] == 2
    return profile, descending, wire[offset:]


MARKS = {
    "end_of_non_existent_range": Missing.NOT_EXISTENT,
    "end_of_unknown_range": Missing.UNKNOWN,
    "end_of_timed_out_range": Missing.TIMED_OUT,
}


def fetched_item(item):
    if "marker" in item:
        return MARKS[item["marker"]], item["group_field"], item["object_field"]
    subgroup = None if item.get("datagram") else item.get("subgroup")
    content = bytes.fromhex(item.get("payload", ""))
    status = STATUSES[item.get("status", "normal")]
    return (
        item["group"],
        subgroup,
        item["object"],
        item["priority"],
        content,
        properties(item.get("properties")),
        status,
    )


def as_item(found):
    if isinstance(found, MissingRange):
        return found.reason, found.end.group, found.end.object
    frame = found.frame
    return (
        found.group,
        found.subgroup,
        frame.object_id,
        found.priority,
        bytes(frame),
        frame.properties,
        found.status,
    )


@pytest.mark.parametrize("record", records("FETCH_STREAM"), ids=ids)
def test_fetches(record):
    """Each reply is read to its objects, whole or byte by byte, and written back byte for byte with its flags."""
    profile, descending, data = fetched(record)
    decoder = FetchDecoder(profile, LIMITS, descending=descending)
    found = decoder.feed_untrusted(data)
    wanted = list(map(fetched_item, record["fields"]["objects"]))
    if decoder.pending_bytes:
        wanted = wanted[: len(found)]
    assert list(map(as_item, found)) == wanted

    pieces = FetchDecoder(profile, LIMITS, descending=descending)
    again = [item for index in range(len(data)) for item in pieces.feed_untrusted(data[index : index + 1])]
    assert again == found
    assert [item.size for item in again] == [item.size for item in found]
    assert sum(item.size for item in found) + decoder.pending_bytes == len(data)

    encoder, short = (FetchEncoder(profile, descending=descending) for _ in range(2))
    written = shortest = b""
    for item, item_shown in zip(found, record["fields"]["objects"], strict=False):
        if isinstance(item, MissingRange):
            written += encoder.encode_missing(item)
            shortest += short.encode_missing(item)
        else:
            flags = item_shown.get("flags")
            written += encoder.encode(item, None if flags is None else int(flags, 16))
            shortest += short.encode(item)
    assert written == data[: len(data) - decoder.pending_bytes]
    assert len(shortest) <= len(written)
    assert FetchDecoder(profile, LIMITS, descending=descending).feed_untrusted(shortest) == found


# -- datagrams ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", records("OBJECT_DATAGRAM"), ids=ids)
def test_datagrams(record):
    """Each datagram is read to its fields, and written back byte for byte."""
    profile, wire, fields = PROFILES[record["draft"]], bytes.fromhex(record["hex"]), record["fields"]
    found = objects.read_datagram(wire, profile, LIMITS)
    content = bytes.fromhex(fields.get("payload", ""))
    assert (found.alias, found.group, found.priority) == (fields["track_alias"], fields["group"], fields["priority"])
    assert shown(found.frame) == (fields["object"], content, properties(fields.get("properties")))
    assert found.status == STATUSES[fields.get("status")]
    assert found.ends_group == fields["end_of_group"]
    assert objects.write_datagram(found, profile) == wire


@pytest.mark.parametrize("record", records("OBJECT_DATAGRAM"), ids=ids)
def test_datagrams_cut_short(record):
    """A datagram that is cut before its payload is refused; within the payload it is a shorter one."""
    profile, wire = PROFILES[record["draft"]], bytes.fromhex(record["hex"])
    content = len(record["fields"].get("payload", "")) // 2
    for size in range(len(wire)):
        if size < len(wire) - content:
            with pytest.raises(Malformed):
                objects.read_datagram(wire[:size], profile, LIMITS)
        else:
            found = objects.read_datagram(wire[:size], profile, LIMITS)
            assert len(found.frame) == size - (len(wire) - content)


@pytest.mark.parametrize("record", records("PADDING_DATAGRAM"), ids=ids)
def test_padding(record):
    """Padding is no object."""
    assert objects.read_datagram(bytes.fromhex(record["hex"]), PROFILES[record["draft"]], LIMITS) is None
