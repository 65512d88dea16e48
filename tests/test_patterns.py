"""Patterns of paths: what they match, contain and become below a root, against lists of all paths of some parts."""

from __future__ import annotations

import itertools
import re
import time

import pytest

from moqt_trio.patterns import MAX_PATTERNS, MAX_SEGMENTS, Pattern, Patterns, parts_of
from tests.machine import seconds

PARTS = ("a", "b", "ab", "aab", "c")
PATHS = [path for length in range(5) for path in itertools.product(PARTS, repeat=length)]
SEGMENTS = ("a", "ab", "*", "a*", "*b", "a*b", "**")
TEXTS = [
    "/".join(segments)
    for length in range(4)
    for segments in itertools.product(SEGMENTS, repeat=length)
    if segments.count("**") < 2
]


def expression(text: str) -> re.Pattern[str]:
    """Returns the regular expression of a pattern, for paths of which each part is followed by a slash."""
    found = ""
    for segment in text.split("/") if text else ():
        found += "(?:[^/]+/)*" if segment == "**" else re.escape(segment).replace(r"\*", "[^/]*") + "/"
    return re.compile(found)


def paths_of(text: str) -> frozenset[tuple[str, ...]]:
    """Returns the paths that a pattern matches, as its regular expression has them."""
    wanted = expression(text)
    return frozenset(path for path in PATHS if wanted.fullmatch("".join(part + "/" for part in path)))


EXPECTED = {text: paths_of(text) for text in TEXTS}


@pytest.mark.parametrize("text", TEXTS)
def test_matches(text):
    """A pattern matches the paths that its regular expression matches."""
    pattern = Pattern.parse(text)
    assert {path for path in PATHS if pattern.matches(path)} == EXPECTED[text]


def test_one_text():
    """Patterns that match the same paths have one text, and the text names the same pattern again."""
    for text in TEXTS:
        pattern = Pattern.parse(text)
        assert Pattern.parse(str(pattern)) == pattern
    assert str(Pattern.parse("a/*/**")) == str(Pattern.parse("a/**/*")) == "a/**/*"
    assert str(Pattern.parse("*/*/**/b")) == "**/*/*/b"


def test_contains():
    """A pattern contains another one only if it matches every path of it, and every pattern that it can be seen to."""
    patterns = [Pattern.parse(text) for text in TEXTS]
    for (ours, ours_text), (theirs, theirs_text) in itertools.product(zip(patterns, TEXTS, strict=True), repeat=2):
        if ours.contains(theirs):
            assert EXPECTED[ours_text] >= EXPECTED[theirs_text], (ours_text, theirs_text)
        elif "**" not in theirs_text and "**" not in ours_text:
            # Of fixed length, these lists of paths tell all patterns apart.
            assert not EXPECTED[ours_text] >= EXPECTED[theirs_text], (ours_text, theirs_text)


@pytest.mark.parametrize(
    ("ours", "theirs", "contained"),
    [
        ("**", "", True),
        ("a/**", "a", True),
        ("a/**", "ab/**", False),
        ("a/*", "a/**", False),
        ("a/**", "a/b/**", True),
        ("a/**/*", "a/b/**", True),
        ("a/**/*", "a/**", False),
        ("**/*/*", "a/**/b", True),
        ("**/b", "a/**/b", True),
        ("a/**/b", "**/b", False),
        ("cam*", "cam1*", True),
        ("cam1*", "cam*", False),
        ("*", "cam*-hd", True),
    ],
)
def test_containment(ours, theirs, contained):
    """What is allowed covers what is asked for, or it does not."""
    assert Pattern.parse(ours).contains(Pattern.parse(theirs)) is contained


@pytest.mark.parametrize("root", ["a", "b", "a/b", "ab/a", "a/ab/b"])
def test_rebased_and_rooted(root):
    """Below a root, patterns match what follows the root in the paths that they matched; named from above, the same."""
    parts = parts_of(root)
    below = [path for path in PATHS if len(path) + len(parts) < 5]
    for text in TEXTS:
        pattern = Pattern.parse(text)
        rebased = Patterns.of(pattern.rebased(parts))
        assert [rebased.matches(path) for path in below] == [(*parts, *path) in EXPECTED[text] for path in below]
        rooted = pattern.rooted(root)
        assert [rooted.matches((*parts, *path)) for path in below] == [path in EXPECTED[text] for path in below]
        assert not any(rooted.matches(path) for path in PATHS if path[: len(parts)] != parts)


def test_unions():
    """A union keeps no pattern that another one contains, and has one order."""
    assert Patterns.parse(["a/b", "a/c", "a/*"]).texts == ("a/*",)
    assert Patterns.parse(["b", "a/**", "a", "a/b"]) == Patterns.parse(["a/**", "b"])
    assert Patterns.parse(["a/**", "b"]).covers(Patterns.parse(["a/x", "b"]))
    assert not Patterns.parse(["a/**"]).covers(Patterns.parse(["a", "b"]))
    assert Patterns.parse(["a"]).covers(Patterns())
    assert not Patterns()
    assert Patterns.parse(["a"])


def test_a_path_and_all_below():
    """A prefix of a token is a pattern, and such a pattern is a prefix."""
    assert str(Pattern.below("/live//cam/")) == "live/cam/**"
    assert str(Pattern.below("")) == "**"
    assert str(Pattern.below("a/" * MAX_SEGMENTS)) == "/".join("a" * MAX_SEGMENTS)
    prefixes = {"live/cam/**": "live/cam", "**": "", "live": None, "a*/**": None, "**/a": None, "*/**": None}
    assert {text: Pattern.parse(text).prefix for text in prefixes} == prefixes


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/a", "no slash"),
        ("a/", "no slash"),
        ("a//b", "no slash"),
        ("/", "no slash"),
        ("a**", "one '\\*'"),
        ("a*b*c", "one '\\*'"),
        ("***", "one '\\*'"),
        ("**/a/**", "once"),
        ("a/" * MAX_SEGMENTS + "a", "at most 32 segments, not 33"),
    ],
)
def test_what_is_no_pattern(text, reason):
    """The message says what is wrong, and with which text."""
    with pytest.raises(ValueError, match=reason):
        Pattern.parse(text)


def test_bounds():
    """A pattern with a root has no more segments than another one, and a union no more patterns."""
    deep = Pattern.parse("/".join("a" * MAX_SEGMENTS))
    with pytest.raises(ValueError, match="at most 32 segments"):
        deep.rooted("b")
    with pytest.raises(ValueError, match="no '\\*'"):
        Pattern.parse("a").rooted("b/*")
    with pytest.raises(ValueError, match="no '\\*'"):
        Pattern.below("a*")
    with pytest.raises(ValueError, match="at most 256 patterns"):
        Patterns.parse(map(str, range(MAX_PATTERNS + 1)))
    with pytest.raises(TypeError, match="a pattern is a text"):
        Patterns.parse([3])


def test_long_paths_cost_little():
    """A match is one pass, however many `*` the pattern has and however long the parts are."""
    pattern = Pattern.parse("/".join([*["a*b"] * 15, "**", *["a*b"] * 15]))
    near = ("a" + "ab" * 500 + "b",) * 60
    start = time.perf_counter()
    for _ in range(1000):
        assert pattern.matches(near)
        assert not pattern.matches((*near, "a"))
    assert time.perf_counter() - start < seconds(1)
