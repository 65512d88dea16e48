"""Hostile text in paths, names and URIs, in every message that has some, in every version.

What is no UTF-8, too long or too deep ends the session. Everything else is opaque: control characters, escape sequences
and dots have no meaning here, reach the application as they are, and show in logs as one line of plain ASCII. Slashes
at the ends of a path or doubled are dropped, but in a tuple a part that is empty or has a slash is refused.
"""

from __future__ import annotations

import logging
import re

import attrs
import pytest
import trio

import moqt_trio as moqt
from moqt_trio.errors import LimitExceeded, Malformed
from moqt_trio.protocol.events import (
    Announced,
    AnnouncementsRequested,
    FetchRequested,
    SubscribeRequested,
    TrackAnnounced,
    TrackInfoRequested,
)
from moqt_trio.varint import encode
from moqt_trio.wire import messages as m
from moqt_trio.wire.messages import Expect, Goaway, Setup, StreamKind
from tests.faults.dialects import CASES, LIMITS, NAMES, SHAKES, TUPLES, UNFRAMED, VIOLATION, Place, outcome
from tests.faults.hostile_peer import hostile_peer
from tests.faults.raw_peer import code_of_reset
from tests.transport.awaiting import accept_bidi

each_version = pytest.mark.parametrize("name", NAMES)
UNROUTABLE = 0x36

NOT_UTF8 = {
    "no such byte": b"\xff\xfe",
    "cut short": b"abc\xc3",
    "overlong slash": b"a\xc0\xafb",
    "surrogate": b"\xed\xa0\x80",
    "above the last": b"\xf4\x90\x80\x80",
}
OPAQUE = {
    "NUL": "a\0b",
    "line breaks": "a\r\nERROR forged line",
    "escape sequence": "\x1b[31m\x1b]0;title\x07red",
    "other line breaks": "a\u2028b\x85c",
    "right to left": "\u202egnp.cam",
    "dots": "..",
    "dot": ".hidden",
    "space": " ",
    "percent": "%2e%2e%2f",
    "not Latin": "канал",
}


@attrs.frozen
class Text:
    """One text in one message of the vectors, to be replaced.

    Attributes:
        place: Where the message is due.
        kind: Its type, if it has one.
        before: The fields in front of the text.
        old: The text.
        after: The fields after it.
        others: How many bytes the other parts of its path have, each with a slash.
    """

    place: Place
    kind: bytes
    before: bytes
    old: bytes
    after: bytes
    others: int

    def __str__(self) -> str:
        return f"{self.place}-{self.old.decode()}"

    def message(self, text: bytes) -> bytes:
        """Return the message with another text; its lengths are true."""
        body = self.before + encode(len(text)) + text + self.after
        return self.kind + (body if self.place.version == UNFRAMED else encode(len(body)) + body)

    @property
    def limit(self) -> tuple[str, int]:
        """The limit that the text is held to, and its bytes."""
        if self.place.expect in (Expect.SETUP, Expect.GOAWAY):
            return "max_uri", LIMITS.max_uri
        return ("max_track_name", LIMITS.max_track_name) if self.names_track else ("max_path", LIMITS.max_path)

    @property
    def names_track(self) -> bool:
        """True for the name of a track that stands beside its broadcast's path."""
        return self.place.version not in TUPLES and self.old in (b"events", b"catalog.json")


def _texts() -> list[Text]:
    found: dict[str, Text] = {}
    for place, wire in CASES:
        kind = 1 if place.types[0] else 0
        # After the type, and after the length where there is one: each fits in one byte.
        body = wire[kind if place.version == UNFRAMED else kind + 1 :]
        here: list[tuple[int, bytes]] = []
        at = 0
        while match := re.compile(rb"[\x04-\x20]([a-z/.:?=0-9-]{4,})").search(body, at):
            at, size = match.start(), body[match.start()]
            if size <= len(match[1]):
                here.append((at, body[at + 1 : at + 1 + size]))
                at += size
            at += 1
        for at, old in here:
            others = sum(len(other) + 1 for _, other in here) - len(old) - 1 if place.version in TUPLES else 0
            text = Text(place, wire[:kind], body[:at], old, body[at + 1 + len(old) :], others)
            found.setdefault(str(text), text)
    return list(found.values())


TEXTS = _texts()
each_text = pytest.mark.parametrize("text", TEXTS, ids=str)
NEEDED = {Expect.ANNOUNCE_REQUEST, Expect.ANNOUNCE_REPLY, Expect.SUBSCRIBE}


def test_every_version_has_its_texts_here():
    """No version and no kind of message with a text is left out."""
    found = {(text.place.version, text.place.expect) for text in TEXTS}
    assert {(name, expect) for name in NAMES for expect in NEEDED} <= found
    for name in NAMES:
        expects = {expect for version, expect in found if version == name}
        places = {place.expect for place, _ in CASES if place.version == name}
        more = {Expect.FETCH, Expect.TRACK_REQUEST, Expect.GOAWAY, Expect.SETUP}
        assert expects & more == places & more
        if name in ("moq-lite-01", "moq-lite-02"):
            assert Expect.ANNOUNCE_FIRST_REPLY in expects


# -- one message ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", NOT_UTF8.values(), ids=NOT_UTF8.keys())
@each_text
def test_text_that_is_not_utf8_ends_the_session(text, raw):
    """Bytes that are no UTF-8 are Malformed: PROTOCOL_VIOLATION, and the error shows them as plain ASCII."""
    machine = text.place.machine()
    with pytest.raises(Malformed) as caught:
        machine.receive_data(text.message(raw), False)
    assert (caught.value.scope, caught.value.code) == ("session", VIOLATION)
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def texts_of(event: object) -> list[str]:
    """Return the texts of an event: what the application gets to see."""
    match event:
        case AnnouncementsRequested():
            return [event.request.prefix]
        case Announced():
            return [str(event.path)]
        case TrackAnnounced() | TrackInfoRequested():
            return [str(event.path), event.track]
        case SubscribeRequested() | FetchRequested():
            return [str(event.path), event.request.track]
        case Goaway():
            return [event.uri]
        case Setup():
            return [event.path or ""]
        case _:
            return []


def canonical(event: object) -> object:
    """Return an event with its path in place of what the peer wrote."""
    if isinstance(event, SubscribeRequested | FetchRequested):
        return attrs.evolve(event, request=attrs.evolve(event.request, broadcast=str(event.path)))
    return event


@pytest.mark.parametrize("new", OPAQUE.values(), ids=OPAQUE.keys())
@each_text
def test_text_is_opaque(text, new):
    """Control characters, escape sequences, dots and the like are read as they are, wherever a text is."""
    events, error = outcome(text.place.machine(), [text.message(new.encode())])
    assert error is None
    texts = [part for event in events for part in texts_of(event)]
    if text.before[:1] == b"\x00" and text.place.expect is Expect.ANNOUNCE_REPLY and not text.kind:
        assert texts == []  # the end of an announcement that does not exist
    else:
        assert any(new in part.split("/") or new == part for part in texts), texts


@each_text
def test_text_may_be_as_long_as_its_limit(text):
    """A text of the limit is read; one byte more is LimitExceeded with PROTOCOL_VIOLATION."""
    name, bound = text.limit
    _, error = outcome(text.place.machine(), [text.message(b"x" * (bound - text.others))])
    assert error is None
    machine = text.place.machine()
    with pytest.raises(LimitExceeded) as caught:
        machine.receive_data(text.message(b"x" * (bound + 1)), False)
    assert (caught.value.limit, caught.value.scope, caught.value.code) == (name, "session", VIOLATION)


PATHS = [text for text in TEXTS if text.limit[0] == "max_path"]


@pytest.mark.parametrize("text", [text for text in PATHS if text.place.version not in TUPLES], ids=str)
def test_a_path_has_32_parts_at_the_most(text):
    """33 parts are one too many, and end the session; slashes beside each other are not parts."""
    machine = text.place.machine()
    with pytest.raises(LimitExceeded) as caught:
        machine.receive_data(text.message(b"/".join([b"a"] * 33)), False)
    assert (caught.value.limit, caught.value.value, caught.value.scope) == ("max_path_parts", 33, "session")
    assert outcome(text.place.machine(), [text.message(b"a//" * 32)])[1] is None


@pytest.mark.parametrize("text", [text for text in PATHS if text.place.version not in TUPLES], ids=str)
def test_slashes_at_the_ends_and_doubled_mean_nothing(text):
    """`//a///b/` is `a/b`: known peers write both."""
    plain = outcome(text.place.machine(), [text.message(b"a/b")])
    slashes = outcome(text.place.machine(), [text.message(b"//a///b/")])
    assert plain[1] is slashes[1] is None
    if text.place.expect is Expect.ANNOUNCE_REQUEST:
        # The message has the prefix as it was written; it is held as one path.
        assert [texts_of(event) for event in slashes[0]] == [["//a///b/"]]
        assert plain[0][0].prefix == slashes[0][0].prefix
    else:
        assert [canonical(event) for event in plain[0]] == [canonical(event) for event in slashes[0]]


@pytest.mark.parametrize("part", [b"", b"a/b", b"/", b"/a"], ids=["empty", "slash inside", "slash", "slash in front"])
@pytest.mark.parametrize("text", [text for text in PATHS if text.place.version in TUPLES], ids=str)
def test_a_part_of_a_tuple_that_no_path_can_hold_is_refused(text, part):
    """An empty part, or one with a slash, breaks the stream: it cannot be encoded, and is never rewritten."""
    machine = text.place.machine()
    with pytest.raises(Malformed) as caught:
        machine.receive_data(text.message(part), False)
    assert (caught.value.scope, caught.value.code) == ("stream", UNROUTABLE)


@pytest.mark.parametrize("shake", [shake for shake in SHAKES if shake.by_client], ids=str)
def test_a_path_in_a_handshake_is_text(shake):
    """The request path of a handshake is UTF-8 of a bounded length; otherwise there is no session."""
    body = shake.body[: 1 + 8 * shake.body[0]]
    for value, good in ((b"/a\x1b[31m\n", True), (b"\xff", False), (b"/" * 9000, False), (b"/" + b"a" * 8191, True)):
        parameters = b"\x01\x01" + encode(len(value)) + value
        size = len(body + parameters)
        wire = shake.framed(body + parameters) if size < 64 else None
        if wire is None:
            length = {"compat": size.to_bytes(2, "big"), "unframed": b""}.get(shake.form.value, encode(size))
            wire = shake.wire[: shake.head] + length + body + parameters
        events, error = outcome(shake.machine(), [wire])
        if good:
            assert error is None
            assert events[0].path == value.decode()
        else:
            assert (events, error) == ([], (Malformed, VIOLATION, "session"))


# -- a live session: what shows in its log ---------------------------------------------------------------------

UGLY = "".join(text for name, text in OPAQUE.items() if name not in ("dots", "dot"))


def check_log(caplog: pytest.LogCaptureFixture, count: int) -> None:
    """The library logged this many records, each on one line of plain ASCII."""
    records = [record for record in caplog.records if record.name.startswith("moqt_trio.")]
    assert len(records) == count
    for record in records:
        line = logging.Formatter("%(message)s").format(record)
        assert line.isascii()
        assert line.isprintable()


@each_version
async def test_a_refused_name_is_logged_on_one_line(name, caplog, autojump_clock):
    """A request for a broadcast and a track with ugly names is refused, and logged once, escaped."""
    caplog.set_level(logging.DEBUG, "moqt_trio")
    async with hostile_peer(name) as peer:
        stream = await peer.connection.open_bidi()
        request = m.Subscribe(0, f"{UGLY}/{UGLY}", UGLY)
        stream.write(peer.dialect.stream_type(StreamKind.SUBSCRIBE) + peer.dialect.encode(request))
        code = await code_of_reset(stream)
        assert code == peer.dialect.codes.to_wire("subscribe", moqt.StreamCode.NOT_FOUND)
        check_log(caplog, 1)
        assert "\\x1b[31m" in caplog.text
        await peer.check_alive()


@each_version
async def test_text_that_is_not_utf8_is_logged_on_one_line(name, caplog):
    """A name that is no UTF-8 ends the session with one line in the log, and one line of reason for the peer."""
    caplog.set_level(logging.DEBUG, "moqt_trio")
    async with hostile_peer(name) as peer:
        text = next(text for text in TEXTS if (text.place.version, text.place.expect) == (name, Expect.SUBSCRIBE))
        stream = await peer.reach(text.place)
        stream.write(text.message(b"\x1b[31m\r\n\xff\x00"))
        await peer.check_closed(VIOLATION)
        reason = peer.connection.closed.reason
        assert reason
        assert reason.isascii()
        assert reason.isprintable()
    check_log(caplog, 1)


@each_version
async def test_announced_and_refused_names_reach_the_application_as_they_are(name, caplog, autojump_clock):
    """The application gets what the peer wrote; what it may print of it is one line."""
    caplog.set_level(logging.DEBUG, "moqt_trio")
    path = f"{UGLY}/{UGLY}"
    async with hostile_peer(name) as peer, peer.session.announcements() as announcements:
        stream = await accept_bidi(peer.connection)
        place = next(place for place, _ in CASES if place.version == name and place.expect is Expect.ANNOUNCE_REPLY)
        track = "/t" if name in TUPLES else ""
        stream.write(place.before + peer.dialect.encode(m.AnnounceStart(path + track)))
        with trio.fail_after(10):
            announcement = await announcements.receive()
        assert str(announcement.path) == path
        assert repr(announcement).isprintable()
        async with peer.session.subscribe(announcement.path, UGLY) as subscription:
            with trio.fail_after(10):
                asked = await accept_bidi(peer.connection)
                if peer.dialect.features.track_info:
                    asked = await accept_bidi(peer.connection)
            assert UGLY.encode() in await asked.receive_some()
            asked.reset(peer.dialect.codes.to_wire("subscribe", moqt.StreamCode.NOT_FOUND))
            with trio.fail_after(10), pytest.raises(moqt.NotFound) as caught:
                await subscription.receive()
            assert (caught.value.path, caught.value.track) == (path, UGLY)
            assert str(caught.value).isascii()
            assert str(caught.value).isprintable()
            assert repr(subscription).isprintable()
    check_log(caplog, 0)


@each_version
async def test_a_reason_for_closing_is_shown_on_one_line(name, caplog):
    """The peer's reason is escaped and cut before the application gets it."""
    caplog.set_level(logging.DEBUG, "moqt_trio")
    async with hostile_peer(name) as peer:
        peer.connection.close(7, UGLY * 10)
        error = await peer.session.wait_closed()
        assert error.remote_code == 7
        for shown in (str(error), error.reason):
            assert shown.isascii()
            assert shown.isprintable()
        assert len(error.reason) <= 256
    check_log(caplog, 0)
