"""Tracks that their publisher offers (PUBLISH), in both directions, on the IETF drafts: how they are read."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.testing import session_pair
from tests.api.offers import DRAFTS, EACH_DRAFT, FROM_15_ON, offered, settle


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
@pytest.mark.parametrize("turns", range(4))
async def test_a_frame_while_the_request_is_on_its_way(version, turns):
    """It belongs to the newest group, which comes whole; in draft 14 nothing says what the reader missed."""
    async with offered(version) as (_, server, _, track), server.subscribe("a/b", "t") as subscription:
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        await track.write(b"frame")
        with trio.fail_after(5):
            assert await (await anext(subscription)).read_all() == [b"frame"]
            await track.write(b"next")
            assert await (await anext(subscription)).read_all() == [b"next"]


@EACH_DRAFT
async def test_a_group_that_goes_on(version):
    """Its frames from before the request are fetched."""
    async with offered(version) as (_, server, _, track), track.open_group() as group:
        await group.send(b"a")
        await settle()
        async with server.subscribe("a/b", "t") as subscription:
            await track.wait_subscribed()
            await settle()
            await group.send(b"b")
            with trio.fail_after(5):
                reader = await anext(subscription)
                assert [await reader.receive(), await reader.receive()] == [b"a", b"b"]


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
async def test_a_track_that_cannot_be_offered(version):
    """Its name is too long for a message: it is left out. The others are offered, with ids that leave none out."""
    broadcast = moqt.Broadcast(limits=moqt.Limits(max_track_name=100_000))
    for name in ("before", "n" * 70_000, "after"):
        broadcast.track(name)
    with trio.fail_after(10):
        async with (
            session_pair(version) as (client, server),
            client.publish("a/b", broadcast, offer_tracks=True),
        ):
            await settle()
            offers = server._subscriber.offers.all()
            assert sorted(offer.track for offer in offers) == ["after", "before"]
            announced = len(list(server._context.peer_namespaces))
            assert client._context.core._state.own_requests._next == 2 * (2 + announced)
            assert (client.closed, server.closed) == (None, None)
