"""Where a subscription of the IETF drafts starts: the group, the frame, and the groups before it."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.protocol.events import GroupStarted
from moqt_trio.session.subscriber.group import GroupBuffer, GroupReader
from moqt_trio.testing import session_pair
from tests.api.half_written import EACH_DRAFT, ONE_OF_EACH_WAY, half_written


@EACH_DRAFT
@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("latest_group", {1: (0, [b"0", b"1", b"2", b"3"]), 2: (0, [b"next"])}),
        ("next_frame", {1: (3, [b"3"]), 2: (0, [b"next"])}),
        ("next_group", {2: (0, [b"next"])}),
    ],
)
async def test_where_a_subscription_starts(version, start, expected):
    """With all of the newest group, with the next frame, or with the next group."""
    async with (
        half_written(version) as (client, track, group),
        client.subscribe("b", "t", start=start) as subscription,
    ):
        await track.wait_subscribed()
        await group.send(b"3")
        group.finish()
        await track.write(b"next")
        track.finish()
        received = {reader.sequence: (reader.start_frame, await reader.read_all()) async for reader in subscription}
    assert received == expected


@EACH_DRAFT
async def test_past_groups(version):
    """The groups before the newest one come, too, as far as they are kept, also when the track has ended."""
    async with half_written(version) as (client, track, group):
        group.finish()
        for number in range(2, 6):
            await track.write(b"%d" % number)
        async with client.subscribe("b", "t", past_groups=3) as subscription:
            await track.wait_subscribed()
            track.finish()
            received = {reader.sequence: await reader.read_all() async for reader in subscription}
        assert received == {2: [b"2"], 3: [b"3"], 4: [b"4"], 5: [b"5"]}
        async with client.subscribe("b", "t", past_groups=64) as subscription:
            received = {reader.sequence: await reader.read_all() async for reader in subscription}
        assert received[0] == [b"old"]
        assert received.keys() == set(range(6))


@ONE_OF_EACH_WAY
async def test_past_groups_of_which_some_are_gone(version):
    """Those that are kept come; a hole is no hole for the others."""
    broadcast = moqt.Broadcast(limits=moqt.Limits(cache_groups=3))
    track = broadcast.track("t", max_age=60)
    with trio.fail_after(20):
        async with session_pair(version) as (client, server), server.publish("b", broadcast):
            for number in range(10):
                await track.write(b"%d" % number)
            async with client.subscribe("b", "t", past_groups=9) as subscription:
                await track.wait_subscribed()
                track.finish()
                received = {reader.sequence: await reader.read_all() async for reader in subscription}
            assert received == {number: [b"%d" % number] for number in range(min(received), 10)}
            assert 1 < len(received) < 10


@ONE_OF_EACH_WAY
async def test_leaving_while_past_groups_come(version):
    """Their fetches end with the subscription, and a group that was taken and is complete stays readable."""
    async with half_written(version) as (client, track, group):
        group.finish()
        await track.write(b"2")
        async with client.subscribe("b", "t", past_groups=2) as subscription:
            readers = [await anext(subscription) for _ in range(3)]
            await trio.testing.wait_all_tasks_blocked()
        received = {reader.sequence: await reader.read_all() for reader in readers}
        assert received == {0: [b"old"], 1: [b"0", b"1", b"2"], 2: [b"2"]}
        async with client.fetch("b", "t", 1) as again:
            assert await again.read_all() == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"start": "there"}, ValueError, "start is one of latest_group, next_group, next_frame, not 'there'"),
        ({"start": "next_group", "start_group": 3}, ValueError, "start_group says"),
        ({"past_groups": 2, "start_group": 3}, ValueError, "start_group says"),
        ({"past_groups": 65}, ValueError, "0 … 64"),
        ({"past_groups": -1}, ValueError, "0 … 64"),
    ],
)
async def test_starts_that_there_are_not(options, error, text):
    async with session_pair("moqt-18") as (client, _):
        with pytest.raises(error, match=text):
            client.subscribe("b", "t", **options)


@pytest.mark.parametrize("options", [{"start": "next_group"}, {"past_groups": 1}])
async def test_starts_in_other_versions(options):
    """They are refused on entering, with the version's name."""
    async with session_pair("moq-lite-06") as (client, _):
        subscription = client.subscribe("b", "t", **options)
        with pytest.raises(moqt.LocalProtocolError, match="moq-lite-06"):
            await subscription.__aenter__()


@pytest.mark.parametrize("version", ["moqt-18", "moqt-19"])
async def test_a_past_group_that_is_closed(version):
    """Its fetch ends with its reader: the peer's streams are free again."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    for _ in range(2):
        async with track.open_group() as group:
            for _ in range(30):
                await group.send(bytes(100_000))
    await track.write(b"newest")
    with trio.fail_after(20):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            client.subscribe("b", "t", past_groups=2) as subscription,
        ):
            for _ in range(3):
                reader = await anext(subscription)
                if reader.sequence < 2:
                    reader.close()
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not [task for task in trio_tasks() if "_fetch_group" in task]


def trio_tasks() -> list[str]:
    """Returns the names of the tasks that run."""
    found, waiting = [], [trio.lowlevel.current_root_task()]
    while waiting:
        task = waiting.pop()
        found.append(task.name)
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks
    return found


def test_a_reader_takes_over_what_a_later_header_says():
    """The head of a group says that the group does not end with it, and the tail may say otherwise."""
    reader = GroupReader(3, 0, GroupBuffer())
    reader.ends_group = False
    reader._describe(GroupStarted(1, 3, 0, priority=7))
    assert (reader.ends_group, reader.priority, reader.subgroup) == (True, 7, 0)
    reader._describe(GroupStarted(1, 3, 2, whole=False, subgroup=4, ends_group=False))
    assert (reader.ends_group, reader.priority, reader.subgroup, reader._begins) == (False, None, 4, False)
