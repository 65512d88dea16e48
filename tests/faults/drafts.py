"""For the tests of hostile peers on the IETF drafts: which drafts have sessions, and their bytes, written by hand.

Every layout here is that of the draft's text; `tests/wire` has the same messages as the peers wrote them.
"""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

import moqt_trio.wire  # noqa: F401  (registers the drafts)
from moqt_trio.wire import dialect as dialects

NAMES = tuple(name for name in dialects.version_names(opt_in=True) if name.startswith("moqt-"))
"""Every draft that has sessions, newest first."""
each_draft = pytest.mark.parametrize("name", NAMES)
MAX = 2**62 - 1
LARGEST = {True: 2**62 - 1, False: 2**64 - 1}
"""The largest number of a draft, by whether it has one control stream (up to 16)."""

PROTOCOL_VIOLATION = 0x3
INVALID_REQUEST_ID = 0x4
DUPLICATE_TRACK_ALIAS = 0x5
TOO_MANY_UPDATES = 0x1B
CANCELLED = 0x1
MALFORMED_TRACK = 0x12
DOES_NOT_EXIST = 0x10
INVALID_RANGE = 0x11
INVALID_JOINING_REQUEST_ID = 0x32

SUBSCRIBE_UPDATE = 0x02
SUBSCRIBE = 0x03
SUBSCRIBE_OK = 0x04
REQUEST_ERROR = 0x05
PUBLISH_NAMESPACE = 0x06
REQUEST_OK = 0x07
NAMESPACE = 0x08
PUBLISH_NAMESPACE_DONE = 0x09
UNSUBSCRIBE = 0x0A
PUBLISH_DONE = 0x0B
TRACK_STATUS = 0x0D
NAMESPACE_DONE = 0x0E
GOAWAY = 0x10
SUBSCRIBE_NAMESPACE_16 = 0x11
UNSUBSCRIBE_NAMESPACE = 0x14
FETCH = 0x16
FETCH_CANCEL = 0x17
FETCH_OK = 0x18
PUBLISH = 0x1D
SUBSCRIBE_NAMESPACE = 0x50
SUBSCRIBE_TRACKS = 0x51
_LARGEST_OBJECT = 0x09
_FILTER = 0x21
_FILL = 0x23

RECORDS = json.loads((Path(__file__).parents[1] / "vectors" / "ietf-vectors.json").read_text())


def records(name: str, *streams: str) -> list[dict]:
    """Return the vectors of a draft on these streams: `"control"`, `"request"`, `"uni data"`, `"datagram"`."""
    draft = int(name.removeprefix("moqt-"))
    return [record for record in RECORDS if record["draft"] == draft and record["stream"] in streams]


def everything(name: str) -> list[bytes]:
    """Return the bytes of every vector of a draft."""
    return [bytes.fromhex(record["hex"]) for record in records(name, "control", "request", "uni data", "datagram")]


@attrs.frozen
class DraftWire:
    """The bytes of one draft.

    Attributes:
        name: `"moqt-18"`, as `versions=` takes it.
    """

    name: str

    @property
    def draft(self) -> int:
        return int(self.name.removeprefix("moqt-"))

    @property
    def shared(self) -> bool:
        """True up to 16: all requests share the control stream, and each reply has its request's id."""
        return self.draft <= 16

    @property
    def largest(self) -> int:
        """The largest number."""
        return LARGEST[self.shared]

    @property
    def fin_cancels(self) -> bool:
        return self.draft in (17, 18)

    # -- parts ---------------------------------------------------------------------------------------------

    def number(self, value: int, size: int | None = None) -> bytes:
        """Return a number, in its shortest form or in one of so many bytes."""
        if self.shared:
            size = size or next(size for size in (1, 2, 4, 8) if value < 1 << (8 * size - 2))
            return (value | {1: 0, 2: 1, 4: 2, 8: 3}[size] << (8 * size - 2)).to_bytes(size, "big")
        sizes = (1, 2, 3, 4, 5, 6, 8, 9) if self.draft == 17 else range(1, 10)
        size = size or next(size for size in sizes if value < 1 << (64 if size == 9 else 7 * size))
        if size == 9:
            return b"\xff" + value.to_bytes(8, "big")
        prefix = (0xFF00 >> (size - 1)) & 0xFF
        return (value | prefix << 8 * (size - 1)).to_bytes(size, "big")

    def data(self, value: bytes) -> bytes:
        """Return bytes with their length in front."""
        return self.number(len(value)) + value

    def namespace(self, *fields: bytes) -> bytes:
        return self.number(len(fields)) + b"".join(map(self.data, fields))

    def location(self, group: int, index: int) -> bytes:
        return self.number(group) + self.number(index)

    def message(self, kind: int, body: bytes) -> bytes:
        """Return a message of any type."""
        return self.number(kind) + len(body).to_bytes(2, "big") + body

    def request_id(self, number: int) -> bytes:
        """Return an id at the head of a request; draft 17 says beside it for which request it waits."""
        return self.number(number) + (b"\x00" if self.draft == 17 else b"")

    def answered(self, request_id: int) -> bytes:
        """Return the id at the head of a reply, where replies have one."""
        return self.number(request_id) if self.shared else b""

    def parameter(self, kind: int, value: bytes, *, bare: bool = False) -> bytes:
        """Return a block with one parameter, whose value has its length in front unless it is bare."""
        return b"\x01" + self.number(kind) + (value if bare else self.data(value))

    # -- the control stream -----------------------------------------------------------------------------------

    def setup(self, *, client: bool, options: bytes | None = None) -> bytes:
        """Return the SETUP of a side."""
        if not self.shared:
            return self.message(0x2F00, options or b"")
        if options is None:
            options = b"\x01\x02" + self.number(1 << 20)  # MAX_REQUEST_ID
        if self.draft == 14:
            number = self.number(0xFF00000E, 8)
            options = (b"\x01" + number if client else number) + options
        return self.message(0x20 if client else 0x21, options)

    def goaway(self, uri: bytes = b"") -> bytes:
        return self.message(GOAWAY, self.data(uri) + (b"" if self.shared else b"\x00"))

    # -- requests ---------------------------------------------------------------------------------------------

    def _newest(self) -> bytes:
        """Return the parameters of a subscription that begins behind the newest object."""
        if self.draft == 22:
            return self.parameter(_FILTER, b"\x05", bare=True)
        return self.parameter(_FILTER, b"\x00\x00" if self.draft >= 20 else b"\x02")

    def subscribe(
        self,
        request_id: int,
        namespace: tuple[bytes, ...] = (b"b",),
        track: bytes = b"t",
        *,
        parameters: bytes | None = None,
    ) -> bytes:
        """Return SUBSCRIBE, from behind the newest object on unless other parameters are given."""
        head = self.request_id(request_id) + self.namespace(*namespace) + self.data(track)
        if self.draft == 14:
            return self.message(SUBSCRIBE, head + (parameters or bytes.fromhex("80 01 01 02 00")))
        return self.message(SUBSCRIBE, head + (parameters or self._newest()))

    def from_group(self, group: int) -> bytes:
        """Return the parameters of a subscription that begins with a group."""
        place = self.location(group, 0)
        if self.draft == 14:
            return bytes.fromhex("80 01 01 03") + place + b"\x00"
        if self.draft == 22:
            return self.parameter(_FILTER, b"\x02" + place, bare=True)
        return self.parameter(_FILTER, place if self.draft >= 20 else b"\x03" + place)

    def with_fill(self, groups: int = 1) -> bytes:
        """Return the parameters of a subscription that wants the newest groups, too (from 20 on)."""
        last = b"\x01" + self.number(groups)
        inner = b"\x01\x21" + last if self.draft == 22 else b"\x01\x21" + self.data(self.number(groups))
        place = b"\x05" if self.draft == 22 else self.data(b"\x00\x00")
        return b"\x02\x21" + place + b"\x02" + self.data(inner)

    def fetch(
        self,
        request_id: int,
        namespace: tuple[bytes, ...] = (b"b",),
        track: bytes = b"t",
        *,
        group: int = 0,
    ) -> bytes:
        """Return FETCH of one whole group."""
        head, name = self.request_id(request_id), self.namespace(*namespace) + self.data(track)
        place = self.location(group, 0)
        if self.draft >= 20:
            wanted = (b"\x03" if self.draft == 22 else b"") + place + b"\x00"
            return self.message(FETCH, head + name + self.parameter(_FILTER, wanted, bare=self.draft == 22))
        fixed = b"\x80\x01" if self.draft == 14 else b""
        return self.message(FETCH, head + fixed + b"\x01" + name + place + place + b"\x00")

    def join(self, request_id: int, subscription: int, start: int = 0, *, absolute: bool = False) -> bytes:
        """Return a joining FETCH (up to 19)."""
        fixed = b"\x80\x01" if self.draft == 14 else b""
        kind = b"\x03" if absolute else b"\x02"
        body = fixed + kind + self.number(subscription) + self.number(start) + b"\x00"
        return self.message(FETCH, self.request_id(request_id) + body)

    def update(self, request_id: int, existing: int, parameters: bytes = b"\x00") -> bytes:
        """Return an update of a request that changes nothing."""
        if self.draft == 14:
            fields = self.number(existing) + bytes.fromhex("00 00 00 80 01") + parameters
            return self.message(SUBSCRIBE_UPDATE, self.number(request_id) + fields)
        named = self.number(existing) if self.shared else b""
        return self.message(SUBSCRIBE_UPDATE, self.request_id(request_id) + named + parameters)

    def subscribe_namespace(self, request_id: int, *prefix: bytes) -> bytes:
        if self.draft >= 18:
            return self.message(SUBSCRIBE_NAMESPACE, self.number(request_id) + self.namespace(*prefix) + b"\x00")
        options = b"\x01" if self.draft >= 16 else b""
        body = self.request_id(request_id) + self.namespace(*prefix) + options + b"\x00"
        return self.message(SUBSCRIBE_NAMESPACE_16, body)

    def publish_namespace(self, request_id: int, *fields: bytes) -> bytes:
        return self.message(PUBLISH_NAMESPACE, self.request_id(request_id) + self.namespace(*fields) + b"\x00")

    def publish(
        self, request_id: int, alias: int, namespace: tuple[bytes, ...] = (b"b",), track: bytes = b"t"
    ) -> bytes:
        """Return PUBLISH, with nothing published yet."""
        head = self.request_id(request_id) + self.namespace(*namespace) + self.data(track) + self.number(alias)
        return self.message(PUBLISH, head + (b"\x01\x00\x00\x00" if self.draft == 14 else b"\x00"))

    def track_status(self, request_id: int, namespace: tuple[bytes, ...] = (b"b",), track: bytes = b"t") -> bytes:
        head = self.request_id(request_id) + self.namespace(*namespace) + self.data(track)
        return self.message(TRACK_STATUS, head + (bytes.fromhex("80 01 01 02 00") if self.draft == 14 else b"\x00"))

    # -- replies ----------------------------------------------------------------------------------------------

    def subscribe_ok(self, request_id: int, alias: int, largest: tuple[int, int] | None = None) -> bytes:
        if self.draft == 14:
            place = b"\x00" if largest is None else b"\x01" + self.location(*largest)
            body = self.number(request_id) + self.number(alias) + b"\x00\x01" + place + b"\x00"
            return self.message(SUBSCRIBE_OK, body)
        parameters = b"\x00"
        if largest is not None:
            parameters = self.parameter(_LARGEST_OBJECT, self.location(*largest), bare=not self.shared)
        return self.message(SUBSCRIBE_OK, self.answered(request_id) + self.number(alias) + parameters)

    def namespaces_ok(self, request_id: int) -> bytes:
        """Return the acceptance of SUBSCRIBE_NAMESPACE."""
        if self.draft == 14:
            return self.message(0x12, self.number(request_id))
        return self.message(REQUEST_OK, self.answered(request_id) + b"\x00")

    def update_ok(self, request_id: int) -> bytes:
        """Return the acceptance of an update (from 15 on)."""
        return self.message(REQUEST_OK, self.answered(request_id) + b"\x00")

    def refused(self, request_id: int, kind: int, code: int = DOES_NOT_EXIST, reason: bytes = b"") -> bytes:
        """Return the refusal of a request, whose message type draft 14 needs."""
        own = {SUBSCRIBE: 0x05, FETCH: 0x19, SUBSCRIBE_NAMESPACE_16: 0x13, PUBLISH_NAMESPACE: 0x08, PUBLISH: 0x1F}
        number = own[kind] if self.draft == 14 else REQUEST_ERROR
        if self.draft == 14 and code == DOES_NOT_EXIST:
            code = 0x4
        retry = b"\x00" if self.draft >= 16 else b""
        return self.message(number, self.answered(request_id) + self.number(code) + retry + self.data(reason))

    def publish_done(self, request_id: int, status: int = 2, streams: int = 0, reason: bytes = b"") -> bytes:
        head = self.answered(request_id) + self.number(status) + self.number(streams)
        return self.message(PUBLISH_DONE, head + self.data(reason))

    def fetch_ok(self, request_id: int, end: tuple[int, int] = (0, 0)) -> bytes:
        fixed = b"\x01" if self.draft == 14 else b""
        return self.message(FETCH_OK, self.answered(request_id) + fixed + b"\x00" + self.location(*end) + b"\x00")

    def found(self, *suffix: bytes) -> bytes:
        """Return NAMESPACE (from 16 on)."""
        return self.message(NAMESPACE, self.namespace(*suffix))

    def lost(self, *suffix: bytes) -> bytes:
        """Return NAMESPACE_DONE (from 16 on)."""
        return self.message(NAMESPACE_DONE, self.namespace(*suffix))

    # -- objects ----------------------------------------------------------------------------------------------

    def header(self, alias: int, group: int, *, first: bool = True) -> bytes:
        """Return the header of a subgroup 0 that ends its group, with a priority and without properties."""
        kind = 0x58 if first and self.draft >= 18 else 0x18
        return self.number(kind) + self.number(alias) + self.number(group) + b"\x80"

    def object(self, payload: bytes, delta: int = 0) -> bytes:
        """Return an object of a subgroup."""
        return self.number(delta) + self.data(payload) + (b"" if payload else b"\x00")

    def status(self, status: int, delta: int = 0) -> bytes:
        """Return an object that has a status and no payload."""
        return self.number(delta) + b"\x00" + self.number(status)

    def subgroup(self, alias: int, group: int, *payloads: bytes) -> bytes:
        return self.header(alias, group) + b"".join(map(self.object, payloads))

    def reply_header(self, request_id: int) -> bytes:
        return b"\x05" + self.number(request_id)

    def fetched(self, group: int, index: int, payload: bytes) -> bytes:
        """Return the first object of a reply: everything is explicit."""
        place = self.number(group) + b"\x00" + self.number(index) + b"\x80"
        if self.draft == 14:
            return place + b"\x00" + self.data(payload) + (b"" if payload else b"\x00")
        flags = b"\x1f"
        return flags + place + self.data(payload) + (b"\x00" if self.draft == 15 and not payload else b"")

    def fetched_next(self, payload: bytes, group: int = 0, index: int = 0) -> bytes:
        """Return an object of a reply that follows the one before; draft 14 says where it is."""
        if self.draft == 14:
            return self.fetched(group, index, payload)
        return b"\x00" + self.data(payload) + (b"\x00" if self.draft == 15 and not payload else b"")

    def datagram(self, alias: int, group: int, payload: bytes) -> bytes:
        """Return a datagram with the first object of a group, and its last one."""
        return self.number(0x06) + self.number(alias) + self.number(group) + b"\x80" + payload
