"""Field lines of HTTP/3, as both sides of a request read them.

Spec: RFC 9114, section 4.2.
"""

from __future__ import annotations

Headers = list[tuple[bytes, bytes]]
"""Field lines in wire order, pseudo-fields first, names in lower case."""


def field(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of the first line with this name, or None."""
    return next((value for key, value in headers if key == name), None)


def join_cookies(headers: Headers) -> Headers:
    """Return field lines whose cookies stand in one, which applications expect (RFC 9114, section 4.2.1)."""
    cookies = [value for name, value in headers if name == b"cookie"]
    if len(cookies) < 2:
        return headers
    return [*(line for line in headers if line[0] != b"cookie"), (b"cookie", b"; ".join(cookies))]


def text(headers: Headers, name: bytes) -> str | None:
    """Return a field as text, or None when it is absent. A byte outside ASCII is shown escaped."""
    value = field(headers, name)
    return None if value is None else value.decode("ascii", "backslashreplace")
