"""How long a client waits before it tries again."""

from __future__ import annotations

import pytest

import moqt_trio as moqt


def test_without_chance():
    """Each delay is the factor times the one before, up to the longest."""
    backoff = moqt.Backoff(initial=0.5, factor=3.0, maximum=10.0, jitter=0.0)
    assert [backoff.delay(retry) for retry in range(5)] == [0.5, 1.5, 4.5, 10.0, 10.0]
    assert backoff.delay(10**9) == 10.0


@pytest.mark.parametrize(("chance", "delay"), [(0.0, 4.0), (0.5, 3.0), (1.0, 2.0)])
def test_chance_takes_its_share_away(chance, delay):
    """The delay is between the whole bound and what the jitter leaves of it."""
    backoff = moqt.Backoff(initial=4.0, jitter=0.5, random=lambda: chance)
    assert backoff.delay(0) == delay


def test_default():
    """By default the delays are random within their bounds."""
    backoff = moqt.Backoff()
    for retry in range(backoff.retries):
        bound = min(backoff.maximum, backoff.initial * backoff.factor**retry)
        assert bound * (1 - backoff.jitter) <= backoff.delay(retry) <= bound


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("retries", -1),
        ("initial", 0),
        ("initial", float("nan")),
        ("maximum", 0.1),
        ("factor", 0.5),
        ("factor", 1e6),
        ("jitter", 1.5),
        ("jitter", -0.1),
    ],
)
def test_values_out_of_range(field, value):
    """An invalid value is refused by name."""
    with pytest.raises(ValueError, match=r"Backoff\."):
        moqt.Backoff(**{field: value})
