"""The group streams of one subscription that is served, from their opening until the subscriber has all of them.

It counts; what is written on them, and when, is for `track_server.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from ...transport.abc import SendStream, StreamHandler

if TYPE_CHECKING:
    from ...limits import Limits
    from ...protocol.group import GroupSender


class StreamOwner(Protocol):
    """Who is told what becomes of a group stream."""

    def group_refused(self, sequence: int) -> None:
        """The subscriber does not want a group."""

    def group_ready(self, sequence: int) -> None:
        """A group's send buffer has room again."""

    def group_delivered(self, sequence: int) -> None:
        """The subscriber has all of a group."""


class SentGroup(StreamHandler):
    """One group stream on its way to the subscriber.

    Attributes:
        stream: The stream.
        sender: Makes its bytes.
        sequence: The group's number.
        started: True once its header was written.
        draining: The bytes that waited when all of it had been written; None until then.
    """

    __slots__ = ("_owner", "draining", "sender", "sequence", "started", "stream")

    def __init__(self, owner: StreamOwner, stream: SendStream, sender: GroupSender, sequence: int) -> None:
        self._owner = owner
        self.stream = stream
        self.sender = sender
        self.sequence = sequence
        self.started = False
        self.draining: int | None = None

    def stop_received(self, code: int) -> None:
        self._owner.group_refused(self.sequence)

    def send_ready(self) -> None:
        self._owner.group_ready(self.sequence)

    def send_finished(self) -> None:
        self._owner.group_delivered(self.sequence)


class SentGroups:
    """The group streams that are open, by sequence.

    First a group is written; then it drains: all of it was written, and not all of it is acknowledged.

    Args:
        limits: For `max_open_groups`, `max_unacknowledged_groups` and `connection_window`.

    Attributes:
        draining: How many drain.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._streams: dict[int, SentGroup] = {}
        self._draining_bytes = 0
        self.draining = 0

    def __len__(self) -> int:
        return len(self._streams)

    def __iter__(self) -> Iterator[SentGroup]:
        return iter(self._streams.values())

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._streams

    def get(self, sequence: int) -> SentGroup | None:
        """Returns the stream of a group, or None."""
        return self._streams.get(sequence)

    @property
    def all_writing(self) -> bool:
        """True when as many groups are being written as may be at once."""
        return len(self._streams) - self.draining >= self._limits.max_open_groups

    @property
    def full(self) -> bool:
        """True when no further stream may be opened now."""
        return (
            self.all_writing
            or len(self._streams) >= self._limits.max_unacknowledged_groups
            or self._draining_bytes >= self._limits.connection_window
        )

    def add(self, out: SentGroup) -> None:
        """Takes in a stream that was just opened."""
        self._streams[out.sequence] = out

    def drain(self, out: SentGroup) -> None:
        """Notes that all of a group was written."""
        out.draining = out.stream.buffered
        self._draining_bytes += out.draining
        self.draining += 1

    def forget(self, sequence: int) -> SentGroup | None:
        """Drops a group from the count and returns its stream; None when there is none, or none any more."""
        out = self._streams.pop(sequence, None)
        if out is not None and out.draining is not None:
            self._draining_bytes -= out.draining
            self.draining -= 1
        return out

    def reset_all(self, code: int) -> None:
        """Gives up every group."""
        for out in self._streams.values():
            out.stream.reset(code)
        self._streams.clear()
        self._draining_bytes = self.draining = 0
