"""run_workers: the parent of the workers of one port. It starts them, starts those that die again, and ends all.

Theory of operation. The parent runs no event loop and serves nothing. It binds the sockets of every worker, which stay
open here for as long as it runs: the number of a socket among those of the port is that of its worker
(`transport/quic/steering.py`), and what arrives while a worker is dead waits there for the next one. Then it forks.
Each worker runs Trio in its own process (`process.py`) and writes lines to a pipe: that its listener serves, and how it
ended. The parent waits for three things at once: signals, by Python's wake-up descriptor; those pipes; and the time of
the next restart.

What a worker may be, and what its end means:

    STARTING   in its first life, not serving yet. Its end is a failure to start, and ends all: the others would fail
               likewise.
    SERVING    it serves, or has served in an earlier life. It is started again: at once for the first time, then after
               delays that double. Once it has ended `_QUICK_ENDS` times in a row within `_STEADY_S`, all are ended.
    (ending)   the parent has asked all of them to end. Whatever happens, they have `grace` and `_MARGIN_S`.

Worker 0 starts alone, and the others once it serves. What goes wrong in all workers is so reported once, and a
development certificate is made once.

Signals. SIGINT and SIGTERM ask all workers to end; a second one asks them to end at once. They are blocked during a
fork until the child has let go of the parent's handlers, which would take the child's signals for the parent's.
"""

from __future__ import annotations

import os
import platform
import secrets
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum, auto
from typing import TYPE_CHECKING, NoReturn

import attrs
import trio

from ..arguments import want, want_async, want_number, want_seconds
from ..certificates import development_certificate
from ..errors import WorkerFailed
from ..loggers import Logger
from ..server.identity import stored_reset_key
from ..server.worker import LinkPorts, Worker
from ..transport.quic.steering import MOST_SHARES, can_steer, steer
from ..transport.sockets import bind_udp_shared
from .process import FAILED, READY, STOPPED, MainFunction, Report, run_process

if TYPE_CHECKING:
    import socket
    from types import FrameType

logger = Logger(__name__)

_STEADY_S = 10.0
"""Seconds after which a worker that ends counts as one that had worked."""
_QUICK_ENDS = 5
"""How many times in a row a worker may end sooner. The delays between them take 3.5 seconds."""
_DELAY_S = 0.5
"""Seconds before the second restart in a row; each later delay is twice as long."""
_MARGIN_S = 5.0
"""Seconds beyond the grace in which workers have to end: handlers have `Limits.close_timeout`, 2 s, to clean up."""
_ENDS = (signal.SIGINT, signal.SIGTERM)
_LONGEST_LINE = 4096
"""Bytes of a worker's line that are kept: an exception's text, which is cut at 256 characters, and room."""


def run_workers(
    count: int,
    main: MainFunction,
    host: str | None = "localhost",
    port: int = 4443,
    *,
    grace: float = 5.0,
    pass_on: Collection[signal.Signals] = (),
) -> signal.Signals | None:
    """Serve one port from several processes, one for each core, until Ctrl-C or SIGTERM. Linux only.

    Each process, a worker, runs `trio.run(main, worker)`; `main` serves with `serve(router, worker=worker)`. A client
    stays with one worker for as long as its connection lasts, also when its address changes. Call it in place of
    `trio.run`, in the main thread, before the program starts threads: it forks.

    - The parent binds the port and serves nothing. Worker 0 starts first, and the others once its listener serves.
    - Ctrl-C and SIGTERM end all workers: each ends its listener as `Listener.aclose(grace)` does, and `main` is
      cancelled. A second one cancels at once. A `main` that receives SIGTERM itself ends as it likes, and has a few
      seconds more than the grace.
    - A worker that fails or is killed is started again, with the same socket; its clients are told at their next packet
      that their sessions have ended. One that gets SIGTERM ends cleanly, and is started again, too.
    - When `main` returns in one worker, all are ended.
    - When the parent dies, the workers end as after SIGTERM.

    `Limits.max_connections` and the other bounds of a listener hold for each worker. With an application, worker 0
    alone serves TCP; HTTP/3 is served by all.

    Args:
        count: How many workers, 1 … 256. Python uses one core in each.
        main: An async function that is called with a `Worker`, in each worker. What it uses is made there: an `Origin`,
            a listener. What it returns is ignored.
        host: As for `serve`, and so the port. 0 picks one, which `Worker.port` has.
        grace: Seconds that clients have to end their sessions after Ctrl-C or SIGTERM.
        pass_on: Further signals that every worker gets when the parent does, such as `signal.SIGHUP`, for a `main` that
            receives them. A worker whose `main` does not receive them ignores them.

    Returns:
        The signal that ended them; None when `main` returned.

    Raises:
        OSError: The address cannot be bound; the message names it.
        WorkerFailed: A worker could not start, or ended again and again. The others were ended. What an unexpected
            exception of `main` was, is logged with its traceback by the worker.
        ValueError: A count or a port out of range.
        TypeError: An argument is of a wrong type, such as a main function that is not async.
        RuntimeError: Not on Linux, not in the main thread, or within `trio.run`.
    """
    want_number("count", count)
    if not 1 <= count <= MOST_SHARES:
        raise ValueError(f"count is a number of workers from 1 to {MOST_SHARES}, not {count}")
    want_async(main, "the main function", "worker")
    if host is not None:
        want(host, str, "a host is a name or an address, and the port comes after it: run_workers(2, main, None, 4443)")
    want_number("port", port)
    if not 0 <= port <= 65535:
        raise ValueError(f"a port is a number from 0 to 65535, not {port}")
    want_seconds("grace", grace)
    passed = frozenset(signal.Signals(number) for number in pass_on)
    if wrong := passed & {*_ENDS, signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP}:
        raise ValueError(f"{', '.join(sorted(each.name for each in wrong))} cannot be passed on")
    _refuse_elsewhere()
    with ExitStack() as stack:
        workers = [_Life(worker) for worker in _make_workers(count, host, port, stack)]
        return _Supervisor(workers, main, float(grace), passed).run(stack)


def _refuse_elsewhere() -> None:
    if not can_steer():
        raise RuntimeError(
            f"several workers on one port need Linux, whose kernel sends each packet to its worker; this is "
            f"{platform.system() or sys.platform}: serve from one process with serve(), or from several relays, each "
            "with a port of its own"
        )
    if trio.lowlevel.in_trio_run():
        raise RuntimeError("run_workers runs Trio in each worker: call it in place of trio.run(main), not within it")
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("run_workers handles signals: call it in the main thread")


def _make_workers(count: int, host: str | None, port: int, stack: ExitStack) -> list[Worker]:
    """Return the workers, whose sockets are bound, and closed at the end of the stack."""
    groups = bind_udp_shared(host, port, count)
    stack.callback(_close, [sock for group in groups for sock in group])
    for group in groups:
        steer(group[0], count)
    private = tuple(group[0] for _ in range(count) for group in bind_udp_shared("127.0.0.1", 0, 1))
    stack.callback(_close, private)
    links = LinkPorts(private, development_certificate(["127.0.0.1"]), secrets.token_hex(16))
    number = groups[0][0].getsockname()[1]
    # The same for a worker and the one that takes its place, also where the account cannot keep a key.
    key = stored_reset_key()
    return [
        Worker(
            index,
            count,
            host=host,
            port=number,
            sockets=[group[index] for group in groups],
            reset_key=key,
            links=links,
        )
        for index in range(count)
    ]


def _close(sockets: Collection[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


class _State(Enum):
    STARTING = auto()
    SERVING = auto()


@attrs.define(eq=False)
class _Life:
    """A worker and its process.

    Attributes:
        worker: Its part of the port.
        state: See the module's docstring.
        pid: Its process; 0 when there is none.
        pipe: The read end of what it tells; -1 when it has ended.
        text: What it has told and was not read yet.
        told: Its last line that was no `READY`.
        began: When the process began, on the monotonic clock.
        quick_ends: How many times in a row it ended within `_STEADY_S`.
        due: When to start it; None while it runs, and before its turn.
    """

    worker: Worker
    state: _State = _State.STARTING
    pid: int = 0
    pipe: int = -1
    text: bytes = b""
    told: str = ""
    began: float = 0.0
    quick_ends: int = 0
    due: float | None = None


@attrs.define(eq=False)
class _Supervisor:
    """The parent's loop.

    Attributes:
        lives: The workers, by index.
        main: The main function.
        grace: Seconds that clients have to end their sessions.
        passed: The signals that are passed on.
    """

    lives: list[_Life]
    main: MainFunction
    grace: float
    passed: frozenset[signal.Signals]
    _wakeup: int = -1
    _parent: tuple[int, int] = (-1, -1)
    _ending: bool = False
    _ended_by: signal.Signals | None = None
    _kill_at: float | None = None
    _failure: WorkerFailed | None = None

    def run(self, stack: ExitStack) -> signal.Signals | None:
        """Run the workers until they have ended."""
        self._wakeup = stack.enter_context(_signals({*_ENDS, *self.passed, signal.SIGCHLD}))
        self._parent = os.pipe()
        for end in self._parent:
            stack.callback(os.close, end)
        stack.callback(self._kill)
        self.lives[0].due = time.monotonic()
        while not self._ending or any(life.pid for life in self.lives):
            self._wait()
            for life in self.lives:
                self._read(life)
                self._reap(life)
            self._start_due()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill()
        if self._failure is not None:
            raise self._failure
        return self._ended_by

    def _wait(self) -> None:
        """Wait for a signal, for a line of a worker, or for the time of what is due."""
        times = [life.due for life in self.lives if life.due is not None and not self._ending]
        if self._kill_at is not None:
            times.append(self._kill_at)
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        readable, _, _ = select.select(
            [self._wakeup, *(life.pipe for life in self.lives if life.pipe >= 0)], [], [], timeout
        )
        if self._wakeup in readable:
            for number in os.read(self._wakeup, 4096):
                self._signalled(signal.Signals(number))

    def _signalled(self, number: signal.Signals) -> None:
        if number in _ENDS:
            self._ended_by = self._ended_by or (None if self._ending else number)
            self._end()
        elif number in self.passed:
            for life in self.lives:
                self._send(life, number)

    # -- one worker ----------------------------------------------------------------------------------------

    def _start_due(self) -> None:
        now = time.monotonic()
        for life in self.lives:
            if not self._ending and life.due is not None and life.due <= now:
                self._start(life, now)

    def _start(self, life: _Life, now: float) -> None:
        life.due, life.began, life.text, life.told = None, now, b"", ""
        reading, writing = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            # What waits there would be written by both processes.
            with suppress(Exception):
                stream.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDS, *self.passed, signal.SIGCHLD})
        try:
            life.pid = os.fork()
            if life.pid == 0:
                self._become(life, reading, Report(writing), before)
        finally:
            if life.pid:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(writing)
        os.set_blocking(reading, False)
        life.pipe = reading

    def _become(self, life: _Life, reading: int, report: Report, mask: set[signal.Signals | int]) -> NoReturn:
        """Go on as the worker, in the process that was just forked."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGINT, *self.passed):
                signal.signal(number, _ignore)
            for number in (signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.close(reading)
            os.close(self._wakeup)
            os.close(self._parent[1])
            worker = life.worker
            for other in self.lives:
                if other is not life:
                    _close(other.worker._sockets)
                    if other.pipe >= 0:
                        os.close(other.pipe)
            worker._ready = lambda: report.write(READY)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            run_process(self.main, worker, report, self._parent[0], self.grace)
        except BaseException:
            traceback.print_exc()
        finally:
            # Nothing of the caller's may run in this process.
            os._exit(FAILED)

    def _read(self, life: _Life) -> None:
        """Read what a worker has told."""
        if life.pipe < 0:
            return
        with suppress(BlockingIOError):
            while data := os.read(life.pipe, _LONGEST_LINE):
                *lines, rest = (life.text + data).split(b"\n")
                life.text = rest[:_LONGEST_LINE]
                for line in lines:
                    self._told(life, line.decode())
            os.close(life.pipe)
            life.pipe = -1

    def _told(self, life: _Life, line: str) -> None:
        if line != READY:
            life.told = line
            return
        life.state = _State.SERVING
        if life.worker.index == 0:
            for other in self.lives:
                if not other.pid and other.state is _State.STARTING:
                    other.due = time.monotonic()

    def _reap(self, life: _Life) -> None:
        """Find that a worker has ended, and decide what follows."""
        if not life.pid:
            return
        pid, status = os.waitpid(life.pid, os.WNOHANG)
        if not pid:
            return
        # What it told before it ended may have come after the last look.
        self._read(life)
        life.pid = 0
        if life.pipe >= 0:
            # A process that it left has the other end.
            os.close(life.pipe)
            life.pipe = -1
        code = os.waitstatus_to_exitcode(status)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if life.told and code > 0:
            how += f": {life.told}"
        index = life.worker.index
        if self._ending:
            # The second request may meet a worker that has ended, whose signals are the system's again.
            if code not in (0, -signal.SIGTERM):
                logger.error("worker %d %s while it was to end", index, how)
        elif code == 0 and life.told != STOPPED:
            logger.info("the main function of worker %d has returned: all workers end", index)
            self._end()
        elif life.state is _State.STARTING:
            self._fail(index, f"worker {index} could not start: {life.told or f'it {how}'}")
        else:
            self._restart(life, "was asked to end" if code == 0 else how)

    def _restart(self, life: _Life, how: str) -> None:
        now, index = time.monotonic(), life.worker.index
        life.quick_ends = life.quick_ends + 1 if now - life.began < _STEADY_S else 0
        if life.quick_ends >= _QUICK_ENDS:
            times = f"{life.quick_ends} times in a row within {_STEADY_S:g} seconds of its start"
            self._fail(index, f"worker {index} ended {times}; the last time it {how}")
            return
        delay = _DELAY_S * 2 ** (life.quick_ends - 2) if life.quick_ends > 1 else 0.0
        logger.warning("worker %d %s; it is started again%s", index, how, f" in {delay:g} s" if delay else "")
        life.due = now + delay

    # -- all workers ---------------------------------------------------------------------------------------

    def _fail(self, index: int, message: str) -> None:
        self._failure = self._failure or WorkerFailed(message, index=index)
        self._end()

    def _end(self) -> None:
        """Ask all workers to end; the second time, at once."""
        if not self._ending:
            self._ending = True
            self._kill_at = time.monotonic() + self.grace + _MARGIN_S
        for life in self.lives:
            self._send(life, signal.SIGTERM)

    def _send(self, life: _Life, number: signal.Signals) -> None:
        if life.pid:
            # It was not waited for, so the id is still its own.
            os.kill(life.pid, number)

    def _kill(self) -> None:
        """End what is left of the workers, and wait for it."""
        self._kill_at = None
        for life in self.lives:
            if life.pid:
                logger.warning("worker %d did not end in time, and is killed", life.worker.index)
                self._send(life, signal.SIGKILL)
                os.waitpid(life.pid, 0)
                life.pid = 0
            if life.pipe >= 0:
                os.close(life.pipe)
                life.pipe = -1


def _ignore(number: int, frame: FrameType | None) -> None:
    """A handler that does nothing. Unlike SIG_IGN, a program that the process starts does not inherit it."""


@contextmanager
def _signals(numbers: set[signal.Signals]) -> Iterator[int]:
    """Yield a descriptor from which the numbers of the signals can be read as they arrive.

    A signal that the program was started to ignore, as a shell does for SIGINT of what runs in the background, stays
    ignored.
    """
    heard = {number for number in numbers if number is signal.SIGCHLD or signal.getsignal(number) != signal.SIG_IGN}
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    former = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    handlers = {number: signal.signal(number, _ignore) for number in heard}
    try:
        yield reading
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former)
        os.close(reading)
        os.close(writing)
