"""Ctrl-C while a program is still being imported."""

from __future__ import annotations

import signal

import pytest

from tests.interop.processes import Child, shows_output_of

STAND_IN = """\
import time
print("importing", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("program", ["echo.client", "echo.server", "demos.versions"])
def test_during_the_import(program, tmp_path):
    """An interrupt in the middle of the imports ends each program with 130, and prints nothing."""
    for late in ("attrs", "trio"):
        (tmp_path / f"{late}.py").write_text(STAND_IN)
    with Child("-m", f"apps.{program}", environment={"PYTHONPATH": str(tmp_path)}) as child:
        child.wait_line(lambda line: line == "importing\n")
        child.send_signal(signal.SIGINT)
        code = child.wait_ended(10)
        with shows_output_of(child):
            assert (code, child.errors, child.lines) == (130, [], ["importing"])
