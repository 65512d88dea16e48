"""Patterns: which broadcast paths a grant names.

A pattern is segments between slashes, as moq-relay's are:

- a text matches the segment of this name;
- `*` matches any one segment;
- `cam*` and `*-hd` and `cam*-hd` match a segment that begins and ends so, the two without overlapping;
- `**` matches any number of segments, also none. A pattern has it once at most.

`live/cam` is one broadcast and nothing below it, `live/**` is `live` and all below it, `**` is everything, and the
empty pattern is the root alone. A pattern has 32 segments at most.

Theory of operation. A pattern is its segments before the `**` and those after it; without one, the segments all stand
before it. A path matches when its first parts match the head and its last parts match the tail, and the parts of the
two do not overlap. Nothing is tried twice, so a match costs as many comparisons as the pattern has segments.
`*` and `**` beside each other match the same in either order, and `**` is written first: so patterns that match the
same paths have one text.

Containment is decided for each pattern of a set alone: what only several of them cover together counts as not covered.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import attrs

from .arguments import shown, want_texts
from .errors import printable

MAX_SEGMENTS = 32
"""Segments of a pattern, and the bound of moq-relay's."""
MAX_PATTERNS = 256
"""Patterns of a set: to compare two sets costs the product of their sizes."""

ANY = "**"
"""Any number of segments."""
ONE = "*"
"""Any one segment."""


def parts_of(path: str) -> tuple[str, ...]:
    """Return the parts of a path or a root; slashes at its ends and doubled ones count as none."""
    return tuple(part for part in path.split("/") if part)


def _segment_matches(segment: str, part: str) -> bool:
    """Return whether a segment, which is not `**`, matches a part of a path."""
    before, star, after = segment.partition(ONE)
    if not star:
        return segment == part
    return len(part) >= len(before) + len(after) and part.startswith(before) and part.endswith(after)


def _segment_covers(segment: str, other: str) -> bool:
    """Return whether a segment matches all that another one matches; neither is `**`."""
    if ONE not in other:
        return _segment_matches(segment, other)
    if ONE not in segment:
        return False
    before, _, after = segment.partition(ONE)
    other_before, _, other_after = other.partition(ONE)
    return other_before.startswith(before) and other_after.endswith(after)


def _run_covers(ours: tuple[str, ...], theirs: tuple[str, ...]) -> bool:
    """Return whether segments match all that others match which more segments of any kind may follow."""
    reached = all(map(_segment_covers, ours, theirs))
    return reached and all(segment == ONE for segment in ours[len(theirs) :])


@attrs.frozen(repr=False)
class Pattern:
    """A set of paths; see this module.

    Attributes:
        head: The segments before the `**`; all of them, if there is none.
        tail: The segments after it; None if there is none.
    """

    head: tuple[str, ...]
    tail: tuple[str, ...] | None = None

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Return the pattern of a text.

        Raises:
            ValueError: It is none; the message says why.
        """
        if not isinstance(text, str):
            raise TypeError(f"a pattern is a text such as 'live/**', not {shown(text)}")
        return cls.of(tuple(text.split("/")) if text else (), text)

    @classmethod
    def of(cls, segments: tuple[str, ...], text: str | None = None) -> Pattern:
        """Return the pattern of segments. Raises ValueError as `parse` does."""
        text = "/".join(segments) if text is None else text
        if len(segments) > MAX_SEGMENTS:
            raise ValueError(f"a pattern has at most {MAX_SEGMENTS} segments, not {len(segments)}: {printable(text)}")
        for segment in segments:
            if not segment:
                raise ValueError(f"a pattern has no slash at an end and no two in a row: {printable(text)}")
            if segment != ANY and segment.count(ONE) > 1:
                raise ValueError(f"a segment of a pattern has one '*', or is '**': {printable(text)}")
        if segments.count(ANY) > 1:
            raise ValueError(f"a pattern has '**' once: {printable(text)}")
        if ANY not in segments:
            return cls(segments)
        place = segments.index(ANY)
        head, tail = segments[:place], segments[place + 1 :]
        # One text for patterns that match the same paths: `**` goes before the `*` beside it.
        while head and head[-1] == ONE:
            head, tail = head[:-1], (ONE, *tail)
        return cls(head, tail)

    @classmethod
    def below(cls, prefix: str) -> Pattern:
        """Return the pattern of a path and all below it. Raises ValueError for a `*` in it, or too many parts."""
        parts = _literal(prefix)
        return cls.of(parts if len(parts) == MAX_SEGMENTS else (*parts, ANY))

    @property
    def prefix(self) -> str | None:
        """The path, for a pattern that is a path and all below it; None for another one."""
        if self.tail != () or any(ONE in segment for segment in self.head):
            return None
        return "/".join(self.head)

    def matches(self, path: tuple[str, ...]) -> bool:
        """Return whether a path, of these parts, is in the set."""
        head, tail = self.head, self.tail
        if tail is None:
            return len(path) == len(head) and all(map(_segment_matches, head, path))
        if len(path) < len(head) + len(tail):
            return False
        after = path[len(path) - len(tail) :]
        return all(map(_segment_matches, head, path)) and all(map(_segment_matches, tail, after))

    def contains(self, other: Pattern) -> bool:
        """Return whether this pattern matches every path that another one matches."""
        if self.tail is None:
            return (
                other.tail is None
                and len(self.head) == len(other.head)
                and all(map(_segment_covers, self.head, other.head))
            )
        shortest = len(other.head) + len(other.tail or ())
        if shortest < len(self.head) + len(self.tail):
            return False
        if other.tail is None:
            after = other.head[len(other.head) - len(self.tail) :]
            return all(map(_segment_covers, self.head, other.head)) and all(map(_segment_covers, self.tail, after))
        return _run_covers(self.head, other.head) and _run_covers(self.tail[::-1], other.tail[::-1])

    def rebased(self, root: tuple[str, ...]) -> list[Pattern]:
        """Return the patterns that match, below a path, what this one matches there; none if it matches nothing there.

        They may be several: the `**` of `**/a` ends before the root `a`, or goes on below it.
        """
        head, tail = self.head, self.tail
        if not all(map(_segment_matches, head, root)):
            return []
        if len(root) <= len(head):
            return [Pattern.of(Pattern(head[len(root) :], tail).segments)]
        if tail is None:
            return []
        rest = root[len(head) :]
        return [Pattern.of((ANY, *tail))] + [
            Pattern.of(tail[taken:])
            for taken in range(1, min(len(tail), len(rest)) + 1)
            if all(map(_segment_matches, tail[:taken], rest[len(rest) - taken :]))
        ]

    def rooted(self, root: str) -> Pattern:
        """Return the pattern of the same paths, as they are named from above a root.

        Raises:
            ValueError: The root has a `*`, or the pattern becomes too deep.
        """
        return Pattern.of((*_literal(root), *self.segments))

    @property
    def segments(self) -> tuple[str, ...]:
        """The segments, in order."""
        return self.head if self.tail is None else (*self.head, ANY, *self.tail)

    def __str__(self) -> str:
        return "/".join(self.segments)

    def __repr__(self) -> str:
        return f"Pattern({printable(str(self))!r})"


def _literal(path: str) -> tuple[str, ...]:
    parts = parts_of(path)
    if any(ONE in part for part in parts):
        raise ValueError(f"a path that a pattern begins with has no '*', not {printable(path)!r}")
    return parts


@attrs.frozen(repr=False)
class Patterns:
    """A union of patterns, without those that another one of them contains.

    Attributes:
        members: The patterns, ordered by their texts.
    """

    members: tuple[Pattern, ...] = ()

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Patterns:
        """Return the union of patterns that are written as texts. Raises ValueError as `Pattern.parse` does."""
        return cls.of(Pattern.parse(text) for text in texts)

    @classmethod
    def of(cls, patterns: Iterable[Pattern]) -> Patterns:
        """Return the union of patterns. Raises ValueError for more than `MAX_PATTERNS`."""
        kept: list[Pattern] = []
        for number, pattern in enumerate(patterns):
            if number >= MAX_PATTERNS:
                raise ValueError(f"a grant has at most {MAX_PATTERNS} patterns for each of both directions")
            if not any(other.contains(pattern) for other in kept):
                kept = [other for other in kept if not pattern.contains(other)]
                kept.append(pattern)
        return cls(tuple(sorted(kept, key=str)))

    def matches(self, path: tuple[str, ...]) -> bool:
        """Return whether one of them matches a path, of these parts."""
        return any(pattern.matches(path) for pattern in self.members)

    def covers(self, other: Patterns) -> bool:
        """Return whether each pattern of another union is contained in one of this union."""
        return all(any(ours.contains(theirs) for ours in self.members) for theirs in other.members)

    def rebased(self, root: tuple[str, ...]) -> Patterns:
        """Return what the union matches below a path; see `Pattern.rebased`."""
        return Patterns.of(found for pattern in self.members for found in pattern.rebased(root))

    def rooted(self, root: str) -> Patterns:
        """Return the same paths as they are named from above a root. Raises ValueError as `Pattern.rooted` does."""
        return Patterns.of(pattern.rooted(root) for pattern in self.members)

    @property
    def texts(self) -> tuple[str, ...]:
        """The patterns as texts."""
        return tuple(map(str, self.members))

    def __bool__(self) -> bool:
        return bool(self.members)

    def __iter__(self) -> Iterator[Pattern]:
        return iter(self.members)

    def __repr__(self) -> str:
        return f"Patterns({printable(', '.join(self.texts))})"


def patterns_of(name: str, texts: Collection[str]) -> Patterns:
    """Return the union of an argument's patterns.

    Args:
        name: The argument's.
        texts: The patterns.

    Raises:
        TypeError: It is one text, or something else in place of a text.
        ValueError: One of them is no pattern.
    """
    want_texts(name, texts)
    return Patterns.parse(texts)
