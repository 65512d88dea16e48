"""Streams of a transport: both directions, their ends, their limit, their handlers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from moqt_trio.errors import StreamReset
from moqt_trio.limits import Limits
from tests.transport.awaiting import accept_bidi, accept_uni, send_all
from tests.transport.recorders import SMALL, Acceptor, Factory, Recorder, ping_pong, read_all, send_for_ever

if TYPE_CHECKING:
    from moqt_trio.transport.connection import Connection


async def both_directions(factory: Factory) -> None:
    """Streams of both kinds carry bytes both ways, whichever side opens them."""
    async with factory(Limits()) as pair:
        for here, there in (pair, pair[::-1]):
            bidi = await here.open_bidi()
            await send_all(bidi, b"question")
            bidi.finish()
            other = await accept_bidi(there)
            assert other.stream_id == bidi.stream_id
            assert await read_all(other) == b"question"
            await send_all(other, b"answer")
            other.finish()
            assert await read_all(bidi) == b"answer"

            uni = await here.open_uni()
            await send_all(uni, b"one way")
            uni.finish()
            assert await read_all(await accept_uni(there)) == b"one way"


async def half_close(factory: Factory) -> None:
    """A half that was finished leaves the other half open, in either order, and even when nothing was sent on it."""
    async with factory(Limits()) as (client, server):
        ours = await client.open_bidi()
        ours.finish()
        assert ours.send_ended
        assert not ours.receive_ended
        theirs = await accept_bidi(server)
        assert await theirs.receive_some() == b""
        assert await theirs.receive_some() == b""
        assert theirs.receive_ended
        assert not theirs.send_ended
        for number in range(10):
            await send_all(theirs, b"%d" % number)
        theirs.finish()
        assert await read_all(ours) == b"0123456789"


async def reset_code(factory: Factory) -> None:
    """A reset reaches the reader with its code, ends that half only, and touches no other stream."""
    async with factory(Limits()) as (client, server):
        beside = await client.open_uni()
        await send_all(beside, b"be")
        quiet = await accept_uni(server)
        ours = await client.open_bidi()
        await send_all(ours, b"started")
        theirs = await accept_bidi(server)
        assert await theirs.receive_some() == b"started"
        ours.reset(0x37)
        ours.reset(0x38)
        with pytest.raises(StreamReset) as caught:
            await read_all(theirs)
        assert caught.value.code == 0x37
        assert caught.value.by_peer
        assert isinstance(caught.value, trio.BrokenResourceError)
        await send_all(theirs, b"still here")
        theirs.finish()
        assert await read_all(ours) == b"still here"
        await send_all(beside, b"side")
        beside.finish()
        assert await read_all(quiet) == b"beside"


async def stop_code(factory: Factory) -> None:
    """A reader that stops a stream gives its sender the code; what it sends itself is not touched."""
    async with factory(Limits()) as (client, server):
        ours = await client.open_bidi()
        await send_all(ours, b"x")
        theirs = await accept_bidi(server)
        theirs.stop(0x41)
        theirs.stop(0x42)
        with pytest.raises(trio.ClosedResourceError):
            await theirs.receive_some()
        with pytest.raises(StreamReset) as caught:
            await send_for_ever(ours)
        assert caught.value.code == 0x41
        with pytest.raises(StreamReset):
            ours.write(b"more")
        ours.finish()
        ours.reset(1)
        await send_all(theirs, b"fine")
        theirs.finish()
        assert await read_all(ours) == b"fine"


async def many_streams(factory: Factory) -> None:
    """Three hundred streams go through a limit of eight, as the reader is done with earlier ones; each is whole."""
    count = 300
    async with factory(SMALL) as (client, server), trio.open_nursery() as nursery:

        async def send(number: int) -> None:
            stream = await client.open_uni()
            await send_all(stream, b"%d" % number)
            stream.finish()

        for number in range(count):
            nursery.start_soon(send, number)
        seen = [await read_all(await accept_uni(server)) for _ in range(count)]
        assert sorted(map(int, seen)) == list(range(count))


async def many_exchanges(factory: Factory) -> None:
    """A stream that both sides use returns to the limit once both halves are over."""
    async with factory(SMALL) as (client, server), trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            stream = await client.open_bidi()
            await send_all(stream, b"%d" % number)
            stream.finish()
            assert await read_all(stream) == b"%d" % number

        async def answer() -> None:
            for _ in range(100):
                stream = await accept_bidi(server)
                await send_all(stream, await read_all(stream))
                stream.finish()

        nursery.start_soon(answer)
        for number in range(100):
            nursery.start_soon(ask, number)


async def stream_limit(factory: Factory) -> None:
    """At the peer's limit opening would block; it goes on once the peer has read a stream to its end."""
    async with factory(SMALL) as (client, server):
        streams = [await client.open_uni() for _ in range(SMALL.max_streams)]
        with pytest.raises(trio.WouldBlock):
            client.open_uni_nowait()
        for stream in streams:
            await send_all(stream, b"x")
            stream.finish()
        accepted = [await accept_uni(server) for _ in streams]
        await ping_pong(client, server, 20)
        with pytest.raises(trio.WouldBlock):
            client.open_uni_nowait()
        for stream in accepted:
            assert await read_all(stream) == b"x"
        (await client.open_uni()).finish()


async def one_task_each(factory: Factory) -> None:
    """A second task that reads from the same stream is refused, the first goes on."""
    async with factory(SMALL) as (client, server), trio.open_nursery() as nursery:
        ours = await client.open_bidi()
        await send_all(ours, b"x")
        theirs = await accept_bidi(server)
        assert await theirs.receive_some() == b"x"
        nursery.start_soon(theirs.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        other = await server.open_bidi()
        await send_all(other, b"y")
        second = await accept_bidi(client)
        assert await second.receive_some() == b"y"
        nursery.start_soon(second.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await second.receive_some()
        nursery.cancel_scope.cancel()


async def after_the_end(factory: Factory) -> None:
    """What this side has ended says so."""
    async with factory(Limits()) as (client, server):
        for end in ("finish", "reset"):
            ours = await client.open_bidi()
            await send_all(ours, b"x")
            if end == "finish":
                ours.finish()
                ours.finish()
            else:
                ours.reset(1)
            assert ours.send_ended
            with pytest.raises(trio.ClosedResourceError):
                ours.write(b"x")
            with pytest.raises(trio.ClosedResourceError):
                await send_all(ours, b"x")
            with pytest.raises(trio.ClosedResourceError):
                await ours.wait_writable()
            ours.stop(1)
            assert ours.receive_ended
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive_some()
        await ping_pong_on_accepted(client, server)


async def ping_pong_on_accepted(client: Connection, server: Connection) -> None:
    """Check that the connection works, while streams wait to be accepted."""
    uni = await client.open_uni()
    uni.write(b"sound", True)
    assert await read_all(await accept_uni(server)) == b"sound"


async def handlers(factory: Factory) -> None:
    """A handler is called with all that arrives, in order, and with what arrived before it was attached."""
    async with factory(Limits()) as (client, server):
        early = await client.open_bidi()
        await send_all(early, b"early ")
        client.send_datagram(b"d1")
        waiting = await server.accept_bidi()
        assert await waiting.receive_some(1) == b"e"
        uni = await client.open_uni()
        uni.write(b"whole", True)
        acceptor = Acceptor()
        await trio.sleep(0.01)
        server.handler = acceptor
        await acceptor.wait_for(lambda: bool(acceptor.streams and acceptor.datagrams))
        stream, recorder = acceptor.streams[0]
        assert stream.stream_id == uni.stream_id
        await recorder.wait_for(lambda: "fin" in recorder.events)
        assert bytes(recorder.data) == b"whole"
        stream.consumed(5)
        late = Recorder()
        waiting.handler = late
        ours = Recorder()
        early.handler = ours
        await send_all(early, b"late")
        early.finish()
        await late.wait_for(lambda: "fin" in late.events)
        assert bytes(late.data) == b"arly late"
        await ours.wait_for(lambda: "finished" in ours.events)
        waiting.reset(9)
        await ours.wait_for(lambda: ("reset", 9) in ours.events)
        assert acceptor.datagrams == [b"d1"]
