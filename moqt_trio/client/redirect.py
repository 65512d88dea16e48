"""The redirect policy: where the URI of a GOAWAY may lead, how often, and which arguments apply there.

It takes texts and addresses, and returns a `Candidate` or raises `RedirectRefused`. `reconnect.py` connects to the
candidate.

Spec: draft-lcurley-moq-lite-06, sections 7.18 and 10.2; draft-ietf-moq-transport-14, section 9.4 for an empty URI.
"""

from __future__ import annotations

import inspect
import ipaddress
import re
from collections.abc import Callable, Collection, Sequence
from urllib.parse import urlsplit

import attrs

from ..errors import RedirectRefused, printable
from ..url import SessionUrl, printable_url

_MAX_URI = 8192
"""Bytes of a URI that a GOAWAY may carry (draft-lcurley-moq-lite-06, section 7.18)."""
_MAX_HOST = 253
"""Characters of a DNS name (RFC 1035, section 2.3.4, without the length bytes at both ends)."""

_SCHEMES = ("https", "moqt", "moql")
_URI = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
"""The characters of a URI (RFC 3986, section 2). Parsers disagree about all others."""
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_SITE_LOCAL = ipaddress.IPv6Network("fec0::/10")
_BY_SAMENESS = frozenset({"loopback", "link-local", "private", "shared"})
"""The kinds of address that a server may send a client to when it has such an address itself."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@attrs.frozen
class Redirect:
    """A redirect that a server asks for, for a `redirect` function to allow or to refuse.

    Attributes:
        from_url: The URL of the session that is to end.
        to_url: The URL of the next session. It has the query of `from_url` when it has none itself and stays within the
            same authority.
        hop: How many redirects have led here since the last session that worked, this one included; from 1 on.
    """

    from_url: str = attrs.field(repr=printable_url)
    to_url: str = attrs.field(repr=printable_url)
    hop: int

    @property
    def host(self) -> str:
        """The host of `to_url`: a name in lower case or an address, IPv6 without brackets."""
        return SessionUrl.parse(self.to_url).host

    @property
    def port(self) -> int:
        """The port of `to_url`."""
        return SessionUrl.parse(self.to_url).port

    @property
    def same_authority(self) -> bool:
        """Whether scheme, host and port stay the same, so that only the path changes."""
        return _authority(SessionUrl.parse(self.from_url)) == _authority(SessionUrl.parse(self.to_url))


RedirectPolicy = Callable[[Redirect], bool]
"""Return True for a redirect that is allowed."""


def allow_same_authority(redirect: Redirect) -> bool:
    """Allow a server to change the path, and nothing else: scheme, host and port stay. The default policy."""
    return redirect.same_authority


def _authority(where: SessionUrl) -> tuple[str, str, int]:
    return where.transport, where.host, where.port


@attrs.frozen
class Candidate:
    """A candidate URL for the next session.

    Attributes:
        url: The URL.
        foreign: Whether it is on another authority than the one that the caller named. `verify=False` does not apply
            there, and its addresses are checked.
        sender: The address of the server that named it; None for a URL that the caller named.
    """

    url: str
    foreign: bool = False
    sender: str | None = None


class RedirectChain:
    """The redirects that a client has followed since a session lasted for `Limits.settle_time`.

    Args:
        home: The URL that the caller named.
        policy: Returns which redirects are allowed.
        max_redirects: How many GOAWAYs are followed in a row.
        networks: Where a redirect to another authority may lead besides the public internet, such as `"10.0.0.0/8"`.

    Raises:
        ValueError: A value is no network, or a number below 0.
        TypeError: The policy is an async function.
    """

    def __init__(
        self, home: str, *, policy: RedirectPolicy, max_redirects: int = 3, networks: Collection[str] = ()
    ) -> None:
        if inspect.iscoroutinefunction(policy):
            # The coroutine that it returns would count as True.
            raise TypeError("a redirect policy is a plain function, not an async one")
        if max_redirects < 0:
            raise ValueError(f"max_redirects is a number from 0 on, not {max_redirects}")
        self._home = _authority(SessionUrl.parse(home))
        self._policy = policy
        self._max_redirects = max_redirects
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)
        self._chain: list[str] = []

    def reset(self) -> None:
        """Reset the chain, because a session lasted for `Limits.settle_time`."""
        self._chain.clear()

    def undo(self) -> None:
        """Remove the redirect that was followed last: the same server has named another URL since."""
        self._chain.pop()

    def follow(self, current: Candidate, uri: str, *, sender: str | None) -> Candidate:
        """Return the candidate for the next session after a GOAWAY.

        An empty URI means the same URL again: moq-lite says that it is no redirect, the IETF draft that the current
        URI is reused, and a client that stays connected does both. A relative reference is refused: a URI begins with
        its scheme.

        Args:
            current: The URL of the session that is to end.
            uri: The URI of the GOAWAY.
            sender: The address of the server that sent it, if it has one.

        Raises:
            RedirectRefused: The URI is none, or the policy does not allow it, or there were too many.

        Spec: draft-lcurley-moq-lite-06, section 7.18; draft-ietf-moq-transport-14, section 9.4.
        """
        if not self._chain:
            self._chain.append(current.url)
        target = self._target(current, uri, sender)
        self._chain.append(target.url)
        if len(self._chain) - 1 > self._max_redirects:
            way = " -> ".join(map(printable_url, self._chain))
            raise self._refused(
                uri,
                f"a GOAWAY leads on once more, after {self._max_redirects} in a row (max_redirects) without a session "
                f"that lasted: {way}",
            )
        redirect = Redirect(current.url, target.url, len(self._chain) - 1)
        if uri and not self._policy(redirect):
            raise self._refused(
                uri,
                f"the server at {printable_url(current.url)} asks this client to move to "
                f"{printable_url(target.url)!r}, which the redirect policy does not allow; "
                f"stay_connected(redirect=...) decides which moves are",
            )
        return target

    def choose_addresses(self, target: Candidate, addresses: Sequence[str]) -> list[str]:
        """Return those addresses of a foreign target that may be connected to, in their order.

        Raises:
            RedirectRefused: There is none.
        """
        allowed = [address for address in addresses if self._allows(address, target.sender)]
        if not allowed:
            found = ", ".join(f"{printable(address)} ({kind_of(address)})" for address in addresses) or "no address"
            raise self._refused(
                target.url,
                f"a GOAWAY leads to {printable_url(target.url)!r}, which is {found}: a server on another authority may "
                f"send this client to a public address, or to one of the kind it has itself; "
                f"stay_connected(redirect_networks=...) names networks besides",
            )
        return allowed

    def _target(self, current: Candidate, uri: str, sender: str | None) -> Candidate:
        if not uri:
            return current
        try:
            where = parse_uri(uri)
        except ValueError as error:
            raise self._refused(
                uri,
                f"the server at {printable_url(current.url)} asks this client to move to {printable_url(uri)!r}: "
                f"{error}",
            ) from None
        if _authority(where) == _authority(SessionUrl.parse(current.url)):
            _, mark, query = current.url.partition("?")
            url = uri if "?" in uri else uri + mark + query
            return attrs.evolve(current, url=url)
        foreign = _authority(where) != self._home
        return Candidate(uri, foreign, sender if foreign else None)

    def _allows(self, address: str, sender: str | None) -> bool:
        kind = kind_of(address)
        if kind == "public" or (kind in _BY_SAMENESS and sender is not None and kind == kind_of(sender)):
            return True
        # An unspecified or a multicast address is not the address of a server, whatever network it is in.
        found = _unwrapped(address)
        return kind not in ("unspecified", "multicast") and any(found in network for network in self._networks)

    def _refused(self, uri: str, message: str) -> RedirectRefused:
        return RedirectRefused(message, uri=printable_url(uri), chain=tuple(map(printable_url, self._chain)))


def parse_uri(uri: str) -> SessionUrl:
    """Return the parts of a GOAWAY's URI. It is checked more strictly than a caller's URL, as it comes from a peer.

    Raises:
        ValueError: It is not the URI of a session; the message says why, without the URI itself.
    """
    if len(uri) > _MAX_URI:
        raise ValueError(f"it is longer than {_MAX_URI} bytes")
    if not _URI.fullmatch(uri):
        raise ValueError("it has characters that a URI does not have")
    scheme, colon, _ = uri.partition(":")
    if not colon or scheme.lower() not in _SCHEMES:
        raise ValueError("it does not begin with https:// (WebTransport) or moqt:// (raw QUIC)")
    try:
        where = SessionUrl.parse(uri)
    except ValueError:
        raise ValueError("it is not scheme://host:port/path, without a user name and a fragment") from None
    authority = urlsplit(uri).netloc
    # Every host has a form without percent-coding, and a zone id is this machine's business.
    if "%" in authority or ("[" in authority) != (":" in where.host) or not _is_host(where.host):
        raise ValueError("its host is neither a name nor an address")
    return where


def _is_host(host: str) -> bool:
    if ":" not in host:
        labels = host.removesuffix(".").split(".")
        return len(host) <= _MAX_HOST and all(map(_LABEL.fullmatch, labels))
    try:
        return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False


def kind_of(address: str) -> str:
    """Return `"public"`, `"loopback"`, `"link-local"`, `"private"`, `"shared"` (between a provider and its customers),
    `"multicast"`, `"unspecified"` or `"reserved"`. An IPv4 address inside an IPv6 one counts as itself."""
    found = _unwrapped(address)
    kinds = {
        "unspecified": found.is_unspecified,
        "multicast": found.is_multicast,
        "loopback": found.is_loopback,
        "link-local": found.is_link_local,
        "reserved": found.is_reserved,
        "private": found.is_private or found in _SITE_LOCAL,
        "public": found.is_global,
    }
    return next((kind for kind, applies in kinds.items() if applies), "shared")


def _unwrapped(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv4Address):
        return found
    if found in _NAT64:
        return ipaddress.IPv4Address(found.packed[-4:])
    return found.ipv4_mapped or found.sixtofour or found
