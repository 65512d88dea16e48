"""Our client against a server of the moq-rs package: an implementation that shares no line with this one."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import moqt_trio as moqt
from tests.interop.processes import PEERS, Child

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("moq") is None,
    reason="the moq-rs package is not installed: pip install 'moqt-trio[interop]'",
)

VERSIONS = ["moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03"]
SAYS_THE_END = {"moq-lite-06", "moq-lite-05"}
"""Versions with a message for a track's end; in those before, moq-rs waits five seconds after the FIN."""
SCHEMES = ["https", "moqt"]
GROUPS, FRAMES = 5, 4

each_combination = pytest.mark.parametrize(
    ("version", "scheme"), [(version, scheme) for version in VERSIONS for scheme in SCHEMES]
)

each_version = pytest.mark.parametrize(
    ("version", "scheme"), [(version, SCHEMES[index % 2]) for index, version in enumerate(VERSIONS)]
)


def known_payload(group: int, frame: int) -> bytes:
    """Returns what moq-rs's server publishes there, by the rule that its script documents."""
    size = (group * 37 + frame * frame * 4111) % 50_000
    digest = hashlib.sha256(f"{group}/{frame}".encode()).digest()
    return (digest * (size // len(digest) + 1))[:size]


async def next_event(server: Child, event: str) -> dict[str, Any]:
    """Waits for a line of the server's without stopping the session."""
    return await trio.to_thread.run_sync(server.wait_event, event)


@asynccontextmanager
async def session_with_moq_rs(version: str, scheme: str, *options: str) -> AsyncIterator[tuple[moqt.Session, Child]]:
    """Starts a server of moq-rs and connects to it."""
    arguments = ["--groups", str(GROUPS), "--frames", str(FRAMES), *options]
    with trio.fail_after(60), Child(str(PEERS / "moq_rs_server.py"), *arguments) as server:
        listening = await next_event(server, "listening")
        url = f"{scheme}://localhost:{listening['port']}/peer"
        async with moqt.connect(url, versions=[version], fingerprint=listening["fingerprint"]) as session:
            assert session.version == version
            yield session, server


@each_combination
async def test_a_track_of_moq_rs_arrives_byte_for_byte(version: str, scheme: str):
    """We find moq-rs's broadcast among its announcements and read every group and frame of its track."""
    received: dict[int, list[bytes]] = {}
    async with session_with_moq_rs(version, scheme) as (session, _):
        async with session.announcements("peer") as announcements:
            announcement = await anext(announcements)
            assert str(announcement.path) == "peer/known"
            assert announcement.active
        async with session.subscribe("peer/known", "data", start_group=0, max_age=60) as subscription:
            async for group in subscription:
                received[group.sequence] = [bytes(frame) async for frame in group]
                if len(received) == GROUPS:
                    break
    assert received == {group: [known_payload(group, frame) for frame in range(FRAMES)] for group in range(GROUPS)}


@each_combination
async def test_what_we_publish_reaches_moq_rs_byte_for_byte(version: str, scheme: str):
    """moq-rs finds our broadcast, subscribes, and reads every group and frame as it was written."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("bytes", delivery="reliable", max_age=60)
    received: dict[int, list[bytes]] = {}
    async with (
        session_with_moq_rs(version, scheme, "--read", "client/out", "bytes") as (session, server),
        session.publish("client/out", broadcast),
    ):
        await track.wait_subscribed()
        for sequence in range(GROUPS):
            async with track.open_group() as group:
                for frame in range(FRAMES):
                    await group.send(known_payload(sequence, frame))
        track.finish()
        for _ in range(GROUPS):
            event = await next_event(server, "group")
            received[event["sequence"]] = [bytes.fromhex(frame) for frame in event["frames"]]
        if version in SAYS_THE_END:
            await next_event(server, "end")
    assert received == {group: [known_payload(group, frame) for frame in range(FRAMES)] for group in range(GROUPS)}


@each_version
async def test_a_track_that_moq_rs_ends_ends_here(version: str, scheme: str):
    """Iteration over a track that its publisher finished comes to a clean end, with the last group delivered."""
    async with (
        session_with_moq_rs(version, scheme, "--finish") as (session, _),
        session.subscribe("peer/known", "data", max_age=60) as subscription,
    ):
        received = {group.sequence: [bytes(frame) async for frame in group] async for group in subscription}
    last = GROUPS - 1
    assert received[last] == [known_payload(last, frame) for frame in range(FRAMES)]


@each_version
async def test_a_broadcast_that_moq_rs_unannounces_is_reported_as_inactive(version: str, scheme: str):
    """An announcement is followed by its end when the publisher closes the broadcast."""
    async with (
        session_with_moq_rs(version, scheme, "--ending") as (session, server),
        session.announcements("peer/ending") as announcements,
    ):
        announcement = await anext(announcements)
        assert (str(announcement.path), announcement.active) == ("peer/ending", True)
        server.tell("end")
        announcement = await anext(announcements)
        assert (str(announcement.path), announcement.active) == ("peer/ending", False)


@each_version
async def test_a_track_that_moq_rs_refuses_raises_here(version: str, scheme: str):
    """A refusal reaches the subscriber as an error of this library, and the session goes on."""
    async with session_with_moq_rs(version, scheme, "--refuse", "19") as (session, server):
        with pytest.raises(moqt.MoqtError):
            async with session.subscribe("peer/refusing", "anything") as subscription:
                await anext(subscription)
        assert (await next_event(server, "refused"))["track"] == "anything"
        async with session.subscribe("peer/known", "data", max_age=60) as subscription:
            group = await anext(subscription)
            assert await anext(group) == known_payload(group.sequence, 0)
