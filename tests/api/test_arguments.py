"""Values that no version can carry are refused where they are given, and nothing breaks later for them."""

from __future__ import annotations

import math

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.api.staged import subscribed

VERSIONS = pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-04", "moq-lite-03"])


@pytest.mark.parametrize("route", [{"hops": [1, 2**62]}, {"hops": [-1]}, {"cost": 2**62}, {"cost": -1}])
async def test_a_route_out_of_range(route):
    """`publish` refuses a hop id or a cost that no number on the wire holds, and the session goes on."""
    async with session_pair("moq-lite-06") as (client, server):
        with pytest.raises(ValueError, match=r"0 … 2\*\*62-1"):
            server.publish("b", moqt.Broadcast(), **route)
        async with (
            server.publish("b", moqt.Broadcast(), hops=[0, 2**62 - 1], cost=2**62 - 1),
            client.announcements() as announcements,
        ):
            with trio.fail_after(5):
                assert (await announcements.receive()).cost == 2**62 - 1


@VERSIONS
@pytest.mark.parametrize(
    "values",
    [
        {"priority": 256},
        {"priority": -1},
        {"max_age": -0.5},
        {"max_age": math.inf},
        {"max_age": math.nan},
        {"max_age": 2.0**51},
        {"start_group": -1},
        {"end_group": 2**62},
    ],
    ids=str,
)
async def test_an_update_out_of_range(version, values):
    """An update with a value out of range is a LocalProtocolError; the subscription stays as it was, and goes on."""
    async with subscribed(version, delivery="reliable") as (_, _, track, subscription):
        with pytest.raises(moqt.LocalProtocolError):
            await subscription.update(**values)
        await subscription.update(priority=9)
        await track.write(b"x")
        with trio.fail_after(5):
            assert await (await subscription.receive()).read_all() == [b"x"]
