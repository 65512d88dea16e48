"""What a session does with what its connection brings: new streams, datagrams, room to send, the end.

It hands each stream to its owner, `publisher.py` for the peer's requests and `incoming.py` for groups. What the
application may do with the session is in `session_api.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from ..model.origin import Origin
from ..transport.abc import BidiStream, ConnectionHandler, ReceiveStream
from .publisher.request import RequestStream
from .subscriber.group_stream import GroupStream, deliver_datagram

if TYPE_CHECKING:
    from ..errors import MoqtError
    from .context import SessionContext
    from .publisher.subscribe import SubscribeServer


class Dispatcher(ConnectionHandler):
    """The side of a session that its connection feeds.

    Args:
        context: The session's.
        held: True to let the peer's requests wait until `release`.

    Attributes:
        origin: What the session publishes.
        servers: The peer's subscriptions that are served now.
    """

    def __init__(self, context: SessionContext, *, held: bool) -> None:
        self.origin = Origin()
        self.servers: set[SubscribeServer] = set()
        self._context = context
        self._held: list[BidiStream] | None = [] if held else None

    async def release(self) -> None:
        """Says who we are, and takes up the requests that came before."""
        await trio.lowlevel.checkpoint()
        own = self._context.core.setup_stream()
        if own is not None:
            stream = await self._context.connection.open_uni()
            stream.write(own, fin=True)
        held, self._held = self._held, None
        for request in held or ():
            self.stream_opened(request)

    def stream_opened(self, stream: ReceiveStream) -> None:
        # One class carries both kinds; the number says which it is (RFC 9000, section 2.1).
        if not stream.stream_id & 2:
            assert isinstance(stream, BidiStream)
            if self._held is not None:
                # Its bytes wait in the stream, within the stream's window.
                self._held.append(stream)
                return
            handler: RequestStream | GroupStream
            handler = RequestStream(self._context, self.origin, self.servers, stream)
        else:
            handler = GroupStream(self._context, stream)
        self._context.untyped.add(handler)
        stream.handler = handler

    def datagram_received(self, data: bytes) -> None:
        deliver_datagram(self._context, data)

    def streams_available(self) -> None:
        for server in self.servers:
            server.streams_available()

    def send_room(self) -> None:
        self._context.scheduler.room_made()

    def connection_lost(self, error: MoqtError) -> None:
        self._context.going_away.set()
        for server in list(self.servers):
            server.cancel()
