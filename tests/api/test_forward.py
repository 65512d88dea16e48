"""`forward`: groups, codes, timestamps and ends pass from a subscription to a track."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import session_pair
from moqt_trio.wire import dialect as dialects

ALL = moqt.version_names(opt_in=True)
ENDED_BY_STATUS = ("moqt-16", "moqt-15", "moqt-14")
"""The versions in which the end of a subscription that was accepted has no code of a stream."""
VERSIONS = pytest.mark.parametrize("version", ALL)
WITH_TIMESTAMPS = tuple(name for name in ALL if dialects.get(name).features.track_info)
"""The versions in which a publisher says its timescale."""
CODE = 77
"""An application's code, which every version carries as it is."""


class Relay:
    """A publisher, a relay and a subscriber, with a session from each to the next."""

    def __init__(self, source, copy, subscription):
        self.source = source
        self.copy = copy
        self.subscription = subscription
        self.ended = trio.Event()
        self.error: Exception | None = None
        self.scope = trio.CancelScope()


@asynccontextmanager
async def relayed(version, *, delivery="reliable", timescale=1000, copy_timescale=1000, limits=None):
    source_of, copy_of = moqt.Broadcast(), moqt.Broadcast(limits=limits)
    source = source_of.track("t", delivery=delivery, timescale=timescale)
    copy = copy_of.track("t", delivery=delivery, timescale=copy_timescale)
    async with (
        session_pair(version) as (upstream, publisher),
        session_pair(version) as (subscriber, downstream),
        publisher.publish("b", source_of),
        downstream.publish("b", copy_of),
        subscriber.subscribe("b", "t", ordered=True) as received,
        trio.open_nursery() as nursery,
    ):
        await copy.wait_subscribed()
        relay = Relay(source, copy, received)
        relay.upstream, relay.publisher = upstream, publisher

        async def run():
            with relay.scope:
                try:
                    async with upstream.subscribe("b", "t", ordered=True) as subscription:
                        await moqt.forward(subscription, copy)
                except moqt.MoqtError as error:
                    relay.error = error
            relay.ended.set()

        nursery.start_soon(run)
        await source.wait_subscribed()
        with trio.fail_after(60):
            yield relay
        nursery.cancel_scope.cancel()


@VERSIONS
async def test_groups_and_the_end(version, autojump_clock):
    """Every group arrives under its sequence with all its frames, and the copy is finished as its source is."""
    async with relayed(version) as relay:
        for number in range(3):
            async with relay.source.open_group(2 * number + 5) as group:
                for frame in range(3):
                    await group.send(b"%d-%d" % (number, frame))
        relay.source.finish()
        found = {}
        async for group in relay.subscription:
            found[group.sequence] = [bytes(frame) for frame in await group.read_all()]
        await relay.ended.wait()
        assert relay.copy.ended
    assert found == {2 * number + 5: [b"%d-%d" % (number, frame) for frame in range(3)] for number in range(3)}
    assert relay.error is None


@VERSIONS
async def test_frames_as_they_come(version, autojump_clock):
    """A group that stays open is copied frame by frame, and delays no later one."""
    async with relayed(version) as relay, relay.source.open_group() as slow:
        await slow.send(b"1")
        first = await relay.subscription.receive()
        assert await first.receive() == b"1"
        await relay.source.write(b"2")
        assert await (await relay.subscription.receive()).read_all() == [b"2"]
        await slow.send(b"3")
        assert await first.receive() == b"3"


@VERSIONS
async def test_a_reset_group(version, autojump_clock):
    """A group that its publisher resets is reset with the same code; the next one is whole."""
    async with relayed(version) as relay:
        group = relay.source.open_group()
        await group.send(b"1")
        copied = await relay.subscription.receive()
        assert await copied.receive() == b"1"
        group.reset(CODE)
        with pytest.raises(moqt.StreamReset) as reset:
            await copied.receive()
        assert reset.value.code == CODE
        await relay.source.write(b"2")
        assert await (await relay.subscription.receive()).read_all() == [b"2"]
        assert not relay.ended.is_set()


@VERSIONS
async def test_an_aborted_track(version, autojump_clock):
    """A track that its publisher aborts is aborted with the same code, and `forward` raises it.

    Up to draft 16 a subscription ends with a status, of which there are few.
    """
    code = moqt.StreamCode.INTERNAL_ERROR if version in ENDED_BY_STATUS else CODE
    async with relayed(version) as relay:
        await relay.source.write(b"1")
        assert await (await relay.subscription.receive()).read_all() == [b"1"]
        relay.source.abort(code=CODE)
        with pytest.raises(moqt.StreamReset) as reset:
            await relay.subscription.receive()
        await relay.ended.wait()
        assert isinstance(relay.error, moqt.StreamReset)
        assert relay.error.code == reset.value.code == code
        assert relay.copy.ended


@VERSIONS
async def test_no_such_track(version, autojump_clock):
    """A track that is not published: NotFound, for the subscriber of the copy too, where the end can say so."""
    # No draft has a number for it, once a subscription was accepted.
    ended = moqt.StreamReset if version.startswith("moqt-") else moqt.NotFound
    copy_of = moqt.Broadcast()
    copy = copy_of.track("t")
    async with (
        session_pair(version) as (upstream, _),
        session_pair(version) as (subscriber, downstream),
        downstream.publish("b", copy_of),
        subscriber.subscribe("b", "t") as received,
    ):
        await copy.wait_subscribed()
        async with upstream.subscribe("b", "t") as subscription:
            with pytest.raises(moqt.NotFound):
                await moqt.forward(subscription, copy)
        with pytest.raises(ended):
            await received.receive()


@pytest.mark.parametrize("version", WITH_TIMESTAMPS)
@pytest.mark.parametrize(
    ("timescale", "copy_timescale", "sent", "received"),
    [
        (1000, 1000, [0, 5, 2_000], [0, 5, 2_000]),
        (90_000, 1000, [0, 90, 180_000], [0, 1, 2_000]),
        (1000, 48_000, [0, 5, 2_000], [0, 240, 96_000]),
    ],
)
async def test_timestamps(version, autojump_clock, timescale, copy_timescale, sent, received):
    """Timestamps are converted to the units of the track."""
    async with relayed(version, timescale=timescale, copy_timescale=copy_timescale) as relay:
        async with relay.source.open_group() as group:
            for timestamp in sent:
                await group.send(b"x", timestamp)
        found = await (await relay.subscription.receive()).read_all()
    assert [frame.timestamp for frame in found] == received


@VERSIONS
async def test_a_lost_session(version, autojump_clock):
    """When the session ends, open groups are reset and the track stays open, for another subscription to continue."""
    async with relayed(version) as relay:
        await relay.source.write(b"1")
        assert await (await relay.subscription.receive()).read_all() == [b"1"]
        group = relay.source.open_group()
        await group.send(b"2")
        copied = await relay.subscription.receive()
        assert await copied.receive() == b"2"
        relay.publisher.close(CODE)
        await relay.ended.wait()
        assert isinstance(relay.error, moqt.SessionClosed)
        assert not relay.copy.ended
        with pytest.raises(moqt.StreamReset):
            await copied.receive()
        again = moqt.Broadcast()
        source = again.track("t", delivery="reliable")
        async with (
            session_pair(version) as (upstream, publisher),
            publisher.publish("b", again),
            upstream.subscribe("b", "t") as subscription,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(moqt.forward, subscription, relay.copy)
            await source.wait_subscribed()
            async with source.open_group(1) as writer:
                await writer.send(b"written before")
            async with source.open_group(2) as writer:
                await writer.send(b"3")
            assert await (await relay.subscription.receive()).read_all() == [b"3"]
            nursery.cancel_scope.cancel()


async def test_cancelled(autojump_clock):
    """A cancellation resets the groups that are open, and leaves the track."""
    async with relayed("moq-lite-06") as relay, relay.source.open_group() as group:
        await group.send(b"1")
        copied = await relay.subscription.receive()
        assert await copied.receive() == b"1"
        relay.scope.cancel()
        with pytest.raises(moqt.StreamReset):
            await copied.receive()
        assert not relay.copy.ended


async def test_a_frame_that_the_track_does_not_take(autojump_clock):
    """A frame longer than the track's limit resets its group; the next one is whole."""
    async with relayed("moq-lite-06", limits=moqt.Limits(max_frame=3)) as relay:
        async with relay.source.open_group() as group:
            await group.send(b"12")
            copied = await relay.subscription.receive()
            assert await copied.receive() == b"12"
            await group.send(b"1234")
            with pytest.raises(moqt.StreamReset) as reset:
                await copied.receive()
        assert reset.value.code == moqt.StreamCode.FRAME_TOO_LARGE
        await relay.source.write(b"123")
        assert await (await relay.subscription.receive()).read_all() == [b"123"]


async def test_a_reliable_track_without_a_subscriber(autojump_clock):
    """Nothing is written on a reliable track before it has a subscriber, so nothing is lost; a live one is written."""
    for delivery, written in (("reliable", None), ("live", 0)):
        source_of, copy_of = moqt.Broadcast(), moqt.Broadcast()
        source = source_of.track("t", delivery=delivery)
        copy = copy_of.track("t", delivery=delivery)
        async with (
            session_pair() as (upstream, publisher),
            publisher.publish("b", source_of),
            upstream.subscribe("b", "t") as subscription,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(moqt.forward, subscription, copy)
            await source.wait_subscribed()
            await source.write(b"1")
            await trio.sleep(1)
            assert copy.latest == written
            nursery.cancel_scope.cancel()


async def test_wrong_arguments():
    """What is no subscription and no track is a TypeError; a block that was not entered is a LocalProtocolError."""
    track = moqt.Broadcast().track("t")
    async with session_pair() as (client, _):
        subscription = client.subscribe("b", "t")
        with pytest.raises(TypeError, match="a subscription and a track"):
            await moqt.forward(track, subscription)
        with pytest.raises(moqt.LocalProtocolError):
            await moqt.forward(subscription, track)
