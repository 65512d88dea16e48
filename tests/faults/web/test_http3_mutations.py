"""Mutated HTTP/3 and WebTransport bytes: each time the connection closes or goes on, and nothing is logged."""

from __future__ import annotations

import random

import pytest
import trio
import trio.testing
from aioquic.h3.connection import encode_frame

from moqt_trio.errors import StreamReset
from moqt_trio.http.asgi import AsgiServer
from moqt_trio.limits import Limits
from moqt_trio.transport.memory import open_memory_pair
from moqt_trio.transport.webtransport.server import serve_http3
from tests.peers.http3_frames import headers_frame

RUNS_A_SEED = 100


TARGET = ((b":scheme", b"https"), (b":authority", b"a"), (b":path", b"/"))
CONNECT = headers_frame((b":method", b"CONNECT"), *TARGET, (b":protocol", b"webtransport"))
POST = headers_frame((b":method", b"POST"), *TARGET)
CAPSULES = bytes.fromhex("29 05 0102030405 800078ae 00 6843 04 00000001")
BIDI = [
    CONNECT + encode_frame(0x0, CAPSULES),
    POST + encode_frame(0x0, b"body" * 10) + headers_frame((b"x", b"y")),
    encode_frame(0x21, b"grease") + POST,
    bytes.fromhex("4041 00") + b"hello",
]
UNI = [
    b"\x00" + encode_frame(0x4, bytes.fromhex("3301 0801 0100 0700")) + encode_frame(0xD, b"\x05"),
    bytes.fromhex("02 3fe11f"),
    bytes.fromhex("03 80"),
    bytes.fromhex("4054 00") + b"data",
    bytes.fromhex("01 00"),
    bytes.fromhex("21") + b"grease",
]


def mutate(source, data):
    data = bytearray(data)
    for _ in range(source.choice([0, 0, 1, 1, 2, 5])):
        if not data:
            break
        at = source.randrange(len(data))
        kind = source.randrange(4)
        if kind == 0:
            data[at] = source.randrange(256)
        elif kind == 1:
            del data[at : at + source.randrange(1, 5)]
        elif kind == 2:
            data[at:at] = source.randbytes(source.randrange(1, 5))
        else:
            data[at:] = data[at:] + data[:at]
    return bytes(data)


async def app(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def accept(request):
    await request.accept(request.protocols[0] if request.protocols else None).wait_closed()


async def misbehave(source, client):
    """Open a stream and send mutated bytes on it, in pieces."""
    both_ways = source.random() < 0.5
    stream = client.open_bidi_nowait() if both_ways else client.open_uni_nowait()
    data = mutate(source, source.choice(BIDI if both_ways else UNI))
    while data:
        cut = source.randrange(1, len(data) + 1)
        stream.write(data[:cut])
        data = data[cut:]
        if source.random() < 0.5:
            await trio.lowlevel.checkpoint()
    ending = source.random()
    if ending < 0.5:
        stream.finish()
    elif ending < 0.7:
        stream.reset(source.randrange(2**40))
    elif ending < 0.8 and both_ways:
        stream.stop(5)
    if source.random() < 0.3:
        client.send_datagram(source.randbytes(source.randrange(9)))


@pytest.mark.parametrize("seed", range(4))
async def test_mutated_streams(seed, caplog):
    """Neither the server's task nor its log shows an exception, and every connection can be closed."""
    source = random.Random(seed)
    for _ in range(RUNS_A_SEED):
        with trio.fail_after(10):
            async with open_memory_pair() as (client, server), trio.open_nursery() as nursery:

                async def serve(server=server):
                    await serve_http3(server, accept, on_request=AsgiServer(app, None, None).start, limits=Limits())

                nursery.start_soon(serve)
                for _ in range(source.randrange(1, 12)):
                    if client.closed is None:
                        try:
                            await misbehave(source, client)
                        except StreamReset:
                            pass
                        except Exception:
                            assert client.closed is not None
                await trio.testing.wait_all_tasks_blocked()
                client.close()
    assert not caplog.records
