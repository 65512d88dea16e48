"""The versions that negotiate in band: moq-lite-01 and -02, moq-transfork-03 and develop, over both transports."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt

OLDER = ["moq-lite-02", "moq-lite-01", "moq-transfork-03", "gomoqt-develop"]
SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])
EACH = pytest.mark.parametrize("version", OLDER)


async def publish_one_group(request: moqt.SessionRequest) -> None:
    """Offer `room/alice` with a track `text` that has one group of two frames."""
    async with request.accept() as session:
        broadcast = moqt.Broadcast()
        track = broadcast.track("text")
        async with session.publish("room/alice", broadcast):
            await track.wait_subscribed()
            async with track.open_group(1) as group:
                await group.send(b"one")
                await group.send(b"two")
            await session.wait_closed()


@SCHEMES
@EACH
async def test_a_track_is_announced_and_read(scheme, version):
    """A broadcast below a prefix is announced by its path, and a group of its track arrives whole."""
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt.serve, moqt.Router({"/a": publish_one_group}), "localhost", 0)
        url = f"{scheme}://localhost:{listener.port}/a"
        with trio.fail_after(10):
            async with (
                moqt.connect(url, versions=[version], fingerprint=listener.fingerprint) as session,
                session.announcements("room") as announcements,
            ):
                assert session.version == version
                announcement = await announcements.receive()
                assert (str(announcement.path), announcement.active) == ("room/alice", True)
                async with session.subscribe(announcement.path, "text") as subscription:
                    group = await subscription.receive()
                    assert (group.sequence, await group.read_all()) == (1, [b"one", b"two"])
        nursery.cancel_scope.cancel()


@EACH
async def test_the_path_travels_in_the_handshake(version):
    """Over raw QUIC the handshake of these versions carries the request path: another one is refused with 404."""
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt.serve, moqt.Router({"/a": publish_one_group}), "localhost", 0)
        url = f"moqt://localhost:{listener.port}/elsewhere"
        connecting = moqt.connect(url, versions=[version], fingerprint=listener.fingerprint)
        with trio.fail_after(10), pytest.raises(moqt.Rejected) as caught:
            await connecting.__aenter__()
        assert caught.value.status == 404
        nursery.cancel_scope.cancel()


@SCHEMES
async def test_no_shared_version_names_both_lists(scheme):
    """A client and a server without a version in common both say which ones they speak."""
    async with trio.open_nursery() as nursery:

        async def listen(*, task_status: trio.TaskStatus[moqt.Listener]) -> None:
            router = moqt.Router({"/a": publish_one_group})
            await moqt.serve(router, "localhost", 0, versions=["moq-lite-02"], task_status=task_status)

        listener = await nursery.start(listen)
        url = f"{scheme}://localhost:{listener.port}/a"
        with trio.fail_after(10), pytest.raises(moqt.VersionUnsupported) as caught:
            async with moqt.connect(url, versions=["moq-lite-01"], fingerprint=listener.fingerprint):
                pass
        assert "moq-lite-01" in str(caught.value)
        assert caught.value.offered == ("moq-lite-01",)
        nursery.cancel_scope.cancel()


@EACH
async def test_a_refused_track_is_not_found(version):
    """Subscribing to what is not there raises NotFound, in whatever number the version spells it."""
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt.serve, moqt.Router({"/a": publish_one_group}), "localhost", 0)
        url = f"moqt://localhost:{listener.port}/a"
        with trio.fail_after(10):
            async with (
                moqt.connect(url, versions=[version], fingerprint=listener.fingerprint) as session,
                session.subscribe("room/alice", "nothing") as subscription,
            ):
                with pytest.raises(moqt.NotFound):
                    await subscription.receive()
        nursery.cancel_scope.cancel()
