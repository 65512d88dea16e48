"""The long runs: what is kept makes a run fail, and a run that fails is the exit code."""

from __future__ import annotations

import sys

import pytest
import trio

from bench import floods, soak
from bench.floods import Flood
from bench.kept import MIB, Held, growth

BEFORE = Held(100 * MIB, 0, 10, 8)


@pytest.mark.parametrize(
    ("late", "last", "held"),
    [
        (BEFORE, BEFORE, True),
        (Held(105 * MIB, 3, 12, 9), BEFORE, True),
        (Held(106 * MIB, 0, 10, 8), BEFORE, False),
        (BEFORE, Held(0, 1, 10, 8), False),
        (BEFORE, Held(0, 0, 11, 8), False),
        (BEFORE, Held(0, 0, 10, 9), False),
        (BEFORE, Held(0, 0, 9, 7), True),
    ],
)
def test_what_may_be_kept(late, last, held):
    """Five per cent of memory between the first fifth and the end, and no session, task or file."""
    line = growth("rounds", BEFORE, late, BEFORE, last, 10.0, 1000)
    assert line.held is held
    assert str(line).startswith("ok   1,000 rounds: 100.0 MiB at 20%, " if held else "FAIL 1,000 rounds: ")


def run(monkeypatch, capsys, flood: Flood) -> tuple[int, str]:
    """Run one flood for a moment; return the exit code and what was printed."""
    monkeypatch.setitem(floods.FLOODS, "tried", flood)
    monkeypatch.setattr(sys, "argv", ["soak", "tried", "--seconds", "0.2"])
    return soak.main(), capsys.readouterr().out


async def rest(scheme: str, number: int) -> None:
    await trio.sleep(0.01)


def test_a_flood_that_leaves_nothing(monkeypatch, capsys):
    """Its line is ok, over each transport, and the exit code is 0."""
    code, printed = run(monkeypatch, capsys, Flood(sessions=rest))
    assert code == 0
    lines = printed.splitlines()
    assert [line[:5] for line in lines] == ["ok   "] * 2
    assert "rounds of tried, raw QUIC" in lines[0]
    assert "rounds of tried, WebTransport" in lines[1]


@pytest.mark.parametrize("what", ["memory", "file", "failure"])
def test_a_flood_that_does_not_hold(what, monkeypatch, capsys):
    """Memory or a file that is kept of each round, or a round that fails, is a line that says so, and exit code 1."""
    kept = []

    async def leave(scheme: str, number: int) -> None:
        await rest(scheme, number)
        if what == "memory":
            kept.append(bytes(1))
        elif what == "file":
            kept.append(open("/dev/null"))  # noqa: ASYNC230, SIM115 - it is meant to stay open
        elif number == 3:
            raise AssertionError("the other session ended")

    if what == "memory":
        # What a process has resident depends on what the tests before have left free: ten MiB a round.
        monkeypatch.setattr(floods, "resident", lambda: (100 + 10 * len(kept)) * MIB)
    try:
        code, printed = run(monkeypatch, capsys, Flood(sessions=leave, schemes=("moqt",)))
    finally:
        for left in kept:
            if not isinstance(left, bytes):
                left.close()
    assert code == 1
    (line,) = printed.splitlines()
    assert line.startswith("FAIL ")
    if what == "failure":
        assert "AssertionError: the other session ended" in line


async def test_a_flood_of_a_peer():
    """A real one: subscriptions to a server in a process of its own, of which nothing is left."""
    line = await floods.run_flood("announcements", "moqt", "raw QUIC", 1.0)
    assert line.held, line
    assert "0 sessions, 0 tasks, 0 files left" in line.figure
