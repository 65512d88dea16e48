"""Handlers that record what they are called with, and steps that many tests take on a connection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import trio

from moqt_trio.limits import KIB, Limits
from moqt_trio.transport.connection import Connection, ConnectionHandler
from moqt_trio.transport.interface import StreamHandler
from tests.transport.awaiting import accept_bidi, send_all

if TYPE_CHECKING:
    from moqt_trio.transport.receive_stream import ReceiveStream
    from moqt_trio.transport.send_stream import SendStream
    from moqt_trio.transport.stream import BidiStream

Factory = Callable[[Limits], AbstractAsyncContextManager[tuple[Connection, Connection]]]
"""Makes a connected pair, client first, with these limits."""

SMALL = Limits(stream_window=64 * KIB, connection_window=256 * KIB, send_high=32 * KIB, max_streams=8)
"""Windows that are quick to fill."""


class Recorder(StreamHandler):
    """Records what a stream's handler is called with; gives no credit."""

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
    """Wait until something holds that no event announces, because it happens beyond a socket."""
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - nothing announces what happens beyond a socket
            await trio.sleep(0.002)


async def read_all(stream: ReceiveStream) -> bytes:
    """Read until the peer has finished."""
    data = bytearray()
    while chunk := await stream.receive_some():
        data += chunk
    return bytes(data)


async def send_for_ever(stream: SendStream) -> None:
    """Send until the stream refuses."""
    while True:
        await send_all(stream, bytes(1024))


async def ping_pong(client: Connection, server: Connection, rounds: int) -> None:
    """Exchange messages on a stream of its own: to show that this works, and to let other tasks run."""
    ours = await client.open_bidi()
    await send_all(ours, b"?")
    theirs = await accept_bidi(server)
    assert await theirs.receive_some() == b"?"
    for _ in range(rounds):
        await send_all(theirs, b"ping")
        assert await ours.receive_some() == b"ping"
        await send_all(ours, b"pong")
        assert await theirs.receive_some() == b"pong"
    ours.finish()
    theirs.finish()
    assert await read_all(ours) == await read_all(theirs) == b""
