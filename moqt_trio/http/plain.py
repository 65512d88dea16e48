"""What unencrypted HTTP gets on the TCP port: the fingerprint of the certificate, and nothing else.

Clients of moq-lite that are given an `http://` URL fetch `/certificate.sha256` from it, pin what they got, and connect
by `https://`. Knows nothing of TLS or of the application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import trio

FINGERPRINT_PATH = b"/certificate.sha256"

_MAX_HEAD = 8 * 1024
"""Bytes of a request's line and fields."""
_READ = 1024
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


async def answer_plain(stream: trio.SocketStream, fingerprint: bytes) -> None:
    """Reads one request, answers it, and says that nothing more will come. The caller sets the deadline.

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
    # What is still unread would turn the end into a reset, which takes the answer with it.
    read = 0
    while read <= _MAX_HEAD and (data := await stream.receive_some(_READ)):
        read += len(data)


def respond_untrusted(head: bytes, fingerprint: bytes) -> bytes:
    """Returns the answer to the head of a request, whatever that is."""
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
