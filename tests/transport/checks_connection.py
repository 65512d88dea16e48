"""A transport's connection: datagrams, waiting and cancelling, and the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import assert_checkpoints

from moqt_trio.errors import SessionClosed
from moqt_trio.limits import Limits
from tests.transport.awaiting import accept_bidi, accept_uni, receive_datagram, send_all
from tests.transport.recorders import SMALL, Acceptor, Factory, Recorder


async def cancellation(factory: Factory) -> None:
    """Each wait can be cancelled, and nothing is lost by it."""
    async with factory(SMALL) as (client, server):

        async def cancelled(wait: Callable[[], object]) -> None:
            for delay in (0, 0.01):
                with trio.move_on_after(delay) as scope:
                    await wait()  # type: ignore[misc]
                assert scope.cancelled_caught

        await cancelled(server.accept_bidi)
        await cancelled(lambda: accept_uni(server))
        await cancelled(lambda: receive_datagram(server))
        await cancelled(server.wait_closed)
        ours = await client.open_bidi()
        ours.write(b"first")
        theirs = await accept_bidi(server)
        assert await theirs.receive_some(2) == b"fi"
        with trio.CancelScope() as scope:
            scope.cancel()
            await theirs.receive_some()
        assert await theirs.receive_some() == b"rst"
        await cancelled(theirs.receive_some)
        ours.write(bytes(SMALL.stream_window + SMALL.send_high))
        assert not ours.writable
        await cancelled(ours.wait_writable)
        await cancelled(lambda: send_all(ours, b"more"))
        held = [await client.open_uni() for _ in range(SMALL.max_streams)]
        await cancelled(client.open_uni)
        held[0].write(b"alive")
        assert await (await accept_uni(server)).receive_some() == b"alive"
        # A transport may keep a stream of its own, as WebTransport does for its session.
        left = client.bidi_left
        assert left > 0
        for number in range(left):
            assert client.bidi_left == left - number
            client.open_bidi_nowait()
        assert client.bidi_left == 0
        with pytest.raises(trio.WouldBlock):
            client.open_bidi_nowait()
        await cancelled(client.open_bidi)
        client.send_datagram(b"later")
        assert await receive_datagram(server) == b"later"


async def cancelled_close(factory: Factory) -> None:
    """A cancelled aclose() still closes and informs the peer, also while a stream is clogged."""
    async with factory(SMALL) as (client, server):
        stream = await client.open_uni()
        stream.write(bytes(SMALL.stream_window + SMALL.send_high))
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.aclose(0x77)
        assert client.closed is not None
        with trio.fail_after(SMALL.close_timeout + 1):
            error = await server.wait_closed()
        assert isinstance(error, SessionClosed)
        assert error.by_peer


async def datagrams(factory: Factory) -> None:
    """Datagrams go both ways up to the size that is stated; a longer one is refused at once."""
    async with factory(Limits(max_datagrams=4)) as pair:
        for here, there in (pair, pair[::-1]):
            here.send_datagram(b"small")
            assert await receive_datagram(there) == b"small"
            largest = bytes(here.max_datagram_size)
            assert len(largest) >= 1100
            here.send_datagram(largest)
            assert await receive_datagram(there) == largest
            with pytest.raises(ValueError, match="datagram"):
                here.send_datagram(bytes(here.max_datagram_size + 1))
            here.send_datagram(b"next")
            assert await receive_datagram(there) == b"next"


async def datagram_queue(factory: Factory) -> None:
    """Of more datagrams than the queue holds the newest arrive; the rest are counted as lost."""
    async with factory(Limits(max_datagrams=4)) as (client, server):
        for number in range(50):
            client.send_datagram(b"%d" % number)
        received = []
        while b"49" not in received:
            received.append(await receive_datagram(server))
        assert received == sorted(received, key=int)
        lost = client.statistics().datagrams_lost + server.statistics().datagrams_lost
        assert lost + len(received) == 50
        assert lost >= 42


async def close_reason(factory: Factory) -> None:
    """The peer of a closed connection learns the code and the text, the closing side keeps its own."""
    async with factory(Limits()) as (client, server):
        assert server.closed is None
        server.close(0x42, "go away")
        server.close(0x43, "twice")
        error = await client.wait_closed()
        assert isinstance(error, SessionClosed)
        assert (error.remote_code, error.local_code, error.by_peer) == (0x42, None, True)
        assert error.reason == "go away"
        ours = server.closed
        assert isinstance(ours, SessionClosed)
        assert (ours.remote_code, ours.local_code, ours.by_peer) == (None, 0x42, False)
        assert client.closed is error
        with pytest.raises(SessionClosed):
            client.open_uni_nowait()
        with pytest.raises(SessionClosed):
            client.send_datagram(b"")
        await client.aclose()
        with trio.CancelScope() as scope:
            scope.cancel()
            await server.aclose()
        assert scope.cancelled_caught


async def loss_wakes_everyone(factory: Factory) -> None:
    """The end of a connection wakes every task that waits on it."""
    async with factory(SMALL) as (client, server):
        woken: list[str] = []
        reader = await client.open_bidi()
        clogged = await client.open_uni()
        clogged.write(bytes(4 * SMALL.stream_window))
        for _ in range(SMALL.max_streams - 1):
            await client.open_uni()
        recorder = Recorder()
        sunk = await client.open_bidi()
        sunk.handler = recorder

        async def expect(name: str, wait: Callable[[], object]) -> None:
            with pytest.raises(SessionClosed):
                await wait()  # type: ignore[misc]
            woken.append(name)

        async with trio.open_nursery() as nursery:
            for name, wait in {
                "receive": reader.receive_some,
                "write": clogged.wait_writable,
                "open": client.open_uni,
                "accept_bidi": client.accept_bidi,
            }.items():
                nursery.start_soon(expect, name, wait)
            await trio.testing.wait_all_tasks_blocked()
            server.close(7)
            await client.wait_closed()
        assert sorted(woken) == ["accept_bidi", "open", "receive", "write"]
        assert recorder.events == ["lost"]
        with pytest.raises(SessionClosed):
            await send_all(reader, b"x")
        late = Acceptor()
        client.handler = late
        assert late.lost is client.closed


async def checkpoints(factory: Factory) -> None:
    """Every async function is a checkpoint, even when it need not wait."""
    async with factory(Limits()) as (client, server):
        with assert_checkpoints():
            ours = await client.open_bidi()
        with assert_checkpoints():
            await client.open_uni()
        ours.write(b"abc")
        with assert_checkpoints():
            await ours.wait_writable()
        ours.finish()
        with assert_checkpoints():
            theirs = await server.accept_bidi()
        for _ in range(2):
            with assert_checkpoints():
                await theirs.receive_some()
        with assert_checkpoints():
            await client.aclose()
        with assert_checkpoints():
            await client.wait_closed()
        with assert_checkpoints():
            await client.aclose()
