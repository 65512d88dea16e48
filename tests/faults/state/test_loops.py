"""Announcements in a ring of relays, and those with too many hops."""

from __future__ import annotations

import contextlib
from contextlib import AsyncExitStack

import attrs
import pytest
import trio

import moqt_trio as moqt
from moqt_trio.session.run import run_session
from moqt_trio.transport.memory import open_memory_pair
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import Setup
from tests.faults.raw_peer import settled
from tests.faults.state_peer import VIOLATED, closing, hostile
from tests.faults.state_wire import ALL, HOP, LITE_03, LITE_04, LITE_05, LITE_06, LITE_06_WIP, TUPLES, text
from tests.transport.awaiting import accept_bidi

LISTED = (LITE_06, LITE_06_WIP, LITE_05, LITE_04)
"""The versions in which an announcement lists its hops."""

each_version = pytest.mark.parametrize("version", ALL)
each_version_with_hops = pytest.mark.parametrize("version", LISTED)

OWN_HOP = 11


@attrs.define(eq=False)
class Relay:
    """A node of the ring: it announces to the next one what the one before announced to it.

    Attributes:
        hop_id: Its hop id.
        before: Its session with the node before it in the ring.
        next: Its session with the next node.
        heard: The announcements that it received, as paths, whether they are active, and hops.
        offered: The announcements that it made to the next node.
    """

    hop_id: int
    before: moqt.Session | None = None
    next: moqt.Session | None = None
    heard: list[tuple[str, bool, tuple[int, ...]]] = attrs.field(factory=list)
    offered: dict[str, object] = attrs.field(factory=dict)

    async def run(self) -> None:
        """Pass announcements on until cancelled."""
        async with self.before.announcements() as announcements:
            async for change in announcements:
                path = str(change.path)
                self.heard.append((path, change.active, change.hops))
                if not change.active:
                    published = self.offered.pop(path, None)
                    if published is not None:
                        await published.__aexit__(None, None, None)
                    continue
                with contextlib.suppress(ValueError):
                    await self.offer(path, change.hops)

    async def offer(self, path: str, hops: tuple[int, ...] = ()) -> None:
        """Announce a broadcast to the next relay. Raises `ValueError` when it was announced before."""
        broadcast = moqt.Broadcast()
        broadcast.track("t")
        published = self.next.publish(path, broadcast, hops=hops)
        await published.__aenter__()
        self.offered[path] = published


@contextlib.asynccontextmanager
async def ring(version: str):
    """Run three relays: the first's announcements reach the second, the third, and would reach the first again."""
    relays = [Relay(hop_id) for hop_id in (101, 102, 103)]
    async with AsyncExitStack() as stack:
        for number, relay in enumerate(relays):
            following = relays[(number + 1) % 3]
            pair = await stack.enter_async_context(open_memory_pair(protocol=version))
            ends = []
            for connection, node in zip(pair, (relay, following), strict=True):
                setup = Setup(hop_id=node.hop_id)
                session = run_session(connection, [dialects.get(version)], limits=moqt.Limits(), setup=setup)
                ends.append(await stack.enter_async_context(session))
            relay.next, following.before = ends
        async with trio.open_nursery() as nursery:
            for relay in relays:
                nursery.start_soon(relay.run)
            await settled()
            yield relays
            nursery.cancel_scope.cancel()


@each_version
async def test_a_ring_of_three_relays(version):
    """An announcement goes round once at most, and its end follows it: nothing is left, and nothing goes on.

    Where hops are listed the third relay does not send it back. Elsewhere the first one hears of its own broadcast,
    and stops there: a session announces a path once.
    """
    async with ring(version) as (first, second, third):
        await first.offer("x")
        await settled()
        came_round = [] if version in LISTED else [("x", True)]
        assert [item[:2] for item in second.heard] == [item[:2] for item in third.heard] == [("x", True)]
        assert [item[:2] for item in first.heard] == came_round
        if version in LISTED:
            assert (second.heard[0][2], third.heard[0][2]) == ((101,), (101, 102))
        elif version == LITE_03:
            # Hops are counted there, and not named.
            assert [len(relay.heard[0][2]) for relay in (second, third, first)] == [1, 2, 3]
        published = first.offered.pop("x")
        await published.__aexit__(None, None, None)
        await settled()
        assert [item[1] for item in second.heard] == [item[1] for item in third.heard] == [True, False]
        assert [item[1] for item in first.heard] == ([] if version in LISTED else [True, False])
        assert [relay.offered for relay in (first, second, third)] == [{}, {}, {}]


@each_version_with_hops
async def test_our_own_hop_in_an_announcement(version):
    """An announcement through this side is dropped, and so is its end; the ones after it are delivered."""
    async with hostile(version) as (peer, session, wire), session.announcements() as announcements:
        stream = await accept_bidi(peer)
        stream.write(wire.first() + wire.active("loop", 5, OWN_HOP, 6) + wire.active("fresh", 5, 6))
        change = await announcements.receive()
        assert (str(change.path), change.active) == ("fresh", True)
        assert change.hops == ((5, 6) if version == LITE_04 else (5, 6, HOP))
        stream.write(wire.ended("loop", 0) + wire.ended("fresh", 1))
        ended = await announcements.receive()
        assert (str(ended.path), ended.active) == ("fresh", False)
        assert announcements.active == ()
        assert session.closed is None


@pytest.mark.parametrize("version", [name for name in ALL if name not in LISTED])
async def test_versions_whose_announcements_name_no_hop(version):
    """Without hop ids a loop cannot be detected: moq-lite-03 counts the hops, the others have nothing."""
    broadcast = moqt.Broadcast()
    broadcast.track("t")
    async with hostile(version) as (peer, session, wire), session.publish("x", broadcast, hops=(5, 6)):
        stream = await peer.open_bidi()
        stream.write(wire.ask())
        await settled()
        # After the two hops comes our own.
        path, counted = ("x/t", ()) if version in TUPLES else ("x", (0, 0, 0) if version == LITE_03 else ())
        expected = wire.active(path, *counted) if version == LITE_03 else wire.first(path)
        assert (await stream.receive_some()).startswith(expected)


@pytest.mark.parametrize("version", [*LISTED, LITE_03])
async def test_more_hops_than_fit_from_a_peer(version):
    """32 hops are accepted; a list of 33, or a count, is longer than any version allows, and closes the session."""
    async with hostile(version) as (peer, session, wire), session.announcements() as announcements:
        stream = await accept_bidi(peer)
        hops = tuple(range(20, 52))
        stream.write(wire.first() + wire.active("far", *hops))
        change = await announcements.receive()
        assert len(change.hops) == (32 if version in (LITE_04, LITE_03) else 33)
        stream.write(wire.active("farther", *hops, 60))
        assert await closing(peer) == VIOLATED


@each_version
async def test_more_hops_than_fit_are_not_passed_on(version):
    """An announcement with the most hops is withheld from the peer; the others are announced."""
    room = 31 if version in (LITE_04, LITE_03) else 32
    broadcast = moqt.Broadcast()
    broadcast.track("t")
    async with (
        hostile(version) as (peer, session, wire),
        session.publish("near", broadcast, hops=range(200, 200 + room)),
        session.publish("far", broadcast, hops=range(200, 201 + room)),
    ):
        stream = await peer.open_bidi()
        stream.write(wire.ask())
        await settled()
        written = await stream.receive_some()
        assert text("near") in written
        assert text("far") not in written
        async with session.publish("farther", broadcast, hops=range(200, 201 + room)):
            await settled()
        await settled()
        async with session.publish("late", broadcast):
            written = await stream.receive_some()
        assert text("late") in written
        assert text("farther") not in written
        assert session.closed is None
