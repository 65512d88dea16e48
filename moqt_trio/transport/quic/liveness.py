"""Liveness: when a peer that is heard no more is given up, and when a client asks for a sign of life.

The engine has an idle timeout of its own. This one comes first, so that the peer is informed. The engine's also begins
anew with the first packet that asks for an answer (RFC 9000, section 10.1): a path that carries packets one way only
would be noticed up to twice as late. Here what was just sent gets the time in which an answer must come, and no more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .engine import Engine


class Liveness:
    """Keeps the idle timeout of one connection, and a client's keep-alive, once the handshake is complete.

    Args:
        engine: The connection's.
        keep_alive: Seconds without a packet after which a client sends a PING; None for a server, which sends none.

    Attributes:
        silence: Seconds without a packet after which the peer is given up; infinite during the handshake.
        least: The shortest time, in seconds, from a packet's arrival until something is due.
    """

    def __init__(self, engine: Engine, keep_alive: float | None) -> None:
        self._engine = engine
        self._wanted = keep_alive
        self._keep_alive = math.inf
        self.silence = math.inf
        self.least = 0.0
        self._pinged_at = self._excused_until = -math.inf

    def handshake_completed(self) -> None:
        """Take the idle timeout that was negotiated."""
        self.silence = self._engine.idle_timeout
        # Two PINGs may be lost before the peer gives up.
        self._keep_alive = math.inf if self._wanted is None else min(self._wanted, self.silence / 3)
        self.least = min(self.silence, self._keep_alive)

    def deadline(self) -> float:
        """Return when something is due next."""
        heard = self._engine.heard_at
        given_up = max(heard + self.silence, self._excused_until)
        return min(given_up, max(heard, self._pinged_at) + self._keep_alive)

    def gives_up(self, now: float) -> bool:
        """Return whether the peer has been silent for too long, and what was just sent had its time."""
        if now < max(self._engine.heard_at + self.silence, self._excused_until):
            return False
        self._excused_until = self._engine.answer_due()
        return self._excused_until <= now

    def asks(self, now: float) -> bool:
        """Return whether a sign of life is due, and count it as sent."""
        if now < max(self._engine.heard_at, self._pinged_at) + self._keep_alive:
            return False
        self._pinged_at = now
        return True
