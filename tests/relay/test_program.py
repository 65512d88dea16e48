"""The program that owns an origin: its own session with it, and what the origin tells of itself."""

from __future__ import annotations

import pytest

import moqt_trio as moqt
from tests.relay.relays import VERSIONS, relay
from tests.transport.recorders import eventually


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_session_with_the_origin(version):
    """It sees what peers announce, reads it, and publishes to them, whatever version they speak."""
    async with relay() as found, found.connect(version) as peer, found.origin.connect() as own:
        theirs, ours = moqt.Broadcast(), moqt.Broadcast()
        track, other = theirs.track("video"), ours.track("video")
        async with peer.publish("live/theirs", theirs), own.publish("ours", ours):
            async with own.announcements("live") as news:
                assert (await news.receive()).path == "live/theirs"
            async with own.subscribe("live/theirs", "video") as subscription:
                await track.wait_subscribed()
                await track.write(b"from the peer")
                assert await (await subscription.receive()).read_all() == [b"from the peer"]
            # Before moq-lite, tracks are announced: a relay knows those that someone has asked for.
            if version not in ("moq-transfork-03", "gomoqt-develop"):
                await peer.wait_announced("ours")
            async with peer.subscribe("ours", "video") as subscription:
                await other.wait_subscribed()
                await other.write(b"from the program")
                assert await (await subscription.receive()).read_all() == [b"from the program"]


async def test_a_fetch_and_a_root():
    """A fetch of the program is answered from the cache; its paths are below the root."""
    async with relay() as found, found.connect() as peer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with (
            peer.publish("live/cam", broadcast),
            found.origin.connect("live") as own,
            own.subscribe("cam", "video") as subscription,
        ):
            await track.wait_subscribed()
            await track.write(b"a")
            assert await (await subscription.receive()).read_all() == [b"a"]
            async with own.fetch("cam", "video", 0) as group:
                assert await group.read_all() == [b"a"]


async def test_a_wrong_argument():
    """The message names it."""
    origin = moqt.Origin()
    with pytest.raises(ValueError, match="moq-lite-99"):
        async with origin.connect(version="moq-lite-99"):
            pass
    with pytest.raises(moqt.LocalProtocolError, match="5000"):
        async with origin.connect("a/" * 5000):
            pass


async def test_what_an_origin_tells():
    """Numbers, sessions and routes, as they are at the moment."""
    origin = moqt.Origin()
    assert origin.statistics() == moqt.OriginStatistics(
        sessions=0, broadcasts=0, routes=0, tracks=0, subscriptions=0, subscribers=0, fetches=0, cached_bytes=0
    )
    async with relay(origin) as found, found.connect(hop_id=5) as peer, found.connect(hop_id=6) as viewer:
        broadcast = moqt.Broadcast()
        track = broadcast.track("video")
        async with peer.publish("live", broadcast), origin.publish("clock", moqt.Broadcast(), cost=3):
            await viewer.wait_announced("live")
            async with viewer.subscribe("live", "video") as subscription:
                await track.wait_subscribed()
                await track.write(bytes(1000))
                await (await subscription.receive()).read_all()
                found = origin.statistics()
                assert (found.sessions, found.broadcasts, found.routes) == (2, 2, 2)
                assert (found.tracks, found.subscriptions, found.subscribers) == (1, 1, 1)
                assert 1000 < found.cached_bytes < 2000
            await eventually(lambda: not origin.statistics().subscriptions)
            assert (origin.statistics().tracks, origin.statistics().subscribers) == (1, 0)
            described = {str(route.path): route for route in origin.routes()}
            assert set(described) == {"live", "clock"}
            assert (described["live"].hops, described["live"].cost, described["live"].best) == ((5,), 1, True)
            assert described["live"].peer is not None
            assert (described["clock"].hops, described["clock"].cost, described["clock"].peer) == ((), 3, None)
            sessions = {session.hop_id: session for session in origin.sessions()}
            assert set(sessions) == {5, 6}
            # What it does not ask for is not shown to it.
            assert (sessions[5].routes, sessions[5].shown) == (1, 0)
            assert (sessions[6].routes, sessions[6].shown) == (0, 1)
            assert (sessions[6].version, sessions[6].root, sessions[6].draining) == ("moq-lite-06", "", False)
    assert (origin.routes(), origin.sessions()) == ((), ())
