"""Origin: what a session publishes, below which prefix, and who is told of changes."""

from __future__ import annotations

import pytest

from moqt_trio.model.broadcast import Broadcast
from moqt_trio.model.origin import Origin, PublishedBroadcast
from moqt_trio.path import BroadcastPath

PREFIXES = ["", "a", "a/b", "a/b/c", "ab", "x"]


def path(text: str) -> BroadcastPath:
    return BroadcastPath.parse(text)


def published(text: str, broadcast: Broadcast | None = None) -> PublishedBroadcast:
    return PublishedBroadcast(path(text), broadcast or Broadcast())


def shown(origin: Origin, prefix: str) -> list[str]:
    return [str(found) for found in origin.below(path(prefix))]


def test_below_is_by_whole_parts_and_in_order():
    """A prefix covers the publications below it, in the order in which they came; no part of a part does."""
    origin = Origin()
    items = [published(text) for text in ("a/b/c", "ab", "a", "a/b")]
    for item in items:
        origin.add(item)
    expected = {
        "": ["a/b/c", "ab", "a", "a/b"],
        "a": ["a/b/c", "a", "a/b"],
        "a/b": ["a/b/c", "a/b"],
        "a/b/c": ["a/b/c"],
        "ab": ["ab"],
        "x": [],
    }
    assert {prefix: shown(origin, prefix) for prefix in PREFIXES} == expected
    origin.remove(items[0])
    origin.remove(items[0])
    assert shown(origin, "a/b") == ["a/b"]
    assert len(origin) == 3
    for item in items[1:]:
        origin.remove(item)
    assert [shown(origin, prefix) for prefix in PREFIXES] == [[]] * len(PREFIXES)
    # Nothing is left behind.
    assert [*origin._below, *origin._of, *origin._watchers] == []


def test_a_path_is_taken_once():
    """A second publication of a path is refused, and the first stays."""
    origin, first = Origin(), published("a")
    origin.add(first)
    with pytest.raises(ValueError, match="'a' is published on this session already"):
        origin.add(published("a"))
    assert origin.get(path("a")) is first
    origin.remove(published("a"))
    assert path("a") in origin


def test_watchers_of_a_prefix():
    """A watcher is called for what its prefix covers: publications that come and go, and their new tracks."""
    origin = Origin()
    calls: list[tuple[str, str, str | None]] = []
    watchers = {}
    for prefix in PREFIXES:

        def note(item, track, prefix=prefix):
            calls.append((prefix, str(item.path), track))

        watchers[prefix] = note
        origin.watch(path(prefix), note)
    shared = Broadcast()
    one, two = published("a/b", shared), published("x", shared)
    origin.add(one)
    assert calls == [("", "a/b", None), ("a", "a/b", None), ("a/b", "a/b", None)]
    origin.add(two)
    calls.clear()
    shared.track("t")
    assert calls == [("", "a/b", "t"), ("a", "a/b", "t"), ("a/b", "a/b", "t"), ("", "x", "t"), ("x", "x", "t")]
    calls.clear()
    origin.remove(one)
    origin.unwatch(path("a"), watchers["a"])
    shared.track("u")
    assert calls == [("", "a/b", None), ("a", "a/b", None), ("a/b", "a/b", None), ("", "x", "u"), ("x", "x", "u")]
    calls.clear()
    origin.remove(two)
    shared.track("v")
    assert calls == [("", "x", None), ("x", "x", None)]
