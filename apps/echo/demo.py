"""The echo service and its client, run once over each transport: what `make echo` shows.

Both run as processes of their own, just as they would be started by hand; nothing of the library is used here.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SERVER = (sys.executable, "-m", "apps.echo.server")
CLIENT = (sys.executable, "-m", "apps.echo.client")
PORT = 4443
MESSAGES = 5
SCHEMES = ("https", "moqt")

START_TIMEOUT = 30.0
"""Seconds that the server has to print its URLs."""
CLIENT_TIMEOUT = 60.0
"""Seconds that one client has for its messages."""
STOP_TIMEOUT = 15.0
"""Seconds that the server has to drain and end."""


class DemoFailed(Exception):
    """A process did not do its part; the message says which."""


def is_free(port: int) -> bool:
    """Returns True when nothing on this machine uses the port, over UDP or TCP, on any of its loopback addresses."""
    hosts = {socket.AF_INET: "127.0.0.1"}
    if _has_ipv6():
        hosts[socket.AF_INET6] = "::1"
    for family, host in hosts.items():
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(family, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    # Connections of an earlier run that still wait to expire are not in the way.
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
    """Returns the preferred port when it is free, and otherwise one that is."""
    port = preferred
    while not is_free(port):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
    return port


@contextmanager
def running_server(port: int) -> Iterator[None]:
    """Runs the echo server: on entry it listens, on exit it was interrupted and ended by itself.

    Raises:
        DemoFailed: It ended early, printed no URL in time, or did not exit with 0.
    """
    server = subprocess.Popen(
        [*SERVER, "--port", str(port)],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    output = _Output(server)
    try:
        output.wait_until_listening()
        yield
    finally:
        in_time = _interrupt(server)
        output.join()
    if not in_time:
        raise DemoFailed(f"the server did not end within {STOP_TIMEOUT:.0f} seconds of being interrupted")
    if server.returncode != 0:
        raise DemoFailed(f"the server ended with exit code {server.returncode}")


def _interrupt(server: subprocess.Popen[str]) -> bool:
    """Interrupts the server and waits for its end; kills it, and returns False, when that takes too long."""
    server.send_signal(signal.SIGINT)
    try:
        server.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
        return False
    return True


class _Output(threading.Thread):
    """Prints what the server prints for as long as it lives: a full pipe would stop it."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        super().__init__()
        self._server = server
        self._listening = False
        self._known = threading.Event()
        self.start()

    def run(self) -> None:
        missing = set(SCHEMES)
        assert self._server.stdout is not None
        with self._server.stdout as lines:
            for line in lines:
                print(f"server | {line}", end="", flush=True)
                missing.difference_update(re.findall(r"\b(\w+)://", line))
                if not missing:
                    self._listening = True
                    self._known.set()
        self._known.set()

    def wait_until_listening(self) -> None:
        """Returns once the server has printed both of its URLs. Raises `DemoFailed` when it does not."""
        if not self._known.wait(START_TIMEOUT):
            raise DemoFailed(f"the server printed no URLs within {START_TIMEOUT:.0f} seconds")
        if not self._listening:
            raise DemoFailed(f"the server ended with exit code {self._server.wait()} before it listened")


def run_client(url: str) -> None:
    """Runs the echo client against a URL; what it prints appears as it comes.

    Raises:
        DemoFailed: A message was lost, or the client did not end in time.
    """
    print(f"\nclient | {url}", flush=True)
    command = [*CLIENT, "--url", url, "--count", str(MESSAGES)]
    try:
        status = subprocess.run(command, timeout=CLIENT_TIMEOUT, check=False).returncode
    except subprocess.TimeoutExpired as error:
        raise DemoFailed(f"the client of {url} did not end within {CLIENT_TIMEOUT:.0f} seconds") from error
    if status != 0:
        raise DemoFailed(f"the client of {url} ended with exit code {status}")


def main() -> int:
    """Runs the demonstration and returns its exit code: 0 only when every message came back over both transports."""
    port = choose_port()
    if port != PORT:
        print(f"port {PORT} is in use: taking {port} instead", flush=True)
    try:
        with running_server(port):
            for scheme in SCHEMES:
                run_client(f"{scheme}://localhost:{port}/echo")
    except DemoFailed as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print("\nEvery message came back over WebTransport (https://) and raw QUIC (moqt://).")
    return 0


if __name__ == "__main__":
    sys.exit(main())
