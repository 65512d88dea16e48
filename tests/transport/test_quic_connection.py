"""A QUIC connection when its socket or its engine misbehaves."""

from __future__ import annotations

import errno

import pytest
import trio

from moqt_trio.errors import SessionClosed
from moqt_trio.transport import sockets
from moqt_trio.transport.quic import connection as connections
from moqt_trio.transport.quic.aioquic.engine import AioquicEngine
from moqt_trio.transport.sockets import UdpSocket, bind_udp
from tests.transport.awaiting import accept_uni, send_all
from tests.transport.quic_pair import IDENTITY, client_settings, connect_quic, quic_pair, serving
from tests.transport.recorders import eventually, ping_pong


async def test_a_full_socket_buffer_only_delays(monkeypatch):
    """When the kernel takes no more, what is left goes out once it does, in order, the closing packet included."""
    real = UdpSocket.send
    refusals = 0

    def full_every_third_time(self, data, address):
        nonlocal refusals
        refusals += 1
        return False if refusals % 3 == 0 else real(self, data, address)

    monkeypatch.setattr(UdpSocket, "send", full_every_third_time)
    async with quic_pair() as (client, server), trio.open_nursery() as nursery:
        stream = await client.open_uni()
        nursery.start_soon(send_all, stream, bytes(300_000))
        reader = await accept_uni(server)
        received = 0
        while received < 300_000:
            received += len(await reader.receive_some())
        await client.aclose(5)
        error = await server.wait_closed()
        assert isinstance(error, SessionClosed)
        assert error.remote_code == 5
    assert refusals > 50


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENETUNREACH, errno.ENOBUFS, errno.EMSGSIZE])
async def test_what_the_kernel_refuses_is_a_loss(monkeypatch, number):
    """A datagram that the kernel refuses counts as lost: it is sent again, and nothing breaks."""
    refuse = False
    sent = 0

    class Socket:
        def __init__(self, sock):
            self.sock = sock

        def send(self, data):
            nonlocal sent
            sent += 1
            if refuse and sent % 2:
                raise OSError(number, "refused")
            return self.sock.send(data)

        def __getattr__(self, name):
            return getattr(self.sock, name)

    async with quic_pair() as (client, server):
        client._socket._socket = Socket(client._socket._socket)
        refuse = True
        with trio.fail_after(10):
            await ping_pong(client, server, 3)
        assert sent
        client._socket._socket = client._socket._socket.sock


@pytest.mark.parametrize("method", ["receive_datagram_untrusted", "deliver_events", "datagrams_to_send", "has_work"])
async def test_an_engine_that_fails_ends_its_connection_only(monkeypatch, caplog, method):
    """An exception inside the engine is logged and ends that connection; the listener and others go on."""
    connections = []

    async def handler(connection):
        connections.append(connection)
        await connection.wait_closed()

    async with (
        serving(handler) as listener,
        connect_quic("127.0.0.1", listener.port, client_settings()) as one,
        connect_quic("127.0.0.1", listener.port, client_settings()) as two,
    ):
        await eventually(lambda: len(connections) == 2)
        broken = connections[0]._engine
        healthy = getattr(AioquicEngine, method)

        def fail(*arguments):
            if arguments[0] is broken and broken.termination is None:
                raise RuntimeError("engine bug")
            return healthy(*arguments)

        monkeypatch.setattr(AioquicEngine, method, fail)
        stream = await one.open_bidi()
        stream.write(b"x")
        with trio.fail_after(5):
            error = await one.wait_closed()
        assert isinstance(error, SessionClosed)
        assert error.remote_code == 1
        await ping_pong(two, connections[1], 3)
    assert "engine bug" in caplog.text


async def test_an_identity_that_fails(caplog):
    """A certificate that cannot be had costs the client its connection, and is logged; the listener goes on."""
    healthy = False

    def identity():
        if not healthy:
            raise RuntimeError("no certificate")
        return IDENTITY

    async with serving(identity=identity) as listener:
        with trio.move_on_after(0.1) as scope:
            async with connect_quic("127.0.0.1", listener.port, client_settings()):
                pytest.fail("connected without a certificate")
        assert scope.cancelled_caught
        assert "no certificate" in caplog.text
        healthy = True
        async with connect_quic("127.0.0.1", listener.port, client_settings()):
            pass


async def test_a_write_that_is_flushed_by_its_task(monkeypatch):
    """On a quiet connection it leaves at once; right behind another it waits for more, as every write does."""
    async with quic_pair() as (client, server):
        stream = await client.open_uni()
        await trio.sleep(0.05)
        before = client.statistics().bytes_sent
        stream.write(b"first")
        client.flush()
        at_once = client.statistics().bytes_sent
        assert at_once > before
        with monkeypatch.context() as patch:
            # However slow the machine is.
            patch.setattr(connections, "_QUIET", 60.0)
            stream.write(b"second")
            client.flush()
        assert client.statistics().bytes_sent == at_once
        reader = await accept_uni(server)
        received = b""
        with trio.fail_after(5):
            while len(received) < 11:
                received += await reader.receive_some()
        assert received == b"firstsecond"


async def test_a_flush_that_fails_ends_its_connection_only(monkeypatch):
    """The task that flushes goes on, and another connection lives."""
    async with quic_pair() as (client, _), quic_pair() as (other, _):
        stream = await client.open_uni()
        await trio.sleep(0.05)
        real = AioquicEngine.datagrams_to_send

        def fail(self, now):
            if self is client._engine:
                raise RuntimeError("an engine that fails")
            return real(self, now)

        monkeypatch.setattr(AioquicEngine, "datagrams_to_send", fail)
        stream.write(b"x")
        client.flush()
        error = await client.wait_closed()
        assert isinstance(error, SessionClosed)
        assert other.closed is None


async def test_timers_of_a_lively_connection(monkeypatch):
    """None is set far ahead, where Trio would keep what was moved; a quiet one wakes up for its real deadline only."""
    async with quic_pair() as (client, server):
        stream = await client.open_uni()
        stream.write(b"x")
        reader = await accept_uni(server)
        await reader.receive_some()
        for _ in range(20):
            stream.write(b"x")
            await reader.receive_some()
            for connection in (client, server):
                assert connection._timer.deadline <= trio.current_time() + 1
        await trio.sleep(1.2)
        for connection in (client, server):
            assert connection._timer.deadline > trio.current_time() + 5


async def test_one_port_number_for_all_addresses(monkeypatch):
    """When the first free port is taken on the second address another is tried."""
    real = sockets._bind
    attempts = []

    def bind(family, host, port, kind):
        attempts.append((host, port))
        if host == "127.0.0.1" and len(attempts) == 2:
            raise OSError(errno.EADDRINUSE, "taken")
        return real(family, host, port, kind)

    monkeypatch.setattr(sockets, "_bind", bind)
    ports = await bind_udp("localhost", 0)
    assert len({port.address[1] for port in ports}) == 1
    assert len(attempts) == 4
    for port in ports:
        port.close()


async def test_a_machine_without_ipv6(monkeypatch):
    """Without ::1, "localhost" is 127.0.0.1 alone."""
    real = sockets._bind

    def bind(family, host, port, kind):
        if host == "::1":
            raise OSError(errno.EADDRNOTAVAIL, "no IPv6")
        return real(family, host, port, kind)

    monkeypatch.setattr(sockets, "_bind", bind)
    (port,) = await bind_udp("localhost", 0)
    assert port.address[0] == "127.0.0.1"
    port.close()
