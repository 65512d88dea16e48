"""Peers that announce, ask and change without end: what that costs is bounded, and the others go on."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import pytest
import trio

import moqt_trio as moqt
from tests.faults.raw_peer import settled
from tests.faults.relayed import check_nothing_left, raw_source
from tests.relay.relays import linked, relay
from tests.transport.recorders import eventually

KIB, MIB = 1 << 10, 1 << 20
PUBLISHER = 77


class Traced:
    """Bytes that the block's memory has grown by; set at its end."""

    grown = 0

    def now(self) -> int:
        """Return them before its end."""
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self.before

    before = 0


@contextmanager
def traced() -> Iterator[Traced]:
    """Measure how much memory a block takes and keeps."""
    found = Traced()
    gc.collect()
    tracemalloc.start()
    try:
        found.before = tracemalloc.get_traced_memory()[0]
        yield found
        found.grown = found.now()
    finally:
        tracemalloc.stop()


async def announce(peer, names: Iterator[str]) -> None:
    """Announce so many broadcasts of one publisher."""
    for name in names:
        await peer.announces.wait_writable()
        peer.announce(name, 5)
    await settled()


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-04", "moq-lite-03"])
async def test_more_announcements_than_a_peer_may_make(version, autojump_clock):
    """1,024 of 1 KiB are routes, and take 4 MiB at the most; the next one ends them all, and no other peer's."""
    origin = moqt.Origin()
    bound = moqt.Limits().max_announcements
    async with raw_source(origin, version) as peer, raw_source(origin) as other:
        other.announce("other", 6)
        await eventually(origin.routes)
        with traced() as memory:
            await announce(peer, (f"{number:06}" + 1000 * "x" for number in range(bound)))
            assert len(origin.routes()) == bound + 1
            most = memory.now()
            await announce(peer, ["one more"])
            with pytest.raises(moqt.StreamReset):
                await announce(peer, ["and another"])
        print(f"\n{bound} announcements of 1 KiB: {most / MIB:.1f} MiB, afterwards {memory.grown / KIB:.0f} KiB")
        assert [str(route.path) for route in origin.routes()] == ["other"]
        assert most < 4 * MIB
        assert memory.grown < 300 * KIB
        assert peer.session.closed is None
    await check_nothing_left(origin)


async def test_more_routes_than_an_origin_may_have(autojump_clock):
    """Many peers fill the table together: `max_routes` is the most, and their end frees it for others."""
    origin = moqt.Origin(limits=moqt.Limits(max_routes=3000))
    async with AsyncExitStack() as stack:
        with traced() as memory:
            async with AsyncExitStack() as flood:
                for number in range(5):
                    peer = await flood.enter_async_context(raw_source(origin))
                    await announce(peer, (f"{number}/{each:04}/x" for each in range(1000)))
                assert len(origin.routes()) == 3000
                most = memory.now()
            del peer
            await eventually(lambda: not origin.routes())
        print(f"\n3,000 routes: {most / 3000:.0f} bytes each, afterwards {memory.grown / KIB:.0f} KiB")
        assert most < 3 * KIB * 3000
        assert memory.grown < 600 * KIB
        peer = await stack.enter_async_context(raw_source(origin))
        await announce(peer, ["fresh"])
        assert len(origin.routes()) == 1


async def test_a_flood_beside_viewers_that_asked_for_one_broadcast(autojump_clock):
    """A viewer has what it asked for: announcements of other broadcasts cost it neither memory nor time."""
    origin, viewers, flood = moqt.Origin(), 50, 1000
    async with relay(origin) as found, raw_source(origin) as peer, AsyncExitStack() as stack:
        peer.announce("live/cam", 5)
        await eventually(origin.routes)
        for _ in range(viewers):
            viewer = await stack.enter_async_context(found.connect())
            news = await stack.enter_async_context(viewer.announcements("live/cam"))
            assert (await news.receive()).active
        with traced() as memory:
            await announce(peer, (f"flood/{number:04}/x" for number in range(flood)))
            assert len(origin.routes()) == flood + 1
        print(f"\n{flood} announcements beside {viewers} viewers: {memory.grown / flood:.0f} bytes each")
        assert memory.grown < 3 * KIB * flood
        # They are there for those who ask.
        late = await stack.enter_async_context(found.connect())
        assert (await late.wait_announced("flood/0999/x")).active


async def test_a_broadcast_that_comes_and_goes(autojump_clock):
    """A hundred times a second, with nothing in its place: each viewer is told the state, and no more than the changes;
    nothing is kept of it."""
    async with relay() as found, AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(found.connect(hop_id=PUBLISHER))
        viewer = await stack.enter_async_context(found.connect())
        news = await stack.enter_async_context(viewer.announcements())
        heard = []

        async def listen() -> None:
            async for change in news:
                heard.append(change.active)

        nursery = await stack.enter_async_context(trio.open_nursery())
        nursery.start_soon(listen)
        with traced() as memory:
            for _ in range(300):
                async with publisher.publish("live", moqt.Broadcast()):
                    await trio.sleep(0.005)
                await trio.sleep(0.005)
        await trio.sleep(1)
        print(f"\n300 times: {len(heard)} changes, {memory.grown / KIB:.0f} KiB")
        assert len(heard) <= 600
        assert news.active == ()
        assert memory.grown < 200 * KIB
        nursery.cancel_scope.cancel()
        assert (found.origin.routes(), found.origin._sharing.fronts) == ((), ())


@pytest.mark.parametrize("hop_id", [PUBLISHER, 78], ids=["same publisher", "another one"])
@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-04"])
async def test_a_better_way_that_comes_and_goes(version, hop_id, autojump_clock):
    """A hundred times a second beside one that stays: peers and viewers are told nothing, and what is read goes on."""
    async with relay() as found, relay() as beyond, AsyncExitStack() as stack:
        await stack.enter_async_context(linked(found, beyond, version))
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        # Two hops away from the relay, so that the other one is the better one in each version.
        farther = await stack.enter_async_context(relay())
        await stack.enter_async_context(linked(farther, found, version))
        steady = await stack.enter_async_context(farther.connect(version, hop_id=PUBLISHER))
        flapping = await stack.enter_async_context(found.connect(version, hop_id=hop_id))
        await stack.enter_async_context(steady.publish("live", broadcast))
        viewers = [await stack.enter_async_context(each.connect(version)) for each in (found, beyond)]
        news = [await stack.enter_async_context(viewer.announcements()) for viewer in viewers]
        for each in news:
            assert (await each.receive()).active
        subscription = await stack.enter_async_context(viewers[1].subscribe("live", "video"))
        await track.wait_subscribed()
        heard = []

        async def listen(each: moqt.Announcements) -> None:
            async for change in each:
                heard.append(change)

        nursery = await stack.enter_async_context(trio.open_nursery())
        for each in news:
            nursery.start_soon(listen, each)
        for number in range(200):
            async with flapping.publish("live", broadcast if hop_id == PUBLISHER else moqt.Broadcast()):
                await trio.sleep(0.005)
            await trio.sleep(0.005)
            if not number % 20:
                await track.write(b"%d" % number)
                assert await (await subscription.receive()).read_all() == [b"%d" % number]
        await trio.sleep(5)
        assert heard == []
        assert subscription.dropped == ()
        assert track.subscribers == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("version", "count"), [("moq-lite-06", 10_000), ("moq-lite-03", 2500), ("moqt-14", 2500)])
async def test_ten_thousand_names_that_do_not_exist(version, count, autojump_clock):
    """Tracks of a broadcast, and broadcasts, fifty at a time: each is refused, and nothing of them is kept."""
    origin = moqt.Origin()
    limits = moqt.Limits(request_burst=20_000, track_wait_timeout=0.01)
    async with relay(origin, limits=limits) as found, AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(found.connect(limits=limits))
        viewer = await stack.enter_async_context(found.connect(version, limits=limits))
        await stack.enter_async_context(publisher.publish("live", moqt.Broadcast()))
        await eventually(origin.routes)

        async def ask(numbers: range) -> None:
            for number in numbers:
                path = "live" if number % 2 else f"nowhere/{number}"
                with pytest.raises((moqt.NotFound, moqt.StreamReset)):
                    async with viewer.subscribe(path, f"track {number}") as subscription:
                        await subscription.receive()

        async def ask_all(numbers: range) -> int:
            async with trio.open_nursery() as nursery:
                for start in range(50):
                    nursery.start_soon(ask, numbers[start::50])
            # What was answered is acknowledged a round trip later.
            await trio.sleep(1)
            gc.collect()
            return len(gc.get_objects())

        # The sessions remember the last requests, `max_tombstones` of them.
        before = await ask_all(range(1500))
        grown = await ask_all(range(1500, count)) - before
        print(f"\n{version}: {count} names, {grown} objects")
        assert grown < 1000
        assert origin.statistics().tracks == 0
        assert [front.pulls for front in origin._sharing.fronts] == [()]
        assert viewer.closed is None
        assert publisher.closed is None
