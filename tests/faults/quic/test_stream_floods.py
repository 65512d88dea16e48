"""Streams that are opened and not used: ten thousand without a header, and those below a far one."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

import moqt_trio as moqt
from tests.faults.quic_hostile import hostile_client, stream_frame
from tests.faults.served import MIB, served
from tests.faults.state_peer import stopped_with
from tests.faults.state_wire import CONTROL_TIMEOUT, LITE_03, LITE_06
from tests.machine import seconds

ROOM = 20 * MIB
TRANSPORTS = pytest.mark.parametrize("transport", ["quic", "webtransport"])
HALF = b"\x40"
"""The first of two bytes of a stream's type."""


async def flood_streams(peer, count: int) -> tuple[int, set[int | None]]:
    """Open so many unidirectional streams without a header, as the peer allows them.

    Returns:
        The most that were open at once, and the codes that they were stopped with.
    """
    most = opened = 0
    codes: set[int | None] = set()
    unused: list = []
    while opened < count:
        try:
            stream = peer.open_uni_nowait()
        except trio.WouldBlock:
            found = [(stream, stopped_with(stream)) for stream in unused]
            unused = [stream for stream, code in found if code is None]
            codes.update(code for _, code in found if code is not None)
            most = max(most, len(unused))
            await trio.sleep(0.01)
            continue
        stream.write(HALF)
        unused.append(stream)
        opened += 1
        if not opened % 64:
            await trio.lowlevel.checkpoint()
    return most, codes


@TRANSPORTS
@pytest.mark.parametrize("version", [LITE_06, LITE_03])
async def test_ten_thousand_streams_without_a_header(transport, version):
    """As many are open as `max_streams` says, each is stopped after `setup_timeout`, and only then there is another."""
    limit = moqt.Limits().max_streams
    async with served(setup_timeout=0.25) as server, server.peer(transport, version) as (peer, _):
        with trio.fail_after(60):
            most, codes = await flood_streams(peer, 10_000)
        await server.check_next_client()
        grown = await server.grown()
        print(f"\n{version} over {transport}: {most} streams at once, the server grew by {grown / MIB:.1f} MiB")
        # One is that of our SETUP; over WebTransport three are HTTP/3's.
        assert limit - 4 <= most <= limit
        assert codes == {CONTROL_TIMEOUT}
        assert grown <= ROOM
        assert peer.closed is None


@TRANSPORTS
async def test_streams_without_a_header_by_default(transport):
    """Those that a peer may hold for the default time take at most 20 MiB, and others are served."""
    limit = moqt.Limits().max_streams
    async with served() as server, server.peer(transport, LITE_06) as (peer, _):
        opened = 0
        pause = seconds(0.5)
        while True:
            with trio.move_on_after(pause) as waited:
                (await peer.open_uni()).write(HALF)
                opened += 1
            if waited.cancelled_caught:
                break
        assert limit - 4 <= opened <= limit
        await server.check_next_client()
        grown = await server.grown()
        print(f"\nover {transport}: {opened} streams, the server grew by {grown / MIB:.1f} MiB")
        assert grown <= ROOM


async def test_far_streams_on_many_connections():
    """A frame for the last stream that each kind may have costs the server two streams; what it advertises is its
    bound."""
    limit = moqt.Limits().max_streams
    count = 25
    async with served() as server, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(hostile_client(server.port)) for _ in range(count)]
        for hostile in clients:
            hostile.quic.send_stream_data(2, bytes.fromhex("010100"), True)
            hostile.flush()
        with trio.fail_after(10):
            while (await server.figures()).sessions < count:
                await trio.lowlevel.checkpoint()
        before = (await server.at_rest()).resident
        for hostile in clients:
            assert hostile.quic._remote_max_streams_bidi == hostile.quic._remote_max_streams_uni == limit
            hostile.quic.frames = [stream_frame(4 * (limit - 1) + kind, 0, b"\x40") for kind in (0, 2)]
            hostile.flush()
        grown = (await server.at_rest()).resident - before
        print(f"\n{grown / count:.0f} bytes for two far streams")
        # Each stream is some two kilobytes; those below would be two megabytes.
        assert grown <= count * 32 * 1024
        assert all(hostile.ended is None for hostile in clients)
        await server.check_next_client()
