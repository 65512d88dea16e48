"""Tracks that their publisher offers (PUBLISH), in both directions, on the IETF drafts."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.model.origin import PublishedBroadcast
from moqt_trio.testing import session_pair

DRAFTS = ["moqt-14", "moqt-15", "moqt-16", "moqt-17", "moqt-18", "moqt-19", "moqt-20", "moqt-21", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("version", DRAFTS)
FROM_15_ON = pytest.mark.parametrize("version", DRAFTS[1:])
"""In 14 nothing answers an update, so that a reader of an offer does not learn where it starts."""
FROM_17_ON = pytest.mark.parametrize("version", DRAFTS[3:])


async def settle() -> None:
    # Where requests share one stream, a task looks every few milliseconds whether the end of one was acknowledged.
    await trio.testing.wait_all_tasks_blocked(0.02)


@asynccontextmanager
async def offered(version: str, **options):
    """Yields both sessions, the client's publication, and a track of it that the server was offered unasked."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    with trio.fail_after(10):
        async with (
            session_pair(version, **options) as (client, server),
            client.publish("a/b", broadcast, offer_tracks=True) as publication,
        ):
            await settle()
            assert server._subscriber.offers.has(publication.path, "t")
            yield client, server, broadcast, track


@FROM_15_ON
async def test_an_offer_is_read(version):
    """It sleeps until it is wanted; then its frames arrive, without a SUBSCRIBE; and it sleeps again."""
    async with offered(version) as (client, server, _, track):
        assert track.subscribers == 0
        for round_ in range(3):
            await track.write(b"before")
            async with server.subscribe("a/b", "t", start="next_group") as subscription:
                await subscription.wait_accepted()
                await track.wait_subscribed()
                assert len(client._publisher.subscriptions) == 1
                await track.write(b"%d" % round_)
                group = await anext(subscription)
                assert (group.sequence, await group.read_all()) == (2 * round_ + 1, [b"%d" % round_])
            await track.wait_unsubscribed()


@FROM_15_ON
async def test_where_a_reader_starts(version):
    """With all of the newest group, as any subscription: while it is open, and when it is complete."""
    async with offered(version) as (client, server, _, track):
        await track.write(b"early")
        async with track.open_group() as group:
            await group.send(b"a")
            await group.send(b"b")
            async with server.subscribe("a/b", "t") as subscription:
                await track.wait_subscribed()
                reader = await anext(subscription)
                assert (reader.sequence, reader.start_frame, await reader.receive()) == (1, 0, b"a")
                await group.send(b"c")
                group.finish()
                assert await reader.read_all() == [b"b", b"c"]
        await track.wait_unsubscribed()
        for past, expected in ((0, {1: [b"a", b"b", b"c"]}), (1, {0: [b"early"], 1: [b"a", b"b", b"c"]})):
            async with server.subscribe("a/b", "t", past_groups=past) as subscription:
                found = [await anext(subscription) for _ in expected]
                assert {group.sequence: await group.read_all() for group in found} == expected
            await track.wait_unsubscribed()
        assert len(client._publisher.subscriptions) == 1


@EACH_DRAFT
async def test_a_reader_that_pauses_from_the_start(version):
    """It is accepted at once, as nothing changes, and wakes the offer up when its pause ends."""
    async with offered(version) as (_, server, _, track):
        async with server.subscribe("a/b", "t", paused=True) as subscription:
            await subscription.wait_accepted()
            await settle()
            assert track.subscribers == 0
            await subscription.update(paused=False)
            await track.wait_subscribed()
            await track.write(b"x")
            assert await (await anext(subscription)).read_all() == [b"x"]
        await track.wait_unsubscribed()


@EACH_DRAFT
async def test_the_end_of_a_track(version):
    """A reader gets its last group and the end; the offer is withdrawn with it."""
    async with offered(version) as (_, server, _, track), server.subscribe("a/b", "t") as subscription:
        await track.wait_subscribed()
        await track.write(b"x")
        track.finish()
        assert [await group.read_all() async for group in subscription] == [[b"x"]]
        assert not server._subscriber.offers.all()
    await_nothing_left(server)


@EACH_DRAFT
async def test_the_end_after_several_readers(version, autojump_clock):
    """The streams that others read count, too: the last reader gets the end at once."""
    async with offered(version) as (_, server, _, track):
        for number in range(3):
            async with server.subscribe("a/b", "t") as subscription:
                await subscription.wait_accepted()
                await track.wait_subscribed()
                await track.write(b"x")
                if number < 2:
                    assert (await anext(subscription)).sequence <= number
                    continue
                track.finish()
                before = trio.current_time()
                assert 2 in [group.sequence async for group in subscription]
                assert trio.current_time() - before < moqt.Limits().late_group_timeout
            await track.wait_unsubscribed()


@pytest.mark.parametrize("version", [draft for draft in DRAFTS if draft not in ("moqt-14", "moqt-15")])
async def test_the_properties_of_an_offer(version):
    """They come with it, from draft 16 on."""
    broadcast = moqt.Broadcast()
    broadcast.track("t", priority=9, max_age=2.0, timescale=90_000, properties=((0x79, b"x"),))
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            client.publish("a/b", broadcast, offer_tracks=True),
        ):
            await settle()
            async with server.subscribe("a/b", "t") as subscription:
                properties = await subscription.track_properties()
    assert properties == moqt.TrackProperties(9, 2.0, 90_000, ((0x79, b"x"),))


def await_nothing_left(session) -> None:
    """Checks that no state of an offer or a subscription is left."""
    state = session._context.core._state
    assert len(state.issued) == 0
    assert not session._subscriber.queues


@EACH_DRAFT
async def test_the_end_of_a_sleeping_track(version):
    """The offer is withdrawn, and nothing of it is left."""
    async with offered(version) as (client, server, _, track):
        track.finish()
        await settle()
        assert not server._subscriber.offers.all()
        assert not client._publisher.subscriptions
        assert not client._publisher._serving.offers
        await_nothing_left(server)
        assert len(client._context.core._state.peers) == 0


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


@pytest.mark.parametrize("version", [draft for draft in DRAFTS if draft >= "moqt-18"])
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
async def test_a_second_reader(version):
    """It asks for itself: each of the two gets everything."""
    async with (
        offered(version) as (client, server, _, track),
        server.subscribe("a/b", "t") as first,
        server.subscribe("a/b", "t") as second,
    ):
        await first.wait_accepted()
        await second.wait_accepted()
        assert len(client._publisher.subscriptions) == 2
        await track.write(b"x")
        for subscription in (first, second):
            assert await (await anext(subscription)).read_all() == [b"x"]


@EACH_DRAFT
async def test_updates_of_an_offer(version):
    """A pause, a priority and a range reach its publisher, as those of any subscription."""
    async with offered(version) as (client, server, _, track), server.subscribe("a/b", "t", priority=9) as subscription:
        await track.wait_subscribed()
        [served] = client._publisher.subscriptions
        await settle()
        assert served.send_priority[0] == 9
        await subscription.update(paused=True)
        await track.wait_unsubscribed()
        await subscription.update(paused=False, priority=11)
        await track.wait_subscribed()
        await settle()
        assert served.send_priority[0] == 11
        await track.write(b"x")
        assert await (await anext(subscription)).read_all() == [b"x"]


@FROM_15_ON
async def test_an_offer_from_a_group_on(version):
    """A first group that is named is sent from the cache; the next reader starts at what is new."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=60)
    for number in range(5):
        await track.write(b"%d" % number)
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            client.publish("a", broadcast, offer_tracks=True),
        ):
            await settle()
            async with server.subscribe("a", "t", start_group=3) as subscription:
                assert {(await anext(subscription)).sequence for _ in range(2)} == {3, 4}
            await settle()
            async with server.subscribe("a", "t") as subscription:
                await subscription.wait_accepted()
                await track.write(b"new")
                assert (await anext(subscription)).sequence == 5
            with pytest.raises(moqt.LocalProtocolError):
                await server.subscribe("a", "t", end_group=3).__aenter__()
            [offer] = server._subscriber.offers.all()
            assert offer.free


@EACH_DRAFT
async def test_an_offer_withdrawn_while_it_is_read(version):
    """The end of the publication ends the reader cleanly, after what was written; the next one finds no track."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    received = []

    async def read(task_status=trio.TASK_STATUS_IGNORED) -> None:
        async with server.subscribe("a", "t") as subscription:
            task_status.started()
            received.extend([await group.read_all() async for group in subscription])

    with trio.fail_after(10):
        async with session_pair(version) as (client, server), trio.open_nursery() as nursery:
            async with client.publish("a", broadcast, offer_tracks=True):
                await settle()
                await nursery.start(read)
                await track.wait_subscribed()
                await track.write(b"x")
            await settle()
            assert not server._subscriber.offers.all()
            assert not client._publisher.subscriptions
            await track.wait_unsubscribed()
    assert received == [[b"x"]]


@EACH_DRAFT
async def test_an_aborted_track(version):
    """Its reader gets the code, where the draft has one for it or by the reset."""
    async with offered(version) as (_, server, _, track), server.subscribe("a/b", "t") as subscription:
        await track.wait_subscribed()
        track.abort(code=StreamCode.TOO_FAR_BEHIND)
        with pytest.raises(moqt.StreamReset) as caught:
            await anext(subscription)
        assert caught.value.code == StreamCode.TOO_FAR_BEHIND


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


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-01", "moq-transfork-03"])
async def test_versions_without_offers(version):
    """They say so."""
    async with session_pair(version) as (client, _):
        with trio.fail_after(10):
            with pytest.raises(moqt.LocalProtocolError, match=f"{version} has no offers"):
                client.publish("a", moqt.Broadcast(), offer_tracks=True)
            with pytest.raises(moqt.LocalProtocolError, match=f"{version} has no offers"):
                await client.offered_tracks().__aenter__()


@EACH_DRAFT
async def test_the_end_of_the_session(version):
    """A list of offers ends with it, and with its error."""
    with trio.fail_after(10):
        async with session_pair(version) as (client, server), client.offered_tracks() as tracks:
            await settle()
            server.close()
            with pytest.raises(moqt.SessionClosed):
                await anext(tracks)
            assert tracks.active == ()


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


@pytest.mark.parametrize("version", [draft for draft in DRAFTS if draft >= "moqt-18"])
async def test_offers_after_the_end_of_a_list(version):
    """They are no items of a list that was refused, which would keep them without end."""
    async with offered(version) as (_, server, broadcast, __), server.offered_tracks("a"):
        async with server.offered_tracks() as refused:
            await settle()
            broadcast.track("u")
            await settle()
            assert (await anext(refused)).track == "t"
            with pytest.raises(moqt.StreamReset):
                await anext(refused)
