"""HTTP/1.1 and HTTP/2 over TCP, by hypercorn; plain HTTP on the same sockets gets the fingerprint.

It owns the sockets and a task for each connection. Over TLS it has the certificate that QUIC has.
"""

from __future__ import annotations

import secrets
import socket
import ssl
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from ..loggers import Logger
from .disconnect import DisconnectWrapper
from .http2 import HttpConnection
from .plain import answer_plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypercorn.config import Config
    from hypercorn.typing import ASGIFramework

    from ..certificates import Certificate
    from ..limits import Limits

logger = Logger(__name__)

_TLS_HANDSHAKE = b"\x16"
"""The first byte of a TLS connection (RFC 8446, section 5.1); a request of HTTP starts with a letter."""


class HttpServer:
    """The TCP side of a server.

    Args:
        app: The ASGI application.
        sockets: Bound, not yet listening; they are closed with the server.
        config: Hypercorn's settings.
        alt_svc: The Alt-Svc field of responses whose application sets none.
        state: The lifespan state that each request gets a copy of.
        certificate: Called for each connection; returns its certificate.
        allows_page: Called with the origin of a page and the host that it asked; returns whether it may read the
            fingerprint.
        limits: The bounds.

    Attributes:
        refused: Connections that were closed because `Limits.max_connections` was reached.

    Limits: max_connections, handshake_timeout, connection_window.
    """

    def __init__(
        self,
        app: ASGIFramework,
        sockets: list[socket.socket],
        *,
        config: Config,
        alt_svc: bytes,
        state: Mapping[str, Any],
        certificate: Callable[[], Certificate],
        allows_page: Callable[[str, str | None], bool],
        limits: Limits,
    ) -> None:
        self._app = DisconnectWrapper(app, alt_svc)
        self._sockets = sockets
        self._config = config
        self._state = state
        self._certificate = certificate
        self._allows_page = allows_page
        self._limits = limits
        self.refused = 0
        self._refusal_logged = False
        self._context = WorkerContext(None)
        self._streams: set[trio.SocketStream] = set()
        self._accepting = trio.CancelScope()
        self._ended = trio.Event()
        self._shown: Certificate | None = None
        self._tls: ssl.SSLContext | None = None

    def __repr__(self) -> str:
        return f"<HttpServer connections={len(self._streams)}>"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until `drain` and the end of the last connection, or until cancelled, which ends every connection."""
        for sock in self._sockets:
            sock.listen(self._config.backlog)
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in self._sockets]
        try:
            async with trio.open_nursery() as outer:
                outer.start_soon(self._cut_when_cancelled)
                async with trio.open_nursery() as connections:
                    task_status.started()
                    with self._accepting:
                        # It goes on when the process has no file descriptors left, and logs that.
                        await trio.serve_listeners(self._handle, listeners, handler_nursery=connections)
                    await self._context.terminated.set()
                outer.cancel_scope.cancel()
        finally:
            self._ended.set()

    async def drain(self) -> None:
        """Accept no more, close each connection once its request has ended, and wait for the last of them."""
        self._accepting.cancel()
        await self._ended.wait()

    async def _cut_when_cancelled(self) -> None:
        # Hypercorn shields what it sends: a client that reads nothing is disconnected only by closing the socket.
        try:
            await trio.sleep_forever()
        finally:
            for stream in self._streams:
                stream.socket.close()

    # -- one connection ------------------------------------------------------------------------------------

    async def _handle(self, stream: trio.SocketStream) -> None:
        if len(self._streams) >= self._limits.max_connections:
            self._refuse(stream)
            return
        self._streams.add(stream)
        try:
            await self._serve(stream)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            logger.debug("a connection over TCP ended: %r", error)
        except Exception:
            logger.exception("a connection over TCP failed")
        finally:
            self._streams.discard(stream)
            stream.socket.close()
            if len(self._streams) < self._limits.max_connections // 2:
                self._refusal_logged = False

    def _refuse(self, stream: trio.SocketStream) -> None:
        # Without an answer: one of TLS would cost a handshake, and which protocol it should be in is not known.
        stream.socket.close()
        self.refused += 1
        if not self._refusal_logged:
            self._refusal_logged = True
            logger.warning(
                "a client over TCP was refused: Limits.max_connections (%d) is reached; statistics() counts more",
                self._limits.max_connections,
            )

    async def _serve(self, stream: trio.SocketStream) -> None:
        first = b""
        with trio.move_on_after(self._limits.handshake_timeout):
            first = await stream.socket.recv(1, socket.MSG_PEEK)
            if first and first != _TLS_HANDSHAKE:
                await answer_plain(stream, self._certificate().fingerprint, self._allows_page)
        if first == _TLS_HANDSHAKE:
            tls = trio.SSLStream(stream, self._tls_context(), server_side=True, https_compatible=True)
            connection = HttpConnection(self._app, self._config, self._context, ConnectionState(dict(self._state)), tls)
            connection.connection_window = self._limits.connection_window
            await connection.run()

    def _tls_context(self) -> ssl.SSLContext:
        certificate = self._certificate()
        if self._tls is None or certificate is not self._shown:
            self._tls = _tls_settings(certificate, alpns=self._config.alpn_protocols, ciphers=self._config.ciphers)
            self._shown = certificate
        return self._tls


def _tls_settings(certificate: Certificate, *, alpns: Sequence[str], ciphers: str) -> ssl.SSLContext:
    """Return a server's TLS settings.

    Args:
        certificate: The server's certificate.
        alpns: The application protocols, best first.
        ciphers: Those of TLS 1.2, as OpenSSL writes them.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # HTTP/2 requires both (RFC 9113, section 9.2.1).
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(ciphers)
    context.set_alpn_protocols(list(alpns))
    # The ssl module loads keys only from files: the key in the file is encrypted, and the password is not written.
    password = secrets.token_hex(32)
    with tempfile.TemporaryDirectory(prefix="moqt-trio-") as directory:
        path = Path(directory, "server.pem")
        path.write_bytes(certificate.certificate_pem() + certificate.private_key_pem(password))
        context.load_cert_chain(path, password=password)
    return context
