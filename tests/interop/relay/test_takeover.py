"""Two moq-relays between two relays of ours: one is killed, or drains, and the viewer misses nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import attrs
import pytest
import trio

import moqt_trio as moqt
from tests.interop.relay.nodes import OURS, PATH, THEIRS, TRACK, Node, each_scheme, node, showing, until
from tests.interop.relay.program import MoqRelay, moq_relay

NAMED = pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-05", "moq-lite-04"])
VIEWERS = OURS + 1
FRAMES, CUT = 120, 50
PATIENCE = moqt.Limits(idle_timeout=3.0, keep_alive=0.5)
"""A relay that is killed says nothing: its loss is seen after the idle timeout."""


@attrs.frozen(eq=False)
class Diamond:
    """A relay of ours with a publisher, two moq-relays that it is linked to, and a relay of ours with a viewer.

    Attributes:
        track: What is published.
        near: The relay at the viewer.
        between: The moq-relays, first the one that is read from.
        subscription: The viewer's.
    """

    track: moqt.Track
    near: Node
    between: tuple[MoqRelay, MoqRelay]
    subscription: moqt.Subscription

    def by(self, relay: MoqRelay) -> list[moqt.OriginRoute]:
        """Return the routes by a moq-relay."""
        return [route for route in self.near.origin.routes() if route.peer is not None and route.peer[1] == relay.port]


@asynccontextmanager
async def diamond(version: str, scheme: str, *, drain: float = 0) -> AsyncIterator[Diamond]:
    """Run one, with a viewer that is served by one of the two ways."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        relays = [await enter(moq_relay(hop_id=THEIRS + number, drain=drain)) for number in range(2)]
        stack.enter_context(showing(*relays))
        far, near = await enter(node()), await enter(node(VIEWERS))
        for ours in (far, near):
            for theirs in relays:
                await enter(ours.linked(theirs, version, scheme, limits=PATIENCE))
        broadcast = moqt.Broadcast()
        track = broadcast.track(TRACK, max_age=60)
        await enter(far.origin.publish(PATH, broadcast))
        await until(lambda: len(near.origin.routes()) == 2)
        routes = near.origin.routes()
        assert {route.hops for route in routes} == {(OURS, THEIRS), (OURS, THEIRS + 1)}
        assert len(far.origin.routes()) == 1
        relays.sort(key=lambda relay: relay.hop_id != routes[0].hops[-1])
        viewer = await enter(near.connect())
        await viewer.wait_announced(PATH)
        subscription = await enter(viewer.subscribe(PATH, TRACK, max_age=60))
        await track.wait_subscribed()
        yield Diamond(track, near, (relays[0], relays[1]), subscription)


@each_scheme
@NAMED
async def test_one_of_two_is_killed_in_the_middle_of_a_group(version, scheme):
    """Each frame comes once and in order, and so do the groups after it."""
    async with diamond(version, scheme) as found:
        async with found.track.open_group(0) as group:
            for number in range(CUT):
                await group.send(b"%d" % number)
            received = await found.subscription.receive()
            assert [bytes(await received.receive()) for _ in range(CUT)] == [b"%d" % number for number in range(CUT)]
            found.between[0].kill()
            for number in range(CUT, FRAMES):
                await group.send(b"%d" % number)
        rest = [bytes(frame) for frame in await received.read_all()]
        assert rest == [b"%d" % number for number in range(CUT, FRAMES)]
        await found.track.write(b"next")
        following = await found.subscription.receive()
        assert (following.sequence, [bytes(frame) for frame in await following.read_all()]) == (1, [b"next"])
        assert found.subscription.dropped == ()
        assert not found.by(found.between[0])


@each_scheme
@NAMED
async def test_one_of_two_drains(version, scheme):
    """Every group comes, once: before GOAWAY, until the relay ends, and after it; the link is there after a restart."""
    received: dict[int, list[bytes]] = {}
    async with diamond(version, scheme, drain=4.0) as found, trio.open_nursery() as nursery:

        async def read() -> None:
            async for group in found.subscription:
                assert group.sequence not in received
                received[group.sequence] = [bytes(frame) for frame in await group.read_all()]

        async def write(count: int) -> None:
            for _ in range(count):
                async with found.track.open_group() as group:
                    await group.send(b"first")
                    await trio.sleep(0.02)
                    await group.send(b"second")

        nursery.start_soon(read)
        await write(10)
        leaving = found.between[0]
        leaving.ask_to_end()
        nursery.start_soon(leaving.wait_ended)
        await until(lambda: found.by(leaving) and found.by(leaving)[0].cost == 2**62 - 1)
        await write(100)
        await until(lambda: not found.by(leaving), 8.0)
        await write(10)
        await until(lambda: len(received) == 120)
        assert received == {number: [b"first", b"second"] for number in range(120)}
        assert found.subscription.dropped == ()
        async with moq_relay(hop_id=leaving.hop_id, port=leaving.port):
            await until(lambda: found.by(leaving))
            await write(10)
            await until(lambda: len(received) == 130)
        nursery.cancel_scope.cancel()


@each_scheme
@NAMED
async def test_a_group_that_outlasts_a_drain(version, scheme):
    """It goes on at the relay that drains until that closes the session, and then at the other: no frame is missing."""
    async with diamond(version, scheme, drain=2.0) as found, trio.open_nursery() as nursery:
        leaving = found.between[0]
        sent: list[bytes] = []

        async def send(group: moqt.GroupWriter) -> None:
            sent.append(b"%d" % len(sent))
            await group.send(sent[-1])

        async with found.track.open_group(0) as group:
            for _ in range(20):
                await send(group)
            leaving.ask_to_end()
            nursery.start_soon(leaving.wait_ended)
            await until(lambda: found.by(leaving) and found.by(leaving)[0].cost == 2**62 - 1)
            while found.by(leaving):
                await send(group)
                await trio.sleep(0.02)
            for _ in range(20):
                await send(group)
        received = await found.subscription.receive()
        assert received.sequence == 0
        assert [bytes(frame) for frame in await received.read_all()] == sent
        await found.track.write(b"next")
        following = await found.subscription.receive()
        assert (following.sequence, [bytes(frame) for frame in await following.read_all()]) == (1, [b"next"])
        assert found.subscription.dropped == ()
