"""One-byte frames with gaps between them, in real packets: in one stream, and spread over many."""

from __future__ import annotations

import contextlib

import trio
import trio.lowlevel
from aioquic.quic.packet import QuicErrorCode

from moqt_trio.errors import StreamReset
from moqt_trio.limits import MIB, Limits
from tests.faults.quic_hostile import Hostile, hostile_client, stream_frame, varint
from tests.faults.served import ServedProcess, served
from tests.machine import seconds
from tests.transport.awaiting import accept_uni
from tests.transport.quic_pair import serving as quic_serving
from tests.transport.recorders import read_all

LIMITS = Limits()
CPU = 0.1
"""Seconds of a usual machine that such a peer may cost the server before it is closed."""


async def send_gaps(hostile: Hostile, streams: int, gaps: int) -> int:
    """Send every other byte of so many streams until the connection is closed; return how many frames left."""
    sent = 0
    for number in range(streams):
        frames = [stream_frame(2 + 4 * (number + 1), 2 * index + 1, b"x") for index in range(gaps)]
        for start in range(0, len(frames), 100):
            if hostile.ended is not None:
                return sent
            hostile.quic.frames = frames[start : start + 100]
            sent += len(hostile.quic.frames)
            hostile.flush()
            await trio.lowlevel.checkpoint()
    return sent


async def closed_by_gaps(server: ServedProcess, streams: int, gaps: int) -> tuple[int, float, int]:
    """Send gaps until the server has closed; return the frames that left, and the server's CPU and memory for them."""
    async with hostile_client(server.port) as hostile:
        hostile.quic.send_stream_data(2, bytes.fromhex("010100"), True)
        hostile.flush()
        with trio.fail_after(5):
            while not (before := await server.at_rest()).sessions:
                pass
        sent = await send_gaps(hostile, streams, gaps)
        with trio.fail_after(5):
            await hostile.wait_for(lambda: hostile.ended is not None)
        assert hostile.ended is not None
        assert hostile.ended.error_code == QuicErrorCode.INTERNAL_ERROR
        assert "gaps" in hostile.ended.reason_phrase
        after = await server.figures()
        await server.check_next_client()
    return sent, after.cpu - before.cpu, after.peak - before.resident


async def test_gaps_in_one_stream():
    """Of 20,000 frames those after `max_gaps` close the connection, for at most 0.1 s of CPU."""
    assert LIMITS.max_gaps == 256
    async with served() as server:
        sent, cpu, grown = await closed_by_gaps(server, 1, 20_000)
    print(f"\n{sent} frames sent, {cpu:.3f} s of CPU, the server grew by {grown / MIB:.2f} MiB")
    assert sent > LIMITS.max_gaps
    assert cpu <= seconds(CPU)
    assert grown <= MIB


async def test_gaps_in_a_thousand_streams():
    """The gaps of all streams are bounded together: a peer that keeps each stream below its bound is closed, too."""
    async with served() as server:
        sent, cpu, grown = await closed_by_gaps(server, 1000, LIMITS.max_gaps - 6)
    print(f"\n{sent} frames sent, {cpu:.3f} s of CPU, the server grew by {grown / MIB:.2f} MiB")
    assert LIMITS.max_connection_gaps <= sent
    assert grown <= 2 * MIB


async def read_everything(connection) -> None:
    """Read the streams of a connection, finished or reset, one after the other."""
    while True:
        with contextlib.suppress(StreamReset):
            await read_all(await accept_uni(connection))


async def test_gaps_that_are_filled_do_not_count():
    """Streams that arrive out of order one after the other, and are filled or reset, use the bound up no more than
    one."""
    limits = Limits(max_connection_gaps=100)
    async with quic_serving(read_everything, limits) as listener, hostile_client(listener.port) as hostile:
        for number in range(20):
            stream_id = 2 + 4 * number
            odd = [stream_frame(stream_id, 2 * index + 1, b"x") for index in range(80)]
            even = [stream_frame(stream_id, 2 * index, b"x") for index in range(80)]
            reset = (0x04, varint(stream_id) + varint(7) + varint(160))
            hostile.quic.frames = [*odd, reset] if number % 2 else [*odd, *even]
            if not number % 2:
                kind, body = stream_frame(stream_id, 160, b"")
                hostile.quic.frames.append((kind | 0x01, body))
            hostile.quic.send_ping(number)
            hostile.flush()
            with trio.fail_after(5):
                last = hostile.quic._packet_number - 1
                space = hostile.quic._loss.spaces[-1]
                await hostile.wait_for(
                    lambda space=space, last=last: hostile.ended is not None or space.largest_acked_packet >= last
                )
            assert hostile.ended is None, hostile.ended
