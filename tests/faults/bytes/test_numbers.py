"""Numbers encoded too long, numbers at the ends of their ranges, and numbers past them.

A peer may encode a number with more bytes than it needs. No number of a peer's overflows anything here. What a caller
asks for and no version can encode is a LocalProtocolError that leaves everything as it was. Timestamps of a peer's that
leave their range are in `test_frames.py`.
"""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio import varint
from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.protocol.core import SessionCore
from moqt_trio.protocol.events import GroupStarted
from moqt_trio.testing import session_pair
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire import handshake
from moqt_trio.wire import messages as m
from moqt_trio.wire.buffer import StreamBuffer
from moqt_trio.wire.messages import Expect, StreamKind
from tests.faults.dialects import (
    CASES,
    DEVELOP,
    LIMITS,
    MAX,
    NAMES,
    PLACES,
    SHAKES,
    TIMED,
    VIOLATION,
    case_id,
    outcome,
    vectors,
)
from tests.faults.hostile_peer import hostile_peer
from tests.protocol.harness import has_streams
from tests.wire.strict import Frame, feed

each_version = pytest.mark.parametrize("name", NAMES)
each_width = pytest.mark.parametrize("width", [2, 4, 8])
UNTIL_02 = ("moq-lite-02", "moq-lite-01")


@pytest.fixture
def wide(width, monkeypatch):
    """Has every number written with at least this many bytes."""

    def encode(value: int) -> bytes:
        short = len(shortest(value))
        size = max(width, short)
        return (value | (size.bit_length() - 1) << (8 * size - 2)).to_bytes(size, "big")

    shortest = varint.encode
    monkeypatch.setattr(varint, "encode", encode)
    return encode


# -- numbers that are encoded too long ------------------------------------------------------------------------


@each_width
@pytest.mark.parametrize(("place", "wire"), CASES, ids=case_id)
def test_numbers_may_be_encoded_with_more_bytes_than_they_need(place, wire, wide):
    """Every vector with each of its numbers, lengths and types in two, four and eight bytes reads as it does."""
    message = place.dialect.read_untrusted(place.expect, StreamBuffer(wire), LIMITS)
    if getattr(message, "restart", False):
        # That status is read and never written: a restart is a second start.
        message = attrs.evolve(message, restart=False)
        wire = wire[:1] + b"\x01" + wire[2:]
    longer = place.dialect.encode(message)
    # A single rate of moq-transfork-03 has four bytes as it is.
    assert len(longer) > len(wire) or longer == wire == place.vectors()[0]
    buffer = StreamBuffer(longer)
    assert place.dialect.read_untrusted(place.expect, buffer, LIMITS) == message
    assert len(buffer) == 0
    assert outcome(place.machine(), [longer]) == outcome(place.machine(), [wire])


@each_width
@pytest.mark.parametrize("shake", SHAKES, ids=str)
def test_numbers_of_a_handshake_may_be_encoded_longer(shake, wide):
    """So it is in every handshake: versions, parameters and lengths."""
    if shake.by_client:
        found = handshake.read_client_untrusted(StreamBuffer(shake.wire), LIMITS)
        assert found is not None
        longer = handshake.encode_client(*found)
    else:
        answer = handshake.read_server_untrusted(shake.form, StreamBuffer(shake.wire), LIMITS)
        assert answer is not None
        longer = handshake.encode_server(shake.form, answer)
    assert len(longer) > len(shake.wire)
    assert outcome(shake.machine(), [longer]) == outcome(shake.machine(), [shake.wire])


@each_width
@each_version
def test_the_numbers_of_frames_may_be_encoded_longer(name, wide):
    """Lengths and timestamps of frames, and of datagrams, may take more bytes than they need."""
    dialect = dialects.get(name)
    frames = [Frame(b"a", 70_000), Frame(b"", 3), Frame(b"b" * 64, 4)]
    before = [0, *(frame.timestamp for frame in frames)]
    data = b"".join(
        dialect.encode_frame(frame.payload, frame.timestamp, previous)
        for frame, previous in zip(frames, before, strict=False)
    )
    read = feed(dialect.frame_decoder(LIMITS), data)
    assert [bytes(frame) for frame in read] == [b"a", b"", b"b" * 64]
    if name in TIMED:
        assert [frame.timestamp for frame in read] == [70_000, 3, 4]
        datagram = m.Datagram(1, 2, 3, b"payload")
        assert dialect.read_datagram_untrusted(dialect.encode_datagram(datagram)) == datagram


@each_version
def test_the_type_of_a_stream_may_be_encoded_longer(name):
    """A stream's type is a varint as any other; in gomoqt's develop it is one byte, and a longer one is unknown."""
    for place in PLACES:
        if place.version != name or place.ours or place.expect in (Expect.SESSION_UPDATE, *UPDATES):
            continue
        for head in (b"\x40", b"\x80\x00\x00", b"\xc0" + bytes(6)):
            side = SessionCore(place.dialect, is_client=place.expect is Expect.GOAWAY, path_on_wire=True)
            for _ in range(9):
                side.subscribe("a", "t")
            machine = side.accept_bidi() if place.bidirectional else side.accept_uni()
            wire = head + place.before + place.vectors()[0]
            if name == DEVELOP:
                with pytest.raises(RemoteProtocolError, match="unknown type") as caught:
                    machine.receive_data(wire, False)
                assert (caught.value.scope, caught.value.code) == ("session", VIOLATION)
            else:
                assert machine.receive_data(wire, False)


UPDATES = (Expect.SUBSCRIBE_UPDATE, Expect.FETCH_UPDATE)

# -- a peer's largest numbers ---------------------------------------------------------------------------------


@each_version
async def test_a_group_of_the_highest_number_is_delivered(name):
    """Group 2^62-1 is a group as any other, on the wire and to the application."""
    async with hostile_peer(name) as peer:
        subscription = await peer.subscription()
        await peer.group(0, MAX, vectors(name, "FRAME")[0], fin=True)
        with trio.fail_after(10):
            group = await subscription.receive()
        assert group.sequence == MAX
        assert len(await group.read_all()) == 1
        assert peer.session.closed is None


def largest_requests(name: str) -> list[tuple[StreamKind, bytes]]:
    """Return every request of a version with each number as large as it goes."""
    dialect = dialects.get(name)
    features = dialect.features
    path = dict(zip(("broadcast", "track"), ("demo/cam", "events"), strict=True))
    ranges = [{"max_age_ms": MAX}]
    if name not in UNTIL_02:
        ranges += [{"start_group": MAX - 1, "end_group": MAX - 1, "max_age_ms": MAX}, {"start_group": MAX - 1}]
    if features.frame_ranges:
        ranges.append({"start_group": 42, "end_group": 42, "start_frame": MAX - 1, "end_frame": MAX - 1})
        ranges.append({"start_group": MAX, "start_frame": MAX})
    found = []
    for number, wanted in enumerate(ranges):
        request = m.Subscribe(MAX - number, **path, priority=255, **wanted)
        updates = [dialect.encode(m.SubscribeUpdate(priority=255, **other)) for other in ranges]
        opening = dialect.encode(request)
        found += [(StreamKind.SUBSCRIBE, opening + b"".join(updates)), (StreamKind.SUBSCRIBE, b"")]
    if has_streams(dialect.name, StreamKind.FETCH):
        fetches = [m.Fetch(**path, priority=255, group=42), m.Fetch(**path, priority=255, group=MAX)]
        if features.frame_ranges:
            fetches.append(m.Fetch(**path, priority=255, group=42, start_frame=MAX - 1, end_frame=MAX - 1))
        if name in ("moq-transfork-03", DEVELOP):
            fetches.append(m.Fetch(**path, priority=255, group=42, start_frame=MAX))
        found += [(StreamKind.FETCH, dialect.encode(fetch)) for fetch in fetches]
    if features.exclude_hop:
        found.append((StreamKind.ANNOUNCE, dialect.encode(m.AnnounceRequest("", MAX))))
    if features.probe != "none":
        found.append((StreamKind.PROBE, dialect.encode(m.Probe(MAX, MAX))))
    return [(kind, data) for kind, data in found if data]


@each_version
async def test_a_session_survives_the_largest_numbers_of_a_request(name):
    """Ids, groups, frames, ages, hops and rates of 2^62-1 are served or refused; they overflow nothing."""
    async with hostile_peer(name) as peer:
        for kind, data in largest_requests(name):
            stream = await peer.connection.open_bidi()
            stream.write(peer.dialect.stream_type(kind) + data)
            await trio.testing.wait_all_tasks_blocked()
            assert peer.session.closed is None
        await peer.check_alive()


@each_version
async def test_a_session_survives_the_largest_numbers_of_a_reply(name):
    """So do those of a reply: hops, costs, groups that begin, end and are dropped, ages, timescales and rates."""
    dialect = dialects.get(name)
    features = dialect.features
    hops = (MAX,) if features.sender_hop in ("sender", "ok") else ()
    replies: dict[Expect, list[m.Message]] = {
        Expect.ANNOUNCE_REPLY: [m.AnnounceStart("a/t", hops, MAX, MAX)],
        Expect.SUBSCRIBE_REPLY: [m.SubscribeOk(MAX - 1, 255, False, MAX, MAX - 1, latest_group=MAX)],
    }
    if features.announce_ids:
        replies[Expect.ANNOUNCE_REPLY].append(m.AnnounceUpdate(0, hops, MAX, MAX))
    if features.announce_first == "ok":
        replies[Expect.ANNOUNCE_REPLY].insert(0, m.AnnounceOk(MAX, MAX))
    elif features.announce_first == "init":
        replies[Expect.ANNOUNCE_REPLY].insert(0, m.AnnounceInit(()))
    if features.subscribe_drop:
        replies[Expect.SUBSCRIBE_REPLY] += [m.SubscribeDrop(0, MAX, MAX), m.SubscribeDrop(MAX, MAX, MAX)]
    if features.subscribe_end:
        replies[Expect.SUBSCRIBE_REPLY].append(m.SubscribeEnd(MAX))
    if features.track_info:
        replies[Expect.TRACK_INFO] = [m.TrackInfo(255, False, MAX, MAX)]
    if features.probe != "none":
        replies[Expect.PROBE] = [m.Probe(MAX, MAX)]
    async with hostile_peer(name) as peer:
        for place in PLACES:
            if place.version == name and place.ours and place.expect in replies:
                stream = await peer.reach(attrs.evolve(place, before=b""))
                for message in replies[place.expect]:
                    stream.write(dialect.encode(message))
                    await trio.testing.wait_all_tasks_blocked()
        assert peer.session.closed is None
        await peer.check_alive()


# -- what a caller asks for -----------------------------------------------------------------------------------


def impossible(name: str) -> list[dict[str, object]]:
    """Return arguments that no subscription of a version can carry."""
    wanted: list[dict[str, object]] = [{"priority": 256}, {"priority": -1}]
    if name in UNTIL_02:
        return [*wanted, {"start_group": 0}, {"end_group": 3}, {"start_frame": 1}, {"end_frame": 1, "end_group": 1}]
    wanted += [{"start_group": MAX + 1}, {"end_group": MAX + 1}, {"start_group": 5, "end_group": 4}]
    wanted.append({"start_frame": MAX + 1})
    if name != DEVELOP:
        # Ages are not sent there, and bounds are not written one above what they are.
        wanted += [{"max_age_ms": MAX + 1}, {"max_age_ms": -1}, {"end_group": MAX}]
    if name == "moq-lite-06":
        wanted += [{"end_frame": 1}, {"end_frame": MAX, "end_group": 1}]
    else:
        wanted += [{"start_frame": 1}, {"end_frame": 1, "end_group": 1}]
        if name != DEVELOP:
            wanted.append({"start_group": MAX})
    return wanted


@each_version
def test_numbers_that_a_subscription_cannot_say_are_local_errors(name):
    """A number past its field is a LocalProtocolError for the caller, and no id was used up."""
    side = SessionCore(dialects.get(name), is_client=True)
    running = side.subscribe("a", "t")
    for wanted in impossible(name):
        with pytest.raises(LocalProtocolError):
            side.subscribe("a", "t", **wanted)
        with pytest.raises(LocalProtocolError):
            running.update(**wanted)
    assert len(side._state.issued) == 1
    assert side.subscribe("a", "t").subscribe_id == 1
    assert running.update(priority=3)


@each_version
def test_a_group_above_the_highest_number_is_a_local_error(name):
    """A group can have the number 2^62-1; the next one is a LocalProtocolError, wherever a group is named."""
    dialect = dialects.get(name)
    client, server = SessionCore(dialect, is_client=True), SessionCore(dialect, is_client=False)
    request = client.subscribe("a", "t")
    answer = server.accept_bidi()
    answer.receive_data(request.opening, False)
    publisher = answer.machine
    (started, *_) = _received(client, server.group(0, MAX).opening)
    assert started == GroupStarted(0, MAX, 0)
    for number in (MAX + 1, -1):
        with pytest.raises(LocalProtocolError):
            server.group(0, number)
        if has_streams(dialect.name, StreamKind.FETCH):
            with pytest.raises(LocalProtocolError):
                client.fetch("a", "t", number)
        if dialect.features.subscribe_ok_needs_group:
            with pytest.raises(LocalProtocolError):
                publisher.accept(number)
    assert publisher.accept(3) or name == "moq-lite-02"
    if dialect.features.subscribe_drop:
        with pytest.raises(LocalProtocolError):
            publisher.drop(MAX + 1, MAX + 2)
    # There is no number after the highest one: the end of the stream marks the end of the track.
    assert publisher.end(MAX + 1) == b""


def _received(side: SessionCore, data: bytes) -> list[object]:
    return list(side.accept_uni().receive_data(data, False))


@pytest.mark.parametrize("name", TIMED)
def test_timestamps_that_a_stream_cannot_say_are_local_errors(name):
    """A timestamp outside 0 … 2^62-1, or 2^61 away from the one before, raises, and none of its frames counts."""
    dialect = dialects.get(name)
    client, server = SessionCore(dialect, is_client=True), SessionCore(dialect, is_client=False)
    server.accept_bidi().receive_data(client.subscribe("a", "t").opening, False)
    group = server.group(0, 1)
    reader = client.accept_uni()
    reader.receive_data(group.opening, False)
    for stamps in ((-1,), (2**61,), (2**62,), (5, 2**61 + 5), (2**61 - 1, 2**62)):
        with pytest.raises(LocalProtocolError):
            group.frames([Frame(b"x", stamp) for stamp in stamps])
    (event,) = reader.receive_data(group.frames([Frame(b"x", 2**61 - 1), Frame(b"y", 2**62 - 2)]), False)
    assert [frame.timestamp for frame in event.frames] == [2**61 - 1, 2**62 - 2]
    with pytest.raises(LocalProtocolError):
        client.datagram(0, 1, MAX + 1, b"")


# -- on live sessions -----------------------------------------------------------------------------------------


@each_version
async def test_a_track_may_end_with_the_highest_group(name):
    """A published group 2^62-1 arrives; there is no next one; and the track can end after it."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    with trio.fail_after(10):
        async with (
            session_pair(name) as (client, server),
            server.publish("b", broadcast),
            client.subscribe("b", "t") as subscription,
        ):
            await track.wait_subscribed()
            async with track.open_group(MAX) as group:
                await group.send(b"last", timestamp=1)
            with pytest.raises(ValueError, match=str(MAX + 1)):
                track.open_group()
            track.finish()
            group = await subscription.receive()
            assert (group.sequence, await group.read_all()) == (MAX, [b"last"])
            with pytest.raises(trio.EndOfChannel):
                await subscription.receive()
            assert client.closed is server.closed is None


@pytest.mark.parametrize("name", TIMED)
async def test_a_timestamp_that_no_stream_can_say_costs_its_group(name, caplog):
    """A frame whose timestamp cannot be encoded is reported as a dropped group; the track and both sessions go on."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    with trio.fail_after(10):
        async with (
            session_pair(name) as (client, server),
            server.publish("b", broadcast),
            client.subscribe("b", "t") as subscription,
        ):
            await track.wait_subscribed()
            await track.write(b"first", timestamp=1)
            assert (await (await subscription.receive()).read_all()) == [b"first"]
            lost = await track.write(b"lost", timestamp=2**61)
            await track.write(b"later", timestamp=3)
            assert (await (await subscription.receive()).read_all()) == [b"later"]
            assert subscription.statistics().groups_dropped == 1
            async with client.fetch("b", "t", lost) as reader:
                with pytest.raises(moqt.StreamReset) as caught:
                    await reader.receive()
                assert caught.value.code == moqt.StreamCode.INTERNAL_ERROR
            assert client.closed is server.closed is None
    assert [record.levelname for record in caplog.records if record.name.startswith("moqt_trio.")] == ["WARNING"] * 2
