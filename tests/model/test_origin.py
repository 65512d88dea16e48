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


class Asked:
    """What the broadcasts of one test were asked for, and what they make."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, str]] = []

    def broadcast(self, where: str, *served: str) -> Broadcast:
        """A broadcast that makes these tracks as they are asked for, at its own path or below."""

        def on_request(below, name):
            self.calls.append((where, str(below), name))
            return made.track(name) if name in served else None

        made = Broadcast(on_request=on_request)
        return made


def test_a_track_that_is_made_as_it_is_asked_for():
    """The broadcast of the path is asked, with an empty path below; afterwards the track is there, and `find` finds
    it. `find` makes nothing."""
    asked, origin = Asked(), Origin()
    item = published("a/b", asked.broadcast("a/b", "t"))
    origin.add(item)
    assert origin.find(path("a/b"), "t") is None
    assert asked.calls == []
    made = item.broadcast.tracks
    assert origin.request(path("a/b"), "t") == (item, made["t"])
    assert origin.request(path("a/b"), "t") == origin.find(path("a/b"), "t") == (item, made["t"])
    assert origin.request(path("a/b"), "none") is None
    assert asked.calls == [("a/b", "", "t"), ("a/b", "", "none")]


def test_a_track_below_a_path_that_is_published():
    """The longest prefix is asked first, then the shorter ones; those without a function refuse."""
    asked, origin = Asked(), Origin()
    outer, inner = published("a", asked.broadcast("a", "t", "u")), published("a/b", asked.broadcast("a/b", "u"))
    for item in (outer, inner, published("a/b/c"), published("x")):
        origin.add(item)
    assert origin.request(path("a/b/c/d"), "u") == (inner, inner.broadcast.tracks["u"])
    assert asked.calls == [("a/b", "c/d", "u")]
    asked.calls.clear()
    assert origin.request(path("a/b/c/d"), "t") == (outer, outer.broadcast.tracks["t"])
    assert asked.calls == [("a/b", "c/d", "t"), ("a", "b/c/d", "t")]
    assert origin.request(path("x/y"), "t") is None


@pytest.mark.parametrize("answer", [ValueError("a bug"), "no track"])
def test_a_function_that_fails(answer, caplog):
    """Its exception, and what is no track, are logged and refuse the one request."""

    def on_request(below, name):
        if isinstance(answer, Exception):
            raise answer
        return answer

    origin = Origin()
    origin.add(published("a", Broadcast(on_request=on_request)))
    assert origin.request(path("a"), "t") is None
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert record.exc_info


def test_no_function():
    """What cannot be called is refused at once, with what is wanted."""
    with pytest.raises(TypeError, match="a function of a path and a track's name, not str"):
        Broadcast(on_request="t")


def test_who_waits_for_a_request():
    """It hears of what is published at its path and at the prefixes of it, of new tracks there, and of nothing else."""
    origin, heard = Origin(), []

    def changed(item: PublishedBroadcast, track: str | None) -> None:
        heard.append((str(item.path), track))

    origin.watch_requests(path("a/b"), changed)
    items = [published(text) for text in ("a/b/c", "a", "x", "a/b", "ab")]
    for item in items:
        origin.add(item)
        item.broadcast.track("t")
    origin.remove(items[1])
    assert heard == [("a", None), ("a", "t"), ("a/b", None), ("a/b", "t"), ("a", None)]
    origin.unwatch_requests(path("a/b"), changed)
    origin.unwatch_requests(path("a/b"), changed)
    origin.remove(items[3])
    assert len(heard) == 5
    assert origin._waiting == {}
