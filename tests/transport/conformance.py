"""What every transport must do, as functions that are given a way to make a connected pair.

A test module of a transport parametrises over `CHECKS` and passes its factory: `factory(limits)` is an async context
manager that yields the client's and the server's `Connection`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints

from moqt_trio.errors import SessionClosed, StreamReset
from moqt_trio.limits import KIB, MIB, Limits
from moqt_trio.transport.connection import Connection, ConnectionHandler
from moqt_trio.transport.interface import StreamHandler

if TYPE_CHECKING:
    from moqt_trio.transport.receive_stream import ReceiveStream
    from moqt_trio.transport.send_stream import SendStream
    from moqt_trio.transport.stream import BidiStream

Factory = Callable[[Limits], AbstractAsyncContextManager[tuple[Connection, Connection]]]

SMALL = Limits(stream_window=64 * KIB, connection_window=256 * KIB, send_high=32 * KIB, max_streams=8)
"""Windows that are quick to fill."""


class Recorder(StreamHandler):
    """Keeps what a stream is told; gives no credit of its own accord."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.events: list[object] = []
        self.changed = trio.Event()

    def _note(self, event: object) -> None:
        self.events.append(event)
        self.changed.set()
        self.changed = trio.Event()

    def data_received(self, data: bytes, fin: bool) -> None:
        self.data += data
        self._note("fin" if fin else "data")

    def reset_received(self, code: int) -> None:
        self._note(("reset", code))

    def stop_received(self, code: int) -> None:
        self._note(("stop", code))

    def send_ready(self) -> None:
        self._note("ready")

    def send_finished(self) -> None:
        self._note("finished")

    def connection_lost(self, error: BaseException) -> None:
        self._note("lost")

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.changed.wait()


class Acceptor(ConnectionHandler):
    """Records the streams of a peer, and everything on them."""

    def __init__(self) -> None:
        self.streams: list[tuple[ReceiveStream, Recorder]] = []
        self.datagrams: list[bytes] = []
        self.changed = trio.Event()
        self.lost: BaseException | None = None
        self.openings = 0

    def _note(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def bidi_opened(self, stream: BidiStream) -> None:
        self.uni_opened(stream)

    def uni_opened(self, stream: ReceiveStream) -> None:
        recorder = Recorder()
        self.streams.append((stream, recorder))
        stream.handler = recorder
        self._note()

    def datagram_received(self, data: bytes) -> None:
        self.datagrams.append(data)
        self._note()

    def streams_available(self) -> None:
        self.openings += 1

    def connection_lost(self, error: BaseException) -> None:
        self.lost = error
        self._note()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self.changed.wait()


async def eventually(condition: Callable[[], object]) -> None:
    """Waits until something holds that no event announces, because it happens behind a socket."""
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - nothing announces what happens behind a socket
            await trio.sleep(0.002)


async def read_all(stream: ReceiveStream) -> bytes:
    """Reads until the peer has finished."""
    data = bytearray()
    while chunk := await stream.receive_some():
        data += chunk
    return bytes(data)


async def send_for_ever(stream: SendStream) -> None:
    """Sends until the stream refuses."""
    while True:
        await stream.send_all(bytes(1024))


async def ping_pong(client: Connection, server: Connection, rounds: int) -> None:
    """Exchanges messages on a stream of its own, to show that it can, and to let others have their turn."""
    ours = await client.open_bidi()
    await ours.send_all(b"?")
    theirs = await server.accept_bidi()
    assert await theirs.receive_some() == b"?"
    for _ in range(rounds):
        await theirs.send_all(b"ping")
        assert await ours.receive_some() == b"ping"
        await ours.send_all(b"pong")
        assert await theirs.receive_some() == b"pong"
    ours.finish()
    theirs.finish()
    assert await read_all(ours) == await read_all(theirs) == b""


async def both_directions(factory: Factory) -> None:
    """Streams of both kinds carry bytes both ways, whoever opens them."""
    async with factory(Limits()) as pair:
        for here, there in (pair, pair[::-1]):
            bidi = await here.open_bidi()
            await bidi.send_all(b"question")
            bidi.finish()
            other = await there.accept_bidi()
            assert other.stream_id == bidi.stream_id
            assert await read_all(other) == b"question"
            await other.send_all(b"answer")
            other.finish()
            assert await read_all(bidi) == b"answer"

            uni = await here.open_uni()
            await uni.send_all(b"one way")
            uni.finish()
            assert await read_all(await there.accept_uni()) == b"one way"


async def half_close(factory: Factory) -> None:
    """A half that was finished leaves the other half open, in either order, and even when nothing was sent on it."""
    async with factory(Limits()) as (client, server):
        ours = await client.open_bidi()
        ours.finish()
        assert ours.send_ended
        assert not ours.receive_ended
        theirs = await server.accept_bidi()
        assert await theirs.receive_some() == b""
        assert await theirs.receive_some() == b""
        assert theirs.receive_ended
        assert not theirs.send_ended
        for number in range(10):
            await theirs.send_all(b"%d" % number)
        theirs.finish()
        assert await read_all(ours) == b"0123456789"


async def reset_code(factory: Factory) -> None:
    """A reset reaches the reader with its code, ends that half only, and touches no other stream."""
    async with factory(Limits()) as (client, server):
        beside = await client.open_uni()
        await beside.send_all(b"be")
        quiet = await server.accept_uni()
        ours = await client.open_bidi()
        await ours.send_all(b"started")
        theirs = await server.accept_bidi()
        assert await theirs.receive_some() == b"started"
        ours.reset(0x37)
        ours.reset(0x38)
        with pytest.raises(StreamReset) as caught:
            await read_all(theirs)
        assert caught.value.code == 0x37
        assert caught.value.by_peer
        assert isinstance(caught.value, trio.BrokenResourceError)
        await theirs.send_all(b"still here")
        theirs.finish()
        assert await read_all(ours) == b"still here"
        await beside.send_all(b"side")
        beside.finish()
        assert await read_all(quiet) == b"beside"


async def stop_code(factory: Factory) -> None:
    """A reader that stops a stream has its sender told the code; what it sends itself is not touched."""
    async with factory(Limits()) as (client, server):
        ours = await client.open_bidi()
        await ours.send_all(b"x")
        theirs = await server.accept_bidi()
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
        await theirs.send_all(b"fine")
        theirs.finish()
        assert await read_all(ours) == b"fine"


async def many_streams(factory: Factory) -> None:
    """Three hundred streams go through a limit of eight, as the reader is done with earlier ones; each is whole."""
    count = 300
    async with factory(SMALL) as (client, server), trio.open_nursery() as nursery:

        async def send(number: int) -> None:
            stream = await client.open_uni()
            await stream.send_all(b"%d" % number)
            stream.finish()

        for number in range(count):
            nursery.start_soon(send, number)
        seen = [await read_all(await server.accept_uni()) for _ in range(count)]
        assert sorted(map(int, seen)) == list(range(count))


async def many_exchanges(factory: Factory) -> None:
    """A stream that both sides use returns to the limit once both halves are over."""
    async with factory(SMALL) as (client, server), trio.open_nursery() as nursery:

        async def ask(number: int) -> None:
            stream = await client.open_bidi()
            await stream.send_all(b"%d" % number)
            stream.finish()
            assert await read_all(stream) == b"%d" % number

        async def answer() -> None:
            for _ in range(100):
                stream = await server.accept_bidi()
                await stream.send_all(await read_all(stream))
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
            await stream.send_all(b"x")
            stream.finish()
        accepted = [await server.accept_uni() for _ in streams]
        await ping_pong(client, server, 20)
        with pytest.raises(trio.WouldBlock):
            client.open_uni_nowait()
        for stream in accepted:
            assert await read_all(stream) == b"x"
        (await client.open_uni()).finish()


async def clogged_stream(factory: Factory) -> None:
    """A reader that stops reading stops its sender at exactly the window; other streams run on; then all arrives."""
    payload = bytes(range(256)) * (MIB // 256)
    async with factory(SMALL) as (client, server), trio.open_nursery() as nursery:
        sending = await client.open_uni()
        sent = 0

        async def send() -> None:
            nonlocal sent
            for start in range(0, len(payload), 4096):
                await sending.send_all(payload[start : start + 4096])
                sent += 4096
            sending.finish()

        nursery.start_soon(send)
        receiving = await server.accept_uni()
        recorder = Recorder()
        receiving.handler = recorder
        await recorder.wait_for(lambda: len(recorder.data) >= SMALL.stream_window - 16)
        await ping_pong(client, server, 30)
        held = len(recorder.data)
        print(f"window {SMALL.stream_window}, arrived {held}, taken from the writer {sent}")
        # A transport may spend the first bytes of the window on what tells the stream apart.
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
    """The streams of a connection that nobody reads hold the connection's window between them, and no byte more."""
    async with factory(SMALL) as (client, server), trio.open_nursery() as nursery:

        async def send() -> None:
            stream = await client.open_uni()
            await stream.send_all(bytes(2 * SMALL.stream_window))

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
                await stream.send_all(bytes(SMALL.stream_window + SMALL.send_high))
            unread = await server.accept_uni()
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
            nursery.start_soon(whole.send_all, bytes(SMALL.connection_window))
            received = 0
            reader = await server.accept_uni()
            while received < SMALL.connection_window:
                received += len(await reader.receive_some())


async def cancellation(factory: Factory) -> None:
    """Each wait can be cancelled, and nothing is lost by it."""
    async with factory(SMALL) as (client, server):

        async def cancelled(wait: Callable[[], object]) -> None:
            for delay in (0, 0.01):
                with trio.move_on_after(delay) as scope:
                    await wait()  # type: ignore[misc]
                assert scope.cancelled_caught

        await cancelled(server.accept_bidi)
        await cancelled(server.accept_uni)
        await cancelled(server.receive_datagram)
        await cancelled(server.wait_closed)
        ours = await client.open_bidi()
        ours.write(b"first")
        theirs = await server.accept_bidi()
        assert await theirs.receive_some(2) == b"fi"
        with trio.CancelScope() as scope:
            scope.cancel()
            await theirs.receive_some()
        assert await theirs.receive_some() == b"rst"
        await cancelled(theirs.receive_some)
        ours.write(bytes(SMALL.stream_window + SMALL.send_high))
        assert not ours.writable
        await cancelled(ours.wait_writable)
        await cancelled(lambda: ours.send_all(b"more"))
        held = [await client.open_uni() for _ in range(SMALL.max_streams)]
        await cancelled(client.open_uni)
        held[0].write(b"alive")
        assert await (await server.accept_uni()).receive_some() == b"alive"
        # A transport may keep a stream of its own, as WebTransport does for its session: the limit is met, not counted.
        with contextlib.suppress(trio.WouldBlock):
            while True:
                client.open_bidi_nowait()
        await cancelled(client.open_bidi)
        client.send_datagram(b"later")
        assert await server.receive_datagram() == b"later"


async def cancelled_close(factory: Factory) -> None:
    """A cancelled aclose() still closes and tells the peer, also while a stream is clogged."""
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


async def close_while_clogged(factory: Factory) -> None:
    """Closing does not wait for a peer that does not read; who was sending learns of it."""
    async with factory(SMALL) as (client, server):
        stream = await client.open_uni()
        caught: list[SessionClosed] = []

        async def send() -> None:
            try:
                await stream.send_all(bytes(MIB))
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


async def datagrams(factory: Factory) -> None:
    """Datagrams go both ways up to the size that is stated; a longer one is refused at once."""
    async with factory(Limits(max_datagrams=4)) as pair:
        for here, there in (pair, pair[::-1]):
            here.send_datagram(b"small")
            assert await there.receive_datagram() == b"small"
            largest = bytes(here.max_datagram_size)
            assert len(largest) >= 1100
            here.send_datagram(largest)
            assert await there.receive_datagram() == largest
            with pytest.raises(ValueError, match="datagram"):
                here.send_datagram(largest + b"x")
            here.send_datagram(b"next")
            assert await there.receive_datagram() == b"next"


async def datagram_queue(factory: Factory) -> None:
    """Of more datagrams than the queue holds the newest arrive; the rest are counted as lost."""
    async with factory(Limits(max_datagrams=4)) as (client, server):
        for number in range(50):
            client.send_datagram(b"%d" % number)
        received = []
        while b"49" not in received:
            received.append(await server.receive_datagram())
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
                "accept_uni": client.accept_uni,
                "datagram": client.receive_datagram,
            }.items():
                nursery.start_soon(expect, name, wait)
            await trio.testing.wait_all_tasks_blocked()
            server.close(7)
            await client.wait_closed()
        assert sorted(woken) == ["accept_bidi", "accept_uni", "datagram", "open", "receive", "write"]
        assert recorder.events == ["lost"]
        with pytest.raises(SessionClosed):
            await reader.send_all(b"x")
        late = Acceptor()
        client.handler = late
        assert late.lost is client.closed


async def one_task_each(factory: Factory) -> None:
    """A second task that reads or sends on the same stream is refused, the first goes on."""
    async with factory(SMALL) as (client, server), trio.open_nursery() as nursery:
        ours = await client.open_bidi()
        await ours.send_all(b"x")
        theirs = await server.accept_bidi()
        assert await theirs.receive_some() == b"x"
        nursery.start_soon(theirs.receive_some)
        nursery.start_soon(ours.send_all, bytes(MIB))
        await trio.testing.wait_all_tasks_blocked()
        other = await server.open_bidi()
        await other.send_all(b"y")
        second = await client.accept_bidi()
        assert await second.receive_some() == b"y"
        nursery.start_soon(second.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await second.receive_some()
        await eventually(lambda: not ours.writable)
        with pytest.raises(trio.BusyResourceError):
            await ours.send_all(b"z")
        nursery.cancel_scope.cancel()


async def after_the_end(factory: Factory) -> None:
    """What this side has ended says so."""
    async with factory(Limits()) as (client, server):
        for end in ("finish", "reset"):
            ours = await client.open_bidi()
            await ours.send_all(b"x")
            if end == "finish":
                ours.finish()
                ours.finish()
            else:
                ours.reset(1)
            assert ours.send_ended
            with pytest.raises(trio.ClosedResourceError):
                ours.write(b"x")
            with pytest.raises(trio.ClosedResourceError):
                await ours.send_all(b"x")
            with pytest.raises(trio.ClosedResourceError):
                await ours.wait_writable()
            ours.stop(1)
            assert ours.receive_ended
            with pytest.raises(trio.ClosedResourceError):
                await ours.receive_some()
        await ping_pong_on_accepted(client, server)


async def ping_pong_on_accepted(client: Connection, server: Connection) -> None:
    """Shows that the connection is sound, whatever streams wait to be accepted."""
    uni = await client.open_uni()
    uni.write(b"sound", True)
    assert await read_all(await server.accept_uni()) == b"sound"


async def checkpoints(factory: Factory) -> None:
    """Every async function is a checkpoint, even when it need not wait."""
    async with factory(Limits()) as (client, server):
        with assert_checkpoints():
            ours = await client.open_bidi()
        with assert_checkpoints():
            await client.open_uni()
        with assert_checkpoints():
            await ours.send_all(b"abc")
        with assert_checkpoints():
            await ours.wait_writable()
        ours.finish()
        client.send_datagram(b"d")
        with assert_checkpoints():
            theirs = await server.accept_bidi()
        for _ in range(2):
            with assert_checkpoints():
                await theirs.receive_some()
        with assert_checkpoints():
            await server.receive_datagram()
        with assert_checkpoints():
            await client.aclose()
        with assert_checkpoints():
            await client.wait_closed()
        with assert_checkpoints():
            await client.aclose()


async def handlers(factory: Factory) -> None:
    """A handler is told all that arrives, in order, and what had arrived before it came."""
    async with factory(Limits()) as (client, server):
        early = await client.open_bidi()
        await early.send_all(b"early ")
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
        await early.send_all(b"late")
        early.finish()
        await late.wait_for(lambda: "fin" in late.events)
        assert bytes(late.data) == b"arly late"
        await ours.wait_for(lambda: "finished" in ours.events)
        waiting.reset(9)
        await ours.wait_for(lambda: ("reset", 9) in ours.events)
        assert acceptor.datagrams == [b"d1"]


async def handler_hears_of_room(factory: Factory) -> None:
    """A handler is told once when a full send buffer has room again."""
    async with factory(SMALL) as (client, server):
        stream = await client.open_uni()
        recorder = Recorder()
        stream.handler = recorder  # type: ignore[attr-defined]
        while stream.writable:
            stream.write(bytes(8 * KIB))
        reader = await server.accept_uni()
        received = 0
        while "ready" not in recorder.events:
            received += len(await reader.receive_some())
            await trio.lowlevel.checkpoint()
            if received == 32 * KIB:
                await recorder.wait_for(lambda: "ready" in recorder.events)
        assert stream.writable
        assert stream.buffered < SMALL.send_high


CHECKS = [
    both_directions,
    half_close,
    reset_code,
    stop_code,
    many_streams,
    many_exchanges,
    stream_limit,
    clogged_stream,
    clogged_connection,
    credit_after_reset,
    cancellation,
    close_while_clogged,
    cancelled_close,
    datagrams,
    datagram_queue,
    close_reason,
    loss_wakes_everyone,
    one_task_each,
    after_the_end,
    checkpoints,
    handlers,
    handler_hears_of_room,
]
"""Every check, in the order in which they are worth reading."""


async def run_check(check: Callable[[Factory], object], factory: Factory) -> None:
    """Runs one check, and fails rather than hangs."""
    with trio.fail_after(15):
        await check(factory)  # type: ignore[misc]
