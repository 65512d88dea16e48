"""Subgroups and datagrams in the machines of an IETF session: bytes of peers, and a track that contradicts itself."""

from __future__ import annotations

import pytest

from moqt_trio.codes import SessionCode, StreamCode
from moqt_trio.errors import LocalProtocolError, Malformed, RemoteProtocolError
from moqt_trio.frame import Frame
from moqt_trio.limits import Limits
from moqt_trio.protocol.events import DatagramReceived, FramesReceived, GroupFinished, GroupStarted
from moqt_trio.protocol.group import Subgroup
from moqt_trio.protocol.ietf.ends import TrackEnds
from moqt_trio.protocol.ietf.events import TrackEnded
from moqt_trio.protocol.ietf.state import MAX_PARKED
from moqt_trio.wire.ietf.objects import MalformedTrack
from moqt_trio.wire.ietf.profile import PROFILES
from moqt_trio.wire.ietf.subgroups import SubgroupDecoder
from tests.protocol.ietf.cores import core
from tests.wire.ietf_vectors import RECORDS, properties

DRAFTS = [f"moqt-{draft}" for draft in range(17, 23)]
EACH_DRAFT = pytest.mark.parametrize("name", DRAFTS)


def records(message):
    return [record for record in RECORDS if record["message"] == message and record["draft"] >= 17]


def ids(record):
    return f"{record['draft']}-{record['hex'][:24]}"


def subscribed(name, alias):
    """Returns a client's core with a subscription whose track has an alias."""
    client = core(name, is_client=True)
    requester = client.subscribe("a", "t")
    encode = client.dialect.profile.encode
    body = encode(alias) + b"\0"
    requester.receive_data(b"\x04" + len(body).to_bytes(2, "big") + body, False)
    return client, requester


def read(wire, *, name="moqt-18", alias=3, fin=True):
    """Returns the events of a subgroup's stream."""
    client, requester = subscribed(name, alias)
    stream = client.accept_uni()
    return requester, stream.receive_data(bytes.fromhex(wire), fin), stream


# -- what peers write --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", records("SUBGROUP_STREAM"), ids=ids)
def test_streams_of_peers(record):
    """The events have the header's subgroup and priority, and the objects' ids and properties, however it is cut."""
    fields = record["fields"]
    header = fields["header"]
    fin = fields.get("end", "fin") == "fin"
    name = f"moqt-{record['draft']}"
    wire = bytes.fromhex(record["hex"])
    objects = [item for item in fields["objects"] if item.get("status", "normal") == "normal"]
    for cut in {1, 4, len(wire) // 2, len(wire)}:
        client, requester = subscribed(name, header["track_alias"])
        stream = client.accept_uni()
        events = stream.receive_data(wire[:cut], False) + stream.receive_data(wire[cut:], fin)
        if fields["objects"] and fields["objects"][0].get("status") == "end_of_track":
            assert events == [TrackEnded(requester.subscribe_id, header["group"])]
            continue
        first = fields["objects"][0]["object"] if fields["objects"] else 0
        assert events[0] == GroupStarted(
            requester.subscribe_id,
            header["group"],
            first,
            header.get("first_object", False) or (bool(objects) and not first),
            header.get("subgroup", 0),
            255 - header["priority"],
            header["end_of_group"],
        )
        frames = [frame for event in events if isinstance(event, FramesReceived) for frame in event.frames]
        found = [(frame.object_id, bytes(frame), frame.properties) for frame in frames]
        assert found == [
            (item["object"], bytes.fromhex(item.get("payload", "")), properties(item.get("properties")))
            for item in objects
        ]
        assert (GroupFinished() in events) == fin


@pytest.mark.parametrize("record", records("OBJECT_DATAGRAM"), ids=ids)
def test_datagrams_of_peers(record):
    """The event has the id, the properties, the priority and the end that the datagram has."""
    fields = record["fields"]
    client, requester = subscribed(f"moqt-{record['draft']}", fields["track_alias"])
    event = client.receive_datagram(bytes.fromhex(record["hex"]))
    ends = {"end_of_group": "group", "end_of_track": "track"}
    assert event == DatagramReceived(
        requester.subscribe_id,
        fields["group"],
        event.frame,
        255 - fields["priority"],
        fields["end_of_group"],
        ends.get(fields.get("status")),
    )
    frame = event.frame
    assert (frame.object_id, bytes(frame)) == (fields["object"], bytes.fromhex(fields.get("payload", "")))
    assert frame.properties == properties(fields.get("properties"))
    assert client.dropped_datagrams == 0


# -- what this side writes ---------------------------------------------------------------------------------------


@EACH_DRAFT
@pytest.mark.parametrize("subgroup", [Subgroup(), Subgroup(4, 200, ends_group=False), Subgroup(1, 0, is_first=False)])
def test_what_is_written_is_read(name, subgroup):
    """A subgroup comes out as it went in: its header, and frames with gaps and properties."""
    client, server = core(name, is_client=True), core(name, is_client=False)
    requester = client.subscribe("a", "t")
    request = server.accept_bidi()
    request.receive_data(requester.opening, False)
    requester.receive_data(request.machine.accept(None), False)
    sender = server.group(requester.subscribe_id, 9, 2, subgroup)
    frames = [Frame(b"a", 5), Frame(b"b", 6), Frame(b"", 7)]
    frames[0].object_id, frames[2].object_id = 6, 100
    frames[1].properties = ((0x10, 6), (0x78, 1), (0x79, b"xyz"))
    events = client.accept_uni().receive_data(sender.opening + sender.frames(frames), True)
    assert events[0] == GroupStarted(
        requester.subscribe_id,
        9,
        6,
        subgroup.is_first and name != "moqt-17",
        subgroup.subgroup,
        subgroup.priority,
        subgroup.ends_group,
    )
    found = events[1].frames
    assert [(frame.object_id, bytes(frame), frame.timestamp) for frame in found] == [
        (6, b"a", 5),
        (7, b"b", 6),
        (100, b"", 7),
    ]
    assert found[1].properties == frames[1].properties
    frames[0].object_id = 5
    with pytest.raises(LocalProtocolError):
        sender.frames(frames[:1])


def test_the_plain_form():
    """A whole group with the track's priority is written as moq-rs reads it: subgroup 0, ids from 0, the end by FIN."""
    server = core(is_client=False)
    server.accept_bidi().receive_data(
        bytes.fromhex("03001c02020470656572056b6e6f776e046461746104100110ff0101020102"), False
    )
    assert server.group(2, 7, 0, Subgroup(0, 127)).opening.hex() == "59020780"
    assert server.group(2, 7, 3, Subgroup(0, 127, is_first=False)).opening.hex() == "19020780"
    assert server.group(2, 7, 0, Subgroup(5, 255, ends_group=False)).opening.hex() == "5502070500"
    assert server.datagram(2, 1, 0, Frame(b"dgram"), Subgroup()).hex() == "06020180" + b"dgram".hex()
    # As moq-rs writes it.
    assert server.datagram(2, 1, 5000, Frame(b"dgram", 5000), Subgroup()).hex() == "0702018003109388646772616d"


@EACH_DRAFT
def test_a_datagram_that_overtakes_its_alias(name):
    """It waits for the acceptance, with a few others; one for an alias that nothing will name is dropped."""
    client, server = core(name, is_client=True), core(name, is_client=False)
    requester = client.subscribe("a/b", "t")
    stream = server.accept_bidi()
    stream.receive_data(requester.opening, False)
    accepted = stream.machine.accept(None)
    subscribe_id = stream.machine.request.subscribe_id
    datagrams = [server.datagram(subscribe_id, 1, 0, Frame(b"%d" % number), Subgroup()) for number in range(40)]
    assert [client.receive_datagram(data) for data in datagrams] == [None] * 40
    assert (client.parked_datagrams(requester.subscribe_id), client.dropped_datagrams) == ([], 0)
    requester.receive_data(accepted, False)
    assert client.parked_datagrams(requester.subscribe_id) == datagrams[-MAX_PARKED:]
    assert client.parked_datagrams(requester.subscribe_id) == []
    assert client.receive_datagram(datagrams[0]).frame == b"0"
    other = core(name, is_client=True)
    assert other.receive_datagram(datagrams[0]) is None
    assert other.dropped_datagrams == 1


@EACH_DRAFT
def test_datagrams_of_no_use(name):
    """Those of an unknown alias, of a subscription that ended, and padding, are dropped and counted."""
    client, requester = subscribed(name, 3)
    assert client.receive_datagram(bytes.fromhex("0404098078")) is None
    padding = bytes.fromhex("f0132b3e290000")
    if name == "moqt-17":
        with pytest.raises(RemoteProtocolError):
            client.receive_datagram(padding)
    else:
        assert client.receive_datagram(padding) is None
    many = b"".join(b"\0\0" if index else b"\x02\0" for index in range(Limits().max_parameters + 1))
    block = client.dialect.profile.encode(len(many)) + many
    assert client.receive_datagram(bytes.fromhex("05030980") + block + b"x") is None
    assert client.receive_datagram(bytes.fromhex("0403098078")) is not None
    requester.release()
    assert client.receive_datagram(bytes.fromhex("0403098078")) is None
    assert client.dropped_datagrams == (3 if name == "moqt-17" else 4)


@EACH_DRAFT
@pytest.mark.parametrize(
    "wire",
    ["", "10030980", "05", "0503098000", "2003098009", "220309058003", "20030980", "210309058003100100"],
    ids=["empty", "type", "cut", "no properties", "status", "last", "no status", "a cut status"],
)
def test_datagrams_that_are_none(name, wire):
    """They end the session."""
    client, _ = subscribed(name, 3)
    with pytest.raises(Malformed) as caught:
        client.receive_datagram(bytes.fromhex(wire))
    assert (caught.value.scope, caught.value.code) == ("session", SessionCode.PROTOCOL_VIOLATION)


# -- statuses ----------------------------------------------------------------------------------------------------


def test_the_id_of_the_first_object():
    """It names the subgroup, where the header says so."""
    requester, events, _ = read("52030980070161")
    assert events[0] == GroupStarted(requester.subscribe_id, 9, 7, True, 7, 127, False)


@EACH_DRAFT
def test_the_end_of_the_track(name):
    """In the place of a first object the group does not exist; behind others it is the last one."""
    requester, events, stream = read("10030980000004", name=name)
    assert events == [TrackEnded(requester.subscribe_id, 9)]
    assert stream.machine.group is None
    requester, events, _ = read("110309800000016100000004", name=name)
    assert [type(event) for event in events] == [GroupStarted, FramesReceived, GroupFinished, TrackEnded]
    assert events[-1] == TrackEnded(requester.subscribe_id, 10)
    # Behind an object that is not the first of its group.
    requester, events, _ = read("10030980030004", name=name)
    assert [type(event) for event in events] == [GroupStarted, GroupFinished, TrackEnded]
    assert events[-1] == TrackEnded(requester.subscribe_id, 10)


@pytest.mark.parametrize("end", [1, 2, 3, 4, 5, 6, 7])
def test_the_end_of_the_track_in_pieces(end):
    """Nothing is said before it is clear that it is one."""
    wire = bytes.fromhex("11030980000000" + "04")
    client, requester = subscribed("moqt-18", 3)
    stream = client.accept_uni()
    assert stream.receive_data(wire[:end], False) == []
    assert stream.receive_data(wire[end:], True) == [TrackEnded(requester.subscribe_id, 9)]


@pytest.mark.parametrize(
    ("wire", "scope"),
    [
        ("10030980000003000161", "stream"),
        ("10030980010004000161", "stream"),
        ("100309800000030000" + "03", "stream"),
        ("10030980000002", "session"),
        ("10030980000001", "session"),
        ("1103098000021002" + "0003", "session"),
        # A second gap, an object before that it denies, and two values in one group.
        ("110309800004" + "3e010001" + "0161", "stream"),
        ("110309800000016100" + "023e01" + "0161", "stream"),
        ("1103098004" + "023c01" + "016100" + "023c02" + "0161", "stream"),
        ("1103098004" + "040b000000" + "0161", "stream"),
    ],
)
def test_objects_that_contradict_each_other(wire, scope):
    """They make the track malformed, and do not end the session; a status that the draft lacks does."""
    client, _ = subscribed("moqt-18", 3)
    with pytest.raises(RemoteProtocolError) as caught:
        client.accept_uni().receive_data(bytes.fromhex(wire), True)
    assert caught.value.scope == scope
    if scope == "stream":
        assert isinstance(caught.value, MalformedTrack)
        assert caught.value.code == StreamCode.MALFORMED_TRACK


# -- the ends of a track -----------------------------------------------------------------------------------------


def finished(*objects, end=None):
    """Returns the decoder of a stream that has objects of these ids, and a status at last."""
    decoder = SubgroupDecoder(PROFILES[18], Limits(), properties=False)
    before = -1
    for number in objects:
        decoder.feed_untrusted(bytes((number - before - 1, 1)) + b"x", [], [])
        before = number
    if end is not None:
        status, number = end
        decoder.feed_untrusted(bytes((number - before - 1, 0, status)), [], [])
    return decoder


@pytest.mark.parametrize(
    ("streams", "problem"),
    [
        ([(0, finished(0, 2), False), (0, finished(1, 3), True)], None),
        ([(0, finished(0, 2, end=(3, 4)), False), (0, finished(1, 3), False)], None),
        ([(0, finished(0, 2, end=(3, 4)), False), (0, finished(1, 3), True)], None),
        ([(0, finished(), True), (0, finished(5), False)], None),
        ([(0, finished(0, 1), True), (0, finished(2), False)], "object 2 of group 0, which ends before 2"),
        ([(0, finished(7), False), (0, finished(0, 1), True)], "object 7 of group 0, which ends before 2"),
        ([(0, finished(0, 1), True), (0, finished(2), True)], "two ends of group 0: before object 2 and before 3"),
        ([(4, finished(0, end=(4, 1)), False), (4, finished(1), False)], "object 1 of group 4, which ends before 1"),
        ([(4, finished(0, end=(4, 1)), False), (5, finished(0), False)], "object 0 of group 5"),
        ([(4, finished(end=(4, 0)), False), (3, finished(0), True)], None),
    ],
)
def test_the_ends_of_a_track(streams, problem):
    """Objects behind the end of their group or of the track, and two ends, are seen in whatever order they come."""
    ends = TrackEnds()
    found = [ends.finish(sequence, decoder, ends_group=ends_group) for sequence, decoder, ends_group in streams]
    assert found[:-1] == [None] * (len(streams) - 1)
    assert (found[-1] is None) if problem is None else found[-1].startswith(problem)


def test_what_is_remembered_of_ends_is_bounded():
    ends = TrackEnds()
    for number in range(10_000):
        assert ends.note(number, 0, 1) is None
    assert 256 <= len(ends._groups) <= 512
    assert ends.note(9_999, 1, None) is not None
    assert ends.note(0, 1, None) is None
