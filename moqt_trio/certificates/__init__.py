"""Certificates: what each side shows, where it is kept, and the command line `python -m moqt_trio.certificates`."""

from __future__ import annotations

from .certificate import (
    LOCAL_HOSTS,
    MAX_DEVELOPMENT_DAYS,
    Certificate,
    CertificateSource,
    ClientCertificate,
    client_certificate,
    development_certificate,
    parse_fingerprint,
)
from .store import RENEW_BEFORE_DAYS, CertificateFiles, DevelopmentCertificates

__all__ = [
    "LOCAL_HOSTS",
    "MAX_DEVELOPMENT_DAYS",
    "RENEW_BEFORE_DAYS",
    "Certificate",
    "CertificateFiles",
    "CertificateSource",
    "ClientCertificate",
    "DevelopmentCertificates",
    "client_certificate",
    "development_certificate",
    "parse_fingerprint",
]
