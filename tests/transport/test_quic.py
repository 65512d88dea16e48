"""Raw QUIC on loopback: the conformance suite, connecting, serving and closing."""

from __future__ import annotations

import datetime as dt
import errno
import logging
import math
import socket
from functools import partial

import pytest
import trio

from moqt_trio.certificates import development_certificate
from moqt_trio.errors import (
    CertificateInvalid,
    ConnectTimeout,
    HandshakeFailed,
    SessionClosed,
    StreamReset,
    VersionUnsupported,
)
from moqt_trio.limits import KIB, Limits
from moqt_trio.transport.code_mapping import HTTP3_CODES
from moqt_trio.transport.connection import ConnectionHandler
from moqt_trio.transport.quic.settings import ClientSettings, ServerIdentity
from tests.transport import conformance
from tests.transport.awaiting import accept_uni, receive_datagram
from tests.transport.quic_pair import (
    ALPN,
    CERTIFICATE,
    client_settings,
    connect_quic,
    quic_pair,
    serve_quic,
    server_settings,
    serving,
    until_closed,
)
from tests.transport.recorders import eventually, ping_pong, read_all


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
async def test_quic_conforms(check):
    """Raw QUIC keeps the rules of every transport."""
    await conformance.run_check(check, quic_pair)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
async def test_localhost_works_over_both_loopback_addresses(name):
    """A server on "localhost" has one port number on both loopback addresses, and each of them is reached."""
    async with serving(host="localhost") as listener:
        assert {host for host, _ in listener.addresses} == {"::1", "127.0.0.1"}
        assert {port for _, port in listener.addresses} == {listener.port}
        async with connect_quic(name, listener.port, client_settings()) as connection:
            assert connection.protocol == ALPN
            assert connection.authority == "localhost"
            assert connection.peer is not None
            assert connection.peer[1] == listener.port
            assert (connection.kind, connection.is_client, connection.path) == ("quic", True, None)
            assert connection.peer_datagram_limit == 65536


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_localhost_finds_a_server_on_one_loopback_address(host):
    """A client of "localhost" reaches a server that listens on only one of the addresses."""
    async with serving(host=host) as listener, connect_quic("localhost", listener.port, client_settings()) as client:
        assert client.peer == (host, listener.port)


@pytest.mark.parametrize("host", [None, "", "::"])
async def test_all_addresses(host):
    """A server on every address is reached over IPv4 and IPv6, and shows IPv4 peers as IPv4."""
    peers = []

    async def handler(connection):
        peers.append(connection.peer[0])
        await connection.wait_closed()

    async with serving(handler, host=host) as listener:
        for name in ("127.0.0.1", "::1"):
            async with connect_quic(name, listener.port, client_settings()) as connection:
                await connection.open_uni()
        await eventually(lambda: len(peers) == 2)
    assert sorted(peers) == ["127.0.0.1", "::1"]


async def test_a_port_in_use_is_named():
    """A port that is taken raises OSError with the address in its text, and `started` is never called."""
    async with serving() as listener:
        with pytest.raises(OSError, match=f"127\\.0\\.0\\.1:{listener.port}") as caught:
            await serve_quic(until_closed, "127.0.0.1", listener.port, server_settings())
        assert caught.value.errno == errno.EADDRINUSE


async def test_no_server():
    """A port without a server is reported at once, with its name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with trio.fail_after(2), pytest.raises(HandshakeFailed, match=f"no server at localhost:{port}"):
        async with connect_quic("localhost", port, client_settings()):
            pytest.fail("connected without a server")


async def test_a_silent_server_times_out():
    """A server that never answers costs `connect_timeout`, and no more."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with trio.fail_after(2), pytest.raises(ConnectTimeout, match=r"0\.1 s"):
            async with connect_quic("127.0.0.1", silent.getsockname()[1], client_settings(Limits(connect_timeout=0.1))):
                pytest.fail("connected to a silent socket")


class NoNames(trio.abc.HostnameResolver):
    """A resolver that knows no names."""

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, sockaddr, flags):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


async def test_an_unknown_name():
    """A name that does not resolve is a failed handshake that says so."""
    trio.socket.set_custom_hostname_resolver(NoNames())
    with pytest.raises(HandshakeFailed, match=r"'example\.org' is unknown"):
        async with connect_quic("example.org", 1, client_settings()):
            pytest.fail("connected to nowhere")


async def test_no_version_in_common():
    """A server that speaks none of the offered versions is reported with what was offered."""
    async with serving() as listener:
        with pytest.raises(VersionUnsupported) as caught:
            async with connect_quic("127.0.0.1", listener.port, client_settings(alpns=("moq-99", "moq-98"))):
                pytest.fail("agreed on nothing")
        assert caught.value.offered == ("moq-99", "moq-98")


class TestCertificates:
    """Who is trusted."""

    async def refused(self, settings: ClientSettings, **server):
        handled = []

        async def handler(connection):
            handled.append(connection)

        async with serving(handler, **server) as listener:
            with pytest.raises(CertificateInvalid) as caught:
                async with connect_quic("127.0.0.1", listener.port, settings):
                    pytest.fail("trusted")
        assert not handled, "the server's handshake was completed"
        return str(caught.value)

    async def test_a_self_signed_certificate_is_refused(self):
        """By default a certificate must come from a known authority."""
        assert "self-signed" in await self.refused(client_settings(fingerprints=()))

    async def test_a_pinned_certificate_is_refused_when_another_is_shown(self):
        """A certificate that is not the pinned one is refused before the server receives any application data."""
        message = await self.refused(client_settings(fingerprints=(b"\0" * 32,)))
        assert CERTIFICATE.fingerprint.hex() in message

    async def test_a_wrong_name_is_refused(self, tmp_path):
        """A trusted certificate for another name is refused."""
        path = tmp_path / "ca.pem"
        path.write_bytes(CERTIFICATE.certificate_pem())
        await self.refused(client_settings(fingerprints=(), cafile=str(path), server_name="example.org"))

    async def test_an_expired_certificate_is_refused(self, tmp_path):
        """A trusted certificate that is out of date is refused."""
        old = development_certificate(days=1, now=dt.datetime.now(dt.UTC) - dt.timedelta(days=3))
        path = tmp_path / "ca.pem"
        path.write_bytes(old.certificate_pem())
        identity = ServerIdentity(old.certificate, (), old.private_key)
        message = await self.refused(client_settings(fingerprints=(), cafile=str(path)), identity=lambda: identity)
        assert "no longer valid" in message

    async def test_an_authority_of_ones_own(self, tmp_path):
        """A certificate from the given file of authorities is trusted."""
        path = tmp_path / "ca.pem"
        path.write_bytes(CERTIFICATE.certificate_pem())
        async with serving() as listener:
            settings = client_settings(fingerprints=(), cafile=str(path))
            async with connect_quic("127.0.0.1", listener.port, settings) as connection:
                assert connection.protocol == ALPN

    async def test_verification_can_be_switched_off(self):
        """With `verify=False`, and only then, anybody is trusted."""
        async with serving() as listener:
            settings = client_settings(fingerprints=(), verify=False, server_name="example.org")
            async with connect_quic("127.0.0.1", listener.port, settings) as connection:
                assert connection.protocol == ALPN

    async def test_the_certificate_is_asked_for_anew(self):
        """Each new connection is shown the certificate of that moment."""
        renewed = development_certificate()
        shown = [CERTIFICATE, renewed]

        def identity():
            current = shown.pop(0)
            return ServerIdentity(current.certificate, current.chain, current.private_key)

        async with serving(identity=identity) as listener:
            for certificate in (CERTIFICATE, renewed):
                settings = client_settings(fingerprints=(certificate.fingerprint,))
                async with connect_quic("127.0.0.1", listener.port, settings):
                    pass


class TestOwnership:
    """Who owns which task, and what becomes of exceptions."""

    async def test_a_failure_of_the_block_comes_out_bare(self):
        """An exception of the client's block is not wrapped, and the server learns of the close."""
        closed = []

        async def handler(connection):
            closed.append(await connection.wait_closed())

        async with serving(handler) as listener:
            with pytest.raises(KeyError):
                async with connect_quic("127.0.0.1", listener.port, client_settings()):
                    raise KeyError("mine")
            await eventually(lambda: closed)
        assert closed[0].by_peer
        assert closed[0].remote_code == 0

    async def test_no_task_remains(self):
        """After the blocks no task is left over."""
        before = trio.lowlevel.current_statistics().tasks_living
        async with quic_pair() as (client, _):
            await client.open_uni()
        assert trio.lowlevel.current_statistics().tasks_living == before

    async def test_cancelling_the_client_closes_the_connection(self):
        """A client that is cancelled informs the server, also when its clean-up still sends."""
        seen = []

        async def handler(connection):
            stream = await accept_uni(connection)
            seen.append(await read_all(stream))
            seen.append(await connection.wait_closed())

        async with serving(handler) as listener:
            with trio.CancelScope() as scope:
                async with connect_quic("127.0.0.1", listener.port, client_settings()) as client:
                    scope.cancel()
                    try:
                        await trio.sleep_forever()
                    finally:
                        with trio.CancelScope(shield=True):
                            stream = await client.open_uni()
                            stream.write(b"bye", True)
                            await trio.sleep(0.05)
            assert scope.cancelled_caught
            await eventually(lambda: len(seen) == 2)
        assert seen[0] == b"bye"

    async def test_cancelling_the_server_tells_its_peers(self):
        """A server that is cancelled closes its connections; handlers may still send while they clean up."""

        async def handler(connection):
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    (await connection.open_uni()).write(b"bye", True)
                    await trio.sleep(0.05)

        async with trio.open_nursery() as nursery:
            listener = await nursery.start(partial(serve_quic, handler, "127.0.0.1", 0, server_settings()))
            async with connect_quic("127.0.0.1", listener.port, client_settings()) as client:
                await trio.sleep(0.02)
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    assert await read_all(await accept_uni(client)) == b"bye"
                    error = await client.wait_closed()
        assert isinstance(error, SessionClosed)
        assert error.by_peer

    async def test_a_connection_that_is_ready_after_the_server_was_cancelled(self, caplog):
        """It gets no handler while those of others clean up, and is closed with code 0."""
        handled, released, error = [], trio.Event(), None

        async def handler(connection):
            handled.append(connection)
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await released.wait()

        async with trio.open_nursery() as nursery:
            listener = await nursery.start(partial(serve_quic, handler, "127.0.0.1", 0, server_settings()))
            async with connect_quic("127.0.0.1", listener.port, client_settings()):
                await eventually(lambda: handled)
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    async with connect_quic("127.0.0.1", listener.port, client_settings()) as late:
                        with trio.move_on_after(5):
                            error = await late.wait_closed()
                    released.set()
        assert len(handled) == 1
        assert isinstance(error, SessionClosed)
        assert error.remote_code == 0
        assert not caplog.records

    async def test_a_handler_that_fails_ends_its_connection_only(self, caplog):
        """A handler's exception is logged and closes that connection with INTERNAL_ERROR; the listener goes on."""

        async def handler(connection):
            raise RuntimeError("handler bug")

        caplog.set_level(logging.ERROR, "moqt_trio")
        async with serving(handler) as listener:
            for _ in range(2):
                async with connect_quic("127.0.0.1", listener.port, client_settings()) as client:
                    error = await client.wait_closed()
                    assert isinstance(error, SessionClosed)
                    assert error.remote_code == 1
        assert [record.exc_info[1].args for record in caplog.records] == [("handler bug",)] * 2

    async def test_a_handler_that_returns_closes_with_no_error(self):
        """When the handler returns the connection is closed with code 0."""

        async def handler(connection):
            await accept_uni(connection)

        async with (
            serving(handler) as listener,
            connect_quic("127.0.0.1", listener.port, client_settings()) as client,
        ):
            (await client.open_uni()).write(b"x")
            error = await client.wait_closed()
            assert isinstance(error, SessionClosed)
            assert error.remote_code == 0

    async def test_a_handler_that_raises_ends_its_connection_only(self, caplog):
        """An exception in a handler is logged and closes that connection; another one lives on."""

        class Broken(ConnectionHandler):
            def uni_opened(self, stream):
                raise RuntimeError("handler bug")

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
            connections[0].handler = Broken()
            (await one.open_uni()).write(b"x")
            error = await one.wait_closed()
            assert isinstance(error, SessionClosed)
            assert error.remote_code == 1
            await ping_pong(two, connections[1], 3)
        assert "handler bug" in caplog.text

    async def test_a_cancelled_listener_frees_its_port(self):
        """Once `serve_quic` was cancelled the port can be bound again."""
        async with serving() as listener:
            pass
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(("127.0.0.1", listener.port))


async def test_a_mapping_of_codes_holds_for_open_streams():
    """With HTTP/3's mapping on both sides codes arrive as they were sent; without it they show as codepoints."""
    async with quic_pair() as (client, server):
        early = await client.open_uni()
        early.write(b"x")
        reader = await accept_uni(server)
        assert await reader.receive_some() == b"x"
        client.code_mapping = HTTP3_CODES
        early.reset(5)
        with pytest.raises(StreamReset) as caught:
            await reader.receive_some()
        assert caught.value.code == 0x52E4A40FA8DB + 5
        server.code_mapping = HTTP3_CODES
        late = await client.open_uni()
        late.reset(31)
        with pytest.raises(StreamReset) as caught:
            await (await accept_uni(server)).receive_some()
        assert caught.value.code == 31


async def test_statistics():
    """A connection counts its bytes and knows its round trip; a listener counts its connections."""
    async with quic_pair() as (client, server):
        await ping_pong(client, server, 3)
        numbers = client.statistics()
        assert numbers.bytes_sent > 1200
        assert numbers.bytes_received > 1200
        assert 0 < numbers.rtt < 1
        assert numbers.congestion_window > 0
    async with serving() as listener:
        assert listener.statistics().connections == 0
        async with connect_quic("127.0.0.1", listener.port, client_settings()):
            assert listener.statistics().accepted <= 1
        await eventually(lambda: listener.statistics().accepted)
        assert str(listener.port) in repr(listener)


async def test_keep_alive_outlives_the_idle_timeout():
    """A client with nothing to say keeps the connection past the idle timeout."""
    limits = Limits(idle_timeout=0.4, keep_alive=0.1)
    async with quic_pair(limits) as (client, server):
        await trio.sleep(0.9)
        assert client.closed is None
        assert server.closed is None


@pytest.mark.parametrize(
    ("client_limits", "server_limits"),
    [
        (Limits(), Limits(idle_timeout=0.6)),
        (Limits(idle_timeout=0.6), Limits()),
        (Limits(idle_timeout=0.6),) * 2,
        (Limits(keep_alive=math.inf), Limits(idle_timeout=0.6)),
    ],
    ids=["server", "client", "both", "no keep-alive of its own"],
)
async def test_a_shorter_idle_timeout_shortens_the_keep_alive(client_limits, server_limits):
    """With `keep_alive` as it is, a client outlives the smaller of the two sides' idle timeouts."""
    async with quic_pair(server_limits, client_limits=client_limits) as (client, server):
        await trio.sleep(1.5)
        assert client.closed is None
        assert server.closed is None


@pytest.mark.parametrize("size", [1200, 1452, 8 * KIB])
async def test_every_packet_size_carries_streams_and_datagrams(size):
    """The size of packets is a setting, and the largest datagram fits into each."""
    received = []

    async def handler(connection):
        received.append(await receive_datagram(connection))
        received.append(await read_all(await accept_uni(connection)))

    async with (
        serving(handler) as listener,
        connect_quic("127.0.0.1", listener.port, client_settings(Limits(max_packet=size))) as client,
    ):
        await eventually(lambda: client.max_datagram_size == size - 30)
        client.send_datagram(bytes(client.max_datagram_size))
        (await client.open_uni()).write(bytes(100_000), True)
        await client.wait_closed()
    assert [len(data) for data in received] == [size - 30, 100_000]
