"""Servers in memory with scripted behaviour, for clients that stay connected."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import trio

import moqt_trio as moqt
from moqt_trio.client.reconnect import ReconnectLoop
from moqt_trio.client.redirect import Candidate, RedirectChain
from moqt_trio.tasks import open_unwrapping_nursery
from moqt_trio.testing import session_pair

A, B, C = (f"https://{name}.example/" for name in "abc")
STEADY = moqt.Backoff(retries=4, initial=1.0, factor=2.0, maximum=5.0, jitter=0.0)
NO_SERVER = moqt.HandshakeFailed("no server")

Server = Callable[[moqt.Session], Awaitable[None]]


class AppError(Exception):
    """An application's own failure."""


async def stay(session: moqt.Session) -> None:
    """A server that serves until the client closes, and a client that runs until it is cancelled."""
    await trio.sleep_forever()


async def stay_to_the_end(session: moqt.Session) -> None:
    """A client that runs until its session is over, and returns how it ended."""
    raise await session.wait_closed()


def asks_to_leave(uri: str = "", after: float = 0.0) -> Server:
    """Return a server that sends a GOAWAY, and goes on serving."""

    async def server(session: moqt.Session) -> None:
        await trio.sleep(after)
        await session.goaway(uri)
        await trio.sleep_forever()

    return server


def closes(code: int = 0, after: float = 0.0) -> Server:
    """Return a server that closes the session."""

    async def server(session: moqt.Session) -> None:
        await trio.sleep(after)
        session.close(code, "enough")
        await trio.sleep_forever()

    return server


class Network:
    """Servers at URLs, and a record of what the client did, with the seconds since the test began.

    Each attempt takes the next step of the URL's plan, the last one again and again: an exception is raised, a function
    serves the session.
    """

    def __init__(self, plans: dict[str, list[Server | Exception]]) -> None:
        self._plans = plans
        self._began = trio.current_time()
        self.attempts: list[tuple[float, str]] = []
        self.closed: list[tuple[float, str]] = []

    def now(self) -> float:
        return round(trio.current_time() - self._began, 3)

    @contextlib.asynccontextmanager
    async def open(self, target: Candidate):
        self.attempts.append((self.now(), target.url))
        plan = self._plans[target.url]
        step = plan.pop(0) if len(plan) > 1 else plan[0]
        await trio.lowlevel.checkpoint()
        if isinstance(step, Exception):
            raise step
        try:
            async with session_pair() as (client, server), open_unwrapping_nursery() as nursery:
                nursery.start_soon(step, server)
                yield client
                nursery.cancel_scope.cancel()
        finally:
            self.closed.append((self.now(), target.url))


async def connected(
    network, handler, *, retry=STEADY, retry_first=False, policy=lambda redirect: True, max_redirects=3, limits=None
):
    """What `stay_connected` does, on this network."""
    redirects = RedirectChain(A, policy=policy, max_redirects=max_redirects)
    loop = ReconnectLoop(network.open, handler, redirects=redirects, retry=retry, limits=limits or moqt.Limits())
    return await loop.run(Candidate(A), retry_first=retry_first)
