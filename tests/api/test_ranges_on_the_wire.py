"""Subscriptions to a range of groups, from a publisher whose groups and answers come in an order of their own."""

from __future__ import annotations

import trio

from tests.faults.raw_peer import group, raw_peer, settled
from tests.transport.awaiting import accept_bidi

ACCEPTED_FROM_4 = bytes.fromhex("000104")
"""SUBSCRIBE_OK of moq-lite-06: the first group is 4."""


async def answering(peer):
    """Take the requests of a subscription; return its stream."""
    await accept_bidi(peer)  # for the track's properties
    stream = await accept_bidi(peer)
    assert (await stream.receive_some())[:1] == b"\x02"
    return stream


async def send_group(peer, sequence):
    """Send one group of the first subscription, and let it arrive."""
    stream = await peer.open_uni()
    stream.write(group(0, sequence, b"x"), True)
    await settled()


async def test_a_last_group_that_overtakes_the_acceptance(autojump_clock):
    """Without a start group the beginning of the range is unknown before the acceptance, and the reader waits."""
    async with raw_peer() as (peer, session), session.subscribe("b", "t", end_group=6) as subscription:
        stream = await answering(peer)
        await send_group(peer, 6)
        assert (await subscription.receive()).sequence == 6
        with trio.move_on_after(0.1) as waiting:
            await subscription.receive()
        assert waiting.cancelled_caught
        stream.write(ACCEPTED_FROM_4)
        for sequence in (5, 4):
            await send_group(peer, sequence)
        with trio.fail_after(1):
            assert [group.sequence async for group in subscription] == [5, 4]


async def test_an_acceptance_after_every_group():
    """A reader that has every group ends when the acceptance names the first of them as the start."""
    received = []

    async def read():
        received.extend([group.sequence async for group in subscription])

    async with raw_peer() as (peer, session), session.subscribe("b", "t", start_group=2, end_group=4) as subscription:
        stream = await answering(peer)
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await send_group(peer, 4)
                assert subscription.unread_groups == 0
                stream.write(ACCEPTED_FROM_4)
    assert received == [4]
