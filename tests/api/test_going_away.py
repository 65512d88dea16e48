"""A session after the peer's GOAWAY: running requests go on, and new ones are refused."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.api.staged import subscribed

pytestmark = pytest.mark.parametrize("version", ["moq-lite-04", "moq-lite-05", "moq-lite-06", "moq-lite-06-wip"])
URI = "moqt://elsewhere.example:4443/live"


@pytest.mark.parametrize("kind", ["subscription", "announcements", "fetch", "probe"])
async def test_nothing_new_can_be_asked_for(version, kind):
    """After GOAWAY every request is refused on this side, with the URI to connect to, and no stream is opened."""
    async with session_pair(version) as (client, server):
        await server.goaway(URI)
        assert await client.wait_goaway() == URI
        requests = {
            "subscription": lambda: client.subscribe("b", "t"),
            "announcements": client.announcements,
            "fetch": lambda: client.fetch("b", "t", 0),
            "probe": client.probe,
        }
        for _ in range(2):
            with pytest.raises(moqt.GoingAway) as caught:
                async with requests[kind]():
                    raise AssertionError("the block was entered")
            assert caught.value.uri == URI
        assert client.statistics().subscriptions == 0
        assert client.closed is None


async def test_what_runs_goes_on(version):
    """A subscription that runs when the peer sends GOAWAY gets the groups that are written after it."""
    async with subscribed(version, delivery="reliable") as stage:
        await stage.track.write(b"before")
        assert bytes(await anext(await anext(stage.subscription))) == b"before"
        await stage.server.goaway()
        assert await stage.client.wait_goaway() == ""
        await stage.track.write(b"after")
        with trio.fail_after(5):
            assert bytes(await anext(await anext(stage.subscription))) == b"after"


async def test_who_asked_may_still_ask(version):
    """The side that sent GOAWAY is not bound by it: it still gets the other side's announcements."""
    async with session_pair(version) as (client, server), client.publish("b", moqt.Broadcast()):
        await server.goaway()
        await client.wait_goaway()
        async with server.announcements() as announcements:
            with trio.fail_after(5):
                assert str((await anext(announcements)).path) == "b"
