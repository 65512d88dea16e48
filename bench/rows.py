"""The rows of the table: what each measures, its baseline, and what it should reach.

A figure comes from a `Pair` of processes, a server and a client, or from a function. Rounds are in `run.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import attrs

from .browser import echo_p50, missing
from .children import child
from .churn import round_trip_p99

LIBRARY = "bench.library"
IDLE_SESSIONS = 200
WARM_SESSIONS = 10


@attrs.frozen
class Aim:
    """What a row should reach.

    Attributes:
        ratio: Of the library to the baseline: at least this, or at most when `lower_is_better`; None for no such aim.
        absolute: In the row's unit; None where only the ratio counts.
        lower_is_better: True for a time or a size.
    """

    ratio: float | None = None
    absolute: float | None = None
    lower_is_better: bool = False

    def reached(self, library: float, ratio: float | None) -> bool:
        """Return whether the figures reach the aim."""
        value, wanted = (library, self.absolute) if self.ratio is None else (ratio, self.ratio)
        assert value is not None
        assert wanted is not None
        return value <= wanted if self.lower_is_better else value >= wanted

    def __str__(self) -> str:
        sign = "<=" if self.lower_is_better else ">="
        return f"{sign} {self.absolute:,.0f}" if self.ratio is None else f"ratio {sign} {self.ratio}"


@attrs.frozen
class Pair:
    """A server and the client that measures it.

    Attributes:
        server: Its module and arguments. It reports its address.
        client: Its module and arguments. It reports what it measured.
    """

    server: tuple[str, ...]
    client: tuple[str, ...]

    def measure(self, options: list[str]) -> float:
        """Run both once and return the figure. Raises `ChildFailed`."""
        with child(*self.server) as server, child(*self.client, *where(server.read_report()), *options) as client:
            return float(client.read_report()["value"])

    def profile(self, options: list[str]) -> str:
        """Run both under the profiler and return their profiles. Raises `ChildFailed`."""
        with child(*self.server, "--profile") as server:
            address = where(server.read_report())
            with child(*self.client, *address, "--profile", *options) as client:
                client.read_report()
        return "\n".join(["server", "".join(server.errors), "client", "".join(client.errors)])


def where(hello: dict[str, float | str]) -> list[str]:
    """Return the options by which a client finds its server."""
    return ["--port", str(hello["port"]), "--fingerprint", str(hello["fingerprint"])]


def baseline(workload: str) -> Pair:
    """Return a workload on aioquic alone."""
    return Pair(("bench.baseline", "publish", workload), ("bench.baseline", "subscribe", workload))


def library(workload: str, *options: str) -> Pair:
    """Return a workload on the library."""
    return Pair((LIBRARY, "publish", workload), (LIBRARY, "subscribe", workload, *options))


def http3(server: str) -> Pair:
    """Return the load of requests on one of the HTTP/3 servers."""
    return Pair(("bench.http3", server), ("bench.http3", "load"))


def session_kib(quick: bool) -> float:
    """Return the KiB that one more idle session costs a server. Raises `ChildFailed`."""
    sessions = IDLE_SESSIONS // (10 if quick else 1)
    pair = library("memory")
    with child(*pair.server) as server:
        address = where(server.read_report())
        # The first sessions fill caches that all the others share.
        with child(*pair.client, *address, "--sessions", str(WARM_SESSIONS)) as first:
            first.read_report()
            before = server.resident_bytes()
            with child(*pair.client, *address, "--sessions", str(sessions)) as second:
                second.read_report()
                return (server.resident_bytes() - before) / sessions / 1024


@attrs.frozen
class Row:
    """A row that compares.

    Attributes:
        title: What is measured, and its unit.
        against: The baseline's name.
        baseline: Measures the baseline.
        library: Measures the library.
        aim: What the library should reach.
    """

    title: str
    against: str
    baseline: Pair
    library: Pair
    aim: Aim


@attrs.frozen
class Figure:
    """A row without a baseline, measured once.

    Attributes:
        title: What is measured, and its unit.
        measure: Returns the figure; its argument is True for a quick one.
        aim: What it should reach; None for a figure without an aim.
        missing: Returns what is not installed, and how to install it; None when nothing is missing.
    """

    title: str
    measure: Callable[[bool], float]
    aim: Aim | None = None
    missing: Callable[[], str | None] = lambda: None


@attrs.frozen
class Growth:
    """A row that compares an event among many with the same among a tenth of them, in one process.

    Attributes:
        title: What the event is, and what is open.
        name: Its scenario in `growth.py`.
        aim: The most that the cost among many may be of that among few.
    """

    title: str
    name: str
    aim: Aim = Aim(ratio=1.5, lower_is_better=True)
    against: ClassVar[str] = "with a tenth"

    def measure(self) -> tuple[float, float]:
        """Return the microseconds of CPU time of the event among few and among many. Raises `ChildFailed`."""
        with child("bench.growth", self.name) as measuring:
            report = measuring.read_report()
            return float(report["few"]), float(report["many"])


class Churn(Growth):
    """A row that compares a round trip beside a client that subscribes and cancels with one that is alone."""

    against = "alone"

    def measure(self) -> tuple[float, float]:
        """Return the p99 in microseconds, alone and beside it. Raises `ChildFailed`."""
        return round_trip_p99()


AIOQUIC = "aioquic alone"

ROWS = {
    "bulk": Row("Mbit/s, 16 KiB frames", AIOQUIC, baseline("bulk"), library("bulk"), Aim(ratio=0.85)),
    "groups": Row("groups/s, one 100 B frame each", AIOQUIC, baseline("groups"), library("groups"), Aim(ratio=0.6)),
    "webtransport": Row(
        "the same over WebTransport",
        "our raw QUIC",
        library("groups"),
        library("groups", "--webtransport"),
        Aim(ratio=0.85),
    ),
    "frames": Row(
        "frames/s of 100 B, groups of 200", AIOQUIC, baseline("frames"), library("frames"), Aim(absolute=40_000)
    ),
    "pingpong": Row(
        "round trip p50, µs", AIOQUIC, baseline("pingpong"), library("pingpong"), Aim(ratio=1.5, lower_is_better=True)
    ),
    **{
        f"{workload}-{draft}": Row(
            f"{unit}, draft {draft}",
            "moq-lite-06",
            library(workload),
            library(workload, "--version", f"moqt-{draft}"),
            Aim(ratio=0.85),
        )
        for draft in (18, 20)
        for workload, unit in (("groups", "groups/s of one frame"), ("frames", "frames/s, groups of 200"))
    },
    "http3": Row("HTTP/3 requests/s, 1 KiB answers", "hypercorn", http3("hypercorn"), http3("moqt"), Aim(ratio=1.0)),
}

FIGURES = {
    "browser": Figure("echo p50 in Chromium, µs", echo_p50, missing=missing),
    "memory": Figure("KiB of an idle session on the server", session_kib, Aim(absolute=150, lower_is_better=True)),
}

GROWTHS = {
    growth.name: growth
    for growth in (
        Growth("CPU µs, publication, 1,000 others", "publications"),
        Growth("CPU µs, frame, 3,000 open groups", "open-groups"),
        Growth("CPU µs, frame, 1,000 subscriptions", "open-subscriptions"),
        Growth("CPU µs, frame, 1,000 stuck streams", "stuck-streams"),
        Growth("CPU µs, frame, 200 sessions", "idle-sessions"),
        Churn("round trip p99, µs, beside churn", "churn", Aim(ratio=2.0, lower_is_better=True)),
    )
}
