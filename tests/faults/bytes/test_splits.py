"""However a stream is cut, down to one byte at a time, the same is read, in every version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moqt_trio.protocol.core import SessionCore
from moqt_trio.protocol.handshake import ClientHandshake, ServerHandshake
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import ProbeLevel, Setup, StreamKind, TrackInfo
from tests.faults.dialects import CASES, DEVELOP, LIMITS, NAMES, SHAKES, TIMED, case_id, outcome, vectors
from tests.protocol.harness import has_streams, merged
from tests.wire.strict import Frame, encode

if TYPE_CHECKING:
    from moqt_trio.protocol.events import Event
    from moqt_trio.protocol.machine import StreamMachine

quick = settings(derandomize=True, deadline=None, database=None, max_examples=50)
each_version = pytest.mark.parametrize("name", NAMES)

Cut = Callable[[bytes], Iterable[bytes]]


def whole(data: bytes) -> list[bytes]:
    """Leave a stream in one piece."""
    return [data]


def by_bytes(data: bytes) -> list[bytes]:
    """Cut a stream into its bytes, with an empty piece after each."""
    return [piece for byte in data for piece in (bytes((byte,)), b"")]


def by_steps(steps: Sequence[int]) -> Cut:
    """Return what cuts a stream into pieces of these sizes, over and over."""

    def cut(data: bytes) -> list[bytes]:
        pieces, at, turn = [], 0, 0
        while at < len(data):
            pieces.append(data[at : at + steps[turn % len(steps)]])
            at += steps[turn % len(steps)]
            turn += 1
        return pieces

    return cut


cuts = st.lists(st.integers(1, 40), min_size=1, max_size=6).map(by_steps)

# -- one message ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("place", "wire"), CASES, ids=case_id)
def test_a_message_is_the_same_in_pieces(place, wire):
    """Every vector, twice in a row and cut between any two bytes, has the events that it has in one piece."""
    stream = wire + wire
    expected = outcome(place.machine(), [stream], fin=True)
    assert outcome(place.machine(), by_bytes(stream), fin=True) == expected
    for cut in range(1, len(stream)):
        assert outcome(place.machine(), [stream[:cut], stream[cut:]], fin=True) == expected


@pytest.mark.parametrize("shake", SHAKES, ids=str)
def test_a_handshake_is_the_same_in_pieces(shake):
    """So does every handshake, with a SESSION_UPDATE of its version after it."""
    stream = shake.wire + vectors(shake.version, "SESSION_UPDATE")[0]
    expected = outcome(shake.machine(), [stream], fin=True)
    assert expected[1] is None
    assert len(expected[0]) == 3
    assert outcome(shake.machine(), by_bytes(stream), fin=True) == expected
    for cut in range(1, len(stream)):
        assert outcome(shake.machine(), [stream[:cut], stream[cut:]], fin=True) == expected


@each_version
def test_a_mistake_is_the_same_in_pieces(name):
    """The events before a mistake are reported, and the mistake is the same one, wherever the stream is cut."""
    places = [(place, wire) for place, wire in CASES if place.version == name]

    @quick
    @given(st.sampled_from(places), st.data())
    def check(case, data):
        place, wire = case
        stream = bytearray(wire * 3)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(stream)))
            stream[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(min_size=1, max_size=3))
        changed = bytes(stream)
        expected = outcome(place.machine(), [changed], fin=True)
        assert outcome(place.machine(), by_bytes(changed), fin=True) == expected
        assert outcome(place.machine(), data.draw(cuts)(changed), fin=True) == expected

    check()


@each_version
def test_frames_in_front_of_a_broken_one_are_read_however_they_are_cut(name):
    """A group whose third frame is broken has two frames, whether it came in one piece or in many."""
    dialect = dialects.get(name)
    good = encode(dialect, [Frame(b"one", 5), Frame(b"two", 9)])
    bad = (b"\x00" if name in TIMED else b"") + b"\xff" * 8
    place = next(place for place, _ in CASES if place.version == name and not place.control)
    header = vectors(name, "GROUP")[0]
    expected = outcome(place.machine(), [header + good + bad])
    started, received = expected[0]
    assert [frame.payload for frame in received.frames] == [b"one", b"two"]
    assert expected[1] is not None
    assert outcome(place.machine(), by_bytes(header + good + bad)) == expected
    assert started.sequence == (0 if "lite" in name else 42)


# -- a whole conversation -------------------------------------------------------------------------------------


@attrs.define
class Conversation:
    """A client and a server of one version that send every message of the version; every stream passes a cut."""

    name: str
    cut: Cut
    heard: list[tuple[str, list[Event]]] = attrs.Factory(list)

    def tell(self, what: str, machine: StreamMachine, data: bytes, *, fin: bool = False) -> None:
        """Feed a stream's next bytes in pieces, and record their events."""
        events: list[Event] = []
        for piece in self.cut(data):
            events += machine.receive_data(piece, False)
        if fin:
            events += machine.receive_data(b"", True)
        self.heard.append((what, merged(events)))

    def run(self) -> list[tuple[str, list[Event]]]:
        """Return the events of each side, in order."""
        dialect = dialects.get(self.name)
        features = dialect.features
        setup = Setup(ProbeLevel.REPORT)
        client = SessionCore(dialect, is_client=True, hop_id=11, setup=setup)
        server = SessionCore(dialect, is_client=False, hop_id=77, setup=setup)
        if dialect.in_band:
            self._run_handshake(dialect)
        for side, other in ((client, server), (server, client)):
            opening = side.setup_stream()
            if opening is not None:
                self.tell("setup", other.accept_uni(), opening, fin=True)
        self._announce(client, server)
        self._subscribe(client, server)
        if has_streams(client.dialect.name, StreamKind.FETCH):
            request = client.fetch("live/cam", "video", 3)
            answer = server.accept_bidi()
            opening = request.opening + (request.update(9) if features.fetch_update else b"")
            self.tell("fetch", answer, opening)
            self.tell("fetched", request, answer.machine.frames(FRAMES), fin=True)
        if has_streams(client.dialect.name, StreamKind.TRACK):
            asked = client.request_track_info("live/cam", "video")
            answer = server.accept_bidi()
            self.tell("track", answer, asked.opening)
            self.tell("track info", asked, answer.machine.reply(TrackInfo(9, False, 70_000, 90_000)), fin=True)
        if features.probe != "none":
            probe = client.probe(1_000_000)
            answer = server.accept_bidi()
            self.tell("probe", answer, probe.opening + probe.update(70_000))
            self.tell("probed", probe, answer.machine.report(5, 6) + answer.machine.report(None, None), fin=True)
        if features.goaway:
            self.tell("goaway", client.accept_bidi(), server.goaway("https://b.example/x").opening, fin=True)
        return self.heard

    def _run_handshake(self, dialect: dialects.Dialect) -> None:
        ours = ClientHandshake((dialect,), LIMITS, form=dialect.handshakes[0], path="/a?b=c")
        theirs = ServerHandshake((dialect,), LIMITS, path_on_wire=True)
        self.tell("client", theirs, ours.opening)
        self.tell("server", ours, theirs.accept())
        self.tell("client's rate", theirs, ours.update(70_000) + ours.update(None), fin=True)
        self.tell("server's rate", ours, theirs.update(1), fin=True)

    def _announce(self, client: SessionCore, server: SessionCore) -> None:
        request = client.request_announcements("live")
        answer = server.accept_bidi()
        self.tell("announce request", answer, request.opening)
        publisher = answer.machine
        replies = publisher.accept([("live/cam/video", (3, 4), 1, 2), ("live/mic/audio", (), 0, 0)])
        replies += publisher.announce("live/" + "x" * 100, (9,) * (1 if self.name != "moq-lite-03" else 3))
        replies += publisher.announce("live/mic/audio", (5,), 7, 70_000) + publisher.unannounce("live/cam/video")
        self.tell("announcements", request, replies, fin=True)

    def _subscribe(self, client: SessionCore, server: SessionCore) -> None:
        features = client.dialect.features
        request = client.subscribe("live/cam", "video", priority=200)
        answer = server.accept_bidi()
        self.tell("subscribe", answer, request.opening + request.update(priority=3) + request.update(priority=255))
        publisher = answer.machine
        replies = publisher.accept(3, latest_group=4)
        if features.subscribe_drop:
            replies += publisher.drop(1, 2, 5)
        replies += publisher.end(90)
        for sequence in (3, 70_000, 2**62 - 1):
            group = server.group(request.subscribe_id, sequence)
            self.tell("group", client.accept_uni(), group.opening + group.frames(FRAMES), fin=True)
        self.tell("subscribe replies", request, replies, fin=True)


FRAMES = [Frame(b"", 5000), Frame(b"x" * 63, 4000), Frame(b"y" * 64, 4000), Frame(b"z" * 300, 2**60)]


@each_version
def test_a_conversation_is_the_same_one_byte_at_a_time(name):
    """A session with every message of its version has the same events in one piece and byte by byte."""
    heard = Conversation(name, whole).run()
    assert Conversation(name, by_bytes).run() == heard
    assert all(events for what, events in heard if what != "setup")


@each_version
def test_a_conversation_is_the_same_however_it_is_cut(name):
    """The same holds for any other cut."""
    heard = Conversation(name, whole).run()

    @quick
    @given(cuts)
    def check(cut):
        assert Conversation(name, cut).run() == heard

    check()


@pytest.mark.parametrize(
    ("place", "wire"), [case for case in CASES if case[0].version == DEVELOP and case[0].ours], ids=case_id
)
def test_zeros_between_messages_say_nothing_however_they_are_cut(place, wire):
    """gomoqt's develop writes zeros after some messages: they are skipped, in one piece and byte by byte."""
    padded = b"\x00" + wire + b"\x00\x00" + wire
    expected = outcome(place.machine(), [wire + wire])
    assert outcome(place.machine(), [padded]) == expected
    assert outcome(place.machine(), by_bytes(padded)) == expected
