"""Session URLs: `https://host:port/path` is WebTransport, `moqt://host:port/path` is raw QUIC.

Spec: RFC 3986; RFC 5891 and UTS 46 (international host names); RFC 6874 (zone ids).
"""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

import attrs
import idna

from .arguments import want
from .errors import printable

_DEFAULT_PORT = 443

_SUB_DELIMITERS = "!$&'()*+,;="
_PATH = _SUB_DELIMITERS + ":@/"
"""Characters that stand in a path as they are, beside letters, digits and `-._~` (RFC 3986, section 3.3)."""
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CREDENTIALS = re.compile(r"(?<=://)[^/?#]*@|[?#].*", re.DOTALL)
"""The parts of a URL that may be credentials: the user before the host, and what follows the path."""
_NOT_IN_A_HOST = re.compile(r"[\x00-\x20\x7f\"#%/:<>?@\[\\\]^`{|}]")
"""Characters that no name of a host has; most of them would end it in a URL."""


def split_authority(authority: str) -> tuple[str, str]:
    """Return the host and the port of a request's authority; the port is empty when there is none."""
    host, separator, port = authority.rpartition(":")
    return (host, port) if separator and port.isdecimal() else (authority, "")


def printable_url(url: str) -> str:
    """Return a URL as it may be logged: escaped, cut, and without its user, query and fragment, which may be
    credentials; `...` stands for each of them."""
    return printable(_CREDENTIALS.sub(lambda found: "...@" if found[0].endswith("@") else found[0][0] + "...", url))


def canonical_path(path: str) -> str:
    """Return a path as ASCII, with what a URL cannot carry percent-coded: `/my room` becomes `/my%20room`.

    What is percent-coded already stays so, in upper case (RFC 3986, section 6.2.2.1). A character that needs no coding
    is another path when it is coded: a path that a proxy or a handler compares as text has one spelling.
    """
    return _ESCAPE.sub(lambda escape: escape[0].upper(), _encoded(path, _PATH))


def _encoded(text: str, safe: str) -> str:
    """Return text with what a URL cannot carry percent-coded; what is coded already stays as it is."""
    return quote(_STRAY_PERCENT.sub("%25", text), safe=safe + "%", errors="surrogateescape")


def _host(written: str) -> str:
    """Return an address as it is, its zone decoded, or a name whose international labels are A-labels.

    Raises:
        ValueError: It is no host; the message says why.
    """
    if ":" in written:
        return written.replace("%25", "%", 1)
    name = unquote(written, errors="strict")
    if found := _NOT_IN_A_HOST.search(name):
        raise ValueError(f"a host has no {found[0]!r}")
    if name.isascii():
        return name
    return idna.encode(name, uts46=True).decode("ascii")


@attrs.frozen
class SessionUrl:
    """The URL of a session, parsed.

    Attributes:
        transport: `"webtransport"` or `"quic"`.
        host: A name or an address, an IPv6 address without its brackets and with its zone id, if it has one. A name is
            ASCII: its international labels are A-labels, such as `xn--bcher-kva`.
        port: The UDP port.
        path: The path, starting with `/`, with its query; percent-coded, whatever the transport.
    """

    transport: Literal["webtransport", "quic"]
    host: str
    port: int
    path: str = attrs.field(repr=lambda path: repr(printable_url(path)))

    @classmethod
    def parse(cls, url: str) -> SessionUrl:
        """Return the parts of a URL.

        Args:
            url: `https://…` for WebTransport, `moqt://…` or `moql://…` for raw QUIC. The port is 443 when left out.
                Host and path may be written in any script, percent-coded or not.

        Raises:
            ValueError: Another scheme, no host, a bad port, or a fragment; the message says what to write.
        """
        want(url, str, "a URL is a text such as 'moqt://localhost:4443/echo'")
        shown = printable_url(url)
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            # The reason quotes the host, and with it a user name and a password.
            reason = "" if "@" in url else f" ({printable(str(exc))})"
            raise ValueError(f"not a URL: {shown!r}{reason}") from None
        if parts.scheme == "https":
            transport: Literal["webtransport", "quic"] = "webtransport"
        elif parts.scheme in ("moqt", "moql"):
            transport = "quic"
        else:
            raise ValueError(
                f"the URL {shown!r} must start with https:// (WebTransport) or moqt:// (raw QUIC), "
                f"for example moqt://localhost:4443/echo"
            )
        if not parts.hostname:
            raise ValueError(
                f"the URL {shown!r} names no host; write one, for example {parts.scheme}://localhost:4443/"
            )
        if parts.username is not None or parts.fragment:
            raise ValueError(f"the URL {shown!r} must have neither a user name nor a fragment")
        if port == 0:
            raise ValueError(f"the URL {shown!r} names port 0; a server listens on 1 to 65535")
        try:
            host = _host(parts.hostname)
        except ValueError as exc:
            raise ValueError(f"the host of the URL {shown!r} is no host name: {printable(str(exc))}") from None
        path = _encoded(parts.path or "/", _PATH)
        if parts.query:
            path += "?" + _encoded(parts.query, _PATH + "?")
        return cls(transport, host, port or _DEFAULT_PORT, path)

    @property
    def authority(self) -> str:
        """Host and port as they stand in a request: a zone id means nothing to the server (RFC 6874, section 1)."""
        host = self.host.partition("%")[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def server_name(self) -> str:
        """The name or address that the certificate has: without a trailing dot (RFC 6066, section 3) or a zone id."""
        return self.host.partition("%")[0].removesuffix(".")
