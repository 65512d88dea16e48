"""The names of the loggers: each module logs below `moqt_trio`, under its own name."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import moqt_trio

ROOT = Path(moqt_trio.__file__).parents[1]
MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for path in sorted((ROOT / "moqt_trio").rglob("*.py"))
}

OTHERS = {
    "'quic'": {"moqt_trio.transport.quic.aioquic.engine"},
    "_ERROR_LOG": {"moqt_trio.http.settings"},
    "_name": {"moqt_trio.http.http2"},
}
"""Loggers that are not a module's own: aioquic's, the one that hypercorn is given for its errors, and hpack's, which
are filtered."""


def parse(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def uses_logger(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "logger" for node in ast.walk(tree))


LOGGING = [name for name in MODULES if uses_logger(parse(name))]


@pytest.mark.parametrize("name", LOGGING)
def test_each_module_has_a_logger_of_its_own(name):
    """A module that logs has the line `logger = logging.getLogger(__name__)`, so that `moqt_trio` is the logger above
    it."""
    [line] = [
        ast.unparse(node)
        for node in parse(name).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "logger"
    ]
    assert line == "logger = logging.getLogger(__name__)"
    assert importlib.import_module(name).logger.name == name


def test_no_other_loggers():
    """No module gets another logger, but for those, or takes the one of another module."""
    found = {}
    for name in MODULES:
        for node in ast.walk(parse(name)):
            if isinstance(node, ast.ImportFrom):
                assert "logger" not in [alias.name for alias in node.names], name
                assert node.module != "logging", name
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger":
                found.setdefault(ast.unparse(node.args[0]), set()).add(name)
    assert found == {"__name__": set(LOGGING), **OTHERS}
