"""`python -m bench.trace` measures a frame and a subscription, and prints a table of each."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.trace import Call, most_frequent, visits_of

ROOT = Path(__file__).parents[2]
TIMEOUT = 60.0


def run_trace(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "bench.trace", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


def read_rows(table: str) -> dict[str, list[int]]:
    rows = re.findall(r"^  (\w+)((?: +\d+){4})$", table, re.MULTILINE)
    return {stage: [int(number) for number in numbers.split()] for stage, numbers in rows}


@pytest.fixture(scope="module")
def tables() -> dict[str, str]:
    result = run_trace("--runs", "1", "--list")
    assert (result.returncode, result.stderr) == (0, "")
    parts = re.split(r"^(frame|subscribe): ", result.stdout, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_both_ways_are_measured(tables):
    """Without arguments a frame and a subscription are measured."""
    assert list(tables) == ["frame", "subscribe"]


@pytest.mark.parametrize(
    ("name", "stages"),
    [("frame", {"write", "send", "receive", "read"}), ("subscribe", {"receive"})],
)
def test_table(tables, name, stages):
    """A table has a row for each stage that there must be, and the calls of the stages make up the total."""
    rows = read_rows(tables[name])
    total = rows.pop("total")
    assert stages <= set(rows) <= stages | {"serve"}
    assert all(number > 0 for row in [total, *rows.values()] for number in row[:3])
    assert sum(row[0] for row in rows.values()) == total[0]
    calls, files, visits, returns = total
    assert calls >= visits >= files
    assert returns == visits - files


@pytest.mark.parametrize("name", ["frame", "subscribe"])
def test_list(tables, name):
    """The list has a line for each call, which names a file of the library and a function."""
    lines = tables[name].partition("calls in their order")[2].splitlines()[1:]
    listed = re.findall(r"^  \w+ +\+? *([\w/]+\.py):\S+$", "\n".join(lines), re.MULTILINE)
    assert len(listed) == read_rows(tables[name])["total"][0]
    assert [file for file in set(listed) if not (ROOT / "moqt_trio" / file).is_file()] == []


def test_list_begins_with_the_call_of_send(tables):
    """The first call of a frame is the application's."""
    assert re.search(r"calls in their order.*\n  write +\S+:GroupWriter\.send\n", tables["frame"])


def test_one_way_alone():
    """A name restricts the measurement."""
    result = run_trace("--runs", "1", "subscribe")
    assert (result.returncode, result.stderr) == (0, "")
    assert "frame:" not in result.stdout
    assert read_rows(result.stdout)["total"][0] > 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["fetch"], "unknown: fetch; choose from frame, subscribe"), (["--runs", "0"], "--runs takes a number above 0")],
)
def test_wrong_usage(arguments, complaint):
    """Wrong usage is refused with exit code 2 and a sentence that says what is right."""
    result = run_trace(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert complaint in result.stderr


def test_help_teaches():
    """The help says what the stages and the columns are."""
    text = run_trace("--help").stdout
    for word in ("write", "serve", "send", "receive", "read", "calls", "files", "visits", "returns", "examples:"):
        assert re.search(rf"^  {word}\b|^{word}", text, re.MULTILINE)


def call(file: str) -> Call:
    return Call("write", file, "function", 1, resumed=False)


def test_calls_in_a_row_are_one_visit():
    """Two calls in a row to one file are one visit, and a later one is a second visit."""
    assert visits_of([call("a"), call("a"), call("b"), call("a")]) == ["a", "b", "a"]


def test_most_frequent_run_counts():
    """The count that most runs have is shown, and the smaller of two that are as frequent."""
    one, two, three = [call("a")], [call("a")] * 2, [call("a")] * 3
    assert most_frequent([one, two, three, two]) == two
    assert most_frequent([three, one]) == one
