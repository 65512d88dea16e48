"""Broadcast paths."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moqt_trio.path import BroadcastPath

parts = st.lists(st.text(st.characters(exclude_characters="/"), min_size=1, max_size=8), max_size=8).map(tuple)
parse = BroadcastPath.parse


@pytest.mark.parametrize("text", ["live/cam", "/live/cam", "live/cam/", "//live///cam//"])
def test_slashes_that_separate_nothing_are_dropped(text):
    """Slashes at the ends and doubled slashes do not make another path."""
    path = parse(text)
    assert path == BroadcastPath(("live", "cam"))
    assert str(path) == "live/cam"
    assert hash(path) == hash(parse("live/cam"))


def test_the_root():
    """An empty text and slashes alone are the root, which covers everything."""
    root = parse("")
    assert root == parse("///") == BroadcastPath()
    assert (str(root), len(root), list(root)) == ("", 0, [])
    assert root.covers(parse("a"))
    assert root.covers(root)


@pytest.mark.parametrize(
    ("prefix", "path", "covers"),
    [
        ("live", "live/cam", True),
        ("live/", "live", True),
        ("live", "lively", False),
        ("live/cam", "live/camera1", False),
        ("live/cam", "live", False),
        ("Live", "live/cam", False),
        ("live%2Fcam", "live/cam", False),
        ("a/..", "b", False),
    ],
)
def test_a_prefix_covers_whole_parts(prefix, path, covers):
    """A prefix is compared part by part, exactly: no folding of case, escapes or dots."""
    assert parse(prefix).covers(parse(path)) is covers


def test_suffix_and_join():
    """What is left below a prefix, joined to the prefix, is the path again."""
    path = parse("a/b/c")
    assert str(parse("a").suffix_of(path)) == "b/c"
    assert path.suffix_of(path) == BroadcastPath()
    assert parse("a").join("/b//c/") == path
    assert parse("").join(path) == path
    with pytest.raises(ValueError, match="does not cover"):
        parse("b").suffix_of(path)


def test_a_path_is_returned_as_it_is():
    """Parsing a path gives that same path."""
    path = parse("a/b")
    assert parse(path) is path
    assert repr(path) == "BroadcastPath('a/b')"
    assert list(path) == ["a", "b"]
    assert len(path) == 2


def test_paths_are_ordered_by_their_parts():
    """A path comes before what is below it, and that before the next sibling."""
    texts = ["a", "a/z", "a-b", "b"]
    assert [str(path) for path in sorted(map(parse, reversed(texts)))] == texts
    assert parse("b") > parse("a/z")


@pytest.mark.parametrize("part", ["", "a/b", "/"])
def test_parts_that_cannot_be_written(part):
    """A part that is empty or has a slash cannot be written, so it is refused and not rewritten."""
    with pytest.raises(ValueError, match="part"):
        BroadcastPath(("a", part))


def test_a_path_has_no_bound_of_its_own():
    """The limits of a session bound how long and how deep a path may be, see `tests/api/test_path_limits.py`."""
    assert len(parse("/".join(["a"] * 33))) == 33
    assert len(str(parse("é" * 513))) == 513


def test_errors_show_a_path_safely():
    """A path that is refused is shown without control characters."""
    with pytest.raises(ValueError, match="part") as caught:
        BroadcastPath(("\x1b[31m/\n",))
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(parts, parts)
def test_covering_is_a_prefix_of_parts(left, right):
    """A path covers another exactly when its parts open the other's, and then the suffix joins back."""
    prefix, path = BroadcastPath(left), BroadcastPath(right)
    assert prefix.covers(path) is (right[: len(left)] == left)
    joined = prefix.join(path)
    assert prefix.covers(joined)
    assert prefix.suffix_of(joined) == path


@given(parts)
def test_text_round_trip(names):
    """A path's text names that path."""
    assert parse(str(BroadcastPath(names))) == BroadcastPath(names)


@given(parts)
def test_a_path_equals_its_text(names):
    """A path equals the text that it is shown as, both ways round, and is found by it in a dict, a set and a list."""
    path = BroadcastPath(names)
    text = "/".join(names)
    assert path == text
    assert text == path
    assert hash(path) == hash(text)
    assert {path: 1}[text] == {text: 1}[path] == 1
    assert text in [path]
    assert path in [text]
    assert len({path, text}) == 1


@pytest.mark.parametrize("other", ["/live/cam", "live/cam/", "live//cam", "Live/cam", "live", "", b"live/cam", None, 7])
def test_what_a_path_does_not_equal(other):
    """Another spelling of the same path is another text, with another hash. Nothing else equals a path either."""
    assert parse("live/cam") != other
    assert other != parse("live/cam")


def test_a_text_may_stand_for_a_path():
    """Where a path is asked about another one, a text is read as a path."""
    assert parse("live").covers("/live/cam")
    assert not parse("live").covers("lively")
    assert parse("live").suffix_of("live/cam") == "cam"
    assert sorted([parse("b"), "a/b", parse("a")]) == ["a", "a/b", "b"]
    assert parse("a") < "b" <= parse("b") > "a"
    with pytest.raises(TypeError):
        _ = parse("a") < 7
