"""Chromium's own WebTransport API against the transport: every kind of stream, every way to end, both ways."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from tests.browser.chromium import BrowserFailed
from tests.interop.processes import Child, shows_output_of

if TYPE_CHECKING:
    from tests.browser.chromium import Browser, Page

SCRIPT = Path(__file__).with_name("webtransport_api.js")
ORIGIN = "https://pages.test"
MIB = 1024 * 1024


@attrs.frozen
class ApiPage:
    """A blank page, and the server that it connects to.

    Attributes:
        page: The page.
        server: The server's process.
        port: Where it listens.
        fingerprint: The SHA-256 of its certificate.
    """

    page: Page
    server: Child
    port: int
    fingerprint: str

    def where(self, path: str, **options: Any) -> dict[str, Any]:
        """Returns what the page's functions need to open a session."""
        path += f"{'&' if '?' in path else '?'}page={self.page.number}"
        return {"url": f"https://localhost:{self.port}{path}", "fingerprint": self.fingerprint, "options": options}

    def connect(self, path: str, **options: Any) -> dict[str, Any]:
        """Opens a session from the page, with these options of the API."""
        return dict(self.page.run("(where) => api.connect(where)", self.where(path, **options)))

    def wait_event(self, event: str) -> dict[str, Any]:
        """Waits for an event of this name from a session of this page."""
        while (found := self.server.wait_event(event))["page"] != str(self.page.number):
            pass
        return found

    def run(self, function: str, **argument: Any) -> Any:
        """Runs one of the page's functions."""
        return self.page.run(f"(argument) => api.{function}(argument)", argument)


@contextmanager
def serving(port: int = 0) -> Iterator[tuple[Child, dict[str, Any]]]:
    """Runs a server; yields its process, and where it listens."""
    with Child("-m", "tests.browser.server", str(port)) as process:
        yield process, process.wait_event("listening")


@contextmanager
def opened(browser: Browser, process: Child, listening: dict[str, Any]) -> Iterator[ApiPage]:
    """Opens a blank page."""
    with shows_output_of(process), browser.open(f"{ORIGIN}/", scripts=[SCRIPT], blank=True) as page:
        yield ApiPage(page, process, listening["port"], listening["fingerprint"])


@pytest.fixture(scope="module")
def shared_server() -> Iterator[tuple[Child, dict[str, Any]]]:
    """A server for all tests of this file."""
    with serving() as server:
        yield server


@pytest.fixture
def api(browser: Browser, shared_server: tuple[Child, dict[str, Any]]) -> Iterator[ApiPage]:
    """A blank page, and a server that all tests share."""
    with opened(browser, *shared_server) as page:
        yield page


@pytest.fixture
def api_alone(browser: Browser) -> Iterator[ApiPage]:
    """A blank page, and a server of its own, which may end."""
    with serving() as server, opened(browser, *server) as page:
        yield page


def test_ready(api: ApiPage):
    """A session becomes ready, and the server learns the page's origin."""
    api.connect("/idle")
    assert api.wait_event("session")["origin"] == ORIGIN


def test_unknown_path(api: ApiPage):
    """A session to a path that does not exist fails, and the next one works."""
    assert api.run("refused", **api.where("/nothing"))["source"] == "session"
    api.connect("/idle")


@pytest.mark.parametrize("size", [0, 1, 5000, MIB])
def test_bidirectional_stream_of_the_browser(api: ApiPage, size: int):
    """What the browser sends on a bidirectional stream comes back on it, and so does its end."""
    api.connect("/bidi")
    assert api.run("bidi", size=size) is True


@pytest.mark.parametrize("size", [0, 1, 5000, MIB])
def test_unidirectional_streams_both_ways(api: ApiPage, size: int):
    """What the browser sends on a unidirectional stream comes back on one of the server's."""
    api.connect("/uni")
    assert api.run("uni", size=size) is True


@pytest.mark.parametrize("size", [6, MIB])
def test_stream_of_the_server_with_a_reply(api: ApiPage, size: int):
    """The browser answers on a bidirectional stream that the server opened, and the server reads the answer."""
    api.connect("/ask")
    answer = "answer"[:size] if size <= 6 else "m" * size
    assert api.run("answer", answer=answer) == f"question? {answer}"


def test_datagrams(api: ApiPage):
    """Datagrams of every size up to the limit come back as they were sent."""
    api.connect("/datagrams")
    limit = api.page.run("() => api.only.datagrams.maxDatagramSize")
    ours = api.wait_event("datagrams")["max_size"]
    assert min(limit, ours) >= 1000
    for size in (1, 500, min(limit, ours)):
        assert api.run("datagram", size=size) is True


@pytest.mark.parametrize("code", [0, 1, 29, 30, 31, 255])
def test_server_resets_a_stream(api: ApiPage, code: int):
    """The browser sees with which codes the server reset one half of a stream and stopped the other."""
    api.connect(f"/reset?reset={code}&stop={255 - code}")
    ends = api.run("cancelledByServer")
    assert ends["reset"] == {"name": "WebTransportError", "source": "stream", "code": code}
    assert ends["stop"] == {"name": "WebTransportError", "source": "stream", "code": 255 - code}


def test_streams_that_are_reset_before_their_first_packet(api: ApiPage):
    """A page that waits for them gets each, and the code of its reset, although Chromium takes no RESET_STREAM_AT.

    About once in fifty streams Chromium 156 acknowledges the RESET_STREAM frame and does not tell the page, whose
    reader then waits: the new stream and the reset reach the page's process on two ways, and the reset was faster.
    """
    api.connect("/reset-at-once?reset=9")
    codes = [code for _ in range(20) for code in api.run("resetAtOnce")]
    assert set(codes) <= {9, "untold"}
    assert codes.count(9) > 20


@pytest.mark.parametrize("code", [0, 1, 29, 30, 31, 255])
def test_browser_resets_a_stream(api: ApiPage, code: int):
    """The server sees with which codes the browser reset one half of a stream and stopped the other."""
    api.connect("/report-resets")
    api.run("begin")
    api.wait_event("reading")
    api.run("cancel", reset=code, stop=255 - code)
    assert api.wait_event("reset")["code"] == code
    assert api.wait_event("stopped")["code"] == 255 - code


def test_a_reset_stream_ends_alone(api: ApiPage):
    """After both sides have reset a stream the session goes on with others."""
    api.connect("/bidi")
    api.run("begin")
    api.run("cancel", reset=7, stop=8)
    assert api.run("bidi", size=1000) is True


@pytest.mark.parametrize(
    ("code", "reason"),
    [(0, ""), (42, "enough for today"), (2**32 - 1, "長い" * 170)],
    ids=["empty", "usual", "longest"],
)
def test_server_closes(api: ApiPage, code: int, reason: str):
    """The browser sees the code and the reason with which the server closes a session.

    About once in fifty sessions Chromium 156 reports a lost connection instead, though the server has closed none. So a
    session that ends in this way is opened again, twice at most.
    """
    for last in (False, False, True):
        api.connect(f"/close?code={code}&reason={reason or '%20'}")
        api.run("sendStream")
        try:
            closed = api.run("closed")
            break
        except BrowserFailed as error:
            if last or "Connection lost" not in str(error):
                raise
    assert closed == {"closeCode": code, "reason": reason or " "}


@pytest.mark.parametrize(("code", "reason"), [(0, ""), (42, "enough for today"), (2**32 - 1, "r" * 256)])
def test_browser_closes(api: ApiPage, code: int, reason: str):
    """The server sees the code and the reason with which the browser closes a session."""
    api.connect("/idle")
    api.page.run("(how) => api.only.close(how)", {"closeCode": code, "reason": reason})
    closed = api.wait_event("closed")
    assert (closed["code"], closed["reason"], closed["by_peer"]) == (code, reason, True)


def test_browser_closes_with_the_longest_reason(api: ApiPage):
    """A reason of 1024 bytes, the most that there may be, is fit for a log when the server shows it."""
    api.connect("/idle")
    api.page.run("(how) => api.only.close(how)", {"closeCode": 1, "reason": "é" * 512})
    closed = api.wait_event("closed")
    assert closed["code"] == 1
    assert closed["reason"].startswith("\\xe9\\xe9")
    assert len(closed["reason"]) == 256


def test_subprotocol(api: ApiPage):
    """The server sees the subprotocols that the page offers, in order, and the page sees the chosen one."""
    chosen = api.connect("/idle?protocol=two", protocols=["one", "two", "three"])
    assert api.wait_event("session")["protocols"] == ["one", "two", "three"]
    assert chosen["protocol"] == "two"


def test_without_a_subprotocol(api: ApiPage):
    """A session opens where the server chooses none of the subprotocols that the page offers."""
    assert api.connect("/idle", protocols=["one"])["protocol"] in (None, "")


def test_200_streams_at_once(api: ApiPage):
    """200 streams that are open together each echo their own bytes."""
    api.connect("/bidi")
    back = api.page.run(
        """async () => {
          const streams = [];
          while (streams.length < 200) streams.push(await api.only.createBidirectionalStream());
          return await Promise.all(streams.map(async (stream, seed) => {
            const data = api.pattern(2000, seed);
            const [back] = await Promise.all([api.read(stream.readable), api.write(stream.writable, data)]);
            return api.same(back, data);
          }));
        }"""
    )
    assert back == [True] * 200


def test_200_streams_of_the_server_at_once(api: ApiPage):
    """The browser reads 200 streams that the server opens together, as it may have them open."""
    api.connect("/many?count=200")
    texts = api.page.run(
        """async () => {
          const texts = [];
          for await (const stream of api.only.incomingUnidirectionalStreams) {
            texts.push(api.read(stream).then(api.text));
            if (texts.length === 200) return await Promise.all(texts);
          }
        }"""
    )
    assert sorted(texts) == sorted(f"{number} " * 500 for number in range(200))


def test_two_tabs(api: ApiPage):
    """Two tabs talk to the server at the same time, and one goes on when the other has closed its session."""
    other = api.page.tab(f"{ORIGIN}/other")
    for page in (api.page, other):
        page.run("(where) => api.connect(where)", api.where("/bidi"))
    begun = [page.begin("() => api.bidi({size: 100000})") for page in (api.page, other)]
    assert [api.page.browser.finish(number) for number in begun] == [True, True]
    other.run("() => api.only.close()")
    api.wait_event("closed")
    assert api.run("bidi", size=1000) is True


def test_pooled_sessions(api: ApiPage):
    """Two sessions of a page that allows pooling are apart, whether they share a connection or not."""
    for name, path in (("one", "/bidi"), ("two", "/bidi")):
        api.run("connect", name=name, **api.where(path))
    assert api.run("bidi", name="one", size=1000) is True
    api.page.run("() => api.sessions.get('one').close({closeCode: 5, reason: 'done'})")
    assert api.wait_event("closed")["code"] == 5
    assert api.run("bidi", name="two", size=1000) is True


def test_reload_in_mid_stream(api: ApiPage):
    """A page that is loaded again while the server sends ends its session, and opens the next one at once."""
    api.connect("/flood")
    api.page.run("async () => { (await api.next(api.only.incomingUnidirectionalStreams)).getReader().read(); }")
    api.page.reload()
    assert api.wait_event("closed")["by_peer"] is True
    api.connect("/bidi")
    assert api.run("bidi", size=1000) is True


def test_server_killed_and_restarted(api_alone: ApiPage):
    """A page opens a session with the server that took the place of a killed one, on the same port."""
    api_alone.connect("/bidi")
    assert api_alone.run("bidi", size=1000) is True
    api_alone.server.send_signal(signal.SIGKILL)
    api_alone.server.wait_ended()
    with serving(api_alone.port) as (successor, listening), shows_output_of(successor):
        assert listening["port"] == api_alone.port
        again = attrs.evolve(api_alone, server=successor, fingerprint=listening["fingerprint"])
        again.run("connect", name="new", **again.where("/bidi"))
        assert again.run("bidi", name="new", size=1000) is True


def test_server_shuts_down(api_alone: ApiPage):
    """A server that shuts down in order ends the sessions of its pages at once."""
    api_alone.connect("/idle")
    api_alone.wait_event("session")
    api_alone.server.end_input()
    ended = api_alone.page.run("() => api.only.closed.then(() => 'closed', (error) => error.source)")
    assert ended in ("closed", "session")
