"""Announcements that name tracks, as they were before moq-lite: which broadcasts they add up to.

A broadcast is there from its first track on, and is gone with its last. Nothing here sees bytes or bounds what is kept:
`announce.py` does.

Spec: draft-lcurley-moq-transfork-03, ANNOUNCE.
"""

from __future__ import annotations

from ..path import BroadcastPath
from .events import Announced, Event, TrackAnnounced, TrackUnannounced, Unannounced


class AnnouncedTracks:
    """Counts the announced tracks of each broadcast."""

    def __init__(self) -> None:
        self._tracks: dict[str, int] = {}

    def start(self, path: BroadcastPath, events: list[Event], *, initial: bool) -> None:
        """Adds a track by its full path, which has at least one part, and tells what that means."""
        broadcast, track = _split(path)
        count = self._tracks.get(broadcast, 0)
        self._tracks[broadcast] = count + 1
        if not count:
            events.append(Announced(broadcast, initial=initial))
        events.append(TrackAnnounced(broadcast, track))

    def end(self, path: BroadcastPath, events: list[Event]) -> None:
        """Removes a track that was added, and tells what that means."""
        broadcast, track = _split(path)
        events.append(TrackUnannounced(broadcast, track))
        self._tracks[broadcast] -= 1
        if not self._tracks[broadcast]:
            del self._tracks[broadcast]
            events.append(Unannounced(broadcast))


class PrefixHabit:
    """Whether a peer writes whole paths where only suffixes belong, as gomoqt's public functions did.

    A suffix may start with the prefix's own parts by chance, so one that does proves nothing. One that does not proves
    that the peer writes suffixes; until then those that do are taken for whole paths.
    """

    def __init__(self, prefix: BroadcastPath, *, possible: bool) -> None:
        """Starts without knowing the peer.

        Args:
            prefix: What was asked for.
            possible: True in a version with peers that have the habit.
        """
        self._prefix = prefix
        self._possible = possible and bool(prefix.parts)
        self._disproved = False

    def note(self, suffix: BroadcastPath) -> None:
        """Learns from a suffix that announces something."""
        if not self._prefix.covers(suffix):
            self._disproved = True

    def is_whole(self, suffix: BroadcastPath) -> tuple[bool, ...]:
        """Returns whether a suffix is a whole path; what it may also be, less likely, stands behind that."""
        if not self._possible or not self._prefix.covers(suffix):
            return (False,)
        return (False, True) if self._disproved else (True, False)


def _split(path: BroadcastPath) -> tuple[str, str]:
    return str(BroadcastPath(path.parts[:-1])), path.parts[-1]
