"""Broadcast paths: tuples of parts, written with slashes, compared part by part."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import attrs

from .errors import printable

MAX_PARTS = 32
MAX_BYTES = 1024


@functools.total_ordering
@attrs.frozen(repr=False, eq=True, hash=True, order=False)
class BroadcastPath:
    """The name of a broadcast, or of a prefix that covers many.

    `BroadcastPath.parse("live/cam")` has the parts `("live", "cam")`. Slashes at the ends and doubled slashes are
    dropped, as every known peer does. A prefix covers whole parts: `live` covers `live/cam` but not `lively`.

    Attributes:
        parts: The parts, outermost first. Empty for the root prefix.
    """

    parts: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        for part in self.parts:
            if not part or "/" in part:
                raise ValueError(f"a path part must be non-empty and without '/', not {printable(part)!r}")
        if len(self.parts) > MAX_PARTS:
            raise ValueError(f"a path has at most {MAX_PARTS} parts, not {len(self.parts)}")
        if len(str(self).encode("utf-8", "surrogatepass")) > MAX_BYTES:
            raise ValueError(f"a path has at most {MAX_BYTES} bytes: {printable(str(self))!r}")

    @classmethod
    def parse(cls, text: str | BroadcastPath) -> BroadcastPath:
        """Returns the path that a text names.

        Args:
            text: Parts separated by `/`. A `BroadcastPath` is returned as it is.

        Raises:
            ValueError: More than 32 parts, or more than 1024 bytes.
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
        """Returns True when this path, as a prefix, covers the other one; every path covers itself."""
        return other.parts[: len(self.parts)] == self.parts

    def suffix_of(self, other: BroadcastPath) -> BroadcastPath:
        """Returns what is left of the other path below this prefix.

        Raises:
            ValueError: This prefix does not cover the other path.
        """
        if not self.covers(other):
            raise ValueError(f"{self!r} does not cover {other!r}")
        return BroadcastPath(other.parts[len(self.parts) :])

    def join(self, suffix: BroadcastPath | str) -> BroadcastPath:
        """Returns this path with more parts below it."""
        return BroadcastPath(self.parts + BroadcastPath.parse(suffix).parts)
