"""Two publishers of one path: on one session the second is refused, on two sessions neither replaces the other."""

from __future__ import annotations

from functools import partial

import pytest
import trio

import moqt_trio as moqt
from tests.transport.quic_pair import CERTIFICATE

SCHEMES = pytest.mark.parametrize("scheme", ["moqt", "https"])


@SCHEMES
async def test_two_publishers_of_one_path(scheme):
    """A server's handler hears of its own client's broadcast and reads that one's track, whatever another client
    publishes under the same path; a second broadcast on one session is refused with the path's name."""
    read: list[tuple[str, bytes]] = []
    both = trio.Event()

    async def handler(request):
        async with request.accept() as session:
            assert (await session.wait_announced("room/alice")).active
            async with session.subscribe("room/alice", "t") as subscription:
                async for group in subscription:
                    read.extend((request.query, frame) for frame in await group.read_all())
                    break
            if len(read) == 2:
                both.set()
            await session.wait_closed()

    async def publish(url, text):
        async with moqt.connect(f"{url}?{text.decode()}", fingerprint=CERTIFICATE.fingerprint) as session:
            broadcast = moqt.Broadcast()
            await broadcast.track("t").write(text)
            async with session.publish("room/alice", broadcast):
                with pytest.raises(ValueError, match="'room/alice' is published on this session already"):
                    async with session.publish("/room//alice/", moqt.Broadcast()):
                        pytest.fail("it replaced the first")
                await both.wait()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            listener = await nursery.start(partial(moqt.serve, handler, "localhost", 0, certificate=CERTIFICATE))
            url = f"{scheme}://localhost:{listener.port}/"
            async with trio.open_nursery() as publishers:
                publishers.start_soon(publish, url, b"first")
                publishers.start_soon(publish, url, b"second")
            nursery.cancel_scope.cancel()
    assert sorted(read) == [("first", b"first"), ("second", b"second")]
