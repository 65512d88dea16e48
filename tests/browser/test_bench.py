"""The row of the benchmark that has a browser runs, against the server as it is."""

from __future__ import annotations

from bench.browser import echo_p50


def test_the_row_of_the_browser():
    """It measures a time."""
    assert 0 < echo_p50(quick=True) < 10e6
