"""A WebTransport server made with `pywebtransport` alone (Rust, draft-15); it shares no line with this project.

Usage: `python pywebtransport_server.py PORT CERTIFICATE KEY`. It needs Python 3.12 or later. It chooses the last of the
subprotocols that are offered; on each session it echoes bidirectional streams and datagrams, and answers each
unidirectional stream with one of its own. `close` on a bidirectional stream makes it close the session. A JSON line is
printed for each thing that a test looks at; it ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Coroutine

from pywebtransport import (
    ServerConfig,
    SessionError,
    StreamError,
    WebTransportBidirectionalStream,
    WebTransportConnection,
    WebTransportReceiveStream,
    WebTransportServer,
    WebTransportSession,
)
from pywebtransport.types import EventType

_tasks: set[asyncio.Task[None]] = set()


def report(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def start(work: Coroutine[None, None, None]) -> None:
    """Runs something beside the rest; keeps a reference, as asyncio does not."""
    task = asyncio.create_task(work)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def echo_bidi(session: WebTransportSession, stream: WebTransportBidirectionalStream) -> None:
    try:
        while data := await stream.read(max_size=65536):
            if data == b"close":
                await session.close(error_code=41, reason="as you wish")
                return
            await stream.write_all(data=data)
        await stream.write_all(data=b"", end_stream=True)
    except StreamError as error:
        report("stream failed", code=error.error_code)


async def echo_uni(session: WebTransportSession, stream: WebTransportReceiveStream) -> None:
    data = await stream.read_all()
    answer = await session.create_unidirectional_stream()
    await answer.write_all(data=data, end_stream=True)


async def echo_datagrams(session: WebTransportSession) -> None:
    with contextlib.suppress(SessionError):
        while True:
            await session.send_datagram(data=await session.read_datagram())


async def accept_bidi(session: WebTransportSession) -> None:
    async for stream in session.incoming_bidirectional_streams():
        start(echo_bidi(session, stream))


async def accept_uni(session: WebTransportSession) -> None:
    async for stream in session.incoming_unidirectional_streams():
        start(echo_uni(session, stream))


async def serve_session(session: WebTransportSession) -> None:
    for kind in (EventType.SESSION_DRAINING, EventType.SESSION_CLOSED):
        session.events.on(event_type=kind, handler=lambda event: _report_session(event.type, event.data))
    offered = session.wt_available_protocols
    await session.accept(wt_protocol=offered[-1] if offered else None)
    diagnostics = await session.diagnose()
    report("session", path=session.path, offered=offered, flow_control=diagnostics.flow_control_negotiated)
    for work in (accept_bidi(session), accept_uni(session), echo_datagrams(session)):
        start(work)


def _report_session(kind: str, data: dict[str, object]) -> None:
    report(str(kind), code=data.get("error_code"), reason=data.get("reason"))


async def serve_connection(connection: WebTransportConnection) -> None:
    async for session in connection.incoming_sessions():
        start(serve_session(session))


async def run(port: int, certificate: str, key: str) -> None:
    """Serves until standard input ends."""
    config = ServerConfig(bind_host="127.0.0.1", bind_port=port, certfile=certificate, keyfile=key)
    async with WebTransportServer(config=config) as server:
        await server.listen()
        report("listening")

        async def accept() -> None:
            async for connection in server.incoming_connections():
                start(serve_connection(connection))

        start(accept())
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(run(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
