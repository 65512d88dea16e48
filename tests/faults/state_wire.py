"""The bytes of every version, put together from the layouts of the drafts and not by this library's codecs.

Names are short, so that every length fits one byte.
"""

from __future__ import annotations

import attrs

from moqt_trio.transport.code_mapping import HTTP3_CODES, PLAIN_CODES, CodeMapping

LITE_06, LITE_06_WIP, LITE_05 = "moq-lite-06", "moq-lite-06-wip", "moq-lite-05"
LITE_04, LITE_03, LITE_02, LITE_01 = "moq-lite-04", "moq-lite-03", "moq-lite-02", "moq-lite-01"
TRANSFORK, DEVELOP = "moq-transfork-03", "gomoqt-develop"
WITH_SETUP = (LITE_06, LITE_06_WIP, LITE_05)
WITH_IDS = (LITE_06, LITE_06_WIP)
TYPED = (*WITH_SETUP, LITE_04, LITE_03)
"""The versions in which a stream of unknown type breaks nothing but itself."""
IN_BAND = (LITE_02, LITE_01, TRANSFORK, DEVELOP)
TUPLES = (TRANSFORK, DEVELOP)
ALL = (*TYPED, *IN_BAND)

HOP = 77
"""The hop id of the hand-written peer."""

CANCELLED, CONTROL_TIMEOUT, UNROUTABLE = 0x01, 0x31, 0x36
PROTOCOL_VIOLATION = 3

_NUMBERS = {LITE_02: "ff0dad02", LITE_01: "ff0dad01", TRANSFORK: "ff0bad03", DEVELOP: "ffffff00"}
_PROTOCOLS = {LITE_02: "moql", LITE_01: "moql", TRANSFORK: "moq-00", DEVELOP: "moq-00"}


def protocol_of(version: str) -> str:
    """The ALPN that stands for a version over raw QUIC."""
    return _PROTOCOLS.get(version, version)


def varint(value: int) -> bytes:
    """A QUIC varint in its shortest form."""
    for size, mark in ((1, 0), (2, 0x40), (4, 0x80), (8, 0xC0)):
        if value < 1 << (8 * size - 2):
            data = bytearray(value.to_bytes(size, "big"))
            data[0] |= mark
            return bytes(data)
    raise AssertionError(f"{value} is no varint")


def text(value: str) -> bytes:
    """A text with its length in front."""
    return varint(len(value.encode())) + value.encode()


def numbers(*values: int) -> bytes:
    """Return the numbers as varints, one after the other."""
    return b"".join(map(varint, values))


@attrs.frozen
class Wire:
    """The bytes of one version."""

    version: str

    def framed(self, body: bytes) -> bytes:
        """A message: its length and its body, or the body alone in moq-transfork-03."""
        return body if self.version == TRANSFORK else varint(len(body)) + body

    def path(self, value: str) -> bytes:
        """A path: a tuple of its parts before moq-lite, else one text."""
        if self.version not in TUPLES:
            return text(value)
        parts = value.split("/") if value else []
        return varint(len(parts)) + b"".join(map(text, parts))

    # -- the start of a session ----------------------------------------------------------------------------

    @property
    def number(self) -> bytes:
        """The version's number, as a varint of eight bytes."""
        return bytes.fromhex("c0000000" + _NUMBERS[self.version])

    @property
    def hello(self) -> bytes:
        """The bytes that open the client's first stream, where the version has a handshake; its path is `/a`."""
        path = numbers(1, 1) + text("/a")
        if self.version in TUPLES:
            return b"\x00" + self.framed(b"\x01" + self.number + path)
        body = b"\x01" + self.number + path
        return b"\x20" + len(body).to_bytes(2, "big") + body

    @property
    def welcome(self) -> bytes:
        """The server's answer."""
        if self.version in TUPLES:
            return self.framed(self.number + b"\x00")
        return b"\x21\x00\x09" + self.number + b"\x00"

    setup = bytes.fromhex("01 01 00")
    """A SETUP stream, from moq-lite-05 on: its type, and a message without parameters."""

    # -- announcements -------------------------------------------------------------------------------------

    def ask(self, prefix: str = "") -> bytes:
        """The bytes that open an announce stream."""
        exclude = b"\x00" if self.version in (LITE_04, LITE_05) else b""
        return b"\x01" + self.framed(self.path(prefix) + exclude)

    def first(self, *paths: str) -> bytes:
        """The bytes that open the replies, with the active announcements."""
        if self.version in WITH_SETUP:
            return self.framed(numbers(HOP, len(paths))) + b"".join(map(self.active, paths))
        if self.version in (LITE_02, LITE_01):
            return self.framed(varint(len(paths)) + b"".join(map(text, paths)))
        return b"".join(map(self.active, paths))

    def active(self, path: str, *hops: int) -> bytes:
        """An announcement that starts; in moq-lite-03 the hops are only counted."""
        listed = varint(len(hops)) + numbers(*hops)
        match self.version:
            case "moq-lite-06":
                return b"\x00" + self.framed(text(path) + listed + numbers(0, 0))
            case "moq-lite-06-wip":
                return b"\x00" + self.framed(text(path) + listed + numbers(0))
            case "moq-lite-05" | "moq-lite-04":
                return self.framed(b"\x01" + text(path) + listed)
            case "moq-lite-03":
                return self.framed(b"\x01" + text(path) + varint(len(hops)))
            case _:
                return self.framed(b"\x01" + self.path(path))

    def ended(self, path: str, ordinal: int) -> bytes:
        """An announcement that ends: by its path, or from moq-lite-06 on by its ordinal."""
        if self.version in WITH_IDS:
            return b"\x01" + self.framed(varint(ordinal))
        hops = b"\x00" if self.version in (LITE_05, LITE_04, LITE_03) else b""
        return self.framed(b"\x00" + self.path(path) + hops)

    # -- subscriptions -------------------------------------------------------------------------------------

    def subscribe(self, subscribe_id: int, broadcast: str = "b", track: str = "t") -> bytes:
        """A SUBSCRIBE for every group from the latest on, of any age that the publisher keeps."""
        names = self.path(f"{broadcast}/{track}") if self.version in TUPLES else text(broadcast) + text(track)
        match self.version:
            case "moq-lite-06":
                wish = bytes.fromhex("7f 00 00 00 00 00")
            case "moq-lite-02" | "moq-lite-01":
                wish = b"\x7f"
            case "moq-transfork-03":
                wish = numbers(0, 0, 0, 0, 0)
            case "gomoqt-develop":
                wish = numbers(0, 0, 0, 0)
            case _:
                wish = bytes.fromhex("7f 00 00 00 00")
        return b"\x02" + self.framed(varint(subscribe_id) + names + wish)

    def accepted(self, first: int = 1) -> bytes:
        """A SUBSCRIBE_OK, or an INFO that names the latest group."""
        match self.version:
            case "moq-lite-04" | "moq-lite-03":
                return b"\x00" + self.framed(bytes.fromhex("7f 00 00") + numbers(first + 1, 0))
            case "moq-lite-02":
                return self.framed(b"")
            case "moq-lite-01":
                return self.framed(b"\x7f")
            case "moq-transfork-03":
                return numbers(0, first, 0, 0)
            case "gomoqt-develop":
                return self.framed(numbers(0, first, 0))
            case _:
                return b"\x00" + self.framed(varint(first))

    def track_info(self) -> bytes:
        """A TRACK_INFO, where timestamps need one."""
        ordered = b"" if self.version == LITE_06 else b"\x00"
        return self.framed(b"\x7f" + ordered + numbers(1000, 1000))

    def group(self, subscribe_id: int, sequence: int, *payloads: bytes) -> bytes:
        """A group stream: its type, its header, and frames that have the timestamp 0 where they have one."""
        start = b"\x00" if self.version == LITE_06 else b""
        time = b"\x00" if self.version in WITH_SETUP else b""
        frames = b"".join(time + varint(len(payload)) + payload for payload in payloads)
        return b"\x00" + self.framed(numbers(subscribe_id, sequence) + start) + frames

    # -- codes ---------------------------------------------------------------------------------------------

    @property
    def no_track(self) -> int:
        """The code that refuses a subscription to a missing track."""
        return 3 if self.version == DEVELOP else 0x33

    @property
    def cancelled(self) -> int:
        """The code that cancels a request: gomoqt has no number of its own for it."""
        return 0 if self.version == DEVELOP else CANCELLED

    @property
    def mapping(self) -> CodeMapping:
        """How raw QUIC encodes stream codes: as they are in gomoqt, else in the form of WebTransport."""
        return PLAIN_CODES if self.version == DEVELOP else HTTP3_CODES
