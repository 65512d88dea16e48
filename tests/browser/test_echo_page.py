"""The echo page in Chromium, served by the echo server: messages come back, and errors are shown."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import signal
import ssl
import time
import urllib.parse
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.apps.echo.programs import Server, running_server
from tests.browser.chromium import Browser

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser.chromium import Page

VERSIONS = ["moq-lite-05", "moq-lite-04", "moq-lite-03"]
MESSAGES = ["good morning", "おはようございます", "  <b>spaces & marks</b>  ", "m" * 1000]


@pytest.fixture(scope="module")
def echo_server() -> Iterator[Server]:
    """An echo server for all tests of this file."""
    with running_server() as server:
        yield server


def where(server: Server, **query: str) -> str:
    """Returns the URL of a server's page."""
    return f"https://localhost:{server.port}/" + (f"?{urllib.parse.urlencode(query)}" if query else "")


def say(page: Page, message: str) -> None:
    """Types a message, and sends it."""
    page.fill("Message", message)
    page.click("button", "Send")


def wait_echoes(page: Page, count: int) -> None:
    """Waits until so many messages have come back."""
    page.wait("#count", str(count))


def test_what_is_typed_comes_back(browser: Browser, echo_server: Server):
    """Each message comes back as it was typed, with its round trip; the page says how it is connected."""
    with browser.open(where(echo_server)) as page:
        page.wait("#state", "connected")
        for message in MESSAGES:
            say(page, message)
        wait_echoes(page, len(MESSAGES))
        assert page.run("() => [...document.querySelectorAll('#log .text')].map((line) => line.textContent)") == [
            *reversed(MESSAGES)
        ]
        assert all(re.fullmatch(r"\d+\.\d ms", time) for time in page.texts("#log .time"))
        assert page.text("#version") == VERSIONS[0]
        assert page.text("#transport") == "WebTransport"
        assert re.fullmatch(r"\d+\.\d ms", page.text("#median"))
        assert page.run("() => document.querySelectorAll('#chart .dot').length") == len(MESSAGES)


@pytest.mark.parametrize("version", VERSIONS)
def test_versions(browser: Browser, echo_server: Server, version: str):
    """The page works in each version that it shares with the server, when it offers only that one."""
    with browser.open(where(echo_server, version=version)) as page:
        page.wait("#state", "connected")
        assert page.text("#version") == version
        say(page, version)
        wait_echoes(page, 1)
        assert page.texts("#log .text") == [version]


def test_enter_sends(browser: Browser, echo_server: Server):
    """The keyboard alone is enough: Enter sends, and the focus stays in the field, which is empty then."""
    with browser.open(where(echo_server)) as page:
        page.wait("#state", "connected")
        for number in (1, 2):
            page.fill("Message", f"message {number}")
            page.press("Enter")
            wait_echoes(page, number)
            assert page.run("() => [document.activeElement.id, document.activeElement.value]") == ["message", ""]


def test_sends_by_itself(browser: Browser, echo_server: Server):
    """With the box ticked a message goes out every second."""
    with browser.open(where(echo_server)) as page:
        page.wait("#state", "connected")
        page.click("checkbox", "Send one every second")
        wait_echoes(page, 2)
        assert page.texts("#log .text")[-2:] == ["message 2", "message 1"]


def test_two_tabs(browser: Browser, echo_server: Server):
    """Two tabs each see their own messages, and none of the other's."""
    with browser.open(where(echo_server)) as page:
        tabs = [page, page.tab(where(echo_server))]
        for number, tab in enumerate(tabs):
            tab.wait("#state", "connected")
            say(tab, f"from tab {number}")
        for number, tab in enumerate(tabs):
            wait_echoes(tab, 1)
            assert tab.texts("#log .text") == [f"from tab {number}"]


def test_no_webtransport(browser: Browser, echo_server: Server, tmp_path: Path):
    """In a browser without WebTransport the page says so, and names browsers that have it."""
    script = tmp_path / "old.js"
    script.write_text("delete globalThis.WebTransport;")
    with browser.open(where(echo_server), scripts=[script]) as page:
        page.wait("#problem", "This browser has no WebTransport")
        assert "Chrome" in page.text("#problem-text")


def test_wrong_certificate(browser: Browser, echo_server: Server, tmp_path: Path):
    """A certificate that is not the pinned one is named among the causes, and trying again is possible."""
    script = tmp_path / "wrong.js"
    wrong = json.dumps({"path": "/echo", "broadcast": "japan/kyoto", "track": "text", "pin": "ab" * 32})
    script.write_text(
        f"""const real = fetch;
        globalThis.fetch = (...all) => {{
          globalThis.fetch = real;
          return Promise.resolve(new Response('{wrong}'));
        }};"""
    )
    with browser.open(where(echo_server), scripts=[script]) as page:
        page.wait("#problem", "certificate")
        assert page.text("#state") == "not connected"
        page.click("button", "Try again")
        page.wait("#state", "connected")


def test_server_stopped_and_restarted(browser: Browser):
    """The page says that the session has ended when the server stops, and goes on when another takes its place."""
    with running_server() as first, browser.open(where(first)) as page:
        page.wait("#state", "connected")
        say(page, "before")
        wait_echoes(page, 1)
        first.process.send_signal(signal.SIGTERM)
        first.process.wait_line(lambda line: line.startswith("shutting down"))
        first.process.send_signal(signal.SIGTERM)
        page.wait("#problem", "ended")
        first.process.wait_ended()
        with running_server(port=first.port):
            page.wait("#state", "connected")
            say(page, "after")
            wait_echoes(page, 2)
            assert page.texts("#log .text") == ["after", "before"]


@pytest.mark.parametrize("version", VERSIONS)
def test_server_asks_to_leave(browser: Browser, version: str):
    """A server that stops asks the page to leave: it does, so that the server ends long before its grace is over, and
    it comes back to the next one by itself."""
    with running_server() as first, browser.open(where(first, version=version)) as page:
        page.wait("#state", "connected")
        page.click("checkbox", "Send one every second")
        wait_echoes(page, 1)
        began = time.monotonic()
        first.process.send_signal(signal.SIGTERM)
        page.wait("#problem", "ended")
        assert first.process.wait_ended() == 0
        # The grace is five seconds.
        assert time.monotonic() - began < 4
        with running_server(port=first.port):
            page.wait("#state", "connected")
            page.wait("#count", "2")


def public_key_digest(port: int) -> str:
    """Returns what names the key of a server to Chromium, which loads no page over QUIC from an unknown key."""
    certificate = x509.load_pem_x509_certificate(ssl.get_server_certificate(("localhost", port)).encode())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()


def test_http3(echo_server: Server):
    """The page and its files load over HTTP/3 when the browser uses nothing else."""
    host = f"localhost:{echo_server.port}"
    flags = (
        f"--origin-to-force-quic-on={host}",
        f"--ignore-certificate-errors-spki-list={public_key_digest(int(echo_server.port))}",
    )
    with Browser(*flags) as browser, browser.open(where(echo_server)) as page:
        page.wait("#state", "connected")
        entries = page.run(
            """() => ["navigation", "resource"].flatMap((kind) => performance.getEntriesByType(kind))
                       .map((entry) => [new URL(entry.name).pathname, entry.nextHopProtocol])"""
        )
        assert {path for path, _ in entries} >= {"/", "/main.js", "/style.css", "/session.json"}
        assert {protocol for _, protocol in entries} == {"h3"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_layout(browser: Browser, echo_server: Server, tmp_path: Path, width: int, scheme: str):
    """The page fits its window, narrow or wide, with long words in it; a picture of it is kept with the test."""
    viewport = {"width": width, "height": 800}
    with browser.open(where(echo_server), viewport=viewport, colorScheme=scheme) as page:
        page.wait("#state", "connected")
        for number, message in enumerate([*MESSAGES[:2], "m" * 150, "how are you?"]):
            say(page, message)
            wait_echoes(page, number + 1)
        assert page.run("() => document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(tmp_path / f"echo-{width}-{scheme}.png")
