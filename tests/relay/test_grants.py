"""What a grant keeps from the peer of a relay's session: names that it may not see do not exist for it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import product

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import MemoryServer, serve_in_memory
from tests.relay.relays import SCHEMES, VERSIONS
from tests.transport.recorders import eventually

GRANTS = {
    "/publisher": moqt.Grant(root="", publish=["live/**"]),
    "/viewer": moqt.Grant(root="", subscribe=["live/cam"]),
    "/both": moqt.Grant(root="", publish=["**"], subscribe=["**"]),
    "/room": moqt.Grant(root="", subscribe=["room"]),
    "/publisher-of-room": moqt.Grant(root="", publish=["room"]),
    "/alias": moqt.Grant(root="live", subscribe=["cam"]),
}
"""What the clients of a path may do; all of them see the paths of the origin from its root."""

AT_ONCE = moqt.Limits(track_wait_timeout=0.01)
"""A server that refuses a request of what is not there soon."""

WITHOUT_PATH = {("moq-lite-03", "moqt"), ("moq-lite-04", "moqt")}
"""Versions that tell a server no path over raw QUIC."""

TRACKS_ANNOUNCED = ("moq-transfork-03", "gomoqt-develop")
"""Versions in which tracks are announced: those that someone has asked for."""


@asynccontextmanager
async def guarded(
    origin: moqt.Origin, grants: dict[str, moqt.Grant] = GRANTS, *, within: float = 20
) -> AsyncIterator[MemoryServer]:
    """Run a relay whose clients have the grant of their path, for no longer than so many seconds."""

    async def handle(request: moqt.SessionRequest) -> None:
        view = origin.view(request.path, grant=grants[request.path])
        async with request.accept(view=view) as session:
            await session.wait_closed()

    with trio.fail_after(within):
        async with serve_in_memory(moqt.Router(fallback=handle), hop_id=origin.hop_id, limits=AT_ONCE) as server:
            yield server


@pytest.mark.parametrize(
    ("version", "scheme"), [pair for pair in product(VERSIONS, SCHEMES) if pair not in WITHOUT_PATH]
)
async def test_every_version(version, scheme):
    """An announcement outside of `publish` is no route. What is outside of `subscribe` is neither announced nor served:
    the answer is that of a broadcast that is not there."""
    origin = moqt.Origin()
    broadcast = moqt.Broadcast()
    track = broadcast.track("video")
    track.write_nowait(b"one")
    url = SCHEMES[scheme]
    async with guarded(origin) as server, AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(server.connect(url + "publisher", versions=[version]))
        for path in ("elsewhere/cam", "live/other", "live/cam"):
            await stack.enter_async_context(publisher.publish(path, broadcast))
        await eventually(lambda: len(origin._sharing.routes) == 2)
        assert sorted(map(str, origin._sharing.routes)) == ["live/cam", "live/other"]
        # It is there for those who may see it.
        await stack.enter_async_context(origin.publish("elsewhere/cam", broadcast))
        viewer = await stack.enter_async_context(server.connect(url + "viewer", versions=[version]))
        async with viewer.subscribe("live/cam", "video") as subscription:
            assert await (await subscription.receive()).read_all() == [b"one"]
        async with viewer.announcements() as announcements:
            if version not in TRACKS_ANNOUNCED:
                assert (await announcements.receive()).path == "live/cam"
            # Not every version says when it has told of all.
            await trio.testing.wait_all_tasks_blocked()
            assert {str(item.path) for item in announcements.active} <= {"live/cam"}
        answers = []
        for path in ("live/other", "elsewhere/cam", "nowhere"):
            with pytest.raises((moqt.NotFound, moqt.StreamReset)) as caught:
                async with viewer.subscribe(path, "video") as subscription:
                    await subscription.receive()
            answers.append(str(caught.value).replace(path, "?"))
        assert len(set(answers)) == 1


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-04", "moqt-18"])
async def test_fetch(version):
    """A fetch of what it may not see is answered as one of what is not there."""
    origin = moqt.Origin()
    broadcast = moqt.Broadcast()
    broadcast.track("video").write_nowait(b"one")
    async with (
        guarded(origin) as server,
        origin.publish("live/other", broadcast),
        origin.publish("live/cam", broadcast),
        server.connect("/viewer", versions=[version]) as viewer,
    ):
        async with viewer.fetch("live/cam", "video", 0) as group:
            assert await group.read_all() == [b"one"]
        for path in ("live/other", "nowhere"):
            with pytest.raises((moqt.NotFound, moqt.StreamReset)):
                async with viewer.fetch(path, "video", 0) as group:
                    await group.read_all()


async def test_tracks_below_a_broadcast():
    """A broadcast that makes tracks below its path is asked only for those that the grant allows."""
    asked = []

    def make(below: moqt.BroadcastPath, name: str) -> moqt.Track | None:
        asked.append((str(below), name))
        return None

    origin = moqt.Origin()
    async with (
        guarded(origin) as server,
        origin.publish("room", moqt.Broadcast(on_request=make)),
        server.connect("/room") as guest,
        server.connect("/both") as host,
    ):
        for session, allowed in ((guest, {("", "video")}), (host, {("", "video"), ("alice", "video")})):
            asked.clear()
            for path in ("room", "room/alice"):
                with pytest.raises(moqt.NotFound):
                    async with session.subscribe(path, "video") as subscription:
                        await subscription.receive()
            assert set(asked) == allowed


async def test_tracks_below_an_announced_path():
    """In moq-transport tracks may be asked for below what is announced: not of a peer that may not publish there."""
    asked = []

    def make(below: moqt.BroadcastPath, name: str) -> moqt.Track | None:
        asked.append((str(below), name))
        return None

    origin = moqt.Origin()
    async with (
        guarded(origin) as server,
        server.connect("/publisher-of-room", versions=["moqt-18"]) as publisher,
        publisher.publish("room", moqt.Broadcast(on_request=make)),
        server.connect("/both", versions=["moqt-18"]) as viewer,
    ):
        await viewer.wait_announced("room")
        for path in ("room", "room/alice"):
            with pytest.raises((moqt.NotFound, moqt.StreamReset)):
                async with viewer.subscribe(path, "video") as subscription:
                    await subscription.receive()
    assert set(asked) == {("", "video")}


@pytest.mark.parametrize("allowed", [True, False])
async def test_tracks_that_a_peer_offers(allowed):
    """A track that is offered without an announcement makes a route only where the peer may publish."""
    origin = moqt.Origin()
    broadcast = moqt.Broadcast()
    broadcast.track("video").write_nowait(b"one")
    async with (
        guarded(origin) as server,
        server.connect("/publisher", versions=["moqt-18"]) as publisher,
        publisher.publish("live/cam" if allowed else "elsewhere/cam", broadcast, offer_tracks=True),
    ):
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert list(map(str, origin._sharing.routes)) == (["live/cam"] if allowed else [])


async def test_another_root():
    """The grant's root takes the place of the path that was dialled."""
    origin = moqt.Origin()
    async with (
        guarded(origin) as server,
        origin.publish("live/cam", moqt.Broadcast()),
        origin.publish("alias/cam", moqt.Broadcast()),
        server.connect("/alias") as viewer,
        viewer.announcements() as announcements,
    ):
        await announcements.wait_initial()
        assert [str(item.path) for item in announcements.active] == ["cam"]
    assert str(origin.view("dialled", grant=GRANTS["/alias"]).root) == "live"
    assert str(origin.view("dialled", grant=moqt.Grant(subscribe=["**"])).root) == "dialled"


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_a_role_for_which_nothing_is_granted(scheme):
    """Over WebTransport the role comes after `accept`: the session ends with UNAUTHORIZED."""
    async with guarded(moqt.Origin()) as server:
        url = SCHEMES[scheme]
        async with server.connect(url + "viewer", role="publisher") as session:
            closed = await session.wait_closed()
            assert closed.remote_code == moqt.SessionCode.UNAUTHORIZED
        async with server.connect(url + "viewer", role="subscriber") as session, session.announcements() as found:
            await found.wait_initial()
            assert session.closed is None


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_the_end_of_a_grant(scheme, autojump_clock):
    """A session that has a view of an origin closes with UNAUTHORIZED when its grant expires, and not before."""
    grants = {"/": moqt.Grant(subscribe=["**"], expires=time.time() + 3600)}
    origin = moqt.Origin()
    async with guarded(origin, grants, within=4000) as server, server.connect(SCHEMES[scheme]) as session:
        began = trio.current_time()
        closed = await session.wait_closed()
        assert 3590 < trio.current_time() - began < 3602
        assert (closed.remote_code, closed.reason) == (moqt.SessionCode.UNAUTHORIZED, "the grant has expired")


async def test_a_lease_without_an_origin(autojump_clock):
    """A server without an origin leases the grant to the session itself."""
    grants = [moqt.Grant(publish=["**"], expires=expires) for expires in (time.time() + 60, 1)]
    left = trio.Event()

    async def handle(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, grants.pop(0).lease(session):
            await session.wait_closed()
        left.set()

    with trio.fail_after(100):
        async with serve_in_memory(handle) as server, server.connect() as session:
            began = trio.current_time()
            assert (await session.wait_closed()).remote_code == moqt.SessionCode.UNAUTHORIZED
            assert 50 < trio.current_time() - began < 62
            await left.wait()
            # One that has expired before it begins closes at once.
            began = trio.current_time()
            async with server.connect() as other:
                await other.wait_closed()
            assert trio.current_time() - began < 2


async def test_what_is_logged(caplog):
    """An announcement that is not taken is a line at DEBUG, without the query of the session's URL."""
    origin = moqt.Origin()
    caplog.set_level(logging.DEBUG)
    async with (
        guarded(origin) as server,
        server.connect("moqt://localhost/publisher?jwt=secret") as publisher,
        publisher.publish("elsewhere/cam", moqt.Broadcast()),
    ):
        await eventually(lambda: "may not announce elsewhere/cam" in caplog.text)
        [record] = [record for record in caplog.records if "may not announce" in record.getMessage()]
        assert record.levelno == logging.DEBUG
    assert "secret" not in caplog.text
