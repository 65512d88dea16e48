"""The echo's own programs against recorded peers that write their bytes by hand, in the versions that name tracks by
tuples: the server's handler and the client, each over the link in memory, raw QUIC and WebTransport.

The conversations stand in `conversations/`; what is said here is how they are played.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

import moqt_trio as moqt
from apps.echo import client
from apps.echo.messages import read_messages
from apps.echo.options import parse_client_options
from apps.echo.run import EchoRun
from apps.echo.server import echo
from moqt_trio.session.run import admit, requested_path, run_session
from moqt_trio.transport.code_mapping import HTTP3_CODES
from moqt_trio.transport.memory import MemoryConnection, open_memory_pair
from moqt_trio.transport.webtransport.client import open_webtransport
from moqt_trio.wire import dialect as dialects
from tests.transport.quic_pair import CERTIFICATE, client_settings, connect_quic
from tests.transport.webtransport.serving import serving

from .conversations import develop, gomoqt, transfork
from .conversations.peers import ALPN, Peer, TransportPeer, aioquic_peer
from .conversations.replay import Replay
from .conversations.script import Script, ours, peer

LIMITS = moqt.Limits()


@attrs.frozen
class Recording:
    """A conversation to play.

    Attributes:
        version: Its version.
        script: What follows the client's first message.
        hello: The client's first message over raw QUIC.
        hello_with_uri: The same over WebTransport.
    """

    version: str
    script: Script
    hello: str
    hello_with_uri: str

    def lines(self, *, we_serve: bool, webtransport: bool = False) -> Script:
        """Returns the whole of it."""
        says = peer if we_serve else ours
        return (
            says("session", self.hello_with_uri if webtransport else self.hello, "SESSION_CLIENT"),
            *self.script,
        )

    def codes(self, code: int) -> int:
        """Returns what stands for a stream code on raw QUIC: gomoqt has it plain, the others as WebTransport."""
        return code if self.version == "gomoqt-develop" else 0x52E4A40FA8DB + code + code // 30


_DEVELOP = ("gomoqt-develop", develop.HELLO, develop.HELLO_WITHOUT_PATH)
_TRANSFORK = ("moq-transfork-03", transfork.HELLO, transfork.HELLO_WITHOUT_PATH)


def _recording(names: tuple[str, str, str], script: Script) -> Recording:
    return Recording(names[0], script, *names[1:])


SERVED = {
    "develop": _recording(_DEVELOP, develop.WE_SERVE),
    "transfork": _recording(_TRANSFORK, transfork.WE_SERVE),
    "go client": Recording("gomoqt-develop", gomoqt.GO_CLIENT, gomoqt.HELLO, gomoqt.HELLO_WITHOUT_PATH),
    "two slashes": Recording(
        "gomoqt-develop", gomoqt.GO_CLIENT, gomoqt.HELLO_WITH_TWO_SLASHES, gomoqt.HELLO_WITHOUT_PATH
    ),
}
CONNECTED = {
    "develop": _recording(_DEVELOP, develop.WE_CONNECT),
    "transfork": _recording(_TRANSFORK, transfork.WE_CONNECT),
    "go server": _recording(_DEVELOP, gomoqt.GO_SERVER),
}
served = pytest.mark.parametrize("recording", SERVED.values(), ids=SERVED)
connected = pytest.mark.parametrize("recording", CONNECTED.values(), ids=CONNECTED)
written = pytest.mark.parametrize("by_bytes", [False, True], ids=["whole", "by bytes"])


@pytest.fixture(autouse=True)
def no_complaints(caplog):
    """The library finds nothing wrong with what a recorded peer writes."""
    yield
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# -- the programs under test ----------------------------------------------------------------------------------


async def serve_echo(connection: MemoryConnection) -> None:
    """Runs the echo server's handler on a bare connection, after the handshake that raw QUIC has."""
    async with run_session(connection, dialects.resolve(None), limits=LIMITS, admitted=False) as session:

        @asynccontextmanager
        async def accept(view: moqt.OriginView | None) -> AsyncIterator[moqt.Session]:
            await admit(session, view)
            yield session

        await echo(
            moqt.SessionRequest(
                path=requested_path(session),
                query="",
                authority=None,
                origin=None,
                transport="memory",
                version=session.version,
                peer=None,
                accept=accept,
                reject=lambda status, reason: None,
            )
        )
    assert requested_path(session) == "/echo"


def new_run() -> EchoRun:
    """Returns a run of the echo client with two messages, as fast as they go."""
    return EchoRun(parse_client_options(["--count", "2", "--interval", "0"]))


async def converse(session: moqt.Session, run: EchoRun) -> None:
    """Runs the echo client on a session."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run.read, read_messages(run.options))
        await client.echo(run, session)
    run.check()


async def connect_echo(connection: MemoryConnection, version: str, run: EchoRun) -> None:
    """Runs the echo client on a bare connection, after the handshake that raw QUIC has."""
    dialect = dialects.get(version)
    async with run_session(connection, [dialect], limits=LIMITS, path="/echo") as session:
        await converse(session, run)


def check(run: EchoRun) -> None:
    """Both messages came back as they were."""
    counters = run.counters
    assert (counters.sent, len(counters.round_trips), counters.lost, counters.wrong) == (2, 2, 0, 0)


# -- over the link in memory ----------------------------------------------------------------------------------


@served
@written
async def test_server_in_memory(recording, by_bytes, autojump_clock):
    """The echo server writes what was recorded, stream by stream, and nothing where the recording is silent."""
    async with open_memory_pair(protocol=ALPN) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(serve_echo, server)
        replay = Replay(TransportPeer(client), by_bytes=by_bytes, watch_silence=True, codes=recording.codes)
        await replay.run(recording.lines(we_serve=True))


@connected
@written
async def test_client_in_memory(recording, by_bytes, autojump_clock):
    """The echo client writes what was recorded, and finds that every message came back."""
    run = new_run()
    async with open_memory_pair(protocol=ALPN) as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(connect_echo, client, recording.version, run)
        replay = Replay(TransportPeer(server), by_bytes=by_bytes, watch_silence=True, codes=recording.codes)
        await replay.run(recording.lines(we_serve=False))
    check(run)


# -- over raw QUIC --------------------------------------------------------------------------------------------


@asynccontextmanager
async def listening() -> AsyncIterator[moqt.Listener]:
    """Runs the echo server."""
    async with trio.open_nursery() as nursery:
        yield await nursery.start(moqt.serve, moqt.Router({"/echo": echo}), "127.0.0.1", 0)
        nursery.cancel_scope.cancel()


async def play(recorded: Peer, recording: Recording, *, we_serve: bool, by_bytes: bool, webtransport: bool) -> None:
    """Plays a recording in real time."""
    plain = {} if webtransport else {"codes": recording.codes}
    replay = Replay(recorded, by_bytes=by_bytes, watch_silence=False, **plain)
    with trio.fail_after(20):
        await replay.run(recording.lines(we_serve=we_serve, webtransport=webtransport))


@served
@written
async def test_server_over_quic(recording, by_bytes):
    """The same over raw QUIC, from a peer of which no line is of this library."""
    async with listening() as listener, aioquic_peer(is_client=True) as (recorded, _):
        recorded.connect(listener.port)
        with trio.fail_after(5):
            await recorded.ready.wait()
        await play(recorded, recording, we_serve=True, by_bytes=by_bytes, webtransport=False)


@connected
@written
async def test_client_over_quic(recording, by_bytes):
    """The same over raw QUIC, with a server of which no line is of this library."""
    run = new_run()

    async def connect(port: int) -> None:
        url = f"moqt://127.0.0.1:{port}/echo"
        trusted = CERTIFICATE.fingerprint
        async with moqt.connect(url, versions=[recording.version], fingerprint=trusted) as session:
            await converse(session, run)

    async with aioquic_peer(is_client=False) as (recorded, port), trio.open_nursery() as nursery:
        nursery.start_soon(connect, port)
        with trio.fail_after(5):
            await recorded.ready.wait()
        await play(recorded, recording, we_serve=False, by_bytes=by_bytes, webtransport=False)
    check(run)


# -- over WebTransport ----------------------------------------------------------------------------------------


@served
async def test_server_over_webtransport(recording):
    """The same over WebTransport, where the path is in the URI."""
    async with (
        listening() as listener,
        connect_quic(
            "127.0.0.1",
            listener.port,
            client_settings(alpns=("h3",), fingerprints=(bytes.fromhex(listener.fingerprint),)),
        ) as connection,
        open_webtransport(connection, "localhost", "/echo", (), limits=LIMITS) as carrier,
    ):
        carrier.code_mapping = HTTP3_CODES
        await play(TransportPeer(carrier), recording, we_serve=True, by_bytes=False, webtransport=True)


@connected
async def test_client_over_webtransport(recording):
    """The same over WebTransport, from the other side."""
    run = new_run()

    async def accept(request) -> None:
        assert (request.path, request.protocols) == ("/echo", ())
        carrier = request.accept()
        carrier.code_mapping = HTTP3_CODES
        await play(TransportPeer(carrier), recording, we_serve=False, by_bytes=False, webtransport=True)

    async with serving(accept) as server:
        url = f"https://127.0.0.1:{server.port}/echo"
        trusted = CERTIFICATE.fingerprint
        async with moqt.connect(url, versions=[recording.version], fingerprint=trusted) as session:
            await converse(session, run)
    check(run)
    assert not server.failures
