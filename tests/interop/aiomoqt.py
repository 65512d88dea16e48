"""The aiomoqt package, which is asyncio on picoquic, in processes of its own.

It shares no line with this project, and needs a later Python than it: `make peers` installs it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from tests.interop.processes import Child, other_program

_ENVIRONMENT = Path(sys.prefix) / "peers"
PYTHON = _ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

needs_aiomoqt = pytest.mark.skipif(
    not any(_ENVIRONMENT.glob("**/site-packages/aiomoqt/__init__.py")),
    reason="aiomoqt is not installed: run `make peers`",
)

DRAFTS = [14, 16, 18, 20, 22]
SCHEMES = ["moqt", "https"]
TRANSPORTS = {"moqt": "quic", "https": "webtransport-h3"}
"""What aiomoqt calls the transport of each scheme."""


@attrs.frozen
class Table:
    """The server of `moqt_table_server.py`.

    Attributes:
        child: Its process.
        port: Where it listens, for both transports and every version.
    """

    child: Child
    port: int

    def url(self, scheme: str) -> str:
        """Returns its URL."""
        return f"{scheme}://127.0.0.1:{self.port}"


@contextmanager
def table_server() -> Iterator[Table]:
    """Runs the server."""
    with Child("-m", "tests.peers.moqt_table_server") as child:
        yield Table(child, child.wait_event("listening")["port"])
        child.end_input()
        assert child.wait_ended() == 0


@attrs.frozen
class Case:
    """One run of the interop client.

    Attributes:
        draft: The only draft that it offers.
        scheme: `moqt` or `https`.
        name: The case.
    """

    draft: int
    scheme: str
    name: str

    def __str__(self) -> str:
        return f"{self.draft}-{self.scheme}-{self.name}"


@attrs.frozen
class Outcome:
    """What the interop client reported of a case.

    Attributes:
        verdict: `ok` or `not ok`, and what follows the name: `# SKIP`, with the reason, or `# COMPAT`.
        message: Its message.
        spoken: The draft and the transport of each of its sessions, as it found them.
        output: Everything that it printed.
    """

    verdict: str
    message: str
    spoken: set[tuple[str, str]]
    output: str


CASE_SECONDS = 60.0
"""Seconds for one case; the client's own deadlines are of up to 15."""

_RESULT = re.compile(r"(ok|not ok) 1 - \S+ ?(.*)")


def run_case(table: Table, case: Case) -> Outcome:
    """Runs the client, and reads the result in its output, which is TAP 14."""
    module = "aiomoqt.tools.moq_interop_client"
    arguments = ["-m", module, "-r", table.url(case.scheme), "--draft", str(case.draft), "--tls-disable-verify"]
    # All clients share the table, and the names of their cases are the same within a second.
    prefix = f"{case.draft}/{case.scheme}"
    with other_program(str(PYTHON), *arguments, "-t", case.name, "--namespace-prefix", prefix) as client:
        client.wait_ended(CASE_SECONDS)
        output, lines = client.output, [line.strip() for line in client.lines]
    result = next((match for line in lines if (match := _RESULT.fullmatch(line))), None)
    assert result is not None, output
    fields = [line.partition(": ")[::2] for line in lines]
    versions = [text.strip('"') for key, text in fields if key == "moqt_version"]
    transports = [text.strip('"') for key, text in fields if key == "transport"]
    message = next((text.strip('"') for key, text in fields if key == "message"), "")
    verdict = f"{result[1]} {result[2]}".strip()
    return Outcome(verdict, message, set(zip(versions, transports, strict=True)), output)
