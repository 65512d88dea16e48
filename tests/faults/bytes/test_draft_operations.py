"""Random operations on two sides of a session, on every draft: what `test_operations.py` does, with their machines.

A violation on any stream ends a session here, so a session may also end when a stream was finished in its middle.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.path import BroadcastPath
from moqt_trio.protocol.ietf.core import IetfCore
from moqt_trio.protocol.ietf.events import ReplyStarted
from moqt_trio.protocol.ietf.fetch import FetchRequester, FetchResponder, ReplyReceiver, ReplySender
from moqt_trio.protocol.ietf.namespaces import NamespaceResponder
from moqt_trio.protocol.ietf.publish import PublishResponder
from moqt_trio.protocol.ietf.subgroup import SubgroupReceiver, SubgroupSender
from moqt_trio.protocol.ietf.subscribe import SubscribeRequester, SubscribeResponder
from moqt_trio.protocol.ietf.track_status import TrackStatusResponder
from moqt_trio.protocol.ietf.tracks import TracksResponder
from moqt_trio.protocol.machine import StreamMachine
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.ietf.drafts import IetfDialect
from moqt_trio.wire.messages import Setup, SubscribeOk, TrackInfo
from tests.faults.bytes.test_operations import Operations, Stream, frames, numbers, optional, paths, tracks
from tests.faults.dialects import LIMITS
from tests.faults.drafts import NAMES, DraftWire, everything

if TYPE_CHECKING:
    from moqt_trio.protocol.events import Event
    from moqt_trio.wire.ietf.fetched_frames import FetchedFrames

STREAMS = [name for name in NAMES if not DraftWire(name).shared]
REQUESTS = (NamespaceResponder, FetchResponder, TracksResponder, TrackStatusResponder)
"""What has one of `max_requests`."""
places = st.tuples(numbers, numbers)


class DraftOperations(Operations):
    """Two cores of one draft."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.known = everything(name)

    def _connect(self) -> None:
        limits = attrs.evolve(LIMITS, max_subscriptions=4, max_requests=4, max_announcements=3)
        dialect = dialects.get(self.dialect.name)
        assert isinstance(dialect, IetfDialect)
        self.cores = tuple(IetfCore(dialect, is_client=side == 0, setup=Setup(), limits=limits) for side in (0, 1))
        self.streams: list[Stream] = []
        self.controls: list[Stream] = []
        self.decoders: dict[tuple[int, int], FetchedFrames] = {}
        self.changed = False
        self.over = False
        for side in (0, 1):
            opening = self.cores[side].setup_stream()
            assert opening is not None
            control = self._accepted(side, StreamMachine(), bidi=False)
            self.controls.append(control)
            self._add(control, side, opening)

    def _may_end_session(self, machine: StreamMachine) -> bool:
        return self.changed

    def _handle(self, stream: Stream, side: int, event: Event) -> None:
        super()._handle(stream, side, event)
        if isinstance(event, ReplyStarted):
            machine = stream.machine(side)
            assert isinstance(machine, ReplyReceiver)
            assert machine.frames is not None
            self.decoders[id(stream), side] = machine.frames
            self._decode(stream, side, machine.rest)
        elif isinstance(event, SubscribeOk):
            requester = stream.machine(side)
            assert isinstance(requester, SubscribeRequester)
            for parked in self.cores[side].parked(requester.subscribe_id):
                waiting = next(item for item in self.streams if item.machine(side) is parked)
                fin = waiting.halves[1 - side].over
                self._feed(waiting, side, lambda machine, fin=fin: machine.receive_data(b"", fin))

    def _deliver(self, stream: Stream, sender: int, size: int) -> None:
        half = stream.halves[sender]
        if (id(stream), 1 - sender) in self.decoders and not isinstance(half.end, int):
            piece, half.data = half.data[:size], half.data[size:]
            half.over = half.end is not None and not half.data
            self._decode(stream, 1 - sender, piece)
        else:
            super()._deliver(stream, sender, size)

    def _decode(self, stream: Stream, side: int, data: bytes) -> None:
        """Read the objects of a reply."""
        found: list = []
        try:
            self.decoders[id(stream), side].feed_untrusted(data, found, [])
        except RemoteProtocolError as error:
            self._end(stream, 1 - side, error.code)
            self.over |= error.scope == "session"
        assert not self.over or self.changed
        assert all(frame.group is not None for frame in found)

    def _act_on(self, side: int, machine: StreamMachine) -> None:
        """Open a unidirectional stream with a machine of this side."""
        self._add(self._accepted(side, machine, bidi=False), side, machine.opening)

    # -- calls of a core -------------------------------------------------------------------------------------

    @Operations.alive
    @rule(side=Operations.sides, what=st.integers(0, 8), data=st.data())
    def request(self, side: int, what: int, data: st.DataObject) -> None:
        """Make a request, perhaps one that no draft can carry; then nothing has changed."""
        core, draw, before = self.cores[side], data.draw, self._held()
        ranges = {
            "priority": numbers | st.sampled_from([255, 256]),
            "ordered": st.none() | st.booleans(),
            "forward": st.booleans(),
            "delivery_timeout_ms": numbers,
            "rendezvous_ms": numbers,
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
                    start, (group, frame) = draw(places), draw(st.tuples(numbers, optional))
                    machine = core.fetch_range(
                        draw(paths),
                        draw(tracks),
                        start,
                        (group, frame),
                        priority=draw(numbers | st.just(200)),
                        descending=draw(st.booleans()),
                    )
                case 4:
                    picked = self._pick(data, (SubscribeRequester,))
                    if picked is None or picked[1] != side:
                        return
                    assert isinstance(picked[2], SubscribeRequester)
                    machine = picked[2].join(draw(numbers))
                case 5:
                    machine = core.request_tracks(draw(paths))
                case 6:
                    machine = core.request_track_info(draw(paths), draw(tracks))
                case 7:
                    path = BroadcastPath.parse(draw(st.sampled_from(["a", "a/b", "c"])))
                    newest = draw(st.none() | places)
                    machine = core.offer(path, draw(tracks), forward=draw(st.booleans()), newest=newest)
                case _:
                    self._write(self.controls[side], side, core.goaway(draw(tracks)).opening)
                    return
        except LocalProtocolError:
            assert self._held() == before
            return
        self._add(self._accepted(side, machine, bidi=True), side, machine.opening)

    @Operations.alive
    @rule(side=Operations.sides, subscribe_id=st.integers(0, 3), sequence=numbers, payload=st.binary(max_size=1300))
    def datagram(self, side: int, subscribe_id: int, sequence: int, payload: bytes) -> None:
        """Send a datagram, or bytes that are none: those break the session, or are dropped."""
        made = False
        with suppress(LocalProtocolError):
            payload = self.cores[side].datagram(subscribe_id, sequence, 5, payload)
            made = True
        try:
            event = self.cores[1 - side].receive_datagram(payload)
        except RemoteProtocolError as error:
            self.over |= error.scope == "session"
            event = None
        assert not (made and self.over)
        assert event is None or event.subscribe_id in self.cores[1 - side]._state.issued

    # -- calls of a machine ----------------------------------------------------------------------------------

    @Operations.alive
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        """Answer any request, in or out of turn."""
        picked = self._pick(data, (*REQUESTS, SubscribeResponder, PublishResponder, SubgroupSender, ReplySender))
        if picked is None:
            return
        stream, side, machine = picked
        draw = data.draw

        def begin_reply() -> bytes:
            assert isinstance(machine, SubscribeResponder | FetchResponder)
            if isinstance(machine, FetchResponder) or machine.request is not None:
                self._act_on(side, machine.reply(descending=draw(st.booleans()), priority=draw(st.integers(0, 255))))
            return b""

        calls: list[Callable[[], bytes | None]]
        match machine:
            case NamespaceResponder():
                path = draw(paths)
                calls = [
                    lambda: machine.accept([(path, (), 0, 0)] * draw(st.integers(0, 2))),
                    lambda: machine.announce(path),
                    lambda: machine.unannounce(path),
                ]
            case TracksResponder():
                # What is blocked is below the prefix, and the request was accepted: the session sees to that.
                calls = [machine.accept]
            case TrackStatusResponder():
                info = TrackInfo(draw(numbers), None, draw(numbers), draw(numbers))
                calls = [lambda: machine.reply(info, draw(st.none() | places))]
            case PublishResponder():
                calls = [
                    machine.accept,
                    lambda: machine.refuse(draw(st.integers(0, 70))),
                    machine.take_update,
                    lambda: machine.update(forward=draw(st.booleans()), priority=draw(numbers)),
                ]
            case SubscribeResponder():
                calls = [
                    lambda: machine.accept(None, newest=draw(st.none() | places)),
                    lambda: machine.end(draw(numbers)),
                    machine.answer_updates,
                    machine.finish,
                    begin_reply,
                ]
            case FetchResponder():
                calls = [
                    lambda: machine.accept(draw(places), end_of_track=draw(st.booleans())),
                    machine.answer_updates,
                    machine.refuse_range,
                    machine.refuse_join,
                    machine.finish,
                    begin_reply,
                ]
            case SubgroupSender():
                calls = [lambda: machine.frames(draw(frames))]
            case ReplySender():
                calls = [
                    lambda: machine.frames(draw(numbers), draw(numbers), draw(frames)),
                    lambda: machine.lost(draw(numbers), draw(numbers)),
                ]
            case _:
                raise AssertionError(machine)
        self._act(stream, side, draw(st.sampled_from(calls)))

    @Operations.alive
    @rule(data=st.data(), number=numbers)
    def update(self, data: st.DataObject, number: int) -> None:
        """Change a request of this side."""
        picked = self._pick(data, (SubscribeRequester, FetchRequester))
        if picked is None:
            return
        stream, side, machine = picked
        if isinstance(machine, SubscribeRequester):
            field = data.draw(st.sampled_from(["priority", "max_age_ms", "start_group", "end_group", "end_frame", ""]))
            change = {field: number} if field else {"forward": bool(number % 2)}
            self._act(stream, side, lambda: machine.update(**change))
        else:
            assert isinstance(machine, FetchRequester)
            self._act(stream, side, lambda: machine.update(number))

    # -- what happens to streams -----------------------------------------------------------------------------

    @Operations.alive
    @rule(data=st.data(), side=Operations.sides, how=st.sampled_from(["fin", "reset", "stop", "release", "cancel"]))
    def end(self, data: st.DataObject, side: int, how: str) -> None:
        """End a half of a stream, refuse one, or release it, in any state. A control stream lives with its session."""
        streams = [stream for stream in self.streams if stream not in self.controls]
        if not streams:
            return
        stream = data.draw(st.sampled_from(streams))
        if how == "stop":
            self._feed(stream, side, lambda machine: machine.receive_stop(3))
            self._end(stream, side, 3)
        elif how == "release":
            self._release(stream, side)
        else:
            # A FIN within an answer, or in place of one, breaks the session.
            self.changed |= how == "fin"
            self._end(stream, side, "fin" if how == "fin" else 3)
            if how == "cancel":
                self._release(stream, side)

    # -- what holds ------------------------------------------------------------------------------------------

    @invariant()
    def what_is_held_belongs_to_a_stream(self) -> None:
        """Ids, aliases, places and parked streams are held by exactly the streams that are not released."""
        for side, held in enumerate(self._held()):
            live = [stream.machine(side) for stream in self.streams if not stream.released[side]]
            assert held == (
                sum(isinstance(machine, SubscribeRequester) and machine.subscribe_id >= 0 for machine in live),
                sum(isinstance(machine, SubscribeResponder) and machine.request is not None for machine in live),
                sum(isinstance(machine, REQUESTS) for machine in live),
            )
            state = self.cores[side]._state
            subscriptions = {machine.subscribe_id for machine in live if isinstance(machine, SubscribeRequester)}
            fetches = {machine.request_id for machine in live if isinstance(machine, FetchRequester)}
            assert set(state.aliases._subscriptions.values()) <= subscriptions
            assert state.replies.keys() <= subscriptions | fetches
            parked = [machine for machine in live if isinstance(machine, SubgroupReceiver) and machine.parked]
            assert state.aliases._parked_count == sum(map(len, state.aliases.parked.values())) == len(parked)
            assert all(not machine._closed for machine in state.parked_replies.values())
            assert state.streams_opened.keys() <= {
                machine.request.subscribe_id
                for machine in live
                if isinstance(machine, SubscribeResponder) and machine.request is not None
            }
            assert repr(self.cores[side])

    def teardown(self) -> None:
        """Once every stream is released, nothing is left."""
        super().teardown()
        for core in self.cores:
            state = core._state
            assert (state.replies, state.parked_replies, state.streams_opened) == ({}, {}, {})
            assert (state.aliases.parked, state.aliases._parked_count, state.aliases._subscriptions) == ({}, 0, {})


@pytest.mark.parametrize("name", STREAMS)
def test_random_operations_leave_nothing_and_raise_nothing_undocumented(name):
    """Any operations in any order, with any bytes between the sides: documented errors, and nothing is lost or left."""
    run_state_machine_as_test(
        lambda: DraftOperations(name),
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
