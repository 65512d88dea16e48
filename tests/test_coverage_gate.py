"""The gate that `make cov` ends with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

GATE = Path(__file__).with_name("coverage_gate.py")


def run_gate(tmp_path, **branches):
    files = {
        f"moqt_trio/{name}.py": {
            "summary": {"covered_branches": taken, "num_branches": count, "missing_branches": count - taken}
        }
        for name, (taken, count) in branches.items()
    }
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"files": files}))
    return subprocess.run([sys.executable, GATE, report], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("wire", "protocol", "rest", "passes"),
    [(95, 95, 85, True), (100, 90, 85, True), (95, 94, 100, False), (100, 100, 84, False), (0, 0, 100, False)],
)
def test_minimums(tmp_path, wire, protocol, rest, passes):
    """Wire and protocol together need 95 % of their branches, everything else 85 %."""
    branches = {"wire/a": (wire, 100), "protocol/b": (protocol, 100), "client": (rest, 100)}
    result = run_gate(tmp_path, **branches)
    assert (result.returncode == 0) == passes
    assert ("TOO LITTLE" in result.stdout) != passes


def test_nothing_measured(tmp_path):
    """A report without branches fails: it says that nothing was measured."""
    assert run_gate(tmp_path).returncode == 1
