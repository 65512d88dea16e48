"""A loop that stands still for longer than a timeout, in any turn: a peer that answers does not count as silent."""

from __future__ import annotations

import socket
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.session.context import PendingStreams
from moqt_trio.testing import session_pair

PAUSE = 12.0
"""Seconds: more than each timeout of a session that begins, asks and ends; less than the idle timeout."""


class Pause(trio.abc.Instrument):
    """Moves the clock on once, in one turn of the loop, just before it looks at the sockets."""

    def __init__(self, clock, turns: int) -> None:
        self._clock = clock
        self._turns = turns

    @property
    def over(self) -> bool:
        return self._turns < 0

    def before_io_wait(self, timeout: float) -> None:
        if self._turns == 0:
            self._clock.jump(PAUSE)
        self._turns -= 1


async def publish(request: moqt.SessionRequest) -> None:
    """Publish three groups, and leave."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")
    async with request.accept() as session, session.publish("b", broadcast):
        await track.wait_subscribed()
        for number in range(3):
            await track.write(b"%d" % number)
        track.finish()


async def view(url: str, listener: moqt.Listener, version: str, limits: moqt.Limits) -> list[bytes]:
    """Connect, and return what is published."""
    received: list[bytes] = []
    async with (
        moqt.connect(url, fingerprint=listener.fingerprint, versions=[version], limits=limits) as session,
        session.subscribe("b", "t", max_age=3600) as subscription,
    ):
        await subscription.track_properties()
        # Over raw QUIC the end of the session may come before that of the subscription.
        with suppress(moqt.SessionClosed):
            async for group in subscription:
                received += [bytes(frame) for frame in await group.read_all()]
    return received


async def pause_in_each_turn(clock, scheme: str, version: str, connect_timeout: float) -> None:
    """View what is published as often as there are turns, with a pause in one of them."""
    clock.rate = 1.0
    pauses = 0
    # Up to moq-lite-04 a subscriber does not learn which group is the last, and waits for so long.
    limits = moqt.Limits(late_group_timeout=0.05, connect_timeout=connect_timeout)
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, publish, "127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{listener.port}/"
        while True:
            pause = Pause(clock, pauses)
            trio.lowlevel.add_instrument(pause)
            with trio.fail_after(60):
                received = await view(url, listener, version, limits)
            trio.lowlevel.remove_instrument(pause)
            assert received == [b"0", b"1", b"2"], f"a pause after {pauses} turns"
            if not pause.over:
                break
            pauses += 1
        nursery.cancel_scope.cancel()
    assert pauses > 10


@pytest.mark.parametrize("version", ["moq-lite-02", "moq-lite-04", "moq-lite-06"])
@pytest.mark.parametrize("scheme", ["moqt", "https"])
async def test_a_pause_in_each_turn(mock_clock, scheme, version):
    """Both sides stand still in the same turn, whichever it is: the session is opened, and its publication arrives."""
    await pause_in_each_turn(mock_clock, scheme, version, connect_timeout=5 * PAUSE)


@pytest.mark.parametrize("scheme", ["moqt", "https"])
async def test_a_pause_of_more_than_the_connect_timeout(mock_clock, scheme):
    """An attempt to connect whose time has passed in a pause is made once more, if the pause was longer than the end of
    an attempt may take (`Limits.close_timeout`)."""
    await pause_in_each_turn(mock_clock, scheme, "moq-lite-06", connect_timeout=PAUSE - 4)


@pytest.mark.parametrize("scheme", ["moqt", "https"])
async def test_a_pause_at_the_end(mock_clock, scheme):
    """A publisher that stands still while it leaves delivers what it wrote: its time to do so begins anew."""
    mock_clock.rate = 1.0
    # More than leaves at once, and less than makes the writer wait.
    frames = [bytes([number]) * 40_000 for number in range(5)]
    turns = 0

    async def publish_frames(request: moqt.SessionRequest) -> None:
        broadcast = moqt.Broadcast()
        track = broadcast.track("t", delivery="reliable")
        async with request.accept() as session, session.publish("b", broadcast):
            await track.wait_subscribed()
            for frame in frames:
                await track.write(frame)
            track.finish()
            trio.lowlevel.add_instrument(Pause(mock_clock, turns))

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, publish_frames, "127.0.0.1", 0))
        for turns in range(8):
            url = f"{scheme}://127.0.0.1:{listener.port}/"
            with trio.fail_after(60):
                received = await view(url, listener, "moq-lite-06", moqt.Limits())
            assert received == frames, f"a pause after {turns} turns"
        nursery.cancel_scope.cancel()


async def test_a_request_that_comes_after_a_pause(mock_clock):
    """The time in which requests wait for what is published later does not pass in a pause."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with session_pair("moq-lite-06") as (publisher, subscriber):
        mock_clock.jump(PAUSE)
        async with subscriber.subscribe("b", "t") as subscription:
            await trio.testing.wait_all_tasks_blocked()
            async with publisher.publish("b", broadcast):
                await track.write(b"x")
                assert await (await subscription.receive()).read_all() == [b"x"]


class Pending:
    """A stream whose type arrives on a socket."""

    def __init__(self, streams: PendingStreams, sock: socket.socket) -> None:
        self.refused = False
        self._streams = streams
        self._socket = sock

    async def read(self) -> None:
        await trio.lowlevel.wait_readable(self._socket)
        self._streams.discard(self)

    def refuse(self, code: int) -> None:
        self.refused = True


async def test_the_type_of_a_stream_that_waits_in_the_socket(mock_clock):
    """A stream whose type arrived in a pause is not refused: the socket is read before the stream is judged."""
    # The two tasks run in either order.
    for _ in range(10):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            async with trio.open_nursery() as nursery:
                streams = PendingStreams(5, nursery.start_soon)
                stream = Pending(streams, ours)
                streams.add(stream)
                nursery.start_soon(stream.read)
                await trio.testing.wait_all_tasks_blocked()
                mock_clock.jump(5)
                await trio.testing.wait_all_tasks_blocked()
                theirs.send(b"x")
                mock_clock.jump(PAUSE)
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
            assert not stream.refused
