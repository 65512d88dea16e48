"""What the streams of a connection hold until the peer has acknowledged it, and who may add to it."""

from __future__ import annotations

import trio

from moqt_trio.limits import KIB, MIB, Limits
from tests.transport.awaiting import accept_uni, send_all
from tests.transport.engine_pair import Pair
from tests.transport.quic_pair import quic_pair
from tests.transport.recorders import eventually, ping_pong, read_all


def test_a_reset_drops_what_was_written():
    """What was written on a stream is dropped with its reset, and not only when the peer acknowledges that."""
    pair = Pair()
    quic = pair.client._quic
    streams = [pair.open(unidirectional=True) for _ in range(3)]
    assert (quic.buffered, quic.opened) == (0, 3)
    for stream_id in streams:
        pair.client.stream_write(stream_id, bytes(1000), stream_id == streams[2])
    assert quic.buffered == 3000
    pair.client.stream_reset(streams[0], 5)
    assert quic.buffered == 2000
    assert pair.client.stream_buffered(streams[0]) == 0
    pair.client.stream_reset(streams[0], 5)
    pair.run()
    # The first and the last have ended.
    assert (quic.buffered, quic.opened, quic.unsent) == (0, 1, 0)


async def test_there_is_no_room_beyond_the_peers_credit():
    """A stream has as much room as the peer's credit; more is reported when the peer has read."""
    with trio.fail_after(10):
        async with quic_pair(Limits(stream_window=20 * KIB)) as (client, server):
            stream = await client.open_uni()
            assert stream.room == 20 * KIB
            stream.write(bytes(15 * KIB))
            assert stream.room == 5 * KIB
            stream.write(bytes(5 * KIB))
            assert (stream.room, stream.writable) == (0, False)
            await ping_pong(client, server, 1)
            await eventually(lambda: stream.buffered == 0)
            # All of it was acknowledged, and still nothing may be written.
            assert not stream.writable
            reader = await accept_uni(server)
            received = 0
            while received < 20 * KIB:
                received += len(await reader.receive_some())
            await stream.wait_writable()
            assert stream.room > 0
            stream.reset(1)


async def test_all_streams_together():
    """Writers on many streams wait at `send_buffer`, and go on as the peer reads."""
    limits = Limits(stream_window=MIB, connection_window=256 * KIB, send_high=64 * KIB, send_buffer=MIB)
    each, count = 128 * KIB, 20

    async def send(stream) -> None:
        await send_all(stream, bytes(each))
        stream.finish()

    with trio.fail_after(30):
        async with quic_pair(limits) as (client, server), trio.open_nursery() as nursery:
            streams = [await client.open_uni() for _ in range(count)]
            assert not client.crowded
            for stream in streams:
                nursery.start_soon(send, stream)
            await eventually(lambda: client.send_allowance == 0 and not any(stream.writable for stream in streams))
            held = sum(stream.buffered for stream in streams)
            print(f"\n{held} bytes of {count * each} written")
            assert MIB // 2 <= held <= MIB
            assert client.crowded
            got: list[int] = []

            async def read(reader) -> None:
                got.append(len(await read_all(reader)))

            for _ in range(count):
                nursery.start_soon(read, await accept_uni(server))
            await eventually(lambda: len(got) == count)
            assert set(got) == {each}
            await eventually(lambda: not client.streams)
