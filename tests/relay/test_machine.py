"""A relay under any sequence of what sources and viewers do: invariants of routes, fronts, pulls and of what is read.

Two publishers, each with up to two sessions that have its content, and one that has its hop id and no track. What a
viewer reads says whose content it is, and of which group and frame.
"""

from __future__ import annotations

import contextlib
import weakref
from contextlib import AsyncExitStack

import attrs
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import moqt_trio as moqt
from moqt_trio.relay.pull import Pull
from moqt_trio.testing import serve_in_memory
from tests.relay.stepping import SteppedRun

PUBLISHERS = (71, 72)
VERSIONS = ("moq-lite-06", "moq-lite-05", "moq-lite-04")
HOLD, WITHDRAWAL = 0.3, 2.0


@attrs.define(eq=False)
class Source:
    """One session of a publisher.

    Attributes:
        hop: The publisher's hop id.
        full: False for one that has no track.
        session: The session.
        heard: What is announced to it.
        announced: The block of the publication; None while it is withdrawn.
        drains: True once it has sent GOAWAY: what is read goes on, and it takes no new requests.
    """

    hop: int
    full: bool
    session: moqt.Session
    heard: moqt.Announcements
    stack: AsyncExitStack
    announced: AsyncExitStack | None = None
    drains: bool = False

    @property
    def serves(self) -> bool:
        """True while the track can be had from it."""
        return self.full and self.announced is not None and self.session.closed is None and not self.drains


@attrs.define(eq=False)
class Reader:
    """One subscription of a viewer.

    Attributes:
        groups: The frames of each group, and whether it was reset.
        order: The numbers of the groups, as they began.
        end: How it ended, or None.
        served: True as long as a source of its publisher was there all the time.
    """

    scope: trio.CancelScope
    groups: dict[int, list[bytes]] = attrs.Factory(dict)
    whole: set[int] = attrs.Factory(set)
    dropped: set[int] = attrs.Factory(set)
    end: object = None
    served: bool = True

    @property
    def hop(self) -> int | None:
        """Whose content it reads; None before the first frame."""
        frames = next((frames for frames in self.groups.values() if frames), None)
        return None if frames is None else int(frames[0].split(b".")[0])

    async def run(self, session: moqt.Session) -> None:
        with self.scope:
            try:
                async with (
                    session.subscribe("live", "video", max_age=600) as subscription,
                    trio.open_nursery() as nursery,
                ):
                    async for group in subscription:
                        assert group.sequence not in self.groups
                        self.groups[group.sequence] = []
                        nursery.start_soon(self._read, group)
                self.end = "finished"
            except* moqt.MoqtError as errors:
                self.end = errors.exceptions[0]

    async def _read(self, group: moqt.GroupReader) -> None:
        try:
            async for frame in group:
                self.groups[group.sequence].append(bytes(frame))
            self.whole.add(group.sequence)
        except (moqt.StreamReset, moqt.SessionClosed, trio.ClosedResourceError):
            self.dropped.add(group.sequence)


class RelayMachine(RuleBasedStateMachine):
    """A relay, its sources and its viewers."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = SteppedRun()
        self.pulls: weakref.WeakSet[Pull] = weakref.WeakSet()
        self.patch = pytest.MonkeyPatch()
        begin, pulls = Pull.begin, self.pulls

        def begin_and_note(pull: Pull, source) -> None:
            pulls.add(pull)
            begin(pull, source)

        self.patch.setattr(Pull, "begin", begin_and_note)
        self.stack = AsyncExitStack()
        self.sources: list[Source] = []
        self.readers: list[Reader] = []
        self.past: list[Reader] = []
        self.origin = moqt.Origin(hop_id=11, route_hold=HOLD)
        self.broadcasts = {hop: moqt.Broadcast() for hop in PUBLISHERS}
        self.tracks = {hop: each.track("video", max_age=600) for hop, each in self.broadcasts.items()}
        self.written: dict[int, list[int]] = {hop: [] for hop in PUBLISHERS}
        self.open: dict[int, moqt.GroupWriter] = {}

    def step(self, function, *arguments) -> None:
        """Do something, and let all that follows from it happen, as far as no time passes."""

        async def run() -> None:
            await function(*arguments)
            await trio.testing.wait_all_tasks_blocked()

        self.loop.run(run)

    # -- rules -------------------------------------------------------------------------------------------------

    @initialize(costs=st.tuples(*[st.integers(0, 3)] * 3), version=st.sampled_from(VERSIONS))
    def begin(self, costs: tuple[int, ...], version: str) -> None:
        self.step(self._begin)
        for hop, cost in zip((71, 71, 72), costs, strict=True):
            self.step(self._open, hop, True, version, cost)
        self.step(trio.sleep, 1)
        self.subscribe(0)

    async def _begin(self) -> None:
        async def relay(request: moqt.SessionRequest) -> None:
            async with request.accept(view=self.origin.view()) as session:
                await session.wait_closed()

        router = moqt.Router(fallback=relay, default="/")
        enter = self._in_task
        self.server = await enter(self.stack, serve_in_memory(router, hop_id=self.origin.hop_id, grace=0.1))
        self.viewers = [await enter(self.stack, self._connect(VERSIONS[each], 81 + each)) for each in range(2)]
        self.news = [await enter(self.stack, viewer.announcements()) for viewer in self.viewers]

    def _connect(self, version: str, hop: int):
        return self.server.connect("moqt://localhost/", versions=[version], hop_id=hop)

    @precondition(lambda self: len(self.sources) < 5)
    @rule(
        hop=st.sampled_from(PUBLISHERS),
        full=st.integers(0, 3),
        version=st.sampled_from(VERSIONS),
        cost=st.integers(0, 3),
    )
    def connect(self, hop: int, full: int, version: str, cost: int) -> None:
        self.step(self._open, hop, full > 0, version, cost)

    async def _open(self, hop: int, full: bool, version: str, cost: int) -> None:
        stack = AsyncExitStack()
        session = await self._in_task(stack, self._connect(version, hop))
        # It asks, and is not to be told of its own.
        heard = await self._in_task(stack, session.announcements())
        source = Source(hop, full, session, heard, stack)
        self.sources.append(source)
        await self._announce(source, cost)

    async def _in_task(self, stack: AsyncExitStack, block):
        """Enter a block in a task of its own: blocks of this machine end in any order."""

        async def hold(task_status: trio.TaskStatus) -> None:
            async with block as value:
                task_status.started(value)
                await left.wait()
            gone.set()

        left, gone = trio.Event(), trio.Event()
        value = await self.loop.nursery.start(hold)

        async def leave() -> None:
            left.set()
            await gone.wait()

        stack.push_async_callback(leave)
        return value

    async def _announce(self, source: Source, cost: int) -> None:
        source.announced = AsyncExitStack()
        broadcast = self.broadcasts[source.hop] if source.full else moqt.Broadcast()
        await self._in_task(source.announced, source.session.publish("live", broadcast, cost=cost))

    def _some(self, number: int, condition=lambda source: source.session.closed is None) -> Source | None:
        found = [source for source in self.sources if condition(source)]
        return found[number % len(found)] if found else None

    @rule(number=st.integers(0, 9), cost=st.integers(0, 3))
    def withdraw_or_announce(self, number: int, cost: int) -> None:
        source = self._some(number)
        if source is None:
            return
        if source.announced is None:
            self.step(self._announce, source, cost)
        else:
            announced, source.announced = source.announced, None
            self.step(announced.aclose)

    @rule(number=st.integers(0, 9))
    def lose(self, number: int) -> None:
        source = self._some(number)
        if source is not None:

            async def lose() -> None:
                source.session._context.connection.lose()

            self.step(lose)

    @rule(number=st.integers(0, 9))
    def leave(self, number: int) -> None:
        source = self._some(number, lambda source: True)
        if source is not None:
            self.sources.remove(source)
            self.step(self._leave, source)

    async def _leave(self, source: Source) -> None:
        if source.announced is not None:
            await source.announced.aclose()
        await source.stack.aclose()

    @rule(number=st.integers(0, 9))
    def drain(self, number: int) -> None:
        source = self._some(number)
        if source is not None:
            source.drains = True

            async def drain() -> None:
                with contextlib.suppress(moqt.LocalProtocolError):
                    await source.session.goaway()

            self.step(drain)

    @rule(number=st.integers(0, 1))
    def subscribe(self, number: int) -> None:
        for reader in [reader for reader in self.readers if reader.end is not None]:
            self.readers.remove(reader)
            self.past.append(reader)
        if len(self.readers) < 4:
            reader = Reader(trio.CancelScope())
            self.readers.append(reader)

            async def start() -> None:
                self.loop.nursery.start_soon(reader.run, self.viewers[number])

            self.step(start)

    @rule(number=st.integers(0, 3))
    def unsubscribe(self, number: int) -> None:
        if self.readers:
            reader = self.readers.pop(number % len(self.readers))
            self.past.append(reader)

            async def stop() -> None:
                reader.scope.cancel()

            self.step(stop)

    @rule(hop=st.sampled_from(PUBLISHERS), frames=st.integers(1, 3), ends=st.booleans())
    def write(self, hop: int, frames: int, ends: bool) -> None:
        self.step(self._write, hop, frames, ends)

    async def _write(self, hop: int, frames: int, ends: bool) -> None:
        writer = self.open.pop(hop, None)
        if writer is None:
            writer = self.tracks[hop].open_group()
            await writer.__aenter__()
            self.written[hop].append(0)
        number = len(self.written[hop]) - 1
        for _ in range(frames):
            await writer.send(b"%d.%d.%d" % (hop, number, self.written[hop][-1]))
            self.written[hop][-1] += 1
        if ends:
            writer.finish()
        else:
            self.open[hop] = writer

    @rule(seconds=st.sampled_from([0.1, 0.5, 3.0]))
    def wait(self, seconds: float) -> None:
        self.step(trio.sleep, seconds)

    # -- what holds --------------------------------------------------------------------------------------------

    @invariant()
    def content(self) -> None:
        """Each frame at most once and in order, all of one publisher."""
        for reader in (*self.readers, *self.past):
            hop = reader.hop
            for number, frames in reader.groups.items():
                assert frames == [b"%d.%d.%d" % (hop or 0, number, each) for each in range(len(frames))]
                if number in reader.whole:
                    assert len(frames) == self.written[hop][number] if hop else not frames

    @invariant()
    def ends(self) -> None:
        """A subscription whose publisher has a source all the time goes on; it ends within a moment without one."""
        for reader in self.readers:
            hop = reader.hop
            serving = hop is None or any(source.serves for source in self.sources if source.hop == hop)
            if reader.served and not serving:
                reader.served = False
            if hop is not None and reader.served:
                assert reader.end is None, (hop, reader.end)

    @invariant()
    def routes(self) -> None:
        """No peer is shown what passed it, or what it announces; every route belongs to a session that is open."""
        sharing = self.origin._sharing
        for watcher in sharing.watchers:
            setup = watcher.session._context.core.peer_setup
            for shown in watcher._shown.values():
                assert setup is None or setup.hop_id not in shown.route.hops
        for source in self.sources:
            assert not any(source.hop in item.hops for item in source.heard.active)
        for route in self.origin.routes():
            assert self.origin.hop_id not in route.hops
        announced = sum(source.announced is not None and source.session.closed is None for source in self.sources)
        assert len(self.origin.routes()) == announced

    @invariant()
    def fronts(self) -> None:
        """Each front has a route, and no track is read twice at once for one front."""
        sharing = self.origin._sharing
        for path, publisher in sharing._fronts:
            assert any(route.publisher == publisher for route in sharing.routes.of(path))
        pulls = [pull for pull in self.pulls if pull.reading]
        served = [(source.hop, each) for source in self.sources for each in source.session._publisher.subscriptions]
        for hop in PUBLISHERS:
            upstream = sum(each == hop for each, _ in served)
            retired = sum(pull._last for pull in pulls)
            assert upstream <= 1 + retired

    @precondition(lambda self: self.sources)
    @rule(hop=st.sampled_from(PUBLISHERS))
    def arrives(self, hop: int) -> None:
        """What is written now arrives at each reader of a publisher that has a source, once it has settled."""
        self.step(trio.sleep, 5)
        readers = [reader for reader in self.readers if reader.hop == hop and reader.end is None and reader.served]
        self.step(self._write, hop, 1, True)
        self.step(trio.sleep, 1)
        number = len(self.written[hop]) - 1
        if any(source.serves for source in self.sources if source.hop == hop):
            for reader in readers:
                assert number in reader.whole or number in reader.dropped, (reader, number)

    def teardown(self) -> None:
        try:
            self.step(self._end)
        finally:
            self.patch.undo()
            self.loop.close()

    async def _end(self) -> None:
        for reader in self.readers:
            reader.scope.cancel()
        for source in self.sources:
            await self._leave(source)
        self.sources.clear()
        await trio.sleep(0.1)
        statistics = self.origin.statistics()
        assert (statistics.routes, statistics.tracks, statistics.subscriptions, statistics.fetches) == (0, 0, 0, 0)
        assert self.origin._sharing.fronts == ()
        await self.stack.aclose()
        assert self.origin.sessions() == ()


def test_any_sequence():
    """See the invariants of the machine."""
    run_state_machine_as_test(
        RelayMachine,
        settings=settings(
            max_examples=30,
            stateful_step_count=40,
            derandomize=True,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
