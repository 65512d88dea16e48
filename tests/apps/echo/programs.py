"""The echo server and client as child processes, and what they printed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import attrs

from tests.interop.processes import LINE_TIMEOUT, Child, shows_output_of

SCHEMES = ("https", "moqt")


@attrs.frozen
class Server:
    """A running echo server.

    Attributes:
        process: Its process.
        urls: Its URL for each scheme.
        fingerprint: SHA-256 of its certificate, in hexadecimal.
    """

    process: Child
    urls: dict[str, str]
    fingerprint: str

    @property
    def port(self) -> str:
        """The port that it took."""
        return self.urls["moqt"].rpartition(":")[2].partition("/")[0]


@contextmanager
def running_server(*options: str, port: str = "0", environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Runs an echo server on a free port, and kills it if it still runs at the end of the block."""
    command = ["-m", "apps.echo.server", "--port", port, *options]
    with Child(*command, environment=environment) as process:
        urls = [process.wait_line(lambda line: True).removeprefix("listening on ").strip() for _ in SCHEMES]
        fingerprint = process.wait_line(lambda line: True)
        found = re.fullmatch(r"fingerprint sha256 ([0-9a-f]{64})\n", fingerprint)
        assert found is not None, fingerprint
        process.wait_line(lambda line: line.startswith("page for browsers https://"))
        with shows_output_of(process):
            yield Server(process, {url.partition(":")[0]: url for url in urls}, found[1])


@contextmanager
def running_client(*options: str, environment: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Runs an echo client, and kills it if it still runs at the end of the block."""
    with Child("-m", "apps.echo.client", *options, environment=environment) as process:
        yield process


@attrs.frozen
class Outcome:
    """How a program ended.

    Attributes:
        code: Its exit code.
        lines: What it printed to standard output.
        errors: What it printed to standard error.
    """

    code: int
    lines: list[str]
    errors: list[str]

    @property
    def echoed(self) -> list[str]:
        """The messages that came back, in the order of the groups, with their sequences."""
        found = [re.fullmatch(r"(\d+: .*)  \(\d+\.\d\d ms\)", line) for line in self.lines]
        return sorted(match[1] for match in found if match)

    @property
    def summary(self) -> str:
        """The last line."""
        return self.lines[-1]


def outcome(process: Child, timeout: float = LINE_TIMEOUT) -> Outcome:
    """Waits for the end of a program."""
    code = process.wait_ended(timeout)
    with shows_output_of(process):
        assert "Traceback" not in process.output
    return Outcome(code, process.lines, process.errors)


def run_clients(*runs: list[str], environment: Mapping[str, str] | None = None) -> list[Outcome]:
    """Runs several clients at once, each with its options, and waits for all of them."""
    with ExitStack() as stack:
        started = [stack.enter_context(running_client(*options, environment=environment)) for options in runs]
        return [outcome(process) for process in started]


def run_client(*options: str, environment: Mapping[str, str] | None = None) -> Outcome:
    """Runs one client to its end."""
    return run_clients(list(options), environment=environment)[0]
