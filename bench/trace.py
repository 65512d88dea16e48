"""`python -m bench.trace`: the calls and the files that one frame and one subscription pass.

It counts how far control travels, which says how hard the way is to follow and is the same on every machine. How long
it takes is for `python -m bench`. A server and a client run in one process and speak raw QUIC on loopback.

What is measured:
    frame: the second frame of a group, moq-lite-06. From `await group.send(b"x")`, while the group is open, its first
        frame is read and the reader waits in `async for frame in group`, until the reader has the frame and waits
        again.
    subscribe: a SUBSCRIBE and its reply, moq-lite-04, where the reply is immediate. From the task of the publisher's
        socket, which reads the datagram, until the reply is written: until the call into `moqt_trio/transport/` that
        takes the reply's bytes returns, which includes that the connection's task is woken. What the socket's task
        still does after it has started or woken the one that replies is not on this way, and is not counted.

How it is counted:
    call: a call of a Python function in a file of moqt_trio: functions, methods, properties, lambdas, comprehensions
        and generator expressions. A coroutine that goes on after an await is counted each time, and so is a generator
        after a yield: control passes through that file again. The code of aioquic, trio and the standard library is
        left out, and so are the methods that attrs makes and everything written in C. From Python 3.12 on a list
        comprehension is no call, so compare counts of one version of Python.
    file: a file of moqt_trio with at least one of these calls.
    visit: one call, or several in a row, to one file, in the order in which the calls begin.
    return: a visit to a file that was visited before: visits less files.

Whose calls are counted: those of the tasks that carry the frame or the request. The task that starts takes part, so
does the one that reads the socket where the bytes arrive, and so does each task that is woken by one that takes part.
The task that sends the other direction's datagrams never does: acknowledgements, timers and the client's own request
stay out.

Whether an acknowledgement is due decides which way a datagram takes, and tracing is slow. So Trio's clock runs slower
while calls are recorded, and each run has a session of its own. What the most runs have in common is shown, and of two
counts that are as frequent the smaller.

Inside the library two names are used, `moqt_trio/transport/` and aioquic's `QuicStreamSender.write`.
"""

from __future__ import annotations

import argparse
import dis
import functools
import os
import socket
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import trio
import trio.testing
from aioquic.quic.stream import QuicStreamSender

import moqt_trio as moqt

if TYPE_CHECKING:
    from types import CodeType, FrameType

PACKAGE = os.path.dirname(os.path.abspath(moqt.__file__)) + os.sep
TRANSPORT = "transport" + os.sep

CLOCK_RATE = 0.02
"""Seconds of Trio's clock in a second, while calls are recorded. An acknowledgement may wait for 1 ms: 50 ms then."""

SETTLE_SECONDS = 0.06
"""Pause before a measurement, for acknowledgements and what else a session's start leaves to do."""

AFTERWARDS_SECONDS = 0.004
"""For how long, by Trio's clock, recording goes on after the frame or the reply: the acknowledgement is sent then, and
shows which task sends it."""

RUNS = 9
TIMEOUT_SECONDS = 10

SOCKET_READS = {"recv", "recvfrom", "recvmsg", "recv_into", "recvfrom_into", "recvmsg_into"}
SOCKET_WRITES = {"send", "sendto", "sendmsg"}


class Call(NamedTuple):
    """A call of a function of moqt_trio, or a return of control into one after an await or a yield."""

    stage: str
    file: str
    function: str
    depth: int
    resumed: bool


class Event(NamedTuple):
    """Something that happened while a task ran; `task` is None while the event loop itself did.

    Kinds: "call" and "return" of functions of moqt_trio; "write" of bytes into the engine; "read" and "sent" of
    datagrams; "woken" of the task in `other`.
    """

    kind: str
    task: object
    file: str = ""
    function: str = ""
    depth: int = 0
    resumed: bool = False
    port: int = 0
    other: object = None


@functools.cache
def local_name(code: CodeType) -> str | None:
    """Return the path of a function's file within moqt_trio, or None when it belongs to another package."""
    return code.co_filename.removeprefix(PACKAGE) if code.co_filename.startswith(PACKAGE) else None


@functools.cache
def first_instruction(code: CodeType) -> int:
    """Return where a function stands when it begins; a coroutine that goes on stands further down."""
    return next((each.offset for each in dis.get_instructions(code) if each.opname == "RESUME"), 0)


def library_files(frame: FrameType | None) -> Iterator[str]:
    """Yield the file of each function of moqt_trio on a stack, innermost first."""
    while frame is not None:
        name = local_name(frame.f_code)
        if name is not None:
            yield name
        frame = frame.f_back


@dataclass(eq=False)
class Recorder(trio.abc.Instrument):
    """Records which task calls what, wakes which other, and uses which socket, between `start` and `stop`."""

    clock: trio.testing.MockClock
    events: list[Event] = field(default_factory=list)
    task: object = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Called when a task goes on."""
        self.task = task

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Called when a task waits or ends."""
        self.task = None

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        """Called when a task is woken or was made."""
        self.events.append(Event("woken", self.task, other=task))

    def start(self) -> None:
        """Start recording, in the task that calls this."""
        self.task = trio.lowlevel.current_task()
        self.clock.rate = CLOCK_RATE
        trio.lowlevel.add_instrument(self)
        sys.setprofile(self._profile)

    def stop(self) -> None:
        """Stop recording."""
        sys.setprofile(None)
        trio.lowlevel.remove_instrument(self)
        self.clock.rate = 1

    def _profile(self, frame: FrameType, kind: str, argument: Any) -> None:
        if kind == "c_call":
            self._note_socket(argument)
        elif kind in ("call", "return"):
            code = frame.f_code
            name = local_name(code)
            if name is not None:
                depth = sum(1 for _ in library_files(frame))
                resumed = frame.f_lasti > first_instruction(code)
                self.events.append(Event(kind, self.task, name, code.co_qualname, depth, resumed))
            elif kind == "call" and code is QuicStreamSender.write.__code__ and frame.f_locals["data"]:
                self._note_write(list(library_files(frame)))

    def _note_socket(self, function: Any) -> None:
        endpoint = getattr(function, "__self__", None)
        if isinstance(endpoint, socket.socket) and endpoint.type == socket.SOCK_DGRAM:
            kind = "read" if function.__name__ in SOCKET_READS else "sent" if function.__name__ in SOCKET_WRITES else ""
            if kind:
                self.events.append(Event(kind, self.task, port=endpoint.getsockname()[1]))

    def _note_write(self, files: list[str]) -> None:
        """Note the depth at which the transport was asked to write."""
        inside = next((index for index, file in enumerate(files) if not file.startswith(TRANSPORT)), len(files))
        self.events.append(Event("write", self.task, depth=len(files) - inside + 1))

    def task_at(self, kind: str, port: int) -> object:
        """Return the task that reads or writes the socket with this port."""
        return next((event.task for event in self.events if event.kind == kind and event.port == port), None)


def follow(events: Iterable[Event], stages: dict[object, str], left_out: object) -> Iterator[tuple[Event, str]]:
    """Yield what the tasks do that take part, and the stage of each.

    Args:
        events: What happened.
        stages: Names for the tasks whose part is known. Those that "write" and "receive" take part from the start, the
            others when they are woken. What is woken on the way and has no name serves.
        left_out: A task that takes no part even when it is woken.
    """
    taking_part = {task for task, stage in stages.items() if stage in ("write", "receive")}
    for event in events:
        if event.task not in taking_part:
            continue
        if event.kind == "woken" and event.other is not left_out:
            taking_part.add(event.other)
        yield event, stages.get(event.task, "serve")


def calls_of(followed: Iterable[tuple[Event, str]]) -> list[Call]:
    """Return the calls among what happened."""
    return [
        Call(stage, event.file, event.function, event.depth, event.resumed)
        for event, stage in followed
        if event.kind == "call"
    ]


async def trace_frame(recorder: Recorder, track: moqt.Track, session: moqt.Session, port: int) -> list[Call]:
    """Return the calls from `send` until the reader waits again."""
    tasks: list[trio.lowlevel.Task] = []
    first, second = trio.Event(), trio.Event()

    async def read() -> None:
        tasks.append(trio.lowlevel.current_task())
        async for frame in await anext(subscription):
            (second if bytes(frame) == b"x" else first).set()

    async with session.subscribe("trace", "track") as subscription:
        await track.wait_subscribed()
        async with trio.open_nursery() as nursery, track.open_group() as group:
            nursery.start_soon(read)
            await group.send(b"first")
            await first.wait()
            await trio.sleep(SETTLE_SECONDS)
            recorder.start()
            await group.send(b"x")
            await second.wait()
            await trio.sleep(AFTERWARDS_SECONDS)
            recorder.stop()
    client = next(event.port for event in recorder.events if event.port not in (0, port))
    [reader] = tasks
    stages = {
        trio.lowlevel.current_task(): "write",
        recorder.task_at("sent", port): "send",
        recorder.task_at("read", client): "receive",
        reader: "read",
    }
    end = max(index for index, event in enumerate(recorder.events) if event.kind == "call" and event.task is reader)
    return calls_of(follow(recorder.events[: end + 1], stages, left_out=recorder.task_at("sent", client)))


async def trace_subscribe(recorder: Recorder, track: moqt.Track, session: moqt.Session, port: int) -> list[Call]:
    """Return the calls from the read of SUBSCRIBE until its reply is written."""
    await trio.sleep(SETTLE_SECONDS)
    recorder.start()
    async with session.subscribe("trace", "track"):
        await track.wait_subscribed()
        await trio.sleep(AFTERWARDS_SECONDS)
        recorder.stop()
    stages = {recorder.task_at("read", port): "receive"}
    followed = list(follow(recorder.events, stages, left_out=recorder.task_at("sent", port)))
    writes = [(index, event) for index, (event, _) in enumerate(followed) if event.kind == "write"]
    if not writes:
        raise RuntimeError("the reply was not seen: its bytes did not pass aioquic's QuicStreamSender.write")
    start, write = writes[0]
    end = next(
        index
        for index, (event, _) in enumerate(followed)
        if index > start and (event.kind, event.task, event.depth) == ("return", write.task, write.depth)
    )
    return calls_of(way_to(write.task, followed[:end]))


def way_to(task: object, followed: list[tuple[Event, str]]) -> list[tuple[Event, str]]:
    """Return what leads to the last step of a task: nothing that another task does after it has woken the next one."""
    way = []
    for event, stage in reversed(followed):
        if event.kind == "woken" and event.other is task and event.task is not task:
            task = event.task
        elif event.task is task:
            way.append((event, stage))
    return way[::-1]


Trace = Callable[[Recorder, moqt.Track, moqt.Session, int], Awaitable[list[Call]]]

TRACES: dict[str, tuple[str, str, Trace]] = {
    "frame": ("the second frame of a group, from send() to the reader", "moq-lite-06", trace_frame),
    "subscribe": ("a SUBSCRIBE, from the socket to its reply", "moq-lite-04", trace_subscribe),
}


async def run_once(version: str, trace: Trace, clock: trio.testing.MockClock) -> list[Call]:
    """Return the calls that one run takes, in a session of its own."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("track")

    async def handle(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish("trace", broadcast):
            await session.wait_closed()

    with trio.fail_after(TIMEOUT_SECONDS):
        async with trio.open_nursery() as nursery:
            listener = await nursery.start(moqt.serve, moqt.Router({"/": handle}), "127.0.0.1", 0)
            url = next(url for url in listener.urls if url.startswith("moqt:"))
            async with moqt.connect(url, versions=[version], fingerprint=listener.fingerprint) as session:
                async with session.announcements("trace") as announcements:
                    await anext(announcements)
                calls = await trace(Recorder(clock), track, session, int(url.split(":")[2].strip("/")))
            nursery.cancel_scope.cancel()
    return calls


def most_frequent(runs: list[list[Call]]) -> list[Call]:
    """Return one of those runs that took the most frequent number of calls, or the smaller of two such numbers."""
    counts = Counter(len(run) for run in runs)
    length = min(counts, key=lambda count: (-counts[count], count))
    return next(run for run in runs if len(run) == length)


def visits_of(calls: list[Call]) -> list[str]:
    """Return the files in the order in which control comes to them."""
    return [call.file for index, call in enumerate(calls) if index == 0 or call.file != calls[index - 1].file]


def show(name: str, runs: list[list[Call]], listed: bool) -> None:
    """Print the table of one measurement."""
    title, version, _ = TRACES[name]
    calls = most_frequent(runs)
    visits = visits_of(calls)
    counts = sorted(len(run) for run in runs)
    print(f"\n{name}: {title} ({version})\n\n  {'stage':<10}{'calls':>7}{'files':>7}{'visits':>8}{'returns':>9}")
    for stage in dict.fromkeys(call.stage for call in calls):
        show_row(stage, [call for call in calls if call.stage == stage])
    show_row("total", calls)
    print(f"\n  {sum(call.resumed for call in calls)} of the calls go on after an await or a yield;")
    print(f"  {len(runs)} runs took {counts[0]} to {counts[-1]} calls, {counts.count(len(calls))} of them {len(calls)}")
    if listed:
        crossings = Counter(tuple(sorted(pair)) for pair in pairwise(visits))
        print("\n  most crossed, from one file to the other and back:")
        for (one, other), count in crossings.most_common(10):
            print(f"  {count:>4}  {one} - {other}")
        print("\n  calls in their order ('+' goes on after an await or a yield):")
        for call in calls:
            mark = "+" if call.resumed else " "
            print(f"  {call.stage:<8}{mark}{'  ' * (call.depth - 1)}{call.file}:{call.function}")


def show_row(stage: str, calls: list[Call]) -> None:
    """Print one line of the table."""
    visits = visits_of(calls)
    files = len(set(visits))
    print(f"  {stage:<10}{len(calls):>7}{files:>7}{len(visits):>8}{len(visits) - files:>9}")


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.trace",
        description="Counts the calls that one frame and one subscription pass within moqt_trio, the files\n"
        "that they are in, and how often control returns to a file that it has left. A server\n"
        "and a client run in this process and speak raw QUIC on loopback.",
        epilog="what is measured:\n"
        + "".join(f"  {name:<11}{title} ({version})\n" for name, (title, version, _) in TRACES.items())
        + "\nstages:\n"
        "  write      the task that calls send()\n"
        "  serve      the task of the peer's subscription\n"
        "  send       the task of the connection, which writes the socket\n"
        "  receive    the task that reads the socket\n"
        "  read       the task in 'async for frame in group'\n\n"
        "columns:\n"
        "  calls      calls of Python functions in files of moqt_trio; going on after an await counts\n"
        "  files      files of moqt_trio with at least one of these calls\n"
        "  visits     calls in a row to one file are one visit\n"
        "  returns    visits less files\n\n"
        "examples:\n"
        "  python -m bench.trace\n"
        "  python -m bench.trace frame --list\n\n"
        "The module's docstring has the rules in full.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="*", metavar="NAME", help="measure only this: frame or subscribe")
    parser.add_argument(
        "--list", action="store_true", help="list the calls too, and the two files between which control goes most"
    )
    parser.add_argument("--runs", type=int, default=RUNS, help="sessions for each measurement (default: %(default)s)")
    return parser


def main() -> int:
    """Read the command line, measure, and return the exit code."""
    parser = build_parser()
    arguments = parser.parse_args()
    unknown = set(arguments.what) - set(TRACES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(TRACES)}")
    if arguments.runs < 1:
        parser.error("--runs takes a number above 0")
    for name in arguments.what or TRACES:
        _, version, trace = TRACES[name]
        runs = []
        for _ in range(arguments.runs):
            clock = trio.testing.MockClock(rate=1)
            runs.append(trio.run(run_once, version, trace, clock, clock=clock))
        show(name, runs, arguments.list)
    return 0


if __name__ == "__main__":
    sys.exit(main())
