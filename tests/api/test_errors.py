"""Each failure has its own error: reset by the peer, closed here, two tasks on one object, not found, session over."""

from __future__ import annotations

import inspect
import logging
import re

import attrs
import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from tests.api.staged import subscribed

VERSIONS = pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03"])


@pytest.fixture
async def stage():
    """A published track and a subscription to it."""
    async with subscribed(delivery="reliable") as (client, server, track, subscription):
        yield client, server, track, subscription


@VERSIONS
@pytest.mark.parametrize("code", [1, 64, 1000, 2**32 - 1])
async def test_a_reset_group(version, code):
    """A group that the publisher resets is a StreamReset with its code, after the complete frames."""
    async with subscribed(version, delivery="reliable") as (_, _, track, subscription):
        async with track.open_group() as group:
            await group.send(b"whole")
            reader = await subscription.receive()
            assert await reader.receive() == b"whole"
            group.reset(code)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await reader.receive()
        error = caught.value
        assert isinstance(error, moqt.StreamReset)
        assert (error.code, error.by_peer) == (code, True)
        assert f"{code:#x}" in str(error)
        await track.write(b"next")
        assert await (await subscription.receive()).read_all() == [b"next"]


@VERSIONS
async def test_a_refused_group(version):
    """A subscriber that closes one group stops that stream only: the writer, and every other group, go on."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    async with (
        session_pair(version) as (client, server),
        server.publish("b", broadcast),
        client.subscribe("b", "t") as one,
        client.subscribe("b", "t") as two,
    ):
        with trio.fail_after(1):
            while track.subscribers < 2:
                await trio.testing.wait_all_tasks_blocked()
        async with track.open_group() as first, track.open_group() as second:
            await first.send(b"a")
            await second.send(b"b")
            readers = {reader.sequence: reader for reader in [await one.receive(), await one.receive()]}
            others = {reader.sequence: reader for reader in [await two.receive(), await two.receive()]}
            readers[0].close()
            await trio.testing.wait_all_tasks_blocked()
            await first.send(b"a")
            await second.send(b"b")
        with pytest.raises(trio.ClosedResourceError):
            await readers[0].receive()
        assert await readers[1].read_all() == [b"b", b"b"]
        assert await others[0].read_all() == [b"a", b"a"]
        assert await others[1].read_all() == [b"b", b"b"]


async def test_a_closed_group_never_looks_complete(stage):
    """Reading a group that this side closed is ClosedResourceError, even when all of it had arrived."""
    _, _, track, subscription = stage
    await track.write(b"x")
    reader = await subscription.receive()
    await trio.testing.wait_all_tasks_blocked()
    reader.close()
    reader.close()
    for _ in range(2):
        with pytest.raises(trio.ClosedResourceError):
            await reader.receive()
        with pytest.raises(trio.ClosedResourceError):
            reader.receive_nowait()


async def test_a_complete_group_outlives_its_subscription(stage):
    """A group that had arrived whole can be read after the subscription's block; its publisher is not held up."""
    client, server, track, _ = stage
    async with client.subscribe("b", "t") as subscription:
        await trio.testing.wait_all_tasks_blocked()
        await track.write(b"x")
        reader = await subscription.receive()
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().subscriptions_served == 2
    await trio.testing.wait_all_tasks_blocked()
    assert server.statistics().subscriptions_served == 1
    assert await reader.read_all() == [b"x"]


async def test_what_we_closed(stage):
    """After their blocks subscription, announcements and fetch raise ClosedResourceError, as do ended writers."""
    client, _, track, _ = stage
    group = track.open_group()
    await group.send(b"x")
    async with client.subscribe("b", "t") as subscription:
        reader = await subscription.receive()
    async with client.announcements() as announcements:
        pass
    async with client.fetch("b", "t", group.sequence) as fetched:
        pass
    await trio.testing.wait_all_tasks_blocked()
    assert await reader.receive() == b"x"
    for receive in (subscription.receive, announcements.receive, fetched.receive, reader.receive, subscription.update):
        with pytest.raises(trio.ClosedResourceError):
            await receive()
    group.finish()
    group.finish()
    with pytest.raises(trio.ClosedResourceError):
        await group.send(b"y")
    with pytest.raises(trio.ClosedResourceError):
        group.send_nowait(b"y")
    track.finish()
    with pytest.raises(trio.ClosedResourceError, match="'t'"):
        await track.write(b"z")
    with pytest.raises(trio.ClosedResourceError, match="'t'"):
        track.open_group()


async def test_two_tasks_on_one_object(stage):
    """A second task that receives from, or sends on, one object gets BusyResourceError; the first goes on."""
    client, _, track, subscription = stage
    await track.write(b"first")
    reader = await subscription.receive()
    assert await reader.read_all() == [b"first"]
    group = track.open_group()
    await group.send(b"x")
    reader = await subscription.receive()
    await reader.receive()
    async with client.announcements() as announcements:
        await announcements.receive()
        for receive in (subscription.receive, reader.receive, announcements.receive):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await receive()
                nursery.cancel_scope.cancel()
    group.finish()
    assert await reader.read_all() == []


@VERSIONS
async def test_nothing_there(version):
    """NotFound names the broadcast and the track, for a subscription and for a fetch, and the session goes on."""
    broadcast = moqt.Broadcast()
    broadcast.track("t")
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        async with client.subscribe("b", "other") as subscription:
            with pytest.raises(moqt.NotFound, match=r"'other' of 'b'.*0x33 \(NOT_FOUND\)"):
                await subscription.wait_accepted()
        for track, sequence in (("t", 3), ("other", 0)):
            async with client.fetch("b", track, sequence) as reader:
                with pytest.raises(moqt.NotFound, match=f"'{track}'"):
                    await reader.read_all()
        assert client.closed is None


async def test_a_fetched_group_that_is_reset(stage, caplog):
    """The log of the side that serves the fetch names the code, as the error of the other side does."""
    caplog.set_level(logging.DEBUG, "moqt_trio")
    client, _, track, _ = stage
    group = track.open_group()
    await group.send(b"x")
    async with client.fetch("b", "t", group.sequence) as reader:
        assert await reader.receive() == b"x"
        group.reset(moqt.StreamCode.EVICTED)
        with pytest.raises(moqt.StreamReset, match=r"code 0x35 \(EVICTED\)"):
            await reader.receive()
    assert "fetched group 0 was dropped: 0x35 (EVICTED)" in caplog.messages


@VERSIONS
async def test_a_fetched_group_whose_track_is_aborted(version):
    """The fetch is reset with the code: what was written of the group is not all of it."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with session_pair(version) as (client, server), server.publish("b", broadcast):
        group = track.open_group()
        await group.send(b"one")
        with trio.fail_after(5):
            async with client.fetch("b", "t", 0) as reader:
                assert await reader.receive() == b"one"
                track.abort(code=moqt.StreamCode.GOING_AWAY)
                with pytest.raises(moqt.StreamReset) as caught:
                    await reader.receive()
        assert caught.value.code == moqt.StreamCode.GOING_AWAY
        group.finish()


@VERSIONS
async def test_a_track_that_is_aborted(version):
    """When the publisher aborts a track its subscribers get StreamReset with that code, not a clean end."""
    async with subscribed(version) as (_, _, track, subscription):
        track.abort(code=77)
        with pytest.raises(moqt.StreamReset) as caught:
            await subscription.receive()
        assert caught.value.code == 77


async def test_the_callers_mistakes_change_nothing():
    """What a version cannot carry is LocalProtocolError: nothing was sent, no stream is open, the session goes on."""
    broadcast = moqt.Broadcast()
    broadcast.track("t")
    async with session_pair("moq-lite-03") as (client, server), server.publish("b", broadcast):
        before = client.statistics().transport.bytes_sent
        for subscription in (
            client.subscribe("b", "t", start_frame=3, start_group=0),
            client.subscribe("b", "t", start_group=5, end_group=4),
        ):
            with pytest.raises(moqt.LocalProtocolError):
                async with subscription:
                    pass
        with pytest.raises(moqt.LocalProtocolError):
            client.fetch("b", "t", 0, end_frame=1)
        with pytest.raises(moqt.LocalProtocolError):
            await client.goaway()
        await trio.testing.wait_all_tasks_blocked()
        assert client.statistics().transport.bytes_sent == before
        assert client.statistics().subscriptions == 0
        assert client._context.connection.streams == {}


async def test_after_the_end_of_a_session():
    """Everything that needs a session raises how it ended."""
    async with session_pair() as (client, server):
        server.close(99, "that was it\x1b[0m")
        error = await client.wait_closed()
        assert isinstance(error, moqt.SessionClosed)
        assert (error.remote_code, error.local_code, error.by_peer) == (99, None, True)
        assert error.reason == "that was it\\x1b[0m"
        assert "0x63" in str(error)
        for block in (
            client.subscribe("b", "t"),
            client.announcements(),
            client.fetch("b", "t", 0),
            client.publish("b", moqt.Broadcast()),
        ):
            with pytest.raises(moqt.SessionClosed) as caught:
                async with block:
                    pass
            assert caught.value.remote_code == 99
        with pytest.raises(moqt.SessionClosed):
            await client.goaway()
        assert client.closed is error


# -- what is shown ---------------------------------------------------------------------------------------------


async def test_representations(stage):
    """repr() shows each object's kind and state, and never a peer's text unescaped."""
    client, server, track, subscription = stage
    group = track.open_group()
    await group.send(b"x")
    reader = await subscription.receive()
    assert repr(client) == "<Session moq-lite-06 over memory, client, open>"
    assert repr(server) == "<Session moq-lite-06 over memory, server, open>"
    assert repr(subscription) == "<Subscription 't' of 'b' open, 1 groups received>"
    assert repr(reader) == "<GroupReader 0 open, 0 frames read, 1 waiting>"
    assert repr(group) == "<GroupWriter 't' <Group 0 open, 1 frames, 1 bytes kept>>"
    assert repr(track) == "<Track 't' open, next group 1, 1 subscribers>"
    await reader.receive()
    group.reset(70)
    await trio.testing.wait_all_tasks_blocked()
    assert repr(reader) == "<GroupReader 0 reset 0x46, 1 frames read, 0 waiting>"
    assert repr(group) == "<GroupWriter 't' <Group 0 aborted 0x46, 1 frames, 1 bytes kept>>"
    track.finish()
    await trio.testing.wait_all_tasks_blocked()
    assert "finished" in repr(track)
    assert "finished" in repr(subscription)
    assert "\x1b" not in repr(client.subscribe("b", "\x1b[2J"))
    client.close()
    assert repr(client) == "<Session moq-lite-06 over memory, client, closed>"


async def test_a_listeners_representation():
    """A listener shows where it can be reached and how many sessions it has."""
    async with trio.open_nursery() as nursery:

        async def ignore(request: moqt.SessionRequest) -> None:
            await trio.lowlevel.checkpoint()

        listener = await nursery.start(moqt.serve, ignore, "localhost", 0)
        assert repr(listener) == (
            f"<Listener https://localhost:{listener.port}/, moqt://localhost:{listener.port}/, 0 sessions>"
        )
        assert isinstance(listener.statistics(), moqt.ListenerStatistics)
        await listener.aclose()


@pytest.mark.parametrize(
    "kind",
    [moqt.ListenerStatistics, moqt.SessionStatistics, moqt.SubscriptionStatistics, moqt.TransportStatistics],
)
def test_statistics_are_frozen_and_documented(kind):
    """Each field of each statistics value is a line of its docstring, and none can be assigned to."""
    documented = re.findall(r"^    (\w+): \S.*\S", inspect.cleandoc(kind.__doc__), re.MULTILINE)
    fields = [field.name for field in attrs.fields(kind)]
    assert documented == fields
    values = dict.fromkeys(fields, 0)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        setattr(kind(**values), fields[0], 1)
