"""Announcements that came by the relay before, that go round, and that have come too far."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
import trio

import moqt_trio as moqt
from tests.faults.raw_peer import settled
from tests.faults.relayed import changes_between_relays, check_nothing_left, paths, raw_source
from tests.faults.state_wire import HOP, LITE_04, LITE_05, LITE_06, LITE_06_WIP
from tests.relay.relays import linked, relay
from tests.transport.recorders import eventually

LISTED = (LITE_06, LITE_06_WIP, LITE_05, LITE_04)
each_version = pytest.mark.parametrize("version", LISTED)


@each_version
async def test_hops_that_go_round(version):
    """A chain with the relay's own hop id, with the peer's, or with any one twice, is no route; the session goes on."""
    origin = moqt.Origin(hop_id=11)
    async with raw_source(origin, version) as peer:
        # From moq-lite-05 on the peer's own hop is appended here, before that by the peer.
        own = (HOP,) if version == LITE_04 else ()
        chains = {"here": (5, 11, 6), "begun here": (11,), "the peer": (HOP, 5)}
        if version != LITE_06:
            # There it is an error of the protocol.
            chains |= {"twice": (5, 6, 5), "a ring of two": (5, 6, 5, 6)}
        for name, hops in chains.items():
            peer.announce(name, *hops, *own)
        peer.announce("fresh", 5, 6, *own)
        await eventually(lambda: "fresh" in paths(origin))
        assert paths(origin) == ["fresh"]
        assert origin.routes()[0].hops == (5, 6, HOP)
        assert peer.session.closed is None
    await check_nothing_left(origin)


async def test_a_route_that_begins_to_go_round():
    """An update by which a chain comes here again ends the route that there was; one without brings it back."""
    origin = moqt.Origin(hop_id=11)
    async with raw_source(origin) as peer:
        peer.announce("live", 5)
        await eventually(lambda: paths(origin) == ["live"])
        # moq-lite-06: an update names the announcement by its place.
        update = b"\x02" + peer.wire.framed(bytes.fromhex("00 02 05 0b 00 00"))
        peer.announces.write(update)
        await eventually(lambda: paths(origin) == [])
        peer.announces.write(b"\x02" + peer.wire.framed(bytes.fromhex("00 02 05 06 00 00")))
        await eventually(lambda: paths(origin) == ["live"])
        assert origin.routes()[0].hops == (5, 6, HOP)


@each_version
async def test_hops_up_to_the_most(version):
    """A chain has 32 hops at the most, with this relay's own: such a one is passed on, and a longer one is no route."""
    origin = moqt.Origin(hop_id=11)
    async with (
        raw_source(origin, version) as peer,
        relay(origin) as found,
        found.connect() as viewer,
        viewer.announcements() as news,
    ):
        own = (HOP,) if version == LITE_04 else ()
        peer.announce("far", *range(100, 130), *own)
        peer.announce("farther", *range(100, 131), *own)
        peer.announce("near", 5, *own)
        heard = {}
        for _ in range(2):
            change = await news.receive()
            heard[str(change.path)] = change.hops
        assert heard == {"far": (*range(100, 130), HOP, 11), "near": (5, HOP, 11)}
        await settled()
        assert sorted(paths(origin)) == ["far", "near"]
        assert peer.session.closed is None


FORBIDDEN = [(version, tuple(range(100, 133))) for version in LISTED] + [(LITE_06, (5, 6, 5)), (LITE_06, (5, 6, 5, 6))]


@pytest.mark.parametrize(("version", "hops"), FORBIDDEN, ids=lambda item: str(item)[:20])
async def test_a_chain_that_the_version_forbids(version, hops):
    """33 hops, or one of them twice: that session ends, what it announced is gone, and the others go on."""
    origin = moqt.Origin()
    async with raw_source(origin, version) as peer, raw_source(origin, version) as other:
        for each, name in ((peer, "one"), (other, "two")):
            each.announce(name, 5)
        await eventually(lambda: sorted(paths(origin)) == ["one", "two"])
        peer.announce("wrong", *hops)
        await eventually(lambda: paths(origin) == ["two"])
        assert peer.session.closed is not None
        assert other.session.closed is None
    await check_nothing_left(origin)


@pytest.mark.parametrize("size", [3, 5])
async def test_a_ring_that_closes(size, autojump_clock):
    """Each relay is told of the second way once, and nothing goes round; the end is told at once, by a message a link
    and direction."""
    async with AsyncExitStack() as stack:
        relays = [await stack.enter_async_context(relay()) for _ in range(size)]
        for number in range(size - 1):
            await stack.enter_async_context(linked(relays[number], relays[number + 1]))
        publisher = await stack.enter_async_context(relays[0].connect(hop_id=77))
        async with publisher.publish("live", moqt.Broadcast()):
            await eventually(lambda: all(found.origin.routes() for found in relays))
            await trio.sleep(5)
            with changes_between_relays() as changes:
                await stack.enter_async_context(linked(relays[-1], relays[0]))
                await trio.sleep(6)
            print(f"\na ring of {size} closes: {len(changes)} messages")
            assert 1 <= len(changes) <= size
            for found in relays:
                assert 1 <= len(found.origin.routes()) <= 2
                for route in found.origin.routes():
                    assert found.origin.hop_id not in route.hops
            with changes_between_relays() as changes:
                await trio.sleep(20)
            assert changes == []
            start = trio.current_time()
        with changes_between_relays() as changes:
            await eventually(lambda: not any(found.origin.routes() for found in relays))
            assert trio.current_time() - start < 0.3
            await trio.sleep(6)
        print(f"it ends: {len(changes)} messages")
        assert {change.active for change in changes} == {False}
        assert len(changes) <= 2 * size
        assert [found.origin._sharing.fronts for found in relays] == [()] * size
