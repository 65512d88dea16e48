"""Announcements that name tracks, as they were before moq-lite: the broadcasts that the tracks belong to.

A broadcast is announced with its first track, and unannounced with its last. `announce.py` bounds what is kept here.

Spec: draft-lcurley-moq-transfork-03, ANNOUNCE.
"""

from __future__ import annotations

from ..path import BroadcastPath
from .events import Announced, Event, TrackAnnounced, TrackUnannounced, Unannounced


class AnnouncedTracks:
    """Counts the announced tracks of each broadcast."""

    def __init__(self) -> None:
        self._tracks: dict[BroadcastPath, int] = {}

    def start(self, path: BroadcastPath, events: list[Event], *, initial: bool) -> None:
        """Add a track by its full path, which has at least one part, and append the events."""
        broadcast, track = _split(path)
        count = self._tracks.get(broadcast, 0)
        self._tracks[broadcast] = count + 1
        if not count:
            events.append(Announced(broadcast, initial=initial))
        events.append(TrackAnnounced(broadcast, track))

    def end(self, path: BroadcastPath, events: list[Event]) -> None:
        """Remove a track that was added, and append the events."""
        broadcast, track = _split(path)
        events.append(TrackUnannounced(broadcast, track))
        self._tracks[broadcast] -= 1
        if not self._tracks[broadcast]:
            del self._tracks[broadcast]
            events.append(Unannounced(broadcast))


class FullPathQuirk:
    """Whether a peer writes full paths where only suffixes belong, as gomoqt's public functions did.

    A suffix may start with the prefix's own parts by chance, so one that does proves nothing. A suffix that does not
    proves that the peer writes suffixes, and so does a message that gomoqt writes in another way. Before the proof, a
    suffix that starts with the prefix is taken for a full path; the proof undoes that.
    """

    def __init__(self, prefix: BroadcastPath, *, possible: bool) -> None:
        """Start without a proof.

        Args:
            prefix: The requested prefix.
            possible: True in a version whose peers may write full paths.
        """
        self._prefix = prefix
        self._assumed = possible and bool(prefix.parts)

    def is_disproved_by(self, suffix: BroadcastPath) -> bool:
        """Return True for the first suffix that proves that the peer writes suffixes, and record the proof."""
        return not self._prefix.covers(suffix) and self.disprove()

    def disprove(self) -> bool:
        """Record that the peer writes suffixes; return False when that was known."""
        assumed, self._assumed = self._assumed, False
        return assumed

    def is_full_path(self, suffix: BroadcastPath) -> bool:
        """Return whether a suffix counts as a full path."""
        return self._assumed and self._prefix.covers(suffix)


def _split(path: BroadcastPath) -> tuple[BroadcastPath, str]:
    return BroadcastPath(path.parts[:-1]), path.parts[-1]
