"""Credit of a transport: a reader that pauses stops its sender, and every byte's credit returns."""

from __future__ import annotations

import pytest
import trio

from moqt_trio.errors import SessionClosed, StreamReset
from moqt_trio.limits import KIB, MIB
from tests.transport.awaiting import accept_uni, send_all
from tests.transport.recorders import SMALL, Acceptor, Factory, Recorder, eventually, ping_pong, read_all, send_for_ever


async def clogged_stream(factory: Factory) -> None:
    """A reader that stops reading stops its sender at exactly the window; other streams run on; then all arrives."""
    payload = bytes(range(256)) * (MIB // 256)
    async with factory(SMALL) as (client, server), trio.open_nursery() as nursery:
        sending = await client.open_uni()
        sent = 0

        async def send() -> None:
            nonlocal sent
            for start in range(0, len(payload), 4096):
                await send_all(sending, payload[start : start + 4096])
                sent += 4096
            sending.finish()

        nursery.start_soon(send)
        receiving = await accept_uni(server)
        recorder = Recorder()
        receiving.handler = recorder
        await recorder.wait_for(lambda: len(recorder.data) >= SMALL.stream_window - 16)
        await ping_pong(client, server, 30)
        held = len(recorder.data)
        print(f"window {SMALL.stream_window}, arrived {held}, taken from the writer {sent}")
        # A transport may use the first bytes of the window for the prefix of the stream.
        assert SMALL.stream_window - 16 <= held <= SMALL.stream_window
        assert sent <= held + SMALL.send_high + 4096
        assert not sending.writable
        released = 0
        while recorder.events[-1] != "fin":
            if released == len(recorder.data):
                await recorder.changed.wait()
            receiving.consumed(len(recorder.data) - released)
            released = len(recorder.data)
        assert bytes(recorder.data) == payload


async def clogged_connection(factory: Factory) -> None:
    """The unread streams of a connection hold the connection's window between them, and no byte more."""
    async with factory(SMALL) as (client, server), trio.open_nursery() as nursery:

        async def send() -> None:
            stream = await client.open_uni()
            await send_all(stream, bytes(2 * SMALL.stream_window))

        acceptor = Acceptor()
        server.handler = acceptor
        for _ in range(SMALL.max_streams):
            nursery.start_soon(send)

        def held() -> int:
            return sum(len(recorder.data) for _, recorder in acceptor.streams)

        await eventually(lambda: held() >= SMALL.connection_window - 16 * SMALL.max_streams)
        await trio.sleep(0.05)
        print(f"window {SMALL.connection_window}, arrived {held()} on {len(acceptor.streams)} streams")
        assert held() <= SMALL.connection_window
        nursery.cancel_scope.cancel()


async def credit_after_reset(factory: Factory) -> None:
    """Bytes of streams that were reset or stopped unread give their credit back to the connection."""
    async with factory(SMALL) as (client, server):
        for number in range(12):
            stream = await client.open_uni()
            with trio.move_on_after(0.02):
                await send_all(stream, bytes(SMALL.stream_window + SMALL.send_high))
            unread = await accept_uni(server)
            if number % 2:
                unread.stop(1)
                with pytest.raises(StreamReset):
                    await send_for_ever(stream)
            else:
                stream.reset(1)
                with pytest.raises(StreamReset):
                    await read_all(unread)
        whole = await client.open_uni()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_all, whole, bytes(SMALL.connection_window))
            received = 0
            reader = await accept_uni(server)
            while received < SMALL.connection_window:
                received += len(await reader.receive_some())


async def close_while_clogged(factory: Factory) -> None:
    """Closing does not wait for a peer that does not read; who was sending learns of it."""
    async with factory(SMALL) as (client, server):
        stream = await client.open_uni()
        caught: list[SessionClosed] = []

        async def send() -> None:
            try:
                await send_all(stream, bytes(MIB))
            except SessionClosed as error:
                caught.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await eventually(lambda: not stream.writable)
            with trio.fail_after(SMALL.close_timeout):
                await client.aclose(0x99, "enough")
        assert [error.local_code for error in caught] == [0x99]
        error = await server.wait_closed()
        assert isinstance(error, SessionClosed)
        assert error.remote_code == 0x99


async def handler_hears_of_room(factory: Factory) -> None:
    """A handler is called once when a full send buffer has room again."""
    async with factory(SMALL) as (client, server):
        stream = await client.open_uni()
        recorder = Recorder()
        stream.handler = recorder  # type: ignore[attr-defined]
        while stream.writable:
            stream.write(bytes(8 * KIB))
        reader = await accept_uni(server)
        received = 0
        while "ready" not in recorder.events:
            received += len(await reader.receive_some())
            await trio.lowlevel.checkpoint()
            if received == 32 * KIB:
                await recorder.wait_for(lambda: "ready" in recorder.events)
        assert stream.writable
        assert stream.buffered < SMALL.send_high
