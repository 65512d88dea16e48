"""What no publisher of this library writes: ends by status, contradictions, gaps, floods and wrong counts."""

from __future__ import annotations

from contextlib import suppress

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.session.subscriber.group_queue import GroupQueue
from tests.api.objects import played


async def test_the_end_of_a_group_by_status():
    """Its reader learns it with the last frame."""
    async with played() as (subscription, play, _):
        stream = await play("10", "0080000161", fin=False)
        reader = await anext(subscription)
        assert await reader.receive() == b"a"
        assert not reader.ends_group
        stream.write(bytes.fromhex("000003"), True)
        with pytest.raises(trio.EndOfChannel):
            await reader.receive()
        assert reader.ends_group


async def test_the_end_of_a_track_by_status():
    """It is known before PUBLISH_DONE, and a group that does not exist has no reader."""
    async with played() as (subscription, play, track):
        await play("18", "0080000161")
        await play("18", "0180000004")
        reader = await anext(subscription)
        assert (reader.sequence, await reader.read_all()) == (0, [b"a"])
        assert subscription.end_group == 1
        track.finish()
        assert [group async for group in subscription] == []


@pytest.mark.parametrize(
    "streams",
    [
        [("18", "0080000161"), ("14", "000180050161")],
        [("10", "0080000161000003"), ("14", "000180050161")],
        [("10", "0080000161000003000161")],
        [("18", "0280000004"), ("10", "0280000161")],
        [("10", "0280000161"), ("11", "058000023c040161")],
        [("11", "0280" + "00023c040161")],
    ],
    ids=["by the header", "by status", "on one stream", "of the track", "a gap", "a gap that is too long"],
)
async def test_a_malformed_track(streams):
    """Its subscription is cancelled with MALFORMED_TRACK; the session goes on."""
    async with played() as (subscription, play, track):
        client = subscription._context
        for kind, rest in streams:
            await play(kind, rest)

        async def read():
            async for group in subscription:
                with suppress(moqt.StreamReset):
                    await group.read_all()

        with pytest.raises(moqt.RemoteProtocolError) as caught:
            await read()
        assert caught.value.code == StreamCode.MALFORMED_TRACK
        await track.wait_unsubscribed()
        assert client.connection.closed is None


async def test_a_gap_of_groups():
    """The groups that do not exist are reported once, whichever subgroups say so."""
    async with played() as (subscription, play, _):
        await play("15", "09018000023c030161")
        await play("15", "09028001023c030161")
        for _ in range(2):
            await (await anext(subscription)).read_all()
        assert [(drop.first, drop.last, drop.code) for drop in subscription.dropped] == [(6, 8, 0)]


def test_a_gap_of_groups_that_is_said_again():
    """Long after it was said first, it is no contradiction: what it says does not exist was not there."""
    queue, problems = GroupQueue(moqt.Limits()), []
    queue.on_malformed = problems.append
    queue.note_gap(300, 2)
    for number in range(301, 700):
        queue.note_gap(number, 0)
        queue._ends.note(number, 0, None)
    queue.note_gap(300, 2)
    assert not problems
    assert [(drop.first, drop.last) for drop in queue.dropped] == [(298, 299)]


async def test_a_subgroup_that_comes_twice():
    """The second one is refused; others of the group come."""
    async with played() as (subscription, play, _):
        await play("14", "000180000161")
        again = await play("14", "000180000161", fin=False)
        await play("14", "000280010162")
        found = [await anext(subscription) for _ in range(2)]
        assert [(reader.subgroup, await reader.read_all()) for reader in found] == [(1, [b"a"]), (2, [b"b"])]
        with pytest.raises(moqt.StreamReset):
            again.write(b"x")


async def test_a_flood_of_subgroups():
    """A peer opens as many streams as it may, and not more; what is remembered of them is bounded."""
    limits = moqt.Limits(max_streams=64, cache_groups=100)
    async with played(limits=limits) as (subscription, play, _):
        opened = 0
        with trio.move_on_after(1) as scope:
            for number in range(1000):
                await play("14", f"00{number | 0x8000:04x}80000161")
                opened += 1
        assert scope.cancelled_caught
        assert opened <= 64
        # As they are read, more come: in the end the group has had more parts than are remembered.
        read = 0
        async with trio.open_nursery() as nursery:

            async def go_on():
                for number in range(opened, 300):
                    await play("14", f"00{number | 0x8000:04x}80000161")
                nursery.cancel_scope.cancel()

            nursery.start_soon(go_on)
            while True:
                await (await anext(subscription)).read_all()
                read += 1
        assert 99 <= read <= 300
        assert sum(parts.ranges for parts in subscription._queue._seen._parts.values()) <= 100


@pytest.mark.parametrize("streams", [1, 3, (1 << 62) - 1, 0])
async def test_the_count_of_streams(streams, autojump_clock):
    """With the number that came the subscription ends at once; with more, and without one, after a while."""
    async with played() as (subscription, play, _):
        await play("18", "0080000161")
        [control] = [subscription._control]
        encode = subscription._context.dialect.profile.encode
        body = b"\x02" + encode(streams) + b"\0"
        before = trio.current_time()
        control.data_received(b"\x0b" + len(body).to_bytes(2, "big") + body, True)
        assert [await group.read_all() async for group in subscription] == [[b"a"]]
        assert (trio.current_time() - before < 0.1) == (streams == 1)


async def test_the_end_of_a_track_before_its_last_streams(autojump_clock):
    """A status that ends the track, and a PUBLISH_DONE without a count, do not keep later streams from arriving."""
    async with played() as (subscription, play, _):
        await play("18", "0180000004")
        body = b"\x02" + b"\xff" * 9 + b"\0"
        control = subscription._control
        control.data_received(b"\x0b" + len(body).to_bytes(2, "big") + body, True)
        await play("18", "0080000161")
        assert [await group.read_all() async for group in subscription] == [[b"a"]]
