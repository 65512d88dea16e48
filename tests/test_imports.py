"""Lazy imports: each name of `moqt_trio` loads what it needs, and nothing that only others need."""

from __future__ import annotations

import subprocess
import sys

import pytest

SERVING = {"hypercorn", "h2", "h11", "wsproto", "priority", "trio_asyncio", "fastapi", "starlette"}
"""What only a server or a web application needs."""


def loaded(program: str) -> set[str]:
    """Returns the modules that a program has loaded at its end, in a process of its own."""
    program = f"import sys\n{program}\nprint(*sys.modules)"
    process = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(process.stdout.split())


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] == "moqt_trio"}


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


def test_the_package_alone():
    """Importing the package loads none of its modules, and no library."""
    assert ours(loaded("import moqt_trio")) == {"moqt_trio"}


def test_errors_and_values():
    """An exception or a value loads no engine and no cryptography."""
    modules = loaded("from moqt_trio import MoqtError, Limits, Frame, BroadcastPath, StreamCode, NotFound")
    assert ours(modules) == {f"moqt_trio{name}" for name in ("", ".codes", ".errors", ".frame", ".limits", ".path")}
    assert not packages(modules) & ({"aioquic", "cryptography"} | SERVING)


@pytest.mark.parametrize("name", ["connect", "stay_connected"])
def test_a_client(name):
    """A client loads neither the server nor the web server, nor what only these need."""
    modules = loaded(f"import moqt_trio\nmoqt_trio.{name}")
    assert not packages(modules) & SERVING
    assert not [module for module in ours(modules) if module.startswith(("moqt_trio.server", "moqt_trio.http"))]
    assert "asyncio" not in modules


def test_a_client_that_connects():
    """Nor does it when it connects, by either transport; here nothing answers."""
    program = """
import trio, moqt_trio

async def main():
    for scheme in ("moqt", "https"):
        try:
            async with moqt_trio.connect(f"{scheme}://127.0.0.1:1/", limits=moqt_trio.Limits(connect_timeout=0.5)):
                pass
        except moqt_trio.ConnectError:
            pass

trio.run(main)
"""
    modules = loaded(program)
    assert "moqt_trio.transport.quic.aioquic.engine" in modules
    assert not packages(modules) & SERVING
    assert "asyncio" not in modules


def test_a_server_without_an_application():
    """A server of sessions over both transports loads nothing of the web server, as it listens and as it serves:
    hypercorn is there for the requests of an ASGI application."""
    program = """
import trio, moqt_trio

async def handle(request):
    async with request.accept() as session:
        await session.wait_closed()

async def main():
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt_trio.serve, moqt_trio.Router({"/sessions": handle}), "localhost", 0)
        for url in listener.urls:
            async with moqt_trio.connect(url, fingerprint=listener.fingerprint):
                pass
        assert {url.partition(":")[0] for url in listener.urls} == {"moqt", "https"}
        assert listener.statistics().sessions_accepted == 2
        await listener.aclose(0)

trio.run(main)
"""
    modules = loaded(program)
    assert {"moqt_trio.transport.webtransport.server", "moqt_trio.transport.quic.server"} <= modules
    assert not packages(modules) & SERVING
    assert not [module for module in ours(modules) if module.startswith("moqt_trio.http")]
    assert "asyncio" not in modules


@pytest.mark.parametrize("order", ["import moqt_trio.testing, moqt_trio", "import moqt_trio, moqt_trio.testing"])
def test_where_objects_live(order):
    """A class says `moqt_trio` as soon as any public name was used, in whatever order modules were imported."""
    program = f"{order}\nmoqt_trio.Broadcast\nfrom moqt_trio.session.session import Session\nprint(Session.__module__)"
    process = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert process.stdout == "moqt_trio\n"
