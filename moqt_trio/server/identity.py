"""Which certificate a server shows, now: it may be renewed while the server runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import trio

from ..certificates import Certificate, DevelopmentCertificates
from ..session.context import logger
from ..transport.quic.settings import ServerIdentity

CertificateSource: TypeAlias = Callable[[], Certificate]
"""Returns the certificate to show; called for each connection that begins, so it must be quick."""

_CHECK_S = 60.0
"""Seconds for which a development certificate is taken as it is before its remaining days are looked at again."""


class Identity:
    """The certificate of a server: a given one, what a function returns, or this account's development certificate.

    A source that fails once the server runs changes nothing: the certificate from before is shown, and the failure
    logged.

    Raises:
        CertificateUnusable: There is no certificate to begin with.
    """

    def __init__(self, certificate: Certificate | CertificateSource | None) -> None:
        self._development = certificate is None
        self._source: CertificateSource
        if certificate is None:
            self._source = DevelopmentCertificates().current
        elif isinstance(certificate, Certificate):
            self._source = lambda: certificate
        else:
            self._source = certificate
        self._certificate = self._source()
        self._checked = trio.current_time()

    def current(self) -> Certificate:
        """Returns the certificate for a connection that begins now."""
        now = trio.current_time()
        if not self._development or now - self._checked >= _CHECK_S:
            self._checked = now
            try:
                self._certificate = self._source()
            except Exception:
                logger.exception("no new certificate; the one from before is shown: %r", self._certificate)
        return self._certificate

    def __call__(self) -> ServerIdentity:
        certificate = self.current()
        return ServerIdentity(certificate.certificate, certificate.chain, certificate.private_key)
