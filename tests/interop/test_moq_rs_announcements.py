"""Broadcasts come and go, seen from either side: each version, transport and role."""

from __future__ import annotations

import moqt_trio as moqt
from tests.interop.raw_link import ANNOUNCE, prefixed, raw_link, text
from tests.interop.wheel import Pairing, Wheel, each_pairing, needs_wheel, pairings

pytestmark = needs_wheel


async def next_news(announcements: moqt.Announcements) -> tuple[str, bool]:
    """Returns the path of the next announcement, and whether it is active."""
    announcement = await anext(announcements)
    return str(announcement.path), announcement.active


@each_pairing
async def test_a_broadcast_that_the_wheel_closes_is_reported_as_gone(wheel: Wheel, pairing: Pairing):
    """What the wheel announces while we listen comes as active and goes as inactive, and it may come again."""
    async with pairing.sessions(wheel) as (ours, theirs):
        theirs.tell("publish", path="wheel/first", track="t")
        async with ours.announcements("wheel") as announcements:
            assert await next_news(announcements) == ("wheel/first", True)
            for _ in range(2):
                theirs.tell("publish", path="wheel/second", track="t")
                assert await next_news(announcements) == ("wheel/second", True)
                theirs.tell("withdraw", path="wheel/second")
                assert await next_news(announcements) == ("wheel/second", False)
            assert [str(announcement.path) for announcement in announcements.active] == ["wheel/first"]


@pairings(3, 4, 5, 6)
async def test_a_broadcast_that_was_there_before_is_reported_as_gone(wheel: Wheel, pairing: Pairing):
    """From moq-lite-03 on the wheel retracts what it had announced before we asked, too."""
    async with pairing.sessions(wheel) as (ours, theirs):
        theirs.tell("publish", path="wheel/first", track="t")
        async with ours.announcements("wheel") as announcements:
            assert await next_news(announcements) == ("wheel/first", True)
            theirs.tell("withdraw", path="wheel/first")
            assert await next_news(announcements) == ("wheel/first", False)


@pairings(1, 2)
async def test_the_wheel_never_retracts_what_its_first_list_named(wheel: Wheel, pairing: Pairing):
    """In moq-lite-01 and -02 the bytes of the wheel's announce stream are ANNOUNCE_INIT with "old", and, after it
    closed "old" and then announced "new", the ANNOUNCE of "new": no ANNOUNCE ever retracts "old". One retracts "new",
    which the list did not name."""
    async with raw_link(wheel, pairing) as (link, theirs):
        theirs.tell("publish", path="old", track="t")
        await theirs.wait("published")
        stream = await link.open(bytes([ANNOUNCE]) + prefixed(text("")))
        init = prefixed(b"\x01" + text("old"))
        await link.until(lambda: len(stream.data) >= len(init))
        assert stream.data == init
        theirs.tell("withdraw", path="old")
        await theirs.wait("withdrawn")
        theirs.tell("publish", path="new", track="t")
        announced = init + prefixed(b"\x01" + text("new"))
        await link.until(lambda: len(stream.data) >= len(announced))
        assert stream.data == announced
        theirs.tell("withdraw", path="new")
        retracted = announced + prefixed(b"\x00" + text("new"))
        await link.until(lambda: len(stream.data) >= len(retracted))
        assert stream.data == retracted


@each_pairing
async def test_a_broadcast_of_ours_comes_and_goes_at_the_wheel(wheel: Wheel, pairing: Pairing):
    """The wheel reports what we publish when the block begins, and as gone when it ends, whether or not it was there
    before the wheel looked."""
    async with pairing.sessions(wheel) as (ours, theirs):
        async with ours.publish("our/first", moqt.Broadcast()):
            theirs.tell("discover", prefix="our")
            await theirs.wait("announced", path="our/first", active=True)
            for _ in range(2):
                async with ours.publish("our/second", moqt.Broadcast()):
                    await theirs.wait("announced", path="our/second", active=True)
                await theirs.wait("announced", path="our/second", active=False)
        await theirs.wait("announced", path="our/first", active=False)
