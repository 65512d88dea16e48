"""`Broadcast.requests`: tracks that take time to make, once they are asked for."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair

EACH = pytest.mark.parametrize("version", moqt.version_names(opt_in=True))
SOME = pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-04", "moq-transfork-03", "moqt-16", "moqt-20"])


@asynccontextmanager
async def publishing(version, **limits):
    """Yield a broadcast `live` that is announced by one side, and the session of the other."""
    broadcast = moqt.Broadcast(limits=moqt.Limits(**limits))
    async with (
        session_pair(version, limits=moqt.Limits(**limits), client_limits=moqt.Limits()) as (client, server),
        server.publish("live", broadcast),
        client.announcements("live"),
    ):
        await trio.testing.wait_all_tasks_blocked()
        yield broadcast, client


async def taken(requests):
    """Take the next request, once all has arrived: in moq-lite-06 a subscription is two requests, for one track."""
    await trio.testing.wait_all_tasks_blocked()
    return await requests.receive()


async def first_frame(session, path, track):
    async with session.subscribe(path, track) as subscription:
        return bytes(await (await subscription.receive()).receive())


@EACH
async def test_a_track_that_takes_time(version):
    """Two subscribers wait for one answer, and read the same track; the next one finds it."""
    found = []

    async def read(session):
        found.append(await first_frame(session, "live", "t"))

    with trio.fail_after(20):
        async with publishing(version) as (broadcast, session), broadcast.requests() as requests:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, session)
                if version not in ("moqt-19", "moqt-20", "moqt-21", "moqt-22"):
                    # From draft 19 on the two are one for the publisher.
                    nursery.start_soon(read, session)
                request = await taken(requests)
                assert (request.track, str(request.path), request.wanted) == ("t", "", True)
                await trio.testing.wait_all_tasks_blocked()
                track = broadcast.track("t")
                request.accept(track)
                assert not request.wanted
                await track.wait_subscribed()
                await track.write(b"made")
            assert found == [b"made"] * len(found)
            assert len(found) == (1 if version in ("moqt-19", "moqt-20", "moqt-21", "moqt-22") else 2)
            with trio.move_on_after(0.05):
                raise AssertionError(f"asked again: {await requests.receive()}")


@SOME
async def test_a_path_below(version):
    """A request below the broadcast's path comes with the rest of it, and each path is asked for apart."""
    async with publishing(version) as (broadcast, session), broadcast.requests() as requests, trio.open_nursery() as n:
        for path in ("live/a", "live/b"):
            n.start_soon(refused, session, path, "t")
        asked = [await taken(requests), await taken(requests)]
        assert sorted((str(request.path), request.track) for request in asked) == [("a", "t"), ("b", "t")]
        for request in asked:
            request.refuse()


async def refused(session, path, track):
    with pytest.raises(moqt.NotFound):
        await first_frame(session, path, track)


@EACH
async def test_a_refusal(version):
    """All who wait are refused as for a track that is not there, and who asks later is another request."""
    asked = []

    async def refuse_each(requests):
        # In moq-lite-06 a subscription is two requests, and the second may arrive after the answer to the first.
        async for request in requests:
            asked.append(request.track)
            request.refuse()

    async with (
        publishing(version) as (broadcast, session),
        broadcast.requests() as requests,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(refuse_each, requests)
        for number in range(2):
            await refused(session, "live", f"t{number}")
            await refused(session, "live", f"t{number}")
        nursery.cancel_scope.cancel()
    assert all(asked.count(name) >= 2 for name in ("t0", "t1"))


@SOME
async def test_the_end_of_the_block(version):
    """What was not answered is refused at its end, and what is asked for afterwards at once; it may begin anew."""
    async with publishing(version) as (broadcast, session):
        async with trio.open_nursery() as nursery:
            async with broadcast.requests() as requests:
                nursery.start_soon(refused, session, "live", "t")
                nursery.start_soon(refused, session, "live", "u")
                request = await taken(requests)
                await trio.testing.wait_all_tasks_blocked()
            assert not request.wanted
            # Too late, and no mistake.
            request.accept(broadcast.track("t"))
            broadcast.remove("t")
        with trio.fail_after(5):
            await refused(session, "live", "t")
        with pytest.raises(trio.ClosedResourceError):
            await requests.receive()
        async with broadcast.requests() as requests, trio.open_nursery() as nursery:
            nursery.start_soon(refused, session, "live", "t")
            (await taken(requests)).refuse()


@SOME
async def test_all_who_asked_have_left(version):
    """The request is over: one that was not taken is not seen, and an answer to one that was has no effect."""
    async with publishing(version) as (broadcast, session), broadcast.requests() as requests:
        for taken in (True, False):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first_frame, session, "live", "t")
                await trio.testing.wait_all_tasks_blocked()
                request = await requests.receive() if taken else None
                nursery.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            if request is not None:
                assert not request.wanted
                request.refuse()
            assert (requests._open, requests._unread) == ({}, {})


@SOME
async def test_an_application_that_does_not_answer(version):
    """The subscriber is refused after `Limits.reply_timeout`, and the request is over."""
    async with (
        publishing(version, reply_timeout=0.2) as (broadcast, session),
        broadcast.requests() as requests,
    ):
        with trio.fail_after(5), pytest.raises(moqt.StreamReset):
            await first_frame(session, "live", "t")
        assert (requests._open, requests._unread) == ({}, {})


async def test_more_requests_than_are_kept():
    """The surplus is refused, and the others wait."""
    async with (
        publishing("moq-lite-06", max_track_requests=2) as (broadcast, session),
        broadcast.requests() as requests,
        trio.open_nursery() as nursery,
    ):
        for name in "ab":
            nursery.start_soon(first_frame, session, "live", name)
        await trio.testing.wait_all_tasks_blocked()
        await refused(session, "live", "c")
        assert {request.track for request in requests._open.values()} == {"a", "b"}
        nursery.cancel_scope.cancel()


async def test_on_request_goes_first():
    """What `on_request` makes at once is not asked for; what it lacks is."""
    broadcast = moqt.Broadcast(on_request=lambda path, name: broadcast.track(name) if name == "quick" else None)
    async with (
        session_pair() as (client, server),
        server.publish("live", broadcast),
        broadcast.requests() as requests,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(first_frame, client, "live", "quick")
        nursery.start_soon(refused, client, "live", "slow")
        request = await taken(requests)
        assert request.track == "slow"
        await broadcast.tracks["quick"].write(b"now")
        request.refuse()


async def test_a_request_that_came_before_the_block():
    """In a session's first seconds it waits for the broadcast, and is asked for once the block begins."""
    broadcast = moqt.Broadcast()
    async with session_pair() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(refused, client, "live", "t")
        await trio.testing.wait_all_tasks_blocked()
        async with broadcast.requests() as requests, server.publish("live", broadcast):
            (await taken(requests)).refuse()


@SOME
async def test_a_fetch_waits_too(version):
    """A group of a track that is not there is asked for in the same way, where the version has a fetch."""
    async with (
        publishing(version) as (broadcast, session),
        broadcast.requests() as requests,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(fetch, session, [b"old"])
        request = await taken(requests)
        track = broadcast.track("t")
        await track.write(b"old")
        request.accept(track)


async def fetch(session, expected):
    async with session.fetch("live", "t", 0) as group:
        assert [bytes(frame) async for frame in group] == expected


async def test_misuse():
    """Each mistake has its exception, and leaves everything as it was."""
    broadcast = moqt.Broadcast()
    requests = broadcast.requests()
    with pytest.raises(moqt.LocalProtocolError, match="enter the block first"):
        await requests.receive()
    async with requests:
        with pytest.raises(trio.BusyResourceError, match="received already"):
            async with broadcast.requests():
                pass
        with pytest.raises(moqt.LocalProtocolError, match="entered before"):
            async with requests:
                pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(requests.receive)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await requests.receive()
            nursery.cancel_scope.cancel()
        async with session_pair() as (client, server), server.publish("live", broadcast):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(refused, client, "live", "t")
                request = await taken(requests)
                with pytest.raises(TypeError, match="accepted with a Track"):
                    request.accept("t")
                request.refuse()
            with pytest.raises(moqt.LocalProtocolError, match="was answered before"):
                request.accept(broadcast.track("t"))
    assert repr(request) == "<TrackRequest for t below '', over>"


async def test_a_cancelled_receive_loses_nothing():
    """A request that arrives as its reader is cancelled is there for the next one."""
    broadcast = moqt.Broadcast()
    async with (
        session_pair() as (client, server),
        server.publish("live", broadcast),
        broadcast.requests() as requests,
        trio.open_nursery() as nursery,
    ):
        with trio.CancelScope() as scope:
            nursery.start_soon(refused, client, "live", "t")
            while not requests._unread:
                await trio.lowlevel.checkpoint()
            scope.cancel()
            await requests.receive()
        assert scope.cancelled_caught
        (await taken(requests)).refuse()


def test_a_block_that_is_dropped():
    with pytest.warns(ResourceWarning, match="async with broadcast.requests"):
        moqt.Broadcast().requests()
