"""HTTP/3 requests: one ASGI application on this library's server or on hypercorn's own, and aioquic as the client.

`python -m bench.http3 moqt` and `python -m bench.http3 hypercorn` serve, both with the same certificate. `load` keeps
several requests open on each of several connections, and counts the complete responses.
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

from .baseline import Driver, client_configuration, open_socket, tune
from .workloads import Window, add_child_options, run_child, say, until_stdin_ends

BODY = b"x" * 1024
CONNECTIONS = 4
OPEN_REQUESTS = 8
"""On each connection."""


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer every request with 1 KiB."""
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
    """Write the library's certificate and its key to files, and yield their paths; the files go with the block."""
    certificate = moqt.DevelopmentCertificates().current()
    with tempfile.TemporaryDirectory() as directory:
        certfile, keyfile = Path(directory, "certificate.pem"), Path(directory, "key.pem")
        certfile.write_bytes(certificate.certificate_pem())
        keyfile.write_bytes(certificate.private_key_pem())
        yield str(certfile), str(keyfile)


async def serve_moqt() -> None:
    """Serve the application with the library until standard input ends."""

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
    """Serve the application with hypercorn's own QUIC listener until standard input ends.

    On hypercorn's worker for asyncio: its default, and faster here than its worker for Trio.
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
        # Reported before it listens: the client repeats its first packet until there is a reply.
        say(port=port, fingerprint="")
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.buffer.read))
        await hypercorn.asyncio.serve(application, config, shutdown_trigger=lambda: ended)


class Http3Client(Driver):
    """One connection that sends the next request as soon as it has a response.

    Attributes:
        answered: Responses with status 200 and the whole body.
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
            for _ in range(OPEN_REQUESTS):
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
            raise RuntimeError(f"a response has {size} bytes, not {len(BODY)}")
        self.answered += 1
        self._request()


async def load(port: int, window: Window) -> None:
    """Load a server, and report how many requests it answers in a second."""
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
    """Run a server or the client."""
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
