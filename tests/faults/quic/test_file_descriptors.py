"""A TCP server without file descriptors."""

from __future__ import annotations

import contextlib
import os
import resource

import trio

from tests.http.serving import WAIT, body_of, curl, serving


async def hello(scope, receive, send):
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@contextlib.contextmanager
def no_descriptors():
    """Leave the process without a free file descriptor."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_want_of_descriptors(caplog):
    """It logs this, goes on, and serves the waiting clients as soon as there are descriptors again."""
    async with serving(hello) as listener:
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_STREAM) as sock:
            with no_descriptors():
                await sock.connect(("127.0.0.1", listener.port))
                with trio.fail_after(WAIT):
                    while "accept" not in caplog.text:
                        await trio.lowlevel.checkpoint()
            with trio.fail_after(WAIT):
                await sock.send(b"GET /certificate.sha256 HTTP/1.1\r\n\r\n")
                assert (await sock.recv(1000)).startswith(b"HTTP/1.1 200 ")
        assert body_of(await curl(f"https://localhost:{listener.port}/")) == "hello"
