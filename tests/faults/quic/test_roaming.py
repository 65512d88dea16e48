"""A client whose host changes networks: the address that its connection began with is gone."""

from __future__ import annotations

import errno

import pytest
import trio

from moqt_trio.errors import SessionClosed
from moqt_trio.transport.quic import client as dial
from tests.transport.quic_pair import client_settings, connect_quic, serving

ELSEWHERE = "192.0.2.1"
"""An address for documentation, which no host has (RFC 5737)."""


class Unsendable:
    """A socket whose datagrams do not leave."""

    def __init__(self, sock, number):
        self._sock = sock
        self._number = number
        self.tries = 0

    def __getattr__(self, name):
        return getattr(self._sock, name)

    def send(self, data):
        self.tries += 1
        raise OSError(self._number, "unsendable")


@pytest.fixture
def client_sockets(monkeypatch):
    """The sockets of the clients that connect, in their order."""
    made = []
    real = dial.connect_udp

    def connect_udp(family, address):
        made.append(real(family, address))
        return made[-1]

    monkeypatch.setattr(dial, "connect_udp", connect_udp)
    return made


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN])
async def test_an_address_that_is_gone(client_sockets, number):
    """A client ends its session with the first datagram that cannot leave, because its host has the address no more."""
    async with (
        serving() as listener,
        connect_quic("127.0.0.1", listener.port, client_settings()) as client,
    ):
        (sock,) = client_sockets
        sock._socket = Unsendable(sock._socket, number)
        sock.address = (ELSEWHERE, sock.address[1])
        (await client.open_uni()).write(b"x")
        with trio.fail_after(1):
            error = await client.wait_closed()
        assert isinstance(error, SessionClosed)
        assert "lost the address" in error.reason
        assert not error.by_peer


@pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.EHOSTUNREACH])
async def test_the_error_of_a_send_alone_ends_nothing(client_sockets, number):
    """While the host has the address and a route, such an error may come from a forged ICMP message."""
    async with (
        serving() as listener,
        connect_quic("127.0.0.1", listener.port, client_settings()) as client,
    ):
        (sock,) = client_sockets
        real, sock._socket = sock._socket, Unsendable(sock._socket, number)
        stream = await client.open_bidi()
        with trio.fail_after(5):
            while sock._socket.tries < 3:
                stream.write(b"x")
                await trio.sleep(0.01)
        assert client.closed is None
        sock._socket = real
        stream.write(b"y")
        stream.finish()
        await client.aclose()
