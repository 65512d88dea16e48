"""Two cores that are connected: random operations, random cuts, cancellation everywhere, and a model of the outcome.

Streams are queues in memory. Each keeps its own order and none waits for another, so everything that QUIC may
reorder is reordered here. The only error that two correct sides may see is the refusal of a group that was late.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from moqt_trio.codes import StreamCode
from moqt_trio.errors import RemoteProtocolError
from moqt_trio.protocol import events
from moqt_trio.protocol.announce import AnnounceRequester, AnnounceResponder
from moqt_trio.protocol.core import IncomingBidi, IncomingUni
from moqt_trio.protocol.fetch import FetchRequester, FetchResponder
from moqt_trio.protocol.goaway import GoawaySender
from moqt_trio.protocol.group import GroupReceiver, GroupSender
from moqt_trio.protocol.machine import StreamMachine
from moqt_trio.protocol.probe import ProbeRequester, ProbeResponder
from moqt_trio.protocol.subscribe import SubscribeRequester, SubscribeResponder
from moqt_trio.protocol.track import TrackInfoResponder
from moqt_trio.wire.messages import ProbeLevel, Setup, TrackInfo
from tests.protocol.harness import NAMES, NEW, core
from tests.wire.strict import Frame

if TYPE_CHECKING:
    from moqt_trio.path import BroadcastPath
    from moqt_trio.protocol.core import SessionCore

HOPS = (11, 77)  # of the client and of the server
REQUESTS = (AnnounceResponder, FetchResponder, TrackInfoResponder, ProbeResponder)


@attrs.define(eq=False)
class Half:
    """What one side has written on a stream and the other has not read."""

    data: bytearray = attrs.Factory(bytearray)
    fin: bool = False
    reset: int | None = None
    over: bool = False  # its end was delivered

    @property
    def open(self) -> bool:
        return not self.fin and self.reset is None

    @property
    def waiting(self) -> bool:
        return not self.over and (bool(self.data) or self.fin or self.reset is not None)


@attrs.define(eq=False)
class Stream:
    """One stream: a machine on each side, a half from each side, and what the test expects of it."""

    opener: int
    machines: list[StreamMachine]
    halves: list[Half] = attrs.Factory(lambda: [Half(), Half()])
    stops: list[int | None] = attrs.Factory(lambda: [None, None])  # that this side has not received yet
    released: list[bool] = attrs.Factory(lambda: [False, False])
    sent: list[Frame] = attrs.Factory(list)
    received: list[Frame] = attrs.Factory(list)
    events: dict[type, list[object]] = attrs.Factory(lambda: defaultdict(list))
    offered: dict[BroadcastPath, bool] = attrs.Factory(
        dict
    )  # what the publisher announced, and whether it is visible to the peer
    seen: set[BroadcastPath] = attrs.Factory(set)
    accepted: bool = False
    answered: bool = False

    def machine(self, side: int) -> StreamMachine | None:
        found = self.machines[side]
        return found.machine if isinstance(found, IncomingBidi | IncomingUni) else found

    def write(self, side: int, data: bytes, *, fin: bool = False) -> None:
        half = self.halves[side]
        if half.open:
            half.data += data
            half.fin = fin


class Pair(RuleBasedStateMachine):
    """Drives a client's and a server's core against each other."""

    @initialize(name=st.sampled_from(NAMES))
    def start(self, name: str) -> None:
        self.name = name
        self.cores: list[SessionCore] = [
            core(name, is_client=side == 0, hop_id=HOPS[side], setup=Setup(ProbeLevel.REPORT)) for side in (0, 1)
        ]
        self.streams: list[Stream] = []
        self.issued = [0, 0]
        for side in (0, 1):
            setup = self.cores[side].setup_stream()
            if setup is not None:
                self._open(side, StreamMachine(), bidi=False).write(side, setup, fin=True)

    # -- the driver ----------------------------------------------------------------------------------------

    def _open(self, side: int, machine: StreamMachine, *, bidi: bool = True) -> Stream:
        other = self.cores[1 - side]
        accepting = other.accept_bidi() if bidi else other.accept_uni()
        stream = Stream(side, [machine, accepting] if side == 0 else [accepting, machine])
        if not bidi:
            stream.halves[1 - side] = Half(fin=True, over=True)
        stream.write(side, machine.opening)
        self.streams.append(stream)
        return stream

    def _release(self, stream: Stream, side: int) -> None:
        stream.machines[side].release()
        stream.released[side] = True

    def _give_up(self, stream: Stream, side: int, code: int) -> None:
        """Resets what this side sends, stops what it receives, and releases the machine."""
        self._reset(stream, side, code)
        if stream.halves[1 - side].open:
            stream.stops[1 - side] = code
        self._release(stream, side)

    def _reset(self, stream: Stream, side: int, code: int) -> None:
        half = stream.halves[side]
        if not half.over and half.reset is None:
            half.reset = code
            half.data.clear()

    def _deliver(self, stream: Stream, sender: int, size: int) -> None:
        half, side = stream.halves[sender], 1 - sender
        machine = stream.machines[side]
        if half.reset is not None:
            half.over = True
            happened = machine.receive_reset(half.reset)
        else:
            piece = bytes(half.data[:size])
            del half.data[:size]
            half.over = half.fin and not half.data
            try:
                happened = machine.receive_data(piece, half.over)
            except RemoteProtocolError as error:
                # A group for a subscription that was released while the group was on its way.
                if not isinstance(stream.machine(side), GroupReceiver) or error.code != StreamCode.CANCELLED:
                    raise
                self._give_up(stream, side, error.code)
                return
        assert not happened or not stream.released[side]
        for event in happened:
            self._on_event(stream, side, event)

    def _deliver_stop(self, stream: Stream, side: int) -> None:
        code = stream.stops[side]
        assert code is not None
        stream.stops[side] = None
        happened = stream.machines[side].receive_stop(code)
        assert not happened or not stream.released[side]
        self._reset(stream, side, code)
        for event in happened:
            self._on_event(stream, side, event)

    def _on_event(self, stream: Stream, side: int, event: events.Event) -> None:
        stream.events[type(event)].append(event)
        match event:
            case events.Announced():
                assert event.updated is (event.path in stream.seen)
                stream.seen.add(event.path)
            case events.Unannounced():
                stream.seen.remove(event.path)
            case events.FramesReceived():
                stream.received += event.frames
                assert stream.received == stream.sent[: len(stream.received)]
            case events.GroupFinished():
                assert stream.received == stream.sent
                self._release(stream, side)
            case events.RequestCancelled() | events.RequestRefused() | events.GroupReset():
                assert len(stream.events[type(event)]) == 1
                self._give_up(stream, side, StreamCode.CANCELLED)
            case events.AnnouncementsEnded():
                stream.seen.clear()
                stream.write(side, b"", fin=True)
                self._release(stream, side)

    def _of(self, kind: type, *, live: bool = True) -> list[tuple[Stream, int]]:
        return [
            (stream, side)
            for stream in self.streams
            for side in (0, 1)
            if isinstance(stream.machine(side), kind) and not (live and stream.released[side])
        ]

    def _pick(self, data: st.DataObject, kind: type) -> tuple[Stream, int, StreamMachine] | None:
        found = self._of(kind)
        if not found:
            return None
        stream, side = data.draw(st.sampled_from(found), label=kind.__name__)
        machine = stream.machine(side)
        assert machine is not None
        return stream, side, machine

    # -- requests ------------------------------------------------------------------------------------------

    sides = st.integers(0, 1)
    suffixes = st.sampled_from(["", "a", "a/b", "ab", "a/.b"])

    @rule(side=sides, prefix=st.sampled_from(["", "a", "a/b", ".a"]))
    def request_announcements(self, side: int, prefix: str) -> None:
        self._open(side, self.cores[side].request_announcements(prefix))

    @rule(side=sides, priority=st.integers(0, 255))
    def subscribe(self, side: int, priority: int) -> None:
        machine = self.cores[side].subscribe("a/b", "t", priority=priority)
        assert machine.subscribe_id == self.issued[side]
        self.issued[side] += 1
        self._open(side, machine)

    @rule(side=sides, kind=st.sampled_from(["fetch", "track info", "probe", "goaway"]), bitrate=st.none() | st.just(7))
    def request_something_else(self, side: int, kind: str, bitrate: int | None) -> None:
        this = self.cores[side]
        if kind == "fetch":
            self._open(side, this.fetch("a/b", "t", 3))
        elif kind == "track info" and self.name in NEW:
            self._open(side, this.request_track_info("a/b", "t"))
        elif kind == "probe" and (self.name not in NEW or this.peer_setup is not None):
            self._open(side, this.probe(bitrate))
        elif (
            kind == "goaway"
            and self.name != "moq-lite-03"
            and not any(isinstance(stream.machines[side], GoawaySender) for stream in self.streams)
        ):
            self._open(side, this.goaway("" if side == 0 else "https://b.example/"))

    # -- what goes on ---------------------------------------------------------------------------------------

    @rule(data=st.data())
    def update(self, data: st.DataObject) -> None:
        if picked := self._pick(data, SubscribeRequester):
            stream, side, machine = picked
            changes = data.draw(
                st.fixed_dictionaries({}, optional={"priority": st.integers(0, 255), "end_group": st.integers(0, 9)})
            )
            stream.write(side, machine.update(**changes))

    @rule(data=st.data(), bitrate=st.none() | st.integers(1, 1000))
    def probe_target(self, data: st.DataObject, bitrate: int | None) -> None:
        if picked := self._pick(data, ProbeRequester):
            stream, side, machine = picked
            stream.write(side, machine.update(bitrate))

    @rule(data=st.data(), hops=st.sampled_from([(), (5,), (5, 11), (77,)]), suffix=suffixes)
    def announce(self, data: st.DataObject, hops: tuple[int, ...], suffix: str) -> None:
        if picked := self._pick(data, AnnounceResponder):
            stream, side, machine = picked
            if not stream.events[events.AnnouncementsRequested]:
                return
            path = machine.prefix.join(suffix)
            hidden = "." in suffix
            # moq-lite-03 names no hops, so only the publisher itself can detect a loop.
            unseen = {HOPS[side]} if self.name == "moq-lite-03" else set(HOPS)
            visible = not hidden and not unseen & set(hops)
            if stream.accepted:
                stream.write(side, machine.announce(path, hops))
            else:
                stream.write(side, machine.accept([(path, hops, 0, 0)]))
                stream.accepted = True
            stream.offered[path] = visible

    @rule(data=st.data())
    def unannounce(self, data: st.DataObject) -> None:
        if picked := self._pick(data, AnnounceResponder):
            stream, side, machine = picked
            if stream.offered:
                path = data.draw(st.sampled_from(sorted(stream.offered)))
                del stream.offered[path]
                stream.write(side, machine.unannounce(path))

    @rule(data=st.data(), reply=st.sampled_from(["accept", "drop", "end", "finish"]))
    def answer_subscription(self, data: st.DataObject, reply: str) -> None:
        if picked := self._pick(data, SubscribeResponder):
            stream, side, machine = picked
            if machine.request is None or stream.answered:
                return
            if reply == "accept" and not machine.accepted:
                stream.write(side, machine.accept(3))
            elif reply == "drop" and machine.accepted:
                stream.write(side, machine.drop(1, 2, 5))
            elif reply in ("end", "finish") and (machine.accepted or self.name in NEW):
                stream.answered = True
                stream.write(side, machine.end(9), fin=True)
                if reply == "finish":
                    machine.finish()

    frame_lists = st.lists(st.tuples(st.binary(max_size=70), st.integers(0, (1 << 61) - 1)), max_size=3)

    def _send(self, stream: Stream, side: int, frames: list[tuple[bytes, int]], *, fin: bool) -> None:
        machine = stream.machine(side)
        assert isinstance(machine, GroupSender | FetchResponder)
        sent = [Frame(payload, timestamp if self.name in NEW else None) for payload, timestamp in frames]
        stream.write(side, machine.frames(sent), fin=fin)
        stream.sent += sent

    @rule(data=st.data(), sequence=st.integers(0, 5), frames=frame_lists, fin=st.booleans())
    def open_group(self, data: st.DataObject, sequence: int, frames: list[tuple[bytes, int]], fin: bool) -> None:
        if (picked := self._pick(data, SubscribeResponder)) and picked[2].request is not None:
            _, side, machine = picked
            sender = self.cores[side].group(machine.request.subscribe_id, sequence)
            self._send(self._open(side, sender, bidi=False), side, frames, fin=fin)

    @rule(data=st.data(), frames=frame_lists, fin=st.booleans())
    def send_frames(self, data: st.DataObject, frames: list[tuple[bytes, int]], fin: bool) -> None:
        if (picked := self._pick(data, GroupSender)) and picked[0].halves[picked[1]].open:
            self._send(picked[0], picked[1], frames, fin=fin)

    @rule(data=st.data(), frames=frame_lists, fin=st.booleans())
    def answer_fetch(self, data: st.DataObject, frames: list[tuple[bytes, int]], fin: bool) -> None:
        if picked := self._pick(data, FetchResponder):
            stream, side, machine = picked
            if machine.request is not None and stream.halves[side].open:
                self._send(stream, side, frames, fin=fin)
                if fin:
                    machine.finish()

    @rule(data=st.data())
    def answer_track_info(self, data: st.DataObject) -> None:
        if picked := self._pick(data, TrackInfoResponder):
            stream, side, machine = picked
            if not stream.answered and stream.events[events.TrackInfoRequested]:
                stream.answered = True
                stream.write(side, machine.reply(TrackInfo(3, False, 7, 1000)), fin=True)

    @rule(data=st.data())
    def answer_probe(self, data: st.DataObject) -> None:
        if picked := self._pick(data, ProbeResponder):
            stream, side, machine = picked
            stream.write(side, machine.report(1000, 5))

    # -- ends -----------------------------------------------------------------------------------------------

    publishers = (
        AnnounceResponder,
        SubscribeResponder,
        FetchResponder,
        TrackInfoResponder,
        ProbeResponder,
        GroupSender,
    )
    subscribers = (AnnounceRequester, SubscribeRequester, FetchRequester, ProbeRequester, GroupReceiver)
    kinds = st.sampled_from(publishers + subscribers)

    @rule(data=st.data(), kind=kinds)
    def give_up(self, data: st.DataObject, kind: type) -> None:
        if picked := self._pick(data, kind):
            self._give_up(picked[0], picked[1], StreamCode.CANCELLED)

    @rule(data=st.data(), kind=st.sampled_from([AnnounceRequester, SubscribeRequester, FetchRequester, ProbeRequester]))
    def cancel_request(self, data: st.DataObject, kind: type) -> None:
        if picked := self._pick(data, kind):
            picked[0].write(picked[1], b"", fin=True)

    @rule(data=st.data())
    def finish_announcements(self, data: st.DataObject) -> None:
        if picked := self._pick(data, AnnounceResponder):
            stream, side, _ = picked
            if stream.accepted:
                stream.write(side, b"", fin=True)
                stream.offered.clear()
                self._release(stream, side)

    # -- delivery -------------------------------------------------------------------------------------------

    def _waiting(self) -> list[tuple[Stream, int, bool]]:
        found = [(s, side, False) for s in self.streams for side in (0, 1) if s.halves[side].waiting]
        return found + [(s, side, True) for s in self.streams for side in (0, 1) if s.stops[side] is not None]

    @precondition(lambda self: self._waiting())
    @rule(data=st.data(), size=st.integers(0, 100))
    def deliver(self, data: st.DataObject, size: int) -> None:
        stream, side, is_stop = data.draw(st.sampled_from(self._waiting()))
        if is_stop:
            self._deliver_stop(stream, side)
        else:
            self._deliver(stream, side, size)

    @rule(sizes=st.lists(st.integers(1, 100), min_size=5, max_size=20))
    def deliver_many(self, sizes: list[int]) -> None:
        for size, (stream, side, is_stop) in zip(sizes, self._waiting(), strict=False):
            if is_stop:
                self._deliver_stop(stream, side)
            elif stream.halves[side].waiting:
                self._deliver(stream, side, size)

    @rule()
    def settle(self) -> None:
        """Delivers everything; then the announcements of one side are those that the other side has."""
        while waiting := self._waiting():
            for stream, side, is_stop in waiting:
                if is_stop:
                    self._deliver_stop(stream, side)
                elif stream.halves[side].waiting:
                    self._deliver(stream, side, 1 << 20)
        for stream, side in self._of(AnnounceRequester):
            offered = {path for path, visible in stream.offered.items() if visible}
            if not stream.released[1 - side]:
                assert stream.seen == offered
        for stream, side in self._of(SubscribeResponder, live=False):
            updates = stream.events[events.SubscribeUpdate]
            subscriber = stream.machine(1 - side)
            if updates and stream.halves[1 - side].open and not stream.released[side]:
                assert isinstance(subscriber, SubscribeRequester)
                assert updates[-1] == subscriber._current
        assert all(core.dropped_datagrams == core._state.issued.unknown_groups == 0 for core in self.cores)

    @invariant()
    def nothing_is_held_for_streams_that_are_over(self) -> None:
        for side, this in enumerate(getattr(self, "cores", ())):
            state = this._state
            assert len(state.issued) == len([s for s, at in self._of(SubscribeRequester) if at == side])
            admitted = [s for s, at in self._of(SubscribeResponder) if at == side and s.machine(at).request is not None]
            assert len(state.peers) == len(admitted)
            assert state.requests.taken == len([s for kind in REQUESTS for s, at in self._of(kind) if at == side])

    def teardown(self) -> None:
        """At the end every stream is released, twice, and nothing is left."""
        for stream in getattr(self, "streams", ()):
            for side in (0, 1):
                self._release(stream, side)
                stream.machines[side].release()
        self.nothing_is_held_for_streams_that_are_over()
        for this in getattr(self, "cores", ()):
            assert len(this._state.issued) == len(this._state.peers) == this._state.requests.taken == 0


TestPair = Pair.TestCase
TestPair.settings = settings(
    max_examples=50,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
