"""`python -m bench`: measures the library and the baselines in turn, and prints a table of the medians.

Each runs as two processes on loopback. A round measures every row once. The order is reversed from one round to the
next, so that a machine that slows down affects all rows alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time

from . import relay, scheduling
from .children import ChildFailed
from .rows import FIGURES, GROWTHS, ROWS, Figure, Growth, Pair, Row
from .table import show_head, show_line

RELAY = "relay"
SCHEDULING = "scheduling"
NAMES = [*ROWS, *FIGURES, *GROWTHS, RELAY, SCHEDULING]
QUICK_OPTIONS = ["--warmup", "0.2", "--duration", "0.4"]


def compare(rows: list[Row], rounds: int, options: list[str]) -> dict[Pair, list[float]]:
    """Return the figures of each pair of processes. A pair that belongs to two rows is measured once a round."""
    figures: dict[Pair, list[float]] = {pair: [] for row in rows for pair in (row.baseline, row.library)}
    for turn in range(rounds if figures else 0):
        for pair in list(figures) if turn % 2 == 0 else reversed(list(figures)):
            try:
                figures[pair].append(pair.measure(options))
            except ChildFailed as error:
                print(f"{' '.join(pair.client)} failed in round {turn + 1}:\n{error}")
        print(f"round {turn + 1} of {rounds} done", flush=True)
    return figures


def show_row(row: Row, figures: dict[Pair, list[float]]) -> None:
    """Print the medians of a row."""
    baseline, library = figures[row.baseline], figures[row.library]
    if not baseline or not library:
        print(f"{row.title:<36}not measured")
        return
    middle = statistics.median(library)
    ratio = middle / statistics.median(baseline)
    show_line(
        row.title,
        row.against,
        f"{statistics.median(baseline):,.0f}",
        f"{middle:,.0f}",
        f"{ratio:.2f}",
        f"{min(library):,.0f}-{max(library):,.0f}",
        str(row.aim),
        "yes" if row.aim.reached(middle, ratio) else "no",
    )


def show_figure(figure: Figure, quick: bool) -> bool:
    """Measure and print a row without a baseline. Returns False when it failed."""
    absent = figure.missing()
    if absent is not None:
        print(f"{figure.title:<36}not measured: {absent}", flush=True)
        return True
    try:
        value = figure.measure(quick)
    except (ChildFailed, AssertionError) as error:
        print(f"{figure.title:<36}not measured:\n{error}", flush=True)
        return False
    aim = figure.aim
    reached = "" if aim is None else "yes" if aim.reached(value, None) else "no"
    show_line(figure.title, "", "", f"{value:,.0f}", "", "", "" if aim is None else str(aim), reached)
    return True


def show_growth(growth: Growth) -> bool:
    """Measure and print what an event costs among few and among many. Returns False when it failed."""
    try:
        few, many = growth.measure()
    except ChildFailed as error:
        print(f"{growth.title:<36}not measured:\n{error}", flush=True)
        return False
    reached = "yes" if growth.aim.reached(many, many / few) else "no"
    show_line(
        growth.title, growth.against, f"{few:,.0f}", f"{many:,.0f}", f"{many / few:.2f}", "", str(growth.aim), reached
    )
    return True


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    titles = {name: row.title for rows in (ROWS, FIGURES, GROWTHS) for name, row in rows.items()}
    titles[RELAY] = "a relay beside a direct connection; `make bench-relay` has more viewers"
    titles[SCHEDULING] = "two tracks at twice a slow link's rate, by priority"
    listed = "\n".join(f"  {name:<14}{title}" for name, title in titles.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="The library against aioquic alone, against hypercorn, and against itself over raw QUIC.\n"
        "Everything runs on loopback, a process for each side. Look at the ratios: both\n"
        "sides of one are measured in the same minutes, and the figures alone depend on\n"
        "the machine and on what else it does. All of it takes less than five minutes.",
        epilog=f"rows:\n{listed}\n\n"
        "examples:\n"
        "  python -m bench\n"
        "  python -m bench --row http3 --row webtransport --rounds 3\n"
        "  python -m bench --quick\n"
        "  python -m bench --profile groups\n\n"
        "'browser' needs Chromium and Node.js; `make browser` gets them.\n\n"
        "exit codes: 0 measured, 1 something could not be measured, 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--row", action="append", choices=NAMES, metavar="NAME", help="measure only this, see below; may be repeated"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="interleaved runs of each comparison (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="one short round: it works, but the figures mean little")
    parser.add_argument(
        "--profile",
        choices=[*ROWS, RELAY],
        metavar="NAME",
        help="print where the library, or the relay, spends its time in this row, and stop",
    )
    return parser


def main() -> int:
    """Read the command line, measure, and return the exit code."""
    arguments = build_parser().parse_args()
    quick: bool = arguments.quick
    options = QUICK_OPTIONS if quick else []
    if arguments.profile == RELAY:
        print(relay.profile(relay.QUICK if quick else relay.USUAL))
        return 0
    if arguments.profile:
        print(ROWS[arguments.profile].library.profile(options))
        return 0
    began = time.monotonic()
    names = arguments.row or NAMES
    rounds = 1 if quick else arguments.rounds
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs{load}; on loopback, two processes")
    rows = [row for name, row in ROWS.items() if name in names]
    figures = compare(rows, rounds, options)
    if set(names) - {RELAY, SCHEDULING}:
        show_head()
    for row in rows:
        show_row(row, figures)
    complete = all(figures.values())
    for name, figure in FIGURES.items():
        if name in names:
            complete = show_figure(figure, quick) and complete
    for name, growth in GROWTHS.items():
        if name in names:
            complete = show_growth(growth) and complete
    if RELAY in names:
        complete = relay.run(quick) and complete
    if SCHEDULING in names:
        seconds = scheduling.SECONDS / (2 if quick else 1)
        complete = scheduling.compare(scheduling.MBITS, seconds) and complete
    print(f"\nmedians of {rounds}; took {time.monotonic() - began:.0f} s")
    return 0 if complete else 1
