"""Servers that redirect a client to forbidden targets: hostile URIs, private networks, names that change, loops.

Every client here allows every redirect by its policy, so that the library refuses. The servers are on loopback.
"""

from __future__ import annotations

import contextlib
import socket
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.client.redirect import Candidate, RedirectChain
from moqt_trio.transport.quic import client as dial
from tests.faults.quic_hostile import varint

GOAWAY_STREAM = b"\x05"


def goaway(uri: bytes) -> bytes:
    """Return a goaway stream as draft-lcurley-moq-lite-06, section 7.18, lays it out, whatever the URI is."""
    return GOAWAY_STREAM + varint(len(varint(len(uri))) + len(uri)) + varint(len(uri)) + uri


def anywhere(redirect: moqt.Redirect) -> bool:
    return True


@contextlib.asynccontextmanager
async def serving(handler):
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0))
        yield listener
        nursery.cancel_scope.cancel()


def leads_to(uri: str | bytes):
    """Return a server that redirects its clients to a URI of these bytes."""

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            stream = await session._context.connection.open_bidi()
            stream.write(goaway(uri.encode() if isinstance(uri, str) else uri))
            await session.wait_closed()

    return handler


async def until_the_end(session: moqt.Session) -> None:
    """A client that ends its session after a GOAWAY."""
    await session.wait_goaway()


@pytest.fixture
def dialled(monkeypatch):
    """The addresses that sockets were connected to, in order."""
    addresses = []
    real = dial.connect_udp

    def connect_udp(family, address):
        addresses.append(address[:2])
        return real(family, address)

    monkeypatch.setattr(dial, "connect_udp", connect_udp)
    return addresses


class Names(trio.abc.HostnameResolver):
    """A name service for the test: each name has answers that are given in turn, the last one again and again."""

    def __init__(self, answers: dict[str, list[list[str]]]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        await trio.lowlevel.checkpoint()
        name = host.decode()
        self.asked.append(name)
        answers = self._answers[name]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_DGRAM, 17, "", (address, port))
            for address in found
        ]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError

    @contextlib.contextmanager
    def installed(self):
        """Answer every look-up for a name for the length of the block."""
        before = trio.socket.set_custom_hostname_resolver(self)
        try:
            yield self
        finally:
            trio.socket.set_custom_hostname_resolver(before)


async def outcome(listener: moqt.Listener, scheme: str = "moqt", **options) -> BaseException:
    """Return the exception of `stay_connected`."""
    with trio.fail_after(5), pytest.raises(moqt.MoqtError) as caught:
        await moqt.stay_connected(
            f"{scheme}://127.0.0.1:{listener.port}/?jwt=secret",
            until_the_end,
            redirect=anywhere,
            fingerprint=listener.fingerprint,
            retry=None,
            **options,
        )
    return caught.value


NO_URI = [
    "http://relay.example/",
    "HTTP://127.0.0.1:80/",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "data:text/plain,x",
    "ws://relay.example/",
    "gopher://127.0.0.1:70/",
    "https:relay.example",
    "https:///path",
    "https://",
    "moqt:",
    ":",
    "//127.0.0.1/",
    "/other",
    "other",
    "../..",
    "nonsense",
    " https://relay.example/",
    "https://relay.example/ x",
    "https://relay.example/\r\nHost: evil.example",
    "ht\ntps://relay.example/",
    "https://relay.example\x00.evil.example/",
    "\x00",
    "https://relay.example\\@evil.example/",
    "https://user@relay.example/",
    "https://user:password@127.0.0.1/",
    "https://relay.example/#fragment",
    "https://relay.example:0/",
    "https://relay.example:65536/",
    "https://relay.example:-1/",
    "https://relay.example:4x/",
    "https://[::1/",
    "https://[fe80::1%25eth0]/",
    "https://[nonsense]/",
    "https://[v1.x]/",
    "https://a..b/",
    "https://.example/",
    "https://" + "a" * 64 + ".example/",
    "https://" + "a." * 200 + "example/",
    "https://rel%61y.example/",
    "https://réseau.example/",
    "https://127。0。0。1/",
    "\u202ehttps://relay.example/",
    "https://relay.example/" + "a" * 8200,
]


@pytest.mark.parametrize("uri", NO_URI, ids=lambda uri: ascii(uri)[:40])
def test_what_is_no_place(uri):
    """An invalid URI is refused before a policy is called, in one line of ASCII that says why and does not have this
    client's query."""

    def never(redirect: moqt.Redirect) -> bool:
        raise AssertionError("asked")

    home = "https://relay.example/live?jwt=secret"
    with pytest.raises(moqt.RedirectRefused) as caught:
        RedirectChain(home, policy=never).follow(Candidate(home), uri, sender="8.8.8.8")
    message = str(caught.value)
    assert "secret" not in message
    assert message.isascii()
    assert message.isprintable()
    assert len(message) < 800


@pytest.mark.parametrize("scheme", ["moqt", "https"])
@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1/", "file:///etc/passwd", "javascript:alert(1)", "/other", "\x00", "nonsense"]
)
async def test_what_is_no_place_over_the_wire(scheme, uri, dialled):
    """The same from a real server: the session is closed, no connection is opened (moq-lite-06, section 7.18)."""
    async with serving(leads_to(uri)) as listener:
        error = await outcome(listener, scheme)
        assert dialled == [("127.0.0.1", listener.port)]
        assert listener.statistics().sessions_accepted == 1
    assert isinstance(error, moqt.RedirectRefused)
    assert "secret" not in str(error)


@pytest.mark.parametrize("uri", [b"https://relay.example/" + b"a" * 10_000, b"https://\xff.example/"])
async def test_what_does_not_decode(uri, dialled):
    """A URI of more than 8,192 bytes, and one that is not UTF-8, break the protocol: the session is closed for that."""
    async with serving(leads_to(uri)) as listener:
        error = await outcome(listener)
    assert isinstance(error, moqt.SessionClosed)
    assert not error.by_peer
    assert error.local_code == moqt.SessionCode.PROTOCOL_VIOLATION
    assert len(dialled) == 1


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "10.0.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "[::]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
    ],
)
async def test_inner_addresses(host, dialled):
    """A policy that allows everything does not allow the networks around a client, in whatever way an address is
    written; no datagram is sent there."""
    async with serving(leads_to(f"moqt://{host}:4443/")) as listener:
        error = await outcome(listener)
        assert dialled == [("127.0.0.1", listener.port)]
    assert isinstance(error, moqt.RedirectRefused)
    assert "redirect_networks" in str(error)


@pytest.mark.parametrize(
    "addresses", [["169.254.169.254"], ["10.0.0.1", "fd00::1"], ["::ffff:10.0.0.1"], ["0.0.0.0"], []]
)
async def test_names_of_inner_addresses(addresses, dialled):
    """A name is checked by its addresses; the error shows them."""
    names = Names({"inner.example": [addresses]})
    async with serving(leads_to("moqt://inner.example:4443/")) as listener:
        with names.installed():
            error = await outcome(listener)
        assert dialled == [("127.0.0.1", listener.port)]
    assert isinstance(error, moqt.RedirectRefused)
    assert all(address in str(error) for address in addresses)
    assert names.asked == ["inner.example"]


async def test_a_name_that_changes(dialled):
    """A name is looked up once: the checked addresses are connected to, not those that it resolves to later."""
    names = Names({"turning.example": [["169.254.1.1", "127.0.0.1"], ["169.254.169.254"]]})
    arrived = trio.Event()

    async def hall(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            arrived.set()
            await session.wait_closed()

    async def handler(session: moqt.Session) -> None:
        if not arrived.is_set():
            await session.wait_goaway()

    async with serving(hall) as second, serving(leads_to(f"moqt://turning.example:{second.port}/")) as first:
        with names.installed(), trio.fail_after(5):
            await moqt.stay_connected(
                f"moqt://127.0.0.1:{first.port}/", handler, redirect=anywhere, fingerprint=first.fingerprint
            )
        assert dialled == [("127.0.0.1", first.port), ("127.0.0.1", second.port)]
    assert arrived.is_set()
    assert names.asked == ["turning.example"]


async def test_named_networks(dialled):
    """An address that the caller allows is connected to: here it gets as far as the handshake."""
    async with serving(leads_to("moqt://169.254.169.254:4443/")) as listener:
        limits = moqt.Limits(connect_timeout=0.3)
        error = await outcome(listener, redirect_networks=["169.254.0.0/16"], limits=limits)
    assert isinstance(error, moqt.ConnectError)
    assert not isinstance(error, moqt.RedirectRefused)
    assert dialled[1:] == [("169.254.169.254", 4443)]


async def test_a_name_that_does_not_resolve(dialled):
    """A target whose name does not resolve is a failure to connect."""

    class Unknown(Names):
        async def getaddrinfo(self, *arguments, **options):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with serving(leads_to("moqt://nowhere.example/")) as listener:
        with Unknown({}).installed():
            error = await outcome(listener)
    assert isinstance(error, moqt.HandshakeFailed)
    assert "nowhere.example" in str(error)


@pytest.mark.parametrize("scheme", ["moqt", "https"])
async def test_a_loop(scheme):
    """Two servers that redirect a client to each other do so three times, and not again."""
    places: dict[int, str] = {}

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            await session.goaway(places[int(request.path[1:])])
            await session.wait_closed()

    router = moqt.Router({"/1": handler, "/2": handler})
    async with serving(router) as first, serving(router) as second:
        places |= {1: f"{scheme}://127.0.0.1:{second.port}/2", 2: f"{scheme}://127.0.0.1:{first.port}/1"}
        with trio.fail_after(5), pytest.raises(moqt.RedirectRefused) as caught:
            await moqt.stay_connected(places[2], until_the_end, redirect=anywhere, fingerprint=first.fingerprint)
        accepted = [listener.statistics().sessions_accepted for listener in (first, second)]
    assert caught.value.chain == (places[2], places[1], places[2], places[1], places[2])
    assert " -> ".join(caught.value.chain) in str(caught.value)
    assert accepted == [2, 2]


async def test_a_second_goaway():
    """A second GOAWAY breaks the protocol, also during the redirect; its URI is not followed."""
    hold = trio.Event()

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            for uri in (b"", b"moqt://169.254.169.254/"):
                stream = await session._context.connection.open_bidi()
                stream.write(goaway(uri))
            closed = await session.wait_closed()
            assert closed.remote_code == moqt.SessionCode.PROTOCOL_VIOLATION
            hold.set()

    served = []

    async def first_time_only(request: moqt.SessionRequest) -> None:
        served.append(request)
        if len(served) > 1:
            await request.reject(403)
        else:
            await handler(request)

    async with serving(first_time_only) as listener:
        error = await outcome(listener)
        with trio.fail_after(5):
            await hold.wait()
    # Both may arrive at once: then the session is lost before the client follows the first.
    if isinstance(error, moqt.SessionClosed):
        assert error.local_code == moqt.SessionCode.PROTOCOL_VIOLATION
        assert len(served) == 1
    else:
        assert isinstance(error, moqt.Rejected)
        assert len(served) == 2
