"""Who is refused at the door: another host, another page, another path, another protocol."""

from __future__ import annotations

import ssl
from functools import partial

import pytest
import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

import moqt_trio as moqt
from moqt_trio.certificates import development_certificate
from moqt_trio.server.admission import Admission
from tests.peers.aioquic_http3 import connect_http3

CERTIFICATE = development_certificate()
OFFER = (b"wt-available-protocols", b'"moq-lite-06"')


@pytest.fixture
async def start(nursery):
    """Start servers that accept everything on `/echo`, and count the sessions."""
    seen = []

    async def handler(request):
        seen.append((request.transport, request.authority, request.origin))
        async with request.accept() as session:
            await session.wait_closed()

    async def start(**options):
        serve = partial(moqt.serve, certificate=CERTIFICATE, **options)
        listener = await nursery.start(serve, moqt.Router({"/echo": handler}), "localhost", 0)
        return listener, seen

    return start


async def ask(listener, *, authority="localhost", origin=None, path="/echo"):
    """Ask for a session as a browser would, and return the status."""
    headers = (OFFER,) if origin is None else (OFFER, (b"origin", origin.encode()))
    async with connect_http3(listener.port) as peer:
        stream = peer.request(
            path, method="CONNECT", headers=((b":protocol", b"webtransport"), *headers), end=False, authority=authority
        )
        return await peer.status(stream)


async def test_origins(start):
    """A page that is not listed is 403 and reaches no handler; a listed one, and a client that is no browser, pass."""
    listener, seen = await start(origins=["https://good.example", "https://dev.example:8443"])
    for origin, status in [
        ("https://good.example", 200),
        ("HTTPS://Good.Example", 200),
        ("https://dev.example:8443", 200),
        ("https://dev.example", 403),
        ("http://good.example", 403),
        ("https://good.example.evil.example", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
        (None, 200),
    ]:
        assert await ask(listener, origin=origin) == status, origin
    assert [origin for _, _, origin in seen] == [
        "https://good.example",
        "HTTPS://Good.Example",
        "https://dev.example:8443",
        None,
    ]
    assert listener.statistics().sessions_rejected == 6


async def test_no_origins(start):
    """An empty list lets no page in, not even the server's own; a star lets all of them in, and the handler sees which
    it is."""
    listener, seen = await start(origins=[])
    assert await ask(listener, origin="https://good.example") == 403
    assert await ask(listener, origin="https://localhost") == 403
    assert await ask(listener) == 200
    listener, seen = await start(origins=["*"])
    for origin in ("https://any.example", "http://any.example:8080", "null"):
        assert await ask(listener, origin=origin) == 200
        assert seen[-1] == ("webtransport", "localhost", origin)


@pytest.mark.parametrize("origins", [None, ["https://other.example"]])
async def test_same_origin(start, origins):
    """A page of the host and port that it asks for is let in, whatever else is; every other page is 403."""
    listener, seen = await start(origins=origins)
    for origin, authority, status in [
        ("https://localhost:4443", "localhost:4443", 200),
        ("https://LOCALHOST:4443", "localhost:4443", 200),
        ("https://localhost", "localhost", 200),
        ("https://localhost", "localhost:443", 200),
        ("https://[::1]:4443", "[::1]:4443", 200),
        ("https://localhost:4444", "localhost:4443", 403),
        ("https://localhost", "localhost:4443", 403),
        ("http://localhost:4443", "localhost:4443", 403),
        ("https://127.0.0.1:4443", "localhost:4443", 403),
        ("https://evil.example", "localhost:4443", 403),
        ("https://localhost.evil.example:4443", "localhost:4443", 403),
        ("https://", "localhost:4443", 403),
        ("null", "localhost:4443", 403),
        (None, "localhost:4443", 200),
    ]:
        assert await ask(listener, origin=origin, authority=authority) == status, (origin, authority)
    assert len(seen) == 6


async def test_default_ports_in_origins(start):
    """An origin may be listed with its scheme's own port, which no browser sends."""
    listener, _ = await start(origins=["https://good.example:443", "http://dev.example:80"])
    for origin, status in [
        ("https://good.example", 200),
        ("http://dev.example", 200),
        ("https://dev.example", 403),
        ("http://good.example", 403),
    ]:
        assert await ask(listener, origin=origin) == status, origin


async def test_authorities(start):
    """A session for a host that is not served is 421 on every path; a name without a port is good for each."""
    listener, _ = await start(authorities=["good.example", "[::1]:4443"])
    for authority, status in [
        ("good.example", 200),
        ("good.example:9", 200),
        ("GOOD.example", 200),
        ("[::1]:4443", 200),
        ("[::1]", 421),
        ("[::1]:4444", 421),
        ("evil.example", 421),
        ("good.example.evil.example", 421),
    ]:
        assert await ask(listener, authority=authority) == status, authority
    assert await ask(listener, authority="evil.example", path="/nowhere") == 421


async def test_the_wrong_path(start):
    """A session on a path without a route is 404, and 404 comes after 421 and 403."""
    listener, seen = await start(origins=["https://good.example"], authorities=["localhost"])
    assert await ask(listener, path="/nowhere") == 404
    assert await ask(listener, path="/nowhere", origin="https://evil.example") == 403
    assert seen == []


async def test_raw_quic(start):
    """Raw QUIC names neither a host nor a page, and is refused for neither."""
    listener, seen = await start(authorities=["other.example"], origins=[])
    url = f"moqt://localhost:{listener.port}/echo"
    async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint.hex()):
        pass
    assert seen == [("quic", None, None)]


async def test_no_protocol(start):
    """A client that offers no protocol of ours fails in its handshake with no_application_protocol."""
    listener, _ = await start()
    where = ("127.0.0.1", listener.port)
    quic = QuicConnection(
        configuration=QuicConfiguration(is_client=True, alpn_protocols=["http/0.9"], verify_mode=ssl.CERT_NONE)
    )
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock, trio.fail_after(5):
        await sock.connect(where)
        quic.connect(where, trio.current_time())
        while quic._close_event is None:
            for data, _ in quic.datagrams_to_send(trio.current_time()):
                await sock.send(data)
            quic.receive_datagram(await sock.recv(65536), where, trio.current_time())
    assert quic._close_event.error_code == 0x100 + 120


async def test_two_hosts(start):
    """A request that names one host in :authority and another one in Host is 421, session or not; the same host in
    both, whatever its case, is one."""
    listener, seen = await start(authorities=["good.example", "other.example"])
    async with connect_http3(listener.port) as peer:
        for host, status in [(b"other.example", 421), (b"evil.example", 421), (b"Good.Example", 200)]:
            fields = ((b":protocol", b"webtransport"), OFFER, (b"host", host))
            stream = peer.request("/echo", method="CONNECT", headers=fields, end=False, authority="good.example")
            assert await peer.status(stream) == status, host
        plain = peer.request("/", headers=((b"host", b"evil.example"),), authority="good.example")
        assert await peer.status(plain) == 421
        twice = peer.request("/", headers=((b"host", b"good.example"), (b"host", b"x")), authority="good.example")
        assert await peer.status(twice) == 421
    assert [authority for _, authority, _ in seen] == ["good.example"]


@pytest.mark.parametrize("name", ["localhost", "evil.example", None])
async def test_the_name_in_the_handshake(start, name):
    """Not SNI but :authority says which host a session is for: the name in TLS admits and refuses nothing."""
    listener, _ = await start(authorities=["good.example"])
    offer = ((b":protocol", b"webtransport"), OFFER)
    async with connect_http3(listener.port, server_name=name) as peer:
        for authority, status in [("good.example", 200), ("evil.example", 421), ("localhost", 421)]:
            stream = peer.request("/echo", method="CONNECT", headers=offer, end=False, authority=authority)
            assert await peer.status(stream) == status


@pytest.mark.parametrize("path", ["/Echo", "/echo/", "/echo/x", "//echo", "/%65cho", "/echo%2f", "/x/../echo", "/"])
async def test_paths_that_only_look_right(start, path):
    """A route is the path as it is written: no case, slash, dot or escape makes another path of it."""
    listener, seen = await start()
    assert await ask(listener, path=path) == 404
    assert await ask(listener, path="/echo?token=1") == 200
    assert len(seen) == 1


async def test_a_refused_client_may_ask_again(start):
    """A refusal ends neither the connection nor what else is on it."""
    listener, _ = await start(origins=["https://good.example"], authorities=["localhost"])
    async with connect_http3(listener.port) as peer:
        for path, authority, origin, status in [
            ("/nowhere", "localhost", b"https://good.example", 404),
            ("/echo", "localhost", b"https://evil.example", 403),
            ("/echo", "evil.example", b"https://good.example", 421),
            ("/echo", "localhost", b"https://good.example", 200),
        ]:
            fields = ((b":protocol", b"webtransport"), OFFER, (b"origin", origin))
            stream = peer.request(path, method="CONNECT", headers=fields, end=False, authority=authority)
            assert await peer.status(stream) == status
        assert peer.closed_code is None
    assert listener.statistics().sessions_rejected == 3


@pytest.mark.parametrize(
    "origin",
    [
        "good.example",
        "https://",
        "://good.example",
        "https://good.example/",
        "https://a/b",
        "",
        "https://bücher.example",
    ],
)
def test_bad_origin(origin):
    """What is no origin is refused when the server starts, not when a page is."""
    with pytest.raises(ValueError, match="an origin is"):
        Admission(origins=[origin])


@pytest.mark.parametrize("authority", ["", "https://good.example", "good.example/x", "me@good.example"])
def test_bad_authority(authority):
    """What is no authority is refused when the server starts."""
    with pytest.raises(ValueError, match="an authority is"):
        Admission(authorities=[authority])


def test_one_string():
    """One string where a list belongs is refused, as each of its letters would be an entry."""
    with pytest.raises(TypeError, match="list"):
        Admission(origins="https://good.example")
    with pytest.raises(TypeError, match="list"):
        Admission(authorities="good.example")
