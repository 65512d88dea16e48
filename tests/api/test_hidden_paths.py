"""Hidden paths: who is told of a path with a part that begins with a dot, on every version."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.relay.relays import linked, relay

VERSIONS = (*moqt.version_names(), "moqt-21", "moqt-19", "moqt-17", "moqt-15", "moq-lite-06-wip")
ASKABLE = [name for name in VERSIONS if name.startswith("moqt-") and name != "moqt-14"]
"""The versions that have words to ask for hidden paths."""

each_version = pytest.mark.parametrize("version", VERSIONS)


def broadcast() -> moqt.Broadcast:
    """A broadcast of one track with one group, which is announced in the versions that announce tracks, too."""
    made = moqt.Broadcast()
    made.track("t", max_age=600).write_nowait(b"x")
    return made


async def following(changes: moqt.Announcements | moqt.OfferedTracks) -> str:
    """Return the path of the next change."""
    with trio.fail_after(10):
        return str((await changes.receive()).path)


async def paths(announcements: moqt.Announcements, last: str) -> list[str]:
    """Return what is announced, up to a path that is published last."""
    found: list[str] = []
    while last not in found:
        found.append(await following(announcements))
    return sorted(found)


async def content(session: moqt.Session, path: str) -> list[bytes]:
    """Return the first group of a broadcast's track."""
    with trio.fail_after(10):
        async with session.subscribe(path, "t") as subscription:
            return list(map(bytes, await (await subscription.receive()).read_all()))


@each_version
async def test_withheld_and_served(version):
    """A hidden path is in no list above its dot, and in each from there on; by its name everyone subscribes to it."""
    async with (
        session_pair(version) as (client, server),
        server.publish("room/.secret/cam", broadcast()),
        server.publish("room/.secret", broadcast()),
        server.publish(".top", broadcast()),
    ):
        for prefix in ("", "room"):
            async with client.announcements(prefix) as announcements, server.publish("room/z", broadcast()):
                assert await paths(announcements, "room/z") == ["room/z"]
        async with client.announcements("room/.secret") as announcements:
            both = sorted([await following(announcements), await following(announcements)])
            assert both == ["room/.secret", "room/.secret/cam"]
        assert await content(client, "room/.secret/cam") == [b"x"]


@each_version
async def test_a_client_publishes_one(version):
    """A client's own hidden path is served, too, and pushed to no server that did not ask for it."""
    async with session_pair(version) as (client, server), client.publish("room/.secret", broadcast()):
        async with server.announcements() as announcements, client.publish("z", broadcast()):
            assert await paths(announcements, "z") == ["z"]
        assert await content(server, "room/.secret") == [b"x"]


@pytest.mark.parametrize("version", ASKABLE)
async def test_asked_for(version):
    """A list that asks for hidden paths has them as they come and go; a plain one beside it has not."""
    async with (
        session_pair(version) as (client, server),
        server.publish("room/.secret", broadcast()),
        client.announcements("room", hidden=True) as everything,
    ):
        assert await following(everything) == "room/.secret"
        async with client.announcements("") as plain, server.publish("room/.later/cam", broadcast()):
            assert await following(everything) == "room/.later/cam"
            async with server.publish("room/z", broadcast()):
                assert await following(everything) == "room/z"
                assert await paths(plain, "room/z") == ["room/z"]
        gone = {await following(everything) for _ in range(2)}
        assert gone == {"room/.later/cam", "room/z"}
        assert [str(item.path) for item in everything.active] == ["room/.secret"]


@pytest.mark.parametrize("version", [name for name in VERSIONS if name not in ASKABLE])
async def test_no_words_for_it(version):
    """Elsewhere asking for hidden paths is refused here, with what to do, and the session goes on."""
    async with session_pair(version) as (client, server):
        with pytest.raises(moqt.LocalProtocolError, match="ask for the prefix that has the dot"):
            async with client.announcements(hidden=True):
                pass
        async with client.announcements() as announcements, server.publish("z", broadcast()):
            assert await paths(announcements, "z") == ["z"]


@pytest.mark.parametrize("version", [name for name in VERSIONS if name.startswith("moqt-")])
async def test_offers(version):
    """Tracks of hidden paths are offered to no peer that asks above the dot, but for those that are offered unasked."""
    async with (
        session_pair(version) as (client, server),
        server.publish("room/.secret", broadcast()),
        server.publish("room/z", broadcast()),
        client.offered_tracks("room") as offered,
    ):
        assert await following(offered) == "room/z"
        async with server.publish("room/.shown", broadcast(), offer_tracks=True):
            assert await following(offered) == "room/.shown"


@pytest.mark.parametrize("version", [name for name in VERSIONS if "transfork" not in name and "develop" not in name])
async def test_a_publishers_hidden_path_through_a_relay(version):
    """A plain client says nothing of it to a relay that did not ask, and so no one is told."""
    async with (
        relay(versions=VERSIONS) as found,
        found.connect(version) as publisher,
        publisher.publish("room/.secret", broadcast()),
        publisher.publish("room/open", broadcast()),
        found.connect(version) as viewer,
        viewer.announcements() as announcements,
    ):
        assert await paths(announcements, "room/open") == ["room/open"]


@each_version
async def test_a_view_that_shows_them(version):
    """A session whose view shows hidden paths is told of them without asking."""
    async with (
        relay(hidden=True, versions=VERSIONS) as found,
        found.origin.publish("room/.secret", broadcast()),
        found.connect(version) as viewer,
        viewer.announcements() as announcements,
    ):
        assert await following(announcements) == "room/.secret"


@each_version
async def test_a_view_that_does_not(version):
    """A session of another view is not told, and subscribes by name."""
    async with (
        relay(versions=VERSIONS) as found,
        found.origin.publish("room/.secret", broadcast()),
        found.connect(version) as viewer,
        viewer.announcements() as announcements,
        found.origin.publish("room/z", broadcast()),
    ):
        assert await paths(announcements, "room/z") == ["room/z"]
        assert await content(viewer, "room/.secret") == [b"x"]


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03", *ASKABLE])
async def test_a_link_of_relays(version):
    """What is published at a hidden path reaches the other relay by a link whose views show hidden paths, and a client
    of that one is not told of it."""
    async with (
        relay(hidden=True, versions=VERSIONS) as first,
        relay(versions=VERSIONS) as second,
        linked(first, second, version, hidden=True),
        first.origin.publish("room/.secret", broadcast()),
        second.connect(version) as viewer,
        viewer.announcements() as announcements,
        first.origin.publish("room/z", broadcast()),
    ):
        assert await paths(announcements, "room/z") == ["room/z"]
        assert await content(viewer, "room/.secret") == [b"x"]
