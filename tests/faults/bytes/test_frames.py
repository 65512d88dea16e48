"""A frame that is too long, cut short, or out of time.

Each breaks its own stream and nothing else, in every version: its reader gets the error, the stream is stopped, and
other tracks of the session go on.
"""

from __future__ import annotations

import tracemalloc

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.varint import encode
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import Group, StreamKind
from tests.faults.dialects import LARGEST, MALFORMED_TRACK, MAX, NAMES, TIMED, UNFRAMED, vectors
from tests.faults.hostile_peer import Peer, hostile_peer
from tests.faults.raw_peer import code_of_stop, settled
from tests.transport.awaiting import accept_bidi
from tests.wire.strict import feed

each_version = pytest.mark.parametrize("name", NAMES)
FRAME_TOO_LARGE = 0x38
MAX_FRAME = 1000
LIMITS = moqt.Limits(max_frame=MAX_FRAME)


def frame(name: str, payload: bytes, *, size: bytes | None = None) -> bytes:
    """Return a frame at timestamp 0, perhaps with another length than it has."""
    delta = b"\x00" if name in TIMED else b""
    return delta + (encode(len(payload)) if size is None else size) + payload


async def check_stopped(peer: Peer, stream, code: int) -> None:
    """The stream was refused with a code, in the version's own numbers."""
    assert await code_of_stop(stream) == peer.dialect.codes.to_wire("group", code)


async def check_delivery(peer: Peer, subscription: moqt.Subscription, subscribe_id: int) -> None:
    """A group of another track still arrives whole."""
    await peer.group(subscribe_id, 5000, frame(peer.dialect.name, b"fine"), fin=True)
    with trio.fail_after(10):
        group = await subscription.receive()
        assert (group.sequence, await group.read_all()) == (5000, [b"fine"])
    assert peer.session.closed is None


@each_version
@pytest.mark.parametrize("size", [MAX_FRAME + 1, MAX], ids=["limit+1", "2^62-1"])
async def test_a_frame_over_the_limit_resets_its_group_and_nothing_else(name, size):
    """A frame that over `max_frame` is LimitExceeded at the reader; the session and other tracks go on."""
    async with hostile_peer(name, limits=LIMITS) as peer:
        broken, other = await peer.subscription("broken"), await peer.subscription("other")
        stream = await peer.group(0, 1, frame(name, b"before") + frame(name, b"x" * 50, size=encode(size)))
        with trio.fail_after(10):
            reader = await broken.receive()
            assert await reader.receive() == b"before"
            for _ in range(2):
                with pytest.raises(moqt.StreamReset) as caught:
                    await reader.receive()
                assert (caught.value.code, caught.value.by_peer) == (FRAME_TOO_LARGE, False)
                assert isinstance(caught.value.__cause__, moqt.LimitExceeded)
                assert (caught.value.__cause__.limit, caught.value.__cause__.value) == ("max_frame", size)
            await check_stopped(peer, stream, FRAME_TOO_LARGE)
        assert broken.statistics().groups_reset == 1
        await check_delivery(peer, other, 1)
        # The broken track's next group arrives.
        await check_delivery(peer, broken, 0)


@each_version
@pytest.mark.parametrize("together", [True, False], ids=["one piece", "two pieces"])
async def test_unread_broken_groups_are_bounded(name, together, autojump_clock):
    """The whole frames of a broken group keep their credit until they are read: breaking groups fills no memory."""
    limits = moqt.Limits(max_frame=MAX_FRAME, max_streams=8, stream_window=4096, connection_window=16 * 1024)
    async with hostile_peer(name, limits=limits) as peer:
        subscription = await peer.subscription()
        good, bad = frame(name, b"x" * 60) * 16, frame(name, b"", size=LARGEST)
        sent = 0
        with trio.move_on_after(0.1):
            while sent < 60:
                stream = await peer.group(0, sent + 1, good + bad if together else good)
                sent += 1
                await settled()
                if not together:
                    stream.write(bad)
                    await settled()
                stream.reset(1)  # as every peer answers a refusal
                await settled()
        assert sent == subscription.unread_groups == limits.max_streams
        with trio.fail_after(10):
            for _ in range(sent):
                reader = await subscription.receive()
                assert [await reader.receive() for _ in range(16)] == [b"x" * 60] * 16
                with pytest.raises(moqt.StreamReset):
                    await reader.receive()
            await check_delivery(peer, subscription, 0)


@each_version
async def test_a_frame_of_exactly_the_limit_is_delivered(name):
    """`max_frame` itself is allowed."""
    async with hostile_peer(name, limits=LIMITS) as peer:
        subscription = await peer.subscription()
        payload = bytes(MAX_FRAME)
        await peer.group(0, 1, frame(name, payload), fin=True)
        with trio.fail_after(10):
            assert await (await subscription.receive()).read_all() == [payload]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("moq-lite-01", "moq-lite-02")])
async def test_a_fetched_frame_over_the_limit_ends_the_fetch(name):
    """A fetch has the same limit: its reader gets the error, the request is cancelled, the session goes on."""
    async with hostile_peer(name, limits=LIMITS) as peer, peer.session.fetch("a", "t", 1) as reader:
        stream = await accept_bidi(peer.connection)
        stream.write(frame(name, b"before") + frame(name, b"", size=LARGEST))
        with trio.fail_after(10):
            assert await reader.receive() == b"before"
            with pytest.raises(moqt.StreamReset) as caught:
                await reader.receive()
        assert (caught.value.code, caught.value.by_peer) == (FRAME_TOO_LARGE, False)
        assert isinstance(caught.value.__cause__, moqt.LimitExceeded)
        code = peer.dialect.codes.to_wire("fetch", FRAME_TOO_LARGE)
        assert await code_of_stop(stream) == code
        await peer.check_alive()


@each_version
def test_a_frame_of_the_default_limit_is_not_allocated_before_it_comes(name):
    """The largest frame that is allowed takes memory as it arrives, never for the length in its header."""
    limits = moqt.Limits()
    decoder = dialects.get(name).frame_decoder(limits)
    tracemalloc.start()
    try:
        assert feed(decoder, frame(name, b"x" * 1000, size=encode(limits.max_frame))) == []
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024
    finally:
        tracemalloc.stop()


# -- a group that ends too early ------------------------------------------------------------------------------


def walk(name: str, wire: bytes) -> list[tuple[int, bytes]]:
    """Return where each frame of some whole frames ends, and its payload. Every number here has one or two bytes."""
    found, offset = [], 0
    while offset < len(wire):
        if name in TIMED:
            offset += 1 + (wire[offset] >> 6)
        if wire[offset] >> 6:
            size, offset = int.from_bytes(wire[offset : offset + 2], "big") & 0x3FFF, offset + 2
        else:
            size, offset = wire[offset], offset + 1
        found.append((offset + size, wire[offset : offset + size]))
        offset += size
    return found


def frames_of_vector(name: str) -> bytes:
    """Return the frames of the version's vector of a group: what comes after its type, header and length."""
    (wire,) = vectors(name, "GROUP_STREAM")
    return wire[3 if name == UNFRAMED else 2 + wire[1] :]


@each_version
async def test_a_group_cut_at_any_byte_is_marked_incomplete(name):
    """A group that is finished inside a frame ends in StreamReset after its whole frames, never as if complete.

    The cut is tried at every byte of the frames in the version's vector. At a frame's end the group is just shorter.
    """
    wire = frames_of_vector(name)
    frames = walk(name, wire)
    ends = {0, *(end for end, _ in frames)}
    async with hostile_peer(name) as peer:
        subscription = await peer.subscription()
        for cut in range(len(wire) + 1):
            await peer.group(0, cut + 1, wire[:cut], fin=True)
            with trio.fail_after(10):
                reader = await subscription.receive()
                assert reader.sequence == cut + 1
                whole = [payload for end, payload in frames if end <= cut]
                assert [await reader.receive() for _ in whole] == whole
                with pytest.raises(trio.EndOfChannel if cut in ends else moqt.StreamReset) as caught:
                    await reader.receive()
            if cut not in ends:
                assert (caught.value.code, caught.value.by_peer) == (MALFORMED_TRACK, False)
                assert isinstance(caught.value.__cause__, moqt.Malformed)
        statistics = subscription.statistics()
        assert statistics.groups_received == len(wire) + 1
        assert statistics.groups_reset == len(wire) + 1 - len(ends)
        assert peer.session.closed is None


@each_version
async def test_a_group_that_ends_in_its_header_was_none(name):
    """A group stream that is finished inside its type or its header reports nothing, and leaves nothing."""
    async with hostile_peer(name) as peer:
        subscription = await peer.subscription()
        kept = len(peer.session._context.connection.streams)
        head = peer.dialect.stream_type(StreamKind.GROUP) + peer.dialect.encode(Group(0, 70_000))
        for cut in range(len(head)):
            stream = await peer.connection.open_uni()
            stream.write(head[:cut], fin=True)
            await settled()
        assert subscription.unread_groups == 0
        assert len(peer.session._context.connection.streams) == kept
        await check_delivery(peer, subscription, 0)


# -- timestamps -----------------------------------------------------------------------------------------------

TOO_EARLY = {"below 0": b"\x01", "far below 0": LARGEST}
TOO_LATE = {"above 2^62-1": b"\xff" * 7 + b"\xfe"}


@pytest.mark.parametrize("name", TIMED)
@pytest.mark.parametrize("delta", [*TOO_EARLY.values(), *TOO_LATE.values()], ids=[*TOO_EARLY, *TOO_LATE])
async def test_a_timestamp_out_of_range_breaks_its_group(name, delta):
    """Deltas that lead below 0 or above 2^62-1 are Malformed and never wrap around; the session goes on."""
    async with hostile_peer(name) as peer:
        subscription, other = await peer.subscription(), await peer.subscription("other")
        # 2^61-1 twice is still a timestamp; a third time is not.
        high = delta in TOO_LATE.values()
        before = (delta + b"\x01a") * 2 if high else b""
        stream = await peer.group(0, 1, before + delta + b"\x01b")
        with trio.fail_after(10):
            reader = await subscription.receive()
            if high:
                stamps = [(await reader.receive()).timestamp for _ in range(2)]
                assert stamps == [2**61 - 1, 2**62 - 2]
            with pytest.raises(moqt.StreamReset) as caught:
                await reader.receive()
            assert isinstance(caught.value.__cause__, moqt.Malformed)
            assert caught.value.code == MALFORMED_TRACK
            await check_stopped(peer, stream, MALFORMED_TRACK)
        await check_delivery(peer, other, 1)
