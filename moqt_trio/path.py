"""Broadcast paths: tuples of parts, written with slashes, compared part by part."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import attrs

from .errors import printable


@functools.total_ordering
@attrs.frozen(repr=False, eq=True, hash=True, order=False)
class BroadcastPath:
    """The name of a broadcast, or of a prefix that covers many.

    `BroadcastPath.parse("live/cam")` has the parts `("live", "cam")`. Slashes at the ends and doubled slashes are
    dropped, as every known peer does. A prefix covers whole parts: `live` covers `live/cam` but not `lively`.

    How long and how deep a path may be depends on the session: `Limits.max_path` and `Limits.max_path_parts`.

    Attributes:
        parts: The parts, outermost first. Empty for the root prefix.

    Raises:
        ValueError: A part is empty or contains a slash.
    """

    parts: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        for part in self.parts:
            if not part or "/" in part:
                raise ValueError(f"a path part must be non-empty and without '/', not {printable(part)!r}")

    @classmethod
    def parse(cls, text: str | BroadcastPath) -> BroadcastPath:
        """Return the path that a text names.

        Args:
            text: Parts separated by `/`. A `BroadcastPath` is returned unchanged.
        """
        if isinstance(text, BroadcastPath):
            return text
        return cls(tuple(part for part in text.split("/") if part))

    def __str__(self) -> str:
        return "/".join(self.parts)

    def __repr__(self) -> str:
        return f"BroadcastPath({str(self)!r})"

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __lt__(self, other: BroadcastPath) -> bool:
        return self.parts < other.parts

    def covers(self, other: BroadcastPath) -> bool:
        """Return whether this path, as a prefix, covers another one. Every path covers itself."""
        return other.parts[: len(self.parts)] == self.parts

    def suffix_of(self, other: BroadcastPath) -> BroadcastPath:
        """Return the rest of another path below this prefix.

        Raises:
            ValueError: This prefix does not cover the other path.
        """
        if not self.covers(other):
            raise ValueError(f"{self!r} does not cover {other!r}")
        return BroadcastPath(other.parts[len(self.parts) :])

    def join(self, suffix: BroadcastPath | str) -> BroadcastPath:
        """Return this path with more parts below it."""
        return BroadcastPath(self.parts + BroadcastPath.parse(suffix).parts)
