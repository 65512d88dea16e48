"""The certificate that a server shows: renewed before it expires, and reloaded on request."""

from __future__ import annotations

import datetime as dt
import hashlib
import ssl
from functools import partial

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.certificates import certificate as clock
from moqt_trio.certificates import store as store_module
from moqt_trio.certificates.certificate import development_certificate, utc_now
from moqt_trio.server.identity import Identity, stored_reset_key


async def hello(scope, receive, send):
    if scope["type"] == "lifespan":
        for step in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{step}.complete"})


@pytest.fixture
def wall_clock(monkeypatch):
    """A wall clock that a test can move on, by days."""
    offset = dt.timedelta()

    def now():
        return utc_now() + offset

    def move(days):
        nonlocal offset
        offset += dt.timedelta(days=days)

    monkeypatch.setattr(clock, "utc_now", now)
    monkeypatch.setattr(store_module, "utc_now", now)
    return move


@pytest.fixture
def own_store(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


async def shown_over_tcp(listener):
    """Returns the SHA-256 of the certificate that the TCP port shows."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    stream = await trio.open_ssl_over_tcp_stream("127.0.0.1", listener.port, ssl_context=context)
    await stream.do_handshake()
    certificate = stream.getpeercert(binary_form=True)
    await trio.aclose_forcefully(stream)
    return hashlib.sha256(certificate).hexdigest()


@pytest.mark.usefixtures("own_store")
async def test_renewal(wall_clock, autojump_clock):
    """A development certificate is kept while it lasts, and replaced once less than two days are left."""
    identity = Identity(None)
    first = identity.current()
    wall_clock(days=10.9)
    await trio.sleep(61)
    assert identity.current() is not None
    assert identity.current().fingerprint == first.fingerprint
    wall_clock(days=0.2)
    assert identity.current().fingerprint == first.fingerprint, "looked at again before a minute was over"
    await trio.sleep(61)
    second = identity.current()
    assert second.fingerprint != first.fingerprint
    assert second.days_left() > 12
    assert set(moqt.DevelopmentCertificates().fingerprints()) == {first.fingerprint, second.fingerprint}


@pytest.mark.usefixtures("own_store")
@pytest.mark.parametrize("days", [20, -20])
async def test_a_wall_clock_that_is_set(wall_clock, autojump_clock, days):
    """A minute after the clock was set, a certificate is shown that is valid then; and again when it is set back."""
    identity = Identity(None)
    for step in (days, -days):
        wall_clock(days=step)
        await trio.sleep(61)
        shown = identity.current()
        assert shown.certificate.not_valid_before_utc <= clock.utc_now() <= shown.not_after
        assert shown.days_left() >= 2


@pytest.mark.usefixtures("own_store")
async def test_renewal_while_serving(wall_clock, monkeypatch):
    """A server that runs for weeks shows the new certificate over QUIC and TCP; the session from before goes on."""
    monkeypatch.setattr("moqt_trio.server.identity._CHECK_S", 0.0)

    async def handler(request):
        async with request.accept() as session:
            await session.wait_closed()

    async with trio.open_nursery() as nursery:
        listener = await nursery.start(partial(moqt.serve, app=hello), moqt.Router({"/x": handler}), "localhost", 0)
        before = listener.fingerprint
        assert await shown_over_tcp(listener) == before
        async with moqt.connect(listener.urls[0], fingerprint=before) as session:
            wall_clock(days=12)
            after = listener.fingerprint
            assert after != before
            assert await shown_over_tcp(listener) == after
            for url in listener.urls:
                async with moqt.connect(url, fingerprint=after):
                    pass
                with pytest.raises(moqt.CertificateInvalid):
                    async with moqt.connect(url, fingerprint=before):
                        pass
            assert session.closed is None
        await listener.aclose(grace=0)


async def test_files(tmp_path):
    """Files that were renewed are shown after `reload`; files that are broken change nothing."""

    def write(certificate):
        (tmp_path / "crt").write_bytes(certificate.certificate_pem())
        (tmp_path / "key").write_bytes(certificate.private_key_pem())
        return certificate.fingerprint.hex()

    old = write(development_certificate())
    files = moqt.CertificateFiles(tmp_path / "crt", tmp_path / "key")
    async with trio.open_nursery() as nursery:
        serve = partial(moqt.serve, app=hello, certificate=files)
        listener = await nursery.start(serve, moqt.Router({}), "localhost", 0)
        assert listener.fingerprint == await shown_over_tcp(listener) == old
        new = write(development_certificate())
        assert listener.fingerprint == old
        files.reload()
        assert listener.fingerprint == await shown_over_tcp(listener) == new
        (tmp_path / "key").write_bytes(development_certificate().private_key_pem())
        with pytest.raises(moqt.CertificateUnusable, match="does not belong"):
            files.reload()
        assert listener.fingerprint == await shown_over_tcp(listener) == new
        assert "crt" in repr(files)
        await listener.aclose(grace=0)


async def test_failing_source(caplog):
    """A source that fails later is logged, and what it returned before is shown; one that fails at once is an error."""
    certificate = development_certificate()
    answers = [certificate]
    identity = Identity(lambda: answers.pop())
    assert identity.current() is certificate
    assert "no new certificate" in caplog.text

    def never():
        raise moqt.CertificateUnusable("gone")

    with pytest.raises(moqt.CertificateUnusable, match="gone"):
        Identity(never)


async def test_given():
    """A certificate that was given is shown as it is."""
    certificate = development_certificate()
    assert Identity(certificate).current() is certificate


class TestResetKey:
    """The key for stateless resets outlives the process."""

    def test_it_is_kept(self, tmp_path, monkeypatch):
        """Every server of the account has the same key, in a file that only the account can read."""
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        key = stored_reset_key()
        assert len(key) == 32
        assert stored_reset_key() == key
        (path,) = (tmp_path / "moqt-trio").iterdir()
        assert path.read_bytes() == key
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700

    def test_a_damaged_file_is_replaced(self, tmp_path):
        """A file that holds no key, after a full disk say, is written anew."""
        store = moqt.DevelopmentCertificates(tmp_path)
        tmp_path.chmod(0o700)
        (tmp_path / "stateless-reset.key").write_bytes(b"short")
        key = store.reset_key()
        assert len(key) == 32
        assert store.reset_key() == key

    def test_certificates_leave_it_alone(self, tmp_path):
        """Certificates that are renewed do not touch the key, nor does the key touch them."""
        store = moqt.DevelopmentCertificates(tmp_path / "store")
        key = store.reset_key()
        assert store.fingerprints() == ()
        certificate = store.renew()
        assert store.reset_key() == key
        assert store.fingerprints() == (certificate.fingerprint,)

    def test_without_a_directory(self, tmp_path, monkeypatch, caplog):
        """A server that can keep no key has a random one, and says what that costs."""
        (tmp_path / "moqt-trio").write_text("in the way")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        caplog.set_level("INFO", "moqt_trio")
        assert len(stored_reset_key()) == 32
        assert stored_reset_key() != stored_reset_key()
        assert "clients will not notice a restart at once" in caplog.text

    async def test_a_given_key_is_checked(self):
        """A key that could be guessed is a ValueError before anything is bound."""
        with pytest.raises(ValueError, match="reset_key must have at least 32 bytes, not 6"):
            await moqt.serve(moqt.Router({}), "localhost", 0, reset_key=b"secret")
