"""Paths and publishers in a relay: what a root lets through, and who may take the place of whom."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

import moqt_trio as moqt
from tests.faults.api.test_path_confusion import LOOK_ALIKES, below, paths
from tests.faults.relayed import raw_source
from tests.relay.relays import VERSIONS, relay
from tests.transport.recorders import eventually

TUPLES = ("moq-transfork-03", "gomoqt-develop")
roots = st.sampled_from(["live", "live/cam", "LIVE", "live%2Fcam", "cam", "live/..", "x"])


async def check_root(root: str, path: str, version: str) -> None:
    """Check what a session below a root is announced of a broadcast, and whether it can read it."""
    origin, relative = moqt.Origin(), below(root, path)
    broadcast = moqt.Broadcast()
    broadcast.track("t", max_age=600).write_nowait(path.encode())
    async with origin.publish(path, broadcast), origin.connect(root, version=version) as inside:
        async with inside.announcements() as news:
            with trio.move_on_after(1):
                await news.receive()
            seen = [str(item.path) for item in news.active]
        hidden = bool(relative) and any(part.startswith(".") for part in relative)
        assert seen == (["/".join(relative)] if relative and not hidden else [])
        for asked in {path, "/".join(relative or ["nothing"]), "/" + path, "../" + path, root + "/../" + path}:
            parts = [part for part in asked.split("/") if part]
            try:
                async with inside.subscribe(asked, "t") as subscription:
                    content = await (await subscription.receive()).read_all()
            except moqt.MoqtError:
                content = []
            assert content == ([path.encode()] if relative and parts == relative else [])


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-03", "moqt-18"])
def test_a_root_covers_whole_parts(version):
    """A session below a root is announced, and reads, what begins with all of the root's parts, and nothing that only
    looks so, by whatever path it asks."""

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(roots, st.sampled_from(LOOK_ALIKES) | paths)
    def run(root, path) -> None:
        if not [part for part in path.split("/") if part]:
            return
        clock = trio.testing.MockClock(autojump_threshold=0)
        trio.run(check_root, root, path, version, clock=clock)

    run()


@pytest.mark.parametrize("version", VERSIONS)
async def test_announcements_stay_below_the_root(version):
    """Whatever a peer announces is below its root, dots and escapes included."""
    origin = moqt.Origin()
    async with relay(origin) as found, AsyncExitStack() as stack:
        # Over raw QUIC, moq-lite-03 and -04 carry no path.
        publisher = await stack.enter_async_context(found.connect(version, scheme="https", path="live"))
        names = ["../up", "..", "%2e%2e/up", "/", "a//b", "./c"] if version not in TUPLES else ["../up", "%2e%2e/up"]
        for name in names:
            broadcast = moqt.Broadcast()
            broadcast.track("t")
            if [part for part in name.split("/") if part]:
                await stack.enter_async_context(publisher.publish(name, broadcast))
        await eventually(lambda: len(origin.routes()) >= 1)
        await trio.sleep(0.1)
        for route in origin.routes():
            assert route.path.parts[0] == "live"
            assert len(route.path.parts) > 1


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-04"])
async def test_two_publishers_of_one_path(version, autojump_clock):
    """On one session the second is refused. On two, who reads goes on with the first one's content, and the newer one
    is announced, as another publisher."""
    async with relay() as found, AsyncExitStack() as stack:
        sessions = [await stack.enter_async_context(found.connect(version)) for _ in range(2)]
        viewer = await stack.enter_async_context(found.connect())
        tracks = []
        for number, session in enumerate(sessions):
            broadcast = moqt.Broadcast()
            tracks.append(broadcast.track("video"))
            await stack.enter_async_context(session.publish("live", broadcast))
            with pytest.raises(ValueError, match="'live' is published on this session already"):
                async with session.publish("live", moqt.Broadcast()):
                    pass
            if not number:
                first = await viewer.wait_announced("live")
                subscription = await stack.enter_async_context(viewer.subscribe("live", "video"))
                await tracks[0].wait_subscribed()
        await eventually(lambda: len(found.origin.routes()) == 2)
        await trio.sleep(1)
        now = await viewer.wait_announced("live")
        assert now.publisher != first.publisher
        for number in range(3):
            await tracks[0].write(b"first %d" % number)
            await tracks[1].write(b"second %d" % number)
            group = await subscription.receive()
            assert (group.sequence, await group.read_all()) == (number, [b"first %d" % number])
        assert tracks[1].subscribers == 0
        async with viewer.subscribe("live", "video") as other:
            await tracks[1].wait_subscribed()
            await tracks[1].write(b"second")
            while (content := await (await other.receive()).read_all()) != [b"second"]:
                assert content[0].startswith(b"second")


async def test_an_unnamed_publisher_is_never_joined_to_another(autojump_clock):
    """Two peers that say no hop id, or 0, are two publishers: their groups are never mixed, and one's end is an end."""
    origin = moqt.Origin()
    async with (
        raw_source(origin, "moq-lite-03") as one,
        raw_source(origin) as other,
        relay(origin) as found,
        found.connect() as viewer,
    ):
        one.announce("live", 0)
        await eventually(origin.routes)
        async with viewer.subscribe("live", "video") as subscription:
            stream = await one.asked(0x02)
            stream.write(one.wire.accepted(0))
            await one.group(0, b"one")
            assert await (await subscription.receive()).read_all() == [b"one"]
            other.announce("live", 0)
            await eventually(lambda: len(origin.routes()) == 2)
            assert len({route.hops[0] for route in origin.routes()}) == 2
            one.connection.close()
            with pytest.raises(moqt.StreamReset):
                await subscription.receive()
