"""A slow link on loopback: a UDP proxy with a rate, a delay and a bounded queue that drops what does not fit.

One client and one server. The time is trio's.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

# Bytes that IPv4 and UDP add to a payload; the link carries them, too.
HEADER_BYTES = 28

_MAX_PAYLOAD = 65535
_SOCKET_BUFFER_BYTES = 1024 * 1024


@attrs.define(eq=False)
class Pipe:
    """One direction of a link.

    Attributes:
        rate: Bytes per second.
        delay: Seconds from one end to the other, once a datagram has left the queue.
        queue_bytes: Bytes that may wait; a datagram for which there is no room is dropped.
        carried: Bytes that went through, headers included.
        dropped: Datagrams for which there was no room.
    """

    rate: float
    delay: float
    queue_bytes: int
    carried: int = 0
    dropped: int = 0
    _free_at: float = 0.0

    def arrival(self, now: float, size: int) -> float | None:
        """Take a datagram of so many bytes; return when it arrives, or None when it was dropped."""
        size += HEADER_BYTES
        begins = max(now, self._free_at)
        if (begins - now) * self.rate + size > self.queue_bytes:
            self.dropped += 1
            return None
        self._free_at = begins + size / self.rate
        self.carried += size
        return self._free_at + self.delay


class SlowLink:
    """The proxy between a client and a server; see `slow_link`.

    Attributes:
        port: The port that the client connects to.
        up: From the client to the server.
        down: From the server to the client.
    """

    def __init__(self, server_port: int, up: Pipe, down: Pipe) -> None:
        self.up = up
        self.down = down
        self._server = ("127.0.0.1", server_port)
        self._client: tuple[str, int] | None = None
        self._front = _open_socket()
        self._back = _open_socket()
        self.port: int = self._front.getsockname()[1]

    async def run(self) -> None:
        """Carry datagrams until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._carry, self._front, self._back, self.up)
            nursery.start_soon(self._carry, self._back, self._front, self.down)

    def close(self) -> None:
        """Close both sockets."""
        self._front.close()
        self._back.close()

    async def _carry(self, source: socket.socket, target: socket.socket, pipe: Pipe) -> None:
        queue: deque[tuple[float, bytes]] = deque()
        while True:
            with trio.CancelScope(deadline=queue[0][0] if queue else float("inf")):
                await trio.lowlevel.wait_readable(source)
            self._take(source, pipe, queue)
            now = trio.current_time()
            while queue and queue[0][0] <= now:
                self._send(target, queue.popleft()[1])

    def _take(self, source: socket.socket, pipe: Pipe, queue: deque[tuple[float, bytes]]) -> None:
        now = trio.current_time()
        while True:
            try:
                data, address = source.recvfrom(_MAX_PAYLOAD)
            except BlockingIOError:
                return
            if source is self._front:
                self._client = address
            at = pipe.arrival(now, len(data))
            if at is not None:
                queue.append((at, data))

    def _send(self, target: socket.socket, data: bytes) -> None:
        address = self._server if target is self._back else self._client
        if address is not None:
            target.sendto(data, address)


@asynccontextmanager
async def slow_link(
    server_port: int, *, rate: float, delay: float = 0.01, queue_seconds: float = 0.05
) -> AsyncIterator[SlowLink]:
    """Run a link to a server for as long as the block lasts.

    Args:
        server_port: The server's UDP port on 127.0.0.1.
        rate: Bytes per second, each way.
        delay: Seconds, each way.
        queue_seconds: What the queue holds before it drops, in seconds of the rate.
    """
    queue_bytes = max(int(rate * queue_seconds), 2 * 1500)
    link = SlowLink(server_port, Pipe(rate, delay, queue_bytes), Pipe(rate, delay, queue_bytes))
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.run)
            yield link
            nursery.cancel_scope.cancel()
    finally:
        link.close()


def _open_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, _SOCKET_BUFFER_BYTES)
    sock.bind(("127.0.0.1", 0))
    return sock
