"""A worker's process, from the fork to its exit: runs the main function on Trio, and ends it when it is asked to.

It is asked by SIGTERM, which the parent sends, or by the end of the parent: the read end of a pipe whose only other end
the parent has. It then ends its listener as `Listener.aclose` does, and cancels the main function. A second SIGTERM
cancels at once. Ctrl-C goes to every process of a terminal: a worker leaves it to the parent.

What the parent is told is lines on a pipe: `_READY` once the listener serves, and at the end `_STOPPED`, when it was
asked to end, or the failure.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

import attrs
import trio

from ..errors import MoqtError, printable
from ..loggers import Logger
from ..tasks import call_application, leaves, open_unwrapping_nursery

if TYPE_CHECKING:
    from ..server.worker import Worker

logger = Logger(__name__)

READY = "ready"
STOPPED = "stopped"
FAILED = 1
"""The exit code of a worker whose main function raised an exception."""

MainFunction = Callable[["Worker"], Awaitable[object]]


@attrs.frozen
class Report:
    """What a worker tells the parent.

    Attributes:
        pipe: The write end of its pipe.
    """

    pipe: int

    def write(self, text: str) -> None:
        """Tell one line. Does nothing when the parent has gone."""
        with suppress(OSError):
            os.write(self.pipe, f"{text}\n".encode())


def run_process(main: MainFunction, worker: Worker, report: Report, parent: int, grace: float) -> NoReturn:
    """Run a worker in a process that was just forked, and end the process.

    Args:
        main: The main function.
        worker: What it is called with.
        report: What is told to the parent.
        parent: The read end of a pipe that ends with the parent.
        grace: Seconds that clients have to end their sessions.
    """
    code = FAILED
    try:
        code = _run(main, worker, report, parent, grace)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        # The caller's blocks and `atexit` functions are the parent's.
        os._exit(code)


def _run(main: MainFunction, worker: Worker, report: Report, parent: int, grace: float) -> int:
    asked = _Asked(worker, parent, grace)
    try:
        trio.run(asked.run, main)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return FAILED
    except BaseException as error:
        report.write(_line(error))
        if not all(isinstance(leaf, OSError | MoqtError) for leaf in leaves(error)):
            logger.error("worker %d failed", worker.index, exc_info=error)
        return FAILED
    if asked.so_far:
        report.write(STOPPED)
    return 0


def _line(error: BaseException) -> str:
    """Return an exception, or all of a group, in one line."""
    found = [
        printable(str(leaf)) if isinstance(leaf, OSError | MoqtError) else printable(f"{type(leaf).__name__}: {leaf}")
        for leaf in leaves(error)
    ]
    return "; ".join(dict.fromkeys(found))


@attrs.define(eq=False)
class _Asked:
    """Whether a worker was asked to end, and what it does then.

    Attributes:
        worker, parent, grace: As for `run_process`.
        so_far: True once it was asked.
    """

    worker: Worker
    parent: int
    grace: float
    so_far: bool = False

    async def run(self, main: MainFunction) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async with open_unwrapping_nursery() as nursery:
                nursery.start_soon(self._end, signals, nursery.cancel_scope)
                await call_application(main, self.worker)
                nursery.cancel_scope.cancel()

    async def _end(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on, signals, nursery.cancel_scope)
            await trio.lowlevel.wait_readable(self.parent)
            nursery.cancel_scope.cancel()
        self.so_far = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on, signals, scope)
            await self.worker._drain(self.grace)
            scope.cancel()


async def _cancel_on(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    await anext(signals)
    scope.cancel()
