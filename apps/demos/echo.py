"""The echo server and its client, run once over each transport: what `make echo` runs (`python -m apps.demos.echo`)."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from .. import EXIT_INTERRUPTED, raise_on_interrupt
from . import processes
from .processes import ProcessFailed, choose_port, running_server, url

MESSAGES = 5
"""Messages of each client: the demonstration ends within seconds."""


def run_client(where: str) -> None:
    """Run the echo client against a URL; its output appears as it is printed, with a label before each line.

    Raises:
        ProcessFailed: A message was lost, or the client did not end in time.
    """
    transport = processes.TRANSPORTS[where.partition(":")[0]]
    print(f"\necho   | the client sends {MESSAGES} messages over {transport}, each of which comes back", flush=True)
    try:
        status = processes.run_client("--url", where, "--count", str(MESSAGES))
    except subprocess.TimeoutExpired as error:
        raise ProcessFailed(
            f"the client of {where} did not end within {processes.CLIENT_TIMEOUT:.0f} seconds"
        ) from error
    if status != 0:
        raise ProcessFailed(f"the client of {where} ended with exit code {status}")


def main(arguments: Sequence[str] = ()) -> int:
    """Run the demonstration and return its exit code: 0 only when every message came back over both transports."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.demos.echo",
        description="Starts the echo server, runs the echo client over WebTransport and over raw QUIC, and ends.",
        epilog="exit codes: 0 every message came back, 1 something failed, 2 wrong usage, 130 interrupted",
    )
    parser.parse_args(arguments)
    raise_on_interrupt()
    port = choose_port()
    print("echo   | starting the server: python -m apps.echo.server", flush=True)
    try:
        with running_server(port):
            for scheme in processes.TRANSPORTS:
                run_client(url(scheme, port))
    except ProcessFailed as error:
        print(f"echo   | {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    print("\necho   | every message came back, over WebTransport (https://) and over raw QUIC (moqt://)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
