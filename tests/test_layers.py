"""The floors of `docs/topics/design.md`, enforced by reading every import; nothing is run or imported here."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

FLOOR_0 = {"errors", "codes", "limits", "path", "certificates", "pem"}

BELOW = {
    "floor 0": set(),
    "wire": {"floor 0"},
    "session": {"floor 0", "wire"},
    "transport": {"floor 0"},
    "model": {"floor 0"},
    "api": {"floor 0", "wire", "session", "transport", "model"},
    "front": {"floor 0", "wire", "session", "transport", "model", "api"},
    "testing": {"floor 0", "wire", "session", "transport", "model", "api", "front"},
    "apps": {"front"},
}
"""What each part of the source may import, besides itself. `front` is `moqt_trio/__init__.py`, the public names."""

THIRD_PARTIES = {
    "floor 0": {"attrs", "cryptography"},
    "wire": {"attrs"},
    "session": {"attrs"},
    "transport": {"attrs", "trio", "cryptography", "aioquic", "pylsqpack", "hypercorn", "http_sf"},
    "model": {"attrs", "trio"},
    "api": {"attrs", "trio", "trio_asyncio"},
    "front": set(),
    "testing": {"attrs", "trio"},
    "apps": {"attrs", "trio"},
}
"""What each part may import from other projects: the sans-IO floors know no event loop."""

FILES_OF = {
    "aioquic": {
        "moqt_trio.transport.quic.aioquic.engine",
        "moqt_trio.transport.quic.aioquic.patched",
        "moqt_trio.transport.quic.aioquic.packets",
        "moqt_trio.transport.http3.codec",
    },
    "trio_asyncio": {"moqt_trio.http.asyncio_app"},
    "hypercorn": {
        "moqt_trio.http.disconnect",
        "moqt_trio.http.http2",
        "moqt_trio.http.lifespan",
        "moqt_trio.http.server",
        "moqt_trio.http.settings",
        "moqt_trio.http.asgi",
        "moqt_trio.http.asgi_request",
        "moqt_trio.http.asgi_websocket",
    },
}
"""Where a library may be imported that others should not lean on; what is private in it has a contract test."""

EVENT_LOOPS_AND_CLOCKS = {"asyncio", "socket", "threading", "time", "datetime", "random", "secrets"}


class Import(NamedTuple):
    importer: str
    target: str
    line: int
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_imports(path: Path, modules: set[str]) -> Iterator[Import]:
    """Yields every import of a file, those inside functions and under TYPE_CHECKING too, by absolute name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    importer = name_of(path)
    package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            submodules = [f"{base}.{alias.name}" for alias in node.names]
            targets = [each if each in modules else base for each in submodules]
        else:
            continue
        for target in sorted(set(targets)):
            yield Import(importer, target, node.lineno, id(node) in typing_only)


PATHS = sorted(path for top in ("moqt_trio", "apps") for path in (ROOT / top).rglob("*.py"))
MODULES = {name_of(path) for path in PATHS}
IMPORTS = [each for path in PATHS for each in read_imports(path, MODULES)]


def part_of(module: str) -> str:
    """Returns the part of the source that a module of ours belongs to."""
    top, _, rest = module.partition(".")
    if top == "apps":
        return "apps"
    if not rest:
        return "front"
    name = rest.partition(".")[0]
    if name in FLOOR_0:
        return "floor 0"
    return name if name in BELOW else "api"


def top_of(module: str) -> str:
    return module.partition(".")[0]


def is_ours(module: str) -> bool:
    return top_of(module) in ("moqt_trio", "apps")


def is_allowed(part: str, target_part: str) -> bool:
    return part == target_part or target_part in BELOW[part]


def shown(imports: list[Import]) -> str:
    return "\n".join(map(str, imports))


def test_something_was_read():
    """The source was found: an empty list would satisfy every rule below."""
    assert {"moqt_trio", "moqt_trio.errors", "moqt_trio.transport.abc"} <= MODULES
    assert {each.target for each in IMPORTS} >= {"attrs", "trio", "moqt_trio.errors"}


def test_floors():
    """A module of ours imports from its own part and from lower floors, also where only a type checker looks."""
    wrong = [
        each
        for each in IMPORTS
        if is_ours(each.target) and not is_allowed(part_of(each.importer), part_of(each.target))
    ]
    assert not wrong, shown(wrong)


def test_every_name_is_a_module():
    """An import of ours names a module that exists."""
    wrong = [each for each in IMPORTS if is_ours(each.target) and each.target not in MODULES]
    assert not wrong, shown(wrong)


def test_third_parties():
    """Each part imports only the libraries that are listed for it; below the transports there is no event loop."""
    wrong = [
        each
        for each in IMPORTS
        if not is_ours(each.target)
        and top_of(each.target) not in sys.stdlib_module_names | THIRD_PARTIES[part_of(each.importer)]
    ]
    assert not wrong, shown(wrong)


def test_sans_io():
    """The wire and session floors take the time and randomness as parameters, and do no I/O."""
    wrong = [
        each
        for each in IMPORTS
        if part_of(each.importer) in ("wire", "session") and top_of(each.target) in EVENT_LOOPS_AND_CLOCKS
    ]
    assert not wrong, shown(wrong)


@pytest.mark.parametrize("library", FILES_OF)
def test_library_in_its_own_files(library):
    """A library of which private names are used stays in the files that are listed for it, and each of them uses it."""
    users = [each for each in IMPORTS if top_of(each.target) == library]
    wrong = [each for each in users if each.importer not in FILES_OF[library]]
    assert not wrong, shown(wrong)
    assert {each.importer for each in users} == FILES_OF[library]


def test_apps_use_public_names():
    """An application imports names from `moqt_trio` that it exports, and nothing from inside it."""
    front = ast.parse((ROOT / "moqt_trio" / "__init__.py").read_text(encoding="utf-8"))
    exported = {
        name.value
        for node in front.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        for name in ast.walk(node.value)
        if isinstance(name, ast.Constant)
    }
    wrong = []
    for path in sorted((ROOT / "apps").rglob("*.py")):
        aliases = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                aliases |= {alias.asname or alias.name for alias in node.names if alias.name == "moqt_trio"}
            elif isinstance(node, ast.ImportFrom) and node.module == "moqt_trio":
                wrong += [f"{name_of(path)}: {alias.name}" for alias in node.names if alias.name not in exported]
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in aliases
        }
        wrong += [f"{name_of(path)}: {name}" for name in sorted(used - exported)]
    assert not wrong, "\n".join(wrong)


def test_no_cycles():
    """No module needs itself to be imported first, directly or by others."""
    needs: dict[str, set[str]] = {module: set() for module in MODULES}
    for each in IMPORTS:
        if each.target in MODULES and not each.typing_only:
            needs[each.importer].add(each.target)
    while free := [module for module, targets in needs.items() if not targets & needs.keys()]:
        for module in free:
            del needs[module]
    assert not needs, {module: sorted(targets & needs.keys()) for module, targets in needs.items()}


class TestReading:
    """The reader of imports itself."""

    def read(self, tmp_path, monkeypatch, source, name="moqt_trio/wire/lite.py"):
        monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(source)
        known = {"moqt_trio.errors", "moqt_trio.wire.buffer", "moqt_trio.wire"}
        return {(each.target, each.typing_only) for each in read_imports(path, known)}

    @pytest.mark.parametrize(
        ("source", "target"),
        [
            ("import trio", "trio"),
            ("import trio.lowlevel as low", "trio.lowlevel"),
            ("from trio import sleep", "trio"),
            ("from ..errors import Malformed", "moqt_trio.errors"),
            ("from .. import errors", "moqt_trio.errors"),
            ("from . import cursor", "moqt_trio.wire.buffer"),
            ("from .cursor import Reader", "moqt_trio.wire.buffer"),
            ("from moqt_trio.wire import cursor", "moqt_trio.wire.buffer"),
            ("def f():\n    import trio", "trio"),
        ],
    )
    def test_forms(self, tmp_path, monkeypatch, source, target):
        """Each way to write an import gives the absolute name of the module."""
        assert self.read(tmp_path, monkeypatch, source) == {(target, False)}

    def test_package(self, tmp_path, monkeypatch):
        """In a package's own file one dot means the package."""
        found = self.read(tmp_path, monkeypatch, "from . import cursor", "moqt_trio/wire/__init__.py")
        assert found == {("moqt_trio.wire.buffer", False)}

    def test_typing_only(self, tmp_path, monkeypatch):
        """An import under TYPE_CHECKING is read, and marked."""
        source = "if TYPE_CHECKING:\n    import trio\nelse:\n    import attrs"
        assert self.read(tmp_path, monkeypatch, source) == {("trio", True), ("attrs", False)}
