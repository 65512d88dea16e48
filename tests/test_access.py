"""Grants: what a session may do, as a value."""

from __future__ import annotations

import attrs
import pytest

import moqt_trio as moqt


def test_what_it_allows():
    """Paths are matched by whole parts, for each of both directions."""
    grant = moqt.Grant(publish=["live/alice/**"], subscribe=["live/*/cam", "clock"])
    assert grant.may_publish("live/alice")
    assert grant.may_publish("live/alice/cam/low")
    assert not grant.may_publish("live/alicia")
    assert not grant.may_publish("clock")
    assert grant.may_subscribe("/live/bob/cam/")
    assert grant.may_subscribe(moqt.BroadcastPath(("clock",)))
    assert not grant.may_subscribe("live/bob")
    assert not grant.may_subscribe("clock/hour")


def test_values():
    """Grants that allow the same are equal, whatever the order and the redundancy; the patterns are texts."""
    grant = moqt.Grant(publish=["b", "a/**", "a/b"])
    assert grant.publish == ("a/**", "b")
    assert grant == moqt.Grant(publish=("a/**", "b"))
    assert attrs.evolve(grant, publish=["c"]).may_publish("c")
    assert not attrs.evolve(grant, publish=["c"]).may_publish("b")
    assert repr(grant).startswith("Grant(publish=('a/**', 'b'), subscribe=(), root=None, expires=None")


@pytest.mark.parametrize(
    ("publish", "subscribe", "allowed"),
    [
        ([], [], set()),
        (["a"], [], {"publisher", "both"}),
        ([], ["a"], {"subscriber", "both"}),
        (["a"], ["a"], {"publisher", "subscriber", "both"}),
    ],
)
def test_roles(publish, subscribe, allowed):
    """A client that only publishes gains nothing by what it may subscribe to."""
    grant = moqt.Grant(publish=publish, subscribe=subscribe)
    assert {role for role in ("publisher", "subscriber", "both") if grant.allows(role)} == allowed


def test_covers():
    """One grant covers another that allows less in both directions, below the same root."""
    wide, narrow = moqt.Grant(publish=["a/**"], subscribe=["**"]), moqt.Grant(publish=["a/b"], subscribe=["c"])
    assert wide.covers(narrow)
    assert wide.covers(attrs.evolve(wide, expires=5.0))
    assert not narrow.covers(wide)
    assert not attrs.evolve(wide, publish=[]).covers(narrow)
    assert not attrs.evolve(wide, root="a").covers(wide)


@pytest.mark.parametrize(
    ("arguments", "error", "reason"),
    [
        ({"publish": "a/**"}, TypeError, "publish is a list of texts"),
        ({"subscribe": [b"a"]}, TypeError, "a pattern is a text"),
        ({"publish": ["a//b"]}, ValueError, "no slash"),
        ({"root": b"a"}, TypeError, "the root of a grant is a text"),
        ({"tier": 3}, TypeError, "the tier of a grant is a text"),
        ({"expires": float("nan")}, ValueError, "expires is a number"),
        ({"expires": float("inf")}, ValueError, "expires is a number"),
        ({"expires": "soon"}, TypeError, "expires is a number"),
        ({"expires": 5.0, "revalidate": 0}, ValueError, "revalidate is a number"),
        ({"revalidate": 5.0}, ValueError, "give expires="),
    ],
)
def test_what_is_no_grant(arguments, error, reason):
    """A mistake is an error where the grant is made."""
    with pytest.raises(error, match=reason):
        moqt.Grant(**arguments)


def test_a_view_takes_a_grant():
    """And nothing else in its place."""
    with pytest.raises(TypeError, match="grant is what an authority's admit returns"):
        moqt.Origin().view("live", grant=["live/**"])
