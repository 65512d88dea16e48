"""Refuses too little branch coverage: `python tests/coverage_gate.py REPORT`, with what `coverage json` wrote."""

from __future__ import annotations

import json
import sys
from pathlib import Path

MINIMUMS = {"wire and protocol": 95.0, "the rest": 85.0}
"""The branches that tests have to take, in per cent."""

_PURE = ("moqt_trio/wire/", "moqt_trio/protocol/")


def measure(report: dict) -> dict[str, tuple[int, int]]:
    """Returns, for each group of files, how many branches were taken and how many there are."""
    totals = {group: (0, 0) for group in MINIMUMS}
    for path, file in report["files"].items():
        group = "wire and protocol" if Path(path).as_posix().startswith(_PURE) else "the rest"
        taken, all_of_them = totals[group]
        summary = file["summary"]
        totals[group] = (taken + summary["covered_branches"], all_of_them + summary["num_branches"])
    return totals


def judge(report: dict) -> tuple[list[str], bool]:
    """Returns a line for each group, and whether all of them reach their minimum."""
    lines, enough = [], True
    for group, (taken, all_of_them) in measure(report).items():
        percent = 100 * taken / all_of_them if all_of_them else 0.0
        reached = percent >= MINIMUMS[group]
        enough = enough and reached
        verdict = "enough" if reached else "TOO LITTLE"
        lines.append(f"{group}: {percent:.1f} % of {all_of_them} branches, at least {MINIMUMS[group]:.0f} %: {verdict}")
    return lines, enough


def worst(report: dict, count: int = 10) -> list[str]:
    """Returns a line for each of the files that miss the most branches."""
    missing = {path: file["summary"]["missing_branches"] for path, file in report["files"].items()}
    ranked = sorted(missing, key=lambda path: (-missing[path], path))
    return [f"  {missing[path]:4d} missed in {path}" for path in ranked[:count] if missing[path]]


if __name__ == "__main__":
    coverage = json.loads(Path(sys.argv[1]).read_text())
    verdicts, passed = judge(coverage)
    print("\n".join(worst(coverage) + verdicts))
    sys.exit(0 if passed else 1)
