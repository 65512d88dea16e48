"""ControlCodec: the control messages of one draft, as bytes and as values.

    message { Type (i), Length (16), Body (..) }

The body is read to its last byte. A message of a type that the draft lacks cannot be skipped: it ends the session.

Spec: draft-ietf-moq-transport-18, section 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...codes import SessionCode
from ...errors import LocalProtocolError, Malformed
from .control import layouts
from .fields import ACCEPTANCES, ERRORS, layouts_14
from .messages import RequestError, RequestOk

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import StreamBuffer
    from ..messages import Message
    from .parts import Layout
    from .profile import Profile

_VIOLATION: Final[int] = SessionCode.PROTOCOL_VIOLATION
_MAX_LENGTH: Final = 0xFFFF
_NUMBERS_14: Final = {
    (kind, answered): number
    for kind, found in ((RequestError, ERRORS), (RequestOk, ACCEPTANCES))
    for number, answered in found.items()
}


class ControlCodec:
    """Reads and writes the control messages of one draft.

    Attributes:
        profile: The draft.
    """

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        found = layouts_14(profile) if profile.fixed_fields else layouts(profile)
        self._by_number: dict[int, Layout] = {layout.number: layout for layout in found}
        self._by_message = {layout.message: layout for layout in found}

    def __repr__(self) -> str:
        return f"<ControlCodec draft {self.profile.draft}>"

    def split_type(self, data: bytes | bytearray) -> tuple[int, int] | None:
        """Return the number at the start of a stream, and the offset after it; None when it is not complete."""
        return self.profile.decode(data, 0)

    def message_type(self, number: int) -> type[Message] | None:
        """Return the message that a type stands for, or None."""
        layout = self._by_number.get(number)
        return None if layout is None else layout.message

    def read_untrusted(self, buffer: StreamBuffer, limits: Limits) -> Message | None:
        """Take the next message out of a buffer. Until it is complete, return None and leave the buffer as it is.

        Raises:
            Malformed: The bytes are not a message of this draft.
            LimitExceeded: A count exceeds `limits`.
        """
        found = self.profile.decode(buffer, 0)
        if found is None:
            return None
        number, offset = found
        layout = self._by_number.get(number)
        if layout is None:
            raise Malformed(f"a message of unknown type {number:#x}", code=_VIOLATION)
        size = buffer.peek_u16(offset)
        if size is None or len(buffer) < offset + 2 + size:
            return None
        what = layout.message.__name__
        reader = self.profile.reader(buffer.take(size, offset + 2), what)
        message = layout.read(reader, self.profile, limits)
        reader.expect_end()
        return message

    def encode(self, message: Message) -> bytes:
        """Return a message's bytes.

        Raises:
            LocalProtocolError: The draft lacks it, or cannot carry a value of it.
        """
        layout = self._by_message.get(type(message))
        if layout is None:
            raise LocalProtocolError(f"draft {self.profile.draft} has no {type(message).__name__}")
        number = layout.number
        if self.profile.error == "each" and isinstance(message, RequestError | RequestOk):
            number = self._number_14(message)
        body = self.profile.writer()
        layout.write(body, message, self.profile)
        if len(body) > _MAX_LENGTH:
            raise LocalProtocolError(f"a {type(message).__name__} has at most {_MAX_LENGTH} bytes, not {len(body)}")
        head = self.profile.writer()
        head.varint(number)
        return head.getvalue() + len(body).to_bytes(2, "big") + body

    def _number_14(self, message: RequestError | RequestOk) -> int:
        number = _NUMBERS_14.get((type(message), message.answered))
        if number is None:
            raise LocalProtocolError(f"draft 14 has no {type(message).__name__} for {message.answered.value}")
        return number
