"""aioquic's log of one connection, at DEBUG only and with peers' text made safe.

aioquic logs five to nine lines a connection at INFO, the peer's close reason among them as it came. What they report is
raised as errors or delivered as events here.
"""

from __future__ import annotations

import logging
from typing import Any

from aioquic.quic.connection import QuicConnectionAdapter

from ....errors import printable
from ....loggers import handlers_contained


class QuietLogger(QuicConnectionAdapter):
    """A logger of one connection, in the place of aioquic's own."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at DEBUG, whatever the level; text is escaped and bounded, and what a handler raises is contained."""
        if self.isEnabledFor(logging.DEBUG):
            with handlers_contained():
                super().log(logging.DEBUG, _shown(msg), *map(_shown, args), **kwargs)


def _shown(value: object) -> object:
    if isinstance(value, str | bytes):
        return printable(value)
    # Codes and numbers stay what they are: the messages format some of them.
    return value if isinstance(value, int | float) else printable(str(value))
