"""The code in the README and in the documentation runs as printed.

A Python block below the comment `<!-- run -->` is a program: it runs in a process of its own, has to end by itself
with exit code 0 and without a warning, and prints what the next block says, if that one is below `<!-- prints -->`.
A block below `<!-- test -->` is a file for pytest, whose tests pass. One below `<!-- serve -->` is a server: it runs
until SIGTERM, and goes on at SIGHUP. Commands below `<!-- shell -->` succeed. Other Python blocks are pieces of
programs: they run on the stage of `doc_stage.py`.
"""

from __future__ import annotations

import base64
import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import NamedTuple

import attrs
import pytest

import moqt_trio
import moqt_trio.auth
import moqt_trio.testing
from tests.doc_stage import prepared, run_piece, stage
from tests.doc_tables import code_rows, limit_rows, table_rows

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TIMEOUT = 60.0
"""Seconds that a program of the documentation has to end."""

_FENCE = re.compile(r"^(?:<!-- (\w+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    page: Path
    line: int
    mark: str | None
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2], match[3])
        for match in _FENCE.finditer(text)
    ]


BLOCKS = [block for page in PAGES for block in read_blocks(page)]
PROGRAMS = [block for block in BLOCKS if (block.language, block.mark) == ("python", "run")]
TESTS = [block for block in BLOCKS if block.mark == "test"]
SERVERS = [block for block in BLOCKS if block.mark == "serve"]
COMMANDS = [block for block in BLOCKS if block.mark == "shell"]
FRAGMENTS = [block for block in BLOCKS if (block.language, block.mark) == ("python", None)]


def expected_output(program: Block) -> str | None:
    """Returns what the documentation says that a program prints, or None when it does not say."""
    following = BLOCKS[BLOCKS.index(program) + 1 :][:1]
    return following[0].text if following and following[0].mark == "prints" else None


def test_programs_were_found():
    """The README shows a program, and so does the guide."""
    assert {program.page.name for program in PROGRAMS} >= {"README.md", "embed-in-trio.md"}


def test_marks_are_known():
    """No block is left out because its mark is misspelt."""
    assert {block.mark for block in BLOCKS} <= {None, "run", "prints", "test", "serve", "shell"}


def run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the documentation in a folder until it ends, with the library of this tree."""
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_program(program, tmp_path):
    """A program of the documentation ends by itself, without a warning, and prints what the page says."""
    script = tmp_path / "program.py"
    script.write_text(program.text)
    result = run([sys.executable, "-W", "error", str(script)], tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    expected = expected_output(program)
    if expected is not None:
        assert result.stdout == expected


@pytest.mark.parametrize("page", TESTS, ids=str)
def test_tests(page, tmp_path):
    """The tests that a page shows pass, in a process of their own."""
    (tmp_path / "test_page.py").write_text(page.text)
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-o", "trio_mode=true", "-p", "no:cacheprovider"]
    result = run([*command, "test_page.py"], tmp_path)
    assert result.returncode == 0, result.stdout
    assert "passed" in result.stdout


@pytest.mark.parametrize("commands", COMMANDS, ids=str)
def test_commands(commands, tmp_path):
    """The commands of a page succeed, with a certificate in the file that they name."""
    (tmp_path / "server.crt").write_bytes(moqt_trio.development_certificate().certificate_pem())
    moqt_trio.DevelopmentCertificates().current()
    script = 'python() { "$PYTHON" "$@"; }\n' + commands.text
    result = run(["bash", "-e", "-c", script], tmp_path, PYTHON=sys.executable)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("server", SERVERS, ids=str)
def test_server(server, tmp_path):
    """A server of the documentation reads its certificate again at SIGHUP, and ends by SIGTERM with exit code 0."""
    certificate = moqt_trio.development_certificate()
    certfile, keyfile = tmp_path / "server.crt", tmp_path / "server.key"
    certfile.write_bytes(certificate.certificate_pem())
    keyfile.write_bytes(certificate.private_key_pem())
    script = tmp_path / "server.py"
    script.write_text(server.text)
    command = [sys.executable, "-W", "error", str(script), "0", str(certfile), str(keyfile)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        guard = threading.Timer(TIMEOUT, process.kill)
        guard.start()
        try:
            assert process.stdout is not None
            printed = process.stdout.readline()
            process.send_signal(signal.SIGHUP)
            printed += process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            printed += process.stdout.read()
            assert process.wait() == 0
        finally:
            guard.cancel()
            process.kill()
    assert printed == expected_output(server)


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=str)
async def test_fragment(fragment, tmp_path, monkeypatch):
    """A piece of a program runs, with the objects that its page takes for granted."""
    monkeypatch.setenv("MOQT_RESET_KEY", base64.b64encode(bytes(32)).decode())
    certificate = moqt_trio.development_certificate()
    for name in ("fullchain.pem", "clients.crt", "edge-7.crt"):
        (tmp_path / name).write_bytes(certificate.certificate_pem())
    for name in ("privkey.pem", "edge-7.key"):
        (tmp_path / name).write_bytes(certificate.private_key_pem())
    async with stage() as names:
        await run_piece(prepared(fragment.text, tmp_path), str(fragment), names)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("subscription.droped", AttributeError),
        ('await session.subscribe("room/alice", "video")', TypeError),
        ("async def read(session): await session.probed()", AttributeError),
    ],
)
async def test_a_fragment_that_is_wrong(text, error):
    """A mistake in a piece is an error, also within a function that it defines."""
    with pytest.RaisesGroup(error, allow_unwrapped=True, flatten_subgroups=True):
        async with stage() as names:
            await run_piece(text, "a page", names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page):
    """Each link to a file of this repository leads somewhere."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not broken


def test_twenty_lines():
    """The README's first program is no longer than twenty lines of code."""
    program = next(program for program in PROGRAMS if program.page.name == "README.md")
    lines = [line for line in program.text.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(lines) <= 20


def test_make_targets():
    """Every `make` command that the documentation names exists."""
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    pages = [*PAGES, ROOT / "CONTRIBUTING.md"]
    named = {name for page in pages for name in re.findall(r"`?make ([a-z]+)`", page.read_text(encoding="utf-8"))}
    assert named <= targets


def test_navigation():
    """Every page of the documentation is in its navigation."""
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES[1:]]
    assert [page for page in pages if page not in navigation] == []


def test_changelog_names_the_version():
    """The changelog has a section for the version that is built."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_reference_is_complete():
    """Every public name is in the reference."""
    reference = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.parent.name == "reference")
    described = set(re.findall(r"^::: moqt_trio\.([\w.]+)$", reference, re.MULTILINE))
    packages = {"auth": moqt_trio.auth, "testing": moqt_trio.testing}
    others = {f"{package}.{name}" for package, module in packages.items() for name in module.__all__}
    assert described == (set(moqt_trio.__all__) - {"__version__"}) | others


# -- the reference ---------------------------------------------------------------------------------------------

REFERENCE = ROOT / "docs" / "reference"


def limits_of_the_page(page: str) -> list[tuple[str, ...]]:
    """Returns name, default and meaning of each row, which has a fourth cell that is not empty."""
    rows = table_rows(page)
    assert [row[0] for row in rows if len(row) != 4 or not row[3]] == []
    return [row[:3] for row in rows]


def test_table_of_limits():
    """The table has every bound in the source's order, with its default, its unit and what it bounds."""
    assert limits_of_the_page((REFERENCE / "limits.md").read_text()) == limit_rows()


def test_page_on_reliability():
    """Each test that the page names exists, and each bound."""
    text = (ROOT / "docs" / "topics" / "reliability.md").read_text()
    named = re.findall(r"`([a-z_/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 50
    for file, function in named:
        source = (ROOT / "tests" / file).read_text()
        assert not function or re.search(rf"^(async )?def {function}\(", source, re.MULTILINE), (file, function)
    # A word in code font is a bound, but for errors.
    words = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text))
    assert words <= {field.name for field in attrs.fields(moqt_trio.Limits)}
    assert len(words) > 20


def test_tables_of_codes():
    """The tables have every code, with its number and its meaning."""
    expected = [*code_rows(moqt_trio.SessionCode), *code_rows(moqt_trio.StreamCode)]
    assert table_rows((REFERENCE / "errors.md").read_text()) == expected


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("| 64 KiB | Bytes of one control", "| 65 KiB | Bytes of one control"),
        ("| 10 s | Seconds that a client", "| 10 | Seconds that a client"),
        ("`max_gaps`", "`max_holes`"),
        ("Bytes of one frame", "Bits of one frame"),
    ],
)
def test_a_table_that_drifts(before, after):
    """Another default, unit, name or meaning is noticed, and so is a bound that the table lacks."""
    page = (REFERENCE / "limits.md").read_text()
    assert before in page
    assert limits_of_the_page(page.replace(before, after, 1)) != limit_rows()
    assert limits_of_the_page(re.sub(rf"^.*{re.escape(before)}.*\n", "", page, flags=re.MULTILINE)) != limit_rows()


def test_what_a_block_returns():
    """The extension that shows blocks as such is there, and is used: without it `connect` looks like a generator."""
    assert "extensions: [./mkdocs_blocks.py]" in (ROOT / "mkdocs.yml").read_text()
    assert (ROOT / "mkdocs_blocks.py").is_file()


def constructors() -> list[str]:
    """Returns the classes whose constructor the reference shows."""
    assert "merge_init_into_class: false" in (ROOT / "mkdocs.yml").read_text()
    shown = r"^::: moqt_trio\.(\w+)\n    options:\n      merge_init_into_class: true$"
    pages = "".join(page.read_text(encoding="utf-8") for page in REFERENCE.glob("*.md"))
    return re.findall(shown, pages, re.MULTILINE)


def test_constructors():
    """The reference shows a constructor where programs make an object, and for no class that the library makes."""
    public = set(moqt_trio.__all__) | {"str", "int", "float", "bool", "bytes", "bytearray", "None", "tuple", "object"}
    public |= {"os", "PathLike", "Callable", "Mapping", "Sequence"}
    assert {"Broadcast", "Router"} <= set(constructors())
    for name in constructors():
        signature = inspect.signature(getattr(moqt_trio, name))
        named = {word for each in signature.parameters.values() for word in re.findall(r"[A-Za-z]+", each.annotation)}
        assert named <= public, name
