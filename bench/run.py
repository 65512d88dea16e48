"""`python -m bench`: the library and the yardstick, turn about, and a table of the medians.

Both run as two processes on loopback over raw QUIC. A round measures every workload on both; the order within a pair
changes from round to round, so that a machine that slows down tells on both alike.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time

import attrs

from . import scheduling
from .children import ChildFailed, child
from .workloads import WORKLOADS

BARE, LIBRARY = "bench.bare", "bench.library"
IDLE_SESSIONS = 200
WARM_SESSIONS = 10


@attrs.frozen
class Aim:
    """What a workload should reach.

    Attributes:
        ratio: Of the library to the yardstick: at least this, or at most when `lower_is_better`; None: no such aim.
        absolute: In the workload's unit; None where only the ratio counts.
        lower_is_better: True for a time.
    """

    ratio: float | None = None
    absolute: float | None = None
    lower_is_better: bool = False

    def reached(self, library: float, ratio: float) -> bool:
        """Returns whether the figures reach the aim."""
        if self.ratio is not None:
            return ratio <= self.ratio if self.lower_is_better else ratio >= self.ratio
        assert self.absolute is not None
        return library >= self.absolute

    def __str__(self) -> str:
        if self.ratio is not None:
            return f"ratio {'<=' if self.lower_is_better else '>='} {self.ratio}"
        return f">= {self.absolute:,.0f}"


AIMS = {
    "bulk": Aim(ratio=0.85),
    "groups": Aim(ratio=0.6),
    "frames": Aim(absolute=40_000),
    "pingpong": Aim(ratio=1.5, lower_is_better=True),
}
MEMORY_AIM_KIB = 150


def measure(module: str, workload: str, options: list[str]) -> dict[str, float]:
    """Runs one workload once and returns its figures."""
    with child(module, "publish", workload) as publisher:
        hello = publisher.hear()
        address = ["--port", str(hello["port"]), "--fingerprint", str(hello["fingerprint"])]
        with child(module, "subscribe", workload, *address, *options) as subscriber:
            return {name: float(value) for name, value in subscriber.hear().items()}


def measure_memory(sessions: int) -> float:
    """Returns the KiB that one more idle session costs a server."""
    with child(LIBRARY, "publish", "memory") as server:
        hello = server.hear()
        address = ["--port", str(hello["port"]), "--fingerprint", str(hello["fingerprint"])]
        # The first sessions pay for caches that all the others share.
        with child(LIBRARY, "subscribe", "memory", *address, "--sessions", str(WARM_SESSIONS)) as first:
            first.hear()
            before = server.resident_bytes()
            with child(LIBRARY, "subscribe", "memory", *address, "--sessions", str(sessions)) as second:
                second.hear()
                return (server.resident_bytes() - before) / sessions / 1024


def profile(workload: str, options: list[str]) -> None:
    """Prints where the library's two processes spend their time in one workload."""
    with child(LIBRARY, "publish", workload, "--profile") as publisher:
        hello = publisher.hear()
        address = ["--port", str(hello["port"]), "--fingerprint", str(hello["fingerprint"])]
        with child(LIBRARY, "subscribe", workload, *address, "--profile", *options) as subscriber:
            print(f"{workload}, under the profiler: {subscriber.hear()['value']:,.0f} {WORKLOADS[workload]}")
    for name, process in (("publisher", publisher), ("subscriber", subscriber)):
        print(f"\n{name}\n" + "".join(process.errors))


def compare(workloads: list[str], rounds: int, options: list[str]) -> dict[tuple[str, str], list[float]]:
    """Returns every figure by module and workload."""
    figures: dict[tuple[str, str], list[float]] = {
        (module, workload): [] for module in (BARE, LIBRARY) for workload in workloads
    }
    for turn in range(rounds):
        for workload in workloads:
            for module in (BARE, LIBRARY) if turn % 2 == 0 else (LIBRARY, BARE):
                try:
                    figures[module, workload].append(measure(module, workload, options)["value"])
                except ChildFailed as error:
                    print(f"{module} {workload} failed in round {turn + 1}:\n{error}")
        print(f"round {turn + 1} of {rounds} done", flush=True)
    return figures


def show(figures: dict[tuple[str, str], list[float]], workloads: list[str]) -> None:
    """Prints the table."""
    print(f"\n{'workload':<36}{'bare':>12}{'library':>12}{'ratio':>8}  {'spread':<18}{'aim':<16}reached")
    for workload in workloads:
        bare, library = figures[BARE, workload], figures[LIBRARY, workload]
        if not bare or not library:
            print(f"{WORKLOADS[workload]:<36} not measured")
            continue
        middle_bare, middle_library = statistics.median(bare), statistics.median(library)
        ratio = middle_library / middle_bare
        spread = f"{min(library):,.0f}-{max(library):,.0f}"
        aim = AIMS[workload]
        verdict = "yes" if aim.reached(middle_library, ratio) else "no"
        print(
            f"{WORKLOADS[workload]:<36}{middle_bare:>12,.0f}{middle_library:>12,.0f}{ratio:>8.2f}  "
            f"{spread:<18}{aim!s:<16}{verdict}"
        )


def main() -> int:
    """Reads the command line, measures, and returns the exit code: 1 when something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="The library against bare aioquic on Trio.")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved runs of everything (default 5)")
    parser.add_argument("--quick", action="store_true", help="one short round: it works, but the figures mean little")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS), help="measure only this")
    parser.add_argument("--no-scheduling", action="store_true", help="do not show the scheduling on a slow link")
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    parser.add_argument("--profile", choices=list(WORKLOADS), help="print where the library spends its time, and stop")
    arguments = parser.parse_args()
    options = ["--warmup", "0.2", "--duration", "0.4"] if arguments.quick else []
    if arguments.profile:
        profile(arguments.profile, options)
        return 0
    workloads = arguments.workload or list(WORKLOADS)
    began = time.monotonic()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs{load}; raw QUIC on loopback, two processes")
    figures = compare(workloads, 1 if arguments.quick else arguments.rounds, options)
    show(figures, workloads)
    complete = all(figures.values())
    if not arguments.no_memory:
        try:
            kib = measure_memory(20 if arguments.quick else IDLE_SESSIONS)
            verdict = "yes" if kib <= MEMORY_AIM_KIB else "no"
            aim = f"<= {MEMORY_AIM_KIB}"
            print(f"{'KiB of an idle session on the server':<36}{'':>12}{kib:>12,.0f}{'':>28}{aim:<16}{verdict}")
        except ChildFailed as error:
            print(f"memory could not be measured:\n{error}")
            complete = False
    if not arguments.workload and not arguments.no_scheduling:
        complete = scheduling.compare(scheduling.MBITS, scheduling.SECONDS / (2 if arguments.quick else 1)) and complete
    print(f"\nmedians of {1 if arguments.quick else arguments.rounds}; took {time.monotonic() - began:.0f} s")
    return 0 if complete else 1
