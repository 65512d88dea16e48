"""The drafts that a session can speak. IetfDialect: one of them, as negotiation and the machines see it.

Its messages are those of `messages.py`: the place in the stream says nothing about them, as each has its type.

Spec: draft-ietf-moq-transport-14 to -22.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import attrs

from ...errors import LocalProtocolError
from ..dialect import Dialect, Features, Quirks, register
from ..handshake import HandshakeForm
from .codec import ControlCodec
from .codes import code_table
from .profile import PROFILES
from .subgroups import SubgroupDecoder, SubgroupEncoder
from .tokens import check_tokens_untrusted

if TYPE_CHECKING:
    from ...limits import Limits
    from ..buffer import StreamBuffer
    from ..messages import Datagram, Expect, Message, StreamKind
    from .profile import Profile

_FEATURES = Features(
    setup="uni",
    announce_first="ok",
    subscribe_typed=True,
    subscribe_end=True,
    timestamps=True,
    goaway=True,
    datagrams=True,
    offers=True,
    subgroups=True,
)

_NUMBER_14 = 0xFF00_000E


class IetfDialect(Dialect):
    """One draft.

    Attributes:
        profile: Its layouts.
        codec: Reads and writes its control messages.
    """

    quirks = Quirks(forgets_fetches=True, plain_codes=True)
    """The first is moq-rs's (wheel 0.5.1); the second is what the drafts say."""

    def __init__(self, profile: Profile) -> None:
        self.name = f"moqt-{profile.draft}"
        self.alpns = self.webtransport_protocols = (self.name,)
        self.features = attrs.evolve(_FEATURES, setup="shared") if profile.one_control_stream else _FEATURES
        self.opt_in = profile.draft % 2 == 1
        if profile.in_band:
            self.alpns = self.webtransport_protocols = ("moq-00",)
            self.handshakes = (HandshakeForm.COMPAT,)
            self.number = _NUMBER_14
        self.codes = code_table(profile)
        self.profile = profile
        self.codec = ControlCodec(profile)

    def split_stream_type(self, data: bytes) -> tuple[int, int] | None:
        return self.profile.decode(data, 0)

    def stream_type(self, kind: StreamKind) -> bytes:
        raise LocalProtocolError(f"{self.name} opens a {kind.value} stream with a message")

    def stream_kind_untrusted(self, number: int, *, bidirectional: bool) -> StreamKind | None:
        raise LocalProtocolError(f"{self.name} has other kinds of streams")

    def encode(self, message: Message) -> bytes:
        return self.codec.encode(message)

    def read_untrusted(self, expect: Expect, buffer: StreamBuffer, limits: Limits) -> Message | None:
        message = self.codec.read_untrusted(buffer, limits)
        parameters = getattr(message, "parameters", None)
        if parameters is not None and parameters.tokens:
            check_tokens_untrusted(parameters.tokens)
        return message

    def encode_frame(self, payload: bytes, timestamp: int | None, previous_timestamp: int) -> bytes:
        raise LocalProtocolError(f"{self.name} has objects, each with its id")

    def frame_encoder(self) -> SubgroupEncoder:
        return SubgroupEncoder(self.profile, properties=True)

    def frame_decoder(self, limits: Limits) -> SubgroupDecoder:
        return SubgroupDecoder(self.profile, limits, properties=True)

    def encode_datagram(self, datagram: Datagram) -> bytes:
        self._no_datagrams()

    def read_datagram_untrusted(self, data: bytes) -> Datagram:
        self._no_datagrams()

    def _no_datagrams(self) -> NoReturn:
        raise LocalProtocolError(f"{self.name} addresses datagrams by alias")


DRAFTS = tuple(register(IetfDialect(profile)) for profile in PROFILES.values())
"""The drafts that a session can speak, newest first.

They come after moq-lite in what is offered: a peer that speaks both has hops, costs and probes there. The even ones are
offered by default, as their peers offer them; the odd ones have moq-rs alone, which offers the even ones, too.
"""
