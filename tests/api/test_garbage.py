"""Ended objects are freed without the garbage collector, whose pauses delay every session of the process."""

from __future__ import annotations

import gc
from contextlib import suppress

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.session.subscriber.group_stream import GroupStream
from moqt_trio.testing import session_pair

GROUPS = 50


@pytest.mark.parametrize("scheme", ["moqt", "https"])
async def test_a_delivered_group_is_freed_at_once(scheme):
    """Groups that were written, delivered, acknowledged and read are freed as they end, on both sides."""

    async def serve_track(request):
        async with request.accept() as session:
            broadcast = moqt.Broadcast()
            track = broadcast.track("data", delivery="reliable")
            async with session.publish("live", broadcast):
                await track.wait_subscribed()
                for number in range(GROUPS):
                    await track.write(bytes([number]))
                await session.wait_closed()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            listener = await nursery.start(moqt.serve, serve_track, "127.0.0.1", 0)
            url = next(url for url in listener.urls if url.startswith(scheme))
            async with moqt.connect(url, fingerprint=listener.fingerprint) as session:
                async with session.announcements("live") as announcements:
                    await anext(announcements)
                async with session.subscribe("live", "data", max_age=60) as subscription:
                    first = await anext(subscription)
                    assert [bytes(frame) async for frame in first] == [b"\0"]
                    gc.collect()
                    gc.disable()
                    gc.set_debug(gc.DEBUG_SAVEALL)
                    try:
                        for number in range(1, GROUPS):
                            group = await anext(subscription)
                            assert [bytes(frame) async for frame in group] == [bytes([number])]
                        gc.collect()
                        found = {type(item).__name__ for item in gc.garbage}
                    finally:
                        gc.set_debug(0)
                        gc.garbage.clear()
                        gc.enable()
            await listener.aclose(grace=0)
    assert not found & {"Stream", "QuicStream", "GroupStream", "SentGroup", "GroupReader", "GroupReceiver"}


async def test_groups_that_are_closed_unread_are_forgotten():
    """A subscriber may close every group before its end: what it keeps of them does not grow with their number."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    async with (
        session_pair("moq-lite-06") as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t", max_age=60) as subscription,
    ):
        await track.wait_subscribed()
        for _ in range(500):
            group = track.open_group()
            await group.send(b"x")
            with trio.fail_after(5):
                (await subscription.receive()).close()
            group.finish()
        await trio.testing.wait_all_tasks_blocked()
        gc.collect()
        assert sum(isinstance(item, GroupStream) for item in gc.get_objects()) < 150


@pytest.mark.parametrize("end", ["left", "cancelled", "closed by the server", "refused"])
@pytest.mark.parametrize("scheme", ["moqt", "https"])
async def test_an_ended_session_is_freed_at_once(scheme, end):
    """A session that ended leaves nothing to the garbage collector, on either side, its connection included."""

    async def serve_track(request):
        if end == "refused":
            await request.reject(403)
            return
        async with request.accept() as session:
            broadcast = moqt.Broadcast()
            track = broadcast.track("data")
            async with session.publish("live", broadcast):
                await track.wait_subscribed()
                await track.write(b"x")
                if end == "closed by the server":
                    await read.wait()
                    session.close()
                await session.wait_closed()

    async def use_session() -> None:
        async with moqt.connect(url, fingerprint=listener.fingerprint) as session:
            async with session.announcements("live") as announcements:
                await anext(announcements)
            async with session.subscribe("live", "data") as subscription:
                assert [bytes(frame) async for frame in await anext(subscription)] == [b"x"]
                read.set()
                if end == "closed by the server":
                    with suppress(moqt.SessionClosed):
                        await anext(subscription)
                        raise AssertionError("there is no second group")
                elif end == "cancelled":
                    scope.cancel()
                    await trio.sleep_forever()

    async def run_one() -> None:
        nonlocal read, scope
        read = trio.Event()
        with trio.CancelScope() as scope:
            if end == "refused":
                # `pytest.raises` would keep the traceback.
                with suppress(moqt.Rejected):
                    await use_session()
                    raise AssertionError("there is no session")
            else:
                await use_session()
        while listener.statistics().connections or listener.sessions:  # noqa: ASYNC110 - there is no event for it
            await trio.sleep(0.01)
        # The listener answers late packets of a closed connection for a while.
        await trio.sleep(0.1)

    read, scope = trio.Event(), trio.CancelScope()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            listener = await nursery.start(moqt.serve, serve_track, "127.0.0.1", 0)
            url = next(url for url in listener.urls if url.startswith(scheme))
            await run_one()
            gc.collect()
            gc.disable()
            gc.set_debug(gc.DEBUG_SAVEALL)
            try:
                await run_one()
                gc.collect()
                found = [type(item) for item in gc.garbage]
            finally:
                gc.set_debug(0)
                gc.garbage.clear()
                gc.enable()
            await listener.aclose(grace=0)
    assert [each for each in found if each.__module__.partition(".")[0] in ("moqt_trio", "aioquic")] == []
