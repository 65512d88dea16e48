"""The example's README says what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from apps.echo import client, server
from apps.echo.options import client_parser, server_parser

HERE = Path(client.__file__).parent
TEXT = (HERE / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Returns what stands below a heading."""
    return TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_links():
    """Each link leads to a file, and each module of the example has one."""
    targets = re.findall(r"\]\(([^)#\s]+)\)", TEXT)
    assert [target for target in targets if not (HERE / target).exists()] == []
    assert {path.name for path in HERE.glob("*.py")} - {"__init__.py"} <= set(targets)


@pytest.mark.parametrize(("title", "parser"), [("client", client_parser()), ("server", server_parser())])
def test_flags(title, parser):
    """It lists the flags that the program has, and each exit code of `--help`."""
    listed = section(f"Flags of the {title}")
    flags = set(re.findall(r"--[a-z-]+", parser.format_usage()))
    assert set(re.findall(r"`(--[a-z-]+)`", listed)) == flags
    codes = re.findall(r"\b\d+\b", parser.epilog.partition("exit codes: ")[2])
    assert re.findall(r"[:;] (\d+) ", listed.partition("Exit codes")[2].partition(". ")[0]) == codes


def test_names():
    """Each name that the reader is sent to exists."""
    for row in section("Read it").splitlines():
        if row.startswith("| ") and row.count("|") == 4 and "subject" not in row:
            for module, cell in ((server, row.split("|")[2]), (client, row.split("|")[3])):
                for name in re.findall(r"`(\w+)`", cell):
                    if name != "stay_connected":
                        assert hasattr(module, name), name
