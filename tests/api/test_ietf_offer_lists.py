"""Which tracks are offered (PUBLISH), and when: lists of them, their ends, and what there is no room for."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.model.origin import PublishedBroadcast
from moqt_trio.testing import session_pair
from tests.api.offers import DRAFTS, EACH_DRAFT, FROM_17_ON, offered, settle

FROM_18_ON = pytest.mark.parametrize("version", [draft for draft in DRAFTS if draft >= "moqt-18"])


@EACH_DRAFT
async def test_offers_that_are_listed(version):
    """What is offered already comes first, then each change; those outside the prefix are left out."""
    async with offered(version) as (client, server, broadcast, track), server.offered_tracks("a") as tracks:
        path = moqt.BroadcastPath.parse("a/b")
        assert await anext(tracks) == moqt.OfferedTrack(path, "t", True)
        broadcast.track("u")
        assert await anext(tracks) == moqt.OfferedTrack(path, "u", True)
        async with client.publish("other", moqt.Broadcast(), offer_tracks=True):
            track.finish()
            assert await anext(tracks) == moqt.OfferedTrack(path, "t", False)
        assert tracks.active == (moqt.OfferedTrack(path, "u", True),)


@EACH_DRAFT
async def test_offers_that_are_asked_for(version):
    """The peer offers what it has below the prefix, once, and what comes later; leaving the list keeps the offers."""
    broadcast, other = moqt.Broadcast(), moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    other.track("x")
    path = moqt.BroadcastPath.parse("a/b")
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            server.publish("a/b", broadcast),
            server.publish("c", other),
        ):
            async with client.offered_tracks("a") as tracks, client.offered_tracks("a/b") as same:
                assert await anext(tracks) == await anext(same) == moqt.OfferedTrack(path, "t", True)
                broadcast.track("u")
                assert await anext(tracks) == moqt.OfferedTrack(path, "u", True)
                async with server.publish("a/d", other):
                    assert (await anext(tracks)).path == "a/d"
                assert await anext(tracks) == moqt.OfferedTrack(moqt.BroadcastPath.parse("a/d"), "x", False)
            await settle()
            broadcast.track("v")
            await settle()
            # On 14 what was asked for is asked for until the session ends.
            expected = ["t", "u", "v"] if version == "moqt-14" else ["t", "u"]
            assert [offer.track for offer in client._subscriber.offers.all()] == expected
            async with client.subscribe("a/b", "t") as subscription:
                await track.wait_subscribed()
                await track.write(b"x")
                assert await (await anext(subscription)).read_all() == [b"x"]


@FROM_18_ON
async def test_lists_that_overlap(version):
    """One above another has to be told that it would not get everything; one below shares the offers."""
    with trio.fail_after(10):
        async with session_pair(version) as (client, _), client.offered_tracks("a"):
            async with client.offered_tracks("a/b") as below:
                await settled_list(below)
                async with client.offered_tracks() as above:
                    with pytest.raises(moqt.StreamReset):
                        await anext(above)
            async with client.offered_tracks("b") as beside:
                await settled_list(beside)


async def settled_list(tracks: moqt.OfferedTracks) -> None:
    """Checks that a list goes on."""
    await settle()
    with trio.move_on_after(0) as scope:
        await anext(tracks)
    assert scope.cancelled_caught


@EACH_DRAFT
async def test_more_offers_than_are_kept(version):
    """The surplus is refused and not offered; the session goes on."""
    limits = moqt.Limits(max_offered_tracks=3)
    broadcast = moqt.Broadcast()
    for number in range(10):
        broadcast.track(f"t{number}")
    async with session_pair(version, limits=limits) as (client, server):
        with trio.fail_after(10):
            async with client.publish("a", broadcast, offer_tracks=True):
                await settle()
                assert len(server._subscriber.offers.all()) == 3
                async with server.subscribe("a", "t9") as subscription:
                    await subscription.wait_accepted()
            await settle()
            assert not server._subscriber.offers.all()


@FROM_17_ON
async def test_a_peer_without_streams_for_offers(version):
    """It is told of a track by PUBLISH_BLOCKED: the list goes on, and the track can be subscribed to.

    Four streams are left for what the side that offers asks for itself.
    """
    limits = moqt.Limits(max_streams=2 + 4)
    broadcast = moqt.Broadcast()
    for number in range(4):
        broadcast.track(f"t{number}").write_nowait(b"x")
    with trio.fail_after(10):
        async with (
            session_pair(version, limits=limits) as (client, server),
            server.publish("a", broadcast),
            client.offered_tracks() as tracks,
        ):
            assert [(await anext(tracks)).track for _ in range(2)] == ["t0", "t1"]
            await settle()
            assert len(tracks.active) == 2
            async with client.subscribe("a", "t3", start_group=0) as subscription:
                assert await (await anext(subscription)).read_all() == [b"x"]
            async with client.publish("b", broadcast), server.subscribe("b", "t0", start_group=0) as subscription:
                assert await (await anext(subscription)).read_all() == [b"x"]


@EACH_DRAFT
async def test_a_track_that_is_made_anew(version):
    """It is offered like the first one: unasked, and on request; and at once, when its offer has not ended yet."""
    async with offered(version) as (client, server, broadcast, track), client.offered_tracks() as tracks:
        for _ in range(3):
            track.finish()
            track = broadcast.track("t")
            await settle()
            assert server._subscriber.offers.has(moqt.BroadcastPath.parse("a/b"), "t")
            async with server.subscribe("a/b", "t") as subscription:
                await track.wait_subscribed()
                await track.write(b"x")
                assert await (await anext(subscription)).read_all() == [b"x"]
        other = moqt.Broadcast()
        first = other.track("u")
        async with server.publish("c", other):
            assert (await anext(tracks)).active
            first.finish()
            other.track("u")
            assert [(await anext(tracks)).active for _ in range(2)] == [False, True]


@EACH_DRAFT
async def test_a_track_whose_peer_offers_it_no_longer(version):
    """The own track of that name is offered from then on; what the peer refuses is not offered again."""
    mine, theirs = moqt.Broadcast(), moqt.Broadcast()
    mine.track("t")
    theirs.track("t")
    with trio.fail_after(10):
        async with session_pair(version) as (client, server), client.offered_tracks() as tracks:
            async with client.publish("a", mine, offer_tracks=True):
                await settle()
                async with server.publish("a", theirs):
                    await settle()
                    assert tracks.active == ()
                    await settle()
            await settle()
            async with client.publish("a", mine, offer_tracks=True):
                await settle()
                await server._publisher.publish(_published("a", theirs)).__aenter__()
            assert await anext(tracks) == moqt.OfferedTrack(moqt.BroadcastPath.parse("a"), "t", True)
            client._subscriber.offers.all()[0].cancel()
            assert not (await anext(tracks)).active
            await settle()
            assert tracks.active == ()


def _published(path: str, broadcast: moqt.Broadcast) -> PublishedBroadcast:
    return PublishedBroadcast(moqt.BroadcastPath.parse(path), broadcast)


@pytest.mark.parametrize("version", ["moqt-14", "moqt-15", "moqt-16"])
async def test_a_peer_that_allows_few_requests(version):
    """No message says so there: what it asked for comes when it allows more. Four are left for other requests."""
    broadcast = moqt.Broadcast()
    made = [broadcast.track(f"t{number}") for number in range(4)]
    with trio.fail_after(10):
        async with (
            session_pair(version, limits=moqt.Limits(max_streams=3, max_announcements=4)) as (client, server),
            server.publish("a", broadcast),
            client.offered_tracks() as tracks,
        ):
            await settle()
            count = len(tracks.active)
            assert 0 < count < 4
            async with client.publish("b", broadcast), server.subscribe("b", "t0") as subscription:
                await subscription.wait_accepted()
            for track in made[:3]:
                track.finish()
                await settle()
            assert [item.track for item in tracks.active] == ["t3"]


@EACH_DRAFT
async def test_a_peer_that_goes_away(version):
    """It is offered nothing more: what comes is left out, and nothing is kept of it."""
    async with offered(version) as (client, server, broadcast, _):
        await server.goaway()
        await client._context.going_away.wait()
        broadcast.track("u")
        async with client.publish("c", broadcast, offer_tracks=True):
            await settle()
            assert [offer.track for offer in server._subscriber.offers.all()] == ["t"]
            assert [track for _, track in client._publisher._serving.offers] == ["t"]


@EACH_DRAFT
async def test_an_offer_that_waits_for_room(version):
    """Where as many tracks are offered as may be, the next one is offered when one of them has ended."""
    broadcast = moqt.Broadcast()
    tracks = [broadcast.track(f"t{number}") for number in range(4)]
    with trio.fail_after(10):
        async with (
            session_pair(version, limits=moqt.Limits(max_offered_tracks=2)) as (client, server),
            client.publish("a", broadcast, offer_tracks=True),
        ):
            for first in range(3):
                await settle()
                assert [offer.track for offer in server._subscriber.offers.all()] == [f"t{first}", f"t{first + 1}"]
                tracks[first].finish()


@EACH_DRAFT
async def test_own_tracks_are_not_offered_back(version):
    """What a peer offers, and this side publishes to it under the same name, stays here."""
    async with (
        offered(version) as (client, server, broadcast, _),
        server.publish("a/b", broadcast),
        client.offered_tracks() as tracks,
    ):
        await settle()
        assert tracks.active == ()
        assert not server._publisher._serving.offers
        # Another one is offered by the side that is the first to do so.
        broadcast.track("new")
        await settle()
        assert len(client._subscriber.offers.all()) + len(server._subscriber.offers.all()) in (2, 3)


@EACH_DRAFT
@pytest.mark.parametrize("read", [True, False])
async def test_the_end_of_a_session_with_offers(version, read):
    """Is reported as such: no offer is reported as ended before. What came before can be read."""
    async with offered(version) as (client, server, *_), server.offered_tracks() as tracks:
        offer = moqt.OfferedTrack(moqt.BroadcastPath.parse("a/b"), "t", True)
        if read:
            assert await anext(tracks) == offer
        client.close()
        await server.wait_closed()
        await settle()
        if not read:
            assert await anext(tracks) == offer
        with pytest.raises(moqt.SessionClosed):
            await anext(tracks)


@FROM_18_ON
async def test_offers_after_the_end_of_a_list(version):
    """They are no items of a list that was refused, which would keep them without end."""
    async with (
        offered(version) as (_, server, broadcast, __),
        server.offered_tracks("a"),
        server.offered_tracks() as refused,
    ):
        await settle()
        broadcast.track("u")
        await settle()
        assert (await anext(refused)).track == "t"
        with pytest.raises(moqt.StreamReset):
            await anext(refused)
