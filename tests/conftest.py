"""Fixtures of every test."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def state_directory(tmp_path_factory):
    """Keeps the development certificates of tests, and of the processes that they start, out of the account's own."""
    directory = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(directory))
        yield directory
