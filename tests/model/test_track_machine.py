"""Random writing and reading of one track, against a record of the writes and the deliveries."""

from __future__ import annotations

import math
from collections import defaultdict

import attrs
import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from moqt_trio.codes import StreamCode
from moqt_trio.limits import Limits
from moqt_trio.model import cache, packed
from moqt_trio.model.cursor import GroupRange
from moqt_trio.model.group import Group
from moqt_trio.model.track import Track, state_of

LIMITS = attrs.evolve(
    Limits(),
    cache_bytes=60,
    cache_groups=6,
    cache_frames=12,
    live_backlog=40,
    live_backlog_groups=4,
    reliable_backlog=40,
    reliable_backlog_groups=4,
    reliable_backlog_frames=8,
)
RESET = 64


@attrs.define(eq=False)
class Written:
    """What the application did with one group."""

    frames: list = attrs.field(factory=list)
    ended: bool = False
    aborted: bool = False


class Reader:
    """A cursor, with the groups that it was offered, delivered and dropped."""

    def __init__(self, machine, *, replay, max_age):
        self.machine = machine
        self.max_age = max_age
        self.cursor = state_of(machine.track).cursor(lambda: None, range=GroupRange(), max_age=max_age, replay=replay)
        state_of(machine.track).attach(self.cursor)
        self.taken = defaultdict(list)
        self.whole = set()
        self.lost = {}
        self.offered = set(self.cursor.pending) | {sequence for sequence, _ in self.cursor.dropped}

    def take(self, sequence, budget):
        entry = self.cursor.pending[sequence]
        written = self.machine.written[sequence]
        frames, _ = self.cursor.take(entry, budget)
        done = len(self.taken[sequence])
        assert len(frames) >= (done < len(written.frames)), "at least one frame is taken if there is one"
        assert len(frames) < 2 or sum(map(len, frames)) <= budget
        self.taken[sequence] += frames
        assert self.taken[sequence] == written.frames[: done + len(frames)], "frames come in order, without gaps"
        if sequence not in self.cursor.pending:
            assert written.ended
            assert self.taken[sequence] == written.frames
            self.whole.add(sequence)

    def hear(self):
        for sequence, code in self.cursor.take_dropped():
            assert sequence not in self.lost, "a drop is reported once"
            self.lost[sequence] = code

    def waiting(self):
        """Bytes that this reader still has to take, by the record of what was written."""
        return {
            sequence: sum(map(len, self.machine.written[sequence].frames[len(self.taken[sequence]) :]))
            for sequence in self.cursor.pending
        }

    def waiting_frames(self):
        """Frames that this reader still has to take."""
        return sum(
            len(self.machine.written[sequence].frames) - len(self.taken[sequence]) for sequence in self.cursor.pending
        )

    def lag(self):
        """Groups that have something for this reader to take: a frame or their end."""
        written = self.machine.written
        return sum(
            written[sequence].ended or len(self.taken[sequence]) < len(written[sequence].frames)
            for sequence in self.cursor.pending
        )


class TrackMachine(RuleBasedStateMachine):
    """One track, its open groups, and any number of readers."""

    groups = Bundle("groups")
    delivery = "live"
    long = Group.LONG
    clock: trio.testing.MockClock

    def __init__(self):
        super().__init__()
        self.track = Track("t", delivery=self.delivery, max_age=10, limits=LIMITS)
        self.written = {}
        self.readers = []
        self.stamp = 0

    # -- the model -----------------------------------------------------------------------------------------

    def has_room(self):
        return self.delivery == "live" or all(
            sum(reader.waiting().values()) < LIMITS.reliable_backlog
            and reader.waiting_frames() < LIMITS.reliable_backlog_frames
            and reader.lag() <= LIMITS.reliable_backlog_groups
            for reader in self.readers
        )

    def opened(self, sequence, frames=(), *, ended=False):
        assert sequence not in self.written
        self.written[sequence] = Written(list(frames), ended)
        for reader in self.readers:
            reader.offered.add(sequence)

    def check_cache(self):
        """Right after writing, the cache is within its bounds but for what must not go."""
        kept = [group for number in self.written if (group := state_of(self.track).group(number)) is not None]
        reliable = self.readers if self.delivery == "reliable" else []
        needed = sum(sum(reader.waiting().values()) for reader in reliable)
        needed_frames = sum(reader.waiting_frames() for reader in reliable)
        newest = sum(len(group.frames[-1]) for group in kept if group.frames)
        runs = [run for group in kept for run in group.packed or ()]
        # A run of which a reliable reader needs one frame stays whole, and so does what follows it in the group.
        whole = sum(run.size for run in runs) if reliable else 0
        after = self.long * len(kept) if runs and reliable else 0
        size, frames = sum(group.size for group in kept), sum(len(group.frames) for group in kept)
        assert size <= max(LIMITS.cache_bytes, newest + needed) + whole
        assert frames <= max(LIMITS.cache_frames, len(kept) + needed_frames) + after
        for group in kept:
            assert [group.frame(index) for index in range(group.first, group.length)] == (
                self.written[group.sequence].frames[group.first :]
            )
            packed = sum(run.size for run in group.packed or ())
            assert group.size == sum(map(len, group.frames)) + packed
            assert len(group.frames) < self.long
        if len(kept) > LIMITS.cache_groups:
            latest = max(group.sequence for group in kept)
            pending = {number for reader in self.readers for number in reader.cursor.pending}
            assert all(
                group.sequence == latest
                or not group.ended
                or (self.delivery == "reliable" and group.sequence in pending)
                for group in kept
            )

    # -- what the application does -------------------------------------------------------------------------

    @rule(target=groups, gap=st.integers(0, 2))
    def open_group(self, gap):
        writer = self.track.open_group(None if gap == 0 else (self.track.latest or 0) + gap)
        self.opened(writer.sequence)
        return writer

    @rule(target=groups, back=st.integers(1, 5))
    def open_late_group(self, back):
        sequence = (self.track.latest or 0) - back
        if sequence < 0 or sequence in self.written:
            with pytest.raises(ValueError, match=str(sequence)):
                self.track.open_group(sequence)
            return multiple()
        writer = self.track.open_group(sequence)
        self.opened(sequence)
        return writer

    @rule(writer=groups, size=st.integers(0, 20), pause=st.integers(0, 3000))
    def send(self, writer, size, pause):
        written = self.written[writer.sequence]
        self.stamp += pause
        payload = bytes([self.stamp % 251]) * size
        room = self.has_room()
        try:
            writer.send_nowait(payload, self.stamp)
        except trio.WouldBlock:
            assert not room
        except trio.ClosedResourceError:
            assert written.ended or written.aborted
        else:
            assert room
            assert not written.ended
            assert not written.aborted
            written.frames.append(payload)
            self.check_cache()

    @rule(size=st.integers(0, 50), pause=st.integers(0, 3000), datagram=st.booleans())
    def write(self, size, pause, datagram):
        self.stamp += pause
        payload = bytes([self.stamp % 251]) * size
        room = self.has_room()
        try:
            sequence = (self.track.send_datagram if datagram else self.track.write_nowait)(payload, self.stamp)
        except trio.WouldBlock:
            assert not room
        else:
            assert room
            self.opened(sequence, [payload], ended=True)
            if not datagram:
                self.check_cache()

    @rule(writer=groups)
    def finish(self, writer):
        writer.finish()
        written = self.written[writer.sequence]
        written.ended = not written.aborted

    @rule(writer=groups)
    def reset(self, writer):
        writer.reset(RESET)
        written = self.written[writer.sequence]
        written.aborted = not written.ended

    @rule(seconds=st.integers(1, 8))
    def pass_time(self, seconds):
        self.clock.jump(seconds)

    # -- what subscribers do -------------------------------------------------------------------------------

    @precondition(lambda self: len(self.readers) < 4)
    @rule(replay=st.booleans(), max_age=st.sampled_from([0, 4, math.inf]))
    def subscribe(self, replay, max_age):
        self.readers.append(Reader(self, replay=replay, max_age=max_age))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def unsubscribe(self, data):
        reader = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
        state_of(self.track).detach(reader.cursor)

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), budget=st.integers(0, 60), newest_first=st.booleans())
    def serve(self, data, budget, newest_first):
        """Serve the ready groups, as a subscription does; those with frames left become ready again."""
        cursor = (reader := data.draw(st.sampled_from(self.readers))).cursor
        reader.hear()
        entries = list(cursor.ready(newest_first=newest_first))
        numbers = [entry.group.sequence for entry in entries]
        assert numbers == sorted(numbers, reverse=newest_first)
        for entry in entries:
            reader.take(entry.group.sequence, budget)
            if entry.has_frames or entry.finished:
                cursor.requeue(entry)

    @precondition(lambda self: any(reader.cursor.pending for reader in self.readers))
    @rule(data=st.data(), budget=st.integers(0, 60))
    def take_one(self, data, budget):
        reader = data.draw(st.sampled_from([reader for reader in self.readers if reader.cursor.pending]))
        reader.take(data.draw(st.sampled_from(sorted(reader.cursor.pending))), budget)

    # -- what always holds ---------------------------------------------------------------------------------

    @invariant()
    def backlog_is_what_waits(self):
        for reader in self.readers:
            cursor, waiting = reader.cursor, reader.waiting()
            assert {number: entry.waiting for number, entry in cursor.pending.items()} == waiting
            assert cursor.backlog == sum(waiting.values()) >= 0
            assert cursor.backlog_frames == reader.waiting_frames()

    @invariant()
    def every_group_is_accounted_for_once(self):
        for reader in self.readers:
            dropped = [*reader.lost, *(sequence for sequence, _ in reader.cursor.dropped)]
            fates = [*reader.cursor.pending, *reader.whole, *dropped]
            assert sorted(fates) == sorted(reader.offered)
            assert reader.cursor.dropped_groups == len(dropped)

    @invariant()
    def losses_have_a_reason(self):
        for reader in self.readers:
            for sequence, code in [*reader.lost.items(), *reader.cursor.dropped]:
                if code == RESET:
                    assert self.written[sequence].aborted
                else:
                    assert self.delivery == "live"
                    assert code in (StreamCode.OLD, StreamCode.TOO_FAR_BEHIND)
                    assert code != StreamCode.OLD or reader.max_age < math.inf

    @invariant()
    def a_live_subscriber_is_within_its_bound(self):
        if self.delivery == "live":
            for reader in self.readers:
                waiting = reader.waiting()
                if sum(waiting.values()) > LIMITS.live_backlog:
                    assert all(not size or number == max(reader.offered) for number, size in waiting.items())

    @invariant()
    def room_is_as_the_record_says(self):
        if self.delivery == "reliable":
            assert state_of(self.track).has_room() == self.has_room()

    def teardown(self):
        """Whatever happened, a track that ends lets every reader finish with nothing unaccounted for."""
        self.track.finish()
        for sequence, written in self.written.items():
            group = state_of(self.track).group(sequence)
            if group is not None and not group.ended:
                state_of(self.track).complete(group)
                written.ended = True
        for reader in self.readers:
            while reader.cursor.pending:
                entries = list(reader.cursor.ready(newest_first=False))
                assert entries, "a group with frames to take is ready"
                for entry in entries:
                    reader.take(entry.group.sequence, 10**6)
                    while entry.has_frames:
                        reader.take(entry.group.sequence, 10**6)
                    assert entry.finished
            reader.hear()
            self.every_group_is_accounted_for_once()
            assert reader.cursor.done
            assert reader.cursor.backlog == 0
            if self.delivery == "reliable":
                aborted = {number for number in reader.offered if self.written[number].aborted}
                assert set(reader.lost) <= aborted
                assert reader.offered - reader.whole <= aborted


@pytest.mark.parametrize("long", [Group.LONG, 4], ids=["short", "packed"])
@pytest.mark.parametrize("delivery", ["live", "reliable"])
async def test_random_use(mock_clock, monkeypatch, delivery, long):
    """Whatever is written and read, backlogs are exact, bounds hold, and every group is delivered or reported once."""
    if long < Group.LONG:
        monkeypatch.setattr(Group, "LONG", long)
        monkeypatch.setattr(Group, "RUN", long // 2)
        monkeypatch.setattr(packed, "_OBJECTS", 0)
        monkeypatch.setattr(cache, "_RUN_SHARE", 2)
    machine = type("Machine", (TrackMachine,), {"delivery": delivery, "clock": mock_clock, "long": long})
    run_machine(
        machine,
        settings=settings(
            deadline=None,
            derandomize=True,
            database=None,
            max_examples=60,
            stateful_step_count=50,
            suppress_health_check=list(HealthCheck),
        ),
    )
