"""SendScheduler: which server may write next when the link is the bottleneck.

QUIC sends on its streams in turn, so data of higher priority has to be *written* first. A server writes no more than
the link can send soon; the other servers wait here, by priority. Each server decides the order of its own groups.

Spec: moq-lite-06, section 6.1.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from ...transport.connection import Connection

TURN = 4 * 1024
"""Bytes that a server writes before another of the same priority: about three packets, so that packets are filled
and no server delays the others for long."""
_SPARE = 64
"""Entries of the heap that no longer hold and are kept: sorting them out costs more than they do."""

_Entry: TypeAlias = tuple[int, int, int]
"""The negative of both priorities, and a number that is higher the later the sender began to wait."""


class Sender(Protocol):
    """Something that writes on streams of the session."""

    @property
    def send_priority(self) -> tuple[int, int]:
        """The subscriber's priority and the publisher's; the higher goes first (moq-lite-06, section 6.1.1)."""
        ...

    def resume(self) -> None:
        """Called when the sender may write again: it writes as much as `SendScheduler.allowance` allows."""


class SendScheduler:
    """Orders the writes of one session's senders: by priority, and in turn among equal priorities.

    A sender that begins to wait gets a number, which is its place among equals, and an entry of a heap. When its
    priority changes it gets another entry. Those that no longer hold are dropped as they come to the top, or when there
    are more of them than of the others.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: dict[Sender, _Entry] = {}
        self._by_number: dict[int, Sender] = {}
        self._next_number = 0
        self._heap: list[_Entry] = []
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
                self.release(sender)
                return min(allowed, TURN) if waiting else allowed
        if sender in self._waiting:
            self.priority_changed(sender)
        else:
            self._next_number += 1
            self._by_number[self._next_number] = sender
            self._enter(sender, self._next_number)
        return 0

    def priority_changed(self, sender: Sender) -> None:
        """Called when the priority of a sender may have changed, whether it waits or not."""
        entry = self._waiting.get(sender)
        if entry is not None and entry != _entry(sender, entry[2]):
            self._enter(sender, entry[2])

    def release(self, sender: Sender) -> None:
        """Remove a sender."""
        entry = self._waiting.pop(sender, None)
        if entry is not None:
            del self._by_number[entry[2]]

    def resume_waiting(self) -> None:
        """Resume the senders that wait, by priority, until the link has enough again."""
        while self._waiting and self._connection.send_allowance > 0:
            # A sender that waits again goes to the end of its equals.
            chosen = self._first()
            self.release(chosen)
            self._chosen = chosen
            try:
                chosen.resume()
            finally:
                self._chosen = None

    def _is_next(self, sender: Sender) -> bool:
        """Whether no waiting sender has higher priority, or the same priority and waited longer."""
        self.priority_changed(sender)
        first = self._first()
        return first is sender or (sender not in self._waiting and sender.send_priority > first.send_priority)

    def _enter(self, sender: Sender, number: int) -> None:
        entry = self._waiting[sender] = _entry(sender, number)
        heappush(self._heap, entry)
        if len(self._heap) > 2 * len(self._waiting) + _SPARE:
            self._heap = list(self._waiting.values())
            heapify(self._heap)

    def _first(self) -> Sender:
        """Return the sender that goes first; there must be one."""
        while True:
            entry = self._heap[0]
            sender = self._by_number.get(entry[2])
            if sender is not None and self._waiting[sender] == entry:
                if _entry(sender, entry[2]) == entry:
                    return sender
                heappop(self._heap)
                self._enter(sender, entry[2])
            else:
                heappop(self._heap)


def _entry(sender: Sender, number: int) -> _Entry:
    ours, theirs = sender.send_priority
    return -ours, -theirs, number
