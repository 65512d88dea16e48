"""Publishing and subscribing through a pair of sessions, on every version."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.api.staged import subscribed

VERSIONS = [name for name in moqt.version_names() if "moq-lite-03" <= name <= "moq-lite-06"]
SINCE_05 = [name for name in VERSIONS if name >= "moq-lite-05"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_every_frame_of_every_group_arrives(version):
    """A subscriber gets each group with its frames in order, and then the end of the track."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("video", delivery="reliable")
    async with (
        session_pair(version) as (client, server),
        server.publish("room/alice", broadcast),
        client.subscribe("room/alice", "video") as subscription,
    ):
        await track.wait_subscribed()
        for number in range(5):
            async with track.open_group() as group:
                for part in range(3):
                    await group.send(b"%d/%d" % (number, part))
        track.finish()
        received = {group.sequence: await group.read_all() async for group in subscription}
    assert received == {number: [b"%d/%d" % (number, part) for part in range(3)] for number in range(5)}


@pytest.mark.parametrize("version", VERSIONS)
async def test_both_sides_publish_on_one_session(version):
    """A session carries the broadcasts of both sides at once, also under one path."""
    ours, theirs = moqt.Broadcast(), moqt.Broadcast()
    up, down = ours.track("t", delivery="reliable"), theirs.track("t", delivery="reliable")
    async with (
        session_pair(version) as (client, server),
        client.publish("same/path", ours),
        server.publish("same/path", theirs),
        client.subscribe("same/path", "t") as from_server,
        server.subscribe("same/path", "t") as from_client,
    ):
        await up.wait_subscribed()
        await down.wait_subscribed()
        await up.write(b"up")
        await down.write(b"down")
        assert await (await from_client.receive()).read_all() == [b"up"]
        assert await (await from_server.receive()).read_all() == [b"down"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_announcements_tell_what_comes_and_goes(version):
    """Announcements below a prefix report what was there before, what is added and what ends, by full path."""
    async with (
        session_pair(version) as (client, server),
        server.publish("room/alice", moqt.Broadcast()),
        client.announcements("room") as announcements,
    ):
        first = await announcements.receive()
        assert (str(first.path), first.active) == ("room/alice", True)
        async with server.publish("roommate/x", moqt.Broadcast()), server.publish("room/bob", moqt.Broadcast()):
            second = await announcements.receive()
            assert (str(second.path), second.active) == ("room/bob", True)
        third = await announcements.receive()
        assert (str(third.path), third.active) == ("room/bob", False)
        assert [str(item.path) for item in announcements.active] == ["room/alice"]


@pytest.mark.parametrize("version", SINCE_05)
async def test_initial_announcements_can_be_waited_for(version):
    """Where the version marks the end of the initial set, everything published before is known then."""
    async with (
        session_pair(version) as (client, server),
        server.publish("a", moqt.Broadcast()),
        server.publish("b", moqt.Broadcast()),
        client.announcements() as announcements,
    ):
        await announcements.wait_initial()
        assert sorted(str(item.path) for item in announcements.active) == ["a", "b"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_fetch_reads_a_past_group(version):
    """A group that was written before there was a subscriber can be fetched whole; one that does not exist cannot."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        for number in range(3):
            async with track.open_group() as group:
                await group.send(b"first of %d" % number)
                await group.send(b"second of %d" % number)
        async with client.fetch("b", "t", 1) as reader:
            assert await reader.read_all() == [b"first of 1", b"second of 1"]
        async with client.fetch("b", "t", 7) as reader:
            with pytest.raises(moqt.NotFound, match="group 7"):
                await reader.receive()


async def test_fetch_of_part_of_a_group():
    """moq-lite-06 can name the first and the last frame of a fetch."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with session_pair("moq-lite-06") as (client, server), server.publish("b", broadcast):
        async with track.open_group() as group:
            for number in range(5):
                await group.send(b"%d" % number)
        async with client.fetch("b", "t", 0, start_frame=1, end_frame=3) as reader:
            assert await reader.read_all() == [b"1", b"2", b"3"]
        async with client.fetch("b", "t", 0, start_frame=5) as reader:
            with pytest.raises(moqt.NotFound):
                await reader.receive()


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_unknown_track_is_refused(version):
    """Subscribing to a track or a broadcast that does not exist raises NotFound with both names."""
    async with session_pair(version) as (client, server), server.publish("b", moqt.Broadcast()):
        for path in ("b", "elsewhere"):
            async with client.subscribe(path, "nope") as subscription:
                with pytest.raises(moqt.NotFound) as caught:
                    await subscription.receive()
            assert (caught.value.path, caught.value.track) == (path, "nope")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_late_subscriber_starts_at_the_latest_group(version):
    """With no maximum age, what was written before the latest group does not come."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        for number in range(4):
            await track.write(b"%d" % number, timestamp=number)
        async with client.subscribe("b", "t", max_age=0) as subscription:
            group = await subscription.receive()
            assert (group.sequence, await group.read_all()) == (3, [b"3"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("max_age", [3.0, 60.0])
async def test_a_late_subscriber_starts_at_the_newest_group(version, max_age):
    """Without a first group every version starts at the newest one, however old groups may be on their way."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", timescale=1000)
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        for number in range(10):
            await track.write(b"%d" % number, timestamp=number * 1000)
        async with client.subscribe("b", "t", max_age=max_age) as subscription:
            await track.wait_subscribed()
            await track.write(b"10", timestamp=10_000)
            track.finish()
            received = sorted([group.sequence async for group in subscription])
    assert received == [9, 10]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_subscription_that_waits_starts_at_the_newest_group(version):
    """So does one that came before its broadcast was published, with what the broadcast has by then."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", timescale=1000)
    for number in range(10):
        await track.write(b"%d" % number, timestamp=number * 1000)
    async with session_pair(version) as (client, server), client.subscribe("b", "t", max_age=60) as subscription:
        await trio.testing.wait_all_tasks_blocked()
        async with server.publish("b", broadcast):
            await track.wait_subscribed()
            track.finish()
            assert [group.sequence async for group in subscription] == [9]


@pytest.mark.parametrize("version", SINCE_05)
async def test_a_burst_for_a_new_subscriber_is_delivered(version):
    """Groups that follow each other as soon as there is a subscriber are within its maximum age, and all arrive."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", timescale=1000)
    async with (
        session_pair(version) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t", max_age=60) as subscription,
    ):
        await track.wait_subscribed()
        for number in range(20):
            track.write_nowait(b"%d" % number, timestamp=number * 1000)
        track.finish()
        assert sorted([group.sequence async for group in subscription]) == list(range(20))


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_first_group_asks_for_the_past(version):
    """With a first group every version delivers all groups from there on that are kept, whatever the maximum age."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", timescale=1000)
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        for number in range(10):
            await track.write(b"%d" % number, timestamp=number * 1000)
        track.finish()
        async with client.subscribe("b", "t", max_age=3.0, start_group=2) as subscription:
            received = sorted([group.sequence async for group in subscription])
    assert received == [2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_range_of_groups(version):
    """A subscription with a start and an end delivers exactly those groups and then ends."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        for number in range(8):
            await track.write(b"%d" % number, timestamp=0)
        async with client.subscribe("b", "t", start_group=2, end_group=4) as subscription:
            received = sorted([group.sequence async for group in subscription])
    assert received == [2, 3, 4]


@pytest.mark.parametrize("version", SINCE_05)
async def test_timestamps_travel(version):
    """Frame timestamps arrive as they were written, with the track's timescale beside them."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", timescale=90_000, priority=9, delivery="reliable")
    async with (
        session_pair(version) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t") as subscription,
    ):
        await track.wait_subscribed()
        async with track.open_group() as group:
            for timestamp in (90_000, 45_000, 2**40):
                await group.send(b"x", timestamp=timestamp)
        frames = await (await subscription.receive()).read_all()
        assert [frame.timestamp for frame in frames] == [90_000, 45_000, 2**40]
        properties = await subscription.track_properties()
        assert properties == moqt.TrackProperties(priority=9, max_age=5.0, timescale=90_000)


@pytest.mark.parametrize("version", SINCE_05)
async def test_datagrams_arrive_as_groups(version):
    """A datagram is a group of one frame on the other side; a payload that cannot fit is refused to the sender."""
    async with subscribed(version) as (_, _, track, subscription):
        assert track.send_datagram(b"quick", timestamp=7) == 0
        group = await subscription.receive()
        assert group.datagram
        assert [(frame, frame.timestamp) for frame in await group.read_all()] == [(b"quick", 7)]
        with pytest.raises(ValueError, match="1177"):
            track.send_datagram(bytes(1177))


@pytest.mark.parametrize("version", ["moq-lite-04", "moq-lite-03"])
async def test_datagrams_fall_back_to_streams(version):
    """Where the version has no datagrams the same call delivers on a stream: nothing is dropped without a report."""
    async with subscribed(version) as (_, _, track, subscription):
        track.send_datagram(b"quick")
        group = await subscription.receive()
        assert not group.datagram
        assert await group.read_all() == [b"quick"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_update_takes_effect(version):
    """An end that is set later ends the subscription there."""
    async with subscribed(version, delivery="reliable") as (_, _, track, subscription):
        await track.write(b"0")
        assert (await subscription.receive()).sequence == 0
        await subscription.update(end_group=1, priority=3)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            await track.write(b"x")
        assert [group.sequence async for group in subscription] == [1]


@pytest.mark.parametrize("version", VERSIONS)
async def test_unsubscribing_reaches_the_publisher(version):
    """Leaving a subscription's block ends the demand on the other side, and the session goes on."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        for _ in range(3):
            async with client.subscribe("b", "t"):
                await track.wait_subscribed()
                track.write_nowait(b"x")
            await track.wait_unsubscribed()
        assert client.closed is None
        assert server.closed is None
        assert server.statistics().subscriptions_served == 0


@pytest.mark.parametrize("version", VERSIONS)
async def test_leaving_publish_delivers_what_was_written(version):
    """What was written before a publish block ends arrives; then the subscription ends cleanly."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with session_pair(version) as (client, server), client.announcements() as announcements:
        async with server.publish("b", broadcast):
            await announcements.receive()
            async with client.subscribe("b", "t") as subscription:
                await track.wait_subscribed()
                async with trio.open_nursery() as nursery:
                    received: list[bytes] = []

                    async def read() -> None:
                        async for group in subscription:
                            received.extend(await group.read_all())

                    nursery.start_soon(read)
                    async with track.open_group() as group:
                        await group.send(b"last words")
                    track.finish()
        ended = await announcements.receive()
    assert received == [b"last words"]
    assert not ended.active


@pytest.mark.parametrize("version", VERSIONS)
async def test_two_publishers_of_one_path_do_not_replace_each_other(version):
    """Publishing a path twice on one session is an error that names the path."""
    async with session_pair(version) as (_, server), server.publish("b", moqt.Broadcast()):
        with pytest.raises(ValueError, match="'b' is published"):
            async with server.publish("/b/", moqt.Broadcast()):
                pass


async def test_hidden_paths_are_not_announced():
    """A path with a part that begins with a dot below the prefix is served but not announced."""
    async with (
        session_pair() as (client, server),
        server.publish("room/.secret", moqt.Broadcast()),
        server.publish("room/open", moqt.Broadcast()),
        client.announcements("room") as announcements,
    ):
        await announcements.wait_initial()
        assert [str(item.path) for item in announcements.active] == ["room/open"]
