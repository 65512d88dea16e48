"""The echo server as a child process, started as it is by hand: on a free port, and stopped by an interrupt."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TextIO

SERVER = (sys.executable, "-m", "apps.echo.server")
CLIENT = (sys.executable, "-m", "apps.echo.client")
PORT = 4443
TRANSPORTS = {"https": "WebTransport", "moqt": "raw QUIC"}
"""The schemes of the URLs, and the transport of each."""

START_TIMEOUT = 30.0
"""Seconds that the server has to print its URLs. A busy machine takes a while to start an interpreter."""
CLIENT_TIMEOUT = 60.0
"""Seconds that one client has for its messages: its own timeouts are shorter, so it can say what went wrong."""
STOP_TIMEOUT = 15.0
"""Seconds that the server has to end: more than it gives its clients to leave."""


_LAST_WORDS = 1.0
"""Seconds that an interrupted client has to print its summary."""
_UNBUFFERED = {**os.environ, "PYTHONUNBUFFERED": "1"}


class ProcessFailed(Exception):
    """A process failed or took too long; the message says which."""


def url(scheme: str, port: int) -> str:
    """Return the URL of the service."""
    return f"{scheme}://localhost:{port}/echo"


def is_free(port: int) -> bool:
    """Return True when no process uses the port, over UDP or TCP, on any loopback address of this machine."""
    hosts = {socket.AF_INET: "127.0.0.1"}
    if _has_ipv6():
        hosts[socket.AF_INET6] = "::1"
    for family, host in hosts.items():
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(family, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    # Connections of an earlier run in TIME_WAIT do not count as a use.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((host, port))
                except OSError:
                    return False
    return True


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def choose_port(preferred: int = PORT) -> int:
    """Return the preferred port when it is free, and otherwise another one, which is printed."""
    port = preferred
    while not is_free(port):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
    if port != preferred:
        print(f"echo   | port {preferred} is in use: taking {port} instead", flush=True)
    return port


def show(line: str) -> None:
    """Print a line of the server."""
    print(f"server | {line}", end="", flush=True)


def run_client(*options: str) -> int:
    """Run the client to its end, print each of its lines with a label, and return its exit code.

    Raises:
        subprocess.TimeoutExpired: It took too long, and was killed.
    """
    with subprocess.Popen(
        [*CLIENT, *options], env=_UNBUFFERED, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        printers = [_Printer("client", client.stdout, sys.stdout), _Printer("client", client.stderr, sys.stderr)]
        try:
            return client.wait(CLIENT_TIMEOUT)
        except KeyboardInterrupt:
            # Ctrl-C in a terminal interrupts the client, too, and it has something to say.
            with suppress(subprocess.TimeoutExpired):
                client.wait(_LAST_WORDS)
            raise
        finally:
            client.kill()
            for printer in printers:
                printer.join()


@contextmanager
def running_server(port: int, *options: str, heard: Callable[[str], object] = show) -> Iterator[None]:
    """Run the echo server: the block is entered once it listens; at its end the server is interrupted and waited for.

    Args:
        port: The port that it listens on.
        options: More flags of its command line.
        heard: Called with each line of its standard output, in a thread of its own.

    Raises:
        ProcessFailed: It ended early, printed no URL in time, or did not exit with 0.
    """
    server = subprocess.Popen(
        [*SERVER, "--port", str(port), *options],
        env=_UNBUFFERED,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    output = _Output(server, heard)
    errors = _Printer("server", server.stderr, sys.stderr)
    try:
        output.wait_until_listening()
        yield
    finally:
        in_time = _interrupt(server)
        output.join()
        errors.join()
    if not in_time:
        raise ProcessFailed(f"the server did not end within {STOP_TIMEOUT:.0f} seconds of being interrupted")
    if server.returncode != 0:
        raise ProcessFailed(f"the server ended with exit code {server.returncode}")


def _interrupt(server: subprocess.Popen[str]) -> bool:
    """Interrupt the server and wait until it ends; kill it and return False when that takes too long."""
    server.send_signal(signal.SIGINT)
    try:
        server.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        return False
    return True


class _Printer(threading.Thread):
    """Prints what a process prints, each line with a label before it, until the process ends."""

    def __init__(self, label: str, lines: IO[str] | None, to: TextIO) -> None:
        super().__init__()
        assert lines is not None
        self._label = label
        self._lines = lines
        self._to = to
        self.start()

    def run(self) -> None:
        with self._lines as lines:
            for line in lines:
                print(f"{self._label} | {line}", end="", file=self._to, flush=True)


class _Output(threading.Thread):
    """Reads what the server prints until it ends: a full pipe would block it."""

    def __init__(self, server: subprocess.Popen[str], heard: Callable[[str], object]) -> None:
        super().__init__()
        self._server = server
        self._heard = heard
        self._listening = False
        self._known = threading.Event()
        self.start()

    def run(self) -> None:
        missing = set(TRANSPORTS)
        assert self._server.stdout is not None
        with self._server.stdout as lines:
            for line in lines:
                self._heard(line)
                missing.difference_update(re.findall(r"\b(\w+)://", line))
                if not missing:
                    self._listening = True
                    self._known.set()
        self._known.set()

    def wait_until_listening(self) -> None:
        """Return once the server has printed both of its URLs. Raises `ProcessFailed` when it does not."""
        if not self._known.wait(START_TIMEOUT):
            raise ProcessFailed(f"the server printed no URLs within {START_TIMEOUT:.0f} seconds")
        if not self._listening:
            raise ProcessFailed(f"the server ended with exit code {self._server.wait()} before it listened")
