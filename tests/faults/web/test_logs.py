"""The logs, at every level and of every logger: no credentials, no raw text of a peer, and one line a session."""

from __future__ import annotations

import logging

import pytest
import trio
import trio.testing
from hypercorn.config import Config

import moqt_trio as moqt
from tests.http.serving import CERTIFICATE, curl, serving
from tests.http.test_requests import Http2Peer
from tests.peers.aioquic_http3 import connect_http3

LEVELS = [logging.DEBUG, logging.INFO, logging.WARNING]
SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])
SECRETS = ("bearer-5ecret", "cookie-5ecret", "token-5ecret", "answer-5ecret")
FIELDS = (("authorization", "Bearer bearer-5ecret"), ("cookie", "session=cookie-5ecret"))
TARGET = "/page?token=token-5ecret"
RAW = "\x1b[31mred\r\nERROR forged line\u202e" * 40


async def page(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", b"session=answer-5ecret")]})
    await send({"type": "http.response.body", "body": b"hello"})


async def hold(request):
    async with request.accept() as session:
        await session.wait_closed()


def all_text(caplog):
    """Return every record as a handler would write it, its traceback included."""
    formatter = logging.Formatter("%(name)s %(levelname)s %(message)s")
    return [formatter.format(record) for record in caplog.records]


def assert_printable(caplog):
    """Every message is one short line of printable ASCII."""
    for record in caplog.records:
        message = record.getMessage()
        assert message.isascii(), record.name
        assert message.isprintable(), (record.name, message)
        assert len(message) < 1000, record.name


@pytest.mark.parametrize("level", LEVELS)
async def test_no_credentials_of_requests(level, caplog):
    """Neither fields nor queries of requests are logged, over any version of HTTP."""
    caplog.set_level(level)
    fields = [part for name, value in FIELDS for part in ("--header", f"{name}: {value}")]
    async with serving(page) as listener:
        for version in ("--http1.1", "--http2"):
            assert "hello" in await curl(f"https://localhost:{listener.port}{TARGET}", version, *fields)
        peer = await Http2Peer.connect(listener.port)
        for _ in range(2):
            # The second has its fields from the table of the first.
            assert await peer.body(await peer.request(TARGET, headers=FIELDS)) == b"hello"
        await trio.aclose_forcefully(peer.stream)
        async with connect_http3(listener.port) as http3:
            encoded = tuple((name.encode(), value.encode()) for name, value in FIELDS)
            assert await http3.answer(http3.request(TARGET, headers=encoded)) == (200, b"hello")
    for secret in SECRETS:
        assert secret not in "\n".join(all_text(caplog))


@SCHEMES
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("route", ["/page", "/other"], ids=["accepted", "refused"])
async def test_no_credentials_of_sessions(scheme, level, route, caplog):
    """The query of a session's URL is logged by neither side, whether the session is accepted or not."""
    caplog.set_level(level)
    async with serving(page, moqt.Router({route: hold})) as listener:
        try:
            url = f"{scheme}://localhost:{listener.port}{TARGET}"
            async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint):
                await trio.testing.wait_all_tasks_blocked(0.01)
        except moqt.Rejected:
            assert route == "/other"
    for secret in SECRETS:
        assert secret not in "\n".join(all_text(caplog))


async def test_hpack_is_still_silent_when_asked(caplog):
    """A program that raises the level of hpack's own loggers gets none of its header values either."""
    for name in ("hpack", "hpack.hpack", "hpack.table"):
        caplog.set_level(logging.DEBUG, name)
    async with serving(page) as listener:
        await curl(f"https://localhost:{listener.port}{TARGET}", "--http2")
    assert not [record for record in caplog.records if record.name.startswith("hpack")]


@SCHEMES
async def test_close_reasons(scheme, caplog):
    """A close reason reaches no log as it came, from either side."""
    caplog.set_level(logging.DEBUG)

    entered = trio.Event()

    async def close(request):
        async with request.accept() as session:
            await entered.wait()
            session.close(0, RAW)

    for handler, leave in ((close, False), (hold, True)):
        async with serving(page, handler) as listener:
            url = f"{scheme}://localhost:{listener.port}/"
            async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint) as session:
                entered.set()
                if leave:
                    session.close(0, RAW)
                await session.wait_closed()
    assert_printable(caplog)
    assert "\\x1b[31mred\\r\\nERROR" in caplog.text


async def test_transport_close_reasons(caplog):
    """The reason of a QUIC connection that a peer closes below HTTP/3 is escaped and cut, too."""
    caplog.set_level(logging.DEBUG)
    async with serving(page) as listener, connect_http3(listener.port) as peer:
        assert await peer.answer(peer.request("/")) == (200, b"hello")
        caplog.clear()
        # What this peer logs is aioquic's own.
        logging.getLogger("quic").addFilter(ours := lambda record: not record.getMessage().count("close sent"))
        try:
            peer.quic.close(error_code=0x100, reason_phrase=RAW[:300])
            peer.flush()
            await trio.testing.wait_all_tasks_blocked(0.05)
        finally:
            logging.getLogger("quic").removeFilter(ours)
    assert [record for record in caplog.records if "Connection close received" in record.getMessage()]
    assert_printable(caplog)


async def test_refused_hosts_and_pages(caplog):
    """The host and the page of a refused request are escaped and cut."""
    caplog.set_level(logging.INFO)
    long = "a" * 3000 + ".example"
    async with (
        serving(page, hold, authorities=["media.example"]) as listener,
        connect_http3(listener.port) as peer,
    ):
        number = peer.request(
            "/",
            method="CONNECT",
            headers=((b":protocol", b"webtransport"), (b"origin", b"https://" + long.encode())),
            end=False,
            authority=long,
        )
        assert await peer.status(number) == 421
    assert "refused" in caplog.text
    assert_printable(caplog)


@SCHEMES
@pytest.mark.parametrize("how", ["client leaves", "handler returns", "shutdown"])
async def test_one_line_a_session(scheme, how, caplog):
    """At INFO a session is one line of ours when it ends, with its peer and its path, and no other logger has any."""
    caplog.set_level(logging.INFO)
    config = Config()

    async def handler(request):
        async with request.accept() as session:
            if how == "handler returns":
                await entered.wait()
            else:
                await session.wait_closed()

    for _ in range(3):
        entered = trio.Event()
        async with serving(page, moqt.Router({"/live": handler}), config=config) as listener:
            url = f"{scheme}://localhost:{listener.port}/live?token=token-5ecret"
            async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint) as session:
                entered.set()
                if how == "shutdown":
                    await listener.aclose(grace=0)
                if how != "client leaves":
                    await session.wait_closed()
            await trio.testing.wait_all_tasks_blocked(0.05)
    records = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert [record.name for record in records] == ["moqt_trio.server.acceptor"] * 3
    for record in records:
        assert record.getMessage().startswith("<SessionRequest /live moq-lite-06 over ")
        assert " ended after 0." in record.getMessage()
