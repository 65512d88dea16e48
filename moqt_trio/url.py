"""Session URLs: `https://host:port/path` is WebTransport, `moqt://host:port/path` is raw QUIC."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

import attrs

from .errors import printable

_DEFAULT_PORT = 443


@attrs.frozen
class SessionUrl:
    """The URL of a session, parsed.

    Attributes:
        transport: `"webtransport"` or `"quic"`.
        host: A name or an address, an IPv6 address without its brackets.
        port: The UDP port.
        path: The path, starting with `/`, with its query.
    """

    transport: Literal["webtransport", "quic"]
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> SessionUrl:
        """Return the parts of a URL.

        Args:
            url: `https://…` for WebTransport, `moqt://…` or `moql://…` for raw QUIC. The port is 443 when left out.

        Raises:
            ValueError: Another scheme, no host, a bad port, or a fragment; the message says what to write.
        """
        shown = printable(url)
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as exc:
            raise ValueError(f"not a URL: {shown!r} ({exc})") from None
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
        path = parts.path or "/"
        if parts.query:
            path += "?" + parts.query
        return cls(transport, parts.hostname, port or _DEFAULT_PORT, path)

    @property
    def authority(self) -> str:
        """Host and port as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"
