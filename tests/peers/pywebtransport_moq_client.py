"""An echo client of moq-lite-04 on `pywebtransport`: its QUIC, HTTP/3 and WebTransport, and MoQ bytes by hand.

Usage: `python pywebtransport_moq_client.py URL COUNT`. It publishes the broadcast `japan/kyoto` with the track `text`,
one message to a group, waits for the server to publish the same path, and reads its messages back. It needs Python
3.12 or later. A JSON line is printed for each echo; the exit code is 0 only when every message came back.

Spec: draft-lcurley-moq-lite-04.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from typing import Protocol

from pywebtransport import (
    ClientConfig,
    WebTransportBidirectionalStream,
    WebTransportClient,
    WebTransportReceiveStream,
    WebTransportSession,
)

VERSION = "moq-lite-04"
PATH = b"japan/kyoto"
TRACK = b"text"
TIMEOUT = 20.0
"""Seconds for the whole run."""
ANNOUNCE, SUBSCRIBE, GROUP = 1, 2, 0
ACTIVE = 1
SUBSCRIPTION = 5


class Readable(Protocol):
    """The part of a stream that is read here."""

    async def readexactly(self, *, size: int) -> bytes: ...


def report(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def short(value: bytes) -> bytes:
    """Returns a string after its length, which fits one byte."""
    assert len(value) < 64
    return bytes([len(value)]) + value


def read_short(data: bytes) -> tuple[bytes, bytes]:
    """Returns a string after its length, and what follows it."""
    end = 1 + data[0]
    return data[1:end], data[end:]


async def read_varint(stream: Readable) -> int:
    first = (await stream.readexactly(size=1))[0]
    rest = await stream.readexactly(size=(1 << (first >> 6)) - 1)
    return int.from_bytes(bytes([first & 0x3F]) + rest, "big")


async def read_message(stream: Readable) -> bytes:
    return await stream.readexactly(size=await read_varint(stream))


def message(number: int) -> bytes:
    return f"message {number} 京都".encode()


class Client:
    """Both halves of an echo on one session."""

    def __init__(self, session: WebTransportSession, count: int) -> None:
        self._session = session
        self._count = count
        self._subscribed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._echoed: asyncio.Queue[bytes] = asyncio.Queue()
        self._open: list[object] = []

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(self._serve())
            reading = tasks.create_task(self._read_groups())
            await self._echo()
            serving.cancel()
            reading.cancel()

    # -- the publisher -------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        """Answers the requests that the server makes."""
        async for stream in self._session.incoming_bidirectional_streams():
            self._open.append(stream)
            kind = await read_varint(stream)
            request = await read_message(stream)
            if kind == ANNOUNCE:
                # Slashes at the ends are a matter of taste among the implementations of this version.
                prefix = read_short(request)[0].strip(b"/")
                assert PATH.startswith(prefix), prefix
                suffix = PATH.removeprefix(prefix).lstrip(b"/")
                # One hop: the sender's own id, which it appends in this version.
                body = bytes([ACTIVE]) + short(suffix) + b"\x01\x2a"
                await stream.write_all(data=short(body))
                report("asked for announcements", prefix=prefix.decode())
            elif kind == SUBSCRIBE:
                path, rest = read_short(request[1:])
                assert (path.strip(b"/"), read_short(rest)[0]) == (PATH, TRACK), request
                # SUBSCRIBE_OK: priority 128, not ordered, no latency, no bounds.
                await stream.write_all(data=bytes.fromhex("00 05 80 00 00 00 00"))
                report("subscribed to", id=request[0])
                self._subscribed.set_result(request[0])

    async def _publish(self, number: int) -> None:
        stream = await self._session.create_unidirectional_stream()
        header = bytes([await self._subscribed, number])
        await stream.write_all(data=bytes([GROUP]) + short(header) + short(message(number)), end_stream=True)

    # -- the subscriber ------------------------------------------------------------------------------------

    async def _request(self, kind: int, body: bytes) -> WebTransportBidirectionalStream:
        stream = await self._session.create_bidirectional_stream()
        self._open.append(stream)
        await stream.write_all(data=bytes([kind]) + short(body))
        return stream

    async def _echo(self) -> None:
        announcements = await self._request(ANNOUNCE, short(PATH) + b"\x00")
        announced = await read_message(announcements)
        assert (announced[0], read_short(announced[1:])[0].strip(b"/")) == (ACTIVE, b""), announced
        # Subscription 5: priority 1, ordered, an hour of latency, from group 0 without an end.
        body = bytes([SUBSCRIPTION]) + short(PATH) + short(TRACK) + bytes.fromhex("01 01 8036ee80 01 00")
        subscription = await self._request(SUBSCRIBE, body)
        answer = await read_varint(subscription)
        assert answer == 0, answer
        await read_message(subscription)
        wanted = set()
        for number in range(self._count):
            await self._publish(number)
            wanted.add(message(number))
        while wanted:
            payload = await self._echoed.get()
            wanted.remove(payload)
            report("echo", text=payload.decode())

    async def _read_groups(self) -> None:
        async for stream in self._session.incoming_unidirectional_streams():
            await self._read_group(stream)

    async def _read_group(self, stream: WebTransportReceiveStream) -> None:
        assert await read_varint(stream) == GROUP
        header = await read_message(stream)
        assert header[0] == SUBSCRIPTION, header
        payload = await read_message(stream)
        assert payload == message(header[1]), (header, payload)
        assert await stream.read_all() == b""
        self._echoed.put_nowait(payload)


async def run(url: str, count: int) -> None:
    """Connects and echoes."""
    config = ClientConfig(verify_mode=ssl.CERT_NONE, wt_available_protocols=[VERSION])
    async with WebTransportClient(config=config) as client:
        session = await client.connect(url=url)
        await session.ensure_ready()
        assert session.wt_protocol == VERSION, session.wt_protocol
        await Client(session, count).run()
        await session.close()
    report("done")


def main() -> int:
    """Runs the client and returns the exit code."""
    try:
        asyncio.run(asyncio.wait_for(run(sys.argv[1], int(sys.argv[2])), TIMEOUT))
    except Exception as error:
        report("error", kind=type(error).__name__, text=repr(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
