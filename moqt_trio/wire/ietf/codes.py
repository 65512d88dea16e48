"""The numbers of the codes in RESET_STREAM and STOP_SENDING; those of a session are moq-lite's.

The refusals of requests have numbers of their own, in `protocol/ietf/machine.py`.

Spec: draft-ietf-moq-transport-18, section 13.4; sections of the same name in 14 to 17.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...codes import CodeSpace, CodeTable, StreamCode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .profile import Profile

_STREAMS: Final[tuple[CodeSpace, ...]] = ("announce", "subscribe", "fetch", "info", "group", "stream")
_INTERNAL_ERROR: Final = 0x0


def code_table(profile: Profile) -> CodeTable:
    """Return how a draft numbers the codes of streams."""
    numbers = _numbers(profile.draft)
    # Up to draft 16 a request is ended by a message, which is made from the code of this library.
    spaces: tuple[CodeSpace, ...] = ("group",) if profile.one_control_stream else _STREAMS
    return CodeTable(
        numbers={space: numbers for space in spaces}, fallback={space: _INTERNAL_ERROR for space in spaces}
    )


def _numbers(draft: int) -> Mapping[int, int]:
    # A number is read as the first code that has it.
    numbers: dict[int, int] = {
        StreamCode.INTERNAL_ERROR: _INTERNAL_ERROR,
        StreamCode.CANCELLED: 0x1,
        StreamCode.DELIVERY_TIMEOUT: 0x2,
        StreamCode.OLD: 0x2,
        StreamCode.CONTROL_TIMEOUT: 0x2,
        StreamCode.SESSION_CLOSED: 0x3,
    }
    if draft >= 16:
        # UNKNOWN_OBJECT_STATUS: what a fetch wants is not kept any more.
        numbers[StreamCode.EVICTED] = 0x6 if draft >= 18 else 0x4
        numbers[StreamCode.MALFORMED_TRACK] = 0x12
        numbers[StreamCode.FRAME_TOO_LARGE] = 0x12
    if draft >= 17:
        numbers[StreamCode.TOO_FAR_BEHIND] = 0x5
        numbers[StreamCode.NO_CAPACITY] = 0x9
    if draft >= 18:
        numbers[StreamCode.GOING_AWAY] = 0x4
    return numbers
