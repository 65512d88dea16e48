"""Connecting and serving over real sockets: addresses, versions, refusals and errors."""

from __future__ import annotations

import contextlib
import errno
import socket
from functools import partial

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.transport.sockets import UdpSocket
from tests.api.interrupting import until

SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])
VERSIONS = ("moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03")


async def hold(request: moqt.SessionRequest) -> None:
    async with request.accept() as session:
        await session.wait_closed()


@contextlib.asynccontextmanager
async def serving(handler=hold, host="127.0.0.1", **options):
    """Run a listener for the length of the block."""
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, handler, host, 0, **options))
        yield listener
        nursery.cancel_scope.cancel()


def url_of(listener: moqt.Listener, scheme: str, path: str = "/", host: str = "127.0.0.1") -> str:
    return f"{scheme}://{host}:{listener.port}{path}"


async def failure(url: str, **options) -> BaseException:
    """Return what connecting raises, or how the session was ended by the peer at once."""
    with trio.fail_after(5):
        try:
            async with moqt.connect(url, **options) as session:
                return await session.wait_closed()
        except moqt.MoqtError as error:
            return error


# -- versions and answers --------------------------------------------------------------------------------------


@SCHEMES
@pytest.mark.parametrize("offered", ["moq-lite-03", "moq-lite-02", "gomoqt-develop"])
async def test_no_shared_version(scheme, offered):
    """Two sides that speak MoQ but share no version: VersionUnsupported on both transports, with both sides' lists."""
    async with serving(versions=["moq-lite-06", "moq-lite-05"]) as listener:
        error = await failure(url_of(listener, scheme), versions=[offered], fingerprint=listener.fingerprint)
    assert isinstance(error, moqt.VersionUnsupported)
    assert error.offered == (offered,)
    for name in (offered, "moq-lite-06", "moq-lite-05"):
        assert name in str(error)


@SCHEMES
@pytest.mark.parametrize("version", VERSIONS)
async def test_every_version_is_reached(scheme, version):
    """Each version can be asked for alone, and is what both sides then speak."""
    seen = []

    async def handler(request: moqt.SessionRequest) -> None:
        seen.append((request.version, request.transport))
        await hold(request)

    async with serving(handler) as listener:
        url = url_of(listener, scheme)
        async with moqt.connect(url, versions=[version], fingerprint=listener.fingerprint) as session:
            assert session.version == version
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert listener.statistics().sessions == 1
    assert seen == [(version, "webtransport" if scheme == "https" else "quic")]


@SCHEMES
@pytest.mark.parametrize(
    ("path", "status"), [("/elsewhere", 404), ("/refused", 403), ("/silent", 500), ("/fails", 500)]
)
async def test_refusals(scheme, path, status):
    """Unknown path, refusal, a handler that never answers, one that fails: both transports give the same status."""

    async def refuse(request: moqt.SessionRequest) -> None:
        await request.reject(403, "not you")

    async def silent(request: moqt.SessionRequest) -> None:
        pass

    async def fails(request: moqt.SessionRequest) -> None:
        raise RuntimeError("before any answer")

    router = moqt.Router({"/": hold, "/refused": refuse, "/silent": silent, "/fails": fails})
    async with serving(router) as listener:
        error = await failure(url_of(listener, scheme, path), fingerprint=listener.fingerprint)
        assert isinstance(error, moqt.Rejected)
        assert error.status == status
        if status == 403:
            assert error.reason == "not you"
        assert listener.statistics().sessions_rejected == 1
        assert listener.statistics().sessions == 0


@pytest.mark.parametrize("version", ["moq-lite-03", "moq-lite-04"])
async def test_versions_without_a_path(version):
    """Over raw QUIC these reach the default route, whatever the URL says; a refusal closes them with its status."""
    paths = []

    async def handler(request: moqt.SessionRequest) -> None:
        paths.append(request.path)
        await request.reject(403)

    router = moqt.Router({"/": hold, "/default": handler}, default="/default")
    async with serving(router, versions=[version]) as listener:
        error = await failure(url_of(listener, "moqt", "/other"), fingerprint=listener.fingerprint)
    assert paths == ["/default"]
    assert isinstance(error, moqt.SessionClosed)
    assert error.remote_code == 403


@SCHEMES
async def test_attributes_of_a_request(scheme):
    """Path, query, authority, version and peer reach the handler; over WebTransport the origin does, too."""
    seen: list[moqt.SessionRequest] = []

    async def handler(request: moqt.SessionRequest) -> None:
        seen.append(request)
        await hold(request)

    origin = "https://page.example"
    async with serving(moqt.Router({"/live/room": handler}), origins=[origin]) as listener:
        url = url_of(listener, scheme, "/live/room?jwt=a.b%20c&x=1", host="localhost")
        async with moqt.connect(url, fingerprint=listener.fingerprint, origin=origin):
            await trio.testing.wait_all_tasks_blocked(0.02)
    (request,) = seen
    assert (request.path, request.query) == ("/live/room", "jwt=a.b%20c&x=1")
    assert request.version == "moq-lite-06"
    assert request.peer[0] in ("127.0.0.1", "::1")
    assert "jwt" not in repr(request)
    if scheme == "https":
        assert request.authority == f"localhost:{listener.port}"
        assert request.origin == origin
    else:
        assert request.authority is None
        assert request.origin is None


async def test_a_request_is_answered_once():
    """The second answer is the handler's mistake, and leaves the first as it is; a status that refuses nothing, too."""
    problems: list[Exception] = []

    async def handler(request: moqt.SessionRequest) -> None:
        try:
            await request.reject(200)
        except ValueError as error:
            problems.append(error)
        async with request.accept() as session:
            for answer in (request.accept, partial(request.reject, 403)):
                try:
                    result = answer()
                    if answer is not request.accept:
                        await result
                except moqt.LocalProtocolError as error:
                    problems.append(error)
            await session.wait_closed()

    async with (
        serving(handler) as listener,
        moqt.connect(url_of(listener, "moqt"), fingerprint=listener.fingerprint) as session,
    ):
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert session.closed is None
    assert [type(error) for error in problems] == [ValueError, moqt.LocalProtocolError, moqt.LocalProtocolError]


# -- addresses -------------------------------------------------------------------------------------------------


@SCHEMES
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
async def test_both_loopback_addresses(scheme, host):
    """A listener on localhost is reached by name and by either address; its development certificate covers them all."""
    async with serving(host="localhost") as listener:
        assert {address for address, _ in listener.addresses} == {"::1", "127.0.0.1"}
        async with moqt.connect(url_of(listener, scheme, host=host), fingerprint=listener.fingerprint) as session:
            assert session.peer[1] == listener.port


@SCHEMES
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_localhost_finds_the_one_address_that_serves(scheme, host):
    """`localhost` in a URL works whichever loopback address the server has."""
    async with serving(host=host) as listener:
        url = url_of(listener, scheme, host="localhost")
        async with moqt.connect(url, fingerprint=listener.fingerprint) as session:
            assert session.peer[0] == host


async def test_many_sessions_at_once():
    """WebTransport and raw sessions of several versions run side by side on one port, apart from each other."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable")

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish("b", broadcast):
            await session.wait_closed()

    received: list[bytes] = []

    async def subscriber(url: str, version: str, fingerprint: str) -> None:
        async with moqt.connect(url, versions=[version], fingerprint=fingerprint) as session:
            async with session.announcements() as announcements:
                await announcements.receive()
            async with session.subscribe("b", "t") as subscription:
                received.extend(await (await subscription.receive()).read_all())

    async with serving(handler) as listener, trio.open_nursery() as nursery:
        for version in VERSIONS:
            for scheme in ("https", "moqt"):
                nursery.start_soon(subscriber, url_of(listener, scheme), version, listener.fingerprint)
        await until(lambda: track.subscribers == 2 * len(VERSIONS))
        await track.write(b"to all")
    assert received == [b"to all"] * 2 * len(VERSIONS)


async def test_a_port_in_use():
    """A port that is taken is an OSError that names the address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"127\.0\.0\.1:{port}") as caught:
            await moqt.serve(hold, "127.0.0.1", port)
    assert caught.value.errno == errno.EADDRINUSE


# -- shutting down ---------------------------------------------------------------------------------------------


@SCHEMES
@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-03"])
async def test_a_graceful_shutdown(scheme, version):
    """GOAWAY reaches the client, new sessions are refused, and the end of the client's session ends the shutdown."""
    async with serving() as listener:
        url = url_of(listener, scheme)
        options = {"fingerprint": listener.fingerprint, "versions": [version]}
        async with trio.open_nursery() as nursery, moqt.connect(url, **options) as session:
            await trio.testing.wait_all_tasks_blocked(0.02)
            nursery.start_soon(listener.aclose, 3)
            with trio.fail_after(2):
                if version == "moq-lite-06":
                    assert await session.wait_goaway() == ""
                    refused = await failure(url, **options)
                    assert isinstance(refused, moqt.Rejected)
                    assert refused.status == 503
                else:
                    # It has no GOAWAY: its session is closed instead.
                    error = await session.wait_closed()
                    assert isinstance(error, moqt.SessionClosed)
                    assert error.remote_code == 0
        assert listener.statistics().sessions == 0
        error = await failure(url, **options)
        assert isinstance(error, moqt.HandshakeFailed)


@SCHEMES
async def test_a_client_that_stays(scheme):
    """A client that ignores GOAWAY is closed after the grace."""
    async with (
        serving() as listener,
        moqt.connect(url_of(listener, scheme), fingerprint=listener.fingerprint) as session,
    ):
        await trio.testing.wait_all_tasks_blocked(0.02)
        with trio.fail_after(2):
            await listener.aclose(grace=0.1)
            error = await session.wait_closed()
    assert isinstance(error, moqt.SessionClosed)
    assert error.by_peer


# -- URLs ------------------------------------------------------------------------------------------------------


class _Everywhere(trio.abc.HostnameResolver):
    """Finds every name on this machine."""

    async def getaddrinfo(self, host, port, family=0, type=0, proto=0, flags=0):
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", port or 0))]

    async def getnameinfo(self, sockaddr, flags):
        raise NotImplementedError


@SCHEMES
@pytest.mark.parametrize("path", ["/my room", "/my%20room", "/räume", "/r%C3%A4ume", "/r%c3%a4ume"])
async def test_a_path_in_any_spelling(scheme, path):
    """A path reaches its route percent-coded or not, and the handler sees one form of it over both transports."""
    seen = []

    async def note(request):
        seen.append(request.path)
        await hold(request)

    async with (
        serving(moqt.Router({"/my room": note, "/r%C3%A4ume": note})) as listener,
        moqt.connect(url_of(listener, scheme, path), fingerprint=listener.fingerprint),
    ):
        await until(lambda: seen)
    assert seen == ["/my%20room" if "my" in path else "/r%C3%A4ume"]


@SCHEMES
@pytest.mark.parametrize("path", ["/a%2Fb", "/room/", "/ROOM", "/%72oom"])
async def test_a_path_that_is_another(scheme, path):
    """An encoded slash is no slash, an encoded letter no letter, and neither a trailing slash nor case is ignored."""
    async with serving(moqt.Router({"/a/b": hold, "/room": hold})) as listener:
        error = await failure(url_of(listener, scheme, path), fingerprint=listener.fingerprint)
    assert isinstance(error, moqt.Rejected)
    assert error.status == 404


def test_routes_that_are_one():
    """Two spellings of one path cannot have two handlers."""
    with pytest.raises(ValueError, match="one path"):
        moqt.Router({"/my room": hold, "/my%20room": hold})


@SCHEMES
@pytest.mark.parametrize("host", ["bücher.example", "bücher.example.", "xn--bcher-kva.example"])
async def test_an_international_host(scheme, host):
    """It is looked up, verified and asked for by its A-labels; `authorities` ignores a trailing dot."""
    asked = []

    async def note(request):
        asked.append(request.authority)
        await hold(request)

    trio.socket.set_custom_hostname_resolver(_Everywhere())
    certificate = moqt.development_certificate(["xn--bcher-kva.example"])
    async with serving(note, certificate=certificate, authorities=["xn--bcher-kva.example"]) as listener:
        url = url_of(listener, scheme, host=host)
        async with moqt.connect(url, fingerprint=certificate.fingerprint):
            await until(lambda: asked)
        dot = "." * host.endswith(".")
        assert asked == [None if scheme == "moqt" else f"xn--bcher-kva.example{dot}:{listener.port}"]


@pytest.mark.parametrize("error", [UnicodeError("label too long"), RuntimeError("resolver")])
async def test_a_resolver_that_fails(error):
    """Any error of a resolver is HandshakeFailed, with the error as its cause."""

    class Failing(_Everywhere):
        async def getaddrinfo(self, *arguments, **options):
            raise error

    trio.socket.set_custom_hostname_resolver(Failing())
    with pytest.raises(moqt.HandshakeFailed, match=str(error)) as caught:
        async with moqt.connect("https://media.example/"):
            pytest.fail("connected")
    assert caught.value.__cause__ is error


@SCHEMES
@pytest.mark.parametrize("where", ["connect_udp", "QuicConnection"])
async def test_an_attempt_that_fails(scheme, where, monkeypatch):
    """Any error of an attempt is HandshakeFailed, with the error as its cause, and comes in no group."""
    error = RuntimeError("unforeseen")

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(f"moqt_trio.transport.quic.client.{where}", fail)
    with pytest.raises(moqt.HandshakeFailed, match="unforeseen") as caught:
        async with moqt.connect(f"{scheme}://127.0.0.1:4443/"):
            pytest.fail("connected")
    assert caught.value.__cause__ is error


async def test_a_long_label():
    """A name that no resolver takes is HandshakeFailed."""
    assert isinstance(await failure(f"https://{'a' * 64}.example/"), moqt.HandshakeFailed)


@pytest.mark.parametrize("origin", ["https://bücher.example", "https://a\r\nb: c"])
async def test_an_origin_that_is_none(origin):
    """An origin that no header can carry is a ValueError before anything is sent."""
    with pytest.raises(ValueError, match="A-labels"):
        async with moqt.connect("https://127.0.0.1:4443/", origin=origin):
            pytest.fail("connected")


async def test_a_connection_that_fails(monkeypatch, caplog):
    """An unforeseen error of a connection that is open ends its session with SessionClosed, and is logged."""
    broken = trio.Event()
    read_forever = UdpSocket.read_forever

    async def read_until_broken(self, received, refused=None):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_forever, self, received, refused)
            await broken.wait()
            nursery.cancel_scope.cancel()
        raise RuntimeError("unforeseen")

    async with serving() as listener:
        monkeypatch.setattr(UdpSocket, "read_forever", read_until_broken)
        with trio.fail_after(5):
            url = url_of(listener, "moqt")
            async with moqt.connect(url, fingerprint=listener.fingerprint) as session:
                broken.set()
                assert "the client failed" in str(await session.wait_closed())
    assert [record.exc_info[1].args for record in caplog.records if record.exc_info] == [("unforeseen",)]
