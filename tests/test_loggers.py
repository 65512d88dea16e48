"""The names of the loggers: each module logs below `moqt_trio`, under its own name."""

from __future__ import annotations

import ast
import importlib
import logging
from pathlib import Path
from unittest.mock import Mock

import pytest

import moqt_trio
from moqt_trio.loggers import Logger

ROOT = Path(moqt_trio.__file__).parents[1]
MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for path in sorted((ROOT / "moqt_trio").rglob("*.py"))
}

OTHERS = {
    "name": {"moqt_trio.loggers"},
    "'quic'": {"moqt_trio.transport.quic.aioquic.engine"},
    "_ERROR_LOG": {"moqt_trio.http.settings"},
    "_name": {"moqt_trio.http.http2"},
}
"""Where loggers are got: for every module, and those that are not a module's own: aioquic's, the one that hypercorn is
given for its errors, and hpack's, which are filtered."""


def parse(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def uses_logger(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "logger" for node in ast.walk(tree))


LOGGING = [name for name in MODULES if uses_logger(parse(name))]


@pytest.mark.parametrize("name", LOGGING)
def test_each_module_has_a_logger_of_its_own(name):
    """A module that logs has the line `logger = Logger(__name__)`, so that `moqt_trio` is the logger above it and a
    handler that raises fails nothing."""
    [line] = [
        ast.unparse(node)
        for node in parse(name).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "logger"
    ]
    assert line == "logger = Logger(__name__)"
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
    assert found == OTHERS


def test_where_it_was_logged(caplog):
    """A record names the line that logged it, by whichever method."""
    logger = Logger("moqt_trio.somewhere")
    with caplog.at_level(logging.DEBUG, "moqt_trio"):
        logger.debug("a %s", "b")
        logger.log(logging.INFO, "c")
        try:
            raise ValueError
        except ValueError:
            logger.exception("d")
    assert [record.getMessage() for record in caplog.records] == ["a b", "c", "d"]
    assert {(record.name, record.filename) for record in caplog.records} == {("moqt_trio.somewhere", "test_loggers.py")}
    assert len({record.lineno for record in caplog.records}) == 3
    assert caplog.records[2].exc_info is not None


@pytest.mark.parametrize("wanted", [True, False])
def test_a_handler_that_raises(wanted, monkeypatch, capsys):
    """What a handler raises is printed, and only where `logging.raiseExceptions` asks for it; Ctrl-C passes."""
    monkeypatch.setattr(logging, "raiseExceptions", wanted)
    logger = Logger("moqt_trio.somewhere")
    handler = logging.Handler()
    logger.logger.addHandler(handler)
    try:
        handler.emit = Mock(side_effect=OSError("no room"))
        logger.warning("a")
        assert ("OSError: no room" in capsys.readouterr().err) is wanted
        handler.emit = Mock(side_effect=KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            logger.warning("a")
        monkeypatch.setattr("sys.stderr", None)
        handler.emit = Mock(side_effect=OSError("no room"))
        logger.warning("a")
    finally:
        logger.logger.removeHandler(handler)
