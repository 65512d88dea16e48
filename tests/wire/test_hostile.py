"""Bytes that no peer sends: only documented exceptions, little memory, and no difference made by how they are cut."""

from __future__ import annotations

import tracemalloc

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moqt_trio import varint
from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed
from moqt_trio.limits import Limits
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire import messages as m
from moqt_trio.wire.buffer import StreamBuffer
from moqt_trio.wire.messages import Expect
from tests.wire.strict import feed

LIMITS = Limits()
# The versions with their own framing are held to the same in `test_legacy_*.py`.
ALL = tuple(dialects.get(name) for name in ("moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03"))


def _has(dialect, expect):
    try:
        dialect.read_untrusted(expect, StreamBuffer(), LIMITS)
    except LocalProtocolError:
        return False
    return True


PLACES = [(dialect, expect) for dialect in ALL for expect in Expect if _has(dialect, expect)]
each_place = pytest.mark.parametrize(("dialect", "expect"), PLACES, ids=[f"{d.name}-{e.value}" for d, e in PLACES])

numbers = st.one_of(st.integers(0, 300), st.integers(0, varint.MAX))
below_top = numbers.filter(lambda number: number < varint.MAX)
paths = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
hops = st.lists(numbers, max_size=32, unique=True).map(tuple)
bytes_ = st.integers(0, 255)


def _messages(dialect):
    """Every message that a version carries without loss, with the place where it is read."""
    f = dialect.features
    ranges = {
        "priority": bytes_,
        "ordered": st.just(False) if f.frame_ranges else st.booleans(),
        "max_age_ms": numbers,
        "start_group": st.none() | below_top.filter(bool),
        "end_group": below_top if f.frame_ranges else st.none() | below_top,
        "start_frame": numbers if f.frame_ranges else st.just(0),
        "end_frame": st.none() | below_top if f.frame_ranges else st.none(),
    }
    hop_lists = hops if f.sender_hop != "count" else st.integers(0, 32).map(lambda count: (0,) * count)
    yield Expect.ANNOUNCE_REQUEST, st.builds(m.AnnounceRequest, paths, numbers if f.exclude_hop else st.just(0))
    yield Expect.SUBSCRIBE, st.builds(m.Subscribe, numbers, paths, paths, **ranges)
    yield Expect.SUBSCRIBE_UPDATE, st.builds(m.SubscribeUpdate, **ranges)
    yield Expect.GROUP, st.builds(m.Group, numbers, numbers, numbers if f.frame_ranges else st.just(0))
    yield (
        Expect.PROBE,
        st.builds(
            m.Probe,
            st.none() | numbers.filter(bool),
            st.none() | numbers.filter(bool) if f.probe == "rtt" else st.none(),
        ),
    )
    yield (
        Expect.SUBSCRIBE_REPLY,
        st.builds(m.SubscribeDrop, st.integers(0, 99), st.integers(99, varint.MAX), numbers),
    )
    fetch = st.builds(m.Fetch, paths, paths, bytes_, numbers)
    if f.frame_ranges:
        ends = st.none() | st.integers(300, varint.MAX - 1)
        fetch = st.builds(m.Fetch, paths, paths, bytes_, numbers, st.integers(0, 300), ends)
    yield Expect.FETCH, fetch
    if f.announce_ids:
        yield Expect.ANNOUNCE_REPLY, st.builds(m.AnnounceStart, paths, hop_lists, numbers, numbers)
        yield Expect.ANNOUNCE_REPLY, st.builds(m.AnnounceUpdate, numbers, hop_lists, numbers, numbers)
        yield Expect.ANNOUNCE_REPLY, st.builds(m.AnnounceEnd, numbers)
    else:
        yield Expect.ANNOUNCE_REPLY, st.builds(m.AnnounceStart, paths, hop_lists)
        yield Expect.ANNOUNCE_REPLY, st.builds(m.AnnounceEnd, st.none(), paths, hop_lists)
    if f.subscribe_ok_needs_group:
        yield Expect.SUBSCRIBE_REPLY, st.builds(m.SubscribeOk, numbers)
        yield Expect.SUBSCRIBE_REPLY, st.builds(m.SubscribeEnd, numbers)
    else:
        group = st.none() | below_top
        yield Expect.SUBSCRIBE_REPLY, st.builds(m.SubscribeOk, group, bytes_, st.booleans(), numbers, group)
    if f.goaway:
        yield Expect.GOAWAY, st.builds(m.Goaway, paths)
    if f.track_info:
        ordered = st.just(False) if f.frame_ranges else st.booleans()
        yield Expect.TRACK_REQUEST, st.builds(m.TrackRequest, paths, paths)
        yield Expect.TRACK_INFO, st.builds(m.TrackInfo, bytes_, ordered, numbers, numbers.filter(bool))
    if f.setup == "uni":
        yield Expect.ANNOUNCE_FIRST_REPLY, st.builds(m.AnnounceOk, numbers, numbers)
        yield (
            Expect.SETUP,
            st.builds(
                m.Setup,
                st.sampled_from(m.ProbeLevel),
                st.none() | paths,
                st.sampled_from(m.Role),
                st.none() | numbers,
                numbers,
            ),
        )


ROUND_TRIPS = [
    (dialect, st.lists(st.one_of([st.tuples(st.just(e), strategy) for e, strategy in _messages(dialect)]), max_size=6))
    for dialect in ALL
]


def test_every_place_has_a_round_trip():
    """Each place of each version is among the round trips below."""
    covered = {(dialect.name, expect) for dialect in ALL for expect, _ in _messages(dialect)}
    assert covered == {(dialect.name, expect) for dialect, expect in PLACES}


@pytest.mark.parametrize(("dialect", "items"), ROUND_TRIPS, ids=[d.name for d, _ in ROUND_TRIPS])
def test_messages_survive_any_cut(dialect, items):
    """Any messages, one after the other and cut anywhere, are read as they were written."""

    @given(items, st.lists(st.integers(1, 40), min_size=1, max_size=8))
    def check(items, steps):
        wire = b"".join(dialect.encode(message) for _, message in items)
        buffer, waiting, at = StreamBuffer(), list(items), 0
        for turn in range(len(wire) + 1):
            while waiting and (message := dialect.read_untrusted(waiting[0][0], buffer, LIMITS)) is not None:
                assert message == waiting.pop(0)[1]
            if at >= len(wire):
                break
            step = steps[turn % len(steps)]
            buffer.feed(wire[at : at + step])
            at += step
        assert not waiting
        assert len(buffer) == 0

    check()


@each_place
def test_noise_raises_only_what_is_documented(dialect, expect):
    """Whatever bytes come, reading gives messages, asks for more, or raises Malformed or LimitExceeded."""

    @given(st.binary(max_size=60), st.booleans())
    def check(noise, framed):
        buffer = StreamBuffer(varint.encode(len(noise)) + noise if framed else noise)
        try:
            while dialect.read_untrusted(expect, buffer, LIMITS) is not None:
                pass
        except (Malformed, LimitExceeded):
            pass

    check()


@pytest.mark.parametrize("dialect", ALL, ids=repr)
def test_noise_as_frames_and_datagrams(dialect):
    """Whatever bytes come, frames and datagrams raise only Malformed or LimitExceeded, and only break the stream."""

    def outcome(pieces):
        decoder, read = dialect.frame_decoder(attrs.evolve(LIMITS, max_frame=1000)), []
        try:
            for piece in pieces:
                read += feed(decoder, piece)
        except (Malformed, LimitExceeded) as error:
            return error.scope, str(error)
        return read, decoder.pending_bytes

    @given(st.binary(max_size=80))
    def check(noise):
        whole = outcome([noise])
        assert whole[0] != "session"
        assert outcome([noise[i : i + 1] for i in range(len(noise))]) == whole
        scope = "stream"
        try:
            assert noise.endswith(dialect.read_datagram_untrusted(noise).payload)
        except Malformed as error:
            scope = error.scope
        assert scope == "stream"

    check()


@each_place
def test_claims_cost_no_memory(dialect, expect):
    """A length of 2^62-1, a count of a million, and a body of nothing but high numbers are refused within 64 KiB."""
    huge = b"\xff" * 8
    million = varint.encode(1_000_000)
    claims = [huge, b"\x00" + huge, million, b"\x00" + million]
    for kind in (b"", b"\x00", b"\x01", b"\x02"):
        claims += [
            kind + bytes((len(body),)) + body for body in (million, b"\x00" + million, huge * 7, b"\x01" * 3 + million)
        ]
    buffers = [StreamBuffer(claim) for claim in claims]
    tracemalloc.start()
    refused = 0
    for buffer in buffers:
        try:
            dialect.read_untrusted(expect, buffer, LIMITS)
        except (Malformed, LimitExceeded):
            refused += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused >= 2
    assert peak < 64 * 1024


@each_place
def test_waiting_takes_nothing(dialect, expect):
    """While a message that may be long arrives bit by bit, nothing is read twice and nothing is lost."""
    kind = b"" if dialect.encode(_example(dialect, expect))[0] != 0 else b"\x00"
    head = kind + varint.encode(LIMITS.max_message)
    buffer = StreamBuffer()
    for byte in head + bytes(200):
        buffer.feed(bytes((byte,)))
        assert dialect.read_untrusted(expect, buffer, LIMITS) is None
    assert buffer.take_all() == head + bytes(200)


def _example(dialect, expect):
    if expect is Expect.SUBSCRIBE_REPLY:
        return m.SubscribeOk(0)
    if expect is Expect.ANNOUNCE_REPLY:
        return m.AnnounceStart("")
    return m.Group(0, 0)
