"""What `moqt_trio` exports: every public name exists, is documented, and nothing else is public."""

from __future__ import annotations

import ast
import importlib
import importlib.resources
import inspect
import itertools
import pickle
import pkgutil
from pathlib import Path

import pytest

import moqt_trio

NAMES = sorted(moqt_trio.__all__)
DESIGNED = {
    "Announcement",
    "Broadcast",
    "BroadcastPath",
    "Certificate",
    "CertificateUnusable",
    "DevelopmentCertificates",
    "Frame",
    "GroupReader",
    "GroupWriter",
    "Limits",
    "Listener",
    "Router",
    "Session",
    "SessionCode",
    "SessionRequest",
    "StreamCode",
    "Subscription",
    "Track",
    "connect",
    "development_certificate",
    "serve",
}
ALIASES = {"CertificateSource", "SessionHandler"}
"""Names of types, which are no objects of their own."""
ERRORS = {
    "MoqtError",
    "ProtocolError",
    "LocalProtocolError",
    "GoingAway",
    "RemoteProtocolError",
    "Malformed",
    "LimitExceeded",
    "SessionClosed",
    "StreamReset",
    "ConnectError",
    "HandshakeFailed",
    "CertificateInvalid",
    "VersionUnsupported",
    "ConnectTimeout",
    "RedirectRefused",
    "Rejected",
    "Unauthorized",
    "NotFound",
}


def public_members(cls):
    """Yields the name and the documented object of each public method and property that a class itself defines."""
    for name, member in vars(cls).items():
        if name.startswith("_"):
            continue
        if isinstance(member, classmethod | staticmethod):
            yield name, member.__func__
        elif isinstance(member, property) or inspect.isfunction(member):
            yield name, member


def documented_assignments():
    """Returns the names that some module assigns and describes in a string right below: aliases and constants."""
    names = set()
    for path in Path(moqt_trio.__file__).parent.rglob("*.py"):
        for node, following in itertools.pairwise(ast.parse(path.read_text(encoding="utf-8")).body):
            described = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            if isinstance(node, ast.Assign | ast.AnnAssign) and described:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {ast.unparse(target) for target in targets}
    return names


def test_complete():
    """Every name of the designed API and the whole tree of errors are exported."""
    assert (DESIGNED | ERRORS) - set(NAMES) == set()


def test_nothing_else():
    """`dir` lists what is exported and nothing else, and what is not exported is not there."""
    assert dir(moqt_trio) == NAMES
    with pytest.raises(AttributeError, match="no attribute 'asyncio'"):
        _ = moqt_trio.asyncio


def test_imports_agree():
    """What a type checker sees imported, what is imported at run time and what is exported are the same."""
    tree = ast.parse(Path(moqt_trio.__file__).read_text(encoding="utf-8"))
    [seen] = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = {node.module: " ".join(name.name for name in node.names) for node in seen.body}
    assert imports == moqt_trio._HOMES
    assert sorted(" ".join(imports.values()).split()) == NAMES


def test_listed_once():
    """No name is listed twice."""
    assert len(moqt_trio.__all__) == len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_documented(name):
    """Each public name has a docstring of its own, and so has each public method and property that it defines."""
    value = getattr(moqt_trio, name)
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        assert name == "__version__" or name in documented_assignments()
        return
    own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert (own or "").strip(), name
    if inspect.isclass(value):
        missing = [member for member, documented in public_members(value) if not inspect.getdoc(documented)]
        assert not missing, missing


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ALIASES])
def test_home(name):
    """A public class or function says that it lives where it is imported from, under the name that it has there."""
    value = getattr(moqt_trio, name)
    assert value.__module__ == "moqt_trio"
    assert value.__qualname__ == name
    assert pickle.loads(pickle.dumps(value)) is value


def modules():
    return [module.name for module in pkgutil.walk_packages(moqt_trio.__path__, "moqt_trio.")]


@pytest.mark.parametrize("module", modules())
def test_every_module(module):
    """Each module can be imported, and says what it owns."""
    assert (importlib.import_module(module).__doc__ or "").strip()


def test_typed():
    """The package tells type checkers that its annotations count."""
    assert (importlib.resources.files("moqt_trio") / "py.typed").is_file()


def decorators(value: object) -> set[str]:
    """Returns the names of a class's or a function's decorators, from its source."""
    functions = [value, *vars(value).values()] if inspect.isclass(value) else [inspect.unwrap(value)]
    files = {inspect.unwrap(member).__code__.co_filename for member in functions if inspect.isfunction(member)}
    (file,) = {file for file in files if Path(file).is_file()}
    name = value.__name__
    found = next(node for node in ast.walk(ast.parse(Path(file).read_text())) if getattr(node, "name", None) == name)
    return {ast.unparse(decorator).partition("(")[0].rpartition(".")[2] for decorator in found.decorator_list}


@pytest.mark.parametrize("name", sorted(set(NAMES) - ALIASES - {"asyncio_app"}))
def test_ctrl_c_is_deferred(name):
    """Exported classes with asynchronous methods, and asynchronous functions, defer Ctrl-C to a checkpoint. But
    `asyncio_app`, which runs the application's own loop."""
    value = getattr(moqt_trio, name)
    if inspect.isclass(value):
        if any(inspect.iscoroutinefunction(member) for member in vars(value).values()):
            assert "defer_interrupts" in decorators(value)
    elif inspect.iscoroutinefunction(value):
        assert "enable_ki_protection" in decorators(value)
    elif inspect.isasyncgenfunction(inspect.unwrap(value)):
        assert "session_block" in decorators(value)
