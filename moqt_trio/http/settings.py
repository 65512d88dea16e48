"""Hypercorn's settings for one server: the user's, and what depends on the listener."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Final

from hypercorn.config import Config

from ..url import split_authority

if TYPE_CHECKING:
    from ..limits import Limits

_ERROR_LOG: Final = "moqt_trio.http"
"""The logger of hypercorn's errors and of the application's; `docs/howto/asgi.md` names it."""

_ALT_SVC_S = 24 * 60 * 60
"""Seconds for which a browser remembers that there is HTTP/3: a day, the default of RFC 7838, section 3.1."""


class _ServerNames(list[str]):
    """Server names, of which one without a port is good for every port: hypercorn compares whole texts."""

    def __contains__(self, authority: object) -> bool:
        if not isinstance(authority, str):
            return False
        host, port = split_authority(authority.lower())
        host = host.removesuffix(".")
        return any(name.lower() in (host, f"{host}:{port}" if port else host) for name in self)


def base_settings(config: Config | None) -> Config:
    """Return settings to derive others from; the given ones are not changed.

    Raises:
        ValueError: They ask for client certificates, which HTTP/3 would not check.
    """
    if config is None:
        config = Config()
        config.errorlog = logging.getLogger(_ERROR_LOG)
    if config.ca_certs is not None or config.verify_mode is not None:
        raise ValueError("client certificates are not supported: leave ca_certs and verify_mode out of the config")
    # Created once: each copy would open the log files again.
    _ = config.log
    config = copy.copy(config)
    config.server_names = _ServerNames(config.server_names)
    return config


def alt_svc(base: Config, port: int) -> bytes:
    """Return the Alt-Svc field of responses over TCP: the user's, else HTTP/3 on the same port."""
    return ", ".join(base.alt_svc_headers or [f'h3=":{port}"; ma={_ALT_SVC_S}']).encode("ascii")


def tcp_settings(base: Config, limits: Limits) -> Config:
    """Return the settings for HTTP/1.1 and HTTP/2. The Alt-Svc field is added where the application's own is known."""
    config = http3_settings(base)
    config.ssl_handshake_timeout = min(config.ssl_handshake_timeout, limits.handshake_timeout)
    return config


def http3_settings(base: Config) -> Config:
    """Return the settings for HTTP/3, whose responses have no Alt-Svc field: the client uses HTTP/3 already."""
    config = copy.copy(base)
    config.alt_svc_headers = []
    config._quic_addresses = []
    return config
