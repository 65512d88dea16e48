"""What only the versions before moq-lite-03 report to the application: the session's bitrate, tracks by name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

import moqt_trio as moqt
import moqt_trio.testing
from moqt_trio.session.context import REPORT_INTERVAL
from moqt_trio.session.run import run_session
from moqt_trio.transport.memory import MemoryConnection, open_memory_pair
from moqt_trio.wire import dialect as dialects
from tests.faults.state_wire import IN_BAND, TUPLES, protocol_of

in_band = pytest.mark.parametrize("version", IN_BAND)


@asynccontextmanager
async def two_sides(version: str) -> AsyncIterator[tuple[moqt.Session, moqt.Session]]:
    """Yield the client's and the server's session, after their handshake."""
    sessions: dict[bool, moqt.Session] = {}
    both, over = trio.Event(), trio.Event()

    async def run(connection: MemoryConnection) -> None:
        path = "/a" if connection.is_client else None
        async with run_session(connection, [dialects.get(version)], limits=moqt.Limits(), path=path) as session:
            sessions[connection.is_client] = session
            if len(sessions) == 2:
                both.set()
            await over.wait()

    async with open_memory_pair(protocol=protocol_of(version)) as pair, trio.open_nursery() as nursery:
        for connection in pair:
            nursery.start_soon(run, connection)
        with trio.fail_after(5):
            await both.wait()
        yield sessions[True], sessions[False]
        over.set()


@in_band
async def test_each_side_learns_the_bitrate_that_the_other_measures(version, monkeypatch, autojump_clock):
    """An estimate goes out once it is known and when it has changed much, and stands in the peer's statistics."""
    async with two_sides(version) as (client, server):
        assert client.statistics().peer_bitrate is None
        connection = server._context.connection
        numbers = attrs.evolve(connection.statistics(), rtt=0.1, congestion_window=125_000)
        monkeypatch.setattr(connection, "statistics", lambda: numbers)
        await trio.sleep(REPORT_INTERVAL + 1)
        assert client.statistics().peer_bitrate == 10_000_000
        assert server.statistics().peer_bitrate is None

        numbers = attrs.evolve(numbers, congestion_window=130_000)
        await trio.sleep(REPORT_INTERVAL)
        assert client.statistics().peer_bitrate == 10_000_000
        numbers = attrs.evolve(numbers, congestion_window=250_000)
        await trio.sleep(REPORT_INTERVAL)
        assert client.statistics().peer_bitrate == 20_000_000


async def test_a_version_with_probes_has_no_bitrate_without_one(autojump_clock):
    """From moq-lite-03 on a probe requests the estimate, and no estimate comes without one."""
    async with moqt.testing.session_pair("moq-lite-06") as (client, _):
        await trio.sleep(3 * REPORT_INTERVAL)
        assert client.statistics().peer_bitrate is None


@pytest.mark.parametrize("version", TUPLES)
async def test_announced_tracks_have_names(version, autojump_clock):
    """Where tracks are announced, their names can be read; they come and go with the broadcast."""
    broadcast = moqt.Broadcast()
    broadcast.track("video")
    async with two_sides(version) as (client, server), client.announcements("room") as announcements:
        assert announcements.tracks("room/a") == ()
        async with server.publish("room/a", broadcast):
            assert (await announcements.receive()).active
            assert announcements.tracks("room/a") == ("video",)
            broadcast.track("audio")
            await trio.sleep(1)
            assert announcements.tracks("/room/a/") == ("audio", "video")
            assert announcements.tracks("room/b") == ()
        assert not (await announcements.receive()).active
        assert announcements.tracks("room/a") == ()


async def test_announced_broadcasts_name_no_tracks(autojump_clock):
    """In moq-lite a broadcast is announced, and its tracks are not."""
    broadcast = moqt.Broadcast()
    broadcast.track("video")
    async with (
        moqt.testing.session_pair() as (client, server),
        client.announcements() as announcements,
        server.publish("a", broadcast),
    ):
        assert (await announcements.receive()).active
        assert announcements.tracks("a") == ()
