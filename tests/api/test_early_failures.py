"""Failures of connecting and listening that name their cause before anything runs."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.limits import Limits
from moqt_trio.transport.quic.settings import ServerIdentity, ServerSettings
from moqt_trio.transport.webtransport.server import serve_http3
from tests.transport.quic_pair import serve_quic


async def refuse(request: moqt.SessionRequest) -> None:
    await request.reject(403, "not you")


@asynccontextmanager
async def connecting(url, **options):
    with trio.fail_after(5):
        async with moqt.connect(url, **options) as session:
            yield session


@pytest.mark.parametrize("contents", [None, "hello"], ids=["missing", "no certificate"])
async def test_authorities_that_are_none(contents, tmp_path):
    """A file of authorities that holds none is refused by its name, before any server is asked."""
    path = tmp_path / "authority.crt"
    if contents is not None:
        path.write_text(contents)
    with pytest.raises(moqt.CertificateUnusable, match=r"authority\.crt"):
        async with connecting("moqt://localhost:1/", cafile=str(path)):
            pass


async def test_no_version_in_common(nursery):
    """A client that shares no version with a WebTransport server gets the same error as over raw QUIC, with both sides'
    lists in the message."""
    offered = ("moq-lite-06", "moq-lite-04")
    listener = await nursery.start(
        lambda task_status: moqt.serve(refuse, "localhost", 0, versions=["moq-lite-05"], task_status=task_status)
    )
    for url in listener.urls:
        with pytest.raises(moqt.VersionUnsupported, match=r"moq-lite-06.*moq-lite-04") as caught:
            async with connecting(url, fingerprint=listener.fingerprint, versions=offered):
                pass
        assert caught.value.offered == offered
        if url.startswith("https"):
            assert "this server speaks moq-lite-05" in str(caught.value)


async def test_another_refusal_stays_one(nursery):
    """A refusal for another reason is not reported as a missing version."""
    listener = await nursery.start(moqt.serve, refuse, "localhost", 0)
    for url in listener.urls:
        with pytest.raises(moqt.Rejected, match="403") as caught:
            async with connecting(url, fingerprint=listener.fingerprint):
                pass
        assert caught.value.status == 403


async def test_a_server_that_chooses_no_version(nursery):
    """A WebTransport server that accepts without choosing a version shares none of them."""
    certificate = moqt.development_certificate()

    async def handle(connection):
        async def accept(request):
            await request.accept(None).wait_closed()

        await serve_http3(connection, accept, limits=Limits())

    settings = ServerSettings(
        alpns=("h3",),
        identity=lambda: ServerIdentity(certificate.certificate, certificate.chain, certificate.private_key),
        limits=Limits(),
    )
    listener = await nursery.start(serve_quic, handle, "localhost", 0, settings)
    url = f"https://localhost:{listener.port}/"
    with pytest.raises(moqt.VersionUnsupported, match="chose none of the offered versions"):
        async with connecting(url, fingerprint=certificate.fingerprint, versions=["moq-lite-06", "moq-lite-03"]):
            pass


async def test_a_store_that_cannot_be_used(tmp_path, monkeypatch):
    """A server without a certificate of its own fails before it listens when none can be made."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "moqt-trio").write_text("not a directory")
    with trio.fail_after(5), pytest.raises(moqt.CertificateUnusable, match="not a directory"):
        await moqt.serve(refuse, "localhost", 0)
