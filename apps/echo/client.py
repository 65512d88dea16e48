"""The echo client: `python -m apps.echo.client`.

Publishes messages on the track `text` of the broadcast `japan/kyoto`, one group each, subscribes to the broadcast of
the same path that the server announces on the same session, and compares what comes back. When the server sends it to
another port or path of the same host, it goes on there. The command line, and what people read when something fails,
are here; the talking is in `conversation.py`, and what a move takes along in `moving.py`.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from urllib.parse import urlsplit

import trio

import moqt_trio as moqt

from .conversation import EchoFailed
from .lines import is_pipe_or_file, read_lines
from .moving import Journey, Talk
from .names import PORT, ROUTE, first_of, parse_versions, versions_for_help
from .tally import Tally

_DEFAULT_COUNT = 10
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_STDIN = 0

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

_EPILOG = f"""\
{versions_for_help()}

examples:
  python -m apps.echo.client --url moqt://localhost:4443/echo
  python -m apps.echo.client --message "good morning" --count 3
  printf 'one\\ntwo\\n' | python -m apps.echo.client --interval 0

Each message goes out as a group of its own. At the end a line says how many
were sent, echoed and lost, with the median (p50) and the 99th percentile (p99)
of the round trips.

When the server sends its clients to another port or path of the same host, the
client goes on there with what is left to send.

On localhost the development certificate of a server that the same account
runs is trusted by its fingerprint. Any other certificate has to come from one
of the usual authorities, or be named with --fingerprint or --cafile.

exit codes: 0 everything came back, 1 something was lost or failed, 2 wrong
usage, 130 interrupted
"""


class UsageError(Exception):
    """A value on the command line is no good; the message names it."""


async def talk(options: argparse.Namespace, tally: Tally) -> None:
    """Connects and runs until everything was sent and echoed.

    Raises:
        KeyboardInterrupt: A signal came.
        UsageError: A value on the command line is no good.
        EchoFailed: Not everything was echoed.
        moqt.MoqtError: No session came about, or it ended early.
    """
    interrupted = False
    trusted = _trusted(options)
    async with trio.open_nursery() as nursery:

        async def watch_signals(*, task_status: trio.TaskStatus[None]) -> None:
            nonlocal interrupted
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                task_status.started()
                async for _ in signals:
                    interrupted = True
                    nursery.cancel_scope.cancel()

        await nursery.start(watch_signals)
        journey = Journey(options.url, tally, interval=options.interval, timeout=options.timeout)
        nursery.start_soon(journey.outbox.fill, _messages(options))

        async def connect(talk: Talk, allows: Callable[[moqt.Redirect], bool]) -> None:
            await moqt.stay_connected(
                options.url,
                talk,
                redirect=allows,
                # A session that is lost may have lost messages: that is for people to see, not to be mended.
                retry=None,
                versions=options.version,
                fingerprint=trusted,
                cafile=options.cafile,
                limits=moqt.Limits(connect_timeout=options.timeout, drain_timeout=options.timeout),
            )

        try:
            await journey.run(connect)
        except (ValueError, moqt.CertificateUnusable) as error:
            if journey.sessions:
                raise
            raise UsageError(str(error)) from error
        nursery.cancel_scope.cancel()
    if interrupted:
        raise KeyboardInterrupt


async def _messages(options: argparse.Namespace) -> AsyncGenerator[bytes, None]:
    """Yields what to send: the same text again and again, or the lines of standard input."""
    if not options.read_stdin:
        for number in range(options.count):
            yield f"hello {number}".encode() if options.message is None else os.fsencode(options.message)
        return
    number = 0
    async with aclosing(read_lines(_STDIN)) as lines:
        async for line in lines:
            yield line
            number += 1
            if number == options.count:
                return


def _trusted(options: argparse.Namespace) -> tuple[bytes, ...] | None:
    """Returns the fingerprints to trust: the flag's, or on this machine those of our own development certificates."""
    if options.fingerprint is not None:
        return (options.fingerprint,)
    if options.cafile is None and _host(options.url) in _LOOPBACK:
        return moqt.DevelopmentCertificates().fingerprints() or None
    return None


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def build_parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.echo.client",
        description="Sends messages to the echo server, and prints each one that comes back with its\nround-trip time.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--url",
        default=f"https://localhost:{PORT}{ROUTE}",
        help="https://HOST:PORT/PATH for WebTransport, moqt://HOST:PORT/PATH for raw QUIC (default: %(default)s)",
    )
    parser.add_argument(
        "--count",
        type=_count,
        metavar="N",
        help=f"messages to send (default: {_DEFAULT_COUNT}, or all of standard input)",
    )
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=0.25,
        metavar="S",
        help="seconds from one message to the next; 0 is as fast as it goes (default: %(default)s)",
    )
    parser.add_argument(
        "--message",
        metavar="TEXT",
        help="the text to send (default: 'hello' and a number); '-' sends the lines of standard input, and so does "
        "a pipe or a file on standard input when neither --message nor --count is given",
    )
    parser.add_argument(
        "--version",
        type=_versions,
        metavar="NAME",
        help="wire version to speak, or several with commas between, best first (default: all of those below)",
    )
    parser.add_argument(
        "--timeout",
        type=_timeout,
        default=10.0,
        metavar="S",
        help="seconds to wait for a connection, and without any echo before messages count as lost (default: 10)",
    )
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--fingerprint",
        type=_fingerprint,
        metavar="HEX",
        help="trust only the certificate with this SHA-256; the server prints its own",
    )
    trust.add_argument(
        "--cafile",
        type=_readable_file,
        metavar="FILE",
        help="trust the authorities in this PEM file instead of the usual",
    )
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
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


def _timeout(text: str) -> float:
    seconds = _seconds(text)
    if not seconds:
        raise argparse.ArgumentTypeError(f"give a number of seconds above 0, not {text!r}")
    return seconds


def _versions(text: str) -> list[str]:
    try:
        return parse_versions(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fingerprint(text: str) -> bytes:
    try:
        return moqt.parse_fingerprint(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _readable_file(text: str) -> str:
    try:
        with open(text, "rb"):
            return text
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {text!r}: {error.strerror}") from None


def main(arguments: list[str] | None = None) -> int:
    """Runs the client.

    Returns:
        The exit code; see `--help`.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    unsaid = options.message is None and options.count is None
    options.read_stdin = options.message == "-" or (unsaid and is_pipe_or_file(_STDIN))
    if options.read_stdin and unsaid:
        print("sending the lines of standard input", file=sys.stderr, flush=True)
    if not options.read_stdin and options.count is None:
        options.count = _DEFAULT_COUNT
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An echo with characters that this terminal cannot show is still an echo.
        sys.stdout.reconfigure(errors="backslashreplace")
    tally = Tally()
    failure: BaseException | None = None
    try:
        trio.run(talk, options, tally)
    except* (UsageError, KeyboardInterrupt, EchoFailed, moqt.MoqtError, OSError) as group:
        failure = first_of(group)
    if isinstance(failure, UsageError):
        parser.error(str(failure))
    try:
        return _report(failure, options, tally)
    except BrokenPipeError:
        # Whoever read the output has left. The interpreter must not fail once more when it flushes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


def _report(failure: BaseException | None, options: argparse.Namespace, tally: Tally) -> int:
    """Prints how it ended, and returns the exit code."""
    interrupted = isinstance(failure, KeyboardInterrupt)
    if failure is not None and not interrupted and not isinstance(failure, BrokenPipeError):
        print(f"echo client: {_explain(failure, options)}", file=sys.stderr, flush=True)
    if tally.sent or interrupted:
        print(tally.summary(), flush=True)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if failure is not None else 0


def _explain(error: BaseException, options: argparse.Namespace) -> str:
    """Returns one line that says what happened and what to do."""
    if isinstance(error, moqt.CertificateInvalid):
        return f"{error}; name it with --fingerprint HEX (the server prints it), or its authority with --cafile FILE"
    if isinstance(error, moqt.Rejected) and error.status == 404:
        return f"the server has no path {urlsplit(options.url).path!r}; the echo service is at {ROUTE!r}"
    if isinstance(error, moqt.HandshakeFailed | moqt.ConnectTimeout):
        return f"{error}; is the server running? Start it with: python -m apps.echo.server"
    if isinstance(error, moqt.SessionClosed) and not error.by_peer and error.local_code is None:
        return f"the connection to the server was lost: {error.reason}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
