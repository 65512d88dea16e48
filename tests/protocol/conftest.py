"""Fixtures of the session tests."""

from __future__ import annotations

import pytest

from tests.protocol.harness import NAMES


@pytest.fixture(params=NAMES)
def name(request):
    """Each version in turn."""
    return request.param
