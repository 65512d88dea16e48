"""UDP and TCP sockets for every address of a host, and what a UDP socket does without a task of its own.

All sockets are non-blocking. Binding a host means all of its addresses on one port number; an error names the address
that cannot be bound.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import trio

from ..tasks import defer_interrupts

Address = tuple[Any, ...]
"""A socket address as the `socket` module has it: host, port, and for IPv6 two more.

What came through a socket for all addresses of a host has one item more, the last: the local address that was asked, as
`sendmsg` takes it. Whatever is sent to such an address leaves from there, and a peer that asks another local address
has another address here: QUIC's path is all four (RFC 9000, section 9).
"""

RECEIVE_BATCH = 64
"""Datagrams that are read from one socket before another task runs: two or three milliseconds' work, so that handlers
and other connections are not kept waiting, and enough that a fast link is not read one datagram at a time."""

_BUFFER_BYTES = 4 * 1024 * 1024
"""Bytes of the kernel's buffers for a UDP socket. The process may be busy elsewhere for some 30 ms, in which a link of
1 Gbit/s brings 4 MiB; what does not fit is lost and is sent again. The kernel may grant less."""
_MAX_PAYLOAD = 65535
"""Bytes of the longest UDP payload: its length field has 16 bits."""
_NO_WAY = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN})
"""What a send, a bind or a connect fails with when a host has lost the address or the route."""
_WILDCARDS = frozenset({"0.0.0.0", "::"})
_ANCILLARY_BYTES = 64
"""Bytes of ancillary data that are read: an IPV6_PKTINFO takes 20, and its header 16 (RFC 3542, section 6)."""
_IP_PKTINFO: int | None = getattr(socket, "IP_PKTINFO", 8 if sys.platform == "linux" else None)
"""Python has had the name since 3.14; ip(7) has the number."""
_PORT_TRIES = 16
"""Port numbers that are tried when the one that was free on the first address is taken on another: with half of all
numbers taken, all tries fail once in 65,536."""

LocalAddress = tuple[tuple[int, int, bytes], ...]
"""The local address of a datagram, as `sendmsg` takes it; empty where the kernel did not say."""

Received = Callable[[list[tuple[bytes, Address]], "UdpSocket", float], None]
"""Called with datagrams and their senders, the socket that they came through, and the time on trio's clock."""


@defer_interrupts
class UdpSocket:
    """One UDP socket, for one peer or for all of them.

    A socket that is bound to all addresses of the host answers from the address that was asked, which the kernel would
    not do by itself: a client takes no packet from another address. `recvmsg` and `sendmsg`, which that needs, cost
    more than the calls that the other sockets use.

    Args:
        sock: The socket, bound.
        peer: The one address that it sends to and receives from; None for a socket that is not connected.

    Attributes:
        address: What it is bound to.
        gone: True when a datagram could not leave, because this host has the address no more or no route from it to the
            peer. Only for a socket with a peer.
        wait_writable: Waits until the socket's buffer has room.
    """

    def __init__(self, sock: socket.socket, *, peer: Address | None = None) -> None:
        self.address: Address = sock.getsockname()
        self.gone = False
        self._peer = peer
        self._socket = sock
        self._wildcard = peer is None and self.address[0] in _WILDCARDS and _ask_for_local_address(sock)
        self.wait_writable: Callable[[], Coroutine[Any, Any, None]] = partial(trio.lowlevel.wait_writable, sock)

    async def read_forever(self, received: Received, refused: Callable[[], None] | None = None) -> None:
        """Read what arrives until cancelled, up to `RECEIVE_BATCH` datagrams at a time.

        Args:
            received: Called with datagrams, in order.
            refused: Called when ICMP says that the peer has no such port.
        """
        peer = self._peer
        receive = self._socket.recv
        receive_from = self._receive_with_local_address if self._wildcard else self._socket.recvfrom
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            now = trio.current_time()
            datagrams: list[tuple[bytes, Address]] = []
            for _ in range(RECEIVE_BATCH):
                try:
                    datagrams.append((receive(_MAX_PAYLOAD), peer) if peer is not None else receive_from(_MAX_PAYLOAD))
                except BlockingIOError:
                    break
                except ConnectionRefusedError:
                    if refused is not None:
                        refused()
                        break
                except OSError:
                    # What ICMP says about datagrams that were sent earlier.
                    continue
            if datagrams:
                received(datagrams, self, now)

    def _receive_with_local_address(self, size: int) -> tuple[bytes, Address]:
        data, ancillary, _, address = self._socket.recvmsg(size, _ANCILLARY_BYTES)
        return data, (*address, _local_address(ancillary))

    def send(self, data: bytes, address: Address) -> bool:
        """Send a datagram. Return False when the socket's buffer is full; any other failure counts as a loss."""
        try:
            if self._peer is not None:
                try:
                    self._socket.send(data)
                except ConnectionRefusedError:
                    # The answer to an earlier datagram: this one has not been sent yet.
                    self._socket.send(data)
            elif self._wildcard:
                self._socket.sendmsg((data,), address[-1], 0, address[:-1])
            else:
                self._socket.sendto(data, address)
        except BlockingIOError:
            return False
        except OSError as error:
            if self._peer is not None and error.errno in _NO_WAY and not self.gone:
                self.gone = not self._has_way()
            # An unreachable network, a firewall, a refused port: loss recovery and timeouts deal with all of them.
            return True
        return True

    def _has_way(self) -> bool:
        """Return whether datagrams can leave from the address for the peer: the error of a send may be from ICMP.

        ICMP can be forged, and ends nothing (RFC 9000, section 14.2.1). It reaches no socket that has sent nothing.
        """
        assert self._peer is not None
        with socket.socket(self._socket.family, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((self.address[0], 0, *self.address[2:]))
                probe.connect(self._peer)
            except OSError as error:
                return error.errno not in _NO_WAY
        return True

    def close(self) -> None:
        """Close the socket. No task may be waiting for it."""
        self._socket.close()


def connect_udp(family: int, address: Address) -> UdpSocket:
    """Return a socket for one peer. Raises `OSError` when there is no route to it."""
    sock = _new_socket(family, socket.SOCK_DGRAM)
    try:
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return UdpSocket(sock, peer=address)


async def bind_udp(host: str | None, port: int) -> list[UdpSocket]:
    """Return sockets for every address of a host, all on one port number.

    Args:
        host: A name or address; "localhost" is both loopback addresses; None, "" and "::" are all addresses.
        port: The port; 0 picks one that is free on all.

    Raises:
        OSError: An address cannot be bound; the message names it.
    """
    addresses = _fixed_addresses(host) or await _resolved_addresses(host)
    return [UdpSocket(sock) for sock in _bind_udp_all(addresses, host, port)]


def bind_udp_shared(host: str | None, port: int, count: int) -> list[list[socket.socket]]:
    """Return sockets for several processes that serve one port. It blocks while a name is looked up.

    Another program that has the port is an error, also one that shares it among processes of its own: the kernel would
    add this one's sockets to the other's.

    Args:
        host: As for `bind_udp`, and so the port.
        count: How many processes there are.

    Returns:
        For each address of the host, `count` sockets in the order in which they were bound.

    Raises:
        OSError: An address cannot be bound; the message names it.
    """
    groups: list[list[socket.socket]] = []
    try:
        # The first of each address is bound alone. Others may join it afterwards, in this order.
        groups.extend([first] for first in _bind_udp_all(_fixed_addresses(host) or _looked_up(host), host, port))
        for group in groups:
            address, number = group[0].getsockname()[:2]
            bound = "" if address in _WILDCARDS and group[0].family == socket.AF_INET6 else address
            group[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            while len(group) < count:
                group.append(_bind(group[0].family, bound, number, socket.SOCK_DGRAM, join=True))
    except BaseException:
        for sock in (sock for group in groups for sock in group):
            sock.close()
        raise
    return groups


def _bind_udp_all(addresses: list[tuple[int, str]], host: str | None, port: int) -> list[socket.socket]:
    for attempt in range(_PORT_TRIES):
        try:
            return _bind_all(addresses, host, port, socket.SOCK_DGRAM)
        except OSError as error:
            # The number that was free on the first address is taken on another: try a different one.
            if port or error.errno != errno.EADDRINUSE or attempt == _PORT_TRIES - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


async def bind_tcp(host: str | None, port: int) -> list[socket.socket]:
    """Return sockets for every address of a host, all on one port number, bound and not yet listening.

    Args:
        host: A name or address; "localhost" is both loopback addresses; None, "" and "::" are all addresses.
        port: The port; 0 picks one, which may be taken on some of the addresses.

    Raises:
        OSError: An address cannot be bound; the message names it.
    """
    addresses = _fixed_addresses(host) or await _resolved_addresses(host)
    return _bind_all(addresses, host, port, socket.SOCK_STREAM)


def _bind_all(
    addresses: list[tuple[int, str]], host: str | None, port: int, kind: socket.SocketKind
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for family, address in addresses:
            try:
                sockets.append(_bind(family, address, port, kind))
            except OSError as error:
                # A machine without IPv6 has no ::1; one address of several is enough.
                if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and host == "localhost":
                    continue
                raise
            port = sockets[-1].getsockname()[1]
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, f"no address to listen on for {host!r}")
    except BaseException:
        for bound in sockets:
            bound.close()
        raise
    return sockets


def _fixed_addresses(host: str | None) -> list[tuple[int, str]]:
    """Return the address families and addresses to bind for a host; "" as an address is all of them.

    The list is empty for a host that has to be looked up.
    """
    if not host or host == "::":
        return [(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET, "")]
    if host == "localhost":
        return [(socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1")]
    return []


async def _resolved_addresses(host: str | None) -> list[tuple[int, str]]:
    found = await trio.socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    return list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))


def _looked_up(host: str | None) -> list[tuple[int, str]]:
    """As `_resolved_addresses`, before trio runs."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    return list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))


def _bind(family: int, host: str, port: int, kind: socket.SocketKind, *, join: bool = False) -> socket.socket:
    """Return a bound socket; with `join`, one beside others on the port that allow it."""
    sock = _new_socket(family, kind)
    try:
        if join:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if kind == socket.SOCK_STREAM and sys.platform != "win32":
            # A restarted server must not wait for what the kernel keeps of its old connections.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if host else 0)
        sock.bind((host, port))
    except BaseException as error:
        sock.close()
        if not isinstance(error, OSError):
            raise
        shown = f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}"
        name = "TCP" if kind == socket.SOCK_STREAM else "UDP"
        number = error.errno or 0
        raise OSError(number, f"cannot listen on {shown} ({name}): {os.strerror(number)}") from error
    return sock


def _new_socket(family: int, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(family, kind)
    sock.setblocking(False)
    if kind == socket.SOCK_DGRAM:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
    return sock


def _ask_for_local_address(sock: socket.socket) -> bool:
    """Have the kernel say which local address each datagram was sent to. Return False where it cannot."""
    if not hasattr(sock, "recvmsg"):
        return False
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        elif _IP_PKTINFO is not None:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        else:
            return False
    except (AttributeError, OSError):
        return False
    return True


def _local_address(ancillary: list[tuple[int, int, bytes]]) -> LocalAddress:
    """Return what sends an answer from the address that was asked, by whichever interface leads to the peer."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            # The address and the interface's index (RFC 3542, section 6.1); an IPv4 address is mapped.
            return ((level, kind, data[:16] + bytes(4)),)
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
            # The interface's index, the local address, and the destination in the header (ip(7)).
            return ((level, kind, bytes(4) + data[4:8] + bytes(4)),)
    return ()


def plain_address(address: Address) -> tuple[str, int]:
    """Return a socket address as host and port; an IPv4 address that came over IPv6 is shown as IPv4."""
    host = str(address[0])
    return host.removeprefix("::ffff:") if "." in host else host, int(address[1])
