"""Data that arrives too late: after unsubscribing, after the end of a request, after FIN and after a reset."""

from __future__ import annotations

import contextlib
import logging

import pytest
import trio

import moqt_trio as moqt
from tests.faults.raw_peer import code_of_reset, code_of_stop, settled
from tests.faults.state_peer import answer_subscription, hostile, hostile_over, still_serves
from tests.faults.state_wire import ALL, CANCELLED, IN_BAND, LITE_01, LITE_02, WITH_SETUP
from tests.transport.awaiting import accept_bidi, accept_uni

each_version = pytest.mark.parametrize("version", ALL)
each_transport = pytest.mark.parametrize("transport", ["memory", "quic", "webtransport"])


@pytest.fixture(autouse=True)
def no_complaint(caplog):
    """Late data is logged with INFO at most."""
    with caplog.at_level(logging.INFO):
        yield
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@each_transport
@each_version
async def test_groups_after_unsubscribing(transport, version):
    """More of a running group, and further groups, are stopped: whole, begun or reset, they break no rule."""
    async with hostile_over(transport, version) as (peer, session, wire):
        async with session.subscribe("b", "t") as subscription:
            await answer_subscription(peer, wire)
            running = await peer.open_uni()
            running.write(wire.group(0, 1, b"first"))
            reader = await subscription.receive()
            assert await reader.receive() == b"first"
        with contextlib.suppress(moqt.StreamReset):
            running.write(wire.group(0, 0, b"more")[len(wire.group(0, 0)) :])
        assert await code_of_stop(running) == CANCELLED
        for number in range(2, 12):
            late = await peer.open_uni()
            late.write(wire.group(0, number, b"late"), fin=number % 2 == 0)
            if number % 2:
                assert await code_of_stop(late) == CANCELLED
        reset = await peer.open_uni()
        reset.write(wire.group(0, 50, b"x"))
        reset.reset(7)
        await still_serves(peer, wire)
        assert session.closed is None
        assert session._context.core._state.issued.unknown_groups == 0
        assert subscription.statistics().groups_received == 1


@each_transport
@each_version
async def test_answers_after_unsubscribing(transport, version):
    """Data that a publisher wrote before it got the subscription's end is ignored, and its streams are stopped."""
    async with hostile_over(transport, version) as (peer, session, wire):
        async with session.subscribe("b", "t"):
            stream = await answer_subscription(peer, wire, accept=False)
        with contextlib.suppress(moqt.StreamReset):
            stream.write(wire.accepted() + wire.accepted())
        assert await code_of_stop(stream) == await code_of_reset(stream) == wire.cancelled
        async with session.announcements():
            stream = await accept_bidi(peer)
        with contextlib.suppress(moqt.StreamReset):
            stream.write(wire.first("a/t") + wire.active("a/t"))
        assert await code_of_stop(stream) == await code_of_reset(stream) == wire.cancelled
        await still_serves(peer, wire)
        assert session.closed is None


@each_transport
@pytest.mark.parametrize("version", [name for name in ALL if name not in (LITE_01, LITE_02)])
async def test_frames_after_leaving_a_fetch(transport, version):
    """The frames of a fetch that was cancelled are stopped."""
    async with hostile_over(transport, version) as (peer, session, wire):
        async with session.fetch("b", "t", 1) as reader:
            stream = await accept_bidi(peer)
            frame = wire.group(0, 0, b"one")[len(wire.group(0, 0)) :]
            stream.write(frame)
            assert await reader.receive() == b"one"
        with contextlib.suppress(moqt.StreamReset):
            stream.write(frame * 3)
        await code_of_stop(stream)
        await still_serves(peer, wire)
        assert session.closed is None


@each_transport
@each_version
async def test_a_subscriber_that_leaves_and_goes_on(transport, version):
    """After its FIN a subscriber may still reset, stop, and refuse groups: each is accepted without an error."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with hostile_over(transport, version) as (peer, session, wire), session.publish("b", broadcast):
        stream = await peer.open_bidi()
        stream.write(wire.subscribe(0))
        with trio.fail_after(5):
            await track.wait_subscribed()
            async with track.open_group(1) as group:
                await group.send(b"x", timestamp=0)
                running = await accept_uni(peer)
                assert await running.receive_some()
                stream.write(b"", fin=True)
                await track.wait_unsubscribed()
                running.stop(CANCELLED)
                stream.stop(CANCELLED)
                await group.send(b"y", timestamp=0)
        await still_serves(peer, wire)
        assert session.statistics().subscriptions_served == 0
        assert session.closed is None


@each_version
@pytest.mark.parametrize("end", ["fin", "reset", "stop"])
async def test_streams_that_say_more_after_their_end(version, end):
    """A transport that delivers more for a stream that is over raises nothing, and opens nothing again."""
    broadcast = moqt.Broadcast()
    broadcast.track("t")
    async with hostile(version) as (peer, session, wire), session.publish("b", broadcast):
        async with session.subscribe("b", "t"):
            await answer_subscription(peer, wire)
            streams = [await peer.open_uni(), await peer.open_bidi(), await peer.open_bidi(), await peer.open_bidi()]
            probe = b"" if version in IN_BAND else b"\x04"
            openings = [wire.group(0, 1, b"x"), wire.ask(), wire.subscribe(1), probe]
            before = set(session._context.connection.streams)
            for stream, opening in zip(streams, openings, strict=True):
                stream.write(opening)
            await settled()
            ours = session._context.connection.streams
            handlers = [ours[number].handler for number in ours.keys() - before]
            assert len(handlers) == (4 if version not in IN_BAND else 3)
            for stream in streams:
                if end == "stop" and stream.stream_id & 2 == 0:
                    stream.stop(CANCELLED)
                elif end == "reset":
                    stream.reset(CANCELLED)
                else:
                    stream.write(b"", fin=True)
            await settled()
        for handler in handlers:
            for _ in range(2):
                handler.data_received(b"", False)
                handler.data_received(b"\x00\x01late", False)
                handler.data_received(b"", True)
                handler.reset_received(CANCELLED)
                handler.stop_received(CANCELLED)
                handler.send_ready()
                handler.send_finished()
        await still_serves(peer, wire)
        assert session.closed is None


@pytest.mark.parametrize("version", WITH_SETUP)
async def test_datagrams_after_unsubscribing(version):
    """A datagram for a subscription that was, or never was, is dropped and counted."""
    async with hostile(version) as (peer, session, wire):
        async with session.subscribe("b", "t") as subscription:
            await answer_subscription(peer, wire)
            peer.send_datagram(bytes.fromhex("00 01 00") + b"one")
            reader = await subscription.receive()
            assert await reader.read_all() == [b"one"]
        for number in range(20):
            peer.send_datagram(bytes([number % 2, number, 0]) + b"late")
        await settled()
        assert session.statistics().datagrams_dropped == 20
        await still_serves(peer, wire)
