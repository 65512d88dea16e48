"""A client of a hostile server: its logs and its exceptions have short lines of ASCII, and no query of its URLs."""

from __future__ import annotations

import logging
import socket
import traceback
from functools import partial

import attrs
import pytest
import trio

import moqt_trio as moqt
from moqt_trio.certificates import development_certificate
from moqt_trio.transport.webtransport.subprotocols import PROTOCOL
from tests.faults.api.test_goaway_redirects import leads_to, until_the_end
from tests.faults.web.test_logs import RAW, all_text, assert_printable, hold
from tests.http.serving import CERTIFICATE
from tests.transport.quic_pair import serve_quic, server_settings, until_closed
from tests.transport.webtransport.serving import serving as serving_webtransport

SCHEMES = pytest.mark.parametrize("scheme", ["moqt", "https"])
SECRET = "token-" + "5ecret"
TARGET = f"/page?token={SECRET}"
ONCE = moqt.Backoff(initial=0.01, retries=1)
LONGEST = 2000
"""Characters of an exception: a sentence, and at most a few texts of a peer in it, each cut."""


@pytest.fixture(autouse=True)
def every_level(caplog):
    caplog.set_level(logging.DEBUG)


def assert_safe(error: BaseException) -> None:
    """An exception shows the same on one short line of ASCII wherever it is printed, and nothing that is secret."""
    while error is not None:
        for shown in (str(error), repr(error)):
            assert SECRET not in shown
            assert shown.isascii(), shown
            assert shown.isprintable(), shown
            assert len(shown) < LONGEST
        assert SECRET not in "".join(traceback.format_exception(error))
        error = error.__cause__ or error.__context__


def check(caplog, *errors: BaseException) -> None:
    """Neither the exceptions nor the logs so far have anything that they should not."""
    for error in errors:
        assert_safe(error)
    assert SECRET not in "\n".join(all_text(caplog))
    assert_printable(caplog)


async def failure_of(url: str, **options) -> BaseException:
    """Connect, and return the exception; of a session that was opened, how it ended."""
    options = {"fingerprint": CERTIFICATE.fingerprint, "limits": moqt.Limits(connect_timeout=1), **options}
    try:
        with trio.fail_after(10):
            async with moqt.connect(url, **options) as session:
                return await session.wait_closed()
    except moqt.MoqtError as error:
        return error


async def failure_of_reconnecting(url: str, handler=until_the_end, **options) -> BaseException:
    """Stay connected, and return the exception that ends it."""
    options = {"fingerprint": CERTIFICATE.fingerprint, "limits": moqt.Limits(connect_timeout=1), **options}
    with trio.fail_after(10), pytest.raises(moqt.MoqtError) as caught:
        await moqt.stay_connected(url, handler, retry=ONCE, **options)
    return caught.value


# -- no session -----------------------------------------------------------------------------------------------


@SCHEMES
async def test_nothing_answers(scheme, caplog):
    """Nothing listens, or what listens is silent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}{TARGET}"
        timeout = await failure_of(url, limits=moqt.Limits(connect_timeout=0.1))
        assert isinstance(timeout, moqt.ConnectTimeout)
        again = await failure_of_reconnecting(url, limits=moqt.Limits(connect_timeout=0.1), retry_first=True)
    refused = await failure_of(url)
    assert isinstance(refused, moqt.HandshakeFailed)
    assert "trying" in caplog.text
    check(caplog, timeout, again, refused)


@SCHEMES
async def test_a_server_that_is_not_trusted(scheme, caplog):
    """The certificate is another one than the client expects."""
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, certificate=CERTIFICATE), hold, "localhost", 0)
        url = f"{scheme}://localhost:{listener.port}{TARGET}"
        error = await failure_of(url, fingerprint=development_certificate(hosts=["other.example"]).fingerprint)
        nursery.cancel_scope.cancel()
    assert isinstance(error, moqt.CertificateInvalid)
    check(caplog, error)


@SCHEMES
@pytest.mark.parametrize("status", [403, 406, 503])
async def test_refusals(scheme, status, caplog):
    """A refusal with a hostile reason; of a client that stays connected, too."""

    async def refuse(request: moqt.SessionRequest) -> None:
        await request.reject(status, RAW)

    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, certificate=CERTIFICATE)
        listener = await nursery.start(serve, moqt.Router({"/page": refuse}), "localhost", 0)
        url = f"{scheme}://localhost:{listener.port}{TARGET}"
        error = await failure_of(url)
        again = await failure_of_reconnecting(url, retry_first=True)
        nursery.cancel_scope.cancel()
    # Escaped once, over either transport.
    assert ": \\x1b[31mred\\r\\nERROR forged line\\u202e" in str(error)
    check(caplog, error, again)


@SCHEMES
async def test_versions_that_are_not_shared(scheme, caplog):
    """A server says in its own words, which are hostile, that it shares no protocol."""
    settings = server_settings(alpns=("other",), offered=(RAW[:200],))
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(serve_quic, until_closed, "127.0.0.1", 0, settings))
        error = await failure_of(f"{scheme}://127.0.0.1:{listener.port}{TARGET}", verify=False, fingerprint=None)
        nursery.cancel_scope.cancel()
    assert isinstance(error, moqt.VersionUnsupported)
    assert "\\x1b[31mred" in str(error)
    check(caplog, error)


ANSWERS = {
    "protocol": [(b":status", b"200"), (PROTOCOL, b'"[31m' + b"x" * 3000 + b'"')],
    "protocol that is no text": [(b":status", b"200"), (PROTOCOL, b"\x1b[31m\xe2\x80\xae")],
    "status": [(b":status", b"\x1b[31m")],
    "field": [(b":status", b"403"), (b"server", b"\x1b[31m\r\n\xe2\x80\xae")],
    "large": [(b":status", b"403"), *[(b"server", b"\x1b[31m" * 500)] * 50],
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
async def test_answers_of_http3(answer, caplog):
    """An answer to a request for a session whose fields are hostile."""

    async def odd(request) -> None:
        request._exchange.send_headers(answer)
        await request._session.wait_closed()

    async with serving_webtransport(odd) as served:
        error = await failure_of(f"https://localhost:{served.port}{TARGET}", verify=False, fingerprint=None)
    assert isinstance(error, moqt.MoqtError)
    check(caplog, error)


# -- a session ------------------------------------------------------------------------------------------------


@SCHEMES
async def test_ends(scheme, caplog):
    """A session that is closed for a hostile reason, and again when it was opened anew."""

    async def close(request: moqt.SessionRequest) -> None:
        async with request.accept() as session:
            session.close(0x77, RAW)

    async def read(session: moqt.Session) -> None:
        async with session.announcements() as announcements:
            await announcements.receive()

    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, certificate=CERTIFICATE)
        listener = await nursery.start(serve, moqt.Router({"/page": close}), "localhost", 0)
        url = f"{scheme}://localhost:{listener.port}{TARGET}"
        error = await failure_of(url)
        again = await failure_of_reconnecting(url, read)
        nursery.cancel_scope.cancel()
    assert "\\x1b[31mred\\r\\nERROR" in str(error)
    check(caplog, error, again)


URIS = {
    "another host": f"https://other.example/x?token={SECRET}",
    "with a user": f"https://me:{SECRET}@other.example/",
    "with a fragment": f"https://other.example/#{SECRET}",
    "of another scheme": f"http://other.example/?token={SECRET}",
    "no URI": RAW,
    "long": f"https://other.example/{'x' * 5000}?{SECRET}",
    "the same host": f"/page/{RAW}",
}


@SCHEMES
@pytest.mark.parametrize("uri", URIS.values(), ids=URIS.keys())
async def test_redirects(scheme, uri, caplog):
    """A GOAWAY whose URI is hostile, or has a credential."""
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, certificate=CERTIFICATE)
        listener = await nursery.start(serve, moqt.Router({"/page": leads_to(uri)}), "localhost", 0)
        error = await failure_of_reconnecting(f"{scheme}://localhost:{listener.port}{TARGET}")
        nursery.cancel_scope.cancel()
    assert isinstance(error, moqt.RedirectRefused)
    for shown in (error.uri, *error.chain):
        assert SECRET not in shown
        assert shown.isprintable()
    check(caplog, error)


@SCHEMES
async def test_a_redirect_that_is_followed(scheme, caplog):
    """The query goes along to the next session, and into no log."""
    seen = []

    async def arrive(request: moqt.SessionRequest) -> None:
        seen.append((request.path, request.query))
        await hold(request)

    async def leave(request: moqt.SessionRequest) -> None:
        await leads_to(f"{scheme}://localhost:{listener.port}/next")(request)

    async def handler(session: moqt.Session) -> bool | None:
        with trio.move_on_after(0.5):
            await session.wait_goaway()
        return len(seen) == 1

    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, certificate=CERTIFICATE)
        listener = await nursery.start(serve, moqt.Router({"/page": leave, "/next": arrive}), "localhost", 0)
        url = f"{scheme}://localhost:{listener.port}{TARGET}"
        assert await moqt.stay_connected(url, handler, fingerprint=CERTIFICATE.fingerprint)
        nursery.cancel_scope.cancel()
    assert seen == [("/next", f"token={SECRET}")]
    assert "asked to leave" in caplog.text
    check(caplog)


# -- what is counted ------------------------------------------------------------------------------------------


def test_statistics_are_numbers():
    """No text of a peer is in a statistic, so none becomes the name or the label of a metric."""
    kinds = (moqt.ListenerStatistics, moqt.SessionStatistics, moqt.SubscriptionStatistics, moqt.TransportStatistics)
    for kind in kinds:
        for attribute in attrs.fields(kind):
            types = set(str(attribute.type).split(" | "))
            assert types <= {"int", "float", "None", "TransportStatistics"}, (kind, attribute.name)
