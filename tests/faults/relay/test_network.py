"""Relays over real sockets: on networks that lose packets, and as a program that is asked to end."""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from tests.api.test_reconnecting_network import serving
from tests.faults.udp_proxy import bad_network, udp_proxy
from tests.interop.processes import Child
from tests.machine import seconds
from tests.relay.test_link import linked, relaying
from tests.transport.recorders import eventually

SCHEMES = pytest.mark.parametrize("scheme", ["moqt", "https"])
VERSIONS = pytest.mark.parametrize("version", ["moq-lite-06", "moqt-18"])
GROUPS = 200
GRACE = 2.0


def frames_of(sequence: int) -> list[bytes]:
    """Return what a group has: some are longer than a packet."""
    return [b"%d.%d." % (sequence, number) + bytes(sequence * 17 % 3000) for number in range(3)]


def lossy(seed: int):
    """Lose a packet of twenty in both directions, and reorder some."""
    return bad_network(loss=0.05, duplicate=0.01, corrupt=0.001, reorder=0.1, delay=0.005, seed=seed)


async def transfer(publisher: moqt.Session, viewer: moqt.Session) -> None:
    """Publish on one session, read on the other, and check that each group arrives once and whole."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("video", max_age=600)
    received: dict[int, list[bytes]] = {}

    async def write() -> None:
        await track.wait_subscribed()
        for sequence in range(GROUPS):
            async with track.open_group(sequence) as group:
                for frame in frames_of(sequence):
                    await group.send(frame)
            await trio.sleep(0.005)
        track.finish()

    async with publisher.publish("live/cam", broadcast), trio.open_nursery() as nursery:
        await viewer.wait_announced("live/cam")
        nursery.start_soon(write)
        async with viewer.subscribe("live/cam", "video", max_age=600) as subscription:
            async for group in subscription:
                assert group.sequence not in received
                received[group.sequence] = [bytes(frame) for frame in await group.read_all()]
        assert subscription.dropped == ()
    assert received == {sequence: frames_of(sequence) for sequence in range(GROUPS)}


@VERSIONS
@SCHEMES
async def test_loss_at_both_sides_of_a_relay(scheme, version):
    """5 % of the packets are lost between publisher and relay, and between relay and viewer, both ways: each group
    arrives, once and whole."""
    origin = moqt.Origin()
    with trio.fail_after(60):
        async with serving(relaying(origin), hop_id=origin.hop_id) as listener, AsyncExitStack() as stack:
            sessions = []
            for seed in range(2):
                proxy = await stack.enter_async_context(udp_proxy(listener.port))
                proxy.forward = lossy(seed)
                url = f"{scheme}://127.0.0.1:{proxy.port}/"
                connect = moqt.connect(url, versions=[version], fingerprint=listener.fingerprint)
                sessions.append(await stack.enter_async_context(connect))
            await transfer(*sessions)


@VERSIONS
async def test_loss_between_two_relays(version):
    """The same on the link of two relays; and publisher and viewer speak another version than the link."""
    far, near = moqt.Origin(), moqt.Origin()
    with trio.fail_after(60):
        async with (
            serving(relaying(far), hop_id=far.hop_id) as one,
            serving(relaying(near), hop_id=near.hop_id) as other,
            udp_proxy(one.port) as proxy,
        ):
            proxy.forward = lossy(3)
            async with linked(near, f"moqt://127.0.0.1:{proxy.port}/", versions=[version]):
                await eventually(lambda: near.sessions() and far.sessions())
                connect = partial(moqt.connect, versions=["moq-lite-06"], verify=False)
                async with (
                    connect(f"https://127.0.0.1:{one.port}/") as publisher,
                    connect(f"moqt://127.0.0.1:{other.port}/") as viewer,
                ):
                    await transfer(publisher, viewer)


class Client:
    """A viewer of a relay, or its publisher, which leaves when it is asked to, or stays."""

    def __init__(self, port: int, scheme: str, *, obedient: bool) -> None:
        self._url = f"{scheme}://127.0.0.1:{port}/"
        self._obedient = obedient
        self.received = 0
        self.reads = trio.Event()
        self.asked = False
        self.end: object = None

    async def publish(self) -> None:
        """Write ten groups a second until the session ends."""
        async with moqt.connect(self._url, verify=False) as session:
            track = (broadcast := moqt.Broadcast()).track("video")
            async with session.publish("live", broadcast), trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, session, nursery.cancel_scope)
                while session.closed is None:
                    track.write_nowait(b"frame")
                    await trio.sleep(0.1)
                nursery.cancel_scope.cancel()
        self.end = session.closed

    async def view(self) -> None:
        """Read until the session ends."""
        async with moqt.connect(self._url, verify=False) as session, trio.open_nursery() as nursery:
            nursery.start_soon(self._watch, session, nursery.cancel_scope)
            try:
                await session.wait_announced("live")
                async with session.subscribe("live", "video") as subscription:
                    async for group in subscription:
                        await group.read_all()
                        self.received += 1
                        self.reads.set()
            except (moqt.SessionClosed, moqt.StreamReset):
                pass
            await session.wait_closed()
            nursery.cancel_scope.cancel()
        self.end = session.closed

    async def _watch(self, session: moqt.Session, scope: trio.CancelScope) -> None:
        try:
            await session.wait_goaway()
        except moqt.SessionClosed:
            return
        self.asked = True
        if self._obedient:
            scope.cancel()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("obedient", [True, False], ids=["leaving", "staying"])
async def test_a_signal(number, obedient):
    """A relay with 20 sessions that read: all are asked to leave. It ends with 0, at once when they do, and after the
    grace when they stay, for whom it relays meanwhile; nothing is left in it, and nothing is logged as a fault."""
    with Child("-m", "tests.faults.relay_program", str(GRACE)) as child, trio.fail_after(60):
        port = (await trio.to_thread.run_sync(child.wait_event, "ready"))["port"]
        clients = [Client(port, ("moqt", "https")[each % 2], obedient=obedient) for each in range(20)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clients[0].publish)
            for client in clients[1:]:
                nursery.start_soon(client.view)
            for client in clients[1:]:
                await client.reads.wait()
            before = [client.received for client in clients]
            child.send_signal(number)
            began = trio.current_time()
            code = await trio.to_thread.run_sync(partial(child.wait_ended, GRACE + seconds(10)))
            took = trio.current_time() - began
        print(f"\n20 sessions: ended {took:.2f} s after the signal")
        assert (code, child.errors) == (0, [])
        assert all(client.asked for client in clients)
        if obedient:
            assert took < seconds(GRACE)
        else:
            assert GRACE <= took < GRACE + seconds(2)
            assert all(client.received > count + 5 for client, count in zip(clients[1:], before[1:], strict=True))
        left = child.wait_event("left")
        assert set(left.values()) == {"left", 0}
