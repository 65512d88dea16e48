"""A WebTransport client made with `pywebtransport` alone (Rust, draft-15); it shares no line with this project.

Usage: `python pywebtransport_client.py URL TASK [PROTOCOL...]`, where TASK is one of the functions below, and each
PROTOCOL a subprotocol to offer. It needs Python 3.12 or later. A JSON line is printed for each event that a test waits
for; the exit code is 0 only when the task is complete.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import sys
from collections.abc import Awaitable, Callable

from pywebtransport import (
    ClientConfig,
    ClientError,
    ConnectionError,
    StreamError,
    WebTransportClient,
    WebTransportSession,
)
from pywebtransport.types import EventType

TIMEOUT = 20.0
"""Seconds for the whole run."""
CLOSE = (0xFFFFFFFF, "r\u00e9sum\u00e9" * 128)
"""The largest code, and a reason of 1024 bytes."""


def report(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def noise(size: int) -> bytes:
    """Returns bytes that are the same in each run and do not repeat."""
    return hashlib.shake_128(b"noise").digest(size)


async def go_on() -> None:
    """Waits for a line on standard input."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


class Closed:
    """Waits for the end of a session."""

    def __init__(self, session: WebTransportSession) -> None:
        self._end: asyncio.Future[dict[str, object]] = asyncio.get_running_loop().create_future()
        session.events.on(event_type=EventType.SESSION_CLOSED, handler=self._take)

    def _take(self, event: object) -> None:
        if not self._end.done():
            self._end.set_result(event.data)

    async def wait(self) -> None:
        data = await self._end
        report("closed", code=data["error_code"], reason=data["reason"])


async def bidi(session: WebTransportSession) -> None:
    """Has a little and a megabyte echoed, and thirty streams at once."""

    async def echo(data: bytes) -> bool:
        stream = await session.create_bidirectional_stream()
        # Both directions at once: the echo begins while the rest is still on its way.
        writing = asyncio.create_task(stream.write_all(data=data, end_stream=True))
        received = await stream.read_all()
        await writing
        return received == data

    for size in (0, 1, 5000, 1 << 20):
        report("echo", size=size, same=await echo(noise(size)))
    together = await asyncio.gather(*(echo(b"stream %d" % number) for number in range(30)))
    report("together", same=sum(together))


async def uni(session: WebTransportSession) -> None:
    """Sends a megabyte on a stream, and reads it back from one that the server opens."""
    data = noise(1 << 20)
    stream = await session.create_unidirectional_stream()
    await stream.write_all(data=data, end_stream=True)
    async for incoming in session.incoming_unidirectional_streams():
        report("echo", same=await incoming.read_all() == data)
        break


async def ask(session: WebTransportSession) -> None:
    """Answers the question on a stream that the server opens."""
    async for stream in session.incoming_bidirectional_streams():
        report("question", text=(await stream.readexactly(size=9)).decode())
        await stream.write_all(data=b"answer", end_stream=True)
        report("reply", text=(await stream.read_all()).decode())
        break


async def many(session: WebTransportSession) -> None:
    """Reads sixty streams that the server opens at once."""
    count = 0
    async for stream in session.incoming_unidirectional_streams():
        number = (await stream.read_all()).split()
        count += len(number) == 500 and len(set(number)) == 1
        if count == 60:
            break
    report("streams", count=count)


async def datagrams(session: WebTransportSession) -> None:
    """Has datagrams echoed, the empty one and a large one among them."""
    for size in (0, 1, 100, 1150):
        data = noise(size)
        await session.send_datagram(data=data)
        report("datagram", size=size, same=await session.read_datagram() == data)


async def codes_of_server(session: WebTransportSession) -> None:
    """Reports the codes with which the server resets and stops a stream."""
    codes: dict[EventType, asyncio.Future[int]] = {}
    stream = await session.create_bidirectional_stream()
    for kind in (EventType.STREAM_RESET_RECEIVED, EventType.STREAM_STOP_SENDING_RECEIVED):
        codes[kind] = asyncio.get_running_loop().create_future()
        stream.events.on(event_type=kind, handler=lambda event: codes[event.type].set_result(event.data["error_code"]))
    await stream.write(data=b"x")
    try:
        await stream.read_all()
    except StreamError as error:
        report("read failed", code=error.error_code)
    for kind, code in codes.items():
        report(kind.value, code=await code)


async def tells_codes(session: WebTransportSession) -> None:
    """Resets and stops a stream with codes of its own, each step at a line on standard input."""
    stream = await session.create_bidirectional_stream()
    await stream.write(data=b"x")
    await go_on()
    await stream.reset(error_code=77)
    await stream.stop_receiving(error_code=0xFFFFFFFF)
    await go_on()


async def hears_close(session: WebTransportSession) -> None:
    """Says that it is ready by a stream, and reports with what code and reason the server closes."""
    closed = Closed(session)
    stream = await session.create_unidirectional_stream()
    await stream.write_all(data=b"", end_stream=True)
    await closed.wait()


async def closes(session: WebTransportSession) -> None:
    """Closes with a code and a reason, and reports that its own side has ended."""
    closed = Closed(session)
    code, reason = CLOSE
    await session.close(error_code=code, reason=reason)
    await closed.wait()


async def drained(session: WebTransportSession) -> None:
    """Reports that the server drains the session, and closes it."""
    asked = asyncio.Event()
    session.events.on(event_type=EventType.SESSION_DRAINING, handler=lambda event: asked.set())
    report("waiting")
    await asked.wait()
    report("draining")
    await session.close(error_code=3, reason="asked to leave")


async def second(session: WebTransportSession) -> None:
    """Asks for a second session on the connection, and uses the first one after that."""
    try:
        await session.connection.create_session(authority="127.0.0.1", path=session.path, headers=[])
    except ConnectionError as error:
        report("second session", code=error.error_code)
    stream = await session.create_bidirectional_stream()
    await stream.write_all(data=b"still here", end_stream=True)
    report("echo", text=(await stream.read_all()).decode())
    report("flow control", negotiated=(await session.diagnose()).flow_control_negotiated)


TASKS: dict[str, Callable[[WebTransportSession], Awaitable[None]]] = {
    task.__name__: task
    for task in (
        bidi,
        uni,
        ask,
        many,
        datagrams,
        codes_of_server,
        tells_codes,
        hears_close,
        closes,
        drained,
        second,
    )
}


async def run(url: str, task: str, protocols: list[str]) -> None:
    """Connects, and does the task."""
    config = ClientConfig(verify_mode=ssl.CERT_NONE, wt_available_protocols=protocols or None)
    async with WebTransportClient(config=config) as client:
        try:
            session = await client.connect(url=url)
            await session.ensure_ready()
        except ClientError as error:
            report("refused", code=error.error_code)
            return
        report("ready", protocol=session.wt_protocol)
        await TASKS[task](session)
        report("done")


def main() -> int:
    """Runs the client and returns the exit code."""
    try:
        asyncio.run(asyncio.wait_for(run(sys.argv[1], sys.argv[2], sys.argv[3:]), TIMEOUT))
    except Exception as error:
        report("error", kind=type(error).__name__, text=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
