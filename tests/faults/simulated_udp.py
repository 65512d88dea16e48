"""A network in memory between clients and one server, in place of UDP sockets: with a virtual clock a test takes no
longer than the work of both sides.

It has the interface of `udp_proxy.UdpProxy`: a test sets `forward` to drop, repeat, delay and alter datagrams.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from moqt_trio.transport.quic import client, server
from moqt_trio.transport.sockets import RECEIVE_BATCH, Address

SERVER: Address = ("127.0.0.1", 4433)
"""The server's address."""
_CLIENTS = "192.0.2.1"
"""The clients' address: one for documentation, which no host has (RFC 5737)."""


class SimulatedSocket:
    """What `UdpSocket` is on a real network.

    Attributes:
        address: What it is bound to.
        gone: As in `UdpSocket`; always False.
    """

    gone = False

    def __init__(self, network: SimulatedNetwork, address: Address, peer: Address | None) -> None:
        self.address = address
        self.closed = False
        self._network = network
        self._peer = peer
        self._arrived: deque[tuple[bytes, Address]] = deque()
        self._readable = trio.lowlevel.ParkingLot()

    async def read_forever(self, received, refused=None) -> None:
        """Read what arrives until cancelled."""
        while True:
            await trio.lowlevel.checkpoint()
            while not self._arrived:
                await self._readable.park()
            batch = [self._arrived.popleft() for _ in range(min(RECEIVE_BATCH, len(self._arrived)))]
            received(batch, self, trio.current_time())

    def send(self, data: bytes, address: Address) -> bool:
        """Send a datagram; there is always room."""
        self._network.carry(data, self, address)
        return True

    def deliver(self, data: bytes, sender: Address) -> None:
        """Put a datagram into the socket's buffer."""
        if not self.closed and (self._peer is None or sender == self._peer):
            self._arrived.append((data, sender))
            self._readable.unpark_all()

    def close(self) -> None:
        """Close the socket."""
        self.closed = True
        self._network.forget(self)

    async def wait_writable(self) -> None:
        """Return at once."""
        await trio.lowlevel.checkpoint()


class SimulatedNetwork:
    """What lies between the clients and the server.

    Attributes:
        delay: Seconds that every datagram takes.
        forward: Called with each datagram and whether a client sent it; returns what goes on, as (delay, datagram).
        forwarded: The datagrams that went on, by whether a client sent them.
    """

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.forward: Callable[[bytes, bool], list[tuple[float, bytes]]] = lambda data, _: [(0.0, data)]
        self.forwarded = {True: 0, False: 0}
        self._server: SimulatedSocket | None = None
        # The address by which the server knows each client's socket, and back.
        self._shown: dict[SimulatedSocket, Address] = {}
        self._clients: dict[Address, SimulatedSocket] = {}
        self._ports = iter(range(20_000, 60_000))
        self._count = 0
        self._under_way: list[tuple[float, int, Address, Address, bytes]] = []
        self._earlier = trio.Event()

    # -- in place of the functions of `sockets.py` ----------------------------------------------------------

    def connect_udp(self, family: int, address: Address) -> SimulatedSocket:
        """Return a client's socket."""
        sock = SimulatedSocket(self, (_CLIENTS, next(self._ports)), address)
        self._show(sock, sock.address)
        return sock

    async def bind_udp(self, host: str | None, port: int) -> list[SimulatedSocket]:
        """Return the server's socket."""
        await trio.lowlevel.checkpoint()
        assert self._server is None or self._server.closed
        self._server = SimulatedSocket(self, SERVER, None)
        return [self._server]

    # -- faults ---------------------------------------------------------------------------------------------

    def blackhole(self) -> None:
        """Drop every datagram from now on."""
        self.forward = lambda data, from_client: []

    def rebind(self) -> None:
        """Show the server a new address of each client, as a NAT does; what goes to the old one is lost."""
        self._clients.clear()
        for sock in self._shown:
            self._show(sock, (_CLIENTS, next(self._ports)))

    def inject(self, data: bytes, *, to_client: bool, sender: Address | None = None) -> None:
        """Have a datagram arrive that neither side sent now.

        Args:
            data: The datagram.
            to_client: Whether it is for the clients, from the server's address; else it is for the server.
            sender: Its source address when it is for the server; without one it is a client's own.
        """
        clients = list(self._clients)
        if to_client:
            for shown in clients:
                self._arrive(0.0, data, SERVER, shown)
        else:
            for source in clients if sender is None else [sender]:
                self._arrive(0.0, data, source, SERVER)

    # -- the way of a datagram ------------------------------------------------------------------------------

    def carry(self, data: bytes, sender: SimulatedSocket, destination: Address) -> None:
        """Put what `forward` makes of a datagram on its way."""
        if sender.closed:
            return
        from_client = sender is not self._server
        source = self._shown[sender] if from_client else SERVER
        for delay, changed in self.forward(data, from_client):
            self.forwarded[from_client] += 1
            self._arrive(self.delay + delay, changed, source, destination)

    def _arrive(self, delay: float, data: bytes, source: Address, destination: Address) -> None:
        at = trio.current_time() + delay
        self._count += 1
        if not self._under_way or at < self._under_way[0][0]:
            self._earlier.set()
        heapq.heappush(self._under_way, (at, self._count, source, destination, data))

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            self._earlier = trio.Event()
            with trio.CancelScope(deadline=self._under_way[0][0] if self._under_way else math.inf):
                await self._earlier.wait()
            now = trio.current_time()
            while self._under_way and self._under_way[0][0] <= now:
                _, _, source, destination, data = heapq.heappop(self._under_way)
                sock = self._server if destination == SERVER else self._clients.get(destination)
                if sock is not None:
                    sock.deliver(data, source)

    def forget(self, sock: SimulatedSocket) -> None:
        """Called when a socket was closed."""
        if (shown := self._shown.pop(sock, None)) is not None:
            self._clients.pop(shown, None)

    def _show(self, sock: SimulatedSocket, address: Address) -> None:
        self._shown[sock] = address
        self._clients[address] = sock


@asynccontextmanager
async def simulated_network(delay: float = 0.01) -> AsyncIterator[SimulatedNetwork]:
    """Have all clients and servers that begin in the block use a network in memory."""
    network = SimulatedNetwork(delay)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "connect_udp", network.connect_udp)
        patch.setattr(server, "bind_udp", network.bind_udp)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(network.run)
            yield network
            nursery.cancel_scope.cancel()
