"""SendScheduler: which server may write next when the link is the bottleneck.

QUIC sends on its streams in turn, so data of higher priority has to be *written* first. A server writes no more than
the link can send soon; the other servers wait here, by priority. Each server decides the order of its own groups.

Spec: moq-lite-06, section 6.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ...transport.connection import Connection

TURN = 4 * 1024
"""Bytes that a server writes before another of the same priority: about three packets, so that packets are filled
and no server delays the others for long."""


class Sender(Protocol):
    """Something that writes on streams of the session."""

    @property
    def send_priority(self) -> tuple[int, int]:
        """The subscriber's priority and the publisher's; the higher goes first (moq-lite-06, section 6.1.1)."""
        ...

    def resume(self) -> None:
        """Called when the sender may write again: it writes as much as `SendScheduler.allowance` allows."""


class SendScheduler:
    """Orders the writes of one session's senders: by priority, and in turn among equal priorities."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # In the order of arrival: among equal priorities, the one that has waited longest goes first.
        self._waiting: dict[Sender, None] = {}
        self._chosen: Sender | None = None

    def allowance(self, sender: Sender) -> int:
        """Return the bytes that a sender may write now. With 0 it waits, and is resumed when it may write.

        The last frame may exceed the allowance. The allowance expires when the sender next waits.
        """
        allowed = self._connection.send_allowance
        if allowed > 0:
            waiting = self._waiting
            if not waiting:
                return allowed
            if sender is self._chosen or self._is_next(sender):
                waiting.pop(sender, None)
                return min(allowed, TURN) if waiting else allowed
        self._waiting.setdefault(sender)
        return 0

    def release(self, sender: Sender) -> None:
        """Remove a sender."""
        self._waiting.pop(sender, None)

    def resume_waiting(self) -> None:
        """Resume the senders that wait, by priority, until the link has enough again."""
        while self._waiting and self._connection.send_allowance > 0:
            # `max` keeps the first of equals, and a sender that waits again goes to the end.
            chosen = max(self._waiting, key=lambda sender: sender.send_priority)
            del self._waiting[chosen]
            self._chosen = chosen
            try:
                chosen.resume()
            finally:
                self._chosen = None

    def _is_next(self, sender: Sender) -> bool:
        """Whether no waiting sender has higher priority, or the same priority and waited longer."""
        priority = sender.send_priority
        came_first = True
        for other in self._waiting:
            if other is sender:
                came_first = False
            elif other.send_priority > priority or (came_first and other.send_priority == priority):
                return False
        return True
