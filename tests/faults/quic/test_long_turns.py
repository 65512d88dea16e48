"""One packet that completes megabytes of small messages, which it was holding back."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.limits import Limits
from moqt_trio.session.context import MESSAGES
from moqt_trio.transport.receive_stream import ReceiveStream
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import StreamKind, Subscribe, SubscribeUpdate
from tests.faults.quic_hostile import Hostile, hostile_client, stream_frame
from tests.transport.quic_pair import serving as quic_serving
from tests.transport.recorders import eventually

if TYPE_CHECKING:
    from moqt_trio.wire.tables import TableDialect

STREAMS = 15
PIECE = 1100


class Steps(trio.abc.Instrument):
    """Counts the messages that are read in each step of a task.

    Attributes:
        read: All of them.
        most: The most in one step.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, dialect: TableDialect) -> None:
        self.read = self.most = 0
        self._before = 0
        original = type(dialect).read_untrusted

        def count(*arguments: object) -> object:
            self.read += 1
            return original(*arguments)

        monkeypatch.setattr(type(dialect), "read_untrusted", count)

    def before_task_step(self, task) -> None:
        self._before = self.read

    def after_task_step(self, task) -> None:
        self.most = max(self.most, self.read - self._before)


@asynccontextmanager
async def serving(version: str):
    """Yield a listener, whose sessions have a track that is open, and the list of its sessions."""
    broadcast = moqt.Broadcast()
    broadcast.track("t").open_group(0)
    sessions: list[moqt.Session] = []

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish("b", broadcast):
            sessions.append(session)
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0, versions=[version]))
        yield listener, sessions
        nursery.cancel_scope.cancel()


def speak(version: str, hostile: Hostile) -> None:
    """Have a client ask for a version."""
    hostile.quic._configuration.alpn_protocols = [version]


def hold_back(hostile: Hostile, version: str) -> int:
    """Send subscriptions with 256 KiB of updates each, but for their first bytes. Return the number of messages."""
    dialect = dialects.get(version)
    size = moqt.Limits().stream_window
    messages = 0
    for number in range(STREAMS):
        head = dialect.stream_type(StreamKind.SUBSCRIBE) + dialect.encode(
            Subscribe(number, "b", "t", priority=0, ordered=False, max_age_ms=0)
        )
        update = dialect.encode(SubscribeUpdate(priority=number, ordered=False, max_age_ms=0))
        count = (size - len(head)) // len(update)
        messages += 1 + count
        # The client's engine has to know the stream: it is answered.
        hostile.quic.send_stream_data(4 * number, b"")
        data = head + count * update
        for offset in range(1, len(data), PIECE):
            hostile.quic.frames.append(stream_frame(4 * number, offset, data[offset : offset + PIECE]))
    return messages


async def send_slowly(hostile: Hostile) -> None:
    """Send the frames a few at a time, so that none is lost in the socket's buffer."""
    frames, hostile.quic.frames = hostile.quic.frames, []
    for start in range(0, len(frames), 32):
        hostile.quic.frames = frames[start : start + 32]
        hostile.flush()
        await trio.sleep(0.002)


@pytest.mark.parametrize("closes", [False, True])
async def test_bytes_that_one_packet_releases(closes, monkeypatch):
    """Whatever waited for one packet is delivered in steps; all of it, also when the peer closes right after."""
    delivered: dict[int, bytes] = {}
    steps = Steps(monkeypatch, dialects.get("moq-lite-06"))
    original = ReceiveStream.deliver

    def deliver(stream: ReceiveStream, data: bytes, fin: bool) -> None:
        delivered[stream.stream_id] = delivered.get(stream.stream_id, b"") + data
        steps.read += len(data)
        original(stream, data, fin)

    monkeypatch.setattr(ReceiveStream, "deliver", deliver)
    size = Limits().stream_window
    sent = {2 + 4 * number: bytes([number]) * size for number in range(STREAMS)}
    with trio.fail_after(60):
        async with quic_serving() as listener, hostile_client(listener.port) as hostile:
            for stream_id, data in sent.items():
                for offset in range(1, size, PIECE):
                    hostile.quic.frames.append(stream_frame(stream_id, offset, data[offset : offset + PIECE]))
            await send_slowly(hostile)
            await trio.sleep(0.1)
            assert not delivered
            trio.lowlevel.add_instrument(steps)
            try:
                hostile.quic.frames = [stream_frame(stream_id, 0, data[:1]) for stream_id, data in sent.items()]
                hostile.flush()
                if closes:
                    await eventually(lambda: bool(delivered))
                    hostile.quic.close()
                    hostile.flush()
                await eventually(lambda: steps.read == sum(map(len, sent.values())))
            finally:
                trio.lowlevel.remove_instrument(steps)
            print(f"\n{steps.read} bytes, at most {steps.most} in a step")
            assert delivered == sent
            assert steps.most <= 64 * 1024
            if closes:
                await eventually(lambda: not listener.statistics().connections)


@pytest.mark.parametrize("version", ["moq-lite-04", "moq-lite-06"])
async def test_messages_that_one_packet_completes(version, monkeypatch):
    """No step of the scheduler reads more than a few messages; all are read, and a neighbour has its turns."""
    dialect = dialects.get(version)
    with trio.fail_after(120):
        async with (
            serving(version) as (listener, sessions),
            hostile_client(listener.port, partial(speak, version)) as hostile,
        ):
            if version == "moq-lite-06":
                hostile.quic.send_stream_data(2, bytes.fromhex("010100"), True)
                hostile.flush()
            await eventually(lambda: bool(sessions))
            messages = hold_back(hostile, version)
            await send_slowly(hostile)
            steps = Steps(monkeypatch, dialect)
            trio.lowlevel.add_instrument(steps)
            turns = 0
            waits: list[float] = []
            try:
                assert steps.read == 0
                hostile.quic.frames = [stream_frame(4 * number, 0, b"\x02") for number in range(STREAMS)]
                hostile.flush()
                while steps.read < messages and sessions[0].closed is None:
                    before = trio.current_time()
                    await trio.sleep(0.001)
                    waits.append(trio.current_time() - before)
                    turns += 1
            finally:
                trio.lowlevel.remove_instrument(steps)
            waits.sort()
            print(
                f"\n{version}: {messages} messages, at most {steps.most} in a step; a task that sleeps for 1 ms had "
                f"{turns} turns, p99 {waits[len(waits) * 99 // 100] * 1000:.1f} ms, most {waits[-1] * 1000:.1f} ms"
            )
            assert sessions[0].closed is None
            # One of each stream in any case, one more for each that ends before its turn, and those of the session.
            assert steps.most <= MESSAGES + 2 * STREAMS
            assert turns > messages // (100 * MESSAGES)
