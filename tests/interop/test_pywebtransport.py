"""WebTransport of the newest draft, against `pywebtransport`: another QUIC, HTTP/3 and WebTransport in either role.

It needs a later Python than this project does, so it runs in an environment of its own: `make peers`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trio

from moqt_trio.certificates import development_certificate
from moqt_trio.certificates.pem import certificate_to_pem, key_to_pem
from moqt_trio.errors import HandshakeFailed, SessionClosed
from moqt_trio.limits import Limits
from moqt_trio.transport.webtransport.client import open_webtransport
from tests.interop.processes import PEERS, Child, other_program, shows_output_of
from tests.interop.test_moq_rs_echo import start_echo_server
from tests.transport.awaiting import send_all
from tests.transport.webtransport.serving import check_echoes, connected, read_all, session_to

if TYPE_CHECKING:
    from moqt_trio.transport.webtransport.session import WebTransportSession

PYTHON = Path(sys.prefix) / "peers" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="pywebtransport is not installed: run `make peers`")

MEGABYTE = 1 << 20


def peer(script: str, *arguments: str) -> Child:
    """Starts a script with the peer's interpreter."""
    return other_program(str(PYTHON), str(PEERS / script), *arguments)


def client_of(port: int, path: str, task: str, *protocols: str) -> Child:
    """Starts the WebTransport client with one of its tasks, and with subprotocols to offer."""
    return peer("pywebtransport_client.py", f"https://127.0.0.1:{port}{path}", task, *protocols)


def event_of(process: Child, page: str, name: str) -> dict[str, Any]:
    """Waits for the next event of the server for the session whose query has this page."""
    while True:
        event = process.wait_event(name)
        if event["page"] == page:
            return event


@pytest.fixture(scope="module")
def webtransport_server() -> Iterator[tuple[Child, int]]:
    """A server of ours whose paths do what their names say; its process and its port."""
    with Child("-m", "tests.browser.server", "0") as process:
        yield process, process.wait_event("listening")["port"]


class TestAsClient:
    """pywebtransport connects to a server of ours that knows no MoQ."""

    def run(self, webtransport_server: tuple[Child, int], path: str, task: str) -> list[dict[str, object]]:
        """Runs a task to its end, and returns what it reported, without the first and the last line."""
        process, port = webtransport_server
        with shows_output_of(process), client_of(port, path, task) as client:
            client.wait_event("done")
            assert client.wait_ended() == 0
            events = [json.loads(line) for line in client.lines]
        assert (events[0]["event"], events[-1]["event"]) == ("ready", "done")
        return events[1:-1]

    def test_bidirectional_streams(self, webtransport_server):
        """Streams of the client are echoed: empty, small, of a megabyte, and thirty at once."""
        sizes = (0, 1, 5000, MEGABYTE)
        assert self.run(webtransport_server, "/bidi", "bidi") == [
            *({"event": "echo", "size": size, "same": True} for size in sizes),
            {"event": "together", "same": 30},
        ]

    def test_unidirectional_streams(self, webtransport_server):
        """A megabyte goes to the server on one stream, and comes back on one of the server's."""
        assert self.run(webtransport_server, "/uni", "uni") == [{"event": "echo", "same": True}]

    def test_streams_that_the_server_opens(self, webtransport_server):
        """The server opens a bidirectional stream and reads the answer on it; and sixty unidirectional ones at once."""
        assert self.run(webtransport_server, "/ask", "ask") == [
            {"event": "question", "text": "question?"},
            {"event": "reply", "text": " answer"},
        ]
        assert self.run(webtransport_server, "/many?count=60", "many") == [{"event": "streams", "count": 60}]

    def test_datagrams(self, webtransport_server):
        """Datagrams come back, the empty one included."""
        events = self.run(webtransport_server, "/datagrams", "datagrams")
        assert [event["same"] for event in events] == [True] * 4

    def test_codes_of_the_server(self, webtransport_server):
        """The codes of a reset and of a stop, 32 bits both, arrive as the server gave them."""
        events = self.run(webtransport_server, "/reset?reset=5&stop=4294967295", "codes_of_server")
        assert events == [
            {"event": "read failed", "code": 5},
            {"event": "stream_reset_received", "code": 5},
            {"event": "stream_stop_sending_received", "code": 0xFFFFFFFF},
        ]

    def test_codes_of_the_client(self, webtransport_server):
        """The codes of a reset and of a stop arrive as the client gave them."""
        process, port = webtransport_server
        with shows_output_of(process), client_of(port, "/report-resets?page=codes", "tells_codes") as client:
            event_of(process, "codes", "reading")
            client.tell("")
            assert event_of(process, "codes", "reset")["code"] == 77
            assert event_of(process, "codes", "stopped")["code"] == 0xFFFFFFFF
            client.tell("")
            assert client.wait_ended() == 0

    def test_the_server_closes(self, webtransport_server):
        """The code of 32 bits and the reason of 1024 bytes arrive with the server's close."""
        events = self.run(webtransport_server, "/close?code=4294967295&reason=" + "%C3%A9" * 512, "hears_close")
        assert events == [{"event": "closed", "code": 0xFFFFFFFF, "reason": "é" * 512}]

    def test_the_client_closes(self, webtransport_server):
        """The client's code and its reason of 1024 bytes reach the handler."""
        process, _ = webtransport_server
        self.run(webtransport_server, "/idle?page=closes", "closes")
        end = event_of(process, "closes", "closed")
        assert (end["code"], end["by_peer"]) == (0xFFFFFFFF, True)
        assert end["reason"].startswith("r\\xe9sum\\xe9" * 20)

    def test_negotiation(self, webtransport_server):
        """The offer is read, escapes and all, and the choice arrives."""
        process, port = webtransport_server
        awkward = 'a, "b" \\c'
        offer = ("moq-lite-04", awkward)
        for page, chosen in enumerate(offer):
            path = f"/idle?page={page}&protocol={quote(chosen)}"
            with shows_output_of(process), client_of(port, path, "closes", *offer) as client:
                assert event_of(process, str(page), "session")["protocols"] == list(offer)
                assert client.wait_event("ready")["protocol"] == chosen
                client.wait_event("done")

    def test_no_offer(self, webtransport_server):
        """Without an offer there is no choice, and the session opens."""
        process, port = webtransport_server
        with shows_output_of(process), client_of(port, "/idle", "closes") as client:
            assert client.wait_event("ready")["protocol"] is None

    def test_an_offer_without_a_choice(self, webtransport_server):
        """A server that chooses nothing of an offer is refused by this client, with WT_ALPN_ERROR: so we choose or
        refuse, never neither, wherever there is a version to negotiate on."""
        process, port = webtransport_server
        with shows_output_of(process), client_of(port, "/idle?page=none", "closes", "x") as client:
            assert client.wait_event("refused")["code"] == 0x0817B3DD
            assert event_of(process, "none", "closed")["by_peer"] is True

    @pytest.mark.parametrize("status", [404, 403, 421, 503])
    def test_refusals(self, webtransport_server, status):
        """A session that is refused is H3_REQUEST_REJECTED to this client, whatever the status."""
        process, port = webtransport_server
        with shows_output_of(process), client_of(port, f"/nowhere?status={status}", "closes") as client:
            assert client.wait_event("refused")["code"] == 0x10B

    def test_one_session_at_a_time(self, webtransport_server):
        """This client opens a second session on a connection only where flow control of sessions was agreed on, which
        is not the case; its first session goes on."""
        assert self.run(webtransport_server, "/bidi", "second") == [
            {"event": "second session", "code": 0x11000001},
            {"event": "echo", "text": "still here"},
            {"event": "flow control", "negotiated": False},
        ]


class TestEcho:
    """pywebtransport is a client of the echo server, with MoQ bytes written by hand."""

    @pytest.fixture
    def server(self):
        with Child("-m", "apps.echo.server", "--port", "0", "--log-level", "info") as process:
            yield start_echo_server(process)

    def test_echo(self, server):
        """It publishes with moq-lite-04, finds the echo, and gets every message back as it sent it."""
        url = server.urls["https"]
        with shows_output_of(server.process), peer("pywebtransport_moq_client.py", url, "20") as client:
            texts = {client.wait_event("echo")["text"] for _ in range(20)}
            client.wait_event("done")
            assert client.wait_ended() == 0
        assert texts == {f"message {number} 京都" for number in range(20)}
        assert server.process.terminate() == 0
        assert "Traceback" not in server.process.output

    def test_a_drained_session(self, server):
        """A server that stops drains the session: the client sees it and closes, and the server ends at once."""
        url = server.urls["https"]
        with shows_output_of(server.process), peer("pywebtransport_client.py", url, "drained", "moq-lite-04") as client:
            client.wait_event("waiting")
            server.process.send_signal(signal.SIGTERM)
            client.wait_event("draining")
            client.wait_event("done")
            # The grace is five seconds, but no client is left.
            assert server.process.wait_ended(4) == 0
        assert "Traceback" not in server.process.output


@pytest.fixture(scope="module")
def their_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Child, int]]:
    """A server made with pywebtransport; its process and its port."""
    directory = tmp_path_factory.mktemp("pywebtransport")
    certificate = development_certificate()
    files = (directory / "certificate.pem", directory / "key.pem")
    for file, pem in zip(
        files, (certificate_to_pem(certificate.certificate), key_to_pem(certificate.private_key)), strict=True
    ):
        file.write_bytes(pem)
    # It takes no port 0.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with peer("pywebtransport_server.py", str(port), *(str(file) for file in files)) as process:
        process.wait_event("listening")
        yield process, port


async def check_echo(session: WebTransportSession) -> None:
    """A stream of this session is echoed."""
    stream = await session.open_bidi()
    await send_all(stream, b"session %d" % session.session_id)
    stream.finish()
    assert await read_all(stream) == b"session %d" % session.session_id


class TestAsServer:
    """Our client connects to pywebtransport."""

    async def event(self, their_server, name):
        """Waits for the next event of the server."""
        return await trio.to_thread.run_sync(partial(their_server[0].wait_event, name))

    async def test_streams_and_datagrams(self, their_server):
        """Streams of both kinds and datagrams are echoed; a megabyte passes the session's window several times over."""
        data = os.urandom(6 * MEGABYTE)
        with trio.fail_after(20):
            async with session_to(their_server[1], "/echo", ("first", "second")) as session:
                assert session.protocol == "second"
                await check_echoes(session, data)
        assert (await self.event(their_server, "session"))["offered"] == ["first", "second"]

    async def test_many_streams(self, their_server):
        """Sixty streams at once are echoed: its limits on the streams of a session hold only with flow control."""
        echoed = []
        with trio.fail_after(20):
            async with session_to(their_server[1]) as session, trio.open_nursery() as nursery:

                async def echo(number: int) -> None:
                    stream = await session.open_bidi()
                    await send_all(stream, b"%d" % number)
                    stream.finish()
                    echoed.append(await read_all(stream))

                for number in range(60):
                    nursery.start_soon(echo, number)
        assert sorted(map(int, echoed)) == list(range(60))
        assert (await self.event(their_server, "session"))["flow_control"] is False

    async def test_the_client_resets_and_closes(self, their_server):
        """Our reset, our DRAIN and our close arrive with their codes and reasons."""
        async with session_to(their_server[1]) as session:
            stream = await session.open_bidi()
            await send_all(stream, b"x")
            assert await stream.receive_some() == b"x"
            stream.reset(2024)
            assert (await self.event(their_server, "stream failed"))["code"] == 2024
            session.drain()
            await self.event(their_server, "session_draining")
            await session.aclose(5, "done")
        end = await self.event(their_server, "session_closed")
        assert (end["code"], end["reason"]) == (5, "done")

    async def test_the_server_closes(self, their_server):
        """The server's code and reason end our session."""
        with trio.fail_after(10):
            async with session_to(their_server[1]) as session:
                stream = await session.open_bidi()
                await send_all(stream, b"close")
                error = await session.wait_closed()
        assert isinstance(error, SessionClosed)
        assert (error.remote_code, error.reason, error.by_peer) == (41, "as you wish", True)
        await self.event(their_server, "session_closed")

    async def test_no_second_session(self, their_server):
        """Our client asks for no second session on a connection where the first would not share it."""
        port = their_server[1]
        ask = partial(open_webtransport, authority=f"127.0.0.1:{port}", path="/echo", protocols=(), limits=Limits())
        with trio.fail_after(10):
            async with connected(port) as connection, ask(connection) as session:
                with pytest.raises(HandshakeFailed, match="one session"):
                    async with ask(connection):
                        pytest.fail("opened")
                await check_echo(session)
