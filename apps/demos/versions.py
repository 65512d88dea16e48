"""The echo on every wire version over both transports, as a table: what `make echo-all` runs.

It is also a command, `python -m apps.demos.versions`. One server offers every version; the client of each cell offers
one, so that each cell is a version negotiation, too. The errors of the cells that failed follow the table.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence

import attrs

import moqt_trio as moqt

from .. import EXIT_INTERRUPTED, raise_on_interrupt
from ..echo.options import parse_count, parse_versions
from . import processes
from .processes import ProcessFailed, choose_port, running_server, url

EXIT_FAILED = 1

_DEFAULT_COUNT = 10
_INTERVAL = "0.02"
"""Seconds from one message to the next: each comes back before the next one leaves, so none waits for another."""
_LAST_LINES = 5
"""The last lines of a failed client's standard error that are shown: the cause is among them."""
_WIDTHS = {"echoed": 9, "p50": 12}
_GAP = "   "

_EPILOG = """\
examples:
  python -m apps.demos.versions
  python -m apps.demos.versions --count 100 --versions moq-lite-06,gomoqt-develop

exit codes: 0 every message of every cell came back, 1 some did not,
2 wrong usage, 130 interrupted
"""


@attrs.frozen
class Cell:
    """The outcome of one version over one transport.

    Attributes:
        sent: Messages, each a group of one frame, that the client was asked to send.
        echoed: Those that came back unchanged.
        p50_ms: The median of their round trips in milliseconds; None when none came back.
        problem: Why it failed, in lines; empty when every message came back.
    """

    sent: int
    echoed: int = 0
    p50_ms: float | None = None
    problem: tuple[str, ...] = ()


def read_cell(count: int, code: int, output: str, errors: str) -> Cell:
    """Return the cell of a client that has ended, from what it printed.

    Args:
        count: Messages that it was asked to send.
        code: Its exit code.
        output: Its standard output; the last line is the count that it ends with.
        errors: Its standard error.
    """
    lines = output.splitlines() or [""]
    found = re.match(r"sent \d+, echoed (\d+), lost \d+(?:.* p50 (\d+\.\d+) ms)?", lines[-1])
    echoed = int(found[1]) if found else 0
    p50 = float(found[2]) if found and found[2] else None
    if code == 0 and echoed == count:
        return Cell(count, echoed, p50)
    said = tuple(line for line in errors.splitlines() if line.strip())[-_LAST_LINES:]
    return Cell(count, echoed, p50, (f"exit code {code}, {echoed} of {count} messages came back", *said))


def run_cell(version: str, scheme: str, port: int, count: int) -> Cell:
    """Run one client to its end."""
    command = [*processes.CLIENT, "--url", url(scheme, port), "--version", version]
    command += ["--count", str(count), "--interval", _INTERVAL]
    timeout = processes.CLIENT_TIMEOUT
    try:
        result = subprocess.run(command, timeout=timeout, check=False, capture_output=True, text=True)
    except subprocess.TimeoutExpired:
        return Cell(count, problem=(f"the client did not end within {timeout:.0f} seconds",))
    return read_cell(count, result.returncode, result.stdout, result.stderr)


def heading(versions: Sequence[str]) -> str:
    """Return the two lines above the table."""
    names = [name.rjust(sum(_WIDTHS.values())) for name in processes.TRANSPORTS.values()]
    units = "echoed".rjust(_WIDTHS["echoed"]) + "p50".rjust(_WIDTHS["p50"])
    return _line("", names, versions) + "\n" + _line("version", [units] * len(names), versions)


def row(version: str, cells: Sequence[Cell], versions: Sequence[str]) -> str:
    """Return the line of one version, aligned with the lines of all the versions."""
    return _line(version, [_columns(cell) for cell in cells], versions)


def _columns(cell: Cell) -> str:
    median = "failed" if cell.problem else "-" if cell.p50_ms is None else f"{cell.p50_ms:.2f} ms"
    return f"{cell.echoed}/{cell.sent}".rjust(_WIDTHS["echoed"]) + median.rjust(_WIDTHS["p50"])


def _line(first: str, rest: Sequence[str], versions: Sequence[str]) -> str:
    return _GAP.join([first.ljust(max(map(len, versions))), *rest]).rstrip()


def run(versions: Sequence[str], count: int) -> bool:
    """Run every cell, print the table row by row and then what went wrong; return True when no cell failed.

    Raises:
        ProcessFailed: The server failed, or took too long.
    """
    port = choose_port()
    problems: list[str] = []
    with running_server(port, "--versions", ",".join(versions), heard=lambda line: None):
        print(heading(versions), flush=True)
        for version in versions:
            cells = {scheme: run_cell(version, scheme, port, count) for scheme in processes.TRANSPORTS}
            print(row(version, list(cells.values()), versions), flush=True)
            for scheme, cell in cells.items():
                if cell.problem:
                    problems.append(f"{version} over {processes.TRANSPORTS[scheme]}:")
                    problems += [f"  {line}" for line in cell.problem]
    for line in problems:
        print(line, file=sys.stderr, flush=True)
    return not problems


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m apps.demos.versions",
        description="Runs the echo on each wire version over both transports, and prints for each how\n"
        "many messages came back and the median of the round trips.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--count",
        type=parse_count,
        default=_DEFAULT_COUNT,
        metavar="N",
        help="messages to send in each cell (default: %(default)s)",
    )
    parser.add_argument(
        "--versions",
        type=parse_versions,
        metavar="NAMES",
        help="the rows, with commas between (default: every version that there is)",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run every cell and return the exit code; see `--help`."""
    options = build_parser().parse_args(arguments)
    raise_on_interrupt()
    try:
        complete = run(options.versions or moqt.version_names(opt_in=True), options.count)
    except ProcessFailed as error:
        print(f"versions: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0 if complete else EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
