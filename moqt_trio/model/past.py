"""Past: the frames of a range that a track keeps, in the order of a fetch, from the oldest group or from the newest.

It holds no frame and no group, only the numbers of the groups that were kept when the range was asked for. A group that
leaves the cache before its turn is reported as lost, so that a slow reader of the past costs no memory. Behind the last
frame of a group that is still written, the caller chooses: ask again when more has come, or leave the group.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import attrs

if TYPE_CHECKING:
    from ..frame import Frame
    from .group import Group
    from .track_state import TrackState

_MOST_FRAMES: Final = 256
"""Frames that are taken at once. Frames that are empty have no bytes to bound them by."""
LAST: Final = (1 << 62) - 1
"""The highest index that a frame may have: it stands for the end of a group whose length is not known any more."""


class Place(NamedTuple):
    """Where a frame is in its track: its group, and its object id there, which is its index in a group without gaps."""

    group: int
    frame: int


@attrs.frozen
class PastFrames:
    """Some frames of one group, in order.

    Attributes:
        group: The group's sequence.
        first: The object id of the first of them; each one after it has the next id.
        frames: The frames.
        subgroup: The subgroup that they belong to.
        priority: Its priority; None for the track's.
    """

    group: int
    first: int
    frames: list[Frame]
    subgroup: int = 0
    priority: int | None = None


@attrs.frozen
class LostFrames:
    """The track had frames behind the ones before, and no longer keeps them.

    Attributes:
        end: The last frame of them, inclusive.
    """

    end: Place


@attrs.frozen
class OpenGroup:
    """Everything that was written of a group was taken, and the group is still open.

    Attributes:
        sequence: The group's sequence.
        following: The lowest object id that its next frame may have.
    """

    sequence: int
    following: int


class Past:
    """Reads the past of a track once, piece by piece.

    Args:
        log: The track's state.
        start: The first frame wanted.
        end: The last one, inclusive; it exists.
        descending: True for the newest group first. The frames of a group are in order in any case.

    Attributes:
        start, end: As above.
        kept: How many groups of the range the track keeps.
        lost: True when it has had groups in the range that it does not keep.
    """

    def __init__(self, log: TrackState, start: Place, end: Place, *, descending: bool = False) -> None:
        self._log = log
        self.start = start
        self.end = end
        # Groups by their sequence, and the ends of what is lost between them.
        parts = _parts(log, start.group, end.group)
        self.kept = sum(isinstance(part, int) for part in parts)
        self.lost = self.kept < len(parts)
        self._parts = deque(reversed(parts) if descending else parts)
        self._position: int | None = None

    def take(self, most_bytes: int) -> PastFrames | LostFrames | OpenGroup | None:
        """Return the next frames, of so many bytes at most or a single one, or what is lost; None at the end.

        Where a group is still open, every call returns an `OpenGroup`, until the group goes on or ends, or `leave`.
        """
        while self._parts:
            part = self._parts[0]
            piece = part if isinstance(part, LostFrames) else self._take_of(part, most_bytes)
            if isinstance(part, LostFrames) or piece is None:
                self.leave()
            if piece is not None:
                return piece
        return None

    def leave(self) -> None:
        """Go on behind the group, or what is lost, that `take` has returned last."""
        self._parts.popleft()
        self._position = None

    def _take_of(self, sequence: int, most_bytes: int) -> PastFrames | LostFrames | OpenGroup | None:
        groups = self._log.parts(sequence)
        stop = self.end.frame + 1 if sequence == self.end.group else LAST + 1
        following = self._position
        if following is None:
            following = self.start.frame if sequence == self.start.group else 0
        if following >= stop:
            return None
        kept_from = min(max((group.first_id for group in groups), default=stop), stop)
        if following < kept_from:
            self._position = kept_from
            return LostFrames(Place(sequence, kept_from - 1))
        # The subgroup with the lowest id comes next, and goes on until another one has a lower id. Of two frames with
        # one id, which a valid group has not, the second is left out.
        heads = sorted((_next_id(group, following), index) for index, group in enumerate(groups))
        first, index = heads[0]
        group = groups[index]
        before = min(stop, max(heads[1][0], first + 1)) if len(heads) > 1 else stop
        if following < min(first, stop) and self._log.lacks_parts(sequence):
            # What is not kept of the group may have been there.
            self._position = min(first, stop)
            return LostFrames(Place(sequence, self._position - 1))
        frames = _frames(group, first, before, most_bytes)
        if frames:
            self._position = first + len(frames)
            traits = group.traits
            if traits is None:
                return PastFrames(sequence, first, frames)
            return PastFrames(sequence, first, frames, traits.subgroup or 0, traits.priority)
        if stop <= LAST or all(group.complete for group in groups):
            return None
        if self._log.aborted is None:
            return OpenGroup(sequence, following)
        # What it would have had is not what does not exist.
        self._position = LAST + 1
        return LostFrames(Place(sequence, LAST))


_Part: TypeAlias = "int | LostFrames"


def _parts(log: TrackState, first: int, last: int) -> list[_Part]:
    """Return the kept groups of a range by their sequences, and between them what is lost, in order."""
    parts: list[_Part] = []
    kept = deque(log.kept(first, last))
    for start, stop in _used(log, first, last):
        following = start
        while kept and kept[0] <= stop:
            sequence = kept.popleft()
            if sequence > following:
                parts.append(LostFrames(Place(sequence - 1, LAST)))
            parts.append(sequence)
            following = sequence + 1
        if following <= stop:
            parts.append(LostFrames(Place(stop, LAST)))
    return parts


def _used(log: TrackState, first: int, last: int) -> list[tuple[int, int]]:
    """Return the groups of a range that the track has had, as inclusive ranges."""
    found: list[tuple[int, int]] = []
    for low, high in [*log.gaps(first, last), (last + 1, last + 1)]:
        if first < low:
            found.append((first, low - 1))
        first = high + 1
    return found


def _next_id(group: Group, object_id: int) -> int:
    """Return the lowest id of a kept frame from an id on; beyond every id when there is none."""
    position = group.position_of(object_id)
    return group.id_at(position) if position < group.length else LAST + 1


def _frames(group: Group, first: int, stop: int, most_bytes: int) -> list[Frame]:
    """Return kept frames of a group with ids that follow each other, of so many bytes at most or a single one.

    Args:
        group: The group.
        first: The id of the first frame, which is kept if it is below `stop`.
        stop: The id before which to end.
        most_bytes: Payload bytes to return at most.
    """
    taken: list[Frame] = []
    size = 0
    position = group.position_of(first)
    sparse = group.sparse
    while first + len(taken) < stop and position < group.length and len(taken) < _MOST_FRAMES:
        if sparse and group.id_at(position) != first + len(taken):
            break
        frames, start = group.run(position)
        frame = frames[position - start]
        if taken and size + len(frame) > most_bytes:
            break
        size += len(frame)
        taken.append(frame)
        position += 1
    return taken
