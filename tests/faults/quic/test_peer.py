"""Faults of a QUIC peer: frames that it may not send, and frames that it does not send."""

from __future__ import annotations

import time

import pytest
import trio
from aioquic.quic.events import StreamDataReceived
from aioquic.quic.packet import QuicErrorCode

from moqt_trio.limits import Limits
from tests.faults.quic_hostile import Hostile, hostile_client, stream_frame
from tests.transport.awaiting import accept_bidi, accept_uni, receive_datagram
from tests.transport.quic_pair import client_settings, connect_quic, quic_pair, serving
from tests.transport.recorders import Acceptor, eventually, ping_pong, read_all


async def server_still_answers(port: int) -> None:
    """A fresh client gets its answer within a second."""
    with trio.fail_after(1):
        async with connect_quic("127.0.0.1", port, client_settings()) as client:
            stream = await client.open_bidi()
            stream.write(b"alive?", True)
            assert await read_all(stream) == b"alive?"


async def echo(connection):
    """Answer the first stream."""
    stream = await accept_bidi(connection)
    stream.write(await read_all(stream), True)
    await connection.wait_closed()


async def test_gaps_below_the_limit():
    """A stream with fewer gaps than `max_gaps` is put together."""
    received = []

    async def handler(connection):
        received.append(await read_all(await accept_uni(connection)))

    async with serving(handler) as listener, hostile_client(listener.port) as hostile:
        # Type 0x0f is a STREAM frame with offset, length and FIN.
        odd = [stream_frame(2, offset, b"x") for offset in range(1, 400, 2)]
        even = [stream_frame(2, offset, b"y") for offset in range(0, 400, 2)]
        hostile.quic.frames = [*odd, *even, (0x0F, stream_frame(2, 400, b"")[1])]
        hostile.flush()
        with trio.fail_after(5):
            await hostile.wait_for(lambda: hostile.ended is not None)
    assert received == [b"yx" * 200]


async def test_far_stream():
    """A stream past the limit closes the connection with STREAM_LIMIT_ERROR; the last allowed one is fine."""
    limits = Limits(max_streams=16)
    async with serving(echo, limits) as listener:
        async with hostile_client(listener.port) as hostile:
            hostile.quic.frames = [stream_frame(2 + 4 * 15, 0, b"last")]
            hostile.flush()
            hostile.quic.send_ping(1)
            await trio.sleep(0.05)
            assert hostile.ended is None
            hostile.quic.frames = [stream_frame(2 + 4 * 16, 0, b"too far")]
            hostile.flush()
            with trio.fail_after(5):
                await hostile.wait_for(lambda: hostile.ended is not None)
            assert hostile.ended.error_code == QuicErrorCode.STREAM_LIMIT_ERROR
        await server_still_answers(listener.port)


async def test_more_than_the_window():
    """A peer that sends past the window is closed with FLOW_CONTROL_ERROR."""
    limits = Limits(stream_window=4096)
    async with serving(echo, limits) as listener, hostile_client(listener.port) as hostile:
        hostile.quic.frames = [stream_frame(2, 4096, b"x")]
        hostile.flush()
        with trio.fail_after(5):
            await hostile.wait_for(lambda: hostile.ended is not None)
        assert hostile.ended.error_code == QuicErrorCode.FLOW_CONTROL_ERROR


@pytest.mark.parametrize("size", [1171, 1180, 1200])
async def test_a_datagram_that_fits_no_packet(size):
    """A datagram that no packet can hold is refused, and those after it still go."""
    received = []

    async def handler(connection):
        received.append(await receive_datagram(connection))

    async with (
        serving(handler) as listener,
        connect_quic("127.0.0.1", listener.port, client_settings(Limits(max_packet=1200))) as client,
    ):
        assert client.max_datagram_size == 1170
        with pytest.raises(ValueError, match="1170"):
            client.send_datagram(bytes(size))
        client.send_datagram(bytes(1170))
        await client.wait_closed()
    assert received == [bytes(1170)]


async def test_stopping_what_has_ended():
    """Stopping or resetting a stream that has ended does nothing, on either side."""
    async with quic_pair() as (client, server):
        stream = await client.open_bidi()
        stream.write(b"x", True)
        other = await accept_bidi(server)
        assert await read_all(other) == b"x"
        other.write(b"y", True)
        assert await read_all(stream) == b"y"
        await ping_pong(client, server, 5)
        for side in (stream, other):
            side.stop(1)
            side.reset(1)
            side.finish()
            side.consumed(100)
        await ping_pong(client, server, 5)


async def test_reset_churn_returns_every_credit():
    """Thousands of streams that are opened and reset, read only by a handler, leave no state."""
    async with quic_pair(Limits(max_streams=16)) as (client, server):
        acceptor = Acceptor()
        server.handler = acceptor
        for _ in range(1000):
            stream = await client.open_uni()
            stream.write(b"abc")
            stream.reset(1)
        with trio.fail_after(5):
            for _ in range(16):
                (await client.open_uni()).reset(1)
        await eventually(lambda: not (server.streams or client.streams))


async def test_idle_connections_cost_no_cpu():
    """Fifty idle connections, both ends in this process, use next to no CPU."""
    async with serving() as listener, trio.open_nursery() as nursery:
        connected = 0

        async def idle() -> None:
            nonlocal connected
            async with connect_quic("127.0.0.1", listener.port, client_settings()):
                connected += 1
                await trio.sleep_forever()

        for _ in range(50):
            nursery.start_soon(idle)
        await eventually(lambda: connected == 50)
        await trio.sleep(0.5)
        start = time.process_time()
        await trio.sleep(1.5)
        spent = time.process_time() - start
        print(f"50 idle connections: {spent * 1000:.1f} ms of CPU in 1.5 s")
        assert spent < 0.15
        nursery.cancel_scope.cancel()


async def test_a_connection_id_is_used_at_once():
    """A peer may address its very next packet to an id that it was just given, and retire the first one with it."""

    def rotate_when_possible(hostile: Hostile) -> None:
        def rotate() -> None:
            if hostile.quic._peer_cid_available and not rotated:
                rotated.append(hostile.quic._peer_cid.cid)
                hostile.quic.change_connection_id()

        hostile.before_flush = rotate

    rotated: list[bytes] = []
    async with serving(echo) as listener, hostile_client(listener.port, rotate_when_possible) as hostile:
        assert rotated
        assert hostile.quic._peer_cid.cid not in rotated
        received = bytearray()
        hostile.quic.send_stream_data(0, b"from a new id", True)
        hostile.flush()

        def answered() -> bool:
            while (event := hostile.quic.next_event()) is not None:
                if isinstance(event, StreamDataReceived):
                    received.extend(event.data)
            return bool(received)

        with trio.fail_after(5):
            await hostile.wait_for(answered)
        assert received == b"from a new id"
