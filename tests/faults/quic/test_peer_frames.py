"""Frames of a QUIC peer that cost little to send: what they may cost here, and which of them are mistakes."""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from aioquic.quic.packet import QuicErrorCode

from moqt_trio.transport.quic.aioquic.peer_frames import _ID_BURST, _IDS_PER_SECOND
from moqt_trio.transport.quic.stateless_reset import reset_token
from tests.faults.quic_hostile import hostile_client, stream_frame, varint
from tests.transport.quic_pair import serving
from tests.transport.recorders import Acceptor, eventually

if TYPE_CHECKING:
    from moqt_trio.limits import Limits

ACK, MAX_STREAM_DATA, STREAM_DATA_BLOCKED, RETIRE = 0x02, 0x11, 0x15, 0x19


@asynccontextmanager
async def attacked(limits: Limits | None = None):
    """Yield a hostile client, and the server's end of its connection, which accepts all streams."""
    accepted = []
    arrived = trio.Event()

    async def handler(connection):
        accepted.append(connection)
        connection.acceptor = connection.handler = Acceptor()
        arrived.set()
        await connection.wait_closed()

    async with serving(handler, limits) as listener, hostile_client(listener.port) as hostile:
        with trio.fail_after(5):
            await arrived.wait()
        # The client's own table takes no notice of the frames that a test sends.
        hostile.quic._local_active_connection_id_limit = 1000
        yield hostile, accepted[0]


async def send(hostile, *frames: tuple[int, bytes]) -> None:
    """Send frames, and wait until the server has answered all of them."""
    hostile.quic.frames += frames
    hostile.quic.send_ping(0)
    acknowledged = hostile.quic._loss.spaces[-1]
    hostile.flush()
    last = hostile.quic._packet_number - 1
    with trio.fail_after(5):
        await hostile.wait_for(lambda: hostile.ended is not None or acknowledged.largest_acked_packet >= last)


@pytest.mark.parametrize("ahead", [20, 10**6])
async def test_an_acknowledgement_of_what_was_not_sent(ahead):
    """It ends the connection with PROTOCOL_VIOLATION (RFC 9000, section 13.1)."""
    async with attacked() as (hostile, server):
        number = server._engine._quic._packet_number + ahead
        # The highest number, the delay, no further ranges, and how many are below it.
        hostile.quic.frames.append((ACK, varint(number) + varint(0) + varint(0) + varint(0)))
        hostile.flush()
        with trio.fail_after(5):
            await hostile.wait_for(lambda: hostile.ended is not None)
        assert hostile.ended.error_code == QuicErrorCode.PROTOCOL_VIOLATION


async def test_a_connection_id_that_was_not_sent():
    """An id that its replacement would have cannot be retired in the same packet (RFC 9000, section 19.16)."""
    async with attacked() as (hostile, server):
        issued = server._engine._quic._host_cid_seq
        hostile.quic.frames += [(RETIRE, varint(issued - 1)), (RETIRE, varint(issued))]
        hostile.flush()
        with trio.fail_after(5):
            await hostile.wait_for(lambda: hostile.ended is not None)
        assert hostile.ended.error_code == QuicErrorCode.PROTOCOL_VIOLATION


async def test_connection_ids_that_are_retired_all_the_time():
    """A peer that retires each id as it gets it is given so many at once, and then a few in a second."""
    async with attacked() as (hostile, server):
        quic = server._engine._quic
        start = trio.current_time()
        retired = 1
        while trio.current_time() < start + 1.5:
            frames = [(RETIRE, varint(number)) for number in range(retired, quic._highest_id_sent + 1)]
            retired = max(retired, quic._highest_id_sent + 1)
            await send(hostile, *frames)
        assert hostile.ended is None
        elapsed = trio.current_time() - start
        assert _ID_BURST < quic._host_cid_seq <= 4 + _ID_BURST + _IDS_PER_SECOND * elapsed + 4
        # The routes are those of the ids that are left.
        assert len(server._owner._connections[server]) <= 6


async def test_ids_are_replaced_one_for_one():
    """A peer that retires one gets one, whose token is that of the listener's key."""
    async with attacked() as (hostile, server):
        quic = server._engine._quic
        assert quic._host_cid_seq == 4
        await send(hostile, (RETIRE, varint(3)))
        assert quic._host_cid_seq == 5
        tokens = {cid.cid: cid.stateless_reset_token for cid in quic._host_cids}
        assert len(tokens) == len(set(tokens.values())) == 4
        assert tokens == {cid.cid: reset_token(quic._reset_key, cid.cid) for cid in quic._host_cids}


async def test_streams_that_are_opened_implicitly():
    """A frame for the highest stream of each kind makes two streams, and not 2,048."""
    async with attacked() as (hostile, server):
        quic = server._engine._quic
        await send(hostile, stream_frame(4 * 1023, 0, b"x"), stream_frame(4 * 1023 + 2, 0, b"x"))
        assert sorted(quic._streams) == sorted(server.streams) == [4092, 4094]
        # Those below are there when they are used, in any order, and end for good.
        for stream_id in (2 + 4 * 7, 4 * 1022, 4 * 5, 0, 2):
            await send(hostile, stream_frame(stream_id, 0, b"late"))
            assert stream_id in server.streams
            assert stream_id in quic._streams
        assert len(quic._streams) == 7
        assert hostile.ended is None
        hostile.quic.frames.append(stream_frame(4 * 1024, 0, b"x"))
        hostile.flush()
        with trio.fail_after(5):
            await hostile.wait_for(lambda: hostile.ended is not None)
        assert hostile.ended.error_code == QuicErrorCode.STREAM_LIMIT_ERROR


async def test_a_stream_that_was_made_late_and_has_ended_stays_so():
    """A frame that comes again for a stream that is over opens nothing, wherever its id lies."""
    async with attacked() as (hostile, server):
        quic = server._engine._quic
        await send(hostile, stream_frame(2 + 4 * 9, 0, b"x"))
        kind, body = stream_frame(2 + 4 * 4, 0, b"late")
        await send(hostile, (kind | 0x01, body))
        stream = server.streams.get(2 + 4 * 4)
        if stream is not None:
            stream.consumed(4)
        await eventually(lambda: 2 + 4 * 4 not in quic._streams)
        opened = len(quic._streams)
        await send(hostile, (kind | 0x01, body))
        assert len(quic._streams) == opened
        assert hostile.ended is None


@pytest.mark.parametrize(
    ("kind", "first"),
    [(STREAM_DATA_BLOCKED, 0), (STREAM_DATA_BLOCKED, 2), (MAX_STREAM_DATA, 0)],
    ids=["blocked-bidi", "blocked-uni", "credit"],
)
async def test_frames_that_open_a_stream_and_bring_nothing(kind, first):
    """For a whole window of them no stream is made, and below 128 KiB are kept; those that are used later are there."""
    async with attacked() as (hostile, server):
        quic = server._engine._quic
        frames = [(kind, varint(4 * number + first) + varint(2**20)) for number in range(1024)]
        await send(hostile, *frames[:8])
        tracemalloc.start()
        try:
            await send(hostile, *frames)
            gc.collect()
            kept = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/quic/aioquic/*")])
        finally:
            tracemalloc.stop()
        assert sum(trace.size for trace in kept.traces) < 128 * 1024
        assert len(quic._streams) == len(server.streams) == 0
        for number in (7, 1023, 0):
            await send(hostile, stream_frame(4 * number + first, 0, b"late"))
            assert 4 * number + first in server.streams
        assert len(quic._streams) == 3
        assert hostile.ended is None
        hostile.quic.frames.append((kind, varint(4 * 1024 + first) + varint(2**20)))
        hostile.flush()
        with trio.fail_after(5):
            await hostile.wait_for(lambda: hostile.ended is not None)
        assert hostile.ended.error_code == QuicErrorCode.STREAM_LIMIT_ERROR


@pytest.mark.parametrize("kind", [STREAM_DATA_BLOCKED, MAX_STREAM_DATA])
async def test_frames_for_the_only_stream(kind):
    """They are read as usual when no stream was opened but those that have had data."""
    async with attacked() as (hostile, server):
        await send(hostile, stream_frame(0, 0, b"x"))
        await send(hostile, (kind, varint(0) + varint(2**21)))
        assert hostile.ended is None
        credit = server._engine._quic._streams[0].max_stream_data_remote
        assert (credit == 2**21) is (kind == MAX_STREAM_DATA)


async def test_credit_that_came_before_its_stream():
    """The largest MAX_STREAM_DATA counts once the stream is there, and none below the peer's initial limit."""
    async with attacked() as (hostile, server):
        quic = server._engine._quic
        initial = quic._remote_max_stream_data_bidi_local
        assert 0 < initial < 2**21
        frames = [(MAX_STREAM_DATA, varint(8) + varint(credit)) for credit in (2**21, 2**22, 2**20)]
        await send(hostile, *frames, (MAX_STREAM_DATA, varint(4) + varint(initial - 1)))
        await send(hostile, *[stream_frame(stream_id, 0, b"x") for stream_id in (0, 4, 8)])
        credits = {stream_id: stream.max_stream_data_remote for stream_id, stream in quic._streams.items()}
        assert credits == {0: initial, 4: initial, 8: 2**22}
        assert not quic._early_credit


@pytest.mark.parametrize(
    ("kind", "stream_id"),
    [(STREAM_DATA_BLOCKED, 1), (STREAM_DATA_BLOCKED, 3), (MAX_STREAM_DATA, 1), (MAX_STREAM_DATA, 2)],
    ids=["blocked-ours", "blocked-ours-uni", "credit-ours", "credit-theirs-uni"],
)
async def test_frames_for_streams_that_the_peer_cannot_open(kind, stream_id):
    """They end the connection with STREAM_STATE_ERROR (RFC 9000, sections 19.10 and 19.13)."""
    async with attacked() as (hostile, _):
        hostile.quic.frames.append((kind, varint(stream_id) + varint(2**20)))
        hostile.flush()
        with trio.fail_after(5):
            await hostile.wait_for(lambda: hostile.ended is not None)
        assert hostile.ended.error_code == QuicErrorCode.STREAM_STATE_ERROR
