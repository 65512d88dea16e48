"""Groups of unknown subscriptions, ids used twice, and data that arrives too late or never."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from tests.faults.raw_peer import code_of_reset, code_of_stop, group, raw_peer, settled, subscribe
from tests.transport.awaiting import accept_bidi, accept_uni

CANCELLED = moqt.StreamCode.CANCELLED
TIMEOUT = moqt.StreamCode.CONTROL_TIMEOUT


async def test_groups_of_unknown_subscriptions_leave_nothing():
    """A group for a subscription that never was is stopped and keeps no state; many of them end the session."""
    limits = moqt.Limits(max_unknown_groups=200, max_streams=16)
    async with raw_peer(limits=limits) as (peer, session):
        await settled()
        kept = len(session._context.connection.streams)
        for number in range(200):
            with trio.fail_after(1):
                stream = await peer.open_uni()
            stream.write(group(9, number % 60, b"x"))
            assert await code_of_stop(stream) == CANCELLED
        await settled()
        assert session.closed is None
        assert len(session._context.connection.streams) == kept
        assert session._context.core._state.issued.unknown_groups == 200
        stream = await peer.open_uni()
        stream.write(group(9, 0))
        with trio.fail_after(1):
            error = await peer.wait_closed()
    assert isinstance(error, moqt.SessionClosed)
    assert error.remote_code == moqt.SessionCode.PROTOCOL_VIOLATION


async def test_a_subscribe_id_that_is_used_twice():
    """The second use of an id is refused, while it is in use and after; the first one is served to its end."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    async with raw_peer() as (peer, session), session.publish("b", broadcast):
        first = await peer.open_bidi()
        first.write(subscribe(0))
        await track.wait_subscribed()
        again = await peer.open_bidi()
        again.write(subscribe(0))
        assert await code_of_reset(again) == moqt.StreamCode.INTERNAL_ERROR
        assert track.subscribers == 1
        await accept_uni(peer)  # its SETUP
        await track.write(b"x", timestamp=0)
        stream = await accept_uni(peer)
        received = b""
        while piece := await stream.receive_some():
            received += piece
        assert received == group(0, 0, b"x")
        first.reset(CANCELLED)
        await track.wait_unsubscribed()
        late = await peer.open_bidi()
        late.write(subscribe(0))
        assert await code_of_reset(late) == moqt.StreamCode.INTERNAL_ERROR
        other = await peer.open_bidi()
        other.write(subscribe(1))
        with trio.fail_after(1):
            await track.wait_subscribed()
        assert session.closed is None


async def answered_subscription(peer):
    """Take the requests for a track's properties and for a subscription; return the latter's stream."""
    info = await accept_bidi(peer)
    assert (await info.receive_some())[:1] == b"\x06"
    info.write(bytes.fromhex("05 7f 43e8 43e8"), fin=True)
    stream = await accept_bidi(peer)
    # From the latest group on; then what may be on its way for at most 5 s.
    assert await stream.receive_some() == subscribe(0) + bytes.fromhex("07 7f 5388 00 00 00 00")
    return stream


async def test_what_comes_after_unsubscribing():
    """More of a running group, and further groups, are stopped; they break no rule and leave no state."""
    async with raw_peer() as (peer, session):
        async with session.subscribe("b", "t") as subscription:
            await answered_subscription(peer)
            running = await peer.open_uni()
            running.write(group(0, 0, b"first"))
            reader = await subscription.receive()
            assert await reader.receive() == b"first"
        running.write(b"\x00\x01x")
        assert await code_of_stop(running) == CANCELLED
        for number in range(1, 40):
            late = await peer.open_uni()
            late.write(group(0, number, b"late"), fin=number % 2 == 0)
            if number % 2:
                assert await code_of_stop(late) == CANCELLED
        reset = await peer.open_uni()
        reset.write(group(0, 50, b"x"))
        reset.reset(7)
        await settled()
        assert session.closed is None
        assert session._context.core._state.issued.unknown_groups == 0
        assert subscription.statistics().groups_received == 1
        assert [stream for stream in session._context.connection.streams.values() if not stream.stream_id & 1] == []


async def test_a_fetch_that_is_never_answered(autojump_clock):
    """No reply within `Limits.reply_timeout` is a StreamReset with CONTROL_TIMEOUT; the stream is reset."""
    async with raw_peer() as (peer, session), session.fetch("b", "t", 0) as reader:
        stream = await accept_bidi(peer)
        began = trio.current_time()
        for _ in range(2):
            with pytest.raises(moqt.StreamReset) as caught:
                await reader.receive()
            assert (caught.value.code, caught.value.by_peer) == (TIMEOUT, False)
        assert trio.current_time() - began == pytest.approx(session.limits.reply_timeout)
        assert await code_of_reset(stream) == TIMEOUT
        assert await code_of_stop(stream) == TIMEOUT
        assert session.closed is None


async def test_a_fetch_that_is_answered_slowly(autojump_clock):
    """Once the answer has begun, the library sets no limit on the time for the rest."""
    async with raw_peer() as (peer, session), session.fetch("b", "t", 0) as reader, trio.open_nursery() as nursery:
        stream = await accept_bidi(peer)

        async def answer() -> None:
            await trio.sleep(9)
            stream.write(b"\x00\x02x")
            await trio.sleep(60)
            stream.write(b"y", fin=True)

        nursery.start_soon(answer)
        assert await reader.read_all() == [b"xy"]


async def test_properties_that_never_come(autojump_clock):
    """A track's properties are None after `Limits.reply_timeout`; the subscription itself goes on."""
    async with raw_peer() as (peer, session), session.subscribe("b", "t") as subscription:
        info = await accept_bidi(peer)
        began = trio.current_time()
        assert await subscription.track_properties() is None
        assert trio.current_time() - began == pytest.approx(session.limits.reply_timeout)
        assert await code_of_stop(info) == TIMEOUT
        stream = await peer.open_uni()
        stream.write(group(0, 0, b"x"), fin=True)
        assert await (await subscription.receive()).read_all() == [b"x"]


async def test_streams_that_never_say_what_they_are(autojump_clock):
    """A stream whose type does not arrive is refused after `Limits.setup_timeout`, and frees its slot."""
    limits = moqt.Limits(max_streams=4)
    async with raw_peer(limits=limits) as (peer, session):
        began = trio.current_time()
        for _ in range(2):
            bidi = [await peer.open_bidi() for _ in range(4)]
            uni = [await peer.open_uni() for _ in range(4)]
            for stream in (*bidi, *uni):
                stream.write(b"\x40")
            for stream in (*bidi, *uni):
                assert await code_of_stop(stream) == TIMEOUT
            for stream in bidi:
                assert await code_of_reset(stream) == TIMEOUT
        assert limits.setup_timeout * 2 <= trio.current_time() - began <= limits.setup_timeout * 4 + 1
        assert session.closed is None


async def test_streams_that_end_before_their_type():
    """A stream that is finished or reset before its type is dropped, and frees its slot at once."""
    limits = moqt.Limits(max_streams=4)
    async with raw_peer(limits=limits) as (peer, session):
        await settled()
        kept = len(session._context.connection.streams)
        for number in range(40):
            with trio.fail_after(1):
                bidi, uni = await peer.open_bidi(), await peer.open_uni()
            for stream in (bidi, uni):
                if number % 2:
                    stream.write(b"\x40", fin=True)
                else:
                    stream.write(b"\x40")
                    stream.reset(3)
            await settled()
        assert session.closed is None
        assert len(session._context.connection.streams) == kept


async def opened_soon(peer):
    """Opens a stream; returns None when the limit does not let it, however long the ones before it took."""
    with trio.move_on_after(0.3):
        return await peer.open_uni()
    return None


async def test_groups_that_are_not_received():
    """Empty groups, and groups that are reset, are bounded too while the application does not receive."""
    limits = moqt.Limits(max_streams=8, stream_window=4096, connection_window=16 * 1024)
    async with raw_peer(limits=limits) as (peer, session), session.subscribe("b", "t") as subscription:
        await answered_subscription(peer)
        for finished in (True, False):
            for payloads in ((), (b"x",)):
                first = subscription.statistics().groups_received
                streams = []
                while (stream := await opened_soon(peer)) is not None:
                    streams.append(stream)
                    stream.write(group(0, first + len(streams) - 1, *payloads), fin=finished)
                    await settled()
                    stream.reset(CANCELLED)
                    await settled()
                assert len(streams) == limits.max_streams
                assert subscription.unread_groups == limits.max_streams
                for number in range(first, first + limits.max_streams):
                    reader = await subscription.receive()
                    assert reader.sequence == number
                    for payload in payloads:
                        assert await reader.receive() == payload
                    with pytest.raises(trio.EndOfChannel if finished else moqt.StreamReset):
                        await reader.receive()
        assert session.closed is None
