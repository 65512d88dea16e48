"""@moq/net in Chromium publishes to the echo server, and subscribes to the echo, in each shared version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.apps.echo.programs import Server, running_server
from tests.browser.chromium import bundle

if TYPE_CHECKING:
    from tests.browser.chromium import Browser, Page

SOURCE = Path(__file__).with_name("moq_net.js")
VERSIONS = ["moq-lite-05", "moq-lite-04", "moq-lite-03"]


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's script in one file, with the library in it."""
    return bundle(SOURCE, tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def echo_server() -> Iterator[Server]:
    """An echo server for all tests of this file."""
    with running_server() as server:
        yield server


@pytest.fixture(params=VERSIONS)
def connected(browser: Browser, script: Path, echo_server: Server, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page with a session of one version, on which it publishes and subscribes."""
    own = f"https://localhost:{echo_server.port}/"
    with browser.open(own, scripts=[script], blank=True) as page:
        where = {"url": echo_server.urls["https"], "fingerprint": echo_server.fingerprint, "version": request.param}
        answer = page.run("(where) => moq.connect(where)", where)
        assert answer == {"version": request.param, "path": "kyoto", "active": True}
        yield page


@pytest.mark.parametrize(
    ("groups", "frames", "size"),
    [(20, 1, 20), (5, 40, 100), (3, 2, 200_000), (100, 1, 50)],
    ids=["messages", "frames", "large", "burst"],
)
def test_groups_come_back(connected: Page, groups: int, frames: int, size: int):
    """What the browser publishes comes back to its subscription under the same sequences: every frame of every group,
    as it was."""
    what = {"groups": groups, "frames": frames, "size": size}
    assert sorted(connected.run("(what) => moq.echo(what)", what)) == list(range(groups))


def test_echo_is_unannounced(connected: Page):
    """When the browser unannounces its broadcast, the server unannounces the echo."""
    assert connected.run("(what) => moq.echo(what)", {"groups": 1, "frames": 1, "size": 10}) == [0]
    assert connected.run("() => moq.unannounce()") == {"path": "kyoto", "active": False}
