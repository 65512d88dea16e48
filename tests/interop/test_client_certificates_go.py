"""Certificates of clients against Go's TLS, with quic-go and webtransport-go, in either role and over both transports.

The Go program is that of `test_webtransport_go.py`, whose file `certificates.go` is meant here.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

import moqt_trio as moqt
from moqt_trio.limits import Limits
from moqt_trio.transport.quic.settings import ClientSettings, ServerIdentity
from moqt_trio.transport.webtransport.client import open_webtransport
from tests.authority import ON_SERVERS, Authority
from tests.interop.processes import PEERS, Child, other_program
from tests.transport.quic_pair import connect_quic

if TYPE_CHECKING:
    from pathlib import Path

GO = shutil.which("go")

pytestmark = pytest.mark.skipif(GO is None, reason="there is no Go here: install Go 1.26 or later")

BUILD_TIMEOUT = 300.0
AUTHORITY = Authority()
MIDDLE = Authority("middle", AUTHORITY)
SERVER = moqt.development_certificate()
REJECTED = 403


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Go program, built."""
    assert GO is not None
    binary = tmp_path_factory.mktemp("webtransport_go") / "webtransport_go"
    subprocess.run([GO, "build", "-o", binary, "."], cwd=PEERS / "webtransport_go", timeout=BUILD_TIMEOUT, check=True)
    return str(binary)


def save(certificate: moqt.Certificate, directory: Path, name: str) -> tuple[str, str]:
    """Writes a certificate and its key to files, and returns their names."""
    files = directory / f"{name}.pem", directory / f"{name}.key"
    files[0].write_bytes(certificate.certificate_pem())
    files[1].write_bytes(certificate.private_key_pem())
    return str(files[0]), str(files[1])


async def wait_event(process: Child, name: str) -> dict[str, object]:
    """Waits for a process's next event of that name, beside the tasks of this one."""
    return await trio.to_thread.run_sync(partial(process.wait_event, name))


@pytest.mark.parametrize("scheme", ["https", "moqt"])
class TestAsClient:
    """A client in Go connects to our server, twice each time."""

    async def ends(
        self, program: str, scheme: str, files: tuple[str, str], cafile: str, *, required: bool = False
    ) -> tuple[list[dict[str, object]], list[moqt.ClientCertificate | None]]:
        """Returns how its two attempts ended, and whom our handler was called for."""
        seen: list[moqt.ClientCertificate | None] = []

        async def handler(request: moqt.SessionRequest) -> None:
            seen.append(request.certificate)
            await request.reject(REJECTED)

        serve = partial(
            moqt.serve, handler, "127.0.0.1", 0, certificate=SERVER, client_cafile=cafile,
            require_client_certificate=required,
        )  # fmt: skip
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                listener = await nursery.start(serve)
                url = f"{scheme}://127.0.0.1:{listener.port}/"
                with other_program(program, "certificate-client", url, *files) as client:
                    ends = [await wait_event(client, "ended") for _ in range(2)]
                nursery.cancel_scope.cancel()
        return ends, seen

    @pytest.mark.parametrize("kind", ["P-256", "P-384", "RSA", "Ed25519", "with a chain"])
    async def test_accepted(self, program, scheme, kind, tmp_path):
        """Our handler has its certificate, on the second connection as well: none is resumed."""
        keys = {
            "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
            "RSA": lambda: rsa.generate_private_key(65537, 2048),
            "Ed25519": ed25519.Ed25519PrivateKey.generate,
        }
        authority, key = (MIDDLE, None) if kind == "with a chain" else (AUTHORITY, keys[kind]())
        files = save(authority.issue("from-go", key=key), tmp_path, "client")
        ends, seen = await self.ends(program, scheme, files, AUTHORITY.save(tmp_path))
        subjects = [certificate.subject for certificate in seen if certificate is not None]
        assert subjects == ["CN=from-go,O=Example"] * 2
        said = "status" if scheme == "https" else "code"
        assert [end[said] for end in ends] == [REJECTED] * 2
        assert not any(end.get("resumed") for end in ends)

    async def test_without_one(self, program, scheme, tmp_path):
        """One that shows none is served, unless one is required: then it is told so."""
        _, seen = await self.ends(program, scheme, ("-", "-"), AUTHORITY.save(tmp_path))
        assert seen == [None, None]
        ends, seen = await self.ends(program, scheme, ("-", "-"), AUTHORITY.save(tmp_path), required=True)
        assert seen == []
        assert [end["alert"] for end in ends] == [116, 116]

    @pytest.mark.parametrize(
        ("make", "alert"),
        [
            (lambda: Authority("another").issue(), 48),
            (lambda: AUTHORITY.issue(starts=-3, ends=-1), 45),
            (lambda: AUTHORITY.issue("edge", ON_SERVERS), 43),
        ],
        ids=["of another authority", "expired", "for servers"],
    )
    async def test_refused(self, program, scheme, make, alert, tmp_path):
        """One that does not pass gets no session, and is told the alert."""
        files = save(make(), tmp_path, "client")
        ends, seen = await self.ends(program, scheme, files, AUTHORITY.save(tmp_path))
        assert seen == []
        assert [end["alert"] for end in ends] == [alert, alert]


@pytest.fixture(scope="module")
def their_server(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Child, dict[str, int]]]:
    """A server in Go that requires certificates; its process, and its ports by the name of the transport."""
    directory = tmp_path_factory.mktemp("certificates_go")
    files = save(SERVER, directory, "server")
    with other_program(program, "certificate-server", *files, AUTHORITY.save(directory)) as process:
        yield process, process.wait_event("listening")


@asynccontextmanager
async def connected(transport: str, port: int, certificate: moqt.Certificate | None) -> AsyncIterator[None]:
    """Opens a session: of moq-lite-03, which the Go program does not speak, or of WebTransport without a protocol."""
    if transport == "quic":
        url, versions = f"moqt://127.0.0.1:{port}/", ["moq-lite-03"]
        async with moqt.connect(url, fingerprint=SERVER.fingerprint, client_certificate=certificate, versions=versions):
            yield
        return
    identity = certificate and ServerIdentity(certificate.certificate, certificate.chain, certificate.private_key)
    settings = ClientSettings(("h3",), "127.0.0.1", fingerprints=(SERVER.fingerprint,), identity=identity)
    async with (
        connect_quic("127.0.0.1", port, settings) as connection,
        open_webtransport(connection, f"127.0.0.1:{port}", "/", (), limits=Limits()),
    ):
        yield


@pytest.mark.parametrize("transport", ["quic", "webtransport"])
class TestAsServer:
    """Our client connects to a server in Go."""

    @pytest.mark.parametrize("kind", ["P-256", "P-521", "RSA", "Ed25519", "with a chain"])
    async def test_accepted(self, their_server, transport, kind):
        """It takes our certificate, and what stands between it and the authority."""
        keys = {
            "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
            "RSA": lambda: rsa.generate_private_key(65537, 2048),
            "Ed25519": ed25519.Ed25519PrivateKey.generate,
        }
        chained = kind == "with a chain"
        certificate = MIDDLE.issue("ours") if chained else AUTHORITY.issue("ours", key=keys[kind]())
        process, ports = their_server
        with trio.fail_after(30):
            async with connected(transport, ports[transport], certificate):
                session = await wait_event(process, "session")
        expected = "ours < middle" if chained else "ours"
        assert session == {"event": "session", "transport": transport, "from": expected}

    @pytest.mark.parametrize(
        ("make", "text"),
        [
            (lambda: None, "requires a certificate of its clients"),
            (lambda: Authority("another").issue(), "does not accept this client's certificate"),
            (lambda: AUTHORITY.issue(starts=-3, ends=-1), "does not accept this client's certificate"),
        ],
        ids=["none", "of another authority", "expired"],
    )
    async def test_refused(self, their_server, transport, make, text):
        """What it refuses is known before the session's block is entered."""
        with trio.fail_after(30), pytest.raises(moqt.HandshakeFailed, match=text):
            async with connected(transport, their_server[1][transport], make()):
                pytest.fail("connected")
