"""The bounds: each has a default, a reason, and a value above zero."""

from __future__ import annotations

import ast
import inspect
import itertools

import attrs
import pytest

from moqt_trio import limits
from moqt_trio.limits import Limits

FIELDS = [field.name for field in attrs.fields(Limits)]


def test_limits_change_by_keyword():
    """A bound is changed by keyword, and the others keep their defaults."""
    changed = Limits(max_frame=5)
    assert changed.max_frame == 5
    assert changed == attrs.evolve(Limits(), max_frame=5)
    assert changed.max_message == Limits().max_message == 64 * 1024
    with pytest.raises(TypeError):
        Limits(5)  # type: ignore[misc]


def test_limits_are_values():
    """Limits can't be changed in place, and equal ones are interchangeable."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Limits().max_frame = 1  # type: ignore[misc]
    assert hash(Limits()) == hash(Limits())


@pytest.mark.parametrize("name", FIELDS)
def test_every_limit_is_above_zero(name):
    """A bound of zero or less, or one that is no number, is refused by name."""
    for value in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=rf"Limits\.{name} must be above zero"):
            Limits(**{name: value})


def test_every_limit_says_what_it_bounds():
    """Each field has a docstring right below it."""
    (body,) = [node.body for node in ast.parse(inspect.getsource(limits)).body if isinstance(node, ast.ClassDef)]
    documented = {
        field.target.id
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    assert documented == set(FIELDS)


def test_defaults_fit_together():
    """No default makes another one useless."""
    default = Limits()
    assert default.max_announce_init >= default.max_message
    assert default.max_message >= default.max_uri
    assert default.max_message >= default.max_path + default.max_track_name
    assert default.connection_window >= default.stream_window
    assert default.idle_timeout > 2 * default.keep_alive
