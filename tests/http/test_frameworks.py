"""Real frameworks: Quart-Trio as it is, FastAPI with what only asyncio can do through trio-asyncio."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
import wsproto.events
from fastapi import Depends, FastAPI, Request, WebSocket
from quart import request as quart_request
from quart import websocket as quart_websocket
from quart_trio import QuartTrio

import moqt_trio as moqt
from tests.http.serving import WAIT, body_of, curl, serving
from tests.http.test_websocket import Client, OverHttp3
from tests.peers.aioquic_http3 import connect_http3

VERSIONS = pytest.mark.parametrize("version", ["--http1.1", "--http2"])


class TestQuartTrio:
    """A framework that is written for Trio."""

    @pytest.fixture
    def quart(self):
        app = QuartTrio(__name__)
        app.diary = []

        @app.before_serving
        async def up():
            app.diary.append("up")

        @app.after_serving
        async def down():
            app.diary.append("down")

        @app.post("/upper")
        async def upper():
            return (await quart_request.get_data()).upper()

        @app.get("/count")
        async def count():
            async def numbers():
                for number in range(1000):
                    await trio.lowlevel.checkpoint()
                    yield f"{number}\n".encode()

            return numbers()

        @app.websocket("/echo")
        async def echo():
            while True:
                await quart_websocket.send(await quart_websocket.receive())

        return app

    @VERSIONS
    async def test_over_tcp(self, quart, version):
        """Bodies and streams pass over both versions on TCP, within one lifespan."""
        async with serving(quart) as listener:
            url = f"https://localhost:{listener.port}"
            assert body_of(await curl(f"{url}/upper", version, "--data", "abc")) == "ABC"
            assert body_of(await curl(f"{url}/count", version)).split() == [str(number) for number in range(1000)]
            assert quart.diary == ["up"]
        assert quart.diary == ["up", "down"]

    async def test_over_http3(self, quart):
        """The same over HTTP/3, and a WebSocket."""
        async with serving(quart) as listener, connect_http3(listener.port) as peer:
            assert await peer.answer(peer.request("/upper", method="POST", body=b"abc")) == (200, b"ABC")
            _, body = await peer.answer(peer.request("/count"))
            assert len(body.split()) == 1000
            client = Client(OverHttp3(peer, "/echo"))
            await client.send(wsproto.events.TextMessage(data="hello"))
            assert await client.receive() == "hello"


class Database:
    """A dependency that only asyncio can run: its task, its queue and its lock belong to asyncio's loop."""

    def __init__(self):
        self.diary = []
        self.loop = asyncio.get_running_loop()
        self.lock = asyncio.Lock()
        self.questions = asyncio.Queue()
        self.task = self.loop.create_task(self.work())

    async def work(self):
        number = 0
        while True:
            answer = await self.questions.get()
            await asyncio.sleep(0)
            answer.set_result(number)
            number += 1

    async def ask(self):
        async with self.lock:
            answer = self.loop.create_future()
            await self.questions.put(answer)
            return await asyncio.wait_for(answer, WAIT)

    async def close(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class TestFastAPI:
    """A framework that runs on asyncio here, with a dependency that knows nothing else."""

    @pytest.fixture
    def fast(self):
        diary = []

        @asynccontextmanager
        async def lifespan(app):
            database = Database()
            diary.append("up")
            yield {"database": database}
            await database.close()
            diary.append("down")

        async def number(request: Request) -> int:
            return await request.state.database.ask()

        app = FastAPI(lifespan=lifespan)
        app.diary = diary

        @app.get("/number")
        async def get_number(number: int = Depends(number)) -> dict[str, int]:
            return {"number": number}

        @app.get("/wait")
        async def wait() -> None:
            diary.append("waiting")
            try:
                await asyncio.sleep(1000)
            finally:
                diary.append("cancelled")

        @app.get("/fail")
        async def fail() -> None:
            raise ValueError("boom")

        @app.websocket("/echo")
        async def echo(websocket: WebSocket) -> None:
            await websocket.accept()
            while True:
                await websocket.send_text(await websocket.receive_text())

        return app

    async def test_requests(self, fast):
        """Requests of every version share the dependency's one loop, from startup to shutdown."""
        async with moqt.asyncio_app(fast) as app, serving(app) as listener:
            url = f"https://localhost:{listener.port}/number"
            assert json.loads(body_of(await curl(url, "--http1.1"))) == {"number": 0}
            assert json.loads(body_of(await curl(url, "--http2"))) == {"number": 1}
            async with connect_http3(listener.port) as peer:
                asked = [peer.request("/number") for _ in range(10)]
                answers = [await peer.answer(stream) for stream in asked]
                assert sorted(json.loads(body)["number"] for _, body in answers) == list(range(2, 12))
            assert fast.diary == ["up"]
        assert fast.diary == ["up", "down"]

    async def test_websocket(self, fast):
        """A WebSocket over HTTP/3 reaches the application, too."""
        async with moqt.asyncio_app(fast) as app, serving(app) as listener, connect_http3(listener.port) as peer:
            client = Client(OverHttp3(peer, "/echo"))
            await client.send(wsproto.events.TextMessage(data="hello"))
            assert await client.receive() == "hello"

    async def test_failure(self, fast, caplog):
        """A request that fails is 500, and the next one is answered."""
        async with moqt.asyncio_app(fast) as app, serving(app) as listener:
            url = f"https://localhost:{listener.port}"
            assert " 500" in (await curl(f"{url}/fail")).splitlines()[0]
            assert json.loads(body_of(await curl(f"{url}/number"))) == {"number": 0}
        assert "boom" in caplog.text

    async def test_cancelled(self, fast):
        """A server that ends cancels the asyncio task of a request that hangs."""
        async with moqt.asyncio_app(fast) as app, serving(app) as listener, connect_http3(listener.port) as peer:
            peer.request("/wait")
            with trio.fail_after(WAIT):
                while "waiting" not in fast.diary:
                    await trio.lowlevel.checkpoint()
        assert fast.diary[-2:] == ["cancelled", "down"]
