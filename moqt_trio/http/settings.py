"""Hypercorn's settings as they hold for one server: the user's, completed by what only the listener knows."""

from __future__ import annotations

import copy
import logging
from typing import TYPE_CHECKING, Final

from hypercorn.config import Config

if TYPE_CHECKING:
    from ..limits import Limits

_ERROR_LOG: Final = "moqt_trio.http"
"""The logger of hypercorn's errors and of the application's; `docs/howto/asgi.md` names it."""

_ALT_SVC_S = 24 * 60 * 60
"""Seconds for which a browser remembers that there is HTTP/3."""


def base_settings(config: Config | None) -> Config:
    """Returns settings to derive others from; the given ones are left as they are.

    Raises:
        ValueError: They ask for client certificates, which HTTP/3 would not check.
    """
    if config is None:
        config = Config()
        config.errorlog = logging.getLogger(_ERROR_LOG)
    if config.ca_certs is not None or config.verify_mode is not None:
        raise ValueError("client certificates are not supported: leave ca_certs and verify_mode out of the config")
    # Made now, or each copy would open the log files for itself.
    _ = config.log
    return copy.copy(config)


def tcp_settings(base: Config, port: int, limits: Limits) -> Config:
    """Returns the settings for HTTP/1.1 and HTTP/2: their answers point at HTTP/3, once."""
    config = copy.copy(base)
    if not config.alt_svc_headers:
        config.alt_svc_headers = [f'h3=":{port}"; ma={_ALT_SVC_S}']
    config.ssl_handshake_timeout = min(config.ssl_handshake_timeout, limits.handshake_timeout)
    return config


def http3_settings(base: Config) -> Config:
    """Returns the settings for HTTP/3: who is there already is not sent elsewhere."""
    config = copy.copy(base)
    config.alt_svc_headers = []
    config._quic_addresses = []
    return config
