"""Sources that break what a publisher is to do: viewers get each frame once, and the others go on."""

from __future__ import annotations

import tracemalloc
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.relay.view import SharedSession
from tests.faults.raw_peer import settled
from tests.faults.relayed import alive, raw_source
from tests.faults.state_wire import LITE_03, LITE_04, LITE_06
from tests.relay.relays import VERSIONS, relay
from tests.transport.recorders import eventually

MIB = 1 << 20
LAST = 2**62 - 1
"""The largest number of a group."""
PUBLISHER = 77


@asynccontextmanager
async def raw_and_viewer(version: str = LITE_06, *, limits: moqt.Limits | None = None):
    """Run a relay with a hand-written publisher of `live`, and a viewer of its track `video`."""
    origin = moqt.Origin(limits=limits)
    async with raw_source(origin) as peer, relay(origin) as found, found.connect(version) as viewer:
        peer.announce("live", 5)
        await eventually(origin.routes)
        async with viewer.subscribe("live", "video", max_age=600) as subscription:
            await peer.subscribed()
            yield peer, found, subscription


async def test_a_source_that_resets_every_group():
    """Each reset is passed on; what follows arrives, and nothing of a thousand such groups is kept."""
    async with raw_and_viewer() as (peer, _, subscription):
        tracemalloc.start()
        try:
            for number in range(1000):
                stream = await peer.group(number, bytes(5_000), fin=False)
                group = await subscription.receive()
                assert (group.sequence, await group.receive()) == (number, bytes(5_000))
                stream.reset(0x20)
                with pytest.raises(moqt.StreamReset):
                    await group.receive()
                if number == 100:
                    before = tracemalloc.get_traced_memory()[0]
            held = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        print(f"\n900 groups that were reset: {held / 1024:.0f} KiB")
        assert held < MIB
        await peer.group(1000, b"whole")
        assert await (await subscription.receive()).read_all() == [b"whole"]


async def test_groups_in_reverse_order():
    """Each arrives once, in whatever order."""
    async with raw_and_viewer() as (peer, _, subscription):
        count = 60
        for number in reversed(range(count)):
            await peer.group(number, b"%d" % number)
        received = {}
        for _ in range(count):
            group = await subscription.receive()
            assert group.sequence not in received
            received[group.sequence] = await group.read_all()
        assert received == {number: [b"%d" % number] for number in range(count)}
        assert subscription.dropped == ()


async def test_the_same_group_twice_with_other_content():
    """The first one counts, whether it is open, whole or was reset; a later group arrives."""
    async with raw_and_viewer() as (peer, _, subscription):
        first = await peer.group(1, b"a", fin=False)
        group = await subscription.receive()
        assert await group.receive() == b"a"
        await peer.group(1, b"other", b"frames")
        await settled()
        first.write(peer.wire.group(0, 1, b"b")[-3:], fin=True)
        assert await group.read_all() == [b"b"]
        await peer.group(1, b"a third")
        await peer.group(2, b"next")
        group = await subscription.receive()
        assert (group.sequence, await group.read_all()) == (2, [b"next"])
        assert subscription.statistics().groups_received == 2


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_last_numbers_of_groups(version):
    """Groups up to 2^62-1 pass to a viewer of any version, and no session ends."""
    async with raw_and_viewer(version) as (peer, found, subscription):
        for number in (LAST - 2, LAST - 1, LAST):
            await peer.group(number, b"%d" % number)
            group = await subscription.receive()
            assert (group.sequence, await group.read_all()) == (number, [b"%d" % number])
        async with found.connect(version) as late, late.subscribe("live", "video") as again:
            if version in (LITE_04, LITE_03):
                # Their answer names the latest group by the number after it, which there is none of.
                with pytest.raises(moqt.StreamReset):
                    await again.receive()
            else:
                assert (await again.receive()).sequence == LAST
            assert late.closed is None
        await peer.group(7, b"old")
        with trio.move_on_after(0.2):
            assert await (await subscription.receive()).read_all() == [b"old"]
        assert peer.session.closed is None
        assert subscription._context.connection.closed is None


async def encoder(stack: AsyncExitStack, found, version: str = LITE_06, *, hop_id: int = PUBLISHER, **options):
    """Publish a broadcast of its own under a hop id; return the session and the track."""
    cost = options.pop("cost", 0)
    broadcast = moqt.Broadcast()
    track = broadcast.track("video", **options)
    session = await stack.enter_async_context(found.connect(version, hop_id=hop_id))
    await stack.enter_async_context(session.publish("live", broadcast, cost=cost))
    return session, track


@pytest.mark.parametrize("last", [LAST, LAST - 1])
@pytest.mark.parametrize("between", ["lost", "better"])
async def test_a_takeover_after_the_last_group(between, last, autojump_clock):
    """There is no group after 2^62-1: the other source goes on to be a source, and no session ends."""
    async with relay() as found, AsyncExitStack() as stack:
        first, track = await encoder(stack, found, cost=50)
        viewer = await stack.enter_async_context(found.connect())
        await viewer.wait_announced("live")
        subscription = await stack.enter_async_context(viewer.subscribe("live", "video"))
        await track.wait_subscribed()
        async with track.open_group(last) as group:
            await group.send(b"last")
        assert await (await subscription.receive()).read_all() == [b"last"]
        second, other = await encoder(stack, found, cost=100 if between == "lost" else 0)
        await eventually(lambda: len(found.origin.routes()) == 2)
        if between == "lost":
            first._context.connection.lose()
        await trio.sleep(3)
        assert second.closed is None
        assert viewer.closed is None
        assert found.origin.statistics().sessions == (2 if between == "lost" else 3)
        other.write_nowait(b"anew")
        # A new viewer has whatever there is.
        late = await stack.enter_async_context(found.connect())
        async with late.subscribe("live", "video"):
            await trio.sleep(1)
            assert late.closed is None


@pytest.mark.parametrize(
    ("one", "other"),
    [({"timescale": 1000}, {"timescale": 90000}), ({"priority": 1}, {"priority": 9})],
    ids=["timescale", "priority"],
)
async def test_other_properties_of_one_publisher(one, other, autojump_clock):
    """A source whose track differs from what viewers were told of it is no source of that track: it ends as without."""
    async with relay() as found, AsyncExitStack() as stack:
        first, track = await encoder(stack, found, **one)
        _, differing = await encoder(stack, found, cost=50, **other)
        viewer = await stack.enter_async_context(found.connect())
        await viewer.wait_announced("live")
        subscription = await stack.enter_async_context(viewer.subscribe("live", "video"))
        await track.wait_subscribed()
        await track.write(b"one")
        assert await (await subscription.receive()).read_all() == [b"one"]
        first._context.connection.lose()
        with trio.fail_after(5), pytest.raises(moqt.StreamReset):
            await subscription.receive()
        await eventually(lambda: not differing.subscribers)
        # Alone it is what there is.
        async with viewer.subscribe("live", "video") as again:
            await differing.wait_subscribed()
            await differing.write(b"two")
            assert b"two" in await (await again.receive()).read_all()


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-03", "moqt-18"])
async def test_a_track_that_was_aborted_and_made_anew(version):
    """Viewers get the reset; who asks again gets the new one, at once."""
    async with relay() as found, found.connect(version) as session, found.connect(version) as viewer:
        broadcast = moqt.Broadcast()
        async with session.publish("live", broadcast):
            await viewer.wait_announced("live")
            for life in range(3):
                track = broadcast.track("video")
                async with viewer.subscribe("live", "video") as subscription:
                    await track.wait_subscribed()
                    await track.write(b"%d" % life)
                    assert await (await subscription.receive()).read_all() == [b"%d" % life]
                    track.abort()
                    with pytest.raises(moqt.StreamReset):
                        await subscription.receive()
                await eventually(lambda: not found.origin.statistics().tracks)


async def test_a_publisher_that_restarts_under_a_new_hop_id(autojump_clock):
    """Its subscriptions end, it is announced anew with another publisher, and its groups begin at 0 again."""
    async with relay() as found, AsyncExitStack() as stack:
        viewer = await stack.enter_async_context(found.connect())
        news = await stack.enter_async_context(viewer.announcements())
        for life in range(5):
            hop = 100 + life
            session, track = await encoder(stack, found, hop_id=hop)
            change = await news.receive()
            assert (change.active, change.publisher) == (True, hop)
            async with viewer.subscribe("live", "video") as subscription:
                await track.wait_subscribed()
                await track.write(b"%d" % life)
                group = await subscription.receive()
                assert (group.sequence, await group.read_all()) == (0, [b"%d" % life])
                session._context.connection.lose()
                assert not (await news.receive()).active
                with pytest.raises(moqt.StreamReset):
                    await subscription.receive()
        await eventually(lambda: found.origin.routes() == ())
        assert found.origin._sharing.fronts == ()


async def test_a_publisher_that_restarts_before_its_loss_is_known(autojump_clock):
    """The new one is announced in place of the old one, which is a second route: viewers stay with it until it ends."""
    async with relay() as found, AsyncExitStack() as stack:
        viewer = await stack.enter_async_context(found.connect())
        news = await stack.enter_async_context(viewer.announcements())
        old, track = await encoder(stack, found, hop_id=100)
        assert (await news.receive()).publisher == 100
        subscription = await stack.enter_async_context(viewer.subscribe("live", "video"))
        await track.wait_subscribed()
        await track.write(b"old")
        assert await (await subscription.receive()).read_all() == [b"old"]
        _, fresh = await encoder(stack, found, hop_id=101)
        assert not (await news.receive()).active
        assert (await news.receive()).publisher == 101
        await track.write(b"old still")
        assert await (await subscription.receive()).read_all() == [b"old still"]
        async with viewer.subscribe("live", "video") as anew:
            await fresh.wait_subscribed()
            await fresh.write(b"new")
            assert await (await anew.receive()).read_all() == [b"new"]
        old._context.connection.lose()
        with pytest.raises(moqt.StreamReset):
            await subscription.receive()


async def test_a_better_source_that_has_no_such_track(autojump_clock):
    """A second source of one publisher that refuses, again and again: the viewer gets everything from the first one,
    and nothing is kept of those that came and went."""
    async with relay() as found, AsyncExitStack() as stack:
        _, track = await encoder(stack, found, cost=100)
        viewer = await stack.enter_async_context(found.connect())
        await viewer.wait_announced("live")
        subscription = await stack.enter_async_context(viewer.subscribe("live", "video"))
        await track.wait_subscribed()
        for number in range(20):
            async with found.connect(hop_id=PUBLISHER) as session, session.publish("live", moqt.Broadcast()):
                await eventually(lambda: len(found.origin.routes()) == 2)
                await track.write(b"%d" % number)
                await trio.sleep(0.5)
                await track.write(b"%d again" % number)
                for text in (b"%d", b"%d again"):
                    assert await (await subscription.receive()).read_all() == [text % number]
            await eventually(lambda: len(found.origin.routes()) == 1)
        del session
        assert subscription.dropped == ()
        assert len(alive(SharedSession)) == 2
