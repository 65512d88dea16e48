"""What is measured: the sizes that both sides of a comparison share, and how a child process runs and reports.

Both programs share it, so that they measure by the same rules. In every workload the server
publishes and the client subscribes and counts; in the ping-pong the client also times.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import trio

# Bulk: frames of 16 KiB, a group of 1 MiB.
BULK_FRAME_BYTES = 16 * 1024
BULK_FRAMES_PER_GROUP = 64

# Small messages: the size of a chat line or a sensor reading.
SMALL_FRAME_BYTES = 100
SMALL_FRAMES_PER_GROUP = 200

# aioquic walks over every open stream for every packet, so neither program keeps more than this many open.
MAX_OPEN_STREAMS = 64
LOW_OPEN_STREAMS = 48

# Bytes that a writer may have queued and unacknowledged on one stream before it waits, and below which it continues.
HIGH_WATER_BYTES = 512 * 1024
LOW_WATER_BYTES = 256 * 1024

PROFILE_LINES = 25

WORKLOADS = ("bulk", "groups", "frames", "pingpong")


@attrs.frozen
class Window:
    """When a subscriber counts.

    Attributes:
        warmup: Seconds before the count begins, for the congestion window to open.
        duration: Seconds that are counted.
    """

    warmup: float
    duration: float

    async def rate(self, count: Callable[[], int]) -> float:
        """Return how much `count` grows in a second."""
        await trio.sleep(self.warmup)
        before, began = count(), time.perf_counter()
        await trio.sleep(self.duration)
        return (count() - before) / (time.perf_counter() - began)


def round_trip_report(seconds: list[float]) -> dict[str, float]:
    """Return the figures of a ping-pong in microseconds."""
    ordered = sorted(seconds)
    return {
        "value": statistics.median(ordered) * 1e6,
        "p99": ordered[int(len(ordered) * 0.99)] * 1e6,
        "count": len(ordered),
    }


def say(**fields: object) -> None:
    """Print one line of JSON for the parent process."""
    print(json.dumps(fields), flush=True)


async def until_stdin_ends() -> None:
    """Return when the parent closes the pipe or dies, so that no child outlives it."""
    await trio.to_thread.run_sync(sys.stdin.buffer.read, abandon_on_cancel=True)


def child_arguments(description: str, extra_workloads: tuple[str, ...] = ()) -> argparse.Namespace:
    """Return the command line of `python -m bench.baseline` or `python -m bench.library`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("role", choices=["publish", "subscribe"])
    parser.add_argument("workload", choices=[*WORKLOADS, *extra_workloads])
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--webtransport", action="store_true", help="over WebTransport instead of raw QUIC")
    parser.add_argument("--version", default="moq-lite-06", help="the library's wire version (default: %(default)s)")
    add_child_options(parser)
    return parser.parse_args()


def add_child_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every child. A server ignores the port, the fingerprint and the times."""
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fingerprint", default="")
    parser.add_argument("--warmup", type=float, default=0.5)
    parser.add_argument("--duration", type=float, default=1.5)
    parser.add_argument("--profile", action="store_true", help="print the profile's top lines to standard error")


def run_child(profiled: bool, function: Callable[..., Awaitable[None]], *arguments: Any) -> None:
    """Run a side, and print the profile's top lines to standard error when asked to."""
    if not profiled:
        trio.run(function, *arguments)
        return
    profiler = cProfile.Profile()
    profiler.enable()
    trio.run(function, *arguments)
    profiler.disable()
    pstats.Stats(profiler, stream=sys.stderr).strip_dirs().sort_stats("tottime").print_stats(PROFILE_LINES)
