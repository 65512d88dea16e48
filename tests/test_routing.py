"""Router: which handler serves which path."""

from __future__ import annotations

import pytest
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import serve_in_memory


def named(name):
    """Return a handler of its own, which is recognized by its name."""

    async def handler(request):
        async with request.accept() as session:
            await session.wait_closed()

    handler.__name__ = name
    return handler


def served(router, path):
    handler = router.find(path)
    return None if handler is None else handler.__name__


ROUTER = moqt.Router(
    {"/live/control": named("control"), "/": named("root")},
    prefixes={"/live": named("live"), "/live/hall/b": named("hall"), "/my room": named("room")},
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "root"),
        ("/live", "live"),
        ("/live/", "live"),
        ("/live/a/b/c", "live"),
        ("/live/control", "control"),
        ("/live/control/more", "live"),
        ("/live/hall", "live"),
        ("/live/hall/b", "hall"),
        ("/live/hall/b/c", "hall"),
        ("/live/hall/bc", "live"),
        ("/lives", None),
        ("/Live", None),
        ("/other", None),
        ("", None),
        ("/my%20room/x", "room"),
        ("/my room", "room"),
        # As they are written: what a server makes of dots is its own affair.
        ("/live/../control", "live"),
        ("/other/../live", None),
        ("//live", None),
    ],
)
def test_prefixes(path, expected):
    """A route goes first, then the longest prefix, by whole parts of the path."""
    assert served(ROUTER, path) == expected


def test_a_fallback():
    """It serves what nothing else does, and clients without a path."""
    router = moqt.Router({"/echo": named("echo")}, prefixes={"/live": named("live")}, fallback=named("any"))
    assert [served(router, path) for path in ("/echo", "/live/x", "/echo/x", "/", "")] == [
        "echo",
        "live",
        "any",
        "any",
        "any",
    ]
    assert (router.default, router.paths) == ("/", ("/echo", "/live"))
    alone = moqt.Router(fallback=named("any"))
    assert (alone.default, alone.paths) == ("/", ("/",))
    assert moqt.Router({"/a": named("a")}, fallback=named("any"), default="/a").default == "/a"


def test_a_default_below_a_prefix():
    """A default is any path that is served."""
    assert moqt.Router(prefixes={"/live": named("live")}, default="/live/1").default == "/live/1"
    with pytest.raises(ValueError, match=r"the default '/lives' is not among the routes \['/live'\]"):
        moqt.Router(prefixes={"/live": named("live")}, default="/lives")


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"prefixes": {"/": named("a")}}, ValueError, "not '/': the fallback serves every path"),
        ({"prefixes": {"/live/": named("a")}}, ValueError, "not '/live/': '/live' covers it"),
        ({"prefixes": {"live": named("a")}}, ValueError, "a prefix is a path that starts with '/'"),
        ({"prefixes": {"/a b": named("a"), "/a%20b": named("b")}}, ValueError, "two of the prefixes .* are one path"),
        ({"prefixes": named("a")}, TypeError, "prefixes are a dict of handlers by path"),
        ({"prefixes": {"/a": served}}, TypeError, "the handler of '/a' is an async function"),
        ({"fallback": served}, TypeError, "the fallback is an async function"),
        ({"fallback": "/"}, TypeError, "the fallback is an async function"),
    ],
)
def test_what_is_no_route(arguments, error, problem):
    with pytest.raises(error, match=problem):
        moqt.Router(**arguments)


@pytest.mark.parametrize("transport", ["moqt", "https"])
async def test_sessions_below_a_prefix(transport):
    """The request has the whole path; a path that nothing serves is refused with 404."""
    paths = []

    async def handler(request):
        paths.append(request.path)
        async with request.accept() as session:
            await session.wait_closed()

    async with serve_in_memory(moqt.Router(prefixes={"/live": handler})) as server:
        assert server.urls == ("https://localhost/live", "moqt://localhost/live")
        async with server.connect(f"{transport}://localhost/live/hall?q=1"):
            pass
        with pytest.raises(moqt.Rejected) as caught:
            async with server.connect(f"{transport}://localhost/lives"):
                pass
        assert caught.value.status == 404
    assert paths == ["/live/hall"]


@pytest.mark.parametrize("version", ["moq-lite-04", "moq-lite-06"])
async def test_a_client_without_a_path(version):
    """A fallback serves the versions that carry no path over raw QUIC, as `/`."""
    paths = []

    async def handler(request):
        paths.append(request.path)
        async with request.accept() as session:
            await session.wait_closed()

    async with (
        serve_in_memory(moqt.Router(fallback=handler), versions=[version]) as server,
        server.connect("moqt://localhost/live", versions=[version]),
    ):
        await trio.testing.wait_all_tasks_blocked()
    assert paths == ["/" if version == "moq-lite-04" else "/live"]
