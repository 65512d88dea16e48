"""The echo server: `python -m apps.echo.server`. README.md, beside this file, draws its conversation with a client.

For each session it asks for announcements below `japan/kyoto`, subscribes to the track `text` of every broadcast that
is announced, and publishes on the same session a broadcast of the same path whose track `text` has the same groups.
Sessions share nothing, so clients don't see each other.
"""

from __future__ import annotations

import logging
import signal
import sys
from functools import partial

import trio

import moqt_trio as moqt

from .errors import explain_listening, first_of
from .names import MAX_AGE, PREFIX, ROUTE, TRACK
from .options import GRACE, Options, configure_logging, parse_server_options
from .page import EchoPage
from .signals import cancel_on_signal, reload_on_hangup

logger = logging.getLogger("apps.echo.server")


async def echo(request: moqt.SessionRequest) -> None:
    """Called with each session that a client asks for."""
    async with request.accept() as session:
        logger.info("session %s over %s from %s", session.version, session.transport, session.peer)
        await echo_session(session)


async def echo_session(session: moqt.Session) -> None:
    """Echo every broadcast that the client announces, until the client leaves."""
    echoes: dict[moqt.BroadcastPath, BroadcastEcho] = {}

    async def run(echo: BroadcastEcho) -> None:
        try:
            await echo.run()
        finally:
            del echoes[echo.path]

    async with trio.open_nursery() as nursery:
        try:
            async with session.announcements(PREFIX) as announcements:
                async for announcement in announcements:
                    echo = echoes.get(announcement.path)
                    if echo is None and announcement.active:
                        echoes[announcement.path] = echo = BroadcastEcho(session, announcement.path)
                        nursery.start_soon(run, echo)
                    elif echo is not None and not announcement.active:
                        echo.note_unannounced()
                    elif echo is not None and not announcement.updated:
                        echo.note_replaced()
        except (moqt.SessionClosed, moqt.StreamReset) as error:
            logger.info("session from %s: %s", session.peer, error)
        if session.closed is not None:
            nursery.cancel_scope.cancel()


class BroadcastEcho:
    """The echo of one broadcast of the client.

    Attributes:
        path: The path of both.
    """

    def __init__(self, session: moqt.Session, path: moqt.BroadcastPath) -> None:
        self.path = path
        self._session = session
        self._scope = trio.CancelScope()
        self._text: moqt.Track | None = None
        self._announced = True

    def note_unannounced(self) -> None:
        """Called when the broadcast ends. What was sent is still echoed, if the client listens."""
        self._announced = False
        if self._text is None or not self._text.subscribers:
            self._scope.cancel()

    def note_replaced(self) -> None:
        """Called when another broadcast is announced under the same path: it is echoed after this one."""
        self._announced = True

    async def run(self) -> None:
        """Echo the broadcast to its end, and then each one that replaced it meanwhile."""
        while self._announced:
            self._announced = False
            with trio.CancelScope() as self._scope:
                await self._subscribe_and_publish()

    async def _subscribe_and_publish(self) -> None:
        try:
            async with self._session.subscribe(self.path, TRACK, max_age=MAX_AGE, ordered=True) as subscription:
                properties = await subscription.track_properties()
                timescale = properties.timescale if properties else 1000
                broadcast = moqt.Broadcast()
                self._text = broadcast.track(TRACK, delivery="reliable", max_age=60.0, timescale=timescale)
                async with self._session.publish(self.path, broadcast):
                    await moqt.forward(subscription, self._text)
        except (moqt.NotFound, moqt.StreamReset, moqt.SessionClosed) as error:
            logger.info("echo of %s ended: %s", self.path, error)
        finally:
            self._text = None


async def serve(options: Options) -> None:
    """Listen until SIGINT or SIGTERM, then give the clients time to leave; a second signal ends that at once."""
    page = EchoPage()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            listen = partial(
                moqt.serve,
                certificate=options.certificate,
                versions=options.versions,
                origins=options.origins,
                app=page,
            )
            router = moqt.Router({ROUTE: echo}, default=ROUTE)
            listener = await nursery.start(listen, router, options.host, options.port)
            page.pin_certificate_of(listener, options.certificate)
            await nursery.start(reload_on_hangup, options.certificate, logger)
            for url in listener.urls:
                print(f"listening on {url}", flush=True)
            print(f"fingerprint sha256 {listener.fingerprint}", flush=True)
            print(f"page for browsers {listener.urls[0].removesuffix(ROUTE)}/", flush=True)
            await anext(signals)
            print(f"shutting down; clients have {GRACE:g} s to leave", flush=True)
            nursery.start_soon(cancel_on_signal, nursery.cancel_scope, signals)
            await listener.aclose(GRACE)
            nursery.cancel_scope.cancel()


def main(arguments: list[str] | None = None) -> int:
    """Run the server and return its exit code; see `--help`."""
    options = parse_server_options(arguments)
    configure_logging(options)
    code = 0
    try:
        trio.run(serve, options)
    except* (OSError, UnicodeError, moqt.MoqtError) as group:
        print(f"echo server: {explain_listening(first_of(group), options.host)}", file=sys.stderr, flush=True)
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
