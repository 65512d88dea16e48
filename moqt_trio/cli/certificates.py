"""The command line for certificates: `python -m moqt_trio.certificates`."""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes

from ..certificates.certificate import (
    LOCAL_HOSTS,
    MAX_DEVELOPMENT_DAYS,
    Certificate,
    development_certificate,
    hosts_of,
    utc_now,
)
from ..certificates.pem import read_certificates, unusable, write_whole
from ..certificates.store import RENEW_BEFORE_DAYS, DevelopmentCertificates
from ..errors import CertificateUnusable, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

_DAYS = 13.0


class _WrongUsage(ValueError):
    """The arguments do not go together."""


_DESCRIPTION = """\
Makes, shows and names the certificates of a moqt_trio server.

Without FILE the commands speak of the development certificate of this account:
the one that a server which was given none shows for localhost.
"""

_EPILOG = f"""\
examples:
  python -m moqt_trio.certificates show
  python -m moqt_trio.certificates show /etc/letsencrypt/live/cam.example/fullchain.pem
  python -m moqt_trio.certificates create
  python -m moqt_trio.certificates create cam.example 192.0.2.7 --out camera
  python -m moqt_trio.certificates days-left server.crt --at-least 14 || echo soon

A development certificate is self-signed, of ECDSA P-256, and valid for at most
{MAX_DEVELOPMENT_DAYS} days: only such a one may be pinned by a web page. Clients trust it by its
fingerprint, the SHA-256 of its bytes, and by nothing else. Servers renew
theirs {RENEW_BEFORE_DAYS} days before it expires. For a public name use a certificate of a
public authority instead: browsers and clients then need no fingerprint.

exit codes: 0 done, 1 the certificate has expired or has too few days left,
2 wrong usage, or a file that cannot be used
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m moqt_trio.certificates",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    create = commands.add_parser(
        "create",
        help="make a development certificate",
        description="Makes a self-signed certificate. With --out it is for the hosts, and written to NAME.crt and "
        "NAME.key; without, it is for localhost, and replaces the one in this account's store, which running servers "
        "take over within a minute.",
    )
    create.add_argument(
        "hosts", nargs="*", metavar="HOST", help=f"DNS name or IP address (default: {' '.join(LOCAL_HOSTS)})"
    )
    create.add_argument(
        "--days",
        type=float,
        help=f"how long it is valid, at most {MAX_DEVELOPMENT_DAYS}; with --out only (default: {_DAYS:g})",
    )
    create.add_argument("--out", type=Path, metavar="NAME", help="write NAME.crt and NAME.key, which must not exist")
    create.set_defaults(run=_create)

    for name, run, text in (
        ("show", _show, "show hosts, validity and fingerprint"),
        ("fingerprint", _fingerprint, "print the SHA-256, as clients pin it, and nothing else"),
        ("days-left", _days_left, "print the days until it expires, and nothing else"),
    ):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.add_argument(
            "file",
            nargs="?",
            type=Path,
            metavar="FILE",
            help="a certificate in PEM; its first one counts (default: this account's development certificate)",
        )
        if run is _days_left:
            command.add_argument(
                "--at-least",
                type=float,
                default=0.0,
                metavar="DAYS",
                help="exit with 1 when fewer are left (default: 0)",
            )
        command.set_defaults(run=run)
    return parser


def _create(options: argparse.Namespace) -> int:
    if options.out is None:
        if options.hosts or options.days is not None:
            raise _WrongUsage("HOST and --days go with --out: the account's own certificate is for localhost")
        store = DevelopmentCertificates()
        certificate = store.renew()
        certfile = store.directory / f"{certificate.fingerprint.hex()}.pem"
        keyfile = certfile.with_suffix(".key")
    else:
        try:
            certificate = development_certificate(
                options.hosts or LOCAL_HOSTS, days=_DAYS if options.days is None else options.days
            )
        except ValueError as error:
            raise _WrongUsage(str(error)) from error
        certfile, keyfile = (options.out.with_name(options.out.name + suffix) for suffix in (".crt", ".key"))
        _write(certificate, certfile, keyfile)
    _print(certificate.certificate)
    print(f"certificate  {certfile}")
    print(f"key          {keyfile}")
    return 0


def _write(certificate: Certificate, certfile: Path, keyfile: Path) -> None:
    for path in (certfile, keyfile):
        if path.exists():
            raise CertificateUnusable(f"{printable(str(path))} exists: remove it, or name others with --out")
    try:
        write_whole(keyfile, certificate.private_key_pem())
        write_whole(certfile, certificate.certificate_pem())
    except OSError as error:
        raise unusable("write", certfile, error) from error


def _show(options: argparse.Namespace) -> int:
    certificate = _certificate(options.file)
    _print(certificate)
    return 0 if _days(certificate) > 0 else 1


def _fingerprint(options: argparse.Namespace) -> int:
    print(_certificate(options.file).fingerprint(hashes.SHA256()).hex())
    return 0


def _days_left(options: argparse.Namespace) -> int:
    days = _days(_certificate(options.file))
    print(f"{days:.1f}")
    return 0 if days > 0 and days >= options.at_least else 1


def _certificate(path: Path | None) -> x509.Certificate:
    if path is not None:
        return read_certificates(path)[0]
    store = DevelopmentCertificates()
    stored = store.stored()
    if stored is None:
        raise CertificateUnusable(
            f"there is no development certificate in {printable(str(store.directory))} that a server would show: "
            "run 'create', start a server, or name a FILE"
        )
    return stored.certificate


def _days(certificate: x509.Certificate) -> float:
    return (certificate.not_valid_after_utc - utc_now()) / dt.timedelta(days=1)


def _print(certificate: x509.Certificate) -> None:
    digest = certificate.fingerprint(hashes.SHA256())
    days = _days(certificate)
    print(f"hosts        {printable(' '.join(hosts_of(certificate))) or 'none'}")
    print(f"issued by    {printable(certificate.issuer.rfc4514_string())}")
    print(f"valid from   {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
    print(f"valid until  {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    print(f"days left    {days:.1f}" if days > 0 else f"days left    none: it expired {-days:.1f} days ago")
    print(f"sha256       {digest.hex()}")
    print(f"             {digest.hex(':')}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        The exit code; see `--help`.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        code: int = options.run(options)
    except (_WrongUsage, CertificateUnusable) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
