"""The echo server as a process, and clients that keep it busy until it asks them to leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import trio

import moqt_trio as moqt
from tests.interop.processes import Child
from tests.interop.test_moq_rs_echo import EchoServer, start_echo_server

GRACE = 5.0
MARGIN = 3.0
"""Seconds for `Limits.close_timeout` and a busy machine."""


@contextmanager
def echo_server(*options: str) -> Iterator[EchoServer]:
    """Run the echo server."""
    with Child("-m", "apps.echo.server", "--port", "0", *options) as process:
        yield start_echo_server(process)


class Talker:
    """A client of ours that echoes all the time; when it is asked to leave it does so, or not.

    Args:
        server: The echo server.
        obedient: Whether it leaves.
        scheme: The scheme of the URL, which is its transport.
        pause: Seconds from an echo to the next message.

    Attributes:
        echoed: How many messages came back.
        started: Set with the first of them.
        asked: Set once the server has asked it to leave.
        end: How its session ended.
    """

    def __init__(self, server: EchoServer, *, obedient: bool, scheme: str = "https", pause: float = 0.0) -> None:
        self._server = server
        self._obedient = obedient
        self._scheme = scheme
        self._pause = pause
        self.echoed = 0
        self.started = trio.Event()
        self.asked = trio.Event()
        self.end: moqt.MoqtError | None = None

    async def run(self) -> None:
        """Echo until it leaves, or the session has ended."""
        async with moqt.connect(self._server.urls[self._scheme], fingerprint=self._server.fingerprint) as session:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch, session, nursery.cancel_scope)
                    await self._echo(session)
            except* (moqt.SessionClosed, moqt.StreamReset, trio.EndOfChannel, trio.ClosedResourceError):
                pass
            if not (self._obedient and self.asked.is_set()):
                with trio.fail_after(GRACE + MARGIN):
                    await session.wait_closed()
        self.end = session.closed

    async def _echo(self, session: moqt.Session) -> None:
        track = (broadcast := moqt.Broadcast()).track("text", delivery="reliable")
        async with session.publish("japan/kyoto", broadcast):
            async with session.announcements("japan/kyoto") as announcements:
                await announcements.receive()
            await track.wait_subscribed()
            async with session.subscribe("japan/kyoto", "text", max_age=60, ordered=True) as echoes:
                while True:
                    await track.write(bytes(1000))
                    await (await echoes.receive()).read_all()
                    self.echoed += 1
                    self.started.set()
                    await trio.sleep(self._pause)

    async def _watch(self, session: moqt.Session, scope: trio.CancelScope) -> None:
        await session.wait_goaway()
        self.asked.set()
        if self._obedient:
            scope.cancel()


async def wait_ended(server: EchoServer, timeout: float) -> int:
    """Wait for the server's exit code."""
    return await trio.to_thread.run_sync(partial(server.process.wait_ended, timeout))
