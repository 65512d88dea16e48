"""Links between the workers of a port: what is published at one of them is viewed at the others."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.certificates import development_certificate
from moqt_trio.server.worker import LinkPorts, Worker
from moqt_trio.transport.sockets import bind_udp_shared
from tests.machine import seconds
from tests.workers.clients import LINUX, SCHEMES, workers

pytestmark = LINUX


@SCHEMES
@pytest.mark.parametrize("late", [False, True], ids=["at-once", "links-before-their-peers"])
async def test_every_worker_has_what_one_has(tmp_path, scheme, late):
    """What is published at each of three workers is announced at all of them, and each frame arrives."""
    with workers(tmp_path, link=True, late=late) as served, trio.fail_after(seconds(60)):
        async with AsyncExitStack() as stack:
            for number in range(12):
                session = await stack.enter_async_context(served.connect(scheme, "live"))
                broadcast = moqt.Broadcast()
                await broadcast.track("text").write(f"from {number}".encode())
                await stack.enter_async_context(session.publish(f"room/{number}", broadcast))
            for _ in range(6):
                viewer = await stack.enter_async_context(served.connect(scheme, "live"))
                for number in range(12):
                    announcement = await viewer.wait_announced(f"room/{number}")
                    # The publisher, and one to three workers: while links come up the way may lead through a third.
                    assert 2 <= len(announcement.hops) <= 4
                    async with viewer.subscribe(announcement.path, "text") as subscription:
                        [frame] = await (await subscription.receive()).read_all()
                    assert frame == f"from {number}".encode()
        assert served.child.errors == []


async def test_from_each_to_each(tmp_path):
    """Of nine pairs of workers, each publisher is seen by each viewer, also after one of them was killed."""
    with workers(tmp_path, link=True) as served, trio.fail_after(seconds(60)):
        await published_and_viewed(served)
        os.kill(served.pids[1], signal.SIGKILL)
        assert await trio.to_thread.run_sync(served.wait_serving) == 1
        await published_and_viewed(served)


async def published_and_viewed(served):
    async with AsyncExitStack() as stack:
        # A publisher and a viewer at each: what a session publishes is not announced back to it.
        publishers: dict[int, moqt.Session] = {}
        viewers: dict[int, moqt.Session] = {}
        while len(publishers) < 3 or len(viewers) < 3:
            session = await stack.enter_async_context(served.connect("moqt", "live"))
            index = await worker_of(session)
            (viewers if index in publishers else publishers)[index] = session
        for index, session in publishers.items():
            broadcast = moqt.Broadcast()
            await broadcast.track("text").write(f"from {index}".encode())
            await stack.enter_async_context(session.publish(f"at/{index}", broadcast))
        for viewer in viewers.values():
            for index in publishers:
                announcement = await viewer.wait_announced(f"at/{index}")
                async with viewer.subscribe(announcement.path, "text") as subscription:
                    [frame] = await (await subscription.receive()).read_all()
                assert frame == f"from {index}".encode()


async def worker_of(session):
    """Returns the index of a relay's worker, which the program publishes at that worker alone: one hop."""
    while True:
        for index in range(3):
            announcement = await session.wait_announced(f"worker/{index}")
            if len(announcement.hops) == 1:
                return index


async def test_strangers(tmp_path):
    """A process that does not know the secret is refused at the private port, and learns nothing."""
    [[private]] = bind_udp_shared("127.0.0.1", 0, 1)
    with private:
        links = LinkPorts((private,), development_certificate(["127.0.0.1"]), "a secret")
        assert "a secret" not in repr(links)
        worker = Worker(0, 1, host="127.0.0.1", port=1, sockets=[], reset_key=bytes(32), links=links)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(moqt.link_workers, worker, moqt.Origin())
            trust = {"fingerprint": links.certificate.fingerprint}
            for query in ("", "?", "?another", "?a%20secret&x"):
                with pytest.raises(moqt.Rejected, match="403"):
                    async with moqt.connect(f"moqt://127.0.0.1:{links.port(0)}/{query}", **trust):
                        pass
            nursery.cancel_scope.cancel()
