"""The echo client: `python -m apps.echo.client`.

Publishes messages on the track `text` of the broadcast `japan/kyoto`, one group each, subscribes to the broadcast of
the same path that the server announces on the same session, and compares what comes back.
"""

from __future__ import annotations

import argparse
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import attrs
import trio

import moqt_trio as moqt

from .names import PATIENCE, PORT, PREFIX, ROUTE, TRACK, parse_versions

_DEFAULT_COUNT = 10
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

EXIT_LOST = 1
EXIT_INTERRUPTED = 130


@attrs.define
class Tally:
    """What was sent and what came back.

    Attributes:
        sent: The payload and the time of each message that is not yet back, by group sequence.
        round_trips: Seconds, one for each message that came back unchanged.
        total: Messages sent.
        wrong: Messages that came back changed, twice, or without having been sent.
        finished: True once nothing more will be sent.
    """

    sent: dict[int, tuple[bytes, float]] = attrs.field(factory=dict)
    round_trips: list[float] = attrs.field(factory=list)
    total: int = 0
    wrong: int = 0
    finished: bool = False

    @property
    def complete(self) -> bool:
        """True once everything that was sent, and nothing else, came back."""
        return self.finished and not self.sent and not self.wrong and self.total > 0

    def summary(self) -> str:
        """Returns one line for people."""
        text = f"sent {self.total}, echoed {len(self.round_trips)}, lost {len(self.sent)}"
        if self.wrong:
            text += f", wrong {self.wrong}"
        if self.round_trips:
            ordered = sorted(self.round_trips)
            p50 = ordered[len(ordered) // 2]
            p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
            text += f", round trip p50 {p50 * 1000:.2f} ms, p99 {p99 * 1000:.2f} ms"
        return text


class EchoFailed(Exception):
    """The server is there but does not echo."""


class EchoClient:
    """Sends messages on one session and receives their echoes."""

    def __init__(self, session: moqt.Session, options: argparse.Namespace, tally: Tally) -> None:
        self._session = session
        self._options = options
        self._tally = tally
        self._leaving = trio.CancelScope()

    async def run(self) -> None:
        """Publishes, finds the echo, sends, and waits for what is still on its way."""
        broadcast = moqt.Broadcast()
        text = broadcast.track(TRACK, delivery="reliable", max_age=60.0)
        async with (
            self._session.publish(PREFIX, broadcast),
            self._session.announcements(PREFIX) as announcements,
        ):
            with trio.move_on_after(self._options.timeout) as waiting:
                await self._find_echo(announcements)
                await text.wait_subscribed()
            if waiting.cancelled_caught:
                raise EchoFailed(f"no echo of {PREFIX!r} within {self._options.timeout:g} s; is this the echo server?")
            async with self._session.subscribe(PREFIX, TRACK, max_age=PATIENCE, start_group=0, ordered=True) as echoes:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._watch_goaway)
                    nursery.start_soon(self._send, text)
                    await self._receive(echoes)
                    nursery.cancel_scope.cancel()

    async def _find_echo(self, announcements: moqt.Announcements) -> None:
        wanted = moqt.BroadcastPath.parse(PREFIX)
        async for announcement in announcements:
            if announcement.active and announcement.path == wanted:
                return
        raise EchoFailed("the server announces nothing")

    async def _watch_goaway(self) -> None:
        await self._session.wait_goaway()
        print("the server is shutting down", file=sys.stderr)
        self._leaving.cancel()

    async def _send(self, text: moqt.Track) -> None:
        with self._leaving:
            first = True
            async for payload in _messages(self._options):
                if not first:
                    await trio.sleep(self._options.interval)
                first = False
                group = text.open_group()
                self._tally.sent[group.sequence] = (payload, trio.current_time())
                self._tally.total += 1
                async with group:
                    await group.send(payload)
        self._tally.finished = True
        text.finish()
        self._deadline.deadline = trio.current_time() + self._options.timeout

    async def _receive(self, echoes: moqt.Subscription) -> None:
        with trio.CancelScope() as self._deadline:
            async for group in echoes:
                async for frame in group:
                    self._compare(group.sequence, frame)
                if self._tally.finished and not self._tally.sent:
                    return

    def _compare(self, sequence: int, frame: moqt.Frame) -> None:
        expected = self._tally.sent.get(sequence)
        if expected is None or expected[0] != frame:
            self._tally.wrong += 1
            print(f"{sequence}: unexpected echo {frame.decode('utf-8', 'replace')!r}", file=sys.stderr, flush=True)
            return
        del self._tally.sent[sequence]
        elapsed = trio.current_time() - expected[1]
        self._tally.round_trips.append(elapsed)
        print(f"{sequence}: {frame.decode('utf-8', 'replace')}  ({elapsed * 1000:.2f} ms)", flush=True)


async def _messages(options: argparse.Namespace) -> AsyncIterator[bytes]:
    """Yields what to send: the same text again and again, or the lines of standard input."""
    if not options.read_stdin:
        for number in range(options.count):
            yield options.message.encode() if options.message is not None else f"hello {number}".encode()
        return
    remaining = options.count
    async with trio.wrap_file(sys.stdin) as lines:
        async for line in lines:
            yield line.rstrip("\n").encode()
            if remaining is not None:
                remaining -= 1
                if not remaining:
                    return


def _trusted(options: argparse.Namespace) -> dict[str, object]:
    """Returns what `connect` is to trust: what the flags say, or on this machine our own development certificate."""
    if options.fingerprint:
        return {"fingerprint": options.fingerprint}
    if options.cafile:
        return {"cafile": options.cafile}
    if urlsplit(options.url).hostname in _LOOPBACK:
        own = moqt.DevelopmentCertificates().fingerprints()
        if own:
            return {"fingerprint": own}
    return {}


async def talk(options: argparse.Namespace, tally: Tally) -> int:
    """Connects and runs until everything was sent and echoed, or a signal came.

    Returns:
        The exit code.
    """
    trusted = _trusted(options)
    interrupted = False
    async with trio.open_nursery() as nursery:

        async def watch_signals(*, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
            nonlocal interrupted
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for _ in signals:
                    interrupted = True
                    nursery.cancel_scope.cancel()

        await nursery.start(watch_signals)
        async with moqt.connect(options.url, versions=options.version, **trusted) as session:  # type: ignore[arg-type]
            print(f"connected to {options.url}: {session.version} over {session.transport}", flush=True)
            await EchoClient(session, options, tally).run()
        nursery.cancel_scope.cancel()
    print(tally.summary(), flush=True)
    if interrupted:
        return EXIT_INTERRUPTED
    return 0 if tally.complete else EXIT_LOST


def build_parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.echo.client",
        description="Sends messages to the echo server and prints each one that comes back with its round-trip time.",
        epilog="Exit codes: 0 everything came back, 1 something was lost or failed, 2 wrong usage, 130 interrupted.",
    )
    parser.add_argument(
        "--url",
        default=f"https://localhost:{PORT}{ROUTE}",
        help="https://… for WebTransport, moqt://… for raw QUIC (default: %(default)s)",
    )
    parser.add_argument(
        "--count", type=_count, metavar="N", help=f"messages to send (default: {_DEFAULT_COUNT}, or all of standard input)"
    )
    parser.add_argument(
        "--interval", type=_seconds, default=0.25, metavar="S", help="seconds between messages (default: %(default)s)"
    )
    parser.add_argument(
        "--message",
        metavar="TEXT",
        help="the text to send; '-' sends the lines of standard input, which is also what a pipe or a file "
        "on standard input does when neither --message nor --count is given (default: 'hello N')",
    )
    parser.add_argument(
        "--version",
        type=_versions,
        metavar="NAME",
        help=f"wire version to speak, or several separated by commas (default: {','.join(moqt.version_names())})",
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=10.0, metavar="S", help="seconds to wait for the last echo (default: 10)"
    )
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument("--fingerprint", metavar="HEX", help="trust exactly the certificate with this SHA-256")
    trust.add_argument("--cafile", metavar="FILE", help="PEM file of the authorities to trust")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"a count is a whole number from 1 on, not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"give a number of seconds from 0 on, not {text!r}")
    return seconds


def _versions(text: str) -> list[str]:
    try:
        return parse_versions(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _stdin_has_lines() -> bool:
    """True when standard input is a pipe or a file; a terminal or /dev/null has nothing to send."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def main(arguments: list[str] | None = None) -> int:
    """Runs the client.

    Returns:
        The exit code; see `--help`.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    unsaid = options.message is None and options.count is None
    options.read_stdin = options.message == "-" or (unsaid and _stdin_has_lines())
    if not options.read_stdin and options.count is None:
        options.count = _DEFAULT_COUNT
    tally = Tally()
    code = EXIT_LOST
    try:
        code = trio.run(talk, options, tally)
    except* (moqt.MoqtError, EchoFailed, OSError, ValueError) as group:
        print(f"echo client: {_explain(_first(group), options)}", file=sys.stderr)
        if tally.total:
            print(tally.summary())
    return code


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def _explain(error: BaseException, options: argparse.Namespace) -> str:
    """Returns one line that says what happened and what to do."""
    if isinstance(error, moqt.CertificateInvalid):
        return f"{error}; give the server's own with --fingerprint HEX (it prints it), or its authority with --cafile FILE"
    if isinstance(error, moqt.Rejected) and error.status == 404:
        return f"the server has no path {urlsplit(options.url).path!r}; the echo service is at {ROUTE!r}"
    if isinstance(error, moqt.HandshakeFailed | moqt.ConnectTimeout):
        return f"{error}; is the server running? Start it with: python -m apps.echo.server"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
