"""The demos start servers on the echo's own port, so one test of them runs at a time, in whatever process."""

from __future__ import annotations

import fcntl
import tempfile
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def alone():
    """Waits until no other process runs a test of this folder."""
    with (Path(tempfile.gettempdir()) / "moqt-trio-demos.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
