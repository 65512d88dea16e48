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

BARE = Path(__file__).with_name("bare.js")
ORIGIN = "https://pages.test"
MIB = 1024 * 1024


@attrs.frozen
class Bare:
    """A blank page, and the server that it may talk to.

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
        return dict(self.page.run("(where) => bare.connect(where)", self.where(path, **options)))

    def wait_event(self, event: str) -> dict[str, Any]:
        """Waits for what the server prints about a session of this page."""
        while (found := self.server.wait_event(event))["page"] != str(self.page.number):
            pass
        return found

    def run(self, function: str, **argument: Any) -> Any:
        """Runs one of the page's functions."""
        return self.page.run(f"(argument) => bare.{function}(argument)", argument)


@contextmanager
def serving(port: int = 0) -> Iterator[tuple[Child, dict[str, Any]]]:
    """Runs a server; yields its process, and where it listens."""
    with Child("-m", "tests.browser.server", str(port)) as process:
        yield process, process.wait_event("listening")


@contextmanager
def opened(browser: Browser, process: Child, listening: dict[str, Any]) -> Iterator[Bare]:
    """Opens a blank page."""
    with shows_output_of(process), browser.open(f"{ORIGIN}/", scripts=[BARE], blank=True) as page:
        yield Bare(page, process, listening["port"], listening["fingerprint"])


@pytest.fixture(scope="module")
def shared_server() -> Iterator[tuple[Child, dict[str, Any]]]:
    """A server that goes on to the end."""
    with serving() as server:
        yield server


@pytest.fixture
def bare(browser: Browser, shared_server: tuple[Child, dict[str, Any]]) -> Iterator[Bare]:
    """A blank page, and a server that others have used before."""
    with opened(browser, *shared_server) as page:
        yield page


@pytest.fixture
def bare_alone(browser: Browser) -> Iterator[Bare]:
    """A blank page, and a server of its own, which may end."""
    with serving() as server, opened(browser, *server) as page:
        yield page


def test_ready(bare: Bare):
    """A session becomes ready, and the server learns the page's origin."""
    bare.connect("/linger")
    assert bare.wait_event("session")["origin"] == ORIGIN


def test_unknown_path(bare: Bare):
    """A session to a path that does not exist fails, and the next one works."""
    assert bare.run("refused", **bare.where("/nothing"))["source"] == "session"
    bare.connect("/linger")


@pytest.mark.parametrize("size", [0, 1, 5000, MIB])
def test_bidirectional_stream_of_the_browser(bare: Bare, size: int):
    """What the browser sends on a bidirectional stream comes back on it, and so does its end."""
    bare.connect("/bidi")
    assert bare.run("bidi", size=size) is True


@pytest.mark.parametrize("size", [0, 1, 5000, MIB])
def test_unidirectional_streams_both_ways(bare: Bare, size: int):
    """What the browser sends on a unidirectional stream comes back on one of the server's."""
    bare.connect("/uni")
    assert bare.run("uni", size=size) is True


@pytest.mark.parametrize("size", [6, MIB])
def test_stream_of_the_server_with_a_reply(bare: Bare, size: int):
    """The browser answers on a bidirectional stream that the server opened, and the server reads the answer."""
    bare.connect("/ask")
    answer = "answer"[:size] if size <= 6 else "m" * size
    assert bare.run("answer", answer=answer) == f"question? {answer}"


def test_datagrams(bare: Bare):
    """Datagrams of every size up to the limit come back as they were sent."""
    bare.connect("/datagrams")
    limit = bare.page.run("() => bare.only.datagrams.maxDatagramSize")
    ours = bare.wait_event("datagrams")["max_size"]
    assert min(limit, ours) >= 1000
    for size in (1, 500, min(limit, ours)):
        assert bare.run("datagram", size=size) is True


@pytest.mark.parametrize("code", [0, 1, 29, 30, 31, 255])
def test_server_gives_a_stream_up(bare: Bare, code: int):
    """The browser sees with which codes the server reset one half of a stream and stopped the other."""
    bare.connect(f"/give-up?reset={code}&stop={255 - code}")
    ends = bare.run("givenUp")
    assert ends["reset"] == {"name": "WebTransportError", "source": "stream", "code": code}
    assert ends["stop"] == {"name": "WebTransportError", "source": "stream", "code": 255 - code}


@pytest.mark.parametrize("code", [0, 1, 29, 30, 31, 255])
def test_browser_gives_a_stream_up(bare: Bare, code: int):
    """The server sees with which codes the browser reset one half of a stream and stopped the other."""
    bare.connect("/report-resets")
    bare.run("begin")
    bare.wait_event("reading")
    bare.run("giveUp", reset=code, stop=255 - code)
    assert bare.wait_event("reset")["code"] == code
    assert bare.wait_event("stopped")["code"] == 255 - code


def test_a_reset_stream_ends_alone(bare: Bare):
    """After a stream was given up by both sides the session goes on with others."""
    bare.connect("/bidi")
    bare.run("begin")
    bare.run("giveUp", reset=7, stop=8)
    assert bare.run("bidi", size=1000) is True


@pytest.mark.parametrize(
    ("code", "reason"),
    [(0, ""), (42, "enough for today"), (2**32 - 1, "長い" * 170)],
    ids=["empty", "usual", "longest"],
)
def test_server_closes(bare: Bare, code: int, reason: str):
    """The browser sees the code and the reason with which the server closes a session.

    About once in fifty sessions Chromium 156 reports a lost connection instead, though the server has closed none. So a
    session that ends in this way is opened again, twice at most.
    """
    for last in (False, False, True):
        bare.connect(f"/close?code={code}&reason={reason or '%20'}")
        bare.run("knock")
        try:
            closed = bare.run("closed")
            break
        except BrowserFailed as error:
            if last or "Connection lost" not in str(error):
                raise
    assert closed == {"closeCode": code, "reason": reason or " "}


@pytest.mark.parametrize(("code", "reason"), [(0, ""), (42, "enough for today"), (2**32 - 1, "r" * 256)])
def test_browser_closes(bare: Bare, code: int, reason: str):
    """The server sees the code and the reason with which the browser closes a session."""
    bare.connect("/linger")
    bare.page.run("(how) => bare.only.close(how)", {"closeCode": code, "reason": reason})
    closed = bare.wait_event("closed")
    assert (closed["code"], closed["reason"], closed["by_peer"]) == (code, reason, True)


def test_browser_closes_with_the_longest_reason(bare: Bare):
    """A reason of 1024 bytes, the most that there may be, is fit for a log when the server shows it."""
    bare.connect("/linger")
    bare.page.run("(how) => bare.only.close(how)", {"closeCode": 1, "reason": "é" * 512})
    closed = bare.wait_event("closed")
    assert closed["code"] == 1
    assert closed["reason"].startswith("\\xe9\\xe9")
    assert len(closed["reason"]) == 256


def test_subprotocol(bare: Bare):
    """The server sees the subprotocols that the page offers, in order, and the page sees the chosen one."""
    chosen = bare.connect("/linger?protocol=two", protocols=["one", "two", "three"])
    assert bare.wait_event("session")["protocols"] == ["one", "two", "three"]
    assert chosen["protocol"] == "two"


def test_without_a_subprotocol(bare: Bare):
    """A session opens where the server chooses none of the subprotocols that the page offers."""
    assert bare.connect("/linger", protocols=["one"])["protocol"] in (None, "")


def test_200_streams_at_once(bare: Bare):
    """200 streams that are open together each bring their own bytes back."""
    bare.connect("/bidi")
    back = bare.page.run(
        """async () => {
          const streams = [];
          while (streams.length < 200) streams.push(await bare.only.createBidirectionalStream());
          return await Promise.all(streams.map(async (stream, seed) => {
            const data = bare.pattern(2000, seed);
            const [back] = await Promise.all([bare.read(stream.readable), bare.write(stream.writable, data)]);
            return bare.same(back, data);
          }));
        }"""
    )
    assert back == [True] * 200


def test_200_streams_of_the_server_at_once(bare: Bare):
    """The browser reads 200 streams that the server opens together, as it may have them open."""
    bare.connect("/many?count=200")
    texts = bare.page.run(
        """async () => {
          const texts = [];
          for await (const stream of bare.only.incomingUnidirectionalStreams) {
            texts.push(bare.read(stream).then(bare.text));
            if (texts.length === 200) return await Promise.all(texts);
          }
        }"""
    )
    assert sorted(texts) == sorted(f"{number} " * 500 for number in range(200))


def test_two_tabs(bare: Bare):
    """Two tabs talk to the server at the same time, and one goes on when the other has closed its session."""
    other = bare.page.tab(f"{ORIGIN}/other")
    for page in (bare.page, other):
        page.run("(where) => bare.connect(where)", bare.where("/bidi"))
    begun = [page.begin("() => bare.bidi({size: 100000})") for page in (bare.page, other)]
    assert [bare.page.browser.finish(number) for number in begun] == [True, True]
    other.run("() => bare.only.close()")
    bare.wait_event("closed")
    assert bare.run("bidi", size=1000) is True


def test_pooled_sessions(bare: Bare):
    """Two sessions of a page that allows pooling are apart, whether they share a connection or not."""
    for name, path in (("one", "/bidi"), ("two", "/bidi")):
        bare.run("connect", name=name, **bare.where(path))
    assert bare.run("bidi", name="one", size=1000) is True
    bare.page.run("() => bare.sessions.get('one').close({closeCode: 5, reason: 'done'})")
    assert bare.wait_event("closed")["code"] == 5
    assert bare.run("bidi", name="two", size=1000) is True


def test_reload_in_mid_stream(bare: Bare):
    """A page that is loaded again while the server sends ends its session, and opens the next one at once."""
    bare.connect("/flood")
    bare.page.run("async () => { (await bare.next(bare.only.incomingUnidirectionalStreams)).getReader().read(); }")
    bare.page.reload()
    assert bare.wait_event("closed")["by_peer"] is True
    bare.connect("/bidi")
    assert bare.run("bidi", size=1000) is True


def test_server_killed_and_restarted(bare_alone: Bare):
    """A page opens a session with the server that took the place of a killed one, on the same port."""
    bare_alone.connect("/bidi")
    assert bare_alone.run("bidi", size=1000) is True
    bare_alone.server.send_signal(signal.SIGKILL)
    bare_alone.server.wait_ended()
    with serving(bare_alone.port) as (successor, listening), shows_output_of(successor):
        assert listening["port"] == bare_alone.port
        again = attrs.evolve(bare_alone, server=successor, fingerprint=listening["fingerprint"])
        again.run("connect", name="new", **again.where("/bidi"))
        assert again.run("bidi", name="new", size=1000) is True


def test_server_shuts_down(bare_alone: Bare):
    """A server that shuts down in order ends the sessions of its pages at once."""
    bare_alone.connect("/linger")
    bare_alone.wait_event("session")
    bare_alone.server.end_input()
    ended = bare_alone.page.run("() => bare.only.closed.then(() => 'closed', (error) => error.source)")
    assert ended in ("closed", "session")
