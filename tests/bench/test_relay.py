"""The relay's rows: the processes run, and what is printed of them says what was measured."""

from __future__ import annotations

import pytest

from bench import relay
from bench.children import ChildFailed
from bench.relay import Announcing, Case, Load, Rows, Times
from bench.relay_sides import AHEAD, Progress

TIMES = Times(warmup=0.1, full=0.3, settle=0.1, paced=0.3)


@pytest.mark.parametrize("relayed", [False, True])
def test_a_load_is_measured(relayed):
    """Three viewers in two processes get the groups, and the publisher goes no further ahead than it may."""
    with relay.viewed(Case(3, 100), relayed=relayed) as stage:
        assert len(stage.viewers) == 2
        load = stage.measure(TIMES)
        assert min(stage.progress.received) > 0
        assert max(stage.progress.reached) - min(stage.progress.reached) <= AHEAD
        assert load.rate > 0
        assert load.cost > 0
        assert 0 < load.p50 <= load.p99


def test_a_viewer_that_stalls_and_the_cache():
    """Both are measured on the relay's side alone; some of what was sent is cached."""
    rows = relay.measure(Case(1, relay.LARGE), TIMES, stalled=True, cache=True)
    assert {how: load.rate > 0 for how, load in rows.beside.items()} == {"reads nothing": True, "is stopped": True}
    assert rows.cached is not None
    assert rows.cached >= relay.LARGE


def test_announcements_are_measured():
    """All broadcasts reach all peers, and are withdrawn from them."""
    assert all(figure > 0 for figure in Announcing(20, 3).measure(relayed=True))


@pytest.mark.parametrize(
    ("case", "pace"), [(Case(1, 100), 50), (Case(100, 100), 10), (Case(1, 16384), 50), (Case(100, 16384), 5)]
)
def test_pace(case, pace):
    """The pace for latencies keeps the deliveries of all viewers about the same, within bounds."""
    assert case.pace == pace


def test_a_viewer_that_never_comes(tmp_path, monkeypatch):
    """The wait ends with how far the viewers came."""
    monkeypatch.setattr(relay, "DEADLINE_SECONDS", 0.05)
    file = tmp_path / "progress"
    file.touch()
    progress = Progress(file, 2)
    progress.reached[1] = 7
    relay.wait_until_each(progress, 0)
    with pytest.raises(ChildFailed, match="0 … 7"):
        relay.wait_until_each(progress, 1)


def test_what_is_printed(capsys):
    """Ratios to a direct connection, to fewer viewers, to the bound, and to the same without a stalled viewer."""
    direct, relayed = Load(2000, 100, 1000, 2000), Load(1000, 150, 1500, 3000)
    beside = Load(900, 300, 1600, 3200)
    rows = Rows(direct, relayed, relayed, {"reads nothing": beside}, cached=relay.CACHE_BYTES * 2)
    relay.show_case(Case(10, 100), [rows], (Case(1, 100), Load(500, 300, 1, 1)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "10 viewers, 100 B"
    assert lines[1].split() == ["deliveries/s", "direct", "2,000", "1,000", "0.50"]
    assert lines[2].split()[-3:] == ["100", "150", "1.50"]
    assert lines[5].split()[-5:] == ["with", "1", "300", "150", "0.50"]
    assert "most cached" in lines[6]
    assert lines[6].endswith("no")
    assert lines[7] == "10 viewers, 100 B, beside one that reads nothing"
    assert lines[8].split()[-7:] == ["1,000", "1,111", "1.11", "ratio", "<=", "1.2", "yes"]
    assert lines[9].split()[-7:] == ["150", "300", "2.00", "ratio", "<=", "1.2", "no"]
