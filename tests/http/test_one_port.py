"""One number for everything: HTTP/1.1, HTTP/2 and HTTP/3 reach one application, with one lifespan."""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager

import pytest
import trio
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route

import moqt_trio as moqt
from moqt_trio.transport.sockets import bind_tcp
from tests.http.serving import CERTIFICATE, body_of, curl, fields_of, open_tls, read_all, records_of, serving
from tests.peers.aioquic_http3 import connect_http3

VERSIONS = pytest.mark.parametrize("version", ["1.1", "2"])


class Life:
    """A Starlette application, and what happened to it."""

    def __init__(self):
        self.diary = []
        self.app = Starlette(
            routes=[
                Route("/hello", self.hello),
                Route("/upper", self.upper, methods=["POST"]),
                Route("/count", self.count),
                Route("/stream", self.stream),
                Route("/fail", self.fail),
            ],
            lifespan=self.lifespan,
        )

    @asynccontextmanager
    async def lifespan(self, app):
        self.diary.append("up")
        yield {"counter": [0]}
        await trio.lowlevel.checkpoint()
        self.diary.append("down")

    async def hello(self, request):
        return PlainTextResponse(f"hello over {request.scope['http_version']} {request.url.scheme}")

    async def upper(self, request):
        return PlainTextResponse((await request.body()).upper())

    async def count(self, request):
        request.state.counter[0] += 1
        return JSONResponse(request.state.counter[0])

    async def stream(self, request):
        async def pieces():
            for number in range(5):
                await trio.lowlevel.checkpoint()
                yield bytes([65 + number]) * 50_000

        return StreamingResponse(pieces())

    async def fail(self, request):
        raise ValueError("boom")


@pytest.fixture
def life():
    return Life()


@VERSIONS
async def test_get(life, version):
    """curl gets a page over each version of HTTP on TCP."""
    async with serving(life.app) as listener:
        answer = await curl(f"https://localhost:{listener.port}/hello", f"--http{version}")
    assert answer.startswith(f"HTTP/{version} 200")
    assert body_of(answer) == f"hello over {version} https"


@VERSIONS
async def test_post(life, version, tmp_path):
    """A body of a megabyte arrives whole, and so does the answer to it."""
    (tmp_path / "body").write_bytes(b"abcd" * 262_144)
    async with serving(life.app) as listener:
        url = f"https://localhost:{listener.port}/upper"
        answer = await curl(url, f"--http{version}", "--data-binary", f"@{tmp_path / 'body'}")
    assert body_of(answer) == "ABCD" * 262_144


@VERSIONS
async def test_stream(life, version):
    """An answer of unknown length comes in order and complete."""
    async with serving(life.app) as listener:
        answer = await curl(f"https://localhost:{listener.port}/stream", f"--http{version}")
    assert body_of(answer) == "".join(letter * 50_000 for letter in "ABCDE")


async def test_http3(life):
    """aioquic's own client gets the same pages on the same number over UDP."""
    async with serving(life.app) as listener, connect_http3(listener.port) as peer:
        assert await peer.answer(peer.request("/hello")) == (200, b"hello over 3 https")
        assert await peer.answer(peer.request("/upper", method="POST", body=b"abc" * 9000)) == (200, b"ABC" * 9000)
        status, body = await peer.answer(peer.request("/stream"))
        assert (status, len(body)) == (200, 250_000)


async def test_both_addresses(life):
    """A server on localhost is found under ::1 and under 127.0.0.1."""
    async with serving(life.app) as listener:
        for address in {host for host, _ in listener.addresses}:
            where = f"[{address}]" if ":" in address else address
            answer = await curl(f"https://{where}:{listener.port}/hello")
            assert "hello over 2" in answer


async def test_one_life(life):
    """The application starts once and stops once, and its state is shared between the versions of HTTP."""
    async with serving(life.app) as listener:
        assert life.diary == ["up"]
        url = f"https://localhost:{listener.port}/count"
        assert body_of(await curl(url, "--http1.1")) == "1"
        assert body_of(await curl(url, "--http2")) == "2"
        async with connect_http3(listener.port) as peer:
            assert await peer.answer(peer.request("/count")) == (200, b"3")
        assert life.diary == ["up"]
    assert life.diary == ["up", "down"]


async def test_cancelled(life):
    """A server that is cancelled still shuts its application down."""
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: _serve(life.app, task_status))
        nursery.cancel_scope.cancel()
    assert life.diary == ["up", "down"]


async def _serve(app, task_status):
    await moqt.serve(moqt.Router({}), "localhost", 0, app=app, certificate=CERTIFICATE, task_status=task_status)


async def test_startup_refused():
    """An application that fails to start ends `serve` before it listens, with its own words."""

    @asynccontextmanager
    async def lifespan(app):
        raise ValueError("no database")
        yield

    app = Starlette(lifespan=lifespan)
    with pytest.raises(RuntimeError, match=r"(?s)refused to start.*no database"):
        await moqt.serve(moqt.Router({}), "localhost", 0, app=app, certificate=CERTIFICATE)


async def test_startup_hangs(autojump_clock):
    """An application that does not start in time ends `serve`."""

    async def app(scope, receive, send):
        await trio.sleep_forever()

    with pytest.raises(RuntimeError, match="in time"):
        await moqt.serve(moqt.Router({}), "localhost", 0, app=app, certificate=CERTIFICATE)


@pytest.mark.parametrize("early", [True, False], ids=["raises", "returns"])
async def test_no_lifespan(early, caplog):
    """An application that knows no lifespan is served all the same."""

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            if early:
                raise NotImplementedError
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"plain"})

    async with serving(app) as listener:
        assert body_of(await curl(f"https://localhost:{listener.port}/")) == "plain"


async def test_alt_svc(life):
    """Answers over TCP point at HTTP/3 once; those over HTTP/3 point nowhere."""
    async with serving(life.app) as listener:
        for version in ("1.1", "2"):
            answer = await curl(f"https://localhost:{listener.port}/hello", f"--http{version}")
            assert fields_of(answer, "alt-svc") == [f'h3=":{listener.port}"; ma=86400']
        async with connect_http3(listener.port) as peer:
            stream = peer.request("/hello")
            await peer.answer(stream)
            assert b"alt-svc" not in peer.headers_of(stream)


async def test_config(life):
    """The user's settings hold for every version, the access log among them, and are left as they were."""
    config = Config()
    config.accesslog, lines = records_of("access")
    config.access_log_format = "%(r)s %(s)s"
    config.include_server_header = False
    config.alt_svc_headers = ['h3=":443"; ma=60']
    config.quic_bind = ["127.0.0.1:1"]
    async with serving(life.app, config=config) as listener:
        answer = await curl(f"https://localhost:{listener.port}/hello")
        async with connect_http3(listener.port) as peer:
            stream = peer.request("/nothing")
            await peer.answer(stream)
            assert {b"server", b"alt-svc"}.isdisjoint(peer.headers_of(stream))
    assert fields_of(answer, "alt-svc") == ['h3=":443"; ma=60']
    assert fields_of(answer, "server") == []
    assert lines == ["GET /hello 2 200", "GET /nothing 3 404"]
    assert config.alt_svc_headers == ['h3=":443"; ma=60']


@pytest.mark.parametrize("setting", [{"ca_certs": "authority.pem"}, {"verify_mode": 2}])
async def test_client_certificates(life, setting):
    """Settings that ask for client certificates are refused, as HTTP/3 would let everybody in."""
    with pytest.raises(ValueError, match="client certificates"):
        await moqt.serve(moqt.Router({}), "localhost", 0, app=life.app, config=Config.from_mapping(setting))


@VERSIONS
async def test_failure(life, version, caplog):
    """An application that fails is 500, is logged, and harms no other request."""
    async with serving(life.app) as listener:
        url = f"https://localhost:{listener.port}"
        assert " 500" in (await curl(f"{url}/fail", f"--http{version}")).splitlines()[0]
        assert " 200" in (await curl(f"{url}/hello", f"--http{version}")).splitlines()[0]
    assert "boom" in caplog.text


async def test_no_application():
    """Without an application nothing listens on TCP, and HTTP/3 requests are 404."""
    async with serving(None) as listener:
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", listener.port)
        async with connect_http3(listener.port) as peer:
            assert (await peer.answer(peer.request("/")))[0] == 404


async def test_taken(life):
    """A number that is taken on TCP is refused by name, and nothing of the server is left."""
    async with serving(life.app) as listener:
        with pytest.raises(OSError, match=rf"cannot listen on \S+:{listener.port} \(TCP\)"):
            await moqt.serve(moqt.Router({}), "localhost", listener.port, app=life.app, certificate=CERTIFICATE)
    assert life.diary == ["up", "up", "down", "down"]


class TestPlain:
    """HTTP without TLS on the TCP port."""

    async def test_fingerprint(self, life):
        """It gives the fingerprint of the certificate, in hexadecimal."""
        async with serving(life.app) as listener:
            answer = await curl(f"http://localhost:{listener.port}/certificate.sha256")
            assert body_of(answer) == listener.fingerprint == CERTIFICATE.fingerprint.hex()
        assert fields_of(answer, "access-control-allow-origin") == []
        assert fields_of(answer, "vary") == ["origin"]
        assert fields_of(answer, "content-type") == ["text/plain"]

    @pytest.mark.parametrize(
        ("origins", "origin", "status"),
        [
            (None, "https://localhost:{port}", 200),
            (None, "https://localhost:1", 403),
            (None, "https://evil.example", 403),
            (None, "null", 403),
            (["http://localhost:5173"], "http://localhost:5173", 200),
            (["http://localhost:5173"], "https://localhost:{port}", 200),
            (["http://localhost:5173"], "https://evil.example", 403),
            (["*"], "https://any.example", 200),
            ([], "https://localhost:{port}", 403),
        ],
    )
    async def test_fingerprint_for_pages(self, life, origins, origin, status):
        """Only a page that may open sessions gets the fingerprint, and it alone is allowed to read it."""
        async with serving(life.app, origins=origins) as listener:
            page = origin.format(port=listener.port)
            answer = await curl(f"http://localhost:{listener.port}/certificate.sha256", "--header", f"Origin: {page}")
            assert (listener.fingerprint in answer) == (status == 200)
        assert answer.startswith(f"HTTP/1.1 {status} ")
        assert fields_of(answer, "access-control-allow-origin") == ([page] if status == 200 else [])
        assert fields_of(answer, "vary") == ["origin"]

    async def test_forged_origin(self, life):
        """What a page's origin cannot have ends up in no field of the answer."""
        async with serving(life.app, origins=["*"]) as listener:
            stream = await trio.open_tcp_stream("127.0.0.1", listener.port)
            async with stream:
                await stream.send_all(b"GET /certificate.sha256 HTTP/1.1\r\nOrigin: a\nset-cookie: x\xff\r\n\r\n")
                answer = await read_all(stream)
        assert b"\nset-cookie" not in answer

    @pytest.mark.parametrize(
        ("path", "arguments", "status"),
        [
            ("/", [], 404),
            ("/hello", [], 404),
            ("/certificate.sha256/", [], 404),
            ("/certificate.sha256?x", [], 200),
            ("/certificate.sha256", ["--data", "x"], 405),
            ("/certificate.sha256", ["--head"], 200),
        ],
    )
    async def test_nothing_else(self, life, path, arguments, status):
        """Every other path is 404 and every other method 405: the application is for those who come with TLS."""
        async with serving(life.app) as listener:
            answer = await curl(f"http://localhost:{listener.port}{path}", *arguments)
        assert answer.startswith(f"HTTP/1.1 {status} ")

    @pytest.mark.parametrize(
        "data", [b"\r\n\r\n", b"GET\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"G" * 9000, b"\x00\xff\r\n\r\n"]
    )
    async def test_nonsense(self, life, data):
        """What is neither TLS nor HTTP gets 400 and the end of the connection."""
        async with serving(life.app) as listener:
            stream = await trio.open_tcp_stream("127.0.0.1", listener.port)
            async with stream:
                await stream.send_all(data)
                assert (await read_all(stream)).startswith(b"HTTP/1.1 400 ")
            assert "hello" in await curl(f"https://localhost:{listener.port}/hello")

    async def test_not_over_tls(self, life):
        """Over TLS the path belongs to the application."""
        async with serving(life.app) as listener:
            answer = await curl(f"https://localhost:{listener.port}/certificate.sha256")
        assert " 404" in answer.splitlines()[0]


async def test_alpn(life):
    """A client that names no protocol speaks HTTP/1.1."""
    async with serving(life.app) as listener:
        stream = await open_tls(listener.port, "something-else")
        async with stream:
            await stream.send_all(b"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert b"hello over 1.1" in await read_all(stream)


@pytest.mark.parametrize("version", ["--http1.1", "--http2", "3"])
@pytest.mark.parametrize(
    ("names", "known"),
    [(["localhost"], True), (["LocalHost"], True), (["localhost:{port}"], True), (["localhost:1", "other"], False)],
)
async def test_server_names(life, version, names, known):
    """A server name without a port is good for every port, and one with a port for that one."""
    config = Config()
    config.server_names = list(names)
    async with serving(life.app, config=config) as probe:
        # A name with the port is known only once the port is.
        port = probe.port
    config.server_names = [name.format(port=port) for name in names]
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(
            lambda task_status: moqt.serve(
                moqt.Router({}),
                "localhost",
                port,
                app=life.app,
                config=config,
                certificate=CERTIFICATE,
                task_status=task_status,
            )
        )
        if version == "3":
            async with connect_http3(port) as peer:
                status = await peer.status(peer.request("/hello", authority=f"localhost:{port}"))
        else:
            status = int((await curl(f"https://localhost:{port}/hello", version)).split()[1])
        await listener.aclose(grace=0)
    assert status == (200 if known else 421 if version == "3" else 404)


@pytest.mark.parametrize(
    ("port", "error"), [("4443", TypeError), (4443.0, TypeError), (70000, ValueError), (-1, ValueError)]
)
@pytest.mark.parametrize("with_app", [True, False])
async def test_no_port(life, port, error, with_app):
    """What is no port is refused by name, and leaves no socket behind, which would be a ResourceWarning."""
    with pytest.raises(error, match="a port is a number"):
        await moqt.serve(moqt.Router({}), "localhost", port, app=life.app if with_app else None)
    with pytest.raises((TypeError, OverflowError)):
        await bind_tcp("localhost", port)
    gc.collect()
