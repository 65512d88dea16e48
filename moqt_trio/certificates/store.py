"""Where certificates are kept: the account's store of development certificates, and a pair of files that may change.

Two machines never share a development certificate. On one machine the server of an account keeps its certificates in
a store, and a client of the same account trusts exactly those. The client decides when to trust the store: only when
it connects to a loopback address.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from ..errors import CertificateUnusable, printable
from .certificate import LOCAL_HOSTS, Certificate, development_certificate, general_name, utc_now
from .pem import PrivateKey, read_key, unusable_store, write_whole

if TYPE_CHECKING:
    import datetime as dt

RENEW_BEFORE_DAYS = 2
"""A development certificate with fewer days left is replaced: enough for clients that pinned it to learn the next one,
few enough to make use of the fourteen that a browser allows."""

_RESET_KEY_NAME = "stateless-reset.key"
_RESET_KEY_BYTES = 32
_STORED_NAME = re.compile(r"[0-9a-f]{64}\.pem")


class CertificateFiles:
    """A certificate in two PEM files, loaded now and again whenever `reload` is called.

    Give it to `serve(…, certificate=files)` and call `reload` when the files were renewed, on SIGHUP say: connections
    that begin afterwards are shown the new certificate, those that exist go on.

    Args:
        certfile: The server's certificate first, then its chain.
        keyfile: The private key, not encrypted. May be the same file.

    Raises:
        CertificateUnusable: As in `Certificate.load`.
    """

    def __init__(self, certfile: str | os.PathLike[str], keyfile: str | os.PathLike[str]) -> None:
        self._certfile = certfile
        self._keyfile = keyfile
        self._certificate = Certificate.load(certfile, keyfile)

    def __call__(self) -> Certificate:
        """Return the certificate that was loaded last."""
        return self._certificate

    def reload(self) -> Certificate:
        """Load the files again, and return their certificate.

        Raises:
            CertificateUnusable: They cannot be used; the previous certificate stays in place.
        """
        self._certificate = Certificate.load(self._certfile, self._keyfile)
        return self._certificate

    def __repr__(self) -> str:
        return f"<CertificateFiles {printable(str(self._certfile))!r}: {self._certificate!r}>"


class DevelopmentCertificates:
    """The development certificates of this account on this machine, kept in a directory.

    A server takes `current()`; it is made when there is none and renewed when less than two days are left. A client
    on the same account pins `fingerprints()` for `localhost`. Only the account itself can write there: the directory
    has mode 0700, a key 0600, and a directory that another account owns or can write to is refused. Files are written
    whole or not at all, so that any number of servers and clients may use one store at once.

    Args:
        directory: Where the certificates are kept; `$XDG_STATE_HOME/moqt-trio`, or else
            `~/.local/state/moqt-trio`, when left out. It is made when the first certificate is.
        hosts: The names that `current()` has to cover.

    Raises:
        ValueError: A host is neither a DNS name nor an IP address.
        CertificateUnusable: The directory was left out, and the account has no home.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None, *, hosts: Sequence[str] = LOCAL_HOSTS) -> None:
        self.directory = Path(directory) if directory is not None else _default_directory()
        self.hosts = tuple(str(general_name(host).value) for host in hosts)

    def __repr__(self) -> str:
        return f"<DevelopmentCertificates in {str(self.directory)!r} for {', '.join(self.hosts)}>"

    def current(self, now: dt.datetime | None = None) -> Certificate:
        """Return the certificate to serve with: the stored one that lasts longest, or a new one.

        The one that it replaces stays in `fingerprints()` for as long as it is valid.

        Args:
            now: An aware time; the clock's when left out.

        Raises:
            CertificateUnusable: The directory cannot be used, or belongs to another account.
        """
        now = now or utc_now()
        return self.stored(now) or self.renew(now)

    def stored(self, now: dt.datetime | None = None) -> Certificate | None:
        """Return the stored certificate that a server would show, or None when it would make a new one.

        Args:
            now: An aware time; the clock's when left out.

        Raises:
            CertificateUnusable: The directory cannot be used, or belongs to another account.
        """
        now = now or utc_now()
        pairs = [Certificate(certificate, key) for certificate, key in self._pairs(now)]
        fit = [
            certificate
            for certificate in pairs
            if certificate.days_left(now) >= RENEW_BEFORE_DAYS and set(self.hosts) <= set(certificate.hosts)
        ]
        return max(fit, key=lambda certificate: (certificate.not_after, certificate.fingerprint), default=None)

    def renew(self, now: dt.datetime | None = None) -> Certificate:
        """Make a certificate, store it and return it. What has expired is removed from the store.

        Args:
            now: An aware time; the clock's when left out.

        Raises:
            CertificateUnusable: The directory cannot be used, or belongs to another account.
        """
        now = now or utc_now()
        certificate = development_certificate(self.hosts, now=now)
        self._store(certificate)
        self._remove_outdated(now)
        return certificate

    def fingerprints(self, now: dt.datetime | None = None) -> tuple[bytes, ...]:
        """Return the SHA-256 of every stored certificate that is valid now. No key is read.

        Args:
            now: An aware time; the clock's when left out.

        Raises:
            CertificateUnusable: The directory cannot be used, or belongs to another account.
        """
        now = now or utc_now()
        return tuple(certificate.fingerprint(hashes.SHA256()) for _, certificate in self._valid(now))

    def _files(self) -> list[Path]:
        """Return the certificate files; none when the directory does not exist."""
        try:
            self._refuse_foreign_directory()
            return sorted(path for path in self.directory.iterdir() if _STORED_NAME.fullmatch(path.name))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unusable_store("read", self.directory, error) from error

    def _refuse_foreign_directory(self) -> None:
        # Whatever is written here is trusted by this account's clients.
        status = self.directory.stat()
        if not stat.S_ISDIR(status.st_mode):
            raise CertificateUnusable(f"{printable(str(self.directory))} is not a directory: move it away")
        if os.name != "posix":
            return
        if status.st_uid != os.geteuid():
            raise CertificateUnusable(
                f"{printable(str(self.directory))} belongs to another account (user id {status.st_uid}): "
                "remove it, or set XDG_STATE_HOME to a directory of your own"
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise CertificateUnusable(
                f"other accounts can write to {printable(str(self.directory))}: empty it and run chmod 700 on it"
            )

    def _valid(self, now: dt.datetime) -> Iterator[tuple[Path, x509.Certificate]]:
        for path in self._files():
            certificate = _stored_certificate(path)
            if certificate and certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
                yield path, certificate

    def _pairs(self, now: dt.datetime) -> Iterator[tuple[x509.Certificate, PrivateKey]]:
        for path, certificate in self._valid(now):
            try:
                key = read_key(path.with_suffix(".key"))
            except CertificateUnusable:
                continue
            if key.public_key() == certificate.public_key():
                yield certificate, key

    def reset_key(self) -> bytes:
        """Return the secret of this account's servers for stateless resets; it is made when there is none.

        A server that has it after a restart ends the sessions that it had before; see `serve(reset_key=…)`.

        Raises:
            CertificateUnusable: The directory cannot be used, or belongs to another account.
        """
        path = self.directory / _RESET_KEY_NAME
        try:
            self._make_directory()
            if not path.exists() or path.stat().st_size != _RESET_KEY_BYTES:
                write_whole(path, os.urandom(_RESET_KEY_BYTES))
            # Another server may have made one at the same time: the file has the last.
            return path.read_bytes()
        except OSError as error:
            raise unusable_store("use", path, error) from error

    def _make_directory(self) -> None:
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self._refuse_foreign_directory()

    def _store(self, certificate: Certificate) -> None:
        path = self.directory / f"{certificate.fingerprint.hex()}.pem"
        try:
            self._make_directory()
            # The key first: a certificate that can be seen has its key beside it.
            write_whole(path.with_suffix(".key"), certificate.private_key_pem())
            write_whole(path, certificate.certificate_pem())
        except OSError as error:
            raise unusable_store("write", self.directory, error) from error

    def _remove_outdated(self, now: dt.datetime) -> None:
        """Remove what has expired or does not decode, and its keys."""
        for path in self._files():
            certificate = _stored_certificate(path)
            if certificate is None or certificate.not_valid_after_utc < now:
                path.unlink(missing_ok=True)
                path.with_suffix(".key").unlink(missing_ok=True)


def _default_directory() -> Path:
    # A relative path in an XDG variable counts as unset (XDG Base Directory Specification).
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():
        try:
            state = Path.home() / ".local" / "state"
        except RuntimeError as error:
            raise CertificateUnusable("this account has no home directory: set XDG_STATE_HOME") from error
    return state / "moqt-trio"


def _stored_certificate(path: Path) -> x509.Certificate | None:
    """Return a certificate of the store; None when the file was removed, is damaged, or has another's name."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return None
    return certificate if certificate.fingerprint(hashes.SHA256()).hex() == path.stem else None
