"""A track of the IETF drafts whose newest group is in its middle."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair

DRAFTS = ["moqt-14", "moqt-15", "moqt-16", "moqt-17", "moqt-18", "moqt-19", "moqt-20", "moqt-21", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("version", DRAFTS)
ONE_OF_EACH_WAY = pytest.mark.parametrize("version", ["moqt-18", "moqt-22"])


@asynccontextmanager
async def half_written(version: str, frames: int = 3, **options):
    """Yields both sessions, a track with a group in its middle, and the writer of that group."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=60)
    with trio.fail_after(20):
        async with session_pair(version, **options) as (client, server), server.publish("b", broadcast):
            await track.write(b"old")
            async with track.open_group() as group:
                for index in range(frames):
                    await group.send(b"%d" % index)
                yield client, track, group
