"""The echo server against a client of the moq-rs package: an implementation that shares no line with this one."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator

import attrs
import pytest

from tests.interop.processes import PEERS, Child, shows_output_of

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("moq") is None,
    reason="the moq-rs package is not installed: pip install 'moqt-trio[interop]'",
)

VERSIONS = ["moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03", "moq-lite-02", "moq-lite-01"]
SCHEMES = ["https", "moqt"]


@attrs.frozen
class EchoServer:
    """A running echo server.

    Attributes:
        process: Its process.
        urls: Its URL for each scheme.
        fingerprint: SHA-256 of its certificate, in hexadecimal.
    """

    process: Child
    urls: dict[str, str]
    fingerprint: str


def start_echo_server(process: Child) -> EchoServer:
    """Reads from a server's first lines where it listens."""
    urls: dict[str, str] = {}
    fingerprint = ""
    while not (fingerprint and len(urls) == len(SCHEMES)):
        line = process.wait_line(lambda line: "://" in line or "sha256" in line.lower().replace("-", ""))
        for url in re.findall(r"(?:https|moqt)://\S+", line):
            urls.setdefault(url.partition(":")[0], url)
        if found := re.search(r"\b[0-9a-fA-F]{64}\b", line):
            fingerprint = found[0]
    return EchoServer(process, urls, fingerprint)


@pytest.fixture(scope="module", params=VERSIONS)
def echo_server(request: pytest.FixtureRequest) -> Iterator[EchoServer]:
    """An echo server that offers one version only: moq-rs takes whichever it shares."""
    with Child("-m", "apps.echo.server", "--port", "0", "--versions", request.param) as process:
        yield start_echo_server(process)


def run_client(server: EchoServer, scheme: str, count: int, *options: str) -> list[dict[str, object]]:
    """Runs moq-rs's echo client to its end and returns the echoes it reports."""
    script = str(PEERS / "moq_rs_echo_client.py")
    with (
        shows_output_of(server.process),
        Child(script, server.urls[scheme], server.fingerprint, str(count), *options) as client,
    ):
        assert client.wait_ended(30) == 0
        events = [json.loads(line) for line in client.output.splitlines() if line.startswith("{")]
        assert events[-1] == {"event": "summary", "sent": count, "echoed": count}
    return [event for event in events if event["event"] == "echo"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_moq_rs_gets_every_message_back(echo_server: EchoServer, scheme: str):
    """moq-rs publishes, finds the echo of the same path on its session, and reads back what it sent, in groups of
    the sequence that it gave them."""
    echoes = run_client(echo_server, scheme, 10)
    assert sorted(echo["group"] for echo in echoes) == list(range(10))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_moq_rs_gets_large_messages_back(echo_server: EchoServer, scheme: str):
    """Messages of many packets, together more than one stream's window, come back as they were sent."""
    echoes = run_client(echo_server, scheme, 4, "--size", "150000")
    assert [echo["bytes"] for echo in echoes] == [150_000] * 4


def test_moq_rs_and_the_server_choose_a_version_themselves():
    """A server that offers all its versions echoes to a moq-rs client that offers all of its own, over both transports.
    The server logs nothing when the client disconnects, and SIGTERM ends it with exit code 0."""
    with Child("-m", "apps.echo.server", "--port", "0") as process:
        server = start_echo_server(process)
        for scheme in SCHEMES:
            run_client(server, scheme, 3)
        assert process.terminate() == 0
        assert "Traceback" not in process.output
