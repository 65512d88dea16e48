"""Frames that cost more than their bytes, at a reader that does not read."""

from __future__ import annotations

import tracemalloc

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.limits import MIB
from moqt_trio.session.subscriber.group import AHEAD, ARRIVING_AHEAD, SESSION_AHEAD
from tests.faults.hostile_peer import hostile_peer
from tests.faults.raw_peer import settled

EMPTY = {"moq-lite-04": b"\x00", "moq-lite-06": b"\x00\x00"}
"""An empty frame: its length, after the difference of its timestamp where the version has one."""
VERSIONS = pytest.mark.parametrize("version", EMPTY)


@VERSIONS
async def test_windows_full_of_empty_frames(version):
    """Whole windows of empty frames that are not read take hardly more memory than their bytes."""
    limits = moqt.Limits()
    streams = limits.connection_window // limits.stream_window
    data = EMPTY[version] * ((limits.stream_window - 64) // len(EMPTY[version]))
    with trio.fail_after(60):
        async with hostile_peer(version, client=True) as peer:
            subscription = await peer.subscription()
            await settled()
            tracemalloc.start()
            try:
                for sequence in range(streams):
                    await peer.group(0, sequence, data)
                    await settled()
                held, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            frames = peer.session._context.unread_frames.count
            print(f"\n{version}: {len(data) * streams} B of empty frames take {held / MIB:.2f} MiB, {frames} frames")
            # The bytes themselves fill the window.
            assert held <= limits.connection_window * 1.1
            assert subscription.statistics().frames_received == frames <= SESSION_AHEAD + streams
            # Nothing is lost for a reader that comes at last.
            group = await subscription.receive()
            left = len(data) // len(EMPTY[version])
            while left:
                batch = await group.receive_batch()
                assert 1 <= len(batch) <= AHEAD
                left -= len(batch)
            with pytest.raises(trio.WouldBlock):
                group.receive_nowait()


@VERSIONS
async def test_many_streams_share_the_bound(version):
    """The bound is one for all groups of a session, and closing gives it back."""
    with trio.fail_after(60):
        async with hostile_peer(version, client=True) as peer:
            subscription = await peer.subscription()
            for sequence in range(500):
                await peer.group(0, sequence, EMPTY[version] * 1000, fin=True)
            await settled()
            counter = peer.session._context.unread_frames
            assert ARRIVING_AHEAD <= counter.count <= SESSION_AHEAD + 500
            kept = await subscription.receive()
            assert len(await kept.read_all()) == 1000
            await subscription.__aexit__(None, None, None)
            assert counter.count == 0


@VERSIONS
@pytest.mark.parametrize("end", ["finish", "reset", "mistake", "cut"])
async def test_the_end_comes_after_what_waits(version, end):
    """FIN, a reset and a mistake of the peer take effect once the frames before were read, and return the credit."""
    count = 3000
    async with hostile_peer(version, client=True) as peer:
        subscription = await peer.subscription()
        empty = EMPTY[version]
        tail = {"mistake": empty[:-1] + b"\xff" * 8 + bytes(100), "cut": empty[:-1] + b"\x05abc"}.get(end, b"")
        stream = await peer.group(0, 0, empty * count + tail, fin=end in ("finish", "cut"))
        await settled()
        if end == "reset":
            stream.reset(0x1)
            await settled()
        group = await subscription.receive()
        batches: list[int] = []

        async def read() -> None:
            while True:
                batches.append(len(await group.receive_batch()))

        with trio.fail_after(10), pytest.raises(trio.EndOfChannel if end == "finish" else moqt.StreamReset):
            await read()
        assert sum(batches) == count
        received = group._frames.stream
        assert received is not None
        assert received.unconsumed == 0
        assert peer.session._context.unread_frames.count == 0
        await peer.check_alive()


@VERSIONS
async def test_a_fetch_full_of_empty_frames(version):
    """A fetch decodes no more ahead of its reader than a group does."""
    count = 50_000
    async with hostile_peer(version, client=True) as peer, peer.session.fetch("a", "t", 0) as group:
        with trio.fail_after(10):
            stream = await peer.connection.accept_bidi()
        stream.write(EMPTY[version] * count, True)
        await settled()
        assert peer.session._context.unread_frames.count <= AHEAD
        with trio.fail_after(30):
            assert len(await group.read_all()) == count
