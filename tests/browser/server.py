"""A WebTransport server whose paths do what the browser tests need: `python -m tests.browser.server PORT`.

It prints a JSON line for each thing that a test waits for, and shuts down when its standard input ends.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import trio

from moqt_trio.certificates import development_certificate
from moqt_trio.errors import SessionClosed, StreamReset
from moqt_trio.limits import Limits
from moqt_trio.transport.quic.settings import ServerIdentity, ServerSettings
from moqt_trio.transport.webtransport.server import serve_http3
from tests.transport.awaiting import accept_bidi, accept_uni, receive_datagram, send_all
from tests.transport.quic_pair import serve_quic

if TYPE_CHECKING:
    from moqt_trio.transport.quic.connection import QuicConnection
    from moqt_trio.transport.receive_stream import ReceiveStream
    from moqt_trio.transport.stream import BidiStream
    from moqt_trio.transport.webtransport.server import WebTransportRequest
    from moqt_trio.transport.webtransport.session import WebTransportSession

Query = dict[str, str]

_page: ContextVar[str | None] = ContextVar("page", default=None)
"""The page of the session that a task serves: `page` in the query."""


def report(event: str, **fields: Any) -> None:
    """Prints one event, with the page of its session."""
    print(json.dumps({"event": event, "page": _page.get(), **fields}), flush=True)


async def read_all(stream: ReceiveStream) -> bytes:
    """Reads a stream to its end."""
    pieces = []
    while piece := await stream.receive_some():
        pieces.append(piece)
    return b"".join(pieces)


async def echo_bidi(session: WebTransportSession, query: Query) -> None:
    """Sends back what comes on each stream, as it comes."""

    async def echo(stream: BidiStream) -> None:
        try:
            while piece := await stream.receive_some():
                await send_all(stream, piece)
        except StreamReset as error:
            stream.reset(error.code)
        else:
            stream.finish()

    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(echo, await accept_bidi(session))


async def echo_uni(session: WebTransportSession, query: Query) -> None:
    """Sends back each stream, once it is complete, on a stream of its own."""

    async def echo(incoming: ReceiveStream) -> None:
        data = await read_all(incoming)
        outgoing = await session.open_uni()
        await send_all(outgoing, data)
        outgoing.finish()

    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(echo, await accept_uni(session))


async def ask(session: WebTransportSession, query: Query) -> None:
    """Opens a stream with a question, and sends the answer back after it."""
    stream = await session.open_bidi()
    await send_all(stream, b"question?")
    answer = await read_all(stream)
    await send_all(stream, b" " + answer)
    stream.finish()
    await session.wait_closed()


async def echo_datagrams(session: WebTransportSession, query: Query) -> None:
    """Sends back each datagram."""
    report("datagrams", max_size=session.max_datagram_size)
    while True:
        session.send_datagram(await receive_datagram(session))


async def reset_stream(session: WebTransportSession, query: Query) -> None:
    """Resets and stops the client's first stream with the codes that it asks for."""
    stream = await accept_bidi(session)
    await stream.receive_some()
    stream.reset(int(query["reset"]))
    stream.stop(int(query["stop"]))
    await session.wait_closed()


async def reset_at_once(session: WebTransportSession, query: Query) -> None:
    """Opens a stream of each kind for each one that arrives, and resets it before its first packet."""
    while True:
        await accept_uni(session)
        for stream in (await session.open_uni(), await session.open_bidi()):
            stream.write(bytes(5000))
            stream.reset(int(query["reset"]))


async def report_resets(session: WebTransportSession, query: Query) -> None:
    """Prints the codes with which the client's first stream was reset and stopped."""
    stream = await accept_bidi(session)
    await stream.receive_some()
    report("reading")
    try:
        await read_all(stream)
    except StreamReset as error:
        report("reset", code=error.code)
    try:
        while True:
            await send_all(stream, bytes(1000))
    except StreamReset as error:
        report("stopped", code=error.code)
    await session.wait_closed()


async def close(session: WebTransportSession, query: Query) -> None:
    """Closes the session as the client asks for, once a stream has arrived."""
    await read_all(await accept_uni(session))
    session.close(int(query["code"]), query["reason"])


async def idle(session: WebTransportSession, query: Query) -> None:
    """Waits until the session is closed."""
    await session.wait_closed()


async def open_many(session: WebTransportSession, query: Query) -> None:
    """Sends a stream of its own for each number below the count, all at once."""

    async def send(number: int) -> None:
        stream = await session.open_uni()
        await send_all(stream, b"%d " % number * 500)
        stream.finish()

    async with trio.open_nursery() as nursery:
        for number in range(int(query["count"])):
            nursery.start_soon(send, number)
    await session.wait_closed()


async def flood(session: WebTransportSession, query: Query) -> None:
    """Sends on one stream forever."""
    stream = await session.open_uni()
    while True:
        await send_all(stream, bytes(10_000))


PATHS: dict[str, Callable[[WebTransportSession, Query], Awaitable[None]]] = {
    "/bidi": echo_bidi,
    "/uni": echo_uni,
    "/ask": ask,
    "/datagrams": echo_datagrams,
    "/reset": reset_stream,
    "/reset-at-once": reset_at_once,
    "/report-resets": report_resets,
    "/close": close,
    "/idle": idle,
    "/many": open_many,
    "/flood": flood,
}


async def on_session(request: WebTransportRequest) -> None:
    """Runs the function of the path, and prints how the session ended."""
    query = {name: values[0] for name, values in parse_qs(request.query).items()}
    _page.set(query.get("page"))
    if request.path not in PATHS:
        request.reject(int(query.get("status", 404)), b"no such path")
        return
    report("session", path=request.path, protocols=list(request.protocols), origin=request.origin)
    session = request.accept(query.get("protocol"))

    async def report_end() -> None:
        error = await session.wait_closed()
        assert isinstance(error, SessionClosed)
        report("closed", path=request.path, code=error.remote_code, reason=error.reason, by_peer=error.by_peer)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(report_end)
            await PATHS[request.path](session, query)
    except* SessionClosed:
        pass


async def main(port: int) -> None:
    """Serves until standard input ends."""
    certificate = development_certificate()
    identity = ServerIdentity(certificate.certificate, certificate.chain, certificate.private_key)
    # Chromium refuses to open a stream at the limit instead of waiting for a further one.
    limits = Limits(max_streams=256)

    async def handle(connection: QuicConnection) -> None:
        await serve_http3(connection, on_session, limits=limits)

    settings = ServerSettings(alpns=("h3",), identity=lambda: identity, limits=limits)
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(serve_quic, handle, "localhost", port, settings))
        report("listening", port=listener.port, fingerprint=certificate.fingerprint.hex())
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
