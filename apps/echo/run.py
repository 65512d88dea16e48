"""What the echo client keeps while its server redirects it from session to session; what it prints, and how it ends."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import trio

from .. import EXIT_INTERRUPTED
from .counters import Counters
from .errors import EchoFailed, UsageError
from .options import Options, client_parser, host_of

if TYPE_CHECKING:
    import moqt_trio as moqt


class EchoRun:
    """One run of the client.

    Attributes:
        options: The command line.
        counters: What was sent and what came back, over all sessions.
        sessions: Sessions that were opened.
        all_sent: Whether the last message was sent.
        shutting_down: Whether the server sent GOAWAY before the last message was sent, and named no other place.
        done: The scope around everything that connects. It is cancelled when nothing is left for the next session.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.counters = Counters()
        self.sessions = 0
        self.all_sent = False
        self.shutting_down = False
        self.done = trio.CancelScope()
        self._complete = False
        self._url = options.url
        self._unsent: bytes | None = None
        # Without a buffer: a line of standard input is read when the one before it was sent.
        self._input, self._messages = trio.open_memory_channel[bytes](0)

    # -- the messages ------------------------------------------------------------------------------------------

    async def read(self, messages: AsyncGenerator[bytes, None]) -> None:
        """Hand each message to the session that sends. It is a task of its own, which outlives a session."""
        async with self._input, aclosing(messages):
            async for message in messages:
                await self._input.send(message)

    async def next_message(self) -> bytes | None:
        """Return the message to send next, the same one until `note_sent` is called; None when all were sent.

        A session that ends between the two leaves the message to the next session.
        """
        if self._unsent is None:
            try:
                self._unsent = await self._messages.receive()
            except trio.EndOfChannel:
                self.all_sent = True
        return self._unsent

    def note_sent(self) -> None:
        """Count the message as sent."""
        self._unsent = None
        self.counters.sent += 1

    # -- the echoes --------------------------------------------------------------------------------------------

    def note_echoed(self, number: int, frame: moqt.Frame, round_trip: float) -> None:
        """Print and count a message that came back, by its number in the whole run."""
        print(f"{number}: {_text(frame)}  ({round_trip * 1000:.2f} ms)", flush=True)
        self.counters.round_trips.append(round_trip)

    def note_unexpected(self, number: int, frame: moqt.Frame) -> None:
        """Count and print a frame that is not the message with this number, or comes a second time."""
        self.counters.wrong += 1
        print(f"{number}: unexpected echo {_text(frame)!r}", file=sys.stderr, flush=True)

    def note_lost(self, number: int, reason: str) -> None:
        """Print that a message will not come back."""
        print(f"{number}: lost: {reason}", file=sys.stderr, flush=True)

    # -- the sessions ------------------------------------------------------------------------------------------

    def allow_redirect(self, redirect: moqt.Redirect) -> bool:
        """Return True for another port, path or transport of the same host."""
        if redirect.host != host_of(self.options.url):
            return False
        self._url = redirect.to_url
        return True

    def note_opened(self, session: moqt.Session) -> None:
        """Count a session and print where it is."""
        self.sessions += 1
        how = "connected" if self.sessions == 1 else "moved"
        print(f"{how} to {self._url}: {session.version} over {session.transport}", flush=True)

    def note_ended(self, *, goaway_uri: str | None, complete: bool) -> None:
        """Take the outcome of a session whose handler returns.

        Args:
            goaway_uri: What the server's GOAWAY said; None when there was none.
            complete: Whether everything that was sent on the session came back.
        """
        self.shutting_down = goaway_uri == "" and not self.all_sent
        self._complete = self.all_sent and complete
        if goaway_uri is not None and self.all_sent:
            # After a GOAWAY `stay_connected` opens the next session, whatever a handler returns.
            self.done.cancel()

    # -- the end -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise `EchoFailed` unless everything was sent and came back."""
        if self.shutting_down:
            raise EchoFailed(f"the server is shutting down; stopped after {self.counters.sent} messages")
        if not self._complete:
            raise EchoFailed("the server ended the echo before everything came back")
        if not self.counters.sent:
            raise EchoFailed("there is nothing to send: standard input is empty")
        if self.counters.lost or self.counters.wrong:
            raise EchoFailed("not everything came back as it was sent")

    def report(self, failure: BaseException | None, explain: Callable[[BaseException], str]) -> int:
        """Print what failed and the summary; return the exit code. A usage error ends the program with 2.

        Args:
            failure: What ended the run; None when everything came back.
            explain: Returns one line for a failure.
        """
        if isinstance(failure, UsageError):
            client_parser().error(str(failure))
        interrupted = isinstance(failure, KeyboardInterrupt)
        try:
            if failure is not None and not interrupted and not isinstance(failure, BrokenPipeError):
                print(f"echo client: {explain(failure)}", file=sys.stderr, flush=True)
            if self.counters.sent or interrupted:
                print(self.counters.summary(), flush=True)
        except BrokenPipeError:
            # The reader of the output has ended, as `head` does. The interpreter must not fail as it flushes the rest.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        return EXIT_INTERRUPTED if interrupted else 0 if failure is None else 1


def _text(frame: moqt.Frame) -> str:
    return frame.decode("utf-8", "replace")


def print_any_text() -> None:
    """Have characters that the terminal cannot show printed as escapes: their echo is an echo all the same."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
