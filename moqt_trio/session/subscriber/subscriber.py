"""Subscriber: passes received groups and datagrams to the subscriptions, which it has by id."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakMethod

from ...errors import RemoteProtocolError
from ...model.keys import DATAGRAM, PartKey
from .group import GroupBuffer, GroupReader
from .group_stream import GroupStream
from .publish import Offers
from .unread import UnreadGroups

if TYPE_CHECKING:
    from ...transport.receive_stream import ReceiveStream
    from ..context import SessionContext
    from .group_queue import GroupQueue


class Subscriber:
    """Passes the peer's group streams and datagrams to their subscriptions.

    Attributes:
        queues: The received groups of each subscription that is open, by the subscription's id.
        offers: The tracks that the peer offers.
    """

    def __init__(self, context: SessionContext) -> None:
        self.queues: dict[int, GroupQueue] = {}
        self.offers = Offers(context)
        self._context = context
        self._unread = UnreadGroups(context, self.queues)
        # How many datagrams arrived that may share a group with others.
        self._datagrams = 0
        context.datagram_receiver = WeakMethod(self.datagram_received)

    def stream_opened(self, stream: ReceiveStream) -> None:
        """Called for each unidirectional stream that the peer opens."""
        stream.handler = GroupStream(self._context, stream, self.queues, self._unread)

    def datagram_received(self, data: bytes) -> None:
        """Called for each datagram; one that belongs to no subscription is dropped and counted."""
        try:
            event = self._context.core.receive_datagram(data)
        except RemoteProtocolError as error:
            self._context.violated(error)
            return
        if event is None:
            return
        queue = self.queues.get(event.subscribe_id)
        if queue is None or len(queue) >= self._context.limits.max_datagrams:
            return
        number = event.frame.object_id
        buffer = GroupBuffer(counts=queue.counts)
        reader = GroupReader(event.sequence, number or 0, buffer, datagram=True)
        key = None
        if number is not None:
            queue.note_datagram(event)
            if event.end is not None:
                return
            reader.subgroup, reader.priority, reader.ends_group = None, event.priority, event.ends_group
            self._datagrams += 1
            key = PartKey(event.sequence, DATAGRAM + self._datagrams)
        if queue.begin(reader, buffer, key=key):
            buffer.deliver(0, [event.frame], [0])
            buffer.finish()
