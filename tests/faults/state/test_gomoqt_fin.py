"""gomoqt's develop version ends a group's stream only when the FIN comes with the frame: it reads one frame, and then
nothing more. The stream of a FIN that comes alone stays open, until all of its streams are used and nothing comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.transport.interface import StreamHandler
from tests.faults.state_peer import hostile, hostile_over
from tests.faults.state_wire import DEVELOP
from tests.transport.awaiting import accept_uni

if TYPE_CHECKING:
    from moqt_trio.transport.receive_stream import ReceiveStream

GROUPS = 250
FIN_WAIT = 0.002
"""Seconds within which the source has to end a group."""


class OneRead(StreamHandler):
    """Reads a group's stream as gomoqt does.

    Attributes:
        arrived: When the frame came.
        ended: When the FIN came.
        over: Set then.
        completed: Whether it came along with the frame.
    """

    def __init__(self, stream: ReceiveStream) -> None:
        self.arrived = self.ended = -1.0
        self.completed = False
        self.over = trio.Event()
        self._stream = stream
        stream.handler = self

    def data_received(self, data: bytes, fin: bool) -> None:
        if data:
            self.arrived = trio.current_time()
            self.completed = fin
        if fin:
            self.ended = trio.current_time()
            self.over.set()
        self._stream.consumed(len(data))


async def read_groups(peer, wire, count: int) -> list[OneRead]:
    """Subscribe, and read so many groups."""
    stream = await peer.open_bidi()
    stream.write(wire.subscribe(0))
    read = []
    with trio.fail_after(30):
        for _ in range(count):
            read.append(OneRead(await accept_uni(peer)))
        for group in read:
            await group.over.wait()
    return read


@pytest.mark.parametrize("transport", ["memory", "quic", "webtransport"])
async def test_groups_that_end_with_their_frame(transport):
    """Of 250 groups whose block ends with the only frame, every stream is completed by its first read."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")

    async def write() -> None:
        await track.wait_subscribed()
        for sequence in range(1, GROUPS + 1):
            async with track.open_group(sequence) as group:
                await group.send(b"frame")

    async with (
        hostile_over(transport, DEVELOP) as (peer, session, wire),
        session.publish("b", broadcast),
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(write)
        read = await read_groups(peer, wire, GROUPS)
    assert sum(group.completed for group in read) == GROUPS


async def write_and_wait(track: moqt.Track, seconds: float) -> None:
    """Write a group of one frame that ends so much later."""
    await track.wait_subscribed()
    # Its first groups wait for a round trip, until the subscriber has read the answer.
    await trio.sleep(1)
    async with track.open_group(1) as group:
        await group.send(b"frame")
        await trio.sleep(seconds)


@pytest.mark.parametrize("seconds", [0.0, FIN_WAIT / 2])
async def test_source_that_ends_a_little_later(autojump_clock, seconds):
    """A frame whose group ends within two milliseconds leaves with the FIN, and not later than that."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with hostile(DEVELOP) as (peer, session, wire), session.publish("b", broadcast):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_and_wait, track, seconds)
            (group,) = await read_groups(peer, wire, 1)
        assert group.completed


async def test_source_that_stays_open(autojump_clock):
    """A frame whose group stays open waits for no more than two milliseconds; those after it, too."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    sent: list[float] = []
    arrived: list[float] = []
    async with hostile(DEVELOP) as (peer, session, wire), session.publish("b", broadcast):
        stream = await peer.open_bidi()
        stream.write(wire.subscribe(0))
        await track.wait_subscribed()
        await trio.sleep(1)
        async with track.open_group(1) as writer:
            incoming = None
            for _ in range(3):
                sent.append(trio.current_time())
                await writer.send(b"frame")
                if incoming is None:
                    incoming = await accept_uni(peer)
                assert await incoming.receive_some()
                arrived.append(trio.current_time())
                await trio.sleep(0.1)
    waited = [later - before for before, later in zip(sent, arrived, strict=True)]
    assert all(FIN_WAIT / 2 < seconds < 2 * FIN_WAIT for seconds in waited), waited


async def test_other_versions_do_not_wait(autojump_clock):
    """In every other version a frame leaves at once."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with hostile("moq-transfork-03") as (peer, session, wire), session.publish("b", broadcast):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write_and_wait, track, 0.1)
            (group,) = await read_groups(peer, wire, 1)
        assert not group.completed
        assert group.ended - group.arrived >= 0.1
