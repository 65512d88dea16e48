"""A plain UDP socket to a server, and what comes back for a packet."""

from __future__ import annotations

import socket

import trio


def connected(port: int) -> socket.socket:
    """Return a socket for one server."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.connect(("127.0.0.1", port))
    return sock


async def answers(sock: socket.socket, packet: bytes, *, within: float = 0.1) -> list[bytes]:
    """Return what comes back for a packet within so many seconds."""
    sock.send(packet)
    found = []
    with trio.move_on_after(within):
        while True:
            await trio.lowlevel.wait_readable(sock)
            found.append(sock.recv(65535))
    return found
