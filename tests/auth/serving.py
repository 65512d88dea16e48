"""Auth servers on the loopback interface or on a unix socket, by hypercorn, and relays that ask them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import hypercorn.trio
import trio
from hypercorn.config import Config

import moqt_trio as moqt
from moqt_trio.auth import AuthClient, AuthRequest
from moqt_trio.testing import MemoryServer, serve_in_memory

if TYPE_CHECKING:
    from pathlib import Path

WAIT = 15.0
"""Seconds after which a test that waits has failed."""


@asynccontextmanager
async def http(app: Any, socket: Path | None = None) -> AsyncIterator[str]:
    """Serve an application for the length of the block; yields its URL."""
    config = Config()
    config.bind = ["127.0.0.1:0" if socket is None else f"unix:{socket}"]
    config.errorlog = config.accesslog = None
    config.graceful_timeout = 0.1
    stop = trio.Event()
    with trio.fail_after(WAIT):
        async with trio.open_nursery() as nursery:
            serve = partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait, mode="asgi")
            binds = await nursery.start(serve)
            try:
                yield f"unix://{socket}" if socket else f"{binds[0]}/"
            finally:
                stop.set()
                nursery.cancel_scope.deadline = trio.current_time() + 1


@attrs.define(eq=False)
class Scripted:
    """An auth server that answers what the test says, and keeps what it was asked.

    Attributes:
        answer: Returns the status and the document of an answer to a request that is no `end`; a status of 0 stands for
            no answer at all.
        asked: The requests, in order.
    """

    answer: Callable[[AuthRequest], tuple[int, object]]
    asked: list[AuthRequest] = attrs.Factory(list)
    _changed: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while True:
                kind = (await receive())["type"]
                await send({"type": f"{kind}.complete"})
                if kind == "lifespan.shutdown":
                    return
        assert (scope["method"], dict(scope["headers"])[b"content-type"]) == ("POST", b"application/json")
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        request = AuthRequest.decode_untrusted(body)
        self.asked.append(request)
        self._changed.set()
        self._changed = trio.Event()
        status, document = (204, b"") if request.event == "end" else self.answer(request)
        if not status:
            await trio.sleep_forever()
        text = document if isinstance(document, bytes) else json.dumps(document).encode()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": text})

    async def wait_asked(self, *events: str) -> AuthRequest:
        """Wait until these were the last events, and return the last request."""
        while tuple(request.event for request in self.asked[-len(events) :]) != events:
            await self._changed.wait()
        return self.asked[-1]


@asynccontextmanager
async def relaying(
    origin: moqt.Origin, url: str, *, leased: bool = False, **options: Any
) -> AsyncIterator[MemoryServer]:
    """Run a relay whose clients are admitted by an auth server.

    Args:
        origin: What is shared.
        url: The auth server's.
        leased: True if the handler leases the grant itself, too.
        options: Of `AuthClient`.
    """
    async with AuthClient(url, node="relay-1", **options) as auth:

        async def handle(request: moqt.SessionRequest) -> None:
            grant = await auth.admit(request)
            view = origin.view(request.path, grant=grant)
            async with request.accept(view=view) as session:
                if leased:
                    async with grant.lease(session):
                        await session.wait_closed()
                await session.wait_closed()

        router = moqt.Router(fallback=handle)
        async with serve_in_memory(router, hop_id=origin.hop_id) as server:
            yield server
