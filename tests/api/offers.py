"""Pairs of sessions of which one offers a track to the other (PUBLISH), on the IETF drafts."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import moqt_trio as moqt
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
