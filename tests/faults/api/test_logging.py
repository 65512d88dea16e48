"""Loggers that fail or are slow: a full disk, a handler that raises, one that blocks. Sessions go on."""

from __future__ import annotations

import errno
import logging
import os
import time
from contextlib import suppress
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from tests.faults.raw_peer import SETUP
from tests.transport.quic_pair import CERTIFICATE, client_settings, connect_quic

GROUPS = 30
LOGGERS = ("moqt_trio", "quic")
SCHEMES = pytest.mark.parametrize("scheme", ["moqt", "https"])


class Raising(logging.Handler):
    """Raises, as none of the standard library's handlers does.

    Attributes:
        called: How many records came.
    """

    called = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.called += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullDisk(logging.FileHandler):
    """Writes to a disk that has no room."""

    called = 0

    def __init__(self) -> None:
        super().__init__("/dev/full")

    def handleError(self, record: logging.LogRecord) -> None:
        self.called += 1

    def close(self) -> None:
        # What is buffered cannot be written either.
        with suppress(OSError):
            super().close()


class Slow(logging.Handler):
    """Blocks the process for a millisecond with every record."""

    called = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.called += 1
        time.sleep(0.001)


@pytest.fixture(params=[Raising, FullDisk, Slow])
def handler(request, monkeypatch):
    """A logging handler for every record at DEBUG and above of the library and of its QUIC engine."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = request.param()
    for name in LOGGERS:
        logger = logging.getLogger(name)
        monkeypatch.setattr(logger, "propagate", False)
        monkeypatch.setattr(logger, "level", logging.DEBUG)
        logger.addHandler(handler)
        logger.manager._clear_cache()
    yield handler
    for name in LOGGERS:
        logging.getLogger(name).removeHandler(handler)
    handler.close()
    logging.Logger.manager._clear_cache()


@SCHEMES
async def test_sessions_beside_a_logger_that_fails(handler, scheme):
    """While sessions begin, end, fail by their handler and break the protocol, each of which is logged, a subscriber
    gets every group of its track, and a fresh client is served."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")

    async def publish(request):
        async with request.accept() as session, session.publish("b", broadcast):
            await session.wait_closed()

    async def fail(request):
        async with request.accept():
            raise RuntimeError("a bug of the application's")

    async def refuse(request):
        raise moqt.Unauthorized("b")

    async with trio.open_nursery() as nursery:
        router = moqt.Router({"/": publish, "/fail": fail, "/refuse": refuse}, default="/")
        listener = await nursery.start(partial(moqt.serve, router, "localhost", 0, certificate=CERTIFICATE))
        connect = partial(moqt.connect, fingerprint=CERTIFICATE.fingerprint)
        url = f"{scheme}://localhost:{listener.port}"
        async with connect(f"{url}/") as session, session.subscribe("b", "t", ordered=True, max_age=60) as subscription:
            await track.wait_subscribed()
            for number in range(GROUPS):
                if number % 5 == 4:
                    await break_protocol(listener.port)
                else:
                    where = ("", "fail", "refuse", "missing")[number % 5]
                    with trio.fail_after(10), suppress(moqt.MoqtError):
                        async with connect(f"{url}/{where}") as visitor:
                            if where:
                                await visitor.wait_closed()
                await track.write(b"%d" % number)
                with trio.fail_after(10):
                    group = await subscription.receive()
                    assert await group.read_all() == [b"%d" % number]
            assert session.closed is None
        with trio.fail_after(5):
            async with connect(f"{url}/"):
                pass
        nursery.cancel_scope.cancel()
    assert handler.called > GROUPS


async def break_protocol(port: int) -> None:
    """Be a peer over raw QUIC that sends a SUBSCRIBE which cannot be decoded, until the server closes the session."""
    async with connect_quic("127.0.0.1", port, client_settings()) as peer:
        (await peer.open_uni()).write(SETUP, fin=True)
        (await peer.open_bidi()).write(b"\x02\x01\xff")
        with trio.fail_after(10):
            assert (await peer.wait_closed()).remote_code == 0x3
