"""The numbers of a listener, those of its QUIC handshakes among them."""

from __future__ import annotations

import socket
from functools import partial

import pytest
import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

import moqt_trio as moqt
from tests.http.serving import CERTIFICATE
from tests.transport.recorders import eventually


def first_flight(port):
    """Return the first datagram of a client that never answers."""
    quic = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["h3"], server_name="localhost"))
    quic.connect(("127.0.0.1", port), 0.0)
    return quic.datagrams_to_send(0.0)[0][0]


async def handler(request):
    async with request.accept() as session:
        await session.wait_closed()


@pytest.mark.parametrize(("room", "counted"), [(4, (2, 0, 2)), (1, (0, 0, 4))], ids=["half of the room", "no room"])
async def test_handshakes(room, counted):
    """Handshakes that are not complete are counted, and so are the clients that have to prove their address."""
    limits = moqt.Limits(max_half_open=room)
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, handler, "127.0.0.1", 0, certificate=CERTIFICATE, limits=limits)
        listener = await nursery.start(serve)

        def numbers():
            found = listener.statistics()
            return found.half_open, found.refused, found.retried

        assert numbers() == (0, 0, 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(4):
                sock.sendto(first_flight(listener.port), ("127.0.0.1", listener.port))
            await eventually(lambda: sum(numbers()) == 4)
        assert numbers() == counted
        nursery.cancel_scope.cancel()


async def test_refused():
    """A handshake that finds the listener full is counted as refused; the session that fills it goes on."""
    limits = moqt.Limits(max_connections=1)
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, handler, "127.0.0.1", 0, certificate=CERTIFICATE, limits=limits)
        listener = await nursery.start(serve)
        url = f"moqt://127.0.0.1:{listener.port}/"
        async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint) as session:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(first_flight(listener.port), ("127.0.0.1", listener.port))
                await eventually(lambda: listener.statistics().refused == 1)
            assert session.closed is None
            assert listener.statistics().half_open == 0
        nursery.cancel_scope.cancel()


async def test_connections():
    """Connections are counted while they are open, with a session or without, and those that were accepted for good."""
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, handler, "127.0.0.1", 0, certificate=CERTIFICATE)
        listener = await nursery.start(serve)

        def numbers():
            found = listener.statistics()
            return found.connections, found.connections_accepted, found.half_open, found.sessions

        assert numbers() == (0, 0, 0, 0)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(first_flight(listener.port), ("127.0.0.1", listener.port))
            await eventually(lambda: numbers() == (1, 0, 1, 0))
        async with moqt.connect(f"moqt://127.0.0.1:{listener.port}/", fingerprint=CERTIFICATE.fingerprint):
            await eventually(lambda: numbers() == (2, 1, 1, 1))
        await eventually(lambda: numbers() == (1, 1, 1, 0))
        nursery.cancel_scope.cancel()
