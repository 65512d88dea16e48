"""Random operations on two sides of a session, in every version of the lite family; `test_draft_operations.py` has the
drafts.

Neither the caller nor the peer is correct: methods are called at any time, streams are ended anywhere, bytes on their
way are changed. The result is a documented error or nothing: no KeyError, no assertion, no id that stays in use.
`tests/protocol/test_pair.py` has two correct sides and a model of their events.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from fuzz.mutation import mutate
from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.protocol.announce import AnnounceResponder
from moqt_trio.protocol.core import IncomingStream, SessionCore
from moqt_trio.protocol.events import (
    AnnouncementsEnded,
    GroupFinished,
    GroupReset,
    RequestCancelled,
    RequestFinished,
    RequestRefused,
    SessionNegotiated,
)
from moqt_trio.protocol.fetch import FetchRequester, FetchResponder
from moqt_trio.protocol.group import GroupSender
from moqt_trio.protocol.handshake import ClientHandshake, HandshakeMachine, ServerHandshake
from moqt_trio.protocol.machine import StreamMachine
from moqt_trio.protocol.probe import ProbeRequester, ProbeResponder
from moqt_trio.protocol.subscribe import SubscribeRequester, SubscribeResponder
from moqt_trio.protocol.track import TrackInfoResponder
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.messages import ProbeLevel, Setup, TrackInfo
from tests.faults.dialects import LIMITS, MAX, NAMES, all_vectors
from tests.wire.strict import Frame

if TYPE_CHECKING:
    from moqt_trio.protocol.events import Event

REQUESTS = (AnnounceResponder, FetchResponder, TrackInfoResponder, ProbeResponder)

numbers = st.one_of(st.integers(-1, 5), st.sampled_from([MAX - 1, MAX, MAX + 1]))
paths = st.sampled_from(["", "a", "a/b", "a/b/c", "/", "a//b", ".a", "x" * 1100, "a/" * 40, "\x1b"])
tracks = st.sampled_from(["t", "", "a/b", "\0"])
hops = st.sampled_from([(), (0,), (5, 6), (11,), (77, 5), tuple(range(100, 140))])
stamps = st.sampled_from([None, 0, 7, 2**61 - 1, 2**61, MAX, MAX + 1])
frames = st.lists(st.builds(Frame, st.binary(max_size=40), stamps), max_size=3)
optional = st.none() | numbers


@attrs.define(eq=False)
class Half:
    """What one side has written on a stream and the other has not read; `end` is `"fin"` or a reset's code."""

    data: bytes = b""
    end: str | int | None = None
    over: bool = False


@attrs.define(eq=False)
class Stream:
    """A stream: the machine of each side, what each has written, and whether it was released."""

    machines: tuple[StreamMachine, StreamMachine]
    halves: tuple[Half, Half] = attrs.Factory(lambda: (Half(), Half()))
    released: list[bool] = attrs.Factory(lambda: [False, False])

    def machine(self, side: int) -> StreamMachine | None:
        found = self.machines[side]
        return found.machine if isinstance(found, IncomingStream) else found


class Operations(RuleBasedStateMachine):
    """Two cores of one version, the streams between them, and everything that can be done to them."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.dialect = dialects.get(name)
        self.known = all_vectors(name)
        self._connect()

    def _connect(self) -> None:
        setup = Setup(ProbeLevel.REPORT)
        limits = attrs.evolve(LIMITS, max_subscriptions=4, max_requests=4, max_announcements=3, max_unknown_groups=20)
        self.cores = tuple(
            SessionCore(self.dialect, is_client=side == 0, hop_id=(11, 77)[side], setup=setup, limits=limits)
            for side in (0, 1)
        )
        self.streams: list[Stream] = []
        self.changed = False  # bytes on their way were
        self.over = False  # a mistake has ended the session
        if self.dialect.in_band:
            offered = (self.dialect,)
            client = ClientHandshake(offered, LIMITS, form=self.dialect.handshakes[0], path="/a")
            server = ServerHandshake(offered, LIMITS, path_on_wire=True)
            self._add(Stream((client, server)), 0, client.opening)
        for side in (0, 1):
            opening = self.cores[side].setup_stream()
            if opening is not None:
                stream = self._accepted(side, StreamMachine(), bidi=False)
                self._add(stream, side, opening)
                stream.halves[side].end = "fin"

    # -- the driver ----------------------------------------------------------------------------------------

    def _accepted(self, side: int, machine: StreamMachine, *, bidi: bool) -> Stream:
        other = self.cores[1 - side]
        accepting = other.accept_bidi() if bidi else other.accept_uni()
        stream = Stream((machine, accepting) if side == 0 else (accepting, machine))
        if not bidi:
            stream.halves[1 - side].over = True
        return stream

    def _add(self, stream: Stream, side: int, data: bytes) -> None:
        self.streams.append(stream)
        self._write(stream, side, data)

    def _write(self, stream: Stream, side: int, data: bytes) -> None:
        if stream.halves[side].end is None:
            stream.halves[side].data += data

    def _release(self, stream: Stream, side: int) -> None:
        stream.machines[side].release()
        stream.released[side] = True

    def _end(self, stream: Stream, side: int, end: str | int) -> None:
        half = stream.halves[side]
        if half.end is None or (end != "fin" and not half.over):
            half.end = end
            if end != "fin":
                half.data = b""

    def _feed(self, stream: Stream, side: int, take: Callable[[StreamMachine], list[Event]]) -> None:
        """Makes a machine receive something; a mistake ends the stream or the session, by its scope."""
        machine = stream.machines[side]
        mistake: RemoteProtocolError | None = None
        events: list[Event] = []
        try:
            events = take(machine)
        except RemoteProtocolError as error:
            mistake = error
        if mistake is not None:
            assert not stream.released[side]
            assert mistake.scope == "stream" or self._may_end_session(machine), mistake
            for which in (side, 1 - side) if mistake.scope == "stream" else ():
                self._end(stream, which, mistake.code)
            self._release(stream, side)
            self.over |= mistake.scope == "session"
            assert machine.receive_data(b"\x01", True) == machine.receive_reset(1) == []
        assert not events or not stream.released[side]
        for event in events:
            assert repr(event)
            self._handle(stream, side, event)

    def _may_end_session(self, machine: StreamMachine) -> bool:
        """Return whether a mistake on a stream may break the session."""
        # The handshake's stream may be cut anywhere, and every mistake there ends the session.
        return self.changed or isinstance(machine, HandshakeMachine)

    def _handle(self, stream: Stream, side: int, event: Event) -> None:
        machine = stream.machines[side]
        if isinstance(event, SessionNegotiated) and isinstance(machine, ServerHandshake):
            self._write(stream, side, machine.accept())
        elif isinstance(event, RequestCancelled | RequestRefused | GroupReset):
            self._end(stream, side, 1)
            self._release(stream, side)
        elif isinstance(event, GroupFinished | RequestFinished | AnnouncementsEnded):
            self._end(stream, side, "fin")
            self._release(stream, side)

    def _deliver(self, stream: Stream, sender: int, size: int) -> None:
        half = stream.halves[sender]
        if isinstance(half.end, int):
            code, half.over = half.end, True
            self._feed(stream, 1 - sender, lambda machine: machine.receive_reset(code))
            return
        piece, half.data = half.data[:size], half.data[size:]
        half.over = half.end is not None and not half.data
        self._feed(stream, 1 - sender, lambda machine: machine.receive_data(piece, half.over))

    def _waiting(self) -> list[tuple[Stream, int]]:
        return [
            (stream, side)
            for stream in self.streams
            for side in (0, 1)
            if not stream.halves[side].over and (stream.halves[side].data or stream.halves[side].end is not None)
        ]

    def _pick(self, data: st.DataObject, kinds: tuple[type, ...]) -> tuple[Stream, int, StreamMachine] | None:
        found = [
            (stream, side)
            for stream in self.streams
            for side in (0, 1)
            if isinstance(stream.machine(side), kinds) and not stream.released[side]
        ]
        if not found:
            return None
        stream, side = data.draw(st.sampled_from(found))
        machine = stream.machine(side)
        assert machine is not None
        return stream, side, machine

    def _held(self) -> list[tuple[int, int, int]]:
        states = [core._state for core in self.cores]
        return [(len(state.issued), len(state.peers), state.requests.taken) for state in states]

    sides = st.integers(0, 1)
    alive = precondition(lambda self: not self.over)

    # -- calls of a core -------------------------------------------------------------------------------------

    @alive
    @rule(side=sides, what=st.integers(0, 5), data=st.data())
    def request(self, side: int, what: int, data: st.DataObject) -> None:
        """Make a request, perhaps one that no version can carry; then nothing has changed."""
        core, draw, before = self.cores[side], data.draw, self._held()
        ranges = {
            "priority": numbers | st.just(255),
            "ordered": st.none() | st.booleans(),
            "max_age_ms": numbers,
            "start_group": optional,
            "end_group": optional,
            "start_frame": numbers,
            "end_frame": optional,
        }
        try:
            match what:
                case 0:
                    machine: StreamMachine = core.request_announcements(draw(paths))
                case 1 | 2:
                    wanted = draw(st.fixed_dictionaries({}, optional=ranges)) if what == 2 else {}
                    machine = core.subscribe(draw(paths), draw(tracks), **wanted)
                case 3:
                    machine = core.fetch(
                        draw(paths), draw(tracks), draw(numbers), start_frame=draw(st.just(0) | numbers)
                    )
                case 4:
                    machine = core.request_track_info(draw(paths), draw(tracks))
                case _:
                    machine = core.probe(draw(optional)) if draw(st.booleans()) else core.goaway(draw(tracks))
        except LocalProtocolError:
            assert self._held() == before
            return
        self._add(self._accepted(side, machine, bidi=True), side, machine.opening)

    @alive
    @rule(side=sides, subscribe_id=st.integers(0, 3), sequence=numbers, start=st.just(0) | numbers, content=frames)
    def group(self, side: int, subscribe_id: int, sequence: int, start: int, content: list[Frame]) -> None:
        """Open a group for a subscription that may exist, and write frames that the version may be able to carry."""
        try:
            machine = self.cores[side].group(subscribe_id, sequence, start)
        except LocalProtocolError:
            return
        stream = self._accepted(side, machine, bidi=False)
        self._add(stream, side, machine.opening)
        self._act(stream, side, lambda: machine.frames(content))

    @alive
    @rule(side=sides, subscribe_id=st.integers(0, 3), sequence=numbers, payload=st.binary(max_size=1300))
    def datagram(self, side: int, subscribe_id: int, sequence: int, payload: bytes) -> None:
        """Send a datagram, or bytes that are none; it is delivered or dropped."""
        with suppress(LocalProtocolError):
            payload = self.cores[side].datagram(subscribe_id, sequence, 5, payload)
        event = self.cores[1 - side].receive_datagram(payload)
        assert event is None or event.subscribe_id in self.cores[1 - side]._state.issued

    # -- calls of a machine ----------------------------------------------------------------------------------

    def _act(self, stream: Stream, side: int, call: Callable[[], bytes | None]) -> None:
        try:
            data = call()
        except LocalProtocolError:
            return
        self._write(stream, side, data or b"")

    @alive
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        """Answer any request, in or out of turn."""
        picked = self._pick(data, (*REQUESTS, SubscribeResponder, GroupSender))
        if picked is None:
            return
        stream, side, machine = picked
        draw = data.draw
        calls: list[Callable[[], bytes | None]]
        match machine:
            case AnnounceResponder():
                route = (draw(paths), draw(hops), draw(numbers), draw(numbers))
                calls = [
                    lambda: machine.accept([route] * draw(st.integers(0, 2))),
                    lambda: machine.announce(*route),
                    lambda: machine.unannounce(route[0]),
                ]
            case SubscribeResponder():
                calls = [
                    lambda: machine.accept(draw(optional), latest_group=draw(optional)),
                    lambda: machine.end(draw(numbers)),
                    lambda: machine.drop(draw(numbers), draw(numbers), draw(st.integers(0, 70))),
                    machine.finish,
                ]
            case FetchResponder():
                calls = [lambda: machine.frames(draw(frames)), machine.finish]
            case TrackInfoResponder():
                calls = [lambda: machine.reply(TrackInfo(draw(numbers), None, draw(numbers), draw(numbers)))]
            case ProbeResponder():
                calls = [lambda: machine.report(draw(optional), draw(optional))]
            case GroupSender():
                calls = [lambda: machine.frames(draw(frames))]
            case _:
                raise AssertionError(machine)
        self._act(stream, side, draw(st.sampled_from(calls)))

    @alive
    @rule(data=st.data(), number=numbers)
    def update(self, data: st.DataObject, number: int) -> None:
        """Change a request of this side, or send the rate on the handshake's stream."""
        picked = self._pick(data, (SubscribeRequester, FetchRequester, ProbeRequester, HandshakeMachine))
        if picked is None:
            return
        stream, side, machine = picked
        if isinstance(machine, SubscribeRequester):
            field = data.draw(st.sampled_from(["priority", "max_age_ms", "start_group", "end_group", "end_frame"]))
            self._act(stream, side, lambda: machine.update(**{field: number}))
        else:
            assert isinstance(machine, FetchRequester | ProbeRequester | HandshakeMachine)
            self._act(stream, side, lambda: machine.update(number))

    # -- what happens to streams -----------------------------------------------------------------------------

    @alive
    @precondition(lambda self: self.streams)
    @rule(data=st.data(), side=sides, how=st.sampled_from(["fin", "reset", "stop", "release", "cancel"]))
    def end(self, data: st.DataObject, side: int, how: str) -> None:
        """End a half of a stream, refuse one, or release it, in any state."""
        stream = data.draw(st.sampled_from(self.streams))
        if how == "stop":
            self._feed(stream, side, lambda machine: machine.receive_stop(3))
            self._end(stream, side, 3)
        elif how == "release":
            self._release(stream, side)
        else:
            self._end(stream, side, "fin" if how == "fin" else 3)
            if how == "cancel":
                self._release(stream, side)

    @alive
    @precondition(lambda self: self._waiting())
    @rule(data=st.data(), seed=st.integers(0, 2**32))
    def change(self, data: st.DataObject, seed: int) -> None:
        """Change bytes on their way."""
        stream, side = data.draw(st.sampled_from(self._waiting()))
        stream.halves[side].data = mutate(stream.halves[side].data, self.known, random.Random(seed))
        self.changed = True

    @alive
    @precondition(lambda self: self._waiting())
    @rule(data=st.data(), size=st.integers(1, 60))
    def deliver(self, data: st.DataObject, size: int) -> None:
        """Deliver some bytes of a stream, or its end."""
        self._deliver(*data.draw(st.sampled_from(self._waiting())), size)

    @alive
    @rule()
    def deliver_all(self) -> None:
        """Deliver everything."""
        while not self.over and (waiting := self._waiting()):
            self._deliver(*waiting[0], 1 << 20)

    # -- what holds ------------------------------------------------------------------------------------------

    def _count(self, side: int, kinds: type | tuple[type, ...]) -> int:
        return sum(isinstance(s.machine(side), kinds) and not s.released[side] for s in self.streams)

    @precondition(lambda self: self.over)
    @rule()
    def reconnect(self) -> None:
        """After a mistake that ended the session, releases it and begins another."""
        self.teardown()
        self._connect()

    @invariant()
    def what_is_held_belongs_to_a_stream(self) -> None:
        """Ids and slots are held by exactly the streams that are not released."""
        for side, held in enumerate(self._held()):
            admitted = [s.machine(side) for s in self.streams if not s.released[side]]
            assert held == (
                self._count(side, SubscribeRequester),
                sum(isinstance(machine, SubscribeResponder) and machine.request is not None for machine in admitted),
                self._count(side, REQUESTS),
            )
            assert repr(self.cores[side])

    def teardown(self) -> None:
        """Once every stream is released, nothing is left, and a second release does nothing."""
        for _ in range(2):
            for stream in self.streams:
                for side in (0, 1):
                    self._release(stream, side)
        assert self._held() == [(0, 0, 0), (0, 0, 0)]


@pytest.mark.parametrize("name", NAMES)
def test_random_operations_leave_nothing_and_raise_nothing_undocumented(name):
    """Any operations in any order, with any bytes between the sides: documented errors, and no id or slot is lost."""
    run_state_machine_as_test(
        lambda: Operations(name),
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
