"""FetchedFrames: the objects of a reply to a fetch as frames, each with its group and its index there.

Spec: draft-ietf-moq-transport-18, section 10.4.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ..dialect import ALL_FRAMES, FrameDecoder
from .fetch_objects import FetchDecoder, FetchedObject, MissingRange
from .objects import Status, malformed_track

if TYPE_CHECKING:
    from ...frame import Frame
    from ...limits import Limits
    from .profile import Profile


class FetchedFrames(FrameDecoder):
    """Reads the frames of a reply. Each has its group, and its index there.

    Args:
        profile: The draft.
        limits: The bounds.
        group: The only group that the reply may have; None for any.
        descending: True for a reply whose groups come newest first.

    Attributes:
        group: As above; may be set before the first object.
        spare: Bytes that are no part of a frame, and were not counted with one yet.
        missing: The ranges that the reply leaves out, the newest last, as their last objects and the reasons.
    """

    MOST_MISSING: ClassVar[int] = 256

    def __init__(self, profile: Profile, limits: Limits, *, group: int | None = None, descending: bool = False) -> None:
        self._decoder = FetchDecoder(profile, limits, descending=descending)
        self.group = group
        self.spare = 0
        self.missing: list[MissingRange] = []

    @property
    def pending_bytes(self) -> int:
        return self._decoder.pending_bytes

    def feed_untrusted(
        self, data: bytes, frames: list[Frame], sizes: list[int], start: int = 0, most: int = ALL_FRAMES
    ) -> int:
        found: list[FetchedObject | MissingRange] = []
        try:
            left = self._decoder.read_untrusted(data[start:] if start else data, found, most)
        finally:
            for item in found:
                self.spare += item.size
                if isinstance(item, MissingRange):
                    self.missing.append(item)
                    del self.missing[: -self.MOST_MISSING]
                elif item.status is Status.NORMAL:
                    self._add_untrusted(item, frames, sizes)
        return len(data) - left

    def _add_untrusted(self, item: FetchedObject, frames: list[Frame], sizes: list[int]) -> None:
        if self.group is not None and item.group != self.group:
            raise malformed_track(f"an object of group {item.group} in the reply to a fetch of group {self.group}")
        item.frame.group = item.group
        frames.append(item.frame)
        sizes.append(self.spare)
        self.spare = 0
