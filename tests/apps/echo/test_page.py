"""The echo page as an ASGI application, without a browser."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest

from apps.echo.page import EchoPage


@attrs.frozen
class Answer:
    status: int
    fields: dict[bytes, bytes]
    body: bytes


async def talk(page: EchoPage, scope: dict[str, Any], *received: str) -> list[dict[str, Any]]:
    """Runs the application on one scope and returns what it sends."""
    incoming = [{"type": kind} for kind in received]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await page(scope, receive, send)
    return sent


async def ask(page: EchoPage, path: str, method: str = "GET") -> Answer:
    """Returns the answer to one request."""
    start, body = await talk(page, {"type": "http", "method": method, "path": path})
    return Answer(start["status"], dict(start["headers"]), body["body"])


@pytest.fixture
def page(tmp_path):
    """A page whose script is built."""
    script = tmp_path / "main.js"
    script.write_text("hello()")
    return EchoPage(script=script)


async def test_page_names_its_files(page):
    """The page is found at `/`, and so is each file that it names."""
    index = await ask(page, "/")
    assert (index.status, index.fields[b"content-type"]) == (200, b"text/html; charset=utf-8")
    assert index.fields[b"content-length"] == b"%d" % len(index.body)
    for name, kind in [
        ("main.js", b"text/javascript"),
        ("style.css", b"text/css"),
        ("icon.svg", b"image/svg+xml"),
    ]:
        assert f'"{name}"'.encode() in index.body
        answer = await ask(page, f"/{name}")
        assert answer.status == 200
        assert answer.fields[b"content-type"].startswith(kind)


async def test_script_is_the_built_one(page):
    """The script that is served is the one that was built."""
    assert (await ask(page, "/main.js")).body == b"hello()"


async def test_without_the_script_the_page_says_what_to_run(tmp_path):
    """As long as nothing is built the page names the command; afterwards it is the real one without a restart."""
    page = EchoPage(script=tmp_path / "main.js")
    assert b"make web" in (await ask(page, "/")).body
    assert (await ask(page, "/main.js")).status == 404
    page.script.write_text("")
    assert b"make web" not in (await ask(page, "/")).body


async def test_session_is_described(page):
    """The page learns where the sessions are, what to publish, and the fingerprint of the moment."""
    pins = iter(["aa", "bb"])
    page.pin = lambda: next(pins)
    first, second = [json.loads((await ask(page, "/session.json")).body) for _ in range(2)]
    assert first == {"path": "/echo", "broadcast": "japan/kyoto", "track": "text", "pin": "aa"}
    assert second["pin"] == "bb"


async def test_without_a_pin_the_browser_decides(page):
    """A page of a server with a certificate of an authority pins nothing."""
    assert json.loads((await ask(page, "/session.json")).body)["pin"] is None


async def test_head_has_no_body(page):
    """HEAD has the fields of GET, and nothing else."""
    whole, head = await ask(page, "/style.css"), await ask(page, "/style.css", "HEAD")
    assert (head.fields, head.body) == (whole.fields, b"")


@pytest.mark.parametrize("path", ["/nothing", "/../page.py", "/package.json", "//main.js"])
async def test_other_paths_are_not_found(page, path):
    """Nothing but the page's own files is served."""
    assert (await ask(page, path)).status == 404


async def test_only_reading_is_allowed(page):
    """Another method is refused, with a list of those that are not."""
    answer = await ask(page, "/", "POST")
    assert (answer.status, answer.fields[b"allow"]) == (405, b"GET, HEAD")


async def test_nothing_is_loaded_from_elsewhere(page):
    """The policy names no source but the server itself."""
    policy = (await ask(page, "/")).fields[b"content-security-policy"].decode()
    assert {source for rule in policy.split("; ") for source in rule.split()[1:]} == {"'self'", "'none'"}


async def test_lifespan_is_answered(page):
    """The start and the end of the server are acknowledged."""
    sent = await talk(page, {"type": "lifespan"}, "lifespan.startup", "lifespan.shutdown")
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_websocket_is_refused(page):
    """A WebSocket is closed before it opens."""
    sent = await talk(page, {"type": "websocket", "path": "/"}, "websocket.connect")
    assert sent == [{"type": "websocket.close"}]
