"""The registry of versions."""

from __future__ import annotations

import ast
from pathlib import Path

import attrs
import pytest

import moqt_trio
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.dialect import Features, Quirks
from moqt_trio.wire.messages import StreamKind
from tests.protocol.harness import has_streams

NEWEST_FIRST = ("moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03")


def test_versions_are_offered_newest_first():
    """Without a choice of one's own: moq-lite, then the drafts that peers speak, then what came before both."""
    drafts = ("moqt-22", "moqt-20", "moqt-18", "moqt-16", "moqt-14")
    everything = (*NEWEST_FIRST, "moq-lite-02", "moq-lite-01", *drafts, "moq-transfork-03", "gomoqt-develop")
    assert dialects.version_names() == everything
    assert tuple(dialect.name for dialect in dialects.resolve(None)) == everything


def test_a_choice_keeps_its_order():
    """Versions are offered in the order that the caller gives."""
    chosen = dialects.resolve(["moq-lite-03", "moq-lite-06"])
    assert [dialect.name for dialect in chosen] == ["moq-lite-03", "moq-lite-06"]
    assert chosen[1] is dialects.get("moq-lite-06")


@pytest.mark.parametrize(
    ("versions", "text"),
    [
        (["moq-lite-99"], "unknown version 'moq-lite-99'.*moq-lite-06, moq-lite-05"),
        ([], "empty"),
        ("moq-lite-06", r"write \['moq-lite-06'\]"),
    ],
)
def test_choices_that_make_no_sense(versions, text):
    """An unknown name, no name at all, and a single text are refused with a message that says what to write."""
    with pytest.raises(ValueError, match=text):
        dialects.resolve(versions)


def test_features_of_the_versions():
    """What came with which version (the changes between the drafts)."""
    by_version = [dialects.get(name).features for name in reversed(NEWEST_FIRST)]

    def column(name):
        return [getattr(features, name) for features in by_version]

    assert column("setup") == ["none", "none", "uni", "uni"]
    assert column("announce_ids") == [False, False, False, True]
    assert column("announce_first") == ["none", "none", "ok", "ok"]
    assert column("sender_hop") == ["count", "sender", "ok", "ok"]
    assert column("exclude_hop") == [False, True, True, False]
    assert column("subscribe_end") == [False, False, True, True]
    assert column("subscribe_drop") == [True, True, True, True]
    assert column("subscribe_ok_needs_group") == [False, False, True, True]
    assert column("frame_ranges") == [False, False, False, True]
    assert column("timestamps") == [False, False, True, True]
    assert column("track_info") == [False, False, True, True]
    assert all(has_streams(name, StreamKind.FETCH) for name in NEWEST_FIRST)
    quirks = [dialects.get(name).quirks for name in reversed(NEWEST_FIRST)]
    assert quirks == [Quirks(), Quirks(outer_slashes=True), Quirks(), Quirks()]
    assert column("probe") == ["bitrate", "rtt", "rtt", "rtt"]
    assert column("goaway") == [False, True, True, True]
    assert column("datagrams") == [False, False, True, True]
    assert column("unknown_stream_closes") == [False, False, False, False]


def read_below(name):
    """Return the attributes that the library reads of objects of this name, outside the module that defines them."""
    package = Path(moqt_trio.__file__).parent
    files = [path for path in package.rglob("*.py") if path != package / "wire" / "dialect.py"]
    nodes = [node for path in files for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    read = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)]
    of = [(getattr(node.value, "attr", None) or getattr(node.value, "id", ""), node.attr) for node in read]
    return {attribute for owner, attribute in of if owner.removeprefix("_") == name}


@pytest.mark.parametrize(("kind", "name"), [(Features, "features"), (Quirks, "quirks")])
def test_every_feature_and_every_quirk_has_an_effect(kind, name):
    """Each field is read by what it makes a difference to; one that nothing reads describes nothing."""
    assert {field.name for field in attrs.fields(kind)} == read_below(name)
