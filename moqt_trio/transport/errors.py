"""The one exception that is both ours and trio's.

It lives on this floor because `errors.py` below must not import trio.
"""

from __future__ import annotations

import trio

from ..errors import MoqtError, ProtocolError


class StreamReset(MoqtError, trio.BrokenResourceError):
    """One stream was given up before its end. The session goes on.

    Attributes:
        code: The error code, in the negotiated version's stream code space; an unknown code stays an int.
        by_peer: True when the peer gave up (RESET_STREAM or STOP_SENDING).
    """

    def __init__(self, code: int, *, by_peer: bool = True) -> None:
        self.code = code
        self.by_peer = by_peer
        super().__init__(f"the stream was reset by {'the peer' if by_peer else 'this side'} with code {code:#x}")

    @classmethod
    def after(cls, mistake: ProtocolError) -> StreamReset:
        """Returns what a reader sees of a stream that this side gave up for the peer's mistake, which is the cause."""
        reset = cls(mistake.code, by_peer=False)
        reset.__cause__ = mistake
        return reset
