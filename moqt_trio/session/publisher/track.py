"""TrackInfoServer: answers the peer's request for the properties of a track."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from ...codes import StreamCode
from ...errors import LocalProtocolError, SessionClosed, StreamReset, printable
from ...loggers import Logger
from ...model.track import state_of
from ...protocol.events import Event, TrackInfoRequested
from .replies import info_of
from .request import RequestServer

if TYPE_CHECKING:
    from ...protocol.track import TrackInfoResponder
    from .request import Found

logger = Logger(__name__)


class TrackInfoServer(RequestServer):
    """Answers with one message."""

    codes = "info"
    machine: TrackInfoResponder

    def handle(self, event: Event) -> None:
        if not isinstance(event, TrackInfoRequested):
            super().handle(event)
            return
        self.find(event.path, event.track, self._answer)

    def _answer(self, found: Found | None) -> None:
        if found is None:
            self.cancel(StreamCode.NOT_FOUND)
            return
        track = found[1]
        try:
            reply = self.machine.reply(info_of(track), state_of(track).largest)
        except LocalProtocolError as error:
            logger.warning("track %s cannot be described: %s", printable(track.name), error)
            self.cancel(StreamCode.INTERNAL_ERROR)
            return
        # The peer may have left meanwhile, or the session.
        with suppress(StreamReset, SessionClosed, trio.ClosedResourceError):
            self.stream.write(reply, fin=True)
            self.serving.rate.give_back()
        self.machine.release()
