"""What the echo client and the echo server agree on."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "japan/kyoto"
"""The server echoes every broadcast at or below this prefix; the client publishes exactly here."""
TRACK: Final = "text"
ROUTE: Final = "/echo"
PORT: Final = 4443

MAX_AGE: Final = 3600.0
"""Seconds of age up to which a message is worth delivering. An hour: an echo wants every message, however late."""
