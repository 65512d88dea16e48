"""Worker: the part of a port that one of several processes serves, as `serve` takes it.

The sockets are the parent's, which keeps them open: a listener reads copies of them, and closes those. `run_workers`
makes workers; see `workers/supervisor.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from ..tasks import defer_interrupts, open_unwrapping_nursery
from ..transport.quic.steering import IdShare
from ..transport.sockets import UdpSocket

if TYPE_CHECKING:
    import socket

    from ..certificates import Certificate

_ANY_ADDRESS = ("localhost", 4443)
"""What `serve` is given for host and port when both are left out."""


@attrs.frozen
class LinkPorts:
    """How the workers of one port reach each other: each has a port of its own on 127.0.0.1.

    Attributes:
        sockets: The sockets, by the index of their worker.
        certificate: What each shows there; no other process has its key.
        secret: What each asks for there: any process of this machine may send to the ports.
    """

    sockets: tuple[socket.socket, ...]
    certificate: Certificate = attrs.field(repr=False)
    secret: str = attrs.field(repr=False)

    def port(self, index: int) -> int:
        """Return the port of a worker."""
        return int(self.sockets[index].getsockname()[1])


@defer_interrupts
class Worker:
    """One of the processes that serve a port together; `run_workers` hands it to the main function of each.

    Attributes:
        index: Which one it is, 0 … count-1. A worker that takes the place of one that died has its index.
        count: How many there are.
        host: The host, as it was given to `run_workers`.
        port: The port that they serve.
    """

    def __init__(
        self,
        index: int,
        count: int,
        *,
        host: str | None,
        port: int,
        sockets: list[socket.socket],
        reset_key: bytes,
        links: LinkPorts | None = None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.index = index
        self.count = count
        self.host = host
        self.port = port
        self._ids = IdShare(index, count)
        self._sockets = sockets
        self._reset_key = reset_key
        self._links = links
        self._ready = ready
        self._close: Callable[[float], Awaitable[None]] | None = None

    def _checked_address(self, host: str | None, port: int) -> tuple[str | None, int]:
        """Return host and port, after a look at those that `serve` was given."""
        if (host, port) not in (_ANY_ADDRESS, (self.host, self.port)):
            raise ValueError(
                f"a worker serves where run_workers listens, {self.host!r} and {self.port}, not {host!r} and {port}: "
                "leave host and port out"
            )
        if self._close is not None:
            raise trio.BusyResourceError(f"worker {self.index} serves already: a router serves any number of paths")
        return self.host, self.port

    def _open_sockets(self) -> list[UdpSocket]:
        """Return sockets for a listener, which closes them."""
        return [UdpSocket(sock.dup()) for sock in self._sockets]

    @contextmanager
    def _serving(self, close: Callable[[float], Awaitable[None]]) -> Iterator[None]:
        """Called around the life of a listener.

        Args:
            close: Ends the listener, after at most so many seconds.
        """
        self._close = close
        self._ready()
        try:
            yield
        finally:
            self._close = None

    async def _drain(self, grace: float) -> None:
        """End the listener, if there is one, as `Listener.aclose` does."""
        async with open_unwrapping_nursery() as nursery:
            if self._close is not None:
                nursery.start_soon(self._close, grace)

    def __repr__(self) -> str:
        return f"<Worker {self.index} of {self.count} on {self.host or '*'}:{self.port}>"
