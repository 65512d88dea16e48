"""The benchmark's child processes: started, read by JSON lines, and always ended.

What they measure is in their own modules.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# A child that reports nothing for this long has hung: the longest measurement takes two seconds.
DEADLINE_SECONDS = 60.0


class ChildFailed(Exception):
    """A child ended, or hung, before it reported; the text is its standard error."""


class Child:
    """A running child."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.errors: list[str] = []
        assert process.stderr is not None
        self._reader = threading.Thread(target=self.errors.extend, args=(process.stderr,), daemon=True)
        self._reader.start()

    def read_report(self) -> dict[str, float | str]:
        """Return the next line of the child's output. Raises `ChildFailed`."""
        assert self._process.stdout is not None
        watchdog = threading.Timer(DEADLINE_SECONDS, self._process.kill)
        watchdog.start()
        try:
            line = self._process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            self._process.wait()
            self._reader.join()
            raise ChildFailed("".join(self.errors[-30:]) or f"it ended with {self._process.returncode} and no report")
        return json.loads(line)

    def write(self, line: str) -> None:
        """Write a line to the child's standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def resident_bytes(self) -> int:
        """Return the memory that the child has resident now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the child's processor time until the end of the block."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the child: its standard input closes, and if that is not enough it is killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()


@contextmanager
def child(module: str, *arguments: str) -> Iterator[Child]:
    """Run `python -m module arguments` for as long as the block lasts."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    ) as process:
        running = Child(process)
        try:
            yield running
        finally:
            running.close()
