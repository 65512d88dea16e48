"""The certificate that a server shows, which may be renewed while it runs, and its key for stateless resets."""

from __future__ import annotations

import os
import threading

import trio

from ..arguments import shown
from ..certificates import Certificate, CertificateSource, DevelopmentCertificates
from ..errors import CertificateUnusable
from ..loggers import Logger
from ..transport.quic.settings import ServerIdentity
from ..transport.quic.stateless_reset import RESET_KEY_BYTES

logger = Logger(__name__)

_CHECK_S = 60.0
"""Seconds after which the remaining days of a development certificate are checked again. The check reads the store's
files, which would be too much for each connection; a certificate is renewed days before it expires."""


def stored_reset_key() -> bytes:
    """Return the key for stateless resets that the account keeps, or a random one where it cannot keep any."""
    try:
        return DevelopmentCertificates().reset_key()
    except CertificateUnusable as error:
        logger.info("clients will not notice a restart at once, for the key of stateless resets is not kept: %s", error)
        return os.urandom(RESET_KEY_BYTES)


class Identity:
    """The certificate of a server: a given one, what a function returns, or this account's development certificate.

    When a source fails while the server runs, the certificate that it returned before is shown, and the failure is
    logged.

    Raises:
        CertificateUnusable: There is no certificate to begin with.
    """

    def __init__(self, certificate: Certificate | CertificateSource | None) -> None:
        if not (certificate is None or isinstance(certificate, Certificate) or callable(certificate)):
            raise TypeError(
                "a certificate is what Certificate.load('cert.pem', 'key.pem') returns, or CertificateFiles of the "
                f"same two files, not {shown(certificate)}"
            )
        self._development = certificate is None
        self._source: CertificateSource
        if certificate is None:
            self._source = DevelopmentCertificates().current
        elif isinstance(certificate, Certificate):
            self._source = lambda: certificate
        else:
            self._source = certificate
        self._certificate = self._source()
        # The clock of this run of trio can be read from any thread; `trio.current_time` cannot.
        self._clock = trio.lowlevel.current_clock()
        self._checked = self._clock.current_time()
        self._checking = threading.Lock()

    def current(self) -> Certificate:
        """Return the certificate for a connection that begins now. It may be called from any thread."""
        # The task that reads the socket does not wait for another thread: it shows what was shown before.
        if self._checking.acquire(blocking=False):
            try:
                self._check()
            finally:
                self._checking.release()
        return self._certificate

    def _check(self) -> None:
        now = self._clock.current_time()
        if not self._development or now - self._checked >= _CHECK_S:
            self._checked = now
            try:
                self._certificate = self._source()
            except Exception:
                logger.exception("no new certificate; the previous one is shown: %r", self._certificate)

    def __call__(self) -> ServerIdentity:
        certificate = self.current()
        return ServerIdentity(certificate.certificate, certificate.chain, certificate.private_key)
