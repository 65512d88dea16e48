"""Where each control message of the drafts is due: the machine that reads it, with everything before it read.

The messages are those of the vectors; what stands before them is written by hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from moqt_trio.limits import Limits
from moqt_trio.protocol.ietf.core import IetfCore
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.ietf.drafts import IetfDialect
from tests.faults.drafts import DraftWire, records

if TYPE_CHECKING:
    from moqt_trio.protocol.machine import StreamMachine

LIMITS = Limits()
OPENING = frozenset(
    {
        "SUBSCRIBE",
        "FETCH",
        "SUBSCRIBE_NAMESPACE",
        "PUBLISH_NAMESPACE",
        "PUBLISH",
        "TRACK_STATUS",
        "SUBSCRIBE_TRACKS",
    }
)
_REPLIES = frozenset(
    {
        "SUBSCRIBE_OK",
        "REQUEST_ERROR",
        "REQUEST_OK",
        "PUBLISH_DONE",
        "PUBLISH_STATE_NOTIFY",
        "FETCH_OK",
        "NAMESPACE",
        "NAMESPACE_DONE",
    }
)
_WITH_PAIRS = frozenset({"SETUP", "SUBSCRIBE_OK", "PUBLISH", "FETCH_OK", "REQUEST_OK"})


@attrs.frozen
class DraftPlace:
    """A message of the vectors, where it is due.

    Attributes:
        name: The draft.
        message: The message's name.
        wire: Its bytes.
        is_client: Whether the side that reads it is the client.
        ours: True on a stream that this side opened.
    """

    name: str
    message: str
    wire: bytes
    is_client: bool

    def __str__(self) -> str:
        return f"{self.name}-{self.message}-{self.wire.hex()[:24]}"

    @property
    def ours(self) -> bool:
        return self.message in _REPLIES

    @property
    def before(self) -> bytes:
        """What the peer has said before on the stream."""
        wire = DraftWire(self.name)
        match self.message:
            case "GOAWAY":
                return wire.setup(client=not self.is_client)
            case "PUBLISH_DONE" | "PUBLISH_STATE_NOTIFY":
                return wire.subscribe_ok(0, 7)
            case "NAMESPACE" | "NAMESPACE_DONE":
                return wire.namespaces_ok(0)
            case "REQUEST_UPDATE":
                # An id of the peer's that no vector has.
                return wire.subscribe(1001 if self.is_client else 1000)
        return b""

    @property
    def ends_with_pairs(self) -> bool:
        """True where the last field is a list that goes on to the end of the message."""
        draft = DraftWire(self.name).draft
        return self.message in _WITH_PAIRS and (self.message != "REQUEST_OK" or draft >= 18)

    def last_is_open(self, cut: int) -> bool:
        """Return whether a body that ends here ends with a field that goes on to the end of the message."""
        # TRACK_NAMESPACE_PREFIX, which aiomoqt writes with a length in front.
        return self.message == "REQUEST_UPDATE" and cut > 0

    def cut_out(self) -> tuple[bytes, bytes]:
        """Return the message's type and its body."""
        size = 2 if self.wire[0] >= 0x80 else 1
        assert int.from_bytes(self.wire[size : size + 2], "big") == len(self.wire) - size - 2
        return self.wire[:size], self.wire[size + 2 :]

    def machine(self, limits: Limits = LIMITS) -> StreamMachine:
        """Return the machine that reads here, in a session of its own, with everything before read."""
        dialect = dialects.get(self.name)
        assert isinstance(dialect, IetfDialect)
        side = IetfCore(dialect, is_client=self.is_client, limits=limits, path_on_wire=True)
        made = self._make(side)
        if self.before:
            made.receive_data(self.before, False)
        return made

    def _make(self, side: IetfCore) -> StreamMachine:
        match self.message:
            case "SETUP" | "GOAWAY":
                return side.accept_uni()
            case "SUBSCRIBE_OK" | "REQUEST_ERROR" | "PUBLISH_DONE" | "PUBLISH_STATE_NOTIFY":
                return side.subscribe("a", "t")
            case "FETCH_OK":
                return side.fetch("a", "t", 0)
            case "NAMESPACE" | "NAMESPACE_DONE" | "REQUEST_OK":
                return side.request_announcements("")
        return side.accept_bidi()


def places(name: str) -> list[DraftPlace]:
    """Return every message of a draft's vectors that a session reads, at its place.

    There are none up to draft 16, where all messages have the one place of the control stream.
    """
    if DraftWire(name).shared:
        return []
    found: dict[tuple[str, bytes, bool], DraftPlace] = {}
    for record in records(name, "control", "request"):
        message, wire = record["message"], bytes.fromhex(record["hex"])
        if message not in {*OPENING, *_REPLIES, "SETUP", "GOAWAY", "REQUEST_UPDATE"}:
            continue
        if _has_alias(record):
            continue  # this library keeps no tokens: it ends the session
        place = DraftPlace(name, message, wire, _read_by_client(record))
        found.setdefault((message, wire, place.is_client), place)
    return list(found.values())


def _has_alias(record: dict) -> bool:
    parameters = record["fields"].get("parameters") or {}
    token = parameters.get("AUTHORIZATION_TOKEN") if isinstance(parameters, dict) else None
    return token is not None and token["alias_type"] != "USE_VALUE"


def _read_by_client(record: dict) -> bool:
    request_id = record["fields"].get("request_id")
    if record["message"] in {*OPENING, "REQUEST_UPDATE"}:
        assert isinstance(request_id, int)
        return request_id % 2 == 1
    return record["direction"] != "client>server"
