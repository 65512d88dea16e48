"""A server in memory serves, routes and refuses as one on a port does: each test here runs on both."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import LossyLink, serve_in_memory

CERTIFICATE = moqt.development_certificate()
ALL = moqt.version_names()
SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])
NO_ANSWER_YET = {"moq-lite-03", "moq-lite-04"}
"""Versions whose client learns of a refusal over raw QUIC only by the end of the session."""
TIMEOUT = 10


class Port:
    """A server on a port, with the face of one in memory."""

    def __init__(self, listener):
        self._listener = listener
        self.aclose = listener.aclose

    def connect(self, url, **options):
        scheme, _, rest = url.partition("://localhost")
        return moqt.connect(
            f"{scheme}://localhost:{self._listener.port}{rest}", fingerprint=CERTIFICATE.fingerprint, **options
        )


@asynccontextmanager
async def on_a_port(router, **options):
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, certificate=CERTIFICATE, **options)
        yield Port(await nursery.start(serve, router, "localhost", 0))
        nursery.cancel_scope.cancel()


SERVERS = pytest.mark.parametrize("open_server", [serve_in_memory, on_a_port], ids=["memory", "port"])


async def hold(request):
    async with request.accept() as session:
        await session.wait_closed()


def not_async(request):
    pass


async def outcome(server, url, **options):
    """Returns what `connect` raises, or the end of the session that the server ends."""
    with trio.fail_after(TIMEOUT):
        try:
            async with server.connect(url, **options) as session:
                return await session.wait_closed()
        except moqt.MoqtError as error:
            return error


def status_of(error):
    """Returns the status of a refusal, in whichever form the version has it."""
    return error.status if isinstance(error, moqt.Rejected) else error.remote_code


# -- accepting -------------------------------------------------------------------------------------------------


@SCHEMES
@pytest.mark.parametrize("version", ALL)
async def test_every_version(scheme, version):
    """What a handler publishes reaches a client, in each version and over both transports."""
    seen = []

    async def publish(request):
        broadcast = moqt.Broadcast()
        track = broadcast.track("t", delivery="reliable")
        async with request.accept() as session, session.publish("room/alice", broadcast):
            seen.append((session.version, request.transport, session.transport))
            await track.write(b"hello")
            await session.wait_closed()

    with trio.fail_after(TIMEOUT):
        async with (
            serve_in_memory(publish, versions=[version]) as server,
            server.connect(f"{scheme}://localhost/", versions=[version]) as session,
            session.subscribe("room/alice", "t") as subscription,
        ):
            assert session.version == version
            assert await (await subscription.receive()).read_all() == [b"hello"]
    transport = {"https": "webtransport", "moqt": "quic"}[scheme]
    assert seen == [(version, transport, transport)]


@SERVERS
@SCHEMES
async def test_attributes_of_a_request(open_server, scheme):
    """A handler sees the path, the query, the host, the page's origin, the transport and the version."""
    seen = []

    async def note(request):
        seen.append(request)
        await hold(request)

    options = {"origin": "https://example.org"} if scheme == "https" else {}
    url = f"{scheme}://localhost/my room?token=1"
    async with (
        open_server(moqt.Router({"/my room": note}), origins=["*"]) as server,
        server.connect(url, versions=["moq-lite-06"], **options),
    ):
        pass
    [request] = seen
    assert (request.path, request.query, request.version) == ("/my%20room", "token=1", "moq-lite-06")
    assert request.transport == {"https": "webtransport", "moqt": "quic"}[scheme]
    host = request.authority and request.authority.partition(":")[0]
    assert host == {"https": "localhost", "moqt": None}[scheme]
    assert request.origin == options.get("origin")
    assert request.peer[0] in ("127.0.0.1", "::1")


async def test_a_path_alone():
    """A path is WebTransport to localhost, and `/` when it is left out; the route's handler serves it."""
    seen = []

    async def note(request):
        seen.append((request.path, request.transport, request.authority))
        await hold(request)

    router = moqt.Router({"/": note, "/a": note})
    async with serve_in_memory(router) as server:
        assert server.urls == ("https://localhost/", "moqt://localhost/", "https://localhost/a", "moqt://localhost/a")
        async with server.connect(), server.connect("/a"):
            assert len(server.sessions) == 2
    assert seen == [("/", "webtransport", "localhost:443"), ("/a", "webtransport", "localhost:443")]


async def test_clients_differ():
    """Each client has an address of its own, in `SessionRequest.peer` and in `Session.peer`."""
    async with serve_in_memory(hold) as server, server.connect(), server.connect("moqt://localhost/"):
        assert len({session.peer for session in server.sessions}) == 2


# -- refusing --------------------------------------------------------------------------------------------------


@SERVERS
@SCHEMES
@pytest.mark.parametrize("version", [name for name in ALL if name != "moq-lite-06-wip"])
async def test_refusals(open_server, scheme, version):
    """Refused by the handler or by `Unauthorized`, an unknown path, a handler that fails or never answers: the status
    and the exception are those of a server on a port."""

    async def refuse(request):
        await request.reject(429, "too many")

    async def forbid(request):
        raise moqt.Unauthorized("room")

    async def fail(request):
        raise RuntimeError("before any answer")

    async def forget(request):
        pass

    expected = {"/refuse": 429, "/forbid": 403, "/fail": 500, "/forget": 500, "/elsewhere": 404}
    handlers = {"/refuse": refuse, "/forbid": forbid, "/fail": fail, "/forget": forget}
    late = scheme == "moqt" and version in NO_ANSWER_YET
    for path, status in expected.items():
        # These versions carry no path over raw QUIC.
        default = path if late and path in handlers else None
        async with open_server(moqt.Router(handlers, default=default)) as server:
            error = await outcome(server, f"{scheme}://localhost{path}", versions=[version])
        assert type(error) is (moqt.SessionClosed if late else moqt.Rejected)
        assert status_of(error) == status
        if status == 429:
            assert error.reason == "too many"


@SERVERS
@SCHEMES
@pytest.mark.parametrize("error", [RuntimeError("mine"), moqt.Unauthorized("room")], ids=["failure", "unauthorized"])
async def test_a_handler_that_raises_later(open_server, scheme, error, caplog):
    """After `accept` a failure of the handler ends the session with INTERNAL_ERROR, and is logged with its traceback;
    `Unauthorized` ends it with UNAUTHORIZED. The server goes on."""
    codes = {RuntimeError: moqt.SessionCode.INTERNAL_ERROR, moqt.Unauthorized: moqt.SessionCode.UNAUTHORIZED}

    async def fail(request):
        async with request.accept():
            raise error

    async with open_server(moqt.Router({"/": hold, "/fail": fail})) as server:
        ended = await outcome(server, f"{scheme}://localhost/fail")
        async with server.connect(f"{scheme}://localhost/"):
            pass
    assert isinstance(ended, moqt.SessionClosed)
    assert ended.by_peer
    assert ended.remote_code == codes[type(error)]
    failures = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [record.exc_info[1] for record in failures] == ([error] if isinstance(error, RuntimeError) else [])


@SERVERS
@SCHEMES
@pytest.mark.parametrize("offered", ["moq-lite-03", "moq-lite-02", "gomoqt-develop"])
async def test_no_shared_version(open_server, scheme, offered):
    """Two sides that share no version: VersionUnsupported with both sides' lists."""
    async with open_server(hold, versions=["moq-lite-06", "moq-lite-05"]) as server:
        error = await outcome(server, f"{scheme}://localhost/", versions=[offered])
    assert isinstance(error, moqt.VersionUnsupported)
    assert error.offered == (offered,)
    for name in (offered, "moq-lite-06", "moq-lite-05"):
        assert name in str(error)


@SERVERS
@pytest.mark.parametrize(
    ("options", "origin", "status"),
    [
        ({}, "https://example.org", 403),
        ({"origins": ["https://example.org"]}, "https://example.org", None),
        ({"origins": []}, None, None),
        ({"authorities": ["example.org"]}, None, 421),
    ],
)
async def test_admission(open_server, options, origin, status):
    """A page of another origin and a host that the server does not answer to are refused, as far as it was told."""
    async with open_server(hold, **options) as server:
        if status is None:
            async with server.connect("https://localhost/", origin=origin):
                pass
        else:
            error = await outcome(server, "https://localhost/", origin=origin)
            assert isinstance(error, moqt.Rejected)
            assert error.status == status


async def test_a_host_of_its_own():
    """A URL's host reaches the server in memory, and is what the request names."""
    async with serve_in_memory(hold, authorities=["media.example.org"]) as server:
        async with server.connect("https://media.example.org/"):
            pass
        assert (await outcome(server, "https://other.example.org/")).status == 421


@pytest.mark.parametrize(
    ("router", "error"),
    [({"/": hold}, TypeError), (not_async, TypeError), (hold, ValueError)],
    ids=["mapping", "not async", "version"],
)
async def test_wrong_arguments(router, error):
    """Arguments are checked as those of `serve` and `connect` are."""
    with pytest.raises(error):
        async with serve_in_memory(router, versions=["moq-lite-6"]):
            pass
    async with serve_in_memory(hold) as server:
        with pytest.raises(ValueError, match="https://"):
            async with server.connect("localhost/"):
                pass


# -- the end ---------------------------------------------------------------------------------------------------


@SERVERS
@SCHEMES
async def test_draining(open_server, scheme):
    """`aclose` asks clients to leave by GOAWAY, and refuses new ones with 503 meanwhile."""
    async with open_server(hold) as server, trio.open_nursery() as nursery:
        with trio.fail_after(TIMEOUT):
            async with server.connect(f"{scheme}://localhost/") as session:
                nursery.start_soon(server.aclose)
                assert await session.wait_goaway() == ""
                late = await outcome(server, f"{scheme}://localhost/")
                assert isinstance(late, moqt.Rejected)
                assert late.status == 503


async def test_handlers_end_with_the_block(autojump_clock):
    """At the end of the block handlers finish what they do; those that do not are cancelled after the grace."""
    ended = []

    async def lingering(request):
        async with request.accept() as session:
            await session.wait_closed()
        await trio.sleep(1)
        ended.append("finished")

    async def stuck(request):
        try:
            async with request.accept():
                await trio.sleep_forever()
        finally:
            ended.append("cancelled")

    for handler in (lingering, stuck):
        start = trio.current_time()
        async with serve_in_memory(handler, grace=3) as server, server.connect():
            pass
        assert trio.current_time() - start < 3 + 2 * moqt.Limits().close_timeout
    assert ended == ["finished", "cancelled"]


async def test_a_block_that_fails(autojump_clock):
    """A failure of the block leaves it bare and at once, with every handler cancelled."""
    ended = []

    async def stuck(request):
        try:
            async with request.accept():
                await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    start = trio.current_time()
    with pytest.raises(KeyError):
        async with serve_in_memory(stuck) as server, server.connect():
            raise KeyError("mine")
    assert len(ended) == 1
    assert trio.current_time() - start < moqt.Limits().close_timeout


async def test_no_task_remains():
    """After the block as many tasks run as before, whatever state the clients are in."""
    started = trio.Event()

    async def silent(request):
        started.set()
        await trio.sleep_forever()

    async def wait_for(server):
        async with server.connect():
            pass

    before = trio.lowlevel.current_statistics().tasks_living
    with trio.fail_after(TIMEOUT):
        async with trio.open_nursery() as nursery, serve_in_memory(silent, grace=0) as server:
            nursery.start_soon(wait_for, server)
            await started.wait()
            nursery.cancel_scope.cancel()
        async with serve_in_memory(hold) as server, server.connect(), server.connect("moqt://localhost/"):
            pass
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_after_the_end(autojump_clock):
    """A client that outlives the server's block is disconnected; connecting then fails as without a server."""
    async with trio.open_nursery() as nursery:

        async def stay(server, *, task_status):
            async with server.connect() as session:
                task_status.started(session)
                await session.wait_closed()

        async with serve_in_memory(hold, grace=1) as server:
            session = await nursery.start(stay, server)
        with trio.fail_after(TIMEOUT):
            assert (await session.wait_closed()).by_peer
            assert isinstance(await outcome(server, "/"), moqt.HandshakeFailed)


# -- time ------------------------------------------------------------------------------------------------------


async def test_a_slow_link(autojump_clock):
    """A client's link delays what passes, on the virtual clock; other clients have links of their own."""
    async with serve_in_memory(hold) as server:
        start = trio.current_time()
        async with server.connect("moqt://localhost/", link=LossyLink(delay=1)):
            slow = trio.current_time() - start
            async with server.connect("moqt://localhost/"):
                fast = trio.current_time() - start - slow
    assert slow >= 2
    assert fast < 1


@SCHEMES
async def test_a_handler_that_does_not_answer(scheme, autojump_clock):
    """A server that leaves a client waiting ends its `connect` after the time-out, which costs no real time."""

    async def silent(request):
        await trio.sleep_forever()

    async with serve_in_memory(silent, grace=0) as server:
        start = trio.current_time()
        with pytest.raises(moqt.ConnectTimeout):
            async with server.connect(f"{scheme}://localhost/"):
                pass
        limits = moqt.Limits()
        assert trio.current_time() - start <= limits.connect_timeout + limits.close_timeout
