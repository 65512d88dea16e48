"""A track with small bounds, and a subscriber that reads it the way a served subscription does."""

from __future__ import annotations

import math

import attrs
import pytest

from moqt_trio.limits import Limits
from moqt_trio.model.cursor import GroupRange
from moqt_trio.model.track import Track, state_of


class Subscriber:
    """A cursor, and a record of what it was woken for and what it read."""

    def __init__(self, track, *, replay=False, max_age=math.inf, **wanted):
        self.track = track
        self.wakes = 0
        self.cursor = state_of(track).cursor(self._wake, range=GroupRange(**wanted), max_age=max_age, replay=replay)
        state_of(track).attach(self.cursor)

    def _wake(self):
        self.wakes += 1

    @property
    def pending(self):
        return sorted(self.cursor.pending)

    def read(self, max_bytes=10**9, *, newest_first=False):
        """Take once from each group that is ready; return the frames by sequence, in the order served."""
        return {
            entry.group.sequence: [bytes(frame) for frame in self.cursor.take(entry, max_bytes)[0]]
            for entry in self.cursor.ready(newest_first=newest_first)
        }

    def take(self, sequence, max_bytes=10**9):
        return [bytes(frame) for frame in self.cursor.take(self.cursor.pending[sequence], max_bytes)[0]]

    def detach(self):
        state_of(self.track).detach(self.cursor)


@pytest.fixture
def make_track():
    """Make a track; keywords that are fields of `Limits` bound it, the others are the track's own."""
    bounds = {field.name for field in attrs.fields(Limits)}

    def make(name="chat", **options):
        limits = {key: options.pop(key) for key in list(options) if key in bounds}
        return Track(name, limits=attrs.evolve(Limits(), **limits), **options)

    return make


@pytest.fixture
def subscribe():
    return Subscriber
