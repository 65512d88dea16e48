"""A UDP proxy on loopback between one client and one server: it drops, repeats, delays and alters datagrams."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio


class UdpProxy:
    """What lies between a client and a server.

    Attributes:
        port: The port that the client connects to.
        forward: Called with each datagram and whether the client sent it; returns what goes on, as (delay, datagram).
        forwarded: The datagrams that went on, by whether the client sent them.
    """

    def __init__(self, server_port: int) -> None:
        self._server = ("127.0.0.1", server_port)
        self._front = _socket()
        self._back = _socket()
        self._client: tuple[str, int] | None = None
        self.port = self._front.getsockname()[1]
        self.forward: Callable[[bytes, bool], list[tuple[float, bytes]]] = lambda data, _: [(0.0, data)]
        self.forwarded = {True: 0, False: 0}
        self._port_open = trio.Event()
        self._port_open.set()

    def blackhole(self) -> None:
        """Drop every datagram from now on."""
        self.forward = lambda data, from_client: []

    def rebind(self) -> None:
        """Show the server a new client address, as a NAT does."""
        old, self._back = self._back, _socket()
        trio.lowlevel.notify_closing(old)
        old.close()

    def close_port(self) -> None:
        """Close the port that the client sends to: the kernel answers with ICMP's "port unreachable"."""
        self._port_open = trio.Event()
        trio.lowlevel.notify_closing(self._front)
        self._front.close()

    def open_port(self) -> None:
        """Open it again."""
        self._front = _socket(self.port)
        self._port_open.set()

    def close(self) -> None:
        """Close both sockets."""
        for sock in (self._front, self._back):
            sock.close()

    async def run(self) -> None:
        """Forward until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, True, nursery)
            nursery.start_soon(self._pump, False, nursery)

    async def _pump(self, from_client: bool, nursery: trio.Nursery) -> None:
        while True:
            while from_client and not self._port_open.is_set():
                await self._port_open.wait()
            sock = self._front if from_client else self._back
            try:
                await trio.lowlevel.wait_readable(sock)
                data, address = sock.recvfrom(65535)
            except (trio.ClosedResourceError, BlockingIOError, OSError):
                continue
            if from_client:
                self._client = address
            for delay, changed in self.forward(data, from_client):
                if delay:
                    nursery.start_soon(self._send_later, delay, changed, from_client)
                else:
                    self._send(changed, from_client)

    async def _send_later(self, delay: float, data: bytes, from_client: bool) -> None:
        await trio.sleep(delay)
        self._send(data, from_client)

    def _send(self, data: bytes, from_client: bool) -> None:
        self.forwarded[from_client] += 1
        if from_client:
            self._back.sendto(data, self._server)
        elif self._client is not None and self._port_open.is_set():
            self._front.sendto(data, self._client)


def _socket(port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.bind(("127.0.0.1", port))
    return sock


def bad_network(
    *, loss: float, duplicate: float, corrupt: float, reorder: float, delay: float, seed: int, jitter: float = 0.0
) -> Callable[[bytes, bool], list[tuple[float, bytes]]]:
    """Return a `forward` that loses, repeats, alters and overtakes shares of the datagrams.

    Args:
        loss: The share that is dropped.
        duplicate: The share that arrives twice.
        corrupt: The share of which one byte is altered.
        reorder: The share that takes longer, by one to two times `delay`.
        delay: Seconds.
        seed: Of the random choices.
        jitter: Seconds by which a datagram may take less or more than others: each takes up to twice that.
    """
    chance = random.Random(seed)

    def forward(data: bytes, from_client: bool) -> list[tuple[float, bytes]]:
        if chance.random() < loss:
            return []
        if chance.random() < corrupt:
            place = chance.randrange(len(data))
            data = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
        wait = delay * chance.uniform(1, 2) if chance.random() < reorder else 0.0
        if jitter:
            wait += chance.uniform(0, 2 * jitter)
        copies = 2 if chance.random() < duplicate else 1
        return [(wait, data)] * copies

    return forward


@asynccontextmanager
async def udp_proxy(server_port: int) -> AsyncIterator[UdpProxy]:
    """Run a proxy for as long as the block lasts."""
    proxy = UdpProxy(server_port)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(proxy.run)
            yield proxy
            nursery.cancel_scope.cancel()
    finally:
        proxy.close()
