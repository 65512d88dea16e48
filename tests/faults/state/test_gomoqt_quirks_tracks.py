"""What gomoqt's develop version writes and expects of subscriptions, groups and fetches: more of its quirks."""

from __future__ import annotations

import attrs
import pytest
import trio

import moqt_trio as moqt
from moqt_trio.transport.link import LossyLink
from tests.faults.raw_peer import code_of_reset, settled
from tests.faults.state_peer import (
    VIOLATED,
    answer_subscription,
    closing,
    hostile,
    hostile_over,
    read_exactly,
    still_serves,
)
from tests.faults.state_wire import DEVELOP, numbers
from tests.transport.awaiting import accept_bidi, accept_uni

LEAST_ROUND_TRIP = 0.005
"""Seconds that this library assumes for a round trip that was not measured yet."""
INFO_BYTES = 4
"""The length of an INFO with small numbers, its own length included."""
HEAD_BYTES = 16
"""What the link counts for a message apart from its data."""


def published(*names: str) -> moqt.Broadcast:
    """A broadcast with tracks of these names."""
    broadcast = moqt.Broadcast()
    for name in names:
        broadcast.track(name)
    return broadcast


# -- groups that are refused before INFO ----------------------------------------------------------------------


@attrs.frozen
class SlowInfo:
    """A link that delays the server's INFO, which is recognized by its size, as the loss of a packet would.

    Attributes:
        delay: Seconds of the delay.
    """

    delay: float

    def backlog(self, now: float, *, from_client: bool) -> float:
        """Nothing is ever queued."""
        return 0.0

    def arrival(self, now: float, size: int, *, from_client: bool, reliable: bool) -> float:
        """Deliver everything else at once."""
        return now + self.delay if size == INFO_BYTES + HEAD_BYTES and not from_client else now


async def arrivals(peer, wire) -> tuple[float, float]:
    """Subscribe to a track that has a group; return when INFO came, and when the group did."""
    stream = await peer.open_bidi()
    stream.write(wire.subscribe(0))
    times: dict[str, float] = {}

    async def take_info() -> None:
        # Of priority 0, with 1 as the latest group, newest first.
        assert await read_exactly(stream, INFO_BYTES) == bytes.fromhex("03 00 01 02")
        times["info"] = trio.current_time()

    async def take_group() -> None:
        group = await accept_uni(peer)
        expected = wire.group(0, 1, b"x")
        assert await read_exactly(group, len(expected)) == expected
        times["group"] = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take_info)
        nursery.start_soon(take_group)
    return times["info"], times["group"]


async def test_the_first_groups_wait_until_info_was_read(autojump_clock):
    """gomoqt makes room for groups only once it has read INFO: groups that are there follow a round trip later."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with track.open_group(1) as group:
        await group.send(b"x")
    async with hostile(DEVELOP) as (peer, session, wire), session.publish("b", broadcast):
        info, first = await arrivals(peer, wire)
        assert first - info >= 2 * LEAST_ROUND_TRIP


async def test_the_first_groups_wait_for_an_info_that_is_late(autojump_clock):
    """However long INFO takes, no group overtakes it."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with track.open_group(1) as group:
        await group.send(b"x")
    async with hostile(DEVELOP, link=SlowInfo(0.5)) as (peer, session, wire), session.publish("b", broadcast):
        began = trio.current_time()
        info, first = await arrivals(peer, wire)
        assert info - began >= 0.5
        assert first > info


async def test_a_group_that_is_refused_is_not_the_end():
    """A group that its reader stops with 0, as gomoqt does, is dropped; those after it are delivered."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with hostile(DEVELOP) as (peer, session, wire), session.publish("b", broadcast):
        stream = await peer.open_bidi()
        stream.write(wire.subscribe(0))
        await track.wait_subscribed()
        for sequence in (1, 2, 3):
            async with track.open_group(sequence) as group:
                await group.send(b"x")
                incoming = await accept_uni(peer)
                expected = wire.group(0, sequence, b"x")
                assert await read_exactly(incoming, len(expected)) == expected
                if sequence == 1:
                    incoming.stop(0)
                    await settled()
        assert track.subscribers == 1
        assert session.closed is None


# -- subscriptions and fetches --------------------------------------------------------------------------------


async def test_a_publisher_that_resets_everything_with_0():
    """gomoqt answers FIN, and everything that it refuses, with 0 on both halves: that counts as a reset."""
    async with hostile(DEVELOP, peer_is_client=False) as (peer, session, wire):
        async with session.subscribe("b", "t") as subscription:
            stream = await answer_subscription(peer, wire)
            with trio.fail_after(2):
                await subscription.wait_accepted()
            stream.reset(0)
            stream.stop(0)
            with trio.fail_after(2), pytest.raises(moqt.StreamReset) as caught:
                await subscription.receive()
            assert (caught.value.code, caught.value.by_peer) == (0, True)
        await still_serves(peer, wire)
        assert session.closed is None


async def test_zeros_after_a_subscription():
    """The bytes after SUBSCRIBE and its updates may be counted short: a zero there is ignored."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with hostile(DEVELOP) as (peer, session, wire), session.publish("b", broadcast):
        stream = await peer.open_bidi()
        stream.write(wire.subscribe(0) + b"\x00" + wire.framed(numbers(5, 2, 0, 9)) + b"\x00\x00")
        await track.wait_subscribed()
        await settled()
        assert track.subscribers == 1
        stream.write(wire.framed(numbers(5, 3, 0, 9)))
        assert await closing(peer) == VIOLATED


async def test_a_fetch_that_names_nothing():
    """gomoqt's fetch is always five zeros, counted as four: no such track exists, and nothing else happens."""
    async with hostile(DEVELOP) as (peer, session, wire), session.publish("b", published("t")):
        stream = await peer.open_bidi()
        stream.write(bytes.fromhex("03 04 00 00 00 00 00"))
        assert await code_of_reset(stream) == 1
        await still_serves(peer, wire)
        assert session.closed is None


async def test_streams_that_come_in_single_bytes():
    """A stream type is read with one read of one byte, and so may everything after it arrive."""
    async with hostile(DEVELOP) as (peer, session, wire), session.subscribe("b", "t") as subscription:
        request = await accept_bidi(peer)
        # Ours is recognized by its first byte, too.
        assert await request.receive_some(1) == b"\x02"
        for byte in wire.accepted():
            request.write(bytes([byte]))
            await settled()
        await subscription.wait_accepted()
        stream = await peer.open_uni()
        for byte in wire.group(0, 1, b"hello"):
            stream.write(bytes([byte]))
            await settled()
        stream.write(b"", fin=True)
        assert await (await subscription.receive()).read_all() == [b"hello"]


@pytest.mark.parametrize("transport", ["quic", "webtransport"])
async def test_codes_travel_as_they_are_over_raw_quic(transport):
    """gomoqt's codes are unmapped over raw QUIC, and in WebTransport's form in a WebTransport session."""
    async with hostile_over(transport, DEVELOP) as (peer, session, wire), session.publish("b", published("t")):
        await still_serves(peer, wire)
        async with session.subscribe("b", "t") as subscription:
            stream = await answer_subscription(peer, wire, accept=False)
            stream.reset(3)
            stream.stop(3)
            with trio.fail_after(2), pytest.raises(moqt.NotFound):
                await subscription.receive()
        assert session.closed is None


@pytest.mark.parametrize("make", [lambda session: session.goaway(), lambda session: session.probe().__aenter__()])
async def test_what_gomoqt_lacks(make):
    """It has no GOAWAY and no probes: a request for one is refused here, and writes nothing."""
    async with hostile(DEVELOP, link=LossyLink()) as (_, session, _wire):
        with pytest.raises(moqt.LocalProtocolError, match="streams"):
            await make(session)
        assert session.closed is None
