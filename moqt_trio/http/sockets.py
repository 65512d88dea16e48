"""TCP sockets for every address of a host, bound and not yet listening."""

from __future__ import annotations

import errno
import os
import socket
import sys

from ..transport.quic.udp import listening_addresses


async def bind_tcp(host: str | None, port: int) -> list[socket.socket]:
    """Returns sockets for every address of a host, all on one port number.

    Args:
        host: A name or address; "localhost" is both loopback addresses; None, "" and "::" are all addresses.
        port: The port; 0 picks one, which may be taken on some of the addresses.

    Raises:
        OSError: An address cannot be bound; the message names it.
    """
    sockets: list[socket.socket] = []
    try:
        for family, address in await listening_addresses(host):
            try:
                sockets.append(_bind(family, address, port))
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


def _bind(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if sys.platform != "win32":
            # A restarted server must not wait for what the kernel keeps of its old connections.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if host else 0)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        shown = f"[{host}]:{port}" if ":" in host else f"{host or '*'}:{port}"
        number = error.errno or 0
        raise OSError(number, f"cannot listen on {shown} (TCP): {os.strerror(number)}") from error
    return sock
