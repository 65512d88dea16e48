"""Hostile text in requests, handshakes and offers: every logger, at every level, writes short lines of ASCII."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial

import h2.config
import h2.connection
import pytest
import trio
from aioquic.h3.connection import encode_frame

import moqt_trio as moqt
from moqt_trio.session.run import run_session
from moqt_trio.wire import dialect as dialects
from tests.faults.state_wire import protocol_of
from tests.faults.web.test_logs import FIELDS as CREDENTIALS
from tests.faults.web.test_logs import RAW, SECRETS, TARGET, all_text, assert_printable, hold, page
from tests.http.serving import CERTIFICATE, open_tls, serving
from tests.http.test_requests import Http2Peer
from tests.peers.aioquic_http3 import connect_http3
from tests.transport.quic_pair import client_settings, connect_quic
from tests.transport.recorders import eventually
from tests.transport.webtransport.serving import serving as serving_webtransport
from tests.transport.webtransport.serving import session_to

ESCAPES = "\x1b[31mred\x1b]0;title\x07\u202egnp"
"""Without line breaks and NUL, which end a field before it is one."""
OCTETS = ESCAPES.encode()
LONG = OCTETS * 400
OFFER = (b"wt-available-protocols", b'"moq-lite-06"')


@pytest.fixture(autouse=True)
def every_level(caplog):
    """Everything is logged, also by loggers of the libraries that ours uses.

    The library logs aioquic's records at DEBUG. Those above are of aioquic's own, on the side of a test's peer.
    """
    caplog.set_level(logging.DEBUG)
    logging.getLogger("quic").addFilter(only_debug)
    yield
    logging.getLogger("quic").removeFilter(only_debug)


def only_debug(record: logging.LogRecord) -> bool:
    return record.levelno == logging.DEBUG


async def ends(stream) -> None:
    """Read until the server has answered, or has ended the connection."""
    with trio.move_on_after(2):
        try:
            while await stream.receive_some(65536):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
    await trio.aclose_forcefully(stream)


HEADS = {
    "path": b"GET /" + OCTETS + b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    "host": b"GET / HTTP/1.1\r\nhost: " + OCTETS + b"\r\nconnection: close\r\n\r\n",
    "field": b"GET / HTTP/1.1\r\nhost: a\r\nuser-agent: " + OCTETS + b"\r\nconnection: close\r\n\r\n",
    "name of a field": b"GET / HTTP/1.1\r\n" + OCTETS + b": a\r\n\r\n",
    "length": b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: " + OCTETS + b"\r\n\r\n",
    "method": OCTETS + b" / HTTP/1.1\r\nhost: a\r\n\r\n",
    "version": b"GET / " + OCTETS + b"\r\n\r\n",
    "long": b"GET /" + LONG + b" HTTP/1.1\r\nhost: a\r\n\r\n",
    "upgrade": b"GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: "
    + OCTETS
    + b"\r\n\r\n",
    "origin": b"GET /certificate.sha256 HTTP/1.1\r\nhost: a\r\norigin: " + OCTETS + b"\r\n\r\n",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS.keys())
async def test_http1(head, caplog):
    """A request of HTTP/1.1, over TLS and without it."""
    async with serving(page) as listener:
        stream = await open_tls(listener.port)
        await stream.send_all(head)
        await ends(stream)
        plain = await trio.open_tcp_stream("127.0.0.1", listener.port)
        await plain.send_all(head)
        await ends(plain)
    assert_printable(caplog)


async def test_http2(caplog):
    """Requests of HTTP/2, whose fields are lengths and octets: line breaks among them."""
    async with serving(page) as listener:
        for fields in (
            [(":path", f"/{RAW}")],
            [(":authority", RAW)],
            [(":method", RAW)],
            [("user-agent", RAW)],
            [(RAW, "a")],
            [(":protocol", RAW)],
            [("content-length", RAW)],
            [("cookie", RAW)],
        ):
            peer = Http2Peer(await open_tls(listener.port, "h2"))
            configuration = h2.config.H2Configuration(
                client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
            )
            peer.h2 = h2.connection.H2Connection(configuration)
            peer.h2.initiate_connection()
            usual = {":method": "GET", ":scheme": "https", ":authority": "localhost", ":path": "/"}
            peer.h2.send_headers(1, [*(usual | dict(fields)).items()], end_stream=True)
            await peer.flush()
            peer.h2.close_connection(additional_data=RAW.encode()[:200])
            await peer.flush()
            await ends(peer.stream)
    assert_printable(caplog)


FIELDS = [
    {b":path": b"/" + RAW.encode()},
    {b":path": b"/" + OCTETS},
    {b":authority": OCTETS},
    {b":authority": RAW.encode()},
    {b":method": OCTETS},
    {b":protocol": OCTETS, b":method": b"CONNECT"},
    {b"user-agent": RAW.encode()},
    {RAW.encode(): b"a"},
    {b"content-length": OCTETS},
    {b"host": OCTETS},
]
SESSIONS = [
    {b":path": b"/" + OCTETS},
    {b":path": b"/%1b%5b31m%0d%0a" + b"a" * 2000},
    {b":authority": b"\x1b[31m.example"},
    {b":authority": LONG},
    {b"origin": OCTETS},
    {b"origin": LONG},
    {b"wt-available-protocols": b'"' + OCTETS + b'"'},
    {b"wt-available-protocols": b", ".join(b'"%d[31m"' % number for number in range(2000))},
    {b"wt-available-protocols": b'"moq-lite-06", "' + b"x" * 3000 + b'"'},
    {b"sec-webtransport-http3-draft02": OCTETS},
]


async def test_http3(caplog):
    """Ordinary requests, and requests for sessions, of HTTP/3; those that are refused show no credentials either."""
    usual = {b":method": b"GET", b":scheme": b"https", b":authority": b"localhost", b":path": TARGET.encode()}
    usual |= {name.encode(): value.encode() for name, value in CREDENTIALS}
    session = {**usual, b":method": b"CONNECT", b":protocol": b"webtransport", OFFER[0]: OFFER[1]}
    async with serving(page, hold, authorities=["localhost"], origins=["https://good.example"]) as listener:
        for request in [usual | fields for fields in FIELDS] + [session | fields for fields in SESSIONS]:
            async with connect_http3(listener.port) as peer:
                number = peer.quic.get_next_available_stream_id()
                pseudo = sorted(request.items(), key=lambda line: not line[0].startswith(b":"))
                # Below the checks that a client makes of its own fields.
                block = peer.h3._encode_headers(number, pseudo)
                peer.write(number, encode_frame(0x01, block), end=b":protocol" not in request)
                with trio.move_on_after(2):
                    await peer.wait(
                        lambda peer=peer, number=number: (
                            peer.closed_code is not None
                            or peer.reset_code(number) is not None
                            or peer.headers_of(number) is not None
                        )
                    )
    assert "refused" in caplog.text
    assert "no version shared" in caplog.text
    assert_printable(caplog)
    for secret in SECRETS:
        assert secret not in "\n".join(all_text(caplog))


@pytest.mark.parametrize("how", ["raises", "returns"])
async def test_a_handler_of_webtransport(how, caplog):
    """Where the handler of a session fails without an answer, the session is named without its query."""

    async def handler(request) -> None:
        if how == "raises":
            raise RuntimeError("a bug")

    async with serving_webtransport(handler, failing=True) as served:
        with pytest.raises(moqt.Rejected):
            async with session_to(served.port, f"/%1b{TARGET}"):
                pass
    assert "/%1b/page?..." in caplog.text
    assert "handler" in caplog.text
    assert_printable(caplog)
    for secret in SECRETS:
        assert secret not in "\n".join(all_text(caplog))


@pytest.mark.parametrize("alpn", ["\x1b[31mred", "a\r\nERROR forged line", "x" * 255])
async def test_offers_in_a_handshake(alpn, caplog):
    """Names of protocols and of servers in the TLS of QUIC and of TCP, of which no session comes."""
    async with serving(page) as listener:
        with pytest.raises(moqt.VersionUnsupported):
            async with connect_quic("127.0.0.1", listener.port, client_settings(alpns=(alpn,), server_name="\x1b[31m")):
                pass
        # Over TCP this is HTTP/1.1 without a word of it.
        stream = await open_tls(listener.port, alpn)
        await stream.send_all(b"\x1b[31m\r\n\r\n")
        await ends(stream)
    assert_printable(caplog)


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-02", "moq-transfork-03"])
async def test_paths_over_raw_quic(version, caplog):
    """The path in a SETUP or in a handshake, of a session that is accepted and of one that is not."""
    settings = client_settings(alpns=(protocol_of(version),), fingerprints=(CERTIFICATE.fingerprint,))
    router = moqt.Router({f"/{RAW}": hold})
    serve = partial(moqt.serve, certificate=CERTIFICATE, versions=[version])
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(serve, router, "localhost", 0)
        for path in (f"/{RAW}", f"/{RAW}?{RAW}", f"/{RAW}/"):
            async with connect_quic("127.0.0.1", listener.port, settings) as connection:
                with suppress(moqt.SessionClosed):
                    # A refusal may come before the server's answer in the handshake.
                    async with run_session(connection, [dialects.get(version)], limits=moqt.Limits(), path=path):
                        if path.endswith("/"):
                            await connection.wait_closed()
                        else:
                            await eventually(lambda: listener.sessions)
            await eventually(lambda: not listener.sessions)
        nursery.cancel_scope.cancel()
    assert caplog.text.count("ended after") == 2
    assert_printable(caplog)
