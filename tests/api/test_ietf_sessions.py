"""Sessions of the IETF drafts from 17 on: what they carry of the public names, and what they say they lack."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.testing import LossyLink, session_pair

DRAFTS = ["moqt-14", "moqt-15", "moqt-16", "moqt-17", "moqt-18", "moqt-19", "moqt-20", "moqt-21", "moqt-22"]
EACH_DRAFT = pytest.mark.parametrize("version", DRAFTS)
EACH_SCHEME = pytest.mark.parametrize("scheme", ["https", "moqt"])


@asynccontextmanager
async def published(version: str, **options):
    """Yields both sessions, a track that the server publishes, and the client's subscription to it."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    with trio.fail_after(20):
        async with (
            session_pair(version, **options) as (client, server),
            server.publish("a/b", broadcast),
            client.subscribe("a/b", "t") as subscription,
        ):
            await track.wait_subscribed()
            yield client, server, track, subscription


@EACH_DRAFT
async def test_announcements(version):
    """What is published is announced, and unannounced when it ends."""
    async with session_pair(version) as (client, server), client.announcements("a") as announcements:
        async with server.publish("a/b", moqt.Broadcast()), server.publish("c", moqt.Broadcast()):
            announced = await anext(announcements)
            assert (announced.path, announced.active) == ("a/b", True)
            await announcements.wait_initial()
        assert (await anext(announcements)) == moqt.Announcement(announced.path, False)


@EACH_DRAFT
async def test_groups_and_the_end_of_a_track(version):
    """Groups of one frame and of many arrive whole, and the track ends after the last one."""
    async with published(version) as (_, _, track, subscription):
        sent = []
        for number in range(20):
            frames = [b"%d.%d" % (number, index) for index in range(number % 4)]
            async with track.open_group() as group:
                for frame in frames:
                    await group.send(frame)
            sent.append(frames)
        track.finish()
        received = [await group.read_all() async for group in subscription]
        # A group without frames says nothing that a subscriber waits for; it arrives all the same.
        assert received == sent


@EACH_DRAFT
async def test_a_late_subscriber(version):
    """It begins with the newest group as a whole, part of which comes on a stream of its own."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        await track.write(b"old")
        async with track.open_group() as group:
            await group.send(b"0")
            await group.send(b"1")
            async with client.subscribe("b", "t") as subscription:
                await track.wait_subscribed()
                await group.send(b"2")
                await group.send(b"3")
                group.finish()
                reader = await anext(subscription)
                assert (reader.sequence, reader.start_frame) == (1, 0)
                assert await reader.read_all() == [b"0", b"1", b"2", b"3"]


@EACH_DRAFT
async def test_an_old_group_by_its_number(version):
    """A subscription that starts at a group gets what is kept from there on."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=60)
    for number in range(4):
        await track.write(b"%d" % number)
    async with (
        session_pair(version) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t", start_group=2, max_age=60) as subscription,
    ):
        groups = [await anext(subscription) for _ in range(2)]
        assert sorted([(group.sequence, await group.read_all()) for group in groups]) == [(2, [b"2"]), (3, [b"3"])]


@EACH_DRAFT
async def test_an_old_group_that_was_trimmed(version):
    """It begins with the first frame that is kept."""
    broadcast = moqt.Broadcast(limits=moqt.Limits(cache_bytes=2000))
    track = broadcast.track("t", max_age=60)
    async with session_pair(version) as (client, server), server.publish("b", broadcast), track.open_group() as group:
        for index in range(40):
            await group.send(b"%03d" % index + bytes(97))
        async with client.subscribe("b", "t", start_group=0) as subscription:
            with trio.fail_after(10):
                reader = await anext(subscription)
                numbers = [int((await reader.receive())[:3])]
                while numbers[-1] < 39:
                    numbers.append(int((await reader.receive())[:3]))
            assert 0 < numbers[0] == reader.start_frame
            assert numbers == list(range(numbers[0], 40))


@EACH_DRAFT
async def test_refusals(version):
    """What is not there is NotFound at once, by REQUEST_ERROR; the session goes on."""
    async with published(version) as (client, _, track, subscription):
        with pytest.raises(moqt.NotFound):
            async with client.subscribe("a/b", "none") as other:
                await anext(other)
        await track.write(b"x")
        assert await (await anext(subscription)).read_all() == [b"x"]


@EACH_DRAFT
async def test_leaving_a_subscription(version):
    """The publisher learns of it, and a group on its way harms nothing."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        async with client.subscribe("b", "t") as subscription:
            await track.wait_subscribed()
            await track.write(b"x")
            await anext(subscription)
            await track.write(b"y")
        with trio.fail_after(5):
            await track.wait_unsubscribed()
        async with client.subscribe("b", "t") as subscription:
            await track.wait_subscribed()
            await track.write(b"z")
            received = [await (await anext(subscription)).read_all() for _ in range(2)]
            assert sorted(received) == [[b"y"], [b"z"]]


@EACH_DRAFT
async def test_updates(version):
    """A changed priority reaches the publisher, which answers."""
    async with published(version) as (_, server, track, subscription):
        await subscription.update(priority=3)
        await trio.testing.wait_all_tasks_blocked()
        [served] = server._publisher.subscriptions
        assert served.send_priority[0] == 3
        await track.write(b"x")
        assert await (await anext(subscription)).read_all() == [b"x"]


@EACH_DRAFT
async def test_going_away(version):
    """A server's GOAWAY names a URL; a client's names none. The session goes on until it is closed."""
    async with published(version) as (client, server, track, subscription):
        await server.goaway("moqt://elsewhere/")
        assert await client.wait_goaway() == "moqt://elsewhere/"
        await client.goaway()
        assert await server.wait_goaway() == ""
        with pytest.raises(moqt.GoingAway):
            await client.announcements().__aenter__()
        await track.write(b"x")
        assert await (await anext(subscription)).read_all() == [b"x"]


@pytest.mark.parametrize("version", [*DRAFTS, "moq-lite-06"])
async def test_a_peer_that_does_not_go(version, autojump_clock):
    """Its session is closed with GOAWAY_TIMEOUT at the time that GOAWAY named; one that goes in time sees no code."""
    for goes in (False, True):
        async with session_pair(version) as (client, server):
            start = trio.current_time()
            await server.goaway("moqt://elsewhere/", timeout=3.0)
            await client.wait_goaway()
            if goes:
                await trio.sleep(1)
                client.close()
            error = await server.wait_closed()
            assert isinstance(error, moqt.SessionClosed)
            assert error.local_code == (None if goes else moqt.SessionCode.GOAWAY_TIMEOUT)
            assert trio.current_time() - start == pytest.approx(1 if goes else 3, abs=0.2)


async def test_a_time_to_go_on_the_wire():
    """Draft 18 has it in milliseconds, before the request id."""
    async with session_pair("moqt-18") as (_, server):
        machine = server._context.core.goaway("", 500)
        assert machine.opening.hex() == "100004" + "00" + "81f4" + "00"
        with pytest.raises(ValueError, match="timeout"):
            await server.goaway(timeout=0)


@EACH_DRAFT
async def test_a_path_that_reorders(version, autojump_clock):
    """Groups that come before SUBSCRIBE_OK wait for it: nothing is lost, whatever overtakes what."""
    link = LossyLink(delay=0.05, jitter=0.04, reorder=0.3, seed=7)
    async with published(version, link=link) as (_, _, track, subscription):
        for number in range(30):
            await track.write(b"%d" % number)
        track.finish()
        received = sorted([(group.sequence, *await group.read_all()) async for group in subscription])
        assert received == [(number, b"%d" % number) for number in range(30)]


async def test_a_parked_group_that_is_reset_or_waits_for_ever():
    """It returns its credit, when it is reset, and when nothing names its alias in time."""
    limits = moqt.Limits(setup_timeout=0.5)
    with trio.fail_after(10):
        async with session_pair("moqt-18", limits=limits) as (client, server):
            connection = server._context.connection
            header = bytes.fromhex("5863008000") + bytes((100,)) + bytes(100)
            streams = [await connection.open_uni() for _ in range(3)]
            streams[0].write(header)
            # The header alone, and the rest later.
            streams[1].write(header[:5])
            await trio.testing.wait_all_tasks_blocked()
            streams[1].write(header[5:])
            streams[2].write(header)
            await trio.testing.wait_all_tasks_blocked()
            assert len(client._context.parked) == 3
            streams[0].reset(7)
            await trio.testing.wait_all_tasks_blocked()
            assert len(client._context.parked) == 2
            await trio.sleep(1.2)
            assert not client._context.parked
            assert client._context.core._state.aliases.parked == {}
            for stream in streams[1:]:
                with pytest.raises(moqt.StreamReset):
                    stream.write(b"x")
            # Its window is free again: more than it holds goes through.
            broadcast = moqt.Broadcast()
            track = broadcast.track("t", delivery="reliable")
            async with server.publish("b", broadcast), client.subscribe("b", "t") as subscription:
                await track.wait_subscribed()
                await track.write(b"after")
                assert await (await anext(subscription)).read_all() == [b"after"]


async def test_a_control_stream_that_is_reset():
    """It ends the session."""
    async with session_pair("moqt-18") as (client, server):
        stream = server._context.control_stream
        assert stream is not None
        stream.reset(0)
        with trio.fail_after(5):
            error = await client.wait_closed()
        assert "control stream" in str(error)


async def test_a_control_stream_that_is_reset_as_the_session_ends():
    """It is the end of the session, and no mistake: a WebTransport session that closes takes its streams with it."""
    async with session_pair("moqt-18") as (client, server):
        stream = server._context.control_stream
        assert stream is not None
        stream.reset(0)
        await trio.testing.wait_all_tasks_blocked()
        server.close(0, "done")
        with trio.fail_after(5):
            error = await client.wait_closed()
        assert isinstance(error, moqt.SessionClosed)
        assert (error.by_peer, error.remote_code, error.reason) == (True, 0, "done")


async def test_goaway_to_a_peer_that_stopped_the_control_stream():
    """It goes nowhere, and fails nothing."""
    async with session_pair("moqt-18") as (client, server):
        stream = server._context.control_stream
        assert stream is not None
        client._context.connection.stream(stream.stream_id).stop(0)
        await trio.testing.wait_all_tasks_blocked()
        await server.goaway("moqt://elsewhere/")
        assert server.closed is None


@EACH_DRAFT
async def test_what_is_lacking(version):
    """It is said at once, with the version's name."""
    async with published(version) as (client, _, _, _):
        with pytest.raises(moqt.LocalProtocolError, match=f"{version} has no probes"):
            async with client.probe():
                pass


@EACH_SCHEME
@EACH_DRAFT
async def test_on_a_network(scheme, version):
    """Over both transports, with the path of the URL, a group each way, and a code of the application."""
    paths = []

    async def handler(request: moqt.SessionRequest) -> None:
        paths.append(request.path)
        async with request.accept() as session:
            broadcast = moqt.Broadcast()
            track = broadcast.track("t", delivery="reliable")
            async with session.publish("back", broadcast), session.subscribe("out", "t") as subscription:
                await track.wait_subscribed()
                async for group in subscription:
                    async with track.open_group() as copy:
                        async for frame in group:
                            await copy.send(frame)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            router = moqt.Router({"/echo": handler})
            listener = await nursery.start(partial(moqt.serve, router, "127.0.0.1", 0, versions=[version]))
            url = f"{scheme}://127.0.0.1:{listener.port}/echo"
            async with moqt.connect(url, fingerprint=listener.fingerprint, versions=[version]) as session:
                assert session.version == version
                broadcast = moqt.Broadcast()
                track = broadcast.track("t", delivery="reliable")
                async with session.publish("out", broadcast), session.subscribe("back", "t") as subscription:
                    await track.wait_subscribed()
                    for number in range(10):
                        async with track.open_group() as group:
                            for index in range(3):
                                await group.send(b"%d %d" % (number, index))
                        echoed = await anext(subscription)
                        assert await echoed.read_all() == [b"%d %d" % (number, index) for index in range(3)]
            nursery.cancel_scope.cancel()
    assert paths == ["/echo"]


@EACH_DRAFT
async def test_a_group_that_is_reset(version):
    """Its reader gets the code, and the next group arrives."""
    async with published(version) as (_, _, track, subscription):
        group = track.open_group()
        async with group:
            await group.send(b"x")
            reader = await anext(subscription)
            assert await reader.receive() == b"x"
            group.reset(StreamCode.DELIVERY_TIMEOUT)
            with pytest.raises(moqt.StreamReset) as caught:
                await reader.receive()
        assert caught.value.code == StreamCode.DELIVERY_TIMEOUT
        await track.write(b"y")
        assert await (await anext(subscription)).read_all() == [b"y"]
