"""Announcements that contradict the ones before: started twice, ended without a start, sent too early."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from tests.faults.raw_peer import code_of_reset, settled
from tests.faults.state_peer import VIOLATED, closing, hostile, still_serves, stopped_with
from tests.faults.state_wire import ALL, DEVELOP, HOP, LITE_01, LITE_02, LITE_05, TUPLES, WITH_IDS, WITH_SETUP
from tests.transport.awaiting import accept_bidi

each_version = pytest.mark.parametrize("version", ALL)
each_version_with_paths = pytest.mark.parametrize("version", [name for name in ALL if name not in WITH_IDS])
each_version_with_ids = pytest.mark.parametrize("version", WITH_IDS)


def broadcast(version: str, path: str) -> str:
    """The broadcast that an announcement of a path makes known: before moq-lite its last part is a track."""
    return path.rpartition("/")[0] if version in TUPLES else path


async def asked(peer):
    """Take our request for announcements; return its stream."""
    stream = await accept_bidi(peer)
    assert (await stream.receive_some())[:1] == b"\x01"
    return stream


async def change(announcements):
    """Return the next change as its path and whether it is active."""
    with trio.fail_after(1):
        item = await announcements.receive()
    return str(item.path), item.active


@pytest.mark.parametrize("version", [name for name in ALL if name != LITE_05])
async def test_an_announcement_that_starts_twice(version):
    """The stream is reset with the version's code, the announced broadcasts have ended, and other streams go on."""
    duplicate = 1 if version == DEVELOP else 0
    async with hostile(version) as (peer, session, wire), session.announcements() as other:
        others = await asked(peer)
        others.write(wire.first("c/t"))
        async with session.announcements() as announcements:
            stream = await asked(peer)
            stream.write(wire.first("a/t") + wire.active("b/t"))
            assert await change(announcements) == (broadcast(version, "a/t"), True)
            assert await change(announcements) == (broadcast(version, "b/t"), True)
            stream.write(wire.active("a/t"))
            assert await change(announcements) == (broadcast(version, "a/t"), False)
            assert await change(announcements) == (broadcast(version, "b/t"), False)
            with pytest.raises(moqt.RemoteProtocolError, match="announced already"):
                await announcements.receive()
            assert await code_of_reset(stream) == duplicate
            assert stopped_with(stream) == duplicate
        assert await change(other) == (broadcast(version, "c/t"), True)
        others.write(wire.ended("c/t", 0))
        assert await change(other) == (broadcast(version, "c/t"), False)
        await still_serves(peer, wire)
        assert session.closed is None


async def test_a_second_start_is_a_restart_in_moq_lite_05():
    """There it updates the announcement: the route has changed, the broadcast stays active."""
    async with hostile(LITE_05) as (peer, session, wire), session.announcements() as announcements:
        stream = await asked(peer)
        stream.write(wire.first("a") + wire.active("a", 5))
        first, second = await announcements.receive(), await announcements.receive()
        assert (first.updated, first.hops) == (False, (HOP,))
        assert (second.updated, second.hops, second.active) == (True, (5, HOP), True)
        assert session.closed is None


@each_version_with_paths
async def test_an_end_without_a_start_is_tolerated(version):
    """Where an end names a path, it may belong to an announcement that was dropped as a loop: it is ignored."""
    async with hostile(version) as (peer, session, wire), session.announcements() as announcements:
        stream = await asked(peer)
        stream.write(wire.first() + wire.ended("a/t", 0) + wire.active("b/t") + wire.ended("b/t", 0))
        stream.write(wire.ended("b/t", 0) + wire.active("b/t"))
        for active in (True, False, True):
            assert await change(announcements) == (broadcast(version, "b/t"), active)
        await still_serves(peer, wire)
        assert session.closed is None


@each_version_with_ids
@pytest.mark.parametrize("before", [0, 1], ids=["never given", "retired"])
async def test_an_end_of_an_id_that_is_not_in_use(version, before):
    """An id that was never given, or that ended before, is a violation of the session."""
    async with hostile(version) as (peer, session, wire), session.announcements() as announcements:
        stream = await asked(peer)
        stream.write(wire.first() + (wire.active("a") + wire.ended("a", 0)) * before)
        for active in (True, False) * before:
            assert await change(announcements) == ("a", active)
        stream.write(wire.ended("a", 0))
        assert await closing(peer) == VIOLATED
        with pytest.raises((moqt.RemoteProtocolError, moqt.SessionClosed)):
            await announcements.receive()


@pytest.mark.parametrize("version", WITH_SETUP)
async def test_an_announcement_before_announce_ok(version):
    """The first reply is ANNOUNCE_OK: other bytes are read as one, do not fit its layout, and close the session."""
    async with hostile(version) as (peer, session, wire), session.announcements() as announcements:
        stream = await asked(peer)
        stream.write(wire.active("some/where"))
        assert await closing(peer) == VIOLATED
        with pytest.raises((moqt.RemoteProtocolError, moqt.SessionClosed)):
            await announcements.receive()
        assert announcements.active == ()


@pytest.mark.parametrize("version", [LITE_02, LITE_01])
async def test_an_announcement_before_announce_init(version):
    """The first reply is the batch: an active path in its place is a batch of one, and an end does not decode."""
    async with hostile(version) as (peer, session, wire), session.announcements() as announcements:
        stream = await asked(peer)
        assert wire.active("a") == wire.first("a")
        stream.write(wire.active("a"))
        assert await change(announcements) == ("a", True)
        async with session.announcements() as others:
            (await asked(peer)).write(wire.ended("a", 0))
            assert await closing(peer) == VIOLATED
            with pytest.raises((moqt.RemoteProtocolError, moqt.SessionClosed)):
                await others.receive()


@each_version
async def test_announcements_that_come_and_go_in_turn(version):
    """A path that ended may start again, as often as it likes: with ids each time under a new one."""
    async with hostile(version) as (peer, session, wire), session.announcements() as announcements:
        stream = await asked(peer)
        stream.write(wire.first())
        for ordinal in range(50):
            stream.write(wire.active("a/t") + wire.ended("a/t", ordinal))
            assert await change(announcements) == (broadcast(version, "a/t"), True)
            assert await change(announcements) == (broadcast(version, "a/t"), False)
        assert announcements.active == ()
        assert session.closed is None


@each_version
async def test_a_broken_announce_stream_ends_its_broadcasts(version):
    """After the reset of the stream nothing that it announced counts as available."""
    async with hostile(version) as (peer, session, wire), session.announcements() as announcements:
        stream = await asked(peer)
        stream.write(wire.first("a/t"))
        assert await change(announcements) == (broadcast(version, "a/t"), True)
        await settled()
        stream.reset(0)
        assert await change(announcements) == (broadcast(version, "a/t"), False)
        with pytest.raises(moqt.StreamReset):
            await announcements.receive()
        assert session.closed is None
