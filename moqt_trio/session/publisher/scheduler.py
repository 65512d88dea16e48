"""Who may write next when the link is the bottleneck.

QUIC serves its streams in turn. What must come first has to be *written* first, so no more is written than the link
is about to take, and the rest waits here, by priority. It knows neither tracks nor groups: a sender decides itself
which of its groups goes first.

Spec: moq-lite-06, section 6.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ...transport.abc import Connection


class Sender(Protocol):
    """Something that writes on streams of the session."""

    @property
    def urgency(self) -> tuple[int, int]:
        """The subscriber's priority and the publisher's; the higher goes first."""
        ...

    def resume(self) -> None:
        """Goes on writing for as long as `SendScheduler.may_send` says so."""


class SendScheduler:
    """Lets the senders of one session write in the order of their priorities, and equals in turn."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # In the order in which they came: among equals, who has waited longest goes first.
        self._waiting: dict[Sender, None] = {}
        self._chosen: Sender | None = None

    def may_send(self, sender: Sender) -> bool:
        """Returns True when a sender may write a little now; else it is resumed when its turn has come."""
        if not self._connection.congested and (not self._waiting or sender is self._chosen or self._is_next(sender)):
            self._waiting.pop(sender, None)
            return True
        self._waiting.setdefault(sender)
        return False

    def leave(self, sender: Sender) -> None:
        """Forgets a sender."""
        self._waiting.pop(sender, None)

    def room_made(self) -> None:
        """Resumes those who wait, most urgent first, until the link has enough again."""
        while self._waiting and not self._connection.congested:
            # `max` keeps the first of equals, and whoever waits again goes to the end.
            chosen = max(self._waiting, key=lambda sender: sender.urgency)
            del self._waiting[chosen]
            self._chosen = chosen
            try:
                chosen.resume()
            finally:
                self._chosen = None

    def _is_next(self, sender: Sender) -> bool:
        """Returns True when nobody waits who is more urgent, or as urgent and came first."""
        urgency = sender.urgency
        came_first = True
        for other in self._waiting:
            if other is sender:
                came_first = False
            elif other.urgency > urgency or (came_first and other.urgency == urgency):
                return False
        return True
