"""The layers of `docs/topics/architecture.md`, checked by reading every import; nothing is run or imported here."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]

BASE = {"arguments", "block", "errors", "codes", "limits", "loggers", "path", "frame", "url", "varint", "tasks"}
BASE |= {"access", "lease", "patterns", "timeouts"}
"""The modules of layer 0. They may import each other, one way."""

CLIENT = {"base", "certificates", "wire", "protocol", "session"} | {
    f"transport{package}" for package in ("", ".quic", ".quic.aioquic", ".http3", ".webtransport")
}

BELOW = {
    "base": set(),
    "wire": {"base"},
    "certificates": {"base"},
    "protocol": {"base", "wire"},
    "transport": {"base"},
    "transport.quic": {"base", "transport"},
    "transport.quic.aioquic": {"base", "transport", "transport.quic"},
    "transport.http3": {"base", "transport"},
    "transport.webtransport": {"base", "transport", "transport.http3"},
    "model": {"base"},
    "session": {"base", "wire", "protocol", "model", "transport"},
    "session.publisher": {"base", "wire", "protocol", "model", "transport", "session"},
    "session.subscriber": {"base", "wire", "protocol", "model", "transport", "session"},
    "http": {"base", "certificates", "transport", "transport.http3"},
    "client": CLIENT,
    "server": CLIENT | {"http"},
    "relay": {"base", "wire", "certificates", "protocol", "model", "session", "session.publisher", "session.subscriber"}
    | {"transport", "client"},
    "workers": {"base", "certificates", "client", "server", "relay", "session", "transport", "transport.quic"},
    "public": {"base", "wire", "certificates", "model", "session", "session.publisher", "session.subscriber"}
    | {"transport", "http", "client", "server", "relay", "workers"},
    "auth": {"public", "base", "certificates"},
    "testing": {"public", "base", "wire", "session", "client", "server", "transport"},
    "cli": {"public", "base", "certificates"},
    "apps": {"public"},
}
"""What the modules of each package may import, besides each other.

`public` is `moqt_trio/__init__.py`. A package's name here covers its own files and those of its packages that are not
named themselves. The two halves of a session do not know each other; what assembles a session (`ASSEMBLY`) knows both.
"""

ASSEMBLY = {"moqt_trio.session.session", "moqt_trio.session.run"}

ELSEWHERE = {"moqt_trio.certificates.__main__": "cli", "moqt_trio.session.__init__": "session"}
"""Modules that stand in another package's folder: `python -m moqt_trio.certificates` is a command."""

TESTING_MAY = {
    "moqt_trio.transport.connection",
    "moqt_trio.transport.link",
    "moqt_trio.transport.memory",
    "moqt_trio.transport.quic.settings",
}
"""What `moqt_trio.testing` may import of the transports: the one in memory, and the types that it stands in for."""

THIRD_PARTIES = {
    "base": {"attrs", "trio", "idna", "sniffio"},
    "wire": {"attrs"},
    "certificates": {"attrs", "cryptography"},
    "protocol": {"attrs"},
    "transport": {"attrs", "trio"},
    "transport.quic": {"attrs", "trio", "cryptography"},
    "transport.quic.aioquic": {"attrs", "cryptography", "aioquic"},
    "transport.http3": {"attrs", "trio", "aioquic", "pylsqpack"},
    "transport.webtransport": {"attrs", "trio", "http_sf"},
    "model": {"attrs", "trio"},
    "session": {"attrs", "trio"},
    "session.publisher": {"attrs", "trio"},
    "session.subscriber": {"attrs", "trio"},
    "http": {"attrs", "trio", "hypercorn", "trio_asyncio"},
    "client": {"attrs", "trio"},
    "server": {"attrs", "trio"},
    "relay": {"attrs", "trio"},
    "workers": {"attrs", "trio"},
    "public": set(),
    "auth": {"attrs", "trio", "httpx", "joserfc"},
    "testing": {"attrs", "trio"},
    "cli": {"attrs", "cryptography"},
    "apps": {"attrs", "trio"},
}
"""What each package may import from other projects: `wire` and `protocol` know no event loop."""

TRIO_IN_BASE = {f"moqt_trio.{name}" for name in ("block", "errors", "lease", "tasks", "timeouts")}
"""The modules of layer 0 that import trio: for a base class of an exception, nurseries, blocks, leases and timeouts."""

FILES_OF = {
    "aioquic": {
        "moqt_trio.transport.quic.aioquic.authentication",
        "moqt_trio.transport.quic.aioquic.brief",
        "moqt_trio.transport.quic.aioquic.connection_ids",
        "moqt_trio.transport.quic.aioquic.endings",
        "moqt_trio.transport.quic.aioquic.engine",
        "moqt_trio.transport.quic.aioquic.handlers",
        "moqt_trio.transport.quic.aioquic.making",
        "moqt_trio.transport.quic.aioquic.pacer",
        "moqt_trio.transport.quic.aioquic.packets",
        "moqt_trio.transport.quic.aioquic.patched",
        "moqt_trio.transport.quic.aioquic.path_mtu",
        "moqt_trio.transport.quic.aioquic.peer_frames",
        "moqt_trio.transport.quic.aioquic.quiet",
        "moqt_trio.transport.quic.aioquic.reordering",
        "moqt_trio.transport.quic.aioquic.reset_at",
        "moqt_trio.transport.quic.aioquic.senders",
        "moqt_trio.transport.quic.aioquic.signatures",
        "moqt_trio.transport.quic.aioquic.streams",
        "moqt_trio.transport.http3.codec",
    },
    "pylsqpack": {"moqt_trio.transport.http3.codec"},
    "httpx": {"moqt_trio.auth.client"},
    "idna": {"moqt_trio.url"},
    "joserfc": {"moqt_trio.auth.keys"},
    "http_sf": {"moqt_trio.transport.webtransport.subprotocols"},
    "trio_asyncio": {"moqt_trio.http.asyncio_app"},
    "hypercorn": {
        "moqt_trio.http.asgi",
        "moqt_trio.http.asyncio_app",
        "moqt_trio.http.disconnect",
        "moqt_trio.http.messages",
        "moqt_trio.http.http2",
        "moqt_trio.http.lifespan",
        "moqt_trio.http.server",
        "moqt_trio.http.settings",
    },
}
"""Where a library may be imported that others should not lean on; what is private in it has a contract test."""

EVENT_LOOPS_AND_CLOCKS = {"asyncio", "socket", "threading", "time", "datetime", "random", "secrets"}

SERVERS = {f"moqt_trio.session.publisher.{kind}" for kind in ("announce", "subscribe", "fetch", "track", "probe")}
"""One server for each kind of request of the peer: none of them imports another."""


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
    """Returns the package that a module of ours belongs to, as `BELOW` names it."""
    if module in ELSEWHERE:
        return ELSEWHERE[module]
    top, _, rest = module.partition(".")
    if top == "apps":
        return "apps"
    if not rest:
        return "public"
    if rest in BASE:
        return "base"
    while rest not in BELOW:
        rest, _, left = rest.rpartition(".")
        assert rest, f"{module} is in no package of the table (at {left})"
    return rest


def top_of(module: str) -> str:
    return module.partition(".")[0]


def is_ours(module: str) -> bool:
    return top_of(module) in ("moqt_trio", "apps")


def is_allowed(each: Import) -> bool:
    part, target_part = part_of(each.importer), part_of(each.target)
    if each.importer in ASSEMBLY and target_part.startswith("session."):
        return True
    if part == "testing" and target_part.startswith("transport"):
        return each.target in TESTING_MAY
    return part == target_part or target_part in BELOW[part]


def shown(imports: list[Import]) -> str:
    return "\n".join(map(str, imports))


def test_something_was_read():
    """The source was found: an empty list would satisfy every rule below."""
    assert {"moqt_trio", "moqt_trio.errors", "moqt_trio.transport.memory"} <= MODULES
    assert {each.target for each in IMPORTS} >= {"attrs", "trio", "moqt_trio.errors"}


def test_layers():
    """A module of ours imports from its own package and from what is listed for it, also for a type checker only."""
    wrong = [each for each in IMPORTS if is_ours(each.target) and not is_allowed(each)]
    assert not wrong, shown(wrong)


def test_servers_do_not_know_each_other():
    """A server of one kind of request imports no server of another kind."""
    wrong = [each for each in IMPORTS if each.importer in SERVERS and each.target in SERVERS - {each.importer}]
    assert not wrong, shown(wrong)
    assert SERVERS <= MODULES


def test_every_name_is_a_module():
    """An import of ours names a module that exists."""
    wrong = [each for each in IMPORTS if is_ours(each.target) and each.target not in MODULES]
    assert not wrong, shown(wrong)


def test_third_parties():
    """Each package imports only the libraries that are listed for it."""
    wrong = [
        each
        for each in IMPORTS
        if not is_ours(each.target)
        and top_of(each.target) not in sys.stdlib_module_names | THIRD_PARTIES[part_of(each.importer)]
    ]
    assert not wrong, shown(wrong)


def test_trio_in_the_lowest_layer():
    """Of layer 0, only the modules that are listed import trio."""
    users = {each.importer for each in IMPORTS if top_of(each.target) == "trio" and part_of(each.importer) == "base"}
    assert users <= TRIO_IN_BASE


def test_sans_io():
    """`wire` and `protocol` take the time and randomness as parameters, and do no I/O."""
    wrong = [
        each
        for each in IMPORTS
        if part_of(each.importer) in ("wire", "protocol") and top_of(each.target) in EVENT_LOOPS_AND_CLOCKS
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


def test_no_circles():
    """No module needs itself, directly or by others, not even where only a type checker looks."""
    needs: dict[str, set[str]] = {module: set() for module in MODULES}
    for each in IMPORTS:
        if each.target in MODULES:
            needs[each.importer].add(each.target)
    while free := [module for module, targets in needs.items() if not targets & needs.keys()]:
        for module in free:
            del needs[module]
    assert not needs, {module: sorted(targets & needs.keys()) for module, targets in needs.items()}


LONGEST = 500
SHORTEST = 60
SHORT_FILES: dict[str, str] = {
    "moqt_trio.client.backoff": "a subject of its own: a public value that the reconnect loop is given",
    "moqt_trio.frame": "an interface: the one type that passes from the decoder to the application",
    "moqt_trio.auth.authority": "an interface: what authorities ask of a request, and how they refuse",
    "moqt_trio.auth.public": "a subject of its own, beside the authority that verifies tokens",
    "moqt_trio.loggers": "a subject of its own, which every layer uses and none owns",
    "moqt_trio.http.asyncio_app": "trio_asyncio is imported in this file only",
    "moqt_trio.wire.ietf.codes": "a table of one subject, beside the other tables of the drafts",
    "moqt_trio.relay.frames": "a subject of its own: how frames are taken over, by pulls and by fetches",
    "moqt_trio.session.view": "an interface: what a relay implements, as the sessions know it",
    "moqt_trio.session.statistics": "an interface: public values that both halves of a session fill in",
    "moqt_trio.protocol.goaway": "a subject that has its file beside the other kinds of streams",
    "moqt_trio.transport.quic.aioquic.connection_ids": "aioquic's connection ids, apart from its connection",
    "moqt_trio.transport.quic.aioquic.handlers": "aioquic's table of frames, apart from its connection",
    "moqt_trio.transport.quic.aioquic.quiet": "aioquic's logger, apart from its connection",
    "moqt_trio.transport.quic.aioquic.signatures": "aioquic's TLS context, apart from its connection",
    "moqt_trio.transport.quic.owner": "an interface: of listeners and connection attempts, for their connections",
    "moqt_trio.session.setup": "a subject that has its file on every layer",
    "moqt_trio.session.goaway": "a subject that has its file on every layer",
    "moqt_trio.session.publisher.track": "a subject that has its file on every layer",
    "moqt_trio.transport.http3.constants": "the wire's numbers, for files on both sides that share nothing else",
    "moqt_trio.transport.http3.fields": "a header section, for both sides of a request and for ASGI, without a codec",
    "moqt_trio.transport.stream": "an interface: both halves in one stream; the halves do not import each other",
}
"""Files under `SHORTEST` lines, each with its reason."""


def lines_of(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_long_files():
    """A file has at most 500 lines."""
    wrong = {name_of(path): lines_of(path) for path in PATHS if lines_of(path) > LONGEST}
    assert not wrong, wrong


def test_short_files_have_a_reason():
    """A file of a few lines has a reason: an interface, a library in its own file, or a subject on every layer."""
    short = {
        name_of(path)
        for path in PATHS
        if path.name not in ("__init__.py", "__main__.py")
        and path.relative_to(ROOT).parts[0] == "moqt_trio"
        and lines_of(path) < SHORTEST
    }
    assert short == set(SHORT_FILES), sorted(short ^ set(SHORT_FILES))


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
            ("from . import buffer", "moqt_trio.wire.buffer"),
            ("from .buffer import Reader", "moqt_trio.wire.buffer"),
            ("from moqt_trio.wire import buffer", "moqt_trio.wire.buffer"),
            ("def f():\n    import trio", "trio"),
        ],
    )
    def test_forms(self, tmp_path, monkeypatch, source, target):
        """Each way to write an import gives the absolute name of the module."""
        assert self.read(tmp_path, monkeypatch, source) == {(target, False)}

    def test_package(self, tmp_path, monkeypatch):
        """In a package's own file one dot means the package."""
        found = self.read(tmp_path, monkeypatch, "from . import buffer", "moqt_trio/wire/__init__.py")
        assert found == {("moqt_trio.wire.buffer", False)}

    def test_typing_only(self, tmp_path, monkeypatch):
        """An import under TYPE_CHECKING is read, and marked."""
        source = "if TYPE_CHECKING:\n    import trio\nelse:\n    import attrs"
        assert self.read(tmp_path, monkeypatch, source) == {("trio", True), ("attrs", False)}
