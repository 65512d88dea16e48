"""AuthServer and AuthClient against each other, over HTTP and over a unix socket."""

from __future__ import annotations

import json
import logging
import math
import ssl
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

import httpx
import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import moqt_trio as moqt
from moqt_trio.auth import AuthClient, AuthRequest, AuthServer, Claims, PublicAuth, TokenAuth, TokenKey
from moqt_trio.certificates.certificate import client_certificate
from tests.auth.requests import asking, refusal
from tests.auth.serving import Scripted, http
from tests.authority import Authority
from tests.machine import seconds

if TYPE_CHECKING:
    from pathlib import Path

KEY = TokenKey.generate("ES256")
TOKEN = KEY.sign(Claims(root="live", publish=["alice/**"], subscribe=["**"], expires=4e9))
WANTED = moqt.Grant(publish=["alice/**"], subscribe=["**"], expires=4e9)


def request(path: str = "/", query: str = "", **options) -> moqt.SessionRequest:
    """Return the request of a client."""
    given = {"authority": None, "origin": None, "transport": "quic", "version": "moq-lite-06", "peer": ("127.0.0.1", 9)}
    return moqt.SessionRequest(path=path, query=query, accept=None, reject=None, **given | options)


def fields(grant: moqt.Grant) -> tuple[object, ...]:
    return grant.publish, grant.subscribe, grant.root, grant.expires, grant.revalidate, grant.tier, grant.peer


@pytest.mark.parametrize("on", ["loopback", "unix"])
async def test_both_ends(on, tmp_path):
    """A client with a token is admitted with what its token says; others are refused with the server's status."""
    app = AuthServer(TokenAuth(KEY.public()).admit)
    async with http(app, tmp_path / "auth.sock" if on == "unix" else None) as url, AuthClient(url) as auth:
        assert url.startswith("unix:///" if on == "unix" else "http://127.0.0.1:")
        assert fields(await auth.admit(request("/live", f"jwt={TOKEN}"))) == fields(WANTED)
        shown = (moqt.Token(TOKEN.encode()),)
        assert fields(await auth.admit(request("/live", tokens=shown))) == fields(WANTED)
        assert await refusal(auth.admit, request("/live")) == (
            401,
            "not allowed: /live (the auth server refuses it (401))",
        )
        assert (await refusal(auth.admit, request("/other", f"jwt={TOKEN}")))[0] == 403
        assert (await refusal(auth.admit, request("/live", tokens=shown * 2)))[0] == 401
    with pytest.raises(trio.ClosedResourceError):
        await auth.admit(request("/live", f"jwt={TOKEN}"))


@pytest.mark.parametrize(
    ("names", "called"), [([x509.IPAddress(ip_address("::1")), x509.DNSName("a.example")], "a.example"), ([], "edge-7")]
)
async def test_a_certificate_of_the_client(names, called):
    """The server is told what it says; it decides."""
    asked: list[AuthRequest] = []
    authority = Authority()
    shown = authority.issue("edge-7", *([x509.SubjectAlternativeName(names)] if names else []))

    der = shown.certificate.public_bytes(serialization.Encoding.DER)

    async def admit(request: AuthRequest) -> moqt.Grant:
        asked.append(request)
        return WANTED

    async with http(AuthServer(admit)) as url, AuthClient(url) as auth:
        await auth.admit(request(certificate=client_certificate(der)))
        await auth.admit(request())
    with_one, without = (item.tls for item in asked)
    assert without is None
    assert (with_one.name, with_one.issuer) == (called, "CN=authority,O=Example")
    assert with_one.fingerprint == shown.fingerprint.hex()
    assert with_one.expires == shown.not_after.timestamp()


async def test_a_role_for_which_nothing_is_granted():
    """The client is refused, and the server told that its session has ended."""
    app = Scripted(lambda _: (200, {"subscribe": ["**"]}))
    async with http(app) as url, AuthClient(url) as auth:
        status, text = await refusal(auth.admit, request(role="publisher"))
        assert (status, text) == (403, "not allowed: / (nothing is granted to a publisher)")
        assert [asked.event for asked in app.asked] == ["connect", "end"]
        assert app.asked[1].id == app.asked[0].id
        assert app.asked[1].end.reason == "refused"


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        ((401, b"no"), 401, "refuses it (401)"),
        ((403, b""), 403, "refuses it (403)"),
        ((200, {}), 403, "refuses it (403)"),
        ((400, b""), 502, "answers with status 400"),
        ((429, b""), 502, "answers with status 429"),
        ((307, b""), 502, "answers with status 307"),
        ((503, {"subscribe": ["**"]}), 502, "answers with status 503"),
        ((200, b"nope"), 502, "answers with no grant"),
        ((200, {"subscribe": ["a//b"]}), 502, "answers with no grant"),
        ((200, {"subscribe": ["a"], "revalidate": 5}), 502, "answers with no grant"),
        ((200, {"subscribe": ["a"], "mounts": {"a": "b"}}), 502, "answers with no grant"),
        ((200, {"subscribe": ["a"], "expires": 5}), 502, "a grant that has expired"),
        ((200, b"[" * 60_000), 502, "answers with no grant"),
        ((200, b" " * 70_000), 502, "answer is too long"),
        ((0, b""), 502, "does not answer within 0.3 s"),
    ],
)
async def test_answers_that_admit_nobody(answer, status, reason):
    """401 and 403 refuse, and so does a grant of nothing; everything else is a failure of the server: 502."""
    async with http(Scripted(lambda _: answer)) as url, AuthClient(url, timeout=0.3) as auth:
        assert await refusal(auth.admit, request()) == (status, await _text(reason, auth))


async def _text(reason: str, auth: AuthClient) -> str:
    text = (await refusal(auth.admit, request()))[1]
    assert reason in text
    return text


async def test_no_server(tmp_path, caplog):
    """Where nothing listens, the client is refused with 502, and the line for it holds no query."""
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        for url in (f"http://127.0.0.1:{taken.getsockname()[1]}/", f"unix://{tmp_path}/nothing.sock"):
            with caplog.at_level(logging.DEBUG), trio.fail_after(seconds(5)):
                async with AuthClient(url) as auth:
                    status, text = await refusal(auth.admit, request(query="jwt=secret"))
            assert status == 502
            assert "cannot be reached" in text
            assert "no session is admitted" in caplog.text
            assert "secret" not in caplog.text


async def test_no_proxy(monkeypatch):
    """A proxy of the environment would see the tokens: it is passed by."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with http(AuthServer(PublicAuth(subscribe=["**"]).admit)) as url, AuthClient(url) as auth:
        assert (await auth.admit(request())).subscribe == ("**",)


async def test_no_secret_is_logged(caplog):
    """Neither of us, nor the HTTP client, logs a token, whatever the level."""
    app = AuthServer(TokenAuth(KEY).admit)
    with caplog.at_level(logging.DEBUG):
        async with http(app) as url, AuthClient(url, node="relay-1") as auth:
            assert await auth.admit(request("/live", f"jwt={TOKEN}", tokens=(moqt.Token(TOKEN.encode()),)))
            wrong = TokenKey.generate("ES256").sign(Claims(publish=["**"]))
            assert (await refusal(auth.admit, request("/live", f"jwt={wrong}")))[0] == 401
            assert repr(auth) == f"<AuthClient of {url} for relay-1>"
    [line] = [record.getMessage() for record in caplog.records if record.name == "moqt_trio.auth.server"]
    assert "refused session" in line
    assert "the token's signature is not that of the key" in line
    for token in (TOKEN, wrong):
        assert all(part not in caplog.text for part in token.split("."))


async def test_what_bounds_a_grant():
    """A grant without an end gets one, and is asked for again; one that has both keeps them."""
    given = [
        moqt.Grant(publish=["**"]),
        moqt.Grant(publish=["**"], expires=3e9),
        moqt.Grant(publish=["**"], expires=3e9, revalidate=7),
    ]

    async def admit(asked: object) -> moqt.Grant:
        return given.pop(0)

    async with http(AuthServer(admit, revalidate=30, lifetime=600)) as url, AuthClient(url) as auth:
        before = time.time()
        grant = await auth.admit(request())
        assert before + 600 <= grant.expires <= math.ceil(time.time() + 600)
        assert grant.revalidate == 30
        assert [fields(await auth.admit(request()))[3:5] for _ in range(2)] == [(3e9, 30), (3e9, 7)]


@pytest.mark.parametrize(
    ("method", "body", "status", "text"),
    [
        ("GET", b"", 405, "relays ask with POST"),
        ("POST", b"", 400, "the request cannot be read: no JSON"),
        ("POST", b"[" * 60_000, 400, "the request"),
        ("POST", b"{}", 400, "event is missing"),
        ("POST", b" " * 70_000, 413, "the request is too long"),
        ("POST", asking("/boom").encode(), 500, "the decision failed"),
        ("POST", asking("/type").encode(), 500, "the decision failed"),
        ("POST", asking("/nothing").encode(), 403, "nothing is granted"),
        ("POST", asking("/busy").encode(), 503, "not allowed: /busy (too many)"),
    ],
)
async def test_what_a_server_answers(method, body, status, text, caplog):
    """A request that is none is refused; what the decision raises is logged, and no answer of substance."""

    async def admit(asked: object) -> moqt.Grant:
        if asked.path == "/boom":
            raise RuntimeError("secret")
        if asked.path == "/busy":
            raise moqt.Unauthorized(asked.path, "too many", status=503)
        return moqt.Grant() if asked.path == "/nothing" else "a grant"

    async with http(AuthServer(admit)) as url, httpx.AsyncClient(trust_env=False) as client:
        answer = await client.request(method, url, content=body)
        assert (answer.status_code, answer.headers["cache-control"]) == (status, "no-store")
        assert text in answer.text
        assert "secret" not in answer.text
    assert ("no answer for session" in caplog.text) is (status == 500)


async def test_the_end_of_a_session():
    """The server's function is called with how it ended; without one, the answer is the same."""
    ends = []

    async def on_end(asked: object) -> None:
        ends.append(asked)

    admit = PublicAuth(subscribe=["**"]).admit
    document = json.loads(asking().encode()) | {"event": "end", "reason": "x", "duration": 2, "bytes": {"sent": 1}}
    for app in (AuthServer(admit, on_end=on_end), AuthServer(admit)):
        async with http(app) as url, httpx.AsyncClient(trust_env=False) as client:
            answer = await client.post(url, json=document)
            assert (answer.status_code, answer.content) == (204, b"")
    [asked] = ends
    assert (asked.event, asked.end.reason, asked.end.duration, asked.end.bytes_sent) == ("end", "x", 2, 1)


async def test_cancelling():
    """`admit` can be cancelled while the server does not answer, and the client's block can be left after that."""
    app = Scripted(lambda _: (0, b""))
    async with http(app) as url, AuthClient(url) as auth:
        with trio.move_on_after(0.2) as scope:
            await auth.admit(request())
        assert scope.cancelled_caught
        assert [asked.event for asked in app.asked] == ["connect"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://example.org/", "to the loopback interface only"),
        ("http://192.0.2.1/", "to the loopback interface only"),
        ("ftp://127.0.0.1/", "begins with https://"),
        ("http:///", "begins with https://"),
        ("unix://host/a.sock", "named like unix:///"),
        ("http://user:secret@127.0.0.1/", "has a user name"),
        ("https://127.0.0.1/?key=secret", "has a user name, a query"),
    ],
)
def test_urls_that_are_refused(url, reason):
    """Tokens go nowhere without being kept secret on the way, and the URL is no secret."""
    with pytest.raises(ValueError, match=reason) as caught:
        AuthClient(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        (lambda: AuthClient("http://localhost/", timeout=0), ValueError, "timeout is a number"),
        (lambda: AuthClient("http://localhost/", tls=True), TypeError, "tls is what ssl.create_default_context"),
        (lambda: AuthClient(5), TypeError, "the URL of an auth server is a text"),
        (lambda: AuthServer(TokenAuth(KEY)), TypeError, "what decides is an async function"),
        (lambda: AuthServer(TokenAuth(KEY).admit, revalidate=5), ValueError, "give lifetime="),
        (lambda: AuthServer(TokenAuth(KEY).admit, lifetime="long"), TypeError, "lifetime is a number"),
    ],
)
def test_mistakes(make, error, reason):
    """A wrong argument is an error at once."""
    with pytest.raises(error, match=reason):
        make()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Return the files of a certificate for localhost, which is its own authority, and of its key."""
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(builder.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, *plain))
    return cert, key


async def test_certificates(tmp_path):
    """Over HTTPS the server is verified, and the relay shows a certificate to a server that requires one."""
    cert, key = self_signed(tmp_path)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    serving.load_cert_chain(cert, key)
    serving.verify_mode = ssl.CERT_REQUIRED
    serving.load_verify_locations(cert)
    trusting = ssl.create_default_context(cafile=str(cert))
    showing = ssl.create_default_context(cafile=str(cert))
    showing.load_cert_chain(cert, key)
    answer = json.dumps({"subscribe": ["**"]}).encode()
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(answer)

    async def serve(stream: trio.SSLStream) -> None:
        try:
            await stream.do_handshake()
            received = b""
            while b"}" not in received:
                received += await stream.receive_some()
            await stream.send_all(head + answer)
        except (trio.BrokenResourceError, ssl.SSLError):
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        listen = partial(trio.serve_ssl_over_tcp, serve, 0, serving, host="127.0.0.1")
        [listener] = await nursery.start(listen)
        port = listener.transport_listener.socket.getsockname()[1]
        admitted = []
        for context in (None, trusting, showing):
            async with AuthClient(f"https://localhost:{port}/", tls=context, timeout=5) as auth:
                try:
                    admitted.append((await auth.admit(request())).subscribe)
                except moqt.Unauthorized as error:
                    admitted.append(error.status)
        assert admitted == [502, 502, ("**",)]
        nursery.cancel_scope.cancel()
