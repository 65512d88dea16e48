"""HTTP/3 requests: one ASGI application under our server or stock hypercorn's, and bare aioquic as the client.

`python -m bench.http3 moqt` and `python -m bench.http3 hypercorn` serve; both show the same certificate. `load` keeps
several requests under way on each of several connections, and counts the answers that came whole.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypercorn.asyncio
import trio
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent
from hypercorn.config import Config

import moqt_trio as moqt

from .bare import Driver, client_configuration, open_socket, tune
from .workloads import Window, add_child_options, run_child, say, until_stdin_ends

BODY = b"x" * 1024
CONNECTIONS = 4
REQUESTS_UNDER_WAY = 8
"""On each connection."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answers every request with 1 KiB."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            event = await receive()
            await send({"type": f"{event['type']}.complete"})
        return
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(BODY))],
        }
    )
    await send({"type": "http.response.body", "body": BODY})


@contextmanager
def certificate_files() -> Iterator[tuple[str, str]]:
    """Writes the certificate that the library shows, and its key, to files for the length of the block."""
    certificate = moqt.DevelopmentCertificates().current()
    with tempfile.TemporaryDirectory() as directory:
        certfile, keyfile = Path(directory, "certificate.pem"), Path(directory, "key.pem")
        certfile.write_bytes(certificate.certificate_pem())
        keyfile.write_bytes(certificate.private_key_pem())
        yield str(certfile), str(keyfile)


async def serve_moqt() -> None:
    """Serves the application with the library until the parent is done."""

    async def no_sessions(request: moqt.SessionRequest) -> None:
        await request.reject(404)

    async def listen(*, task_status: trio.TaskStatus[moqt.Listener]) -> None:
        certificate = moqt.DevelopmentCertificates().current()
        await moqt.serve(no_sessions, "127.0.0.1", 0, certificate=certificate, app=application, task_status=task_status)

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(listen)
        url = next(url for url in listener.urls if url.startswith("https:"))
        say(port=int(url.split(":")[2].partition("/")[0]), fingerprint="")
        await until_stdin_ends()
        nursery.cancel_scope.cancel()


async def serve_hypercorn() -> None:
    """Serves the application with hypercorn's own QUIC listener until the parent is done.

    On hypercorn's worker for asyncio: the one that it uses unless told otherwise, and faster here than that for Trio.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with certificate_files() as (certfile, keyfile):
        config = Config()
        config.loglevel = "WARNING"
        config.graceful_timeout = 0.1
        config.bind = ["127.0.0.1:0"]
        config.quic_bind = [f"127.0.0.1:{port}"]
        config.certfile, config.keyfile = certfile, keyfile
        # Before it listens: the client sends its first packet again until it is answered.
        say(port=port, fingerprint="")
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.buffer.read))
        await hypercorn.asyncio.serve(application, config, shutdown_trigger=lambda: ended)


class Http3Client(Driver):
    """One connection that asks again as soon as it is answered.

    Attributes:
        answered: Answers with status 200 and the whole body.
    """

    def __init__(self, sock: socket.socket, quic: QuicConnection) -> None:
        super().__init__(sock, quic)
        self.answered = 0
        self._http: H3Connection | None = None
        self._bodies: dict[int, int] = {}

    def handle(self, event: QuicEvent) -> None:
        super().handle(event)
        if isinstance(event, HandshakeCompleted):
            self._http = H3Connection(self.quic)
            for _ in range(REQUESTS_UNDER_WAY):
                self._request()
        elif isinstance(event, ConnectionTerminated):
            raise RuntimeError(f"the server closed the connection: {event.error_code:#x} {event.reason_phrase}")
        if self._http is None:
            return
        for answer in self._http.handle_event(event):
            if isinstance(answer, HeadersReceived):
                status = dict(answer.headers)[b":status"]
                if status != b"200":
                    raise RuntimeError(f"the server answered {status!r}")
                self._bodies[answer.stream_id] = 0
            elif isinstance(answer, DataReceived):
                self._bodies[answer.stream_id] += len(answer.data)
                if answer.stream_ended:
                    self._finish(answer.stream_id)

    def _request(self) -> None:
        assert self._http is not None
        self._http.send_headers(
            self.quic.get_next_available_stream_id(),
            [
                (b":method", b"GET"),
                (b":scheme", b"https"),
                (b":authority", b"localhost"),
                (b":path", b"/"),
                (b"user-agent", b"bench"),
                (b"accept", b"*/*"),
            ],
            end_stream=True,
        )

    def _finish(self, stream_id: int) -> None:
        size = self._bodies.pop(stream_id)
        if size != len(BODY):
            raise RuntimeError(f"an answer has {size} bytes, not {len(BODY)}")
        self.answered += 1
        self._request()


async def load(port: int, window: Window) -> None:
    """Loads a server, and says how many requests it answers in a second."""
    clients: list[Http3Client] = []
    async with trio.open_nursery() as nursery:
        for _ in range(CONNECTIONS):
            quic = tune(QuicConnection(configuration=client_configuration(*H3_ALPN)))
            client = Http3Client(open_socket(0), quic)
            quic.connect(("127.0.0.1", port), trio.current_time())
            nursery.start_soon(client.read_socket)
            nursery.start_soon(client.write_socket)
            client.wake()
            await client.connected.wait()
            clients.append(client)
        say(value=await window.rate(lambda: sum(client.answered for client in clients)))
        nursery.cancel_scope.cancel()


def main() -> None:
    """Runs a server or the client."""
    parser = argparse.ArgumentParser(description="A server for HTTP/3, or the client that loads it.")
    parser.add_argument("role", choices=["moqt", "hypercorn", "load"])
    add_child_options(parser)
    arguments = parser.parse_args()
    if arguments.role == "load":
        run_child(arguments.profile, load, arguments.port, Window(arguments.warmup, arguments.duration))
    elif arguments.role == "moqt":
        run_child(arguments.profile, serve_moqt)
    else:
        asyncio.run(serve_hypercorn())


if __name__ == "__main__":
    main()
