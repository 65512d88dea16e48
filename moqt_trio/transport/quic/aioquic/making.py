"""Makes an engine from the settings of a client or of a server."""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion

from ..engine import CONNECTION_ID_BYTES, Engine, EngineHandler, LongHeader, Validated
from .engine import AioquicEngine
from .patched import PatchedConnection

if TYPE_CHECKING:
    from ....limits import Limits
    from ..settings import ClientSettings, ServerIdentity, ServerSettings

VERSIONS: tuple[int, ...] = (QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2)

_MAX_DATAGRAM_FRAME = 65536
"""The `max_datagram_frame_size` that this side sends: any datagram that fits a packet (RFC 9221, section 3)."""


def client_engine(settings: ClientSettings, handler: EngineHandler) -> Engine:
    """Return an engine for `connect`; see `engine.EngineFactory`."""
    limits = settings.limits
    trusting = not settings.verify or bool(settings.fingerprints)
    configuration = QuicConfiguration(
        is_client=True,
        alpn_protocols=list(settings.alpns),
        server_name=settings.server_name,
        cafile=settings.cafile,
        cadata=settings.cadata,
        verify_mode=ssl.CERT_NONE if trusting else ssl.CERT_REQUIRED,
    )
    _apply(configuration, limits)
    quic = PatchedConnection(limits, configuration=configuration)
    return AioquicEngine(quic, limits, handler, fingerprints=settings.fingerprints)


class ServerEngines:
    """Makes the engines of a listener. Those with the same settings and certificate share aioquic's configuration."""

    def __init__(self) -> None:
        self._made_of: tuple[ServerSettings, ServerIdentity] | None = None
        self._configuration: QuicConfiguration | None = None

    def make(
        self, settings: ServerSettings, handler: EngineHandler, header: LongHeader, validated: Validated | None
    ) -> Engine:
        """Return an engine for a client's first packet; see `engine.EngineFactory`."""
        limits = settings.limits
        quic = PatchedConnection(
            limits,
            configuration=self._current(settings),
            original_destination_connection_id=validated.original_destination_id
            if validated
            else header.destination_id,
            retry_source_connection_id=validated.retry_source_id if validated else None,
        )
        quic.choose_ids(partial(settings.ids.new_id, CONNECTION_ID_BYTES), settings.reset_key)
        quic.spoken = settings.offered or settings.alpns
        return AioquicEngine(quic, limits, handler, address_validated=validated is not None)

    def _current(self, settings: ServerSettings) -> QuicConfiguration:
        made_of = (settings, settings.identity())
        if self._configuration is None or made_of != self._made_of:
            identity = made_of[1]
            self._made_of = made_of
            self._configuration = QuicConfiguration(
                is_client=False,
                alpn_protocols=list(settings.alpns),
                certificate=identity.certificate,
                certificate_chain=list(identity.chain),
                private_key=identity.private_key,
            )
            _apply(self._configuration, settings.limits)
        return self._configuration


def _apply(configuration: QuicConfiguration, limits: Limits) -> None:
    configuration.connection_id_length = CONNECTION_ID_BYTES
    configuration.supported_versions = list(VERSIONS)
    configuration.idle_timeout = limits.idle_timeout
    configuration.max_data = limits.connection_window
    configuration.max_stream_data = limits.stream_window
    configuration.max_datagram_frame_size = _MAX_DATAGRAM_FRAME
