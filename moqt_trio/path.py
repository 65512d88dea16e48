"""Broadcast paths: tuples of parts, written with slashes, compared part by part."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import attrs

from .errors import printable


@functools.total_ordering
@attrs.frozen(repr=False, eq=False, order=False)
class BroadcastPath:
    """The name of a broadcast, or of a prefix that covers many.

    `BroadcastPath.parse("live/cam")` has the parts `("live", "cam")`. Slashes at the ends and doubled slashes are
    dropped, as every known peer does. A prefix covers whole parts: `live` covers `live/cam` but not `lively`.

    A path equals its text, `str(path)`, and has its hash: `announcement.path == "live/cam"`, and a dict whose keys are
    texts finds paths. It does not equal another spelling of that text. Paths and texts are ordered by their parts.

    How long and how deep a path may be depends on the session: `Limits.max_path` and `Limits.max_path_parts`.

    Attributes:
        parts: The parts, outermost first. Empty for the root prefix.

    Raises:
        ValueError: A part is empty or contains a slash.
    """

    parts: tuple[str, ...] = ()
    _text: str = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        for part in self.parts:
            if not part or "/" in part:
                raise ValueError(f"a path part must be non-empty and without '/', not {printable(part)!r}")
        object.__setattr__(self, "_text", "/".join(self.parts))

    @classmethod
    def parse(cls, text: str | BroadcastPath) -> BroadcastPath:
        """Return the path that a text names.

        Args:
            text: Parts separated by `/`. A `BroadcastPath` is returned unchanged.
        """
        if isinstance(text, BroadcastPath):
            return text
        if not isinstance(text, str):
            raise TypeError(f"a path is a text such as 'room/alice', not {printable(repr(text))}")
        return cls(tuple(part for part in text.split("/") if part))

    def __str__(self) -> str:
        return self._text

    def __eq__(self, other: object) -> bool:
        if isinstance(other, BroadcastPath):
            return self._text == other._text
        return self._text == other if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return f"BroadcastPath({str(self)!r})"

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __lt__(self, other: BroadcastPath | str) -> bool:
        if not isinstance(other, BroadcastPath | str):
            return NotImplemented
        return self.parts < BroadcastPath.parse(other).parts

    def covers(self, other: BroadcastPath | str) -> bool:
        """Return whether this path, as a prefix, covers another one. Every path covers itself."""
        return BroadcastPath.parse(other).parts[: len(self.parts)] == self.parts

    def suffix_of(self, other: BroadcastPath | str) -> BroadcastPath:
        """Return the rest of another path below this prefix.

        Raises:
            ValueError: This prefix does not cover the other path.
        """
        path = BroadcastPath.parse(other)
        if not self.covers(path):
            raise ValueError(f"{self!r} does not cover {path!r}")
        return BroadcastPath(path.parts[len(self.parts) :])

    def join(self, suffix: BroadcastPath | str) -> BroadcastPath:
        """Return this path with more parts below it."""
        return BroadcastPath(self.parts + BroadcastPath.parse(suffix).parts)
