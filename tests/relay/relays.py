"""A relay in this process, with publishers and viewers that connect to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

import moqt_trio as moqt
from moqt_trio.testing import MemoryServer, serve_in_memory

VERSIONS = moqt.version_names()
SCHEMES = {"moqt": "moqt://localhost/", "https": "https://localhost/"}


@attrs.define(eq=False)
class Relay:
    """A relay that runs.

    Attributes:
        origin: What its sessions share.
        server: Where to connect.
    """

    origin: moqt.Origin
    server: MemoryServer

    def connect(self, version: str = "moq-lite-06", *, scheme: str = "moqt", path: str = "", **options):
        """Connect a publisher or a viewer."""
        return self.server.connect(SCHEMES[scheme] + path, versions=[version], **options)


@asynccontextmanager
async def relay(origin: moqt.Origin | None = None, **options) -> AsyncIterator[Relay]:
    """Run a relay, for a minute at the most: the ten lines of an application."""
    origin = origin or moqt.Origin()

    async def handle(request: moqt.SessionRequest) -> None:
        async with request.accept(view=origin.view(request.path)) as session:
            await session.wait_closed()

    router = moqt.Router(fallback=handle, default="/")
    with trio.fail_after(60):
        async with serve_in_memory(router, hop_id=origin.hop_id, **options) as server:
            yield Relay(origin, server)


@asynccontextmanager
async def linked(upstream: Relay, downstream: Relay, version: str = "moq-lite-06", **options) -> AsyncIterator[None]:
    """Run a session between two relays, which the downstream one opens."""
    origin = downstream.origin
    async with upstream.connect(version, view=origin.view(), hop_id=origin.hop_id, **options):
        yield
