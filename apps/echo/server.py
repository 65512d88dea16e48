"""The echo server: `python -m apps.echo.server`.

For each session it asks for announcements below `japan/kyoto`, subscribes to the track `text` of every broadcast that
is announced, and publishes on the same session a broadcast of the same path whose track `text` has the same groups.
Sessions share nothing, so clients don't see each other. The command line is here too.
"""

from __future__ import annotations

import argparse
import errno
import logging
import signal
import socket
import sys
from pathlib import Path

import trio

import moqt_trio as moqt

from .names import PATIENCE, PORT, PREFIX, ROUTE, TRACK, first_of, parse_versions, versions_for_help
from .page import EchoPage

logger = logging.getLogger("apps.echo.server")

_GRACE_S = 5.0

_EPILOG = f"""\
{versions_for_help()}

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


async def echo(request: moqt.SessionRequest) -> None:
    """Serves one session."""
    async with request.accept() as session:
        logger.info("session %s over %s from %s", session.version, session.transport, session.peer)
        await EchoSession(session).run()


class EchoSession:
    """The echoes of one session, by the path of the broadcast that they repeat."""

    def __init__(self, session: moqt.Session) -> None:
        self._session = session
        self._echoes: dict[moqt.BroadcastPath, BroadcastEcho] = {}

    async def run(self) -> None:
        """Echoes every broadcast that the client announces, until the client leaves."""
        async with trio.open_nursery() as nursery:
            try:
                async with self._session.announcements(PREFIX) as announcements:
                    async for announcement in announcements:
                        running = self._echoes.get(announcement.path)
                        if not announcement.active:
                            if running is not None:
                                running.announcement_ended()
                        elif running is None:
                            self._echoes[announcement.path] = new = BroadcastEcho(self._session, announcement.path)
                            nursery.start_soon(self._run_echo, new)
                        elif not announcement.updated:
                            running.announced_again()
            except (moqt.SessionClosed, moqt.StreamReset) as error:
                logger.info("session from %s: %s", self._session.peer, error)
            if self._session.closed is not None:
                nursery.cancel_scope.cancel()

    async def _run_echo(self, new: BroadcastEcho) -> None:
        try:
            await new.run()
        finally:
            del self._echoes[new.path]


class BroadcastEcho:
    """The echo of one broadcast of the client's.

    Attributes:
        path: The path of both.
    """

    def __init__(self, session: moqt.Session, path: moqt.BroadcastPath) -> None:
        self.path = path
        self._session = session
        self._scope = trio.CancelScope()
        self._text: moqt.Track | None = None
        self._again = True

    def announcement_ended(self) -> None:
        """The broadcast is withdrawn. What was sent is still echoed, if anybody listens."""
        self._again = False
        if self._text is None or not self._text.subscribers:
            self._scope.cancel()

    def announced_again(self) -> None:
        """Another broadcast has taken the place of the one that is echoed."""
        self._again = True

    async def run(self) -> None:
        """Echoes the broadcast to its end, and so each one that takes its place meanwhile."""
        while self._again:
            self._again = False
            with trio.CancelScope() as self._scope:
                await self._repeat()

    async def _repeat(self) -> None:
        try:
            async with self._session.subscribe(self.path, TRACK, max_age=PATIENCE, ordered=True) as subscription:
                properties = await subscription.track_properties()
                timescale = properties.timescale if properties else 1000
                broadcast = moqt.Broadcast()
                self._text = text = broadcast.track(TRACK, delivery="reliable", max_age=60.0, timescale=timescale)
                async with self._session.publish(self.path, broadcast):
                    async with trio.open_nursery() as nursery:
                        async for group in subscription:
                            # While nobody listens there is nothing to echo: the messages wait in the client's window.
                            await text.wait_subscribed()
                            # Opened here, so that groups appear in the order of their arrival; filled in a task,
                            # so that a slow group does not hold up the next one.
                            nursery.start_soon(_echo_group, group, text.open_group(group.sequence))
                    text.finish()
        except* (moqt.NotFound, moqt.StreamReset, moqt.SessionClosed) as group:
            logger.info("echo of %s ended: %s", self.path, first_of(group))
        finally:
            self._text = None


async def _echo_group(group: moqt.GroupReader, copy: moqt.GroupWriter) -> None:
    """Sends every frame of a group back, in order, and ends the copy as the group ended."""
    try:
        async with copy:
            try:
                async for frame in group:
                    await copy.send(frame, frame.timestamp)
            except moqt.StreamReset as error:
                copy.reset(error.code)
                raise
    except (moqt.StreamReset, moqt.SessionClosed, trio.ClosedResourceError) as error:
        logger.info("group %d was not echoed to its end: %s", group.sequence, error)


def build_parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.echo.server",
        description="Echoes every message that a client publishes on the track 'text' of a broadcast\n"
        "at or below 'japan/kyoto'. One port serves WebTransport (https://), raw QUIC\n"
        "(moqt://) and a page for browsers that does the same.",
        epilog=_EPILOG,
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
        "--versions",
        type=_versions,
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


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdecimal() else -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {text!r}")
    return port


def _versions(text: str) -> list[str]:
    try:
        return parse_versions(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


async def serve(options: argparse.Namespace, certificate: moqt.CertificateFiles | None) -> None:
    """Listens until a signal asks to stop; a second one stops at once. SIGHUP reads the certificate anew."""
    router = moqt.Router({ROUTE: echo}, default=ROUTE)
    page = EchoPage()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def listen(*, task_status: trio.TaskStatus[moqt.Listener]) -> None:
                await moqt.serve(
                    router,
                    options.host,
                    options.port,
                    certificate=certificate,
                    versions=options.versions,
                    app=page,
                    task_status=task_status,
                )
                nursery.cancel_scope.cancel()

            listener = await nursery.start(listen)
            if certificate is not None:
                nursery.start_soon(_reload_on_signal, certificate)
            if certificate is None or _is_self_signed(certificate()):
                page.pin = lambda: listener.fingerprint
            for url in listener.urls:
                print(f"listening on {url}", flush=True)
            print(f"fingerprint sha256 {listener.fingerprint}", flush=True)
            print(f"page for browsers {listener.urls[0].removesuffix(ROUTE)}/", flush=True)
            await anext(signals)
            print(f"shutting down; clients have {_GRACE_S:g} s to leave", flush=True)
            nursery.start_soon(listener.aclose, _GRACE_S)
            await anext(signals)
            nursery.cancel_scope.cancel()


async def _reload_on_signal(certificate: moqt.CertificateFiles) -> None:
    """Shows a certificate that was replaced in its files, without a restart."""
    if not hasattr(signal, "SIGHUP"):
        return
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async for _ in signals:
            try:
                certificate.reload()
            except moqt.CertificateUnusable as error:
                logger.error("the certificate stays as it was: %s", error)


def _is_self_signed(certificate: moqt.Certificate) -> bool:
    """Whether a browser can know the certificate by its fingerprint only."""
    return certificate.certificate.issuer == certificate.certificate.subject


def main(arguments: list[str] | None = None) -> int:
    """Runs the server.

    Returns:
        The exit code; see `--help`.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    if (options.cert is None) != (options.key is None):
        parser.error("--cert and --key go together")
    try:
        certificate = moqt.CertificateFiles(options.cert, options.key) if options.cert else None
    except moqt.CertificateUnusable as error:
        parser.error(str(error))
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if options.log_level != "debug":
        # The QUIC engine tells of every connection, and warns of each client that does not get in.
        logging.getLogger("quic").setLevel(logging.ERROR)
    code = 0
    try:
        trio.run(serve, options, certificate)
    except* (OSError, UnicodeError, moqt.MoqtError) as group:
        print(f"echo server: {_explain(first_of(group), options)}", file=sys.stderr, flush=True)
        code = 1
    return code


def _explain(error: BaseException, options: argparse.Namespace) -> str:
    """Returns one line that says what happened and what to do."""
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"the host {options.host!r} is unknown; give an address or a name of this machine with --host"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"{error.strerror}; choose another port with --port, or let --port 0 pick one"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
