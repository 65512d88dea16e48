"""UDP sockets: non-blocking, with large buffers, read and written without a task of their own."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from typing import TYPE_CHECKING

import trio

from .settings import MIN_PACKET

if TYPE_CHECKING:
    from .engine import Address

_BUFFER_BYTES = 4 * 1024 * 1024
"""Bytes of the kernel's buffers: a burst must not be lost while this process does something else."""
MAX_PAYLOAD = 65535
"""Bytes of the longest UDP payload."""
_LOOPBACK_PACKET = 1452
"""Bytes of a packet on loopback: what an Ethernet frame leaves, which every implementation accepts."""


class UdpSocket:
    """One UDP socket.

    Attributes:
        address: What it is bound to.
        connected: True when it talks to one peer only.
    """

    def __init__(self, sock: socket.socket, *, connected: bool = False) -> None:
        self.socket = sock
        self.connected = connected
        self.address: Address = sock.getsockname()

    def send(self, data: bytes, address: Address) -> bool:
        """Sends a datagram. Returns False when the socket's buffer is full; what else fails counts as lost."""
        try:
            if self.connected:
                try:
                    self.socket.send(data)
                except ConnectionRefusedError:
                    # The answer to an earlier datagram: this one has not been sent yet.
                    self.socket.send(data)
            else:
                self.socket.sendto(data, address)
        except BlockingIOError:
            return False
        except OSError:
            # An unreachable network, a firewall, a refused port: loss recovery and timeouts deal with all of them.
            return True
        return True

    async def wait_sendable(self) -> None:
        """Waits until the socket's buffer has room."""
        await trio.lowlevel.wait_writable(self.socket)

    async def wait_readable(self) -> None:
        """Waits for a datagram."""
        await trio.lowlevel.wait_readable(self.socket)

    def receive(self) -> tuple[bytes, Address]:
        """Returns a datagram and its sender. Raises `BlockingIOError` when there is none, else `OSError`."""
        return self.socket.recvfrom(MAX_PAYLOAD)

    def close(self) -> None:
        """Closes the socket. Nobody may be waiting for it."""
        self.socket.close()


def packet_size(setting: int | None, address: Address) -> int:
    """Returns the bytes of the largest packet for a peer: the setting, else what its path surely carries."""
    if setting is not None:
        return setting
    return _LOOPBACK_PACKET if _is_loopback(str(address[0])) else MIN_PACKET


def _is_loopback(host: str) -> bool:
    try:
        parsed = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def connect_port(family: int, address: Address) -> UdpSocket:
    """Returns a socket for one peer. Raises `OSError` when there is no route to it."""
    sock = _new_socket(family)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return UdpSocket(sock, connected=True)


def plain_address(address: Address) -> tuple[str, int]:
    """Returns a socket address as host and port; an IPv4 address that came over IPv6 is shown as IPv4."""
    host = str(address[0])
    return host.removeprefix("::ffff:") if "." in host else host, int(address[1])


async def bind_ports(host: str | None, port: int) -> list[UdpSocket]:
    """Returns sockets for every address of a host, all on one port number.

    Args:
        host: A name or address; "localhost" is both loopback addresses; None, "" and "::" are all addresses.
        port: The port; 0 picks one that is free on all.

    Raises:
        OSError: An address cannot be bound; the message names it.
    """
    for _ in range(16):
        ports: list[UdpSocket] = []
        try:
            number = port
            for family, address in await listening_addresses(host):
                try:
                    bound = _bind(family, address, number)
                except OSError as error:
                    # A machine without IPv6 has no ::1; one address of several is enough.
                    if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and host == "localhost":
                        continue
                    raise
                ports.append(bound)
                number = bound.address[1]
            if not ports:
                raise OSError(errno.EADDRNOTAVAIL, f"no address to listen on for {host!r}")
            return ports
        except OSError as error:
            for bound in ports:
                bound.close()
            # The number that was free on the first address is taken on another: try a different one.
            if port or not ports or error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"no port is free on all addresses of {host!r}")


async def listening_addresses(host: str | None) -> list[tuple[int, str]]:
    """Returns the address families and addresses to bind for a host; "" as an address is all of them."""
    if not host or host == "::":
        return [(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET, "")]
    if host == "localhost":
        return [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")]
    found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    return list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))


def _bind(family: int, host: str, port: int) -> UdpSocket:
    sock = _new_socket(family)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if host else 0)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        shown = f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}"
        number = error.errno or 0
        raise OSError(number, f"cannot listen on {shown} (UDP): {os.strerror(number)}") from error
    return UdpSocket(sock)


def _new_socket(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setblocking(False)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    return sock
