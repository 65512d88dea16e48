"""The setup of most tests of delivery: two sessions, a published track, and a subscription to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, NamedTuple

import moqt_trio as moqt
from moqt_trio.testing import LossyLink, session_pair


class Stage(NamedTuple):
    """The two sessions, the track and the subscription."""

    client: moqt.Session
    server: moqt.Session
    track: moqt.Track
    subscription: moqt.Subscription


@asynccontextmanager
async def subscribed(
    version: str = "moq-lite-06",
    *,
    delivery: Literal["live", "reliable"] = "live",
    limits: moqt.Limits | None = None,
    client_limits: moqt.Limits | None = None,
    link: LossyLink | None = None,
    **wanted: float,
) -> AsyncIterator[Stage]:
    """Has the client subscribe to the track `t` of the broadcast `b`, which the server publishes.

    Args:
        version: The wire version.
        delivery: The track's.
        limits: The bounds of both sessions; see `session_pair`.
        client_limits: The bounds of the client, when they differ.
        link: What lies between them.
        wanted: What else to ask for; the arguments of `Session.subscribe`.
    """
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery=delivery)
    async with (
        session_pair(version, limits=limits, client_limits=client_limits, link=link) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t", **wanted) as subscription,
    ):
        await track.wait_subscribed()
        yield Stage(client, server, track, subscription)
