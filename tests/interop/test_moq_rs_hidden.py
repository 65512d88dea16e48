"""Hidden paths with moq-rs: on each version, over both transports, in both roles."""

from __future__ import annotations

import pytest

import moqt_trio as moqt
from tests.interop.moq_rs import ROLES, SCHEMES, VERSIONS, MoqRs, Pairing, needs_moq_rs, payloads

pytestmark = needs_moq_rs

DRAFTS = [f"moqt-{number}" for number in range(22, 13, -1)]
LITE = [Pairing(version, scheme, role) for version in VERSIONS for scheme in SCHEMES for role in ROLES]
IETF = [Pairing(draft, scheme, role) for draft in DRAFTS for scheme in SCHEMES for role in ROLES]
FRAMES = payloads(0, 3)

each_of_all = pytest.mark.parametrize("pairing", [*LITE, *IETF], ids=str)


async def paths(announcements: moqt.Announcements, last: str) -> list[str]:
    """Returns what is announced, up to a path that is published last."""
    found: list[str] = []
    while last not in found:
        found.append(str((await anext(announcements)).path))
    return sorted(found)


@each_of_all
async def test_moq_rs_withholds_and_serves_them(moq_rs: MoqRs, pairing: Pairing):
    """moq-rs announces its hidden path to no list above the dot, and to one from there on; by name it serves it."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/.secret/cam", track="t")
        theirs.write("theirs/.secret/cam", 0, FRAMES)
        theirs.tell("publish", path="theirs/z", track="t")
        await theirs.settle()
        async with ours.announcements("theirs") as announcements:
            assert await paths(announcements, "theirs/z") == ["theirs/z"]
        async with ours.announcements("theirs/.secret") as announcements:
            assert await paths(announcements, "theirs/.secret/cam") == ["theirs/.secret/cam"]
        async with ours.subscribe("theirs/.secret/cam", "t", max_age=60) as subscription:
            group = await anext(subscription)
            assert [bytes(frame) for frame in await group.read_all()] == FRAMES


@pytest.mark.parametrize("pairing", [pairing for pairing in IETF if pairing.version != "moqt-14"], ids=str)
async def test_moq_rs_tells_them_where_it_is_asked(moq_rs: MoqRs, pairing: Pairing):
    """A list that asks for hidden paths gets those of moq-rs, as they come and go."""
    async with pairing.sessions(moq_rs) as (ours, theirs):
        theirs.tell("publish", path="theirs/.secret", track="t")
        await theirs.settle()
        async with ours.announcements("theirs", hidden=True) as announcements:
            assert await paths(announcements, "theirs/.secret") == ["theirs/.secret"]
            theirs.tell("unannounce", path="theirs/.secret")
            change = await anext(announcements)
            assert (change.path, change.active) == ("theirs/.secret", False)


@each_of_all
async def test_moq_rs_is_not_told_of_ours(moq_rs: MoqRs, pairing: Pairing):
    """moq-rs sees our hidden path in no plain list."""
    async with (
        pairing.sessions(moq_rs) as (ours, theirs),
        ours.publish("our/.secret", moqt.Broadcast()),
        ours.publish("our/a", moqt.Broadcast()),
    ):
        theirs.tell("discover", prefix="our")
        assert (await theirs.wait("announced", active=True))["path"] == "our/a"
        async with ours.publish("our/z", moqt.Broadcast()):
            assert (await theirs.wait("announced", active=True))["path"] == "our/z"


@each_of_all
async def test_moq_rs_takes_those_that_a_view_shows(moq_rs: MoqRs, pairing: Pairing):
    """Where our session shows hidden paths, moq-rs has them, and hands them to an application that wants such."""
    origin = moqt.Origin()
    async with (
        pairing.sessions(moq_rs, view=origin.view(hidden=True)) as (_, theirs),
        origin.publish("our/.secret", moqt.Broadcast()),
    ):
        theirs.tell("discover", prefix="our", hidden=True)
        assert (await theirs.wait("announced", active=True))["path"] == "our/.secret"


@pytest.mark.parametrize("pairing", IETF, ids=str)
async def test_moq_rs_asks_for_ours(moq_rs: MoqRs, pairing: Pairing):
    """On the drafts moq-rs asks for hidden paths, as this side knows the extension; its application picks."""
    async with pairing.sessions(moq_rs) as (ours, theirs), ours.publish("our/.secret", moqt.Broadcast()):
        theirs.tell("discover", prefix="our", hidden=True)
        assert (await theirs.wait("announced", active=True))["path"] == "our/.secret"
