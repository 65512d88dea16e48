"""How a source is asked for a track: as its most demanding subscriber wants it."""

from __future__ import annotations

import pytest

import moqt_trio as moqt
from tests.relay.relays import VERSIONS, relay
from tests.transport.recorders import eventually

AGED = [name for name in VERSIONS if name in ("moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03")]
REFUSE_UPDATES = ["moq-lite-02", "moq-lite-01"]


def asked(session: moqt.Session) -> tuple[int, float, bool]:
    """Return priority, age and order that the only subscriber of a publisher's session asks for."""
    [server] = session._publisher.subscriptions
    return server._priority, server._cursor.max_age, server._ordered


@pytest.mark.parametrize("version", AGED)
async def test_the_most_demanding_one(version):
    """Each that comes, goes or changes its wish counts."""
    # moq-lite-06 has no field for the order.
    ordered = version != "moq-lite-06"
    async with relay() as found, found.connect(version) as peer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with peer.publish("live", broadcast), found.connect(version) as one, found.connect(version) as other:
            await one.wait_announced("live")
            async with one.subscribe("live", "video", priority=10, max_age=2.0, ordered=True) as low:
                await track.wait_subscribed()
                await eventually(lambda: asked(peer) == (10, 2.0, ordered))
                async with other.subscribe("live", "video", priority=200, max_age=1.0):
                    await eventually(lambda: asked(peer) == (200, 2.0, False))
                await eventually(lambda: asked(peer) == (10, 2.0, ordered))
                await low.update(priority=30, max_age=9.0)
                await eventually(lambda: asked(peer) == (30, 9.0, ordered))
            await track.wait_unsubscribed()
            async with other.subscribe("live", "video", priority=77, max_age=3.0):
                await track.wait_subscribed()
                await eventually(lambda: asked(peer) == (77, 3.0, False))


@pytest.mark.parametrize("version", [name for name in VERSIONS if name not in REFUSE_UPDATES])
async def test_the_priority_in_every_version(version):
    """As far as the version carries it; content comes in any case."""
    async with relay() as found, found.connect(version) as peer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with peer.publish("live", broadcast), found.connect() as viewer:
            await eventually(lambda: found.origin.routes())
            async with viewer.subscribe("live", "video", priority=200, max_age=7.0) as subscription:
                await track.wait_subscribed()
                await eventually(lambda: asked(peer)[0] == 200)
                await track.write(b"frame")
                assert await (await subscription.receive()).read_all() == [b"frame"]


@pytest.mark.parametrize("version", REFUSE_UPDATES)
async def test_no_update_that_ends_a_subscription(version):
    """moq-rs and moq-relay refuse an update in these versions, and the subscription with it: no source is sent one."""
    async with relay() as found, found.connect(version) as peer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with peer.publish("live", broadcast), found.connect() as viewer:
            await eventually(lambda: found.origin.routes())
            async with viewer.subscribe("live", "video", priority=200, max_age=60) as subscription:
                await track.wait_subscribed()
                await viewer.wait_announced("live")
                await subscription.update(priority=210)
                await track.write(b"frame")
                assert await (await subscription.receive()).read_all() == [b"frame"]
                assert asked(peer)[0] == 127
