"""The answer to unencrypted HTTP on the TCP port: the fingerprint of the certificate, and nothing else.

Clients of moq-lite that are given an `http://` URL fetch `/certificate.sha256` from it, pin what they got, and connect
by `https://`. A page of another origin gets it when the server's `origins` name the page: with the fingerprint a page
can open a session without a certificate that the browser trusts.

Spec: the Fetch standard, section 3.3 (CORS).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

FINGERPRINT_PATH = b"/certificate.sha256"

_MAX_HEAD = 8 * 1024
"""Bytes of a request's line and fields that are read: as many as common web servers allow."""
_READ = 1024
"""Bytes that are read at once: a whole request of the clients that there are."""
_REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed"}


async def answer_plain(
    stream: trio.SocketStream, fingerprint: bytes, allows_page: Callable[[str, str | None], bool]
) -> None:
    """Read one request, answer it, and shut down the sending half. The caller sets the deadline.

    Args:
        stream: A connection that nothing was read from.
        fingerprint: The SHA-256 of the certificate.
        allows_page: Called with the origin of a page and the host that it asked; returns whether it gets the answer.
    """
    head = bytearray()
    while b"\r\n\r\n" not in head and len(head) <= _MAX_HEAD:
        data = await stream.receive_some(_READ)
        if not data:
            return
        head += data
    await stream.send_all(respond_untrusted(bytes(head), fingerprint, allows_page))
    await stream.send_eof()
    # With unread bytes a close would become a reset, and the client could lose the answer.
    read = 0
    while read <= _MAX_HEAD and (data := await stream.receive_some(_READ)):
        read += len(data)


def respond_untrusted(head: bytes, fingerprint: bytes, allows_page: Callable[[str, str | None], bool]) -> bytes:
    """Return the answer to the head of a request."""
    words = head.partition(b"\r\n")[0].split(b" ")
    if b"\r\n\r\n" not in head or len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _answer(400, "this is no request of HTTP/1.1\n")
    method, target, _ = words
    if target.partition(b"?")[0] != FINGERPRINT_PATH:
        return _answer(404, "unencrypted there is only /certificate.sha256; use https for the rest\n")
    if method not in (b"GET", b"HEAD"):
        return _answer(405, "GET it\n", "allow: GET, HEAD\r\n")
    origin = _field_untrusted(head, b"origin")
    if origin is not None and not allows_page(origin, _field_untrusted(head, b"host")):
        return _answer(403, "this page is not among the server's origins\n", "vary: origin\r\n")
    cors = "" if origin is None else f"access-control-allow-origin: {origin}\r\n"
    answer = _answer(200, fingerprint.hex(), f"{cors}vary: origin\r\n")
    return answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == b"HEAD" else answer


def _field_untrusted(head: bytes, name: bytes) -> str | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name:
            # What is no ASCII, or has a line end of its own, is shown escaped: no origin and no host has either.
            return value.strip().decode("ascii", "backslashreplace").replace("\n", "\\n").replace("\r", "\\r")
    return None


def _answer(status: int, text: str, fields: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        "content-type: text/plain\r\n"
        f"content-length: {len(text)}\r\n"
        "cache-control: no-store\r\n"
        f"{fields}"
        "connection: close\r\n"
        "\r\n"
        f"{text}"
    ).encode("ascii")
