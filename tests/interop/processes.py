"""Child processes of tests: tests wait for their output, which is shown when a test fails, and every child is ended.

Everything here blocks with a deadline; a Trio test calls it through `trio.to_thread.run_sync`.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "tests" / "peers"

LINE_TIMEOUT = 90.0
"""Seconds that a child has for the next line; generous, because a slow machine that starts many takes a minute."""
STOP_TIMEOUT = 10.0
"""Seconds that a child has to end once its standard input is closed or it was asked to."""

_ERROR_MARK = "stderr: "


class ChildFailed(AssertionError):
    """A child ended, or did not print an expected line in time; the message has all that it printed."""


class Child:
    """A Python process with its output captured line by line. Use it as a context manager: it is killed at the end.

    Args:
        arguments: What follows the interpreter on the command line.
        environment: Variables that it has besides, or in place of, those of this process.
    """

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = " ".join(arguments)
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._output: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
        )
        self._threads = [
            threading.Thread(target=self._read, args=(self._process.stdout, ""), daemon=True),
            threading.Thread(target=self._read, args=(self._process.stderr, _ERROR_MARK), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, pipe: IO[str], mark: str) -> None:
        for line in pipe:
            self._output.append(mark + line.rstrip("\n"))
            if not mark:
                self._lines.put(line)
        if not mark:
            self._lines.put(None)

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()
        if value is not None and self.output not in str(value):
            value.add_note(self.output)

    @property
    def output(self) -> str:
        """All that the process has printed so far, under a heading."""
        return "\n".join([f"--- {self.name}", *self._output, "---"])

    def wait_line(self, wanted: Callable[[str], bool], timeout: float = LINE_TIMEOUT) -> str:
        """Returns the next line of standard output that is wanted, and throws those before it away."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise ChildFailed(f"nothing of what was expected came in {timeout} s\n{self.output}") from None
            if line is None:
                code = self._process.wait(STOP_TIMEOUT)
                raise ChildFailed(f"the process ended with {code} before it said what was expected\n{self.output}")
            if wanted(line):
                return line

    def wait_event(self, event: str, timeout: float = LINE_TIMEOUT) -> dict[str, Any]:
        """Returns the next JSON line whose `event` is this one."""

        def wanted(line: str) -> bool:
            return line.startswith("{") and json.loads(line).get("event") == event

        return json.loads(self.wait_line(wanted, timeout))

    @property
    def lines(self) -> list[str]:
        """The lines of its standard output so far."""
        return [line for line in self._output if not line.startswith(_ERROR_MARK)]

    @property
    def errors(self) -> list[str]:
        """The lines of its standard error so far."""
        return [line.removeprefix(_ERROR_MARK) for line in self._output if line.startswith(_ERROR_MARK)]

    def tell(self, line: str) -> None:
        """Writes a line to the process's standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")

    def end_input(self) -> None:
        """Closes the process's standard input."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def send_signal(self, number: int) -> None:
        """Sends a signal."""
        self._process.send_signal(number)

    def wait_ended(self, timeout: float = LINE_TIMEOUT) -> int:
        """Waits until the process ends by itself, and returns its exit code."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ChildFailed(f"the process has not ended after {timeout} s\n{self.output}") from None
        for thread in self._threads:
            thread.join()
        return code

    def terminate(self) -> int:
        """Sends SIGTERM, waits, and returns the exit code."""
        self._process.terminate()
        return self.wait_ended(STOP_TIMEOUT)


_OTHER_PROGRAM = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
_ONE_OUTPUT = "import os; os.dup2(1, 2); "


def other_program(
    program: str, *arguments: str, one_output: bool = False, environment: Mapping[str, str] | None = None
) -> Child:
    """Starts a program that is not this interpreter, as a child.

    Args:
        program: Its path.
        arguments: Its arguments.
        one_output: True to have what it writes to standard error on standard output.
        environment: As for `Child`.
    """
    start = _ONE_OUTPUT * one_output + _OTHER_PROGRAM
    return Child("-c", start, program, *arguments, environment=environment)


@contextmanager
def shows_output_of(child: Child) -> Iterator[None]:
    """Adds the output of a longer-lived process to an exception of the block."""
    try:
        yield
    except BaseException as error:
        error.add_note(child.output)
        raise
