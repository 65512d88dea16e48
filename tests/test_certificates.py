"""Development certificates: a short validity, a name by SHA-256, and a store that only its owner writes."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import hashlib
import os
import shutil
import ssl
import stat
import subprocess
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x448

from moqt_trio.certificates import (
    LOCAL_HOSTS,
    Certificate,
    DevelopmentCertificates,
    development_certificate,
    parse_fingerprint,
)
from moqt_trio.certificates.pem import certificate_to_pem, read_key, write_whole
from moqt_trio.errors import CertificateUnusable, MoqtError

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)


def save(certificate, directory):
    certfile, keyfile = directory / "server.crt", directory / "server.key"
    certfile.write_bytes(certificate.certificate_pem())
    keyfile.write_bytes(certificate.private_key_pem())
    return certfile, keyfile


def pkcs8(key):
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


USELESS_KEYS = {
    "x448": x448.X448PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "secp224r1": lambda: ec.generate_private_key(ec.SECP224R1()),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
    "dsa": lambda: dsa.generate_private_key(2048),
}
USABLE_KEYS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.fixture
def store(tmp_path):
    return DevelopmentCertificates(tmp_path / "state" / "moqt-trio")


class TestDevelopmentCertificate:
    @pytest.mark.parametrize("days", [0.5, 1, 13, 14])
    def test_life(self, days):
        """It is valid now, already an hour ago, and for no more than the days asked, both ends included."""
        certificate = development_certificate(days=days, now=NOW).certificate
        assert certificate.not_valid_before_utc == NOW - dt.timedelta(hours=1)
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc + dt.timedelta(seconds=1)
        assert life == days * DAY
        assert life <= 14 * DAY

    @pytest.mark.parametrize("days", [0, -1, 14.001, 15, 365])
    def test_too_long(self, days):
        """More than 14 days, or none, is refused: a browser would refuse it later and say less."""
        with pytest.raises(ValueError, match="14 days"):
            development_certificate(days=days)

    def test_clock(self):
        """Without a given time it is valid at the clock's."""
        certificate = development_certificate()
        assert 12.9 < certificate.days_left() < 13

    def test_time_zone(self):
        """An aware time of any zone means the same moment."""
        elsewhere = NOW.astimezone(dt.timezone(dt.timedelta(hours=9)))
        assert development_certificate(now=elsewhere).not_after == development_certificate(now=NOW).not_after

    def test_key(self):
        """The key is ECDSA P-256, the only kind that browsers let a page pin, and signs for itself."""
        certificate = development_certificate()
        assert isinstance(certificate.private_key, ec.EllipticCurvePrivateKey)
        assert isinstance(certificate.private_key.curve, ec.SECP256R1)
        certificate.certificate.verify_directly_issued_by(certificate.certificate)

    def test_hosts(self):
        """Names become DNS names in lower case, addresses become IP addresses."""
        certificate = development_certificate(["Example.test", "*.example.test", "192.0.2.7", "2001:db8:0::1"])
        assert certificate.hosts == ("example.test", "*.example.test", "192.0.2.7", "2001:db8::1")

    def test_default_hosts(self):
        """Without hosts it is for this machine under its three names."""
        assert development_certificate().hosts == ("localhost", "127.0.0.1", "::1")

    @pytest.mark.parametrize("host", ["", "[::1]", "bücher.test", "a b", "host:4443", "https://host", "-a\n"])
    def test_bad_host(self, host):
        """What is neither a DNS name nor an address is refused by name."""
        with pytest.raises(ValueError, match="DNS name in ASCII or an IP address"):
            development_certificate([host])

    def test_no_host(self):
        """A certificate without a host is refused."""
        with pytest.raises(ValueError, match="at least one host"):
            development_certificate([])

    @pytest.mark.parametrize(("host", "trusted"), [("localhost", True), ("127.0.0.1", True), ("example.test", False)])
    def test_strict_verification(self, tmp_path, host, trusted):
        """OpenSSL takes it as its own authority under its strictest X.509 rules, for its hosts and no others."""
        certificate = development_certificate()
        client_context = ssl.create_default_context(cadata=certificate.certificate_pem().decode())
        client_context.verify_flags |= ssl.VERIFY_X509_STRICT
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(*save(certificate, tmp_path))
        if trusted:
            assert run_handshake(client_context, server_context, host) == "TLSv1.3"
        else:
            with pytest.raises(ssl.SSLCertVerificationError, match=host):
                run_handshake(client_context, server_context, host)


def run_handshake(client_context, server_context, host):
    """Runs a TLS handshake in memory and returns the version that it agreed on."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client):
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    return client.version()


class TestFingerprint:
    def test_is_sha256_of_der(self):
        """The fingerprint is the SHA-256 of the certificate's DER."""
        certificate = development_certificate()
        der = certificate.certificate.public_bytes(serialization.Encoding.DER)
        assert certificate.fingerprint == hashlib.sha256(der).digest()

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
    def test_openssl_agrees(self, tmp_path):
        """The text is what `openssl x509 -fingerprint -sha256` prints, but for its case."""
        certificate = development_certificate()
        certfile, _ = save(certificate, tmp_path)
        command = ["openssl", "x509", "-in", str(certfile), "-noout", "-fingerprint", "-sha256"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert printed.strip().partition("=")[2].lower() == certificate.fingerprint_text
        assert parse_fingerprint(printed.partition("=")[2]) == certificate.fingerprint

    @pytest.mark.parametrize("write", [bytes.hex, lambda b: b.hex(":"), lambda b: f" {b.hex(':').upper()}\n"])
    def test_parse(self, write):
        """Hex in either case, with or without colons, gives back the bytes."""
        digest = hashlib.sha256(b"").digest()
        assert parse_fingerprint(write(digest)) == digest

    @pytest.mark.parametrize(
        "text", ["", "ab", "zz" * 32, "ab" * 31, "ab" * 33, "ab:" * 32, "a:b" * 21 + "a", "ab-" * 31 + "ab", "٣" * 64]
    )
    def test_parse_refuses(self, text):
        """Anything else is refused, with a message that says what a fingerprint looks like."""
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            parse_fingerprint(text)


class TestCertificate:
    def test_days_left(self):
        """Days are counted from the given time, and go below zero."""
        certificate = development_certificate(days=10, now=NOW)
        assert certificate.days_left(certificate.not_after - 3 * DAY) == 3
        assert certificate.days_left(certificate.not_after + DAY) == -1

    def test_repr(self):
        """The repr has the hosts, the expiry and the fingerprint, and nothing of the key."""
        certificate = development_certificate(["localhost"], days=10, now=NOW)
        assert repr(certificate) == (
            f"<Certificate for localhost until 2026-03-11 10:59 UTC, {certificate.fingerprint_text}>"
        )

    def test_without_names(self):
        """A certificate without a subject alternative name is for no host."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([])
        builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + DAY)
        assert Certificate(builder.sign(key, hashes.SHA256()), key).hosts == ()


class TestLoad:
    def test_round_trip(self, tmp_path):
        """A pair of PEM files gives back the certificate and its key."""
        certificate = development_certificate()
        loaded = Certificate.load(*save(certificate, tmp_path))
        assert loaded.certificate == certificate.certificate
        assert loaded.private_key.private_numbers() == certificate.private_key.private_numbers()
        assert loaded.chain == ()

    def test_chain_and_one_file(self, tmp_path):
        """Certificates after the first are the chain, and one file may hold everything."""
        certificate, above = development_certificate(), development_certificate()
        both = Certificate(certificate.certificate, certificate.private_key, (above.certificate,))
        path = tmp_path / "all.pem"
        path.write_bytes(both.certificate_pem() + both.private_key_pem())
        loaded = Certificate.load(path, path)
        assert loaded.fingerprint == certificate.fingerprint
        assert loaded.chain == (above.certificate,)

    @pytest.mark.parametrize(
        ("kind", "remedy"), [("crt", "BEGIN CERTIFICATE"), ("key", "BEGIN PRIVATE KEY")], ids=["certificate", "key"]
    )
    @pytest.mark.parametrize("damage", ["", "nonsense", "-----BEGIN NONSENSE-----\nAAAA\n-----END NONSENSE-----\n"])
    def test_malformed(self, tmp_path, kind, remedy, damage):
        """A file without what it should hold is named, with what it should hold."""
        files = save(development_certificate(), tmp_path)
        (tmp_path / f"server.{kind}").write_text(damage)
        with pytest.raises(CertificateUnusable, match=rf"server\.{kind} holds no .*{remedy}"):
            Certificate.load(*files)

    @pytest.mark.parametrize("kind", ["crt", "key"])
    def test_truncated(self, tmp_path, kind):
        """A file that was cut in the middle is named."""
        files = save(development_certificate(), tmp_path)
        path = tmp_path / f"server.{kind}"
        path.write_bytes(path.read_bytes()[:80])
        with pytest.raises(CertificateUnusable, match=rf"server\.{kind}"):
            Certificate.load(*files)

    @pytest.mark.parametrize("kind", ["crt", "key"])
    def test_missing(self, tmp_path, kind):
        """A missing file is named, with the system's error text."""
        files = save(development_certificate(), tmp_path)
        (tmp_path / f"server.{kind}").unlink()
        with pytest.raises(CertificateUnusable, match=rf"server\.{kind} \(No such file"):
            Certificate.load(*files)

    def test_foreign_key(self, tmp_path):
        """A key that belongs to another certificate is refused, and both files are named."""
        certfile, keyfile = save(development_certificate(), tmp_path)
        keyfile.write_bytes(development_certificate().private_key_pem())
        with pytest.raises(CertificateUnusable, match=r"server\.key does not belong .*server\.crt"):
            Certificate.load(certfile, keyfile)

    def test_encrypted_key(self, tmp_path):
        """An encrypted key is refused with the command that decrypts it."""
        certificate = development_certificate()
        certfile, keyfile = save(certificate, tmp_path)
        encrypted = certificate.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        keyfile.write_bytes(encrypted)
        with pytest.raises(CertificateUnusable, match=r"encrypted: .*openssl pkey"):
            Certificate.load(certfile, keyfile)

    @pytest.mark.parametrize("make_key", USELESS_KEYS.values(), ids=USELESS_KEYS)
    def test_kind_of_key(self, make_key, tmp_path):
        """A key that no client accepts a signature of is refused with one that it can."""
        certfile, keyfile = save(development_certificate(), tmp_path)
        keyfile.write_bytes(pkcs8(make_key()))
        with pytest.raises(CertificateUnusable, match="ECDSA P-256"):
            Certificate.load(certfile, keyfile)

    @pytest.mark.parametrize("make_key", USABLE_KEYS.values(), ids=USABLE_KEYS)
    def test_usable_kinds(self, make_key, tmp_path):
        """Each kind of key that a client accepts is loaded."""
        keyfile = tmp_path / "server.key"
        keyfile.write_bytes(pkcs8(make_key()))
        assert pkcs8(read_key(keyfile)) == keyfile.read_bytes()

    def test_is_one_of_ours(self):
        """The exception belongs to the library's tree, so that one clause reports it."""
        assert issubclass(CertificateUnusable, MoqtError)


class TestStore:
    def test_made_once(self, store):
        """The first call makes a certificate for the default hosts; later calls and stores return the same."""
        first = store.current(NOW)
        assert first.hosts == LOCAL_HOSTS
        assert store.current(NOW + DAY).fingerprint == first.fingerprint
        assert DevelopmentCertificates(store.directory).current(NOW).fingerprint == first.fingerprint
        assert store.fingerprints(NOW) == (first.fingerprint,)

    def test_renewal(self, store):
        """With less than two days left a new one is made; the old one stays pinned until it expires."""
        old = store.current(NOW)
        assert store.current(old.not_after - 2 * DAY).fingerprint == old.fingerprint
        late = old.not_after - 2 * DAY + dt.timedelta(seconds=1)
        new = store.current(late)
        assert new.fingerprint != old.fingerprint
        assert new.days_left(late) > 12
        assert set(store.fingerprints(late)) == {old.fingerprint, new.fingerprint}
        assert store.current(late).fingerprint == new.fingerprint
        expired = old.not_after + dt.timedelta(seconds=1)
        assert store.fingerprints(expired) == (new.fingerprint,)
        third = store.current(new.not_after)
        assert files(store) == {f"{each.fingerprint.hex()}{end}" for each in (new, third) for end in (".pem", ".key")}

    def test_clock_that_went_back(self, store):
        """A certificate that is not valid yet is neither served nor pinned."""
        ahead = store.current(NOW + 30 * DAY)
        assert store.fingerprints(NOW) == ()
        assert store.current(NOW).fingerprint != ahead.fingerprint

    def test_hosts(self, store):
        """A store for other hosts makes its own certificate; both are pinned; hosts have a canonical form."""
        local = store.current(NOW)
        other = DevelopmentCertificates(store.directory, hosts=["Cam.test", "2001:db8:0::1"])
        first = other.current(NOW)
        assert first.hosts == ("cam.test", "2001:db8::1")
        assert other.current(NOW).fingerprint == first.fingerprint
        assert store.current(NOW).fingerprint == local.fingerprint
        assert set(store.fingerprints(NOW)) == {local.fingerprint, first.fingerprint}

    def test_clock(self, store):
        """Without a given time, the clock's is used."""
        assert store.fingerprints() == ()
        made = store.current()
        assert store.fingerprints() == (made.fingerprint,)

    def test_permissions(self, store):
        """Only the owner can enter the directory or read a key, whatever the umask."""
        before = os.umask(0)
        try:
            store.current(NOW)
        finally:
            os.umask(before)
        assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
        for path in store.directory.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    @pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
    def test_writable_by_others(self, store, mode):
        """A directory that others can write to is refused, to serve from and to trust."""
        store.current(NOW)
        store.directory.chmod(mode)
        with pytest.raises(CertificateUnusable, match="chmod 700"):
            store.current(NOW)
        with pytest.raises(CertificateUnusable, match="chmod 700"):
            store.fingerprints(NOW)

    def test_owned_by_somebody_else(self, store, monkeypatch):
        """A directory of another account is refused, to serve from and to trust."""
        store.current(NOW)
        stranger = os.geteuid() + 1
        monkeypatch.setattr(os, "geteuid", lambda: stranger)
        with pytest.raises(CertificateUnusable, match="belongs to another account"):
            store.current(NOW)
        with pytest.raises(CertificateUnusable, match="belongs to another account"):
            store.fingerprints(NOW)

    def test_not_a_directory(self, tmp_path):
        """A file in the directory's place is named."""
        (tmp_path / "store").write_text("")
        store = DevelopmentCertificates(tmp_path / "store")
        with pytest.raises(CertificateUnusable, match="not a directory"):
            store.current(NOW)
        below = DevelopmentCertificates(tmp_path / "store" / "deeper")
        with pytest.raises(CertificateUnusable, match=r"cannot read .*deeper"):
            below.current(NOW)

    def test_full_disk(self, store, monkeypatch):
        """When nothing can be written the error names the directory, and nothing half-written is left."""

        def refuse(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(CertificateUnusable, match=r"cannot write .*: No space left"):
            store.current(NOW)
        assert list(store.directory.iterdir()) == []

    @pytest.mark.parametrize("suffix", [".pem", ".key"])
    @pytest.mark.parametrize("damage", [b"", b"nonsense", None], ids=["empty", "nonsense", "missing"])
    def test_damaged(self, store, suffix, damage):
        """A certificate whose file or key is missing is never served again: a new one is made."""
        old = store.current(NOW)
        path = store.directory / f"{old.fingerprint.hex()}{suffix}"
        path.unlink() if damage is None else path.write_bytes(damage)
        new = store.current(NOW)
        assert new.fingerprint != old.fingerprint
        assert store.current(NOW).fingerprint == new.fingerprint
        assert (old.fingerprint in store.fingerprints(NOW)) == (suffix == ".key")

    def test_exchanged(self, store):
        """A file whose name is not the SHA-256 of its certificate is not trusted, nor is one of another name."""
        real = store.current(NOW)
        foreign = certificate_to_pem(development_certificate(now=NOW).certificate)
        write_whole(store.directory / f"{'0' * 64}.pem", foreign)
        write_whole(store.directory / "extra.pem", foreign)
        assert store.fingerprints(NOW) == (real.fingerprint,)

    def test_key_of_another(self, store):
        """A certificate beside a key that is not its own is not served."""
        old = store.current(NOW)
        key = development_certificate().private_key_pem()
        write_whole(store.directory / f"{old.fingerprint.hex()}.key", key)
        assert store.current(NOW).fingerprint != old.fingerprint

    def test_many_at_once(self, store):
        """Servers that start together on an empty store each get a certificate that every client pins."""
        count = 8
        barrier = threading.Barrier(count)
        made = []

        def start():
            barrier.wait()
            made.append(DevelopmentCertificates(store.directory).current(NOW))

        threads = [threading.Thread(target=start) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(made) == count
        assert {certificate.fingerprint for certificate in made} <= set(store.fingerprints(NOW))
        assert store.current(NOW).fingerprint == store.current(NOW).fingerprint

    def test_repr(self, tmp_path):
        """The repr has the directory and the hosts."""
        store = DevelopmentCertificates(tmp_path, hosts=["localhost"])
        assert repr(store) == f"<DevelopmentCertificates in {str(tmp_path)!r} for localhost>"


class TestDefaultDirectory:
    def test_xdg(self, tmp_path, monkeypatch):
        """The store lies in the account's state directory."""
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        assert DevelopmentCertificates().directory == tmp_path / "moqt-trio"

    @pytest.mark.parametrize("value", [None, "", "relative/state"])
    def test_home(self, tmp_path, monkeypatch, value):
        """Without a usable variable it lies below the home directory."""
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        if value is not None:
            monkeypatch.setenv("XDG_STATE_HOME", value)
        assert DevelopmentCertificates().directory == tmp_path / ".local" / "state" / "moqt-trio"

    def test_homeless(self, monkeypatch):
        """For an account without a home the error names the variable to set."""

        def homeless():
            raise RuntimeError

        monkeypatch.delenv("XDG_STATE_HOME", raising=False)
        monkeypatch.setattr("pathlib.Path.home", homeless)
        with pytest.raises(CertificateUnusable, match="set XDG_STATE_HOME"):
            DevelopmentCertificates()


def files(store):
    return {path.name for path in store.directory.iterdir()}
