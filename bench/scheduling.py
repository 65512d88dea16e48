"""`python -m bench.scheduling`: two tracks that together are twice what a link carries, with scheduling and without.

One session over real QUIC through `bench.slow_link`; publisher, link and subscriber share this process and its clock.
Both tracks send a group of a few frames at a time, live. One is subscribed to with a high priority, one with a low
one. "Without" replaces `SendScheduler.allowance` by one without a bound, so that everything is written as soon as it
exists and QUIC serves the streams in turn, old ones first.

The rows count the frames and groups that were written early enough to have their whole `max_age` before the end.
"""

from __future__ import annotations

import argparse
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from unittest import mock

import attrs
import trio

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.session.publisher.scheduler import SendScheduler

from .slow_link import SlowLink, slow_link

PATH = "bench"
MBITS = 2.0
SECONDS = 12.0
FRAMES_PER_GROUP = 10
GROUP_SECONDS = 0.25
PRIORITIES = {"high": 200, "low": 50}
# Shares of what both tracks send together. The high one must fit the link, which also carries headers and repeats.
SHARES = {"high": 0.4, "low": 0.6}
OVERLOAD = 2.0
MAX_AGE = 1.5
WARMUP_SECONDS = 1.0

_STAMP = struct.Struct("!d")


@attrs.define(eq=False)
class Tally:
    """What one track sent, and what arrived of it.

    Attributes:
        name: The track's name.
        begun: When each group was opened, by sequence.
        offered: When each frame was written, by group and index.
        latencies: Seconds from writing to arrival, by group and index.
        complete: Groups that arrived whole.
        resets: The code that each other group was reset with after it had begun to arrive, by sequence.
        lags: For each frame that arrived, how many groups its group was older than the newest.
        dropped: Groups that the publisher reported as dropped.
        expired: Of those, groups that were too old.
    """

    name: str
    begun: dict[int, float] = attrs.field(factory=dict)
    offered: dict[tuple[int, int], float] = attrs.field(factory=dict)
    latencies: dict[tuple[int, int], float] = attrs.field(factory=dict)
    complete: set[int] = attrs.field(factory=set)
    resets: dict[int, int] = attrs.field(factory=dict)
    lags: list[int] = attrs.field(factory=list)
    dropped: int = 0
    expired: int = 0

    async def publish(self, track: moqt.Track, frame_bytes: int, until: float) -> None:
        """Write groups at a steady pace; the pace does not depend on the link."""
        step = GROUP_SECONDS / FRAMES_PER_GROUP
        at = trio.current_time()
        while trio.current_time() < until:
            async with track.open_group() as group:
                self.begun[group.sequence] = time.perf_counter()
                for index in range(FRAMES_PER_GROUP):
                    now = time.perf_counter()
                    self.offered[group.sequence, index] = now
                    await group.send(_STAMP.pack(now).ljust(frame_bytes, b"\0"))
                    at += step
                    await trio.sleep_until(at)

    async def subscribe(self, session: moqt.Session, *, task_status: trio.TaskStatus[None]) -> None:
        """Read the track, each group in a task of its own, and count until cancelled."""
        priority = PRIORITIES[self.name]
        async with (
            session.subscribe(PATH, self.name, priority=priority, max_age=MAX_AGE) as subscription,
            trio.open_nursery() as nursery,
        ):
            task_status.started()
            try:
                async for group in subscription:
                    nursery.start_soon(self._read, group)
            finally:
                numbers = subscription.statistics()
                self.dropped, self.expired = numbers.groups_dropped, numbers.groups_expired

    async def _read(self, group: moqt.GroupReader) -> None:
        index = 0
        try:
            async for frame in group:
                self.latencies[group.sequence, index] = time.perf_counter() - _STAMP.unpack_from(frame.payload)[0]
                self.lags.append(max(self.begun) - group.sequence)
                index += 1
            self.complete.add(group.sequence)
        except moqt.StreamReset as error:
            self.resets[group.sequence] = error.code


@attrs.frozen
class Row:
    """The figures of one track; times in milliseconds."""

    name: str
    frames: float
    groups: float
    cut: int
    unsent: int
    codes: str
    p50: float
    p99: float
    newest: float

    @classmethod
    def of(cls, tally: Tally, since: float, until: float) -> Row:
        """Return the figures of what was written within a span of `time.perf_counter`."""
        offered = [index for index, at in tally.offered.items() if since <= at < until]
        groups = [sequence for sequence, at in tally.begun.items() if since <= at < until]
        latencies = sorted(tally.latencies[index] for index in offered if index in tally.latencies)
        cut = {sequence: tally.resets[sequence] for sequence in groups if sequence in tally.resets}
        complete = sum(sequence in tally.complete for sequence in groups)
        names = Counter(_name(code) for code in cut.values())
        return cls(
            name=tally.name,
            frames=len(latencies) / len(offered),
            groups=complete / len(groups),
            cut=len(cut),
            unsent=len(groups) - complete - len(cut),
            codes=", ".join(f"{count} {name}" for name, count in names.items()) or "-",
            p50=_quantile(latencies, 0.5) * 1000,
            p99=_quantile(latencies, 0.99) * 1000,
            newest=sum(lag == 0 for lag in tally.lags) / max(len(tally.lags), 1),
        )

    def __str__(self) -> str:
        return (
            f"  {self.name:<6}{PRIORITIES[self.name]:>9}{self.frames:>9.0%}{self.groups:>9.0%}{self.cut:>7}"
            f"{self.unsent:>9}{self.p50:>9.0f}{self.p99:>9.0f}{self.newest:>9.0%}   {self.codes}"
        )


HEADER = (
    f"  {'track':<6}{'priority':>9}{'frames':>9}{'groups':>9}{'cut':>7}{'not sent':>9}{'p50 ms':>9}{'p99 ms':>9}"
    f"{'newest':>9}   reset with"
)


def _name(code: int) -> str:
    try:
        return StreamCode(code).name
    except ValueError:
        return hex(code)


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")


@contextmanager
def without_scheduling() -> Iterator[None]:
    """Let every sender write at once, whatever the link takes."""

    def unbounded(scheduler: SendScheduler, sender: object) -> int:
        return sys.maxsize

    with mock.patch.object(SendScheduler, "allowance", unbounded):
        yield


async def measure(mbits: float, seconds: float) -> tuple[list[Row], list[Tally], SlowLink]:
    """Run both tracks over one session for some seconds."""
    rate = mbits * 1e6 / 8
    broadcast = moqt.Broadcast()
    tracks = {name: broadcast.track(name) for name in PRIORITIES}
    tallies = {name: Tally(name) for name in PRIORITIES}

    async def serve_session(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish(PATH, broadcast):
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt.serve, moqt.Router({"/bench": serve_session}), "127.0.0.1", 0)
        url = next(url for url in listener.urls if url.startswith("moqt:"))
        async with slow_link(int(url.split(":")[2].partition("/")[0]), rate=rate) as link:
            near = f"moqt://127.0.0.1:{link.port}/bench"
            async with moqt.connect(near, fingerprint=listener.fingerprint) as session:
                async with session.announcements(PATH) as announcements:
                    await anext(announcements)
                async with trio.open_nursery() as readers:
                    for tally in tallies.values():
                        await readers.start(tally.subscribe, session)
                    for track in tracks.values():
                        await track.wait_subscribed()
                    began = time.perf_counter()
                    async with trio.open_nursery() as writers:
                        until = trio.current_time() + seconds
                        for name, tally in tallies.items():
                            frame_bytes = int(OVERLOAD * SHARES[name] * rate * GROUP_SECONDS / FRAMES_PER_GROUP)
                            writers.start_soon(tally.publish, tracks[name], frame_bytes, until)
                    since, before = began + WARMUP_SECONDS, began + seconds - MAX_AGE
                    rows = [Row.of(tally, since, before) for tally in tallies.values()]
                    # The newest group is never dropped: it has to arrive once the writers have stopped.
                    await trio.sleep(MAX_AGE)
                    readers.cancel_scope.cancel()
        nursery.cancel_scope.cancel()
    return rows, list(tallies.values()), link


def report(mbits: float, seconds: float, *, scheduled: bool) -> bool:
    """Measure and print one half of the comparison. Return whether every newest group arrived."""
    with nullcontext() if scheduled else without_scheduling():
        rows, tallies, link = trio.run(measure, mbits, seconds)
    carried = link.down.carried * 8 / 1e6 / (seconds + MAX_AGE)
    print(f"\n{'with' if scheduled else 'without'} scheduling: {carried:.2f} Mbit/s carried to the subscriber")
    print(HEADER)
    for row in rows:
        print(row)
    for tally in tallies:
        print(f"  {tally.name}: {tally.dropped} groups reported as dropped, {tally.expired} of them for their age")
    arrived = all(max(tally.begun) in tally.complete for tally in tallies)
    print(f"  the newest group of each track arrived: {'yes' if arrived else 'no'}", flush=True)
    return arrived


def compare(mbits: float, seconds: float) -> bool:
    """Print the comparison. Return whether every newest group arrived with scheduling."""
    offered = ", ".join(f"{OVERLOAD * share * mbits:.1f} Mbit/s {name}" for name, share in SHARES.items())
    print(f"\na link of {mbits:g} Mbit/s, offered {offered}; groups of {GROUP_SECONDS:g} s, max age {MAX_AGE:g} s")
    print("(newest: frames that belonged to the newest group when they arrived)")
    arrived = report(mbits, seconds, scheduled=True)
    report(mbits, seconds, scheduled=False)
    return arrived


def main() -> int:
    """Read the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scheduling", description="Two tracks at twice a link's rate, by priority."
    )
    parser.add_argument("--mbits", type=float, default=MBITS, help="the link's rate in Mbit/s (default 2)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long to publish (default 12)")
    arguments = parser.parse_args()
    return 0 if compare(arguments.mbits, arguments.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
