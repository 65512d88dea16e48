"""Which version a session speaks: by a protocol of the layers below where that names one, else by the handshake.

| the layer below agreed on | versions |
|---|---|
| an ALPN or a WebTransport subprotocol of one version, as `moq-lite-06` | that one, without a handshake |
| `moql` (raw QUIC or WebTransport) | moq-lite-02 and -01 |
| `moql-01` (raw QUIC) | moq-lite-01, in the form of its draft |
| `moq-00` (raw QUIC) | gomoqt-develop and moq-transfork-03, told apart by the first bytes |
| no WebTransport subprotocol | all of those with a handshake |

What a client lists in one handshake has the same form; the first version that it offers decides which.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from ..errors import VersionUnsupported, printable
from ..limits import Limits
from ..wire.handshake import HandshakeForm
from .handshake import ClientHandshake, ServerHandshake

if TYPE_CHECKING:
    from ..wire.dialect import Dialect

_NATIVE_ALPN: Final = "moql-01"
"""The peers that answer to this name know no other form than that of the draft."""


def protocols(offered: Iterable[Dialect], *, webtransport: bool) -> tuple[str, ...]:
    """Returns the ALPNs, or the WebTransport subprotocols, that stand for some versions: each once, best first.

    Versions without a WebTransport subprotocol stand behind a request that names none of the others.
    """
    each = (dialect.webtransport_protocols if webtransport else dialect.alpns for dialect in offered)
    return tuple(dict.fromkeys(name for names in each for name in names))


def candidates(offered: Iterable[Dialect], protocol: str | None, *, webtransport: bool) -> tuple[Dialect, ...]:
    """Returns the versions that a protocol leaves to choose from, best first; none when it stands for no offered one.

    Args:
        offered: This side's versions, best first.
        protocol: The ALPN, or the WebTransport subprotocol; None for none.
        webtransport: True for a WebTransport session.
    """
    if protocol is None:
        return tuple(dialect for dialect in offered if dialect.in_band)
    return tuple(
        dialect
        for dialect in offered
        if protocol in (dialect.webtransport_protocols if webtransport else dialect.alpns)
    )


class Negotiation:
    """How one session comes to its version.

    A driver that finds `dialect` set starts the session with it. Otherwise `handshake` is the machine of the first
    bidirectional stream of the client, to be driven like any other, and the session starts with the dialect of its
    `SessionNegotiated`. The stream stays open as long as the session: when the machine says `SessionStreamEnded`, the
    session is over. All other streams of the client have to wait for the version.

    Attributes:
        dialect: The version, where the protocol names it; None where the handshake does.
        handshake: The machine of the handshake's stream; None where there is none. A client opens the stream and
            writes `handshake.opening`; a server writes `handshake.accept()` once it has the version.
    """

    def __init__(
        self,
        offered: Iterable[Dialect],
        *,
        is_client: bool,
        protocol: str | None,
        webtransport: bool,
        path: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Starts when the connection, or the WebTransport session, is there.

        Args:
            offered: This side's versions, best first.
            is_client: True on the side that opened the session.
            protocol: The ALPN, or the WebTransport subprotocol, that both sides agreed on; None for none.
            webtransport: True for a WebTransport session, whose URI has the path.
            path: A client's request target, `path?query`, for raw QUIC; None for `/`, as peers wait for one in vain.
            limits: The bounds that the peer is held to.

        Raises:
            VersionUnsupported: The protocol stands for none of the versions.
        """
        offered = tuple(offered)
        found = candidates(offered, protocol, webtransport=webtransport)
        if not found:
            names = tuple(dialect.name for dialect in offered)
            shown = "no protocol" if protocol is None else f"the protocol {printable(protocol)!r}"
            raise VersionUnsupported(f"{shown} stands for none of {', '.join(names)}", offered=names)
        self.dialect: Dialect | None = None
        self.handshake: ClientHandshake | ServerHandshake | None = None
        limits = limits if limits is not None else Limits()
        if not found[0].in_band:
            self.dialect = found[0]
        elif is_client:
            form = HandshakeForm.PREFIXED if protocol == _NATIVE_ALPN else found[0].handshakes[0]
            listed = tuple(dialect for dialect in found if form in dialect.handshakes)
            self.handshake = ClientHandshake(listed, limits, form=form, path=None if webtransport else path or "/")
        else:
            self.handshake = ServerHandshake(found, limits, path_on_wire=not webtransport)

    def __repr__(self) -> str:
        if self.dialect is not None:
            return f"<Negotiation settled: {self.dialect.name}>"
        assert self.handshake is not None
        return f"<Negotiation among {', '.join(dialect.name for dialect in self.handshake.offered)}>"
