"""Whose failure it is: a peer that breaks its negotiation, an application that refuses, and one that fails."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from tests.http.serving import CERTIFICATE
from tests.peers.aioquic_http3 import connect_http3
from tests.transport.quic_pair import client_settings, connect_quic

SCHEMES = pytest.mark.parametrize("scheme", ["https", "moqt"])
LIMITS = moqt.Limits(setup_timeout=0.3, close_timeout=0.5)


class AppError(Exception):
    """An application's own failure."""


async def plain(request):
    async with request.accept() as session:
        await session.wait_closed()


async def in_a_nursery(request):
    async with trio.open_nursery() as nursery:

        async def run():
            async with request.accept() as session:
                await session.wait_closed()

        nursery.start_soon(run)
        nursery.start_soon(trio.sleep_forever)


async def around_a_nursery(request):
    async with trio.open_nursery() as outer, trio.open_nursery() as inner, request.accept() as session:
        outer.start_soon(trio.sleep_forever)
        inner.start_soon(session.wait_closed)


async def wraps_the_peers_failure(request):
    try:
        async with request.accept():
            pass
    except moqt.MoqtError as error:
        raise AppError("no session") from error


async def fails_like_a_peer(request):
    async with request.accept():
        raise moqt.ConnectTimeout("of a connection of its own")


async def fails_beside(request):
    """Fail by itself while the negotiation fails."""
    try:
        async with request.accept():
            pass
    except moqt.MoqtError as error:
        raise ExceptionGroup("two", [error, AppError("its own")]) from None


def records(caplog, level):
    return [record for record in caplog.records if record.name.startswith("moqt_trio") and record.levelno >= level]


@asynccontextmanager
async def listening(handler, limits=None):
    async with trio.open_nursery() as nursery:
        serve = nursery.start
        listener = await serve(
            lambda task_status: moqt.serve(
                handler, "localhost", 0, certificate=CERTIFICATE, limits=limits, task_status=task_status
            )
        )
        yield listener
        nursery.cancel_scope.cancel()


async def break_negotiation(port, data):
    """Ask for a session without a subprotocol, so that a handshake decides, and send these bytes or nothing."""
    async with connect_http3(port) as peer:
        session = peer.connect("/")
        assert await peer.status(session) == 200
        if data is not None:
            peer.open_stream(session, data)
        await peer.wait(lambda: peer.ended(session))


async def end_of(url, **options):
    """Return how a session ended, if only while it was opened."""
    try:
        async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint, **options) as session:
            return await session.wait_closed()
    except moqt.SessionClosed as error:
        return error


BROKEN = {
    "silent": None,
    "garbage": b"\x3f" * 40,
    "no shared version": bytes.fromhex("2006018001000000"),
}


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("handler", [plain, in_a_nursery, around_a_nursery], ids=lambda value: value.__name__)
async def test_a_peer_that_breaks_its_negotiation(handler, how, caplog):
    """Over WebTransport too, a peer that is silent or breaks the handshake is one INFO line, no handler's failure."""
    caplog.set_level(logging.INFO)
    async with listening(handler, LIMITS) as listener:
        with trio.fail_after(10):
            await break_negotiation(listener.port, BROKEN[how])
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert listener.statistics().sessions == listener.statistics().sessions_accepted == 0
    [record] = records(caplog, logging.INFO)
    assert record.levelno == logging.INFO
    assert record.message.startswith("no session with ('127.0.0.1'") or "::1" in record.message
    assert record.exc_info is None


async def silent_over_webtransport(port, version):
    """Open a session of a version that begins with SETUP, and send nothing on it; return the code of its end."""
    offer = (b"wt-available-protocols", f'"{version}"'.encode())
    async with connect_http3(port) as peer:
        session = peer.connect("/", headers=(offer,))
        assert await peer.status(session) == 200
        await peer.wait(lambda: peer.ended(session))
        [(_, value)] = peer.capsules(session)
        return int.from_bytes(value[:4], "big")


async def silent_over_quic(port, version):
    """Open a connection of a version that begins with SETUP, and send nothing on it; return the code of its end."""
    settings = client_settings(alpns=(version,), fingerprints=(), verify=False)
    async with connect_quic("localhost", port, settings) as peer:
        return (await peer.wait_closed()).remote_code


@pytest.mark.parametrize("silent", [silent_over_quic, silent_over_webtransport], ids=lambda value: value.__name__)
@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-05"])
async def test_a_client_that_sends_no_setup(version, silent, caplog):
    """After `Limits.setup_timeout` it is closed with CONTROL_MESSAGE_TIMEOUT, and is one INFO line.

    Over WebTransport the request has the path, so that the handler is called and the line is its session's.
    """
    caplog.set_level(logging.INFO)
    ends = []

    async def handler(request):
        async with request.accept() as session:
            ends.append(await session.wait_closed())

    async with listening(handler, LIMITS) as listener:
        began = trio.current_time()
        with trio.fail_after(10):
            assert await silent(listener.port, version) == moqt.SessionCode.CONTROL_MESSAGE_TIMEOUT
            assert LIMITS.setup_timeout <= trio.current_time() - began < LIMITS.setup_timeout + 1
            await trio.testing.wait_all_tasks_blocked(0.05)
        assert listener.statistics().sessions == 0
    handled = silent is silent_over_webtransport
    assert [end.local_code for end in ends] == [moqt.SessionCode.CONTROL_MESSAGE_TIMEOUT] * handled
    [record] = records(caplog, logging.INFO)
    assert record.levelno == logging.INFO
    assert record.message.startswith("<SessionRequest" if handled else "no session with (")
    assert record.message.endswith("code 0x11 (CONTROL_MESSAGE_TIMEOUT): the peer sent no SETUP in time")
    assert record.exc_info is None


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-04"])
async def test_a_webtransport_client_that_is_quiet_after_its_setup(version):
    """Once SETUP has arrived, a session may be silent; in a version without SETUP it may be from the start."""
    async with listening(plain, LIMITS) as listener:
        url = f"https://localhost:{listener.port}/"
        with trio.fail_after(10):
            async with moqt.connect(url, versions=[version], fingerprint=CERTIFICATE.fingerprint) as session:
                await trio.sleep(3 * LIMITS.setup_timeout)
                assert session.closed is None
                assert listener.statistics().sessions == 1


@pytest.mark.parametrize("handler", [wraps_the_peers_failure, fails_beside], ids=lambda value: value.__name__)
async def test_an_application_that_fails_for_it(handler, caplog):
    """An exception of the application is its failure, even with a peer's as its cause or beside it in a group."""
    caplog.set_level(logging.INFO)
    async with listening(handler, LIMITS) as listener:
        with trio.fail_after(10):
            await break_negotiation(listener.port, None)
            await trio.testing.wait_all_tasks_blocked(0.05)
    information, failure = records(caplog, logging.INFO)
    assert information.levelno == logging.INFO
    assert failure.levelno == logging.ERROR
    assert failure.exc_info is not None


@SCHEMES
async def test_an_application_that_fails_like_a_peer(scheme, caplog):
    """An exception of the same type from elsewhere is the application's failure."""
    async with listening(fails_like_a_peer) as listener:
        url = f"{scheme}://localhost:{listener.port}/"
        error = await end_of(url)
        assert error.remote_code == moqt.SessionCode.INTERNAL_ERROR
    [record] = records(caplog, logging.WARNING)
    assert record.levelno == logging.ERROR


async def refuses(request):
    raise moqt.Unauthorized("secret/room")


async def refuses_in_a_group(request):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuses, request)
        nursery.start_soon(refuses, request)


async def refuses_later(request):
    async with request.accept():
        raise moqt.Unauthorized("secret/room")


async def refuses_later_in_a_group(request):
    async with request.accept(), trio.open_nursery() as nursery:
        nursery.start_soon(refuses, request)
        nursery.start_soon(refuses, request)


@SCHEMES
@pytest.mark.parametrize("handler", [refuses, refuses_in_a_group], ids=lambda value: value.__name__)
async def test_unauthorized_before_the_answer(scheme, handler, caplog):
    """Raised before the request is answered, it is status 403 to the client and one INFO line to the server."""
    caplog.set_level(logging.INFO)
    async with listening(handler) as listener:
        url = f"{scheme}://localhost:{listener.port}/"
        with pytest.raises(moqt.Rejected) as caught:
            async with moqt.connect(url, fingerprint=CERTIFICATE.fingerprint):
                pass
        assert caught.value.status == 403
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert listener.statistics().sessions_rejected == 1
    [record] = records(caplog, logging.INFO)
    assert record.levelno == logging.INFO
    assert "not allowed: secret/room" in record.message
    assert record.exc_info is None


@SCHEMES
@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-03", "moq-lite-02"])
@pytest.mark.parametrize("handler", [refuses_later, refuses_later_in_a_group], ids=lambda value: value.__name__)
async def test_unauthorized_in_a_session(scheme, version, handler, caplog):
    """Raised in a session, it closes the session with UNAUTHORIZED, and is one INFO line."""
    caplog.set_level(logging.INFO)
    async with listening(handler) as listener:
        url = f"{scheme}://localhost:{listener.port}/"
        with trio.fail_after(5):
            error = await end_of(url, versions=[version])
        assert (error.by_peer, error.remote_code) == (True, moqt.SessionCode.UNAUTHORIZED)
        assert "0x2 (UNAUTHORIZED)" in str(error)
        await trio.testing.wait_all_tasks_blocked(0.05)
    [record] = records(caplog, logging.INFO)
    assert record.levelno == logging.INFO
    assert "not allowed: secret/room" in record.message


async def test_unauthorized_in_a_client():
    """In a client it leaves the block as it is."""
    async with listening(plain) as listener:
        with pytest.raises(moqt.Unauthorized):
            async with moqt.connect(f"moqt://localhost:{listener.port}/", fingerprint=CERTIFICATE.fingerprint):
                raise moqt.Unauthorized("a")
