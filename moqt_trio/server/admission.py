"""Which requests reach a handler: by the web page that they come from, and by the host that they name.

Spec: RFC 6454 section 6.2 (origins); RFC 9110 section 7.4 (misdirected requests).
"""

from __future__ import annotations

from collections.abc import Collection
from http import HTTPStatus

import attrs

from ..arguments import want_texts
from ..url import split_authority

ANY_ORIGIN = "*"
"""Among the origins, it stands for all of them."""

_DEFAULT_PORTS = {"https": "443", "http": "80"}


def _origins(values: Collection[str] | None) -> frozenset[str] | None:
    if values is None:
        return None
    want_texts("origins", values)
    for value in values:
        scheme, separator, rest = value.partition("://")
        is_origin = scheme and separator and rest and "/" not in rest and value.isascii()
        if value not in ("null", ANY_ORIGIN) and not is_origin:
            raise ValueError(
                "an origin is a scheme, a host and perhaps a port, in ASCII, like https://example.org, "
                f'or "*" for any, not {value!r}'
            )
    return frozenset(map(_plain_origin, values))


def _plain_origin(origin: str) -> str:
    """Return an origin as browsers write it: in lower case, without the scheme's own port."""
    origin = origin.lower()
    port = _DEFAULT_PORTS.get(origin.partition("://")[0])
    return origin.removesuffix(f":{port}") if port is not None else origin


def _authorities(values: Collection[str] | None) -> frozenset[str] | None:
    if values is None:
        return None
    want_texts("authorities", values)
    for value in values:
        if not value or "/" in value or "@" in value:
            raise ValueError(f"an authority is a host, perhaps with a port, like example.org:4443, not {value!r}")
    return frozenset(value.lower() for value in values)


@attrs.frozen
class Admission:
    """What a server requires of a request before its handler sees it.

    Attributes:
        origins: The web pages that may connect beside those of the server's own origin, in lower case; None for no
            others. An empty set keeps pages out altogether.
        authorities: The hosts, perhaps with a port, that the server answers to, in lower case; None is any.
    """

    origins: frozenset[str] | None = attrs.field(default=None, converter=_origins)
    authorities: frozenset[str] | None = attrs.field(default=None, converter=_authorities)

    def refusal(self, authority: str | None, origin: str | None) -> int | None:
        """Return the HTTP status to refuse with, or None.

        Args:
            authority: The host that the client asked for; None when its transport does not say.
            origin: The page; None for a client that is no browser, which is never refused for its origin.

        The default keeps foreign pages from a server that only the visitor of the page can reach: one on the visitor's
        machine or network.
        """
        if authority is not None and not self._answers_to(authority.lower()):
            return HTTPStatus.MISDIRECTED_REQUEST
        if origin is not None and not self.allows_page(origin, authority):
            return HTTPStatus.FORBIDDEN
        return None

    def allows_page(self, origin: str, authority: str | None) -> bool:
        """Return whether a page may talk to this server.

        Args:
            origin: The page's origin.
            authority: The host and port by which the page asked for the server.
        """
        origin = _plain_origin(origin)
        if self.origins is not None and (not self.origins or ANY_ORIGIN in self.origins or origin in self.origins):
            return bool(self.origins)
        return authority is not None and origin == _plain_origin(f"https://{authority}")

    def _answers_to(self, authority: str) -> bool:
        if self.authorities is None:
            return True
        host, port = split_authority(authority)
        # A trailing dot says only that the name is complete.
        host = host.removesuffix(".")
        return host in self.authorities or f"{host}:{port}" in self.authorities
