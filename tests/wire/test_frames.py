"""Frames: the same frames come out however the stream is cut, and nothing is made for a length that is only claimed."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moqt_trio import varint
from moqt_trio.errors import LimitExceeded, LocalProtocolError, Malformed
from moqt_trio.limits import Limits
from moqt_trio.wire import dialect as dialects
from tests.wire.strict import Frame, encode, encoder_at, feed

if TYPE_CHECKING:
    from moqt_trio.wire.dialect import Dialect

LIMITS = Limits()
TIMED = dialects.get("moq-lite-06")
PLAIN = dialects.get("moq-lite-03")

payloads = st.one_of(st.binary(max_size=80), st.integers(0, 20_000).map(bytes))
# The zigzag form holds any step between two of these.
timestamps = st.one_of(st.integers(0, 200), st.integers(0, varint.SIGNED_MAX))
timed_frames = st.lists(st.builds(Frame, payloads, timestamps), max_size=8)
plain_frames = st.lists(st.builds(Frame, payloads), max_size=8)


def _split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def _round_trip(dialect: Dialect, frames: list[Frame], cuts: list[int]) -> None:
    wire = encode(dialect, frames)
    decoder = dialect.frame_decoder(LIMITS)
    read, fed = [], 0
    for piece in _split(wire, cuts):
        read += feed(decoder, piece)
        fed += len(piece)
        assert decoder.pending_bytes == fed - sum(frame.wire_size for frame in read)
    assert read == frames
    assert decoder.pending_bytes == 0


@given(timed_frames, st.lists(st.integers(0, 1 << 20), max_size=12))
def test_timed_frames_survive_any_cut(frames, cuts):
    """Frames with timestamps come out as they went in, and every byte of them is accounted for."""
    _round_trip(TIMED, frames, cuts)


@given(plain_frames, st.lists(st.integers(0, 1 << 20), max_size=12))
def test_plain_frames_survive_any_cut(frames, cuts):
    """Frames without timestamps come out as they went in, and every byte of them is accounted for."""
    _round_trip(PLAIN, frames, cuts)


@given(timed_frames)
def test_many_frames_are_written_as_one_by_one(frames):
    """Writing many at once gives the bytes of writing each, here and by the way that every dialect inherits."""
    parts, previous = [], 0
    for frame in frames:
        parts.append(TIMED.encode_frame(frame.payload, frame.timestamp, previous))
        previous = frame.timestamp
    encoder = TIMED.frame_encoder()
    assert encoder.encode(frames) == b"".join(parts)
    assert encoder.encode([Frame(b"", previous)]) == b"\x00\x00"
    plain = b"".join(PLAIN.encode_frame(frame.payload, frame.timestamp, 0) for frame in frames)
    assert encode(PLAIN, frames, 9) == plain


def test_every_byte_alone():
    """Fed one byte at a time, each frame appears with its last byte; empty feeds change nothing."""
    wire = bytes.fromhex("67100361626347cf00")
    decoder = TIMED.frame_decoder(LIMITS)
    seen = []
    for count, byte in enumerate(wire, 1):
        assert feed(decoder, b"") == []
        seen += [(count, frame) for frame in feed(decoder, bytes((byte,)))]
    assert seen == [(6, Frame(b"abc", 5000)), (9, Frame(b"", 4000))]
    assert [frame.wire_size for _, frame in seen] == [6, 3]


def test_pending_bytes():
    """What belongs to a frame that is not complete is counted, header included; at a boundary nothing is."""
    decoder = TIMED.frame_decoder(LIMITS)
    for piece, pending in ((b"\x67", 1), (b"\x10", 2), (b"\x05", 3), (b"ab", 5), (b"cde", 0), (b"\x00\x00", 0)):
        feed(decoder, piece)
        assert decoder.pending_bytes == pending
    assert "0 bytes pending" in repr(decoder)


def test_a_frame_without_a_timestamp_takes_the_one_before():
    """None counts as the timestamp before; at the start that is 0."""
    assert TIMED.encode_frame(b"a", None, 5000) == b"\x00\x01a"
    encoder = TIMED.frame_encoder()
    wire = encoder.encode([Frame(b"a"), Frame(b"b", 7), Frame(b"c")])
    assert encoder.encode([Frame(b"", 7)]) == b"\x00\x00"
    assert [frame.timestamp for frame in feed(TIMED.frame_decoder(LIMITS), wire)] == [0, 7, 7]


@pytest.mark.parametrize(("dialect", "prefix"), [(PLAIN, b""), (TIMED, b"\x00")])
def test_frame_length_limit(dialect, prefix):
    """A frame may be as long as `max_frame`; one byte more fails with its length, before any payload."""
    limits = attrs.evolve(LIMITS, max_frame=100)
    header = prefix + varint.encode(100)
    (frame,) = feed(dialect.frame_decoder(limits), header + bytes(100))
    assert len(frame.payload) == 100
    for size in (101, varint.MAX):
        wire = prefix + varint.encode(size)
        for pieces in ([wire], [wire[i : i + 1] for i in range(len(wire))]):
            decoder = dialect.frame_decoder(limits)
            with pytest.raises(LimitExceeded) as caught:
                _feed_all(decoder, pieces)
            assert (caught.value.scope, caught.value.code) == ("stream", 0x38)
            assert (caught.value.limit, caught.value.value) == ("max_frame", size)


@pytest.mark.parametrize(
    "numbers",
    [[1], [2, 3], [(1 << 62) - 1], [(1 << 62) - 2, (1 << 62) - 2, 4]],
    ids=["-1", "1-2", "-2^61", "2^62"],
)
def test_timestamps_that_leave_their_range(numbers):
    """A timestamp below 0 or above 2^62-1 breaks the stream: it does not wrap, and is not waited with."""
    *good, bad = [varint.encode(number) for number in numbers]
    decoder = TIMED.frame_decoder(LIMITS)
    for number in good:
        assert len(feed(decoder, number + b"\x00")) == 1
    with pytest.raises(Malformed) as caught:
        feed(decoder, bad)
    assert (caught.value.scope, caught.value.code) == ("stream", 0x12)


def test_the_highest_timestamp_is_reached():
    """2^62-1 is a timestamp."""
    encoder = TIMED.frame_encoder()
    wire = encoder.encode([Frame(b"", varint.SIGNED_MAX), Frame(b"", varint.MAX - 1), Frame(b"", varint.MAX)])
    assert encoder.encode([Frame(b"", varint.MAX)]) == b"\x00\x00"
    assert feed(TIMED.frame_decoder(LIMITS), wire)[-1].timestamp == varint.MAX


@pytest.mark.parametrize(("timestamp", "previous"), [(-1, 0), (1 << 62, varint.MAX), (varint.MAX, 0)])
def test_timestamps_that_cannot_be_written(timestamp, previous):
    """A timestamp out of range, or too far from the one before, is the caller's mistake."""
    with pytest.raises(LocalProtocolError):
        TIMED.encode_frame(b"", timestamp, previous)
    encoder = encoder_at(TIMED, previous)
    with pytest.raises(LocalProtocolError):
        encoder.encode([Frame(b"", timestamp)])
    # It is as if nothing had been given.
    assert encoder.encode([Frame(b"", previous)]) == b"\x00\x00"


def test_a_claimed_length_costs_nothing():
    """A header that claims the highest allowed length holds no more memory than the bytes that came."""
    decoder = PLAIN.frame_decoder(LIMITS)
    header = varint.encode(LIMITS.max_frame)
    tracemalloc.start()
    feed(decoder, header)
    feed(decoder, bytes(1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert decoder.pending_bytes == len(header) + 1000
    assert peak < 16 * 1024


def test_a_large_frame_is_gathered_in_linear_time():
    """A byte of a large frame in small pieces costs about as much as a byte of a small one."""

    def cost(size):
        decoder, piece = PLAIN.frame_decoder(LIMITS), bytes(64)
        feed(decoder, varint.encode(size))
        start = time.process_time()
        for _ in range(size // 64 - 1):
            feed(decoder, piece)
        (frame,) = feed(decoder, piece)
        assert len(frame.payload) == size
        return (time.process_time() - start) / size

    small = min(cost(64 * 1024) for _ in range(5))
    large = min(cost(4 * 1024 * 1024) for _ in range(2))
    assert large < 8 * small  # quadratic cost would be 64 times as much


def _feed_all(decoder, pieces):
    """Feeds pieces of which none completes a frame."""
    for piece in pieces:
        assert feed(decoder, piece) == []
