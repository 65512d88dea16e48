"""Fixtures of every test."""

from __future__ import annotations

import signal

import pytest

# A shell has its background jobs ignore Ctrl-C, and every process that they start inherits that. Tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def state_directory(tmp_path_factory):
    """Keeps the development certificates of tests, and of the processes that they start, out of the account's own."""
    directory = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(directory))
        yield directory
