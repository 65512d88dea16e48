"""Programs of several workers and their clients, for tests."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

import moqt_trio as moqt
from tests.interop.processes import Child, shows_output_of

LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="several workers on one port need Linux: only its kernel steers by connection id"
)
SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])


class Who(NamedTuple):
    """Which worker a client has, and how many clients that one had prove their address."""

    index: int
    pid: int
    retried: int


class Workers:
    """A program of several workers that runs.

    Attributes:
        child: Its parent process.
        port: The port that it serves.
        fingerprint: That of its certificate.
        pids: The process of each worker that has begun to serve, by index.
    """

    def __init__(self, child: Child, count: int) -> None:
        self.child = child
        self.port = 0
        self.fingerprint = ""
        self.pids: dict[int, int] = {}
        while len(self.pids) < count:
            self.wait_serving()

    def wait_serving(self) -> int:
        """Waits until another worker serves, and returns its index."""
        event = self.child.wait_event("serving")
        self.port, self.fingerprint = event["port"], event["fingerprint"]
        self.pids[event["index"]] = event["pid"]
        return int(event["index"])

    def connect(self, scheme: str, path: str = "", *, port: int | None = None, **options: object):
        url = f"{scheme}://127.0.0.1:{port or self.port}/{path}"
        return moqt.connect(url, fingerprint=self.fingerprint, **options)


@contextmanager
def program(tmp_path, **options: object) -> Iterator[Child]:
    """Runs the program, with a state directory of its own."""
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    arguments = ("-m", "tests.workers.program", json.dumps(options))
    with Child(*arguments, environment=environment) as child, shows_output_of(child):
        yield child


@contextmanager
def workers(tmp_path, count: int = 3, **options: object) -> Iterator[Workers]:
    """Runs the program until all of its workers serve."""
    with program(tmp_path, count=count, **options) as child:
        yield Workers(child, count)


async def ask(session: moqt.Session) -> Who:
    """Asks the worker of a session which one it is: a round trip."""
    async with session.subscribe("worker", "who") as subscription:
        [frame] = await (await subscription.receive()).read_all()
    return Who(*map(int, frame.split()))
