"""The packets that a listener reads and writes without a connection, by aioquic's codecs.

Headers, Version Negotiation, Retry and refusals. `AioquicFactory` is what `engine.EngineFactory` asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.buffer import Buffer, BufferReadError  # type: ignore[attr-defined]
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.retry import QuicRetryTokenHandler

from ....limits import MIN_PACKET
from ..engine import CONNECTION_ID_BYTES, Engine, EngineHandler, LongHeader, Validated
from ..steering import IdShare
from .making import VERSIONS, ServerEngines, client_engine

if TYPE_CHECKING:
    from ...sockets import Address
    from ..settings import ClientSettings, ServerSettings

_LONG_HEADER = 0x80


class AioquicFactory:
    """Makes aioquic engines; holds the key of the address tokens of one listener, and what its engines share.

    Args:
        ids: The connection ids to choose; for a listener they are those of its settings.
    """

    def __init__(self, ids: IdShare | None = None) -> None:
        self._ids = ids or IdShare()
        self._tokens = QuicRetryTokenHandler()
        self._engines = ServerEngines()

    def client(self, settings: ClientSettings, handler: EngineHandler) -> Engine:
        return client_engine(settings, handler)

    def server(
        self,
        settings: ServerSettings,
        handler: EngineHandler,
        header: LongHeader,
        validated: Validated | None,
    ) -> Engine:
        return self._engines.make(settings, handler, header, validated)

    def parse_header_untrusted(self, data: bytes) -> LongHeader | None:
        if not data or not data[0] & _LONG_HEADER:
            return None
        if int.from_bytes(data[1:5], "big") not in VERSIONS:
            return _foreign_header_untrusted(data)
        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=CONNECTION_ID_BYTES)
        except (ValueError, BufferReadError):
            return None
        assert header.version is not None
        return LongHeader(
            kind="initial" if header.packet_type is QuicPacketType.INITIAL else "other",
            version=header.version,
            destination_id=header.destination_cid,
            source_id=header.source_cid,
            token=header.token,
        )

    def supports(self, version: int) -> bool:
        return version in VERSIONS

    def version_negotiation(self, header: LongHeader) -> bytes:
        return encode_quic_version_negotiation(
            source_cid=header.destination_id, destination_cid=header.source_id, supported_versions=list(VERSIONS)
        )

    def retry(self, header: LongHeader, address: Address, now: float) -> bytes:
        # The token in it can be read by this process only: the client's next packet has to come here.
        source_id = self._ids.new_id(CONNECTION_ID_BYTES)
        return encode_quic_retry(
            version=header.version,
            source_cid=source_id,
            destination_cid=header.source_id,
            original_destination_cid=header.destination_id,
            retry_token=self._tokens.create_token(
                address=address,
                original_destination_connection_id=header.destination_id,
                retry_source_connection_id=source_id,
                now=now,
            ),
        )

    def refusal(self, header: LongHeader, reason: str) -> bytes:
        # RFC 9000, section 5.2.2: the keys of an Initial packet come from the id that the client chose.
        keys = CryptoPair()
        keys.setup_initial(cid=header.destination_id, is_client=False, version=header.version)
        builder = QuicPacketBuilder(
            host_cid=self._ids.new_id(CONNECTION_ID_BYTES),
            peer_cid=header.source_id,
            version=header.version,
            is_client=False,
            max_datagram_size=MIN_PACKET,
        )
        builder.start_packet(QuicPacketType.INITIAL, keys)
        frame = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE)
        frame.push_uint_var(QuicErrorCode.CONNECTION_REFUSED)
        frame.push_uint_var(QuicFrameType.PADDING)
        text = reason.encode()
        frame.push_uint_var(len(text))
        frame.push_bytes(text)
        datagrams, _ = builder.flush()
        return datagrams[0]

    def check_token_untrusted(self, header: LongHeader, address: Address, now: float) -> Validated | None:
        try:
            original = self._tokens.validate_token(
                address=address, destination_cid=header.destination_id, token=header.token, now=now
            )
        except (ValueError, BufferReadError):
            return None
        return Validated(original_destination_id=original, retry_source_id=header.destination_id)


def _foreign_header_untrusted(data: bytes) -> LongHeader | None:
    """Return the long header of a packet of another version, by what all versions share (RFC 8999, section 5.1)."""
    version = int.from_bytes(data[1:5], "big")
    destination_end = 6 + data[5] if len(data) > 5 else len(data)
    if destination_end >= len(data):
        return None
    source_end = destination_end + 1 + data[destination_end]
    if source_end > len(data):
        return None
    return LongHeader(
        kind="other" if version else "negotiation",
        version=version,
        destination_id=data[6:destination_end],
        source_id=data[destination_end + 1 : source_end],
        token=b"",
    )
