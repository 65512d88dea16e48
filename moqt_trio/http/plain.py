"""The answer to unencrypted HTTP on the TCP port: the fingerprint of the certificate, and nothing else.

Clients of moq-lite that are given an `http://` URL fetch `/certificate.sha256` from it, pin what they got, and connect
by `https://`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trio

FINGERPRINT_PATH = b"/certificate.sha256"

_MAX_HEAD = 8 * 1024
"""Bytes of a request's line and fields that are read: as many as common web servers allow."""
_READ = 1024
"""Bytes that are read at once: a whole request of the clients that there are."""
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


async def answer_plain(stream: trio.SocketStream, fingerprint: bytes) -> None:
    """Read one request, answer it, and shut down the sending half. The caller sets the deadline.

    Args:
        stream: A connection that nothing was read from.
        fingerprint: The SHA-256 of the certificate.
    """
    head = bytearray()
    while b"\r\n\r\n" not in head and len(head) <= _MAX_HEAD:
        data = await stream.receive_some(_READ)
        if not data:
            return
        head += data
    await stream.send_all(respond_untrusted(bytes(head), fingerprint))
    await stream.send_eof()
    # With unread bytes a close would become a reset, and the client could lose the answer.
    read = 0
    while read <= _MAX_HEAD and (data := await stream.receive_some(_READ)):
        read += len(data)


def respond_untrusted(head: bytes, fingerprint: bytes) -> bytes:
    """Return the answer to the head of a request."""
    words = head.partition(b"\r\n")[0].split(b" ")
    if b"\r\n\r\n" not in head or len(words) != 3 or not words[2].startswith(b"HTTP/1."):
        return _answer(400, "this is no request of HTTP/1.1\n")
    method, target, _ = words
    if target.partition(b"?")[0] != FINGERPRINT_PATH:
        return _answer(404, "unencrypted there is only /certificate.sha256; use https for the rest\n")
    if method not in (b"GET", b"HEAD"):
        return _answer(405, "GET it\n", "allow: GET, HEAD\r\n")
    answer = _answer(200, fingerprint.hex())
    return answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == b"HEAD" else answer


def _answer(status: int, text: str, fields: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        "content-type: text/plain\r\n"
        f"content-length: {len(text)}\r\n"
        "access-control-allow-origin: *\r\n"
        "cache-control: no-store\r\n"
        f"{fields}"
        "connection: close\r\n"
        "\r\n"
        f"{text}"
    ).encode("ascii")
