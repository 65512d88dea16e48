"""WebTransport against `webtransport-go` (on quic-go), in either role: streams, and streams that are reset early.

It requires RESET_STREAM_AT of its peer, and sends it. `tests/peers/webtransport_go` is built here; `make peers` does it
too, so that nothing is downloaded during the tests.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from moqt_trio.certificates import development_certificate
from moqt_trio.certificates.pem import certificate_to_pem, key_to_pem
from moqt_trio.errors import StreamReset
from tests.browser.server import echo_bidi, echo_datagrams, echo_uni
from tests.interop.processes import PEERS, Child, other_program
from tests.transport.awaiting import accept_bidi, accept_uni, send_all
from tests.transport.webtransport.serving import check_echoes, read_all, serving, session_to

if TYPE_CHECKING:
    from pathlib import Path

    from moqt_trio.transport.receive_stream import ReceiveStream
    from moqt_trio.transport.send_stream import SendStream
    from moqt_trio.transport.webtransport.server import WebTransportRequest
    from moqt_trio.transport.webtransport.session import WebTransportSession

GO = shutil.which("go")

pytestmark = pytest.mark.skipif(GO is None, reason="there is no Go here: install Go 1.26 or later")

BUILD_TIMEOUT = 300.0
STREAMS = 40
"""Streams of each kind that each side resets; as in the Go program."""
BIDIRECTIONAL = 1000
"""What is added to a number for the code of a bidirectional stream; as in the Go program."""
UNI = list(range(STREAMS))
BIDI = [BIDIRECTIONAL + number for number in UNI]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Go program, built."""
    assert GO is not None
    binary = tmp_path_factory.mktemp("webtransport_go") / "webtransport_go"
    subprocess.run([GO, "build", "-o", binary, "."], cwd=PEERS / "webtransport_go", timeout=BUILD_TIMEOUT, check=True)
    return str(binary)


async def wait_event(process: Child, name: str) -> dict[str, object]:
    """Waits for a process's next event of that name, beside the tasks of this one."""
    return await trio.to_thread.run_sync(partial(process.wait_event, name))


async def give_up(stream: SendStream, number: int, code: int) -> None:
    """Resets a stream with one byte, a little, or many packets on their way.

    A stream without a byte is dropped by webtransport-go 0.13 if the reset is there when it reads the prefix: it takes
    the error that comes along with the last byte for one of the prefix.
    """
    await send_all(stream, bytes((1, 10, 20000)[number % 3]))
    stream.reset(code)


async def code_of(stream: ReceiveStream) -> int:
    """Reads to the end of a stream, and returns the code of its reset."""
    try:
        data = await read_all(stream)
    except StreamReset as error:
        return error.code
    raise AssertionError(f"the stream ended after {len(data)} bytes without a reset")


async def exchange_resets(session: WebTransportSession) -> dict[str, list[int]]:
    """Resets streams of both kinds while the peer does the same, and returns the codes that arrived."""
    received: dict[str, list[int]] = {"uni": [], "bidi": [], "answers": []}

    async def take(kind: str, stream: ReceiveStream) -> None:
        received[kind].append(await code_of(stream))

    async def take_bidi() -> None:
        stream = await accept_bidi(session)
        code = await code_of(stream)
        stream.reset(code)
        received["bidi"].append(code)

    async with trio.open_nursery() as nursery:
        for number in range(STREAMS):
            uni = await session.open_uni()
            await give_up(uni, number, number)
            bidi = await session.open_bidi()
            await give_up(bidi, number, BIDIRECTIONAL + number)
            nursery.start_soon(take, "answers", bidi)
        for _ in range(STREAMS):
            nursery.start_soon(take, "uni", await accept_uni(session))
            nursery.start_soon(take_bidi)
    return {kind: sorted(codes) for kind, codes in received.items()}


class TestAsClient:
    """webtransport-go connects to our server."""

    async def test_streams_and_datagrams(self, program):
        """Streams of both kinds are echoed, empty, small and of a megabyte; a datagram too; our close arrives."""
        done = trio.Event()

        async def on_session(request: WebTransportRequest) -> None:
            session = request.accept()
            async with trio.open_nursery() as nursery:
                for work in (echo_bidi, echo_uni, echo_datagrams):
                    nursery.start_soon(work, session, {})
                await done.wait()
                nursery.cancel_scope.cancel()
            await session.aclose(7, "done")

        with trio.fail_after(30):
            async with serving(on_session) as served:
                with other_program(program, "client", f"https://127.0.0.1:{served.port}/echo", "echo") as client:
                    for size in (0, 1, 5000, 1 << 20):
                        assert await wait_event(client, "bidi") == {"event": "bidi", "size": size, "same": True}
                        assert await wait_event(client, "uni") == {"event": "uni", "size": size, "same": True}
                    assert (await wait_event(client, "datagram"))["same"] is True
                    await wait_event(client, "done")
                    done.set()
                    assert await wait_event(client, "closed") == {"event": "closed", "code": 7, "reason": "done"}

    async def test_early_resets(self, program):
        """Streams that either side resets as it opens them reach the other, each with its code."""
        done: list[dict[str, list[int]]] = []
        finished = trio.Event()

        async def on_session(request: WebTransportRequest) -> None:
            session = request.accept()
            done.append(await exchange_resets(session))
            await finished.wait()
            await session.aclose(7, "done")

        with trio.fail_after(30):
            async with serving(on_session) as served:
                with other_program(program, "client", f"https://127.0.0.1:{served.port}/resets", "resets") as client:
                    theirs = await wait_event(client, "resets")
                    finished.set()
                    await wait_event(client, "closed")
        assert theirs == {"event": "resets", "uni": UNI, "bidi": BIDI, "answers": BIDI}
        assert done == [{"uni": UNI, "bidi": BIDI, "answers": BIDI}]


@pytest.fixture(scope="module")
def their_server(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Child, int]]:
    """A server made with webtransport-go; its process and its port."""
    directory = tmp_path_factory.mktemp("webtransport_go_keys")
    certificate = development_certificate()
    files: list[Path] = []
    for name, pem in (
        ("certificate.pem", certificate_to_pem(certificate.certificate)),
        ("key.pem", key_to_pem(certificate.private_key)),
    ):
        files.append(directory / name)
        files[-1].write_bytes(pem)
    with other_program(program, "server", *map(str, files)) as process:
        yield process, process.wait_event("listening")["port"]


class TestAsServer:
    """Our client connects to webtransport-go."""

    async def test_streams_and_datagrams(self, their_server):
        """Streams of both kinds and a datagram are echoed."""
        data = bytes(range(256)) * 4096
        with trio.fail_after(30):
            async with session_to(their_server[1], "/echo") as session:
                await check_echoes(session, data)
        await wait_event(their_server[0], "closed")

    async def test_early_resets(self, their_server):
        """Streams that either side resets as it opens them reach the other, each with its code."""
        with trio.fail_after(30):
            async with session_to(their_server[1], "/resets") as session:
                ours = await exchange_resets(session)
                theirs = await wait_event(their_server[0], "resets")
        assert ours == {"uni": UNI, "bidi": BIDI, "answers": BIDI}
        assert theirs == {"event": "resets", "uni": UNI, "bidi": BIDI, "answers": BIDI}
