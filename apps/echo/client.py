"""The echo client: `python -m apps.echo.client`. README.md, beside this file, draws its conversation with the server.

It publishes messages on the track `text` of the broadcast `japan/kyoto`, one group each, subscribes to the broadcast of
the same path that the server announces on the same session, and compares what comes back.
"""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import AsyncGenerator
from functools import partial

import trio

import moqt_trio as moqt

from .errors import EchoFailed, UsageError, explain_exchange, first_of
from .messages import read_messages
from .names import MAX_AGE, PREFIX, TRACK
from .options import parse_client_options, trusted_fingerprints
from .run import EchoRun, print_any_text
from .signals import raise_interrupt


async def run_client(run: EchoRun, messages: AsyncGenerator[bytes, None]) -> None:
    """Send every message, and return once all of them came back. SIGINT and SIGTERM raise KeyboardInterrupt."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(raise_interrupt, signals)
            nursery.start_soon(run.read, messages)
            await connect(run)
            nursery.cancel_scope.cancel()
    run.check()


async def connect(run: EchoRun) -> None:
    """Open a session and echo on it, and on the next one when the server sends its clients elsewhere (GOAWAY)."""
    options, trusted = run.options, trusted_fingerprints(run.options)
    try:
        with run.done:
            await moqt.stay_connected(
                options.url,
                partial(echo, run),
                redirect=run.allow_redirect,
                retry=None,  # messages are lost with a session that is lost: report that instead of connecting again
                versions=options.version,
                fingerprint=trusted,
                cafile=options.cafile,
                limits=moqt.Limits(connect_timeout=options.timeout, drain_timeout=options.timeout),
            )
    except (ValueError, moqt.CertificateUnusable) as error:
        if run.sessions:
            raise
        raise UsageError(str(error)) from error
    except (moqt.Rejected, moqt.ConnectError, moqt.SessionClosed):
        # After a GOAWAY that names no place, the server that shuts down may have been the last one.
        if not run.shutting_down:
            raise


async def echo(run: EchoRun, session: moqt.Session) -> None:
    """Called by `stay_connected` with each session. After a GOAWAY the next call begins before the last one ends."""
    run.note_opened(session)
    exchange = EchoExchange(run, session)
    await exchange.run()
    run.note_ended(goaway_uri=exchange.goaway_uri, complete=not exchange.pending)


class EchoExchange:
    """The messages of one session, sent and compared with what comes back.

    One task sends, one for each group that comes back receives, and one waits for a GOAWAY, after which nothing more is
    sent. The scope around them ends at a deadline that each echo moves, or as soon as no echo is to come.

    Attributes:
        pending: The message and the time of sending of each group that has not come back, by its sequence.
        goaway_uri: What the server's GOAWAY says, empty for no place in particular; None before one arrives.
    """

    def __init__(self, run: EchoRun, session: moqt.Session) -> None:
        self.pending: dict[int, tuple[bytes, float]] = {}
        self.goaway_uri: str | None = None
        self._run = run
        self._session = session
        self._timeout = run.options.timeout
        # Groups count from 0 on each session; what is printed is the number of the message in the whole run.
        self._first = run.counters.sent
        self._broadcast = moqt.Broadcast()
        self._text = self._broadcast.track(TRACK, delivery="reliable", max_age=60.0)
        self._sending = trio.CancelScope()
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Announce the broadcast, find its echo, subscribe to it, and exchange messages until no more will come."""
        async with self._session.publish(PREFIX, self._broadcast):
            with trio.move_on_after(self._timeout) as waiting:
                await self._session.wait_announced(PREFIX)
                # What is sent before the server has subscribed may not be echoed.
                await self._text.wait_subscribed()
            if waiting.cancelled_caught:
                raise EchoFailed(f"no echo of {PREFIX!r} within {self._timeout:g} s; is this the echo server?")
            async with self._session.subscribe(PREFIX, TRACK, max_age=MAX_AGE, ordered=True) as echoes:
                with self._scope:
                    await self._send_and_receive(echoes)
                if self.pending and self._scope.deadline <= trio.current_time():
                    raise EchoFailed(f"nothing has come back for {self._timeout:g} s")

    async def _send_and_receive(self, echoes: moqt.Subscription) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_on_goaway)
            nursery.start_soon(self._send)
            async with trio.open_nursery() as readers:
                async for group in echoes:
                    # A task for each group: one whose stream is slow or reset must not delay the next one.
                    readers.start_soon(self._receive, group)
            nursery.cancel_scope.cancel()

    async def _stop_on_goaway(self) -> None:
        """Leave what is not sent yet to the next session."""
        self.goaway_uri = await self._session.wait_goaway()
        self._sending.cancel()

    async def _send(self) -> None:
        """Write each message as a group of its own, an interval apart; after the last one the track is finished."""
        due = trio.current_time()
        with self._sending:
            while (message := await self._run.next_message()) is not None:
                await trio.sleep_until(due)
                began = trio.current_time()
                due = began + self._run.options.interval
                try:
                    sequence = await self._text.write(message)
                except ValueError as error:  # it is longer than a frame may be
                    raise EchoFailed(str(error)) from error
                self._run.note_sent()
                self.pending[sequence] = (message, began)
                if len(self.pending) == 1:
                    self._restart_timeout()
        self._text.finish()
        if not self.pending:
            self._restart_timeout()

    async def _receive(self, group: moqt.GroupReader) -> None:
        """Compare a group's frames with the message that was sent under its sequence. A group may be reset."""
        number, reason = self._first + group.sequence, "it came back empty"
        try:
            async for frame in group:
                message, began = self.pending.get(group.sequence, (None, 0.0))
                if frame == message:
                    self._run.note_echoed(number, frame, trio.current_time() - began)
                    del self.pending[group.sequence]
                    self._restart_timeout()
                else:
                    self._run.note_unexpected(number, frame)
        except moqt.StreamReset as error:
            reason = str(error)
        if self.pending.pop(group.sequence, None) is not None:
            self._run.note_lost(number, reason)
            self._restart_timeout()

    def _restart_timeout(self) -> None:
        """Give the next echo its time; end the exchange when none is to come."""
        if self.pending:
            self._scope.deadline = trio.current_time() + self._timeout
        elif self._text.ended:
            self._scope.cancel()
        else:
            self._scope.deadline = math.inf


def main(arguments: list[str] | None = None) -> int:
    """Run the client and return its exit code; see `--help`."""
    run = EchoRun(parse_client_options(arguments))
    print_any_text()
    failure: BaseException | None = None
    try:
        trio.run(run_client, run, read_messages(run.options))
    except* (UsageError, EchoFailed, KeyboardInterrupt, moqt.MoqtError, OSError) as group:
        failure = first_of(group)
    return run.report(failure, partial(explain_exchange, url=run.options.url))


if __name__ == "__main__":
    sys.exit(main())
