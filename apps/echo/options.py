"""The command lines of the echo client and the echo server: flags, their values, and what `--help` says."""

from __future__ import annotations

import argparse
import logging
import sys
import textwrap
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import moqt_trio as moqt

from .messages import STDIN, is_pipe_or_file
from .names import PORT, ROUTE

Options = argparse.Namespace
"""The flags of a command line, under their names."""

ECHO_TIMEOUT: Final = 10.0
"""Seconds without any echo after which messages count as lost: much longer than a round trip, and not long to wait."""
GRACE: Final = 5.0
"""Seconds that clients have to leave when the server is stopped: enough for what is on its way."""

_COUNT = 10
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def _wire_versions() -> str:
    offered = moqt.version_names()
    named = [name for name in moqt.version_names(opt_in=True) if name not in offered]
    return textwrap.fill(
        " ".join(offered) + "; and where both sides name it: " + " ".join(named),
        80,
        initial_indent="wire versions: ",
        subsequent_indent="  ",
        break_on_hyphens=False,
    )


# -- the client -----------------------------------------------------------------------------------------------

_CLIENT_EPILOG = f"""\
{_wire_versions()}

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


def client_parser() -> argparse.ArgumentParser:
    """Return the client's command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.echo.client",
        description="Sends messages to the echo server, and prints each one that comes back with its\nround-trip time.",
        epilog=_CLIENT_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--url",
        default=f"https://localhost:{PORT}{ROUTE}",
        help="https://HOST:PORT/PATH for WebTransport, moqt://HOST:PORT/PATH for raw QUIC (default: %(default)s)",
    )
    parser.add_argument(
        "--count",
        type=parse_count,
        metavar="N",
        help=f"messages to send (default: {_COUNT}, or all of standard input)",
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
        type=parse_versions,
        metavar="NAME",
        help="wire version to speak, or several with commas between, best first (default: all of those below)",
    )
    parser.add_argument(
        "--timeout",
        type=_positive_seconds,
        default=ECHO_TIMEOUT,
        metavar="S",
        help="seconds to wait for a connection, and without any echo before messages count as lost "
        f"(default: {ECHO_TIMEOUT:g})",
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


def parse_client_options(arguments: list[str] | None) -> Options:
    """Return the flags, with what depends on several of them settled: what to send, and how much of it."""
    options = client_parser().parse_args(arguments)
    neither = options.message is None and options.count is None
    options.read_stdin = options.message == "-" or (neither and is_pipe_or_file(STDIN))
    if options.read_stdin and neither:
        print("sending the lines of standard input", file=sys.stderr, flush=True)
    if not options.read_stdin and options.count is None:
        options.count = _COUNT
    return options


def trusted_fingerprints(options: Options) -> tuple[bytes, ...] | None:
    """Return the fingerprints to trust: the flag's, or on this machine those of this account's own certificates."""
    if options.fingerprint is not None:
        return (options.fingerprint,)
    if options.cafile is None and host_of(options.url) in _LOOPBACK:
        return moqt.DevelopmentCertificates().fingerprints() or None
    return None


def host_of(url: str) -> str | None:
    """Return the host of a URL; None when it names none, or is not a URL."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


# -- the server -----------------------------------------------------------------------------------------------

_SERVER_EPILOG = f"""\
{_wire_versions()}

examples:
  python -m apps.echo.server
  python -m apps.echo.server --port 0 --versions moq-lite-06 --log-level info
  python -m apps.echo.server --host 0.0.0.0 --cert server.crt --key server.key

It prints a URL for each transport, the SHA-256 of its certificate, and where
its page for browsers is. Without --cert it uses a development certificate for
localhost that it makes, renews and keeps for this account; the echo client of
the same account trusts it. SIGHUP makes it read the files of --cert anew.

Stop it with Ctrl-C or SIGTERM: it asks its clients to leave, gives them five
seconds, and exits with 0. A second signal ends it at once.

exit codes: 0 stopped by a signal, 1 it could not listen, 2 wrong usage
"""


def server_parser() -> argparse.ArgumentParser:
    """Return the server's command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.echo.server",
        description="Echoes every message that a client publishes on the track 'text' of a broadcast\n"
        "at or below 'japan/kyoto'. One port serves WebTransport (https://), raw QUIC\n"
        "(moqt://) and a page for browsers that does the same.",
        epilog=_SERVER_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="localhost", help="name or address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=PORT, help="UDP port; 0 picks a free one (default: %(default)s)")
    parser.add_argument(
        "--cert",
        type=Path,
        metavar="FILE",
        help="certificate chain in PEM, together with --key (default: a development certificate for localhost)",
    )
    parser.add_argument("--key", type=Path, metavar="FILE", help="private key of --cert in PEM")
    parser.add_argument(
        "--origins",
        type=lambda text: text.split(","),
        metavar="LIST",
        help="other pages that may open sessions, such as https://example.org (default: this server's own page)",
    )
    parser.add_argument(
        "--versions",
        type=parse_versions,
        metavar="NAMES",
        help="wire versions to accept, best first, with commas between (default: all of those below)",
    )
    parser.add_argument(
        "--log-level",
        default="warning",
        choices=["debug", "info", "warning", "error"],
        help="how much to log to standard error; 'info' names each session (default: %(default)s)",
    )
    return parser


def parse_server_options(arguments: list[str] | None) -> Options:
    """Return the flags, and as `certificate` what --cert and --key name."""
    parser = server_parser()
    options = parser.parse_args(arguments)
    if (options.cert is None) != (options.key is None):
        parser.error("--cert and --key go together")
    try:
        options.certificate = moqt.CertificateFiles(options.cert, options.key) if options.cert else None
    except moqt.CertificateUnusable as error:
        parser.error(str(error))
    return options


def configure_logging(options: Options) -> None:
    """Log to standard error what --log-level asks for."""
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")


# -- values: each function is the `type` of an argument -------------------------------------------------------


def parse_versions(text: str) -> list[str]:
    """Return the version names of a comma-separated list."""
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    known = moqt.version_names(opt_in=True)
    for name in chosen:
        if name not in known:
            raise argparse.ArgumentTypeError(f"unknown version {name!r}; choose from {', '.join(known)}")
    if not chosen:
        raise argparse.ArgumentTypeError(f"no version in {text!r}; choose from {', '.join(known)}")
    return chosen


def parse_count(text: str) -> int:
    """Return a number of messages."""
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


def _positive_seconds(text: str) -> float:
    seconds = _seconds(text)
    if not seconds:
        raise argparse.ArgumentTypeError(f"give a number of seconds above 0, not {text!r}")
    return seconds


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


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdecimal() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return port
