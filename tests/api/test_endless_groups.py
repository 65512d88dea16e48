"""A group that never ends outgrows the cache: who subscribes late gets what is kept of it, or is told that it can't."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair

LIMITS = moqt.Limits(cache_frames=64)
OLDEST = ("moq-lite-01", "moq-lite-02")
"""The versions that have no message for dropped groups."""
WITH_FRAMES = ("moq-lite-06",)
"""The versions whose groups say at which frame they start."""
DRAFTS = tuple(name for name in moqt.version_names() if name.startswith("moqt-"))
"""Those whose frames say which they are: `test_ietf_heads.py` and `test_ietf_sessions.py` have such groups."""


@asynccontextmanager
async def late_subscriber(version, frames=1000, **wanted):
    """Yield a track's open group of so many frames, the track, and a subscription that comes after them."""
    broadcast = moqt.Broadcast(limits=LIMITS)
    track = broadcast.track("t")
    group = track.open_group()
    for number in range(frames):
        group.send_nowait(b"%d" % number)
    async with (
        session_pair(version, limits=LIMITS) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t", **wanted) as subscription,
    ):
        yield group, track, subscription


@pytest.mark.parametrize("version", WITH_FRAMES)
@pytest.mark.parametrize("wanted", [{}, {"start_group": 0}, {"start_group": 0, "start_frame": 5}], ids=str)
async def test_the_group_starts_at_the_first_frame_that_is_kept(version, wanted, autojump_clock):
    """The reader's `start_frame` says which frame comes first; every one from there on arrives."""
    async with late_subscriber(version, **wanted) as (writer, _, subscription):
        with trio.fail_after(1):
            reader = await anext(subscription)
            assert 1000 - LIMITS.cache_frames <= reader.start_frame < 1000
            writer.send_nowait(b"new")
            writer.finish()
            frames = await reader.read_all()
        assert frames == [*(b"%d" % number for number in range(reader.start_frame, 1000)), b"new"]
        assert subscription.dropped == ()


@pytest.mark.parametrize(
    "version", [name for name in moqt.version_names() if name not in (*OLDEST, *WITH_FRAMES, *DRAFTS)]
)
async def test_elsewhere_the_group_is_reported_as_dropped(version, autojump_clock):
    """Within a second the subscriber knows that it does not get the group; it gets the next one."""
    async with late_subscriber(version) as (writer, track, subscription):
        await trio.sleep(1)
        # gomoqt has one number for groups that are too old and for those that are too far behind.
        code = moqt.StreamCode.OLD if version == "gomoqt-develop" else moqt.StreamCode.TOO_FAR_BEHIND
        assert subscription.dropped == (moqt.DroppedGroups(0, 0, code),)
        writer.send_nowait(b"not for this subscriber")
        await track.write(b"next")
        with trio.fail_after(1):
            reader = await anext(subscription)
            assert (reader.sequence, reader.start_frame, await reader.read_all()) == (1, 0, [b"next"])


@pytest.mark.parametrize("version", OLDEST)
async def test_without_reports_the_subscription_is_reset(version, autojump_clock):
    """Where the version has no message for a dropped group, the subscription ends with the same code."""
    async with late_subscriber(version) as (_, _, subscription):
        with trio.fail_after(1), pytest.raises(moqt.StreamReset) as caught:
            await anext(subscription)
    assert caught.value.code == moqt.StreamCode.TOO_FAR_BEHIND


async def test_a_group_within_the_cache_is_served_whole(autojump_clock):
    """A group of as many frames as the cache has arrives from its first frame on."""
    async with late_subscriber("moq-lite-04", frames=LIMITS.cache_frames) as (writer, _, subscription):
        writer.finish()
        assert len(await (await anext(subscription)).read_all()) == LIMITS.cache_frames


async def test_a_range_reports_the_group_once(autojump_clock):
    """In a range whose first group has lost its first frames, that group is reported once, with its reason."""
    async with late_subscriber("moq-lite-05", start_group=0, end_group=1) as (_, track, subscription):
        await track.write(b"last of the range")
        assert await (await anext(subscription)).read_all() == [b"last of the range"]
        with trio.fail_after(1), pytest.raises(StopAsyncIteration):
            await anext(subscription)
        assert subscription.dropped == (moqt.DroppedGroups(0, 0, moqt.StreamCode.TOO_FAR_BEHIND),)


async def test_the_writer_is_warned_once(caplog):
    """The log names the track and the limits, once for the track however many frames are let go."""
    broadcast = moqt.Broadcast(limits=LIMITS)
    track = broadcast.track("temperature")
    for _ in range(2):
        group = track.open_group()
        for _ in range(1000):
            group.send_nowait(b"")
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "group 0 of track temperature" in record.getMessage()
    assert "cache_frames" in record.getMessage()
