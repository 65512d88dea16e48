"""A stream with both halves.

The halves share the stream's id, its handler, its codes and the end of its connection, and nothing else: one half may
end long before the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .receive_stream import ReceiveStream
from .send_stream import SendStream

if TYPE_CHECKING:
    from .interface import StreamHandler


class BidiStream(SendStream, ReceiveStream):
    """A stream on which both sides send."""

    def __repr__(self) -> str:
        states = f"receive={self._receive_state.value} send={self._send_state.value}"
        return f"<BidiStream {self.stream_id} {states}>"

    @property
    def ended(self) -> bool:
        """True once both halves have ended."""
        return self.receive_ended and self.send_ended

    def cancel(self, wire_code: int) -> None:
        """Reset and stop what is still open of the stream, with a code as it stands on the wire."""
        SendStream.cancel(self, wire_code)
        ReceiveStream.cancel(self, wire_code)

    def _hand_over(self, handler: StreamHandler) -> None:
        ReceiveStream._hand_over(self, handler)
        SendStream._hand_over(self, handler)

    def _wake(self) -> None:
        ReceiveStream._wake(self)
        SendStream._wake(self)
