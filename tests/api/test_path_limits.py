"""The bounds of a path: `Limits` alone has them, on both sides of a session, in every version."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.limits import Limits
from moqt_trio.testing import session_pair

each_version = pytest.mark.parametrize("version", moqt.version_names())

DRAFTS = pytest.mark.parametrize("version", [name for name in moqt.version_names() if name.startswith("moqt-")])
DEEP = "/".join("a" * 40)
LONG = "b" * 2000


@each_version
@pytest.mark.parametrize("path", [DEEP, LONG], ids=["deep", "long"])
async def test_raised(version, path, autojump_clock):
    """With higher limits on both sides a deeper and a longer path is announced, subscribed and read."""
    if path is DEEP and version.startswith("moqt-"):
        path = DEEP[: 2 * 32 - 1]
    limits = Limits(max_path=4096, max_path_parts=64)
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with session_pair(version, limits=limits) as (client, server), server.publish(path, broadcast):
        async with client.announcements() as announcements:
            assert str((await announcements.receive()).path) == path
        async with client.subscribe(path, "t") as subscription:
            with trio.fail_after(10):
                await track.wait_subscribed()
                await track.write(b"x")
                assert await (await subscription.receive()).read_all() == [b"x"]


@DRAFTS
async def test_a_path_that_no_draft_carries(version, autojump_clock):
    """A namespace has at most 32 fields, whatever the limits are: the caller gets the error before anything is sent."""
    limits = Limits(max_path=4096, max_path_parts=64)
    async with session_pair(version, limits=limits) as (client, _):
        subscription = client.subscribe(DEEP, "t")
        with pytest.raises(moqt.LocalProtocolError, match="32 fields"):
            await subscription.__aenter__()
        assert client.closed is None


@each_version
@pytest.mark.parametrize(("path", "problem"), [(DEEP, "32 parts"), (LONG, "1024 bytes")], ids=["deep", "long"])
async def test_defaults_refuse_a_callers_path(version, path, problem, autojump_clock):
    """By default such a path is the caller's mistake, whatever is asked; nothing is sent, and the session goes on."""
    async with session_pair(version) as (client, _):
        for ask in (
            lambda: client.publish(path, moqt.Broadcast()),
            lambda: client.announcements(path),
            lambda: client.subscribe(path, "t"),
            lambda: client.fetch(path, "t", 0),
        ):
            with pytest.raises(ValueError, match=problem):
                ask()
        assert client.closed is None


@pytest.mark.parametrize("version", ["moq-transfork-03", "gomoqt-develop"])
async def test_the_name_of_a_track_counts_where_it_is_part_of_the_path(version, autojump_clock):
    """A version that names a track by one path bounds that path: the caller gets the error before anything is sent."""
    async with session_pair(version) as (client, _):
        subscription = client.subscribe("/".join("a" * 32), "t")
        with pytest.raises(moqt.LocalProtocolError, match="32 parts"):
            await subscription.__aenter__()
        assert client.closed is None


@each_version
@pytest.mark.parametrize("path", [DEEP, LONG], ids=["deep", "long"])
async def test_defaults_refuse_a_peers_path(version, path, autojump_clock):
    """A subscriber whose limits are higher than the publisher's is refused, and nothing of it reaches the origin."""
    raised = Limits(max_path=4096, max_path_parts=64)
    async with session_pair(version, client_limits=raised) as (client, _):
        with trio.fail_after(20), pytest.raises(moqt.MoqtError):
            async with client.subscribe(path, "t") as subscription:
                await subscription.wait_accepted()
