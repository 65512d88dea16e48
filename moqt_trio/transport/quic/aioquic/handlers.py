"""The handlers of aioquic's frames, made as frames of a kind first arrive.

Each connection of aioquic 1.7 has a table of them with a hundred objects: a bound method, a set and a tuple for every
kind of frame. A session sees ten kinds, and what a server's sessions hold is what the garbage collector looks at.
Test: `test_frame_handlers_are_made_as_they_are_needed`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import TYPE_CHECKING, TypeAlias

from aioquic.tls import Epoch

if TYPE_CHECKING:
    from aioquic.quic.connection import QuicConnection

_ATTRIBUTE = "_QuicConnection__frame_handlers"

Entry: TypeAlias = tuple[Callable[..., None], frozenset[Epoch]]
"""A handler, and where the kind of frame is allowed."""

_functions: dict[type[QuicConnection], dict[int, Entry]] = {}
"""The entries of each class of connections, with functions in place of bound methods."""


class FrameHandlers(dict[int, Entry]):
    """The table of one connection. A kind that does not exist raises KeyError, as in the table that it replaces."""

    def __init__(self, quic: QuicConnection, functions: dict[int, Entry]) -> None:
        super().__init__()
        self._quic = quic
        self._functions = functions

    def __missing__(self, frame_type: int) -> Entry:
        function, epochs = self._functions[frame_type]
        entry = self[frame_type] = (MethodType(function, self._quic), epochs)
        return entry


def share_frame_handlers(quic: QuicConnection) -> None:
    """Replace the table of a connection, once it is complete."""
    kind = type(quic)
    if kind not in _functions:
        table: dict[int, Entry] = getattr(quic, _ATTRIBUTE)
        _functions[kind] = {
            frame_type: (handler.__func__ if isinstance(handler, MethodType) else handler, epochs)
            for frame_type, (handler, epochs) in table.items()
        }
    setattr(quic, _ATTRIBUTE, FrameHandlers(quic, _functions[kind]))
