"""The memory transport: the conformance suite, and what a link does to it."""

from __future__ import annotations

import pytest
import trio

from moqt_trio.errors import SessionClosed
from moqt_trio.limits import MIB, Limits
from moqt_trio.transport.link import LossyLink
from moqt_trio.transport.memory import open_memory_pair
from tests.transport import conformance
from tests.transport.awaiting import accept_bidi, accept_uni, send_all
from tests.transport.recorders import Acceptor, read_all


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
async def test_memory_conforms(check):
    """The memory transport keeps the rules of every transport."""
    await conformance.run_check(check, open_memory_pair)


async def send_streams(client, count, size):
    """Send streams of a size, each filled with its number."""
    for number in range(count):
        stream = await client.open_uni()
        await send_all(stream, bytes([number % 256]) * size)
        stream.finish()


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.2])
async def test_streams_are_whole_on_a_bad_link(loss, autojump_clock):
    """Through loss, jitter and reordering every stream arrives whole and in order, on a virtual clock."""
    link = LossyLink(delay=0.025, jitter=0.01, loss=loss, reorder=0.25, seed=7)
    async with open_memory_pair(link=link) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(send_streams, client, 300, 3000)
        for _ in range(300):
            stream = await accept_uni(server)
            data = await read_all(stream)
            assert data == data[:1] * 3000
    assert trio.current_time() >= 0.025


async def test_the_same_seed_gives_the_same_times(autojump_clock):
    """Two runs over equal links take exactly as long."""
    durations = []
    for _ in range(2):
        start = trio.current_time()
        link = LossyLink(delay=0.05, jitter=0.02, loss=0.1, reorder=0.1, seed=42)
        async with open_memory_pair(link=link) as (client, server), trio.open_nursery() as nursery:
            nursery.start_soon(send_streams, client, 20, 1000)
            for _ in range(20):
                await read_all(await accept_uni(server))
        durations.append(round(trio.current_time() - start, 6))
    assert durations[0] == durations[1]


async def test_a_delay_is_a_round_trip(autojump_clock):
    """An exchange over a link with a delay takes twice the delay."""
    async with open_memory_pair(link=LossyLink(delay=0.1)) as (client, server):
        stream = await client.open_bidi()
        stream.write(b"?", True)
        other = await accept_bidi(server)
        assert trio.current_time() == pytest.approx(0.1)
        other.write(b"!", True)
        assert await read_all(stream) == b"!"
        assert trio.current_time() == pytest.approx(0.2)


async def test_a_rate_takes_its_time(autojump_clock):
    """A mebibyte at a mebibyte per second takes about a second, and credit flows meanwhile."""
    async with open_memory_pair(link=LossyLink(rate=MIB)) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(send_streams, client, 1, MIB)
        assert len(await read_all(await accept_uni(server))) == MIB
        assert 1.0 <= trio.current_time() < 1.1


async def test_lost_datagrams_are_lost(autojump_clock):
    """A link that loses half loses about half of the datagrams, and never a stream's bytes."""
    async with open_memory_pair(Limits(max_datagrams=2000), LossyLink(delay=0.01, loss=0.5)) as (client, server):
        for _ in range(1000):
            client.send_datagram(b"x")
        await trio.sleep(1)
        acceptor = Acceptor()
        server.handler = acceptor
        assert 400 < len(acceptor.datagrams) < 600


async def test_losing_the_connection_ends_both_sides():
    """A connection that is lost ends both sides, and neither closed it."""
    async with open_memory_pair() as (client, server):
        client.lose()
        for side in (client, server):
            error = await side.wait_closed()
            assert isinstance(error, SessionClosed)
            assert (error.local_code, error.remote_code, error.by_peer) == (None, None, False)


async def test_an_exception_of_the_block_comes_out_bare():
    """What the block raises is not wrapped in a group, and both sides are closed."""
    with pytest.raises(KeyError):
        async with open_memory_pair() as (client, server):
            raise KeyError("mine")
    assert client.closed is not None
    assert server.closed is not None


async def test_the_pair_says_what_it_was_told():
    """Protocol and path are those given; the statistics count bytes."""
    async with open_memory_pair(protocol="moq-lite-06", path="/echo") as (client, server):
        assert (client.protocol, server.path, client.kind) == ("moq-lite-06", "/echo", "memory")
        stream = await client.open_uni()
        await send_all(stream, bytes(1000))
        await (await accept_uni(server)).receive_some()
        assert client.statistics().bytes_sent >= 1000
        assert server.statistics().bytes_received >= 1000
        assert "client" in repr(client)
