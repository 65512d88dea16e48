"""The rows of the table: what each measures, against what, and what it should reach.

A figure comes from a `Pair` of processes, a server and a client, or from a function. It knows nothing of rounds.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from .browser import echo_p50, missing
from .children import child

LIBRARY = "bench.library"
IDLE_SESSIONS = 200
WARM_SESSIONS = 10


@attrs.frozen
class Aim:
    """What a row should reach.

    Attributes:
        ratio: Of the library to the yardstick: at least this, or at most when `lower_is_better`; None: no such aim.
        absolute: In the row's unit; None where only the ratio counts.
        lower_is_better: True for a time or a size.
    """

    ratio: float | None = None
    absolute: float | None = None
    lower_is_better: bool = False

    def reached(self, library: float, ratio: float | None) -> bool:
        """Returns whether the figures reach the aim."""
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
        server: Its module and arguments. It says where it is.
        client: Its module and arguments. It says what it measured.
    """

    server: tuple[str, ...]
    client: tuple[str, ...]

    def measure(self, options: list[str]) -> float:
        """Runs both once and returns the figure. Raises `ChildFailed`."""
        with child(*self.server) as server, child(*self.client, *where(server.hear()), *options) as client:
            return float(client.hear()["value"])

    def profile(self, options: list[str]) -> str:
        """Runs both under the profiler and returns what they spend their time on. Raises `ChildFailed`."""
        with child(*self.server, "--profile") as server:
            address = where(server.hear())
            with child(*self.client, *address, "--profile", *options) as client:
                client.hear()
        return "\n".join(["server", "".join(server.errors), "client", "".join(client.errors)])


def where(hello: dict[str, float | str]) -> list[str]:
    """Returns the options that tell a client where its server is."""
    return ["--port", str(hello["port"]), "--fingerprint", str(hello["fingerprint"])]


def bare(workload: str) -> Pair:
    """Returns a workload on bare aioquic."""
    return Pair(("bench.bare", "publish", workload), ("bench.bare", "subscribe", workload))


def library(workload: str, *options: str) -> Pair:
    """Returns a workload on the library."""
    return Pair((LIBRARY, "publish", workload), (LIBRARY, "subscribe", workload, *options))


def http3(server: str) -> Pair:
    """Returns requests to one of the HTTP/3 servers."""
    return Pair(("bench.http3", server), ("bench.http3", "load"))


def session_kib(quick: bool) -> float:
    """Returns the KiB that one more idle session costs a server. Raises `ChildFailed`."""
    sessions = IDLE_SESSIONS // (10 if quick else 1)
    pair = library("memory")
    with child(*pair.server) as server:
        address = where(server.hear())
        # The first sessions pay for caches that all the others share.
        with child(*pair.client, *address, "--sessions", str(WARM_SESSIONS)) as first:
            first.hear()
            before = server.resident_bytes()
            with child(*pair.client, *address, "--sessions", str(sessions)) as second:
                second.hear()
                return (server.resident_bytes() - before) / sessions / 1024


@attrs.frozen
class Row:
    """A row that compares.

    Attributes:
        title: What is measured, and its unit.
        against: What the yardstick is.
        yardstick: Measures it.
        library: Measures the library.
        aim: What the library should reach.
    """

    title: str
    against: str
    yardstick: Pair
    library: Pair
    aim: Aim


@attrs.frozen
class Figure:
    """A row with nothing to compare with, measured once.

    Attributes:
        title: What is measured, and its unit.
        measure: Returns the figure; its argument is True for a quick one.
        aim: What it should reach; None for a figure that is only of interest.
        missing: Returns what it needs and does not find, and how to get that, or None.
    """

    title: str
    measure: Callable[[bool], float]
    aim: Aim | None = None
    missing: Callable[[], str | None] = lambda: None


AIOQUIC = "bare aioquic"

ROWS = {
    "bulk": Row("Mbit/s, 16 KiB frames", AIOQUIC, bare("bulk"), library("bulk"), Aim(ratio=0.85)),
    "groups": Row("groups/s, one 100 B frame each", AIOQUIC, bare("groups"), library("groups"), Aim(ratio=0.6)),
    "webtransport": Row(
        "the same over WebTransport",
        "our raw QUIC",
        library("groups"),
        library("groups", "--webtransport"),
        Aim(ratio=0.85),
    ),
    "frames": Row("frames/s of 100 B, groups of 200", AIOQUIC, bare("frames"), library("frames"), Aim(absolute=40_000)),
    "pingpong": Row(
        "round trip p50, µs", AIOQUIC, bare("pingpong"), library("pingpong"), Aim(ratio=1.5, lower_is_better=True)
    ),
    "http3": Row("HTTP/3 requests/s, 1 KiB answers", "hypercorn", http3("hypercorn"), http3("moqt"), Aim(ratio=1.0)),
}

FIGURES = {
    "browser": Figure("echo p50 in Chromium, µs", echo_p50, missing=missing),
    "memory": Figure("KiB of an idle session on the server", session_kib, Aim(absolute=150, lower_is_better=True)),
}
