"""Broadcasts come and go, seen from either side: each version, transport and role."""

from __future__ import annotations

import moqt_trio as moqt
from tests.interop.moq_rs import MoqRs, Pairing, each_pairing, needs_moq_rs, pairings
from tests.interop.raw_link import ANNOUNCE, prefixed, raw_link, text

pytestmark = needs_moq_rs


async def next_change(announcements: moqt.Announcements) -> tuple[str, bool]:
    """Returns the path of the next announcement, and whether it is active."""
    announcement = await anext(announcements)
    return str(announcement.path), announcement.active


@each_pairing
async def test_a_broadcast_that_moq_rs_closes_is_reported_as_inactive(moq_rs: MoqRs, pairing: Pairing):
    """A broadcast that moq-rs announces while we listen is reported as active, then as inactive, and may return."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/first", track="t")
        async with ours.announcements("theirs") as announcements:
            assert await next_change(announcements) == ("theirs/first", True)
            for _ in range(2):
                theirs.tell("publish", path="theirs/second", track="t")
                assert await next_change(announcements) == ("theirs/second", True)
                theirs.tell("unannounce", path="theirs/second")
                assert await next_change(announcements) == ("theirs/second", False)
            assert [str(announcement.path) for announcement in announcements.active] == ["theirs/first"]


@pairings(3, 4, 5, 6)
async def test_a_broadcast_that_was_there_before_is_reported_as_inactive(moq_rs: MoqRs, pairing: Pairing):
    """From moq-lite-03 on moq-rs retracts what it had announced before we asked, too."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/first", track="t")
        async with ours.announcements("theirs") as announcements:
            assert await next_change(announcements) == ("theirs/first", True)
            theirs.tell("unannounce", path="theirs/first")
            assert await next_change(announcements) == ("theirs/first", False)


@pairings(1, 2)
async def test_moq_rs_never_retracts_what_its_first_list_named(moq_rs: MoqRs, pairing: Pairing):
    """In moq-lite-01 and -02 the bytes of moq-rs's announce stream are ANNOUNCE_INIT with "old", and, after it
    closed "old" and then announced "new", the ANNOUNCE of "new": no ANNOUNCE ever retracts "old". One retracts "new",
    which the list did not name."""
    async with raw_link(moq_rs, pairing) as (link, theirs):
        theirs.tell("publish", path="old", track="t")
        await theirs.wait("published")
        stream = await link.open(bytes([ANNOUNCE]) + prefixed(text("")))
        init = prefixed(b"\x01" + text("old"))
        await link.until(lambda: len(stream.data) >= len(init))
        assert stream.data == init
        theirs.tell("unannounce", path="old")
        await theirs.wait("unannounced")
        theirs.tell("publish", path="new", track="t")
        announced = init + prefixed(b"\x01" + text("new"))
        await link.until(lambda: len(stream.data) >= len(announced))
        assert stream.data == announced
        theirs.tell("unannounce", path="new")
        retracted = announced + prefixed(b"\x00" + text("new"))
        await link.until(lambda: len(stream.data) >= len(retracted))
        assert stream.data == retracted


@each_pairing
async def test_a_broadcast_of_ours_comes_and_goes_at_moq_rs(moq_rs: MoqRs, pairing: Pairing):
    """moq-rs reports our broadcast as active when the block begins and as inactive when it ends, whether or not it
    was published before moq-rs asked."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        async with ours.publish("our/first", moqt.Broadcast()):
            theirs.tell("discover", prefix="our")
            await theirs.wait("announced", path="our/first", active=True)
            for _ in range(2):
                async with ours.publish("our/second", moqt.Broadcast()):
                    await theirs.wait("announced", path="our/second", active=True)
                await theirs.wait("announced", path="our/second", active=False)
        await theirs.wait("announced", path="our/first", active=False)
