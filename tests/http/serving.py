"""A server with an ASGI application on one port, and the clients that visit it: curl, and TLS sockets."""

from __future__ import annotations

import logging
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.certificates import development_certificate

CERTIFICATE = development_certificate()
WAIT = 10.0
"""Seconds after which a test that waits has failed."""


async def refuse(request: moqt.SessionRequest) -> None:
    """Answer every session with 404."""
    await request.reject(404)


@asynccontextmanager
async def serving(app: Any, router: Any = None, **options: Any) -> AsyncIterator[moqt.Listener]:
    """Serve an application on loopback for the length of the block."""
    options.setdefault("certificate", CERTIFICATE)
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, app=app, **options)
        listener = await nursery.start(serve, router or moqt.Router({"/session": refuse}), "localhost", 0)
        try:
            yield listener
        finally:
            with trio.CancelScope(deadline=trio.current_time() + WAIT, shield=True):
                await listener.aclose(grace=0)
        nursery.cancel_scope.cancel()


async def curl(url: str, *arguments: str, check: bool = True) -> str:
    """Return what curl prints: the answer's head, an empty line, and its body."""
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here: apt install curl")
    command = ["curl", "--silent", "--show-error", "--include", "--insecure", "--max-time", "10", *arguments, url]
    done = await trio.run_process(command, capture_stdout=True, check=check)
    return done.stdout.decode()


def fields_of(answer: str, name: str) -> list[str]:
    """Return the values of a field in what curl printed."""
    head = answer.replace("\r\n", "\n").partition("\n\n")[0]
    pairs = (line.partition(":") for line in head.splitlines()[1:])
    return [value.strip() for key, _, value in pairs if key.lower() == name]


def body_of(answer: str) -> str:
    """Return the body in what curl printed."""
    return answer.replace("\r\n", "\n").partition("\n\n")[2]


async def open_tls(port: int, alpn: str = "http/1.1", *, receive_buffer: int | None = None) -> trio.SSLStream[Any]:
    """Connect to a server over TLS, without checking its certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([alpn])
    sock = trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_STREAM)
    if receive_buffer is not None:
        sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
    await sock.connect(("127.0.0.1", port))
    stream = trio.SSLStream(trio.SocketStream(sock), context, server_hostname="localhost", https_compatible=True)
    await stream.do_handshake()
    return stream


async def read_until(stream: trio.abc.ReceiveStream, mark: bytes) -> bytes:
    """Read until a mark, which must come, and return everything up to what was read with it."""
    data = b""
    with trio.fail_after(WAIT):
        while mark not in data:
            piece = await stream.receive_some(65536)
            assert piece, f"the stream ended after {data!r}"
            data += piece
    return data


async def read_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Read to the end."""
    data = b""
    with trio.fail_after(WAIT):
        while piece := await stream.receive_some(65536):
            data += piece
    return data


def records_of(name: str) -> tuple[logging.Logger, list[str]]:
    """Return a logger, and a list of the messages that it is given."""
    messages: list[str] = []
    logger = logging.Logger(name)

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger.addHandler(Keep())
    return logger, messages


async def pass_lifespan(receive: Any, send: Any) -> None:
    """Complete each step of the lifespan as it comes, as an application with nothing to start does."""
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})
