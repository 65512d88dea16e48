"""`python -m bench.relay`: what a relay carries, beside the same viewers on a direct connection to the publisher.

The relay and the publisher are a process each, and the viewers share two others. Three loads are measured: groups as
fast as the slowest viewer takes them, so that all processors are busy; a steady pace below that, for the latency; and
announcements. The CPU time is that of the process that sends to the viewers: the relay, or else the publisher.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from .children import Child, ChildFailed, child
from .relay_sides import CACHE_BYTES, Progress
from .rows import Aim, where
from .table import show_head, show_line

SIDES = "bench.relay_sides"
PROCESSES = 2
"""Processes of viewers."""
SMALL, LARGE = 100, 16 * 1024
DEADLINE_SECONDS = 60.0
PACED_DELIVERIES = {SMALL: 1000, LARGE: 200}
"""Deliveries a second of all viewers when the latency is measured: well below what one processor carries."""
LEAST_PACE, MOST_PACE = 5, 50
"""Groups a second then."""
STALLED_AIM = Aim(ratio=1.2, lower_is_better=True)
CACHE_AIM = Aim(ratio=1.0, lower_is_better=True)


@attrs.frozen
class Times:
    """Seconds of each part of a measurement."""

    warmup: float = 0.5
    full: float = 1.0
    settle: float = 0.2
    paced: float = 2.0


USUAL = Times()
QUICK = Times(0.2, 0.3, 0.1, 0.4)


@attrs.frozen
class Load:
    """What was measured of one set of viewers.

    Attributes:
        rate: Groups that all viewers together received in a second.
        cost: CPU time of the sending process for one of them, in µs.
        p50, p99: From writing a group to its arrival at a viewer, in µs, at a steady pace.
    """

    rate: float
    cost: float
    p50: float
    p99: float


@attrs.frozen
class Case:
    """One publisher and its viewers.

    Attributes:
        viewers: Each has a session.
        size: Bytes of a group.
    """

    viewers: int
    size: int

    @property
    def pace(self) -> float:
        """Groups a second when the latency is measured."""
        return max(LEAST_PACE, min(MOST_PACE, PACED_DELIVERIES[self.size] / self.viewers))

    def __str__(self) -> str:
        size = f"{self.size} B" if self.size < 1024 else f"{self.size // 1024} KiB"
        return f"{self.viewers} viewer{'s' if self.viewers > 1 else ''}, {size}"


@attrs.define(eq=False)
class Stage:
    """The processes of a case.

    Attributes:
        case: What is shown.
        progress: The viewers'.
        publisher: Writes the groups.
        sender: Sends them to the viewers: the relay, or else the publisher.
        viewers: The processes of viewers.
        address: Where a viewer connects.
    """

    case: Case
    progress: Progress
    publisher: Child
    sender: Child
    viewers: list[Child]
    address: list[str]

    def measure(self, times: Times) -> Load:
        """Measure both loads. Raises `ChildFailed`."""
        ask(self.publisher, "full")
        time.sleep(times.warmup)
        before, cpu, began = sum(self.progress.received), ask(self.sender, "cpu")["cpu"], time.perf_counter()
        time.sleep(times.full)
        count, cpu = sum(self.progress.received) - before, ask(self.sender, "cpu")["cpu"] - cpu
        seconds = time.perf_counter() - began
        if not count:
            raise ChildFailed("no group reached a viewer")
        ask(self.publisher, "0")
        time.sleep(times.settle)
        wait_until_each(self.progress, int(ask(self.publisher, "0")["written"]))
        ask(self.publisher, str(self.case.pace))
        time.sleep(times.settle)
        self._latencies()
        time.sleep(times.paced)
        latencies = sorted(self._latencies())
        ask(self.publisher, "0")
        if not latencies:
            raise ChildFailed("no group reached a viewer at the steady pace")
        p99 = latencies[int(len(latencies) * 0.99)]
        return Load(count / seconds, cpu / count * 1e6, statistics.median(latencies), p99)

    def _latencies(self) -> list[int]:
        reports = [ask(viewers, "latencies") for viewers in self.viewers]
        if any(report["lost"] for report in reports):
            raise ChildFailed("a viewer lost groups, which it should not at this load")
        return [latency for report in reports for latency in report["latencies"]]

    def most_cached(self, seconds: float) -> int:
        """Return the most bytes that the relay had cached in so many seconds of full load. Raises `ChildFailed`."""
        ask(self.sender, "watch")
        ask(self.publisher, "full")
        time.sleep(seconds)
        return int(ask(self.sender, "peak")["peak"])


def ask(process: Child, order: str) -> dict[str, float]:
    """Give an order, and return the report that answers it. Raises `ChildFailed`."""
    process.write(order)
    return process.read_report()


def wait_until_each(progress: Progress, least: int, most: int | None = None) -> None:
    """Wait until each viewer has come so far, and no further than `most`. Raises `ChildFailed`."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while min(progress.reached) < least or (most is not None and max(progress.reached) > most):
        if time.monotonic() > deadline:
            raise ChildFailed(f"the viewers came as far as {min(progress.reached)} … {max(progress.reached)}")
        time.sleep(0.005)


@contextmanager
def staged(case: Case, roles: tuple[str, str], *options: str, relayed: bool, profiled: bool = False) -> Iterator[Stage]:
    """Run the processes of a case, until the end of the block. Raises `ChildFailed`.

    Args:
        case: What is shown.
        roles: Of the publisher and of the viewers.
        options: Of the publisher.
        relayed: True with a relay between them.
        profiled: True to have the relay print its profile at the end.
    """
    with tempfile.TemporaryDirectory() as directory, ExitStack() as running:
        file = Path(directory, "progress")
        file.touch()
        progress = Progress(file, case.viewers)
        shared = ["--progress", str(file), "--viewers", str(case.viewers), *options]
        relay, address = None, []
        if relayed:
            relay = running.enter_context(child(SIDES, "relay", *(["--profile"] if profiled else [])))
            address = where(relay.read_report())
        publisher = running.enter_context(child(SIDES, roles[0], *shared, *address))
        hello = publisher.read_report()
        if not relayed:
            address = where(hello)
        viewers: list[Child] = []
        first = 0
        for index in range(min(PROCESSES, case.viewers)):
            sessions = (case.viewers - first) // (min(PROCESSES, case.viewers) - index)
            mine = ["--first", str(first), "--sessions", str(sessions)]
            viewers.append(running.enter_context(child(SIDES, roles[1], *shared, *mine, *address)))
            first += sessions
        yield Stage(case, progress, publisher, relay or publisher, viewers, address)


@contextmanager
def viewed(case: Case, *, relayed: bool, profiled: bool = False) -> Iterator[Stage]:
    """Run the processes of a case, and wait until each viewer has a first group. Raises `ChildFailed`."""
    options = ["--size", str(case.size)]
    with staged(case, ("publish", "view"), *options, relayed=relayed, profiled=profiled) as stage:
        wait_until_each(stage.progress, 1)
        yield stage


@attrs.define(eq=False)
class Rows:
    """What was measured of a case.

    Attributes:
        direct, relayed: Without and with a relay.
        alone: With a relay, half of it before and half of it after what is in `beside`.
        beside: With a relay, beside a further viewer that reads nothing, and beside one whose process is stopped.
        cached: The most bytes that were cached; None where that was not measured.
    """

    direct: Load
    relayed: Load
    alone: Load | None = None
    beside: dict[str, Load] = attrs.field(factory=dict)
    cached: int | None = None


def measure(case: Case, times: Times, *, stalled: bool = False, cache: bool = False) -> Rows:
    """Measure a case without and with a relay, and there also beside a viewer that stalls. Raises `ChildFailed`."""
    with viewed(case, relayed=False) as stage:
        direct = stage.measure(times)
    with viewed(case, relayed=True) as stage:
        rows = Rows(direct, stage.measure(times))
        if cache:
            rows.cached = stage.most_cached(times.full)
        if stalled:
            with child(SIDES, "stall", *stage.address) as stalling:
                stalling.read_report()
                rows.beside["reads nothing"] = stage.measure(times)
                with stalling.frozen():
                    rows.beside["is stopped"] = stage.measure(times)
            rows.alone = middle([rows.relayed, stage.measure(times)])
        return rows


def show_ratio(title: str, against: str, before: float, after: float, aim: Aim | None = None) -> None:
    """Print a row."""
    ratio = after / before
    reached = "" if aim is None else "yes" if aim.reached(after, ratio) else "no"
    cells = f"{before:,.0f}", f"{after:,.0f}", f"{ratio:.2f}"
    show_line(title, against, *cells, "", "" if aim is None else str(aim), reached)


def middle(loads: list[Load]) -> Load:
    """Return the medians."""
    return Load(*map(statistics.median, zip(*map(attrs.astuple, loads), strict=True)))


def show_loads(title: str, against: str, before: Load, after: Load, aim: Aim | None = None) -> None:
    """Print one load beside another. Times are shown for the rates, for which lower is better as for the others."""
    print(title)
    if aim is None:
        show_ratio("  deliveries/s", against, before.rate, after.rate)
    else:
        show_ratio("  µs from delivery to delivery", against, 1e6 / before.rate, 1e6 / after.rate, aim)
    show_ratio("  CPU µs of a delivery", against, before.cost, after.cost, aim)
    show_ratio("  latency p50, µs", against, before.p50, after.p50, aim)
    show_ratio("  latency p99, µs", against, before.p99, after.p99, aim)


def show_case(case: Case, measured: list[Rows], few: tuple[Case, Load] | None) -> None:
    """Print the medians of a case.

    Args:
        case: It.
        measured: Of each round.
        few: The case of the same size with the fewest viewers, if that is another one.
    """
    direct, relayed = middle([rows.direct for rows in measured]), middle([rows.relayed for rows in measured])
    show_loads(str(case), "direct", direct, relayed)
    if few is not None:
        show_ratio("  CPU µs of a delivery", f"with {few[0].viewers}", few[1].cost, relayed.cost)
    cached = [rows.cached for rows in measured if rows.cached is not None]
    if cached:
        show_ratio("  most cached, KiB", "bound", (CACHE_BYTES + case.size) / 1024, max(cached) / 1024, CACHE_AIM)
    for how in measured[0].beside:
        alone = middle([rows.alone for rows in measured if rows.alone is not None])
        beside = middle([rows.beside[how] for rows in measured])
        show_loads(f"{case}, beside one that {how}", "without it", alone, beside, STALLED_AIM)


@attrs.frozen
class Announcing:
    """Broadcasts that are announced to all peers at once, and withdrawn.

    Attributes:
        broadcasts: How many there are.
        peers: Each follows all of them.
    """

    broadcasts: int
    peers: int

    def measure(self, *, relayed: bool) -> tuple[float, float, float]:
        """Return the ms until all are announced, the CPU µs of one to one peer, and the ms until all have ended.

        Raises `ChildFailed`.
        """
        case, options = Case(self.peers, 0), ["--broadcasts", str(self.broadcasts)]
        with staged(case, ("announce", "watch"), *options, relayed=relayed) as stage:
            for viewers in stage.viewers:
                viewers.read_report()
            cpu, began = ask(stage.sender, "cpu")["cpu"], time.perf_counter()
            ask(stage.publisher, "begin")
            wait_until_each(stage.progress, self.broadcasts)
            seconds, cpu = time.perf_counter() - began, ask(stage.sender, "cpu")["cpu"] - cpu
            began = time.perf_counter()
            ask(stage.publisher, "end")
            wait_until_each(stage.progress, 0, 0)
            return seconds * 1e3, cpu / (self.broadcasts * self.peers) * 1e6, (time.perf_counter() - began) * 1e3

    def show(self) -> None:
        """Measure and print. Raises `ChildFailed`."""
        direct, relayed = self.measure(relayed=False), self.measure(relayed=True)
        print(f"{self.broadcasts:,} broadcasts, announced to {self.peers} peers")
        show_ratio("  ms until all are", "direct", direct[0], relayed[0])
        show_ratio("  CPU µs of an announcement", "direct", direct[1], relayed[1])
        show_ratio("  ms until all are withdrawn", "direct", direct[2], relayed[2])


FEW = [Case(1, SMALL), Case(10, SMALL), Case(10, LARGE)]
MANY = [Case(viewers, size) for size in (SMALL, LARGE) for viewers in (1, 10, 50, 100)]
PROFILED = Case(10, SMALL)


def profile(times: Times) -> str:
    """Run ten viewers with the relay under the profiler, and return its profile. Raises `ChildFailed`."""
    with viewed(PROFILED, relayed=True, profiled=True) as stage:
        stage.measure(times)
    return "".join(stage.sender.errors)


def compare(cases: list[Case], announcing: Announcing, times: Times, rounds: int) -> bool:
    """Measure and print cases, and announcements. Returns False when something could not be measured."""
    how = "measured once" if rounds == 1 else f"medians of {rounds}"
    print(f"\na relay, {PROCESSES} processes of viewers, {how}; the CPU time is that of what sends to them")
    show_head()
    complete = True
    few: dict[int, tuple[Case, Load]] = {}
    for case in cases:
        many = case.viewers >= 10
        stalled, cache = many and case.size == SMALL, many and case.size == LARGE
        try:
            measured = [measure(case, times, stalled=stalled, cache=cache) for _ in range(rounds)]
        except ChildFailed as error:
            print(f"{case}: not measured:\n{error}", flush=True)
            complete = False
            continue
        show_case(case, measured, few.get(case.size))
        few.setdefault(case.size, (case, middle([rows.relayed for rows in measured])))
    try:
        announcing.show()
    except ChildFailed as error:
        print(f"announcements: not measured:\n{error}", flush=True)
        return False
    return complete


def run(quick: bool) -> bool:
    """Measure and print the short rows of `python -m bench`. Returns False when something could not be measured."""
    return compare(FEW, Announcing(100 if quick else 300, 10), QUICK if quick else USUAL, 1)


def main() -> int:
    """Read the command line, measure all, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.relay",
        description="A relay with 1, 10, 50 and 100 viewers, and 1,000 broadcasts announced to 50 peers.\n"
        "It takes a few minutes. `python -m bench --row relay` has the short ones.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case (default: %(default)s)")
    return 0 if compare(MANY, Announcing(1000, 50), USUAL, parser.parse_args().rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
