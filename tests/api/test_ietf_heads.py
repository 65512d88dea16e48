"""A subscription of the IETF drafts that begins in the middle of a group: the head, the tail, what may be missing."""

from __future__ import annotations

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.codes import StreamCode
from moqt_trio.model.track import state_of
from moqt_trio.protocol.events import GroupStarted, RequestFinished
from moqt_trio.protocol.ietf.fetch import ReplySender
from moqt_trio.session.publisher.delivery import GroupDelivery
from moqt_trio.session.subscriber.group import GroupBuffer
from moqt_trio.session.subscriber.group_queue import GroupQueue
from moqt_trio.session.subscriber.group_stream import GroupStream
from moqt_trio.session.subscriber.head import GroupHead, JoinedGroupReader
from moqt_trio.testing import LossyLink, session_pair
from tests.api.half_written import EACH_DRAFT, ONE_OF_EACH_WAY, half_written


@EACH_DRAFT
async def test_a_group_that_is_complete(version):
    """Nothing of it is left to come, and its end arrives all the same, before any other group."""
    async with half_written(version) as (client, track, group):
        group.finish()
        async with client.subscribe("b", "t") as subscription:
            reader = await anext(subscription)
            assert await reader.read_all() == [b"0", b"1", b"2"]
            await track.write(b"next")
            assert await (await anext(subscription)).read_all() == [b"next"]


@EACH_DRAFT
@pytest.mark.parametrize("way", ["receive", "batch", "nowait", "iterate"])
async def test_every_way_to_read(version, way):
    """The head and the tail are one group, whatever method reads it."""
    async with half_written(version) as (client, _, group), client.subscribe("b", "t") as subscription:
        reader = await anext(subscription)
        received: list[bytes] = []
        while len(received) < 3:
            received += await reader.receive_batch() if way == "batch" else [await reader.receive()]
        with pytest.raises(trio.WouldBlock):
            reader.receive_nowait()
        await group.send(b"3")
        await group.send(b"4")
        group.finish()
        await trio.testing.wait_all_tasks_blocked()
        match way:
            case "receive":
                received += [await reader.receive(), await reader.receive()]
            case "batch":
                received += await reader.read_all()
            case "nowait":
                received += [reader.receive_nowait(), reader.receive_nowait()]
                with pytest.raises(trio.EndOfChannel):
                    reader.receive_nowait()
            case "iterate":
                received += [frame async for frame in reader]
        assert received == [b"0", b"1", b"2", b"3", b"4"]
        with pytest.raises(trio.EndOfChannel):
            await reader.receive()


@EACH_DRAFT
async def test_a_cancelled_read_loses_nothing(version):
    """Also not where the reader waits for the tail to begin."""
    async with half_written(version) as (client, _, group), client.subscribe("b", "t") as subscription:
        reader = await anext(subscription)
        assert [await reader.receive() for _ in range(3)] == [b"0", b"1", b"2"]
        with trio.move_on_after(0.01) as scope:
            await reader.receive()
        assert scope.cancelled_caught
        await group.send(b"3")
        assert await reader.receive() == b"3"


@EACH_DRAFT
async def test_a_path_that_reorders(version, autojump_clock):
    """Head, tail, acceptance and later groups arrive in any order, and nothing is lost."""
    for seed in range(6):
        link = LossyLink(delay=0.05, jitter=0.04, reorder=0.3, seed=seed)
        async with (
            half_written(version, link=link) as (client, track, group),
            client.subscribe("b", "t") as subscription,
        ):
            await track.wait_subscribed()
            await group.send(b"3")
            group.finish()
            await track.write(b"next")
            track.finish()
            received = {reader.sequence: await reader.read_all() async for reader in subscription}
        assert received == {1: [b"0", b"1", b"2", b"3"], 2: [b"next"]}


@EACH_DRAFT
async def test_a_large_head(version):
    """A head of more than all the windows, with frames of more than a turn, arrives as it is read."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", delivery="reliable", max_age=60)
    frames = [bytes((index,)) * (20_000 * (1 + index % 3)) for index in range(200)]
    with trio.fail_after(60):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            track.open_group() as group,
        ):
            for frame in frames:
                await group.send(frame)
            async with client.subscribe("b", "t") as subscription:
                reader = await anext(subscription)
                received = [bytes(await reader.receive()) for _ in frames]
                assert received == frames
                await group.send(b"tail")
                assert await reader.receive() == b"tail"


@ONE_OF_EACH_WAY
async def test_an_empty_track(version):
    """Without a newest object there is no head: the first group that is written arrives."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    with trio.fail_after(20):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            track.open_group() as group,
            client.subscribe("b", "t") as subscription,
        ):
            await track.wait_subscribed()
            await group.send(b"0")
            reader = await anext(subscription)
            assert (reader.sequence, await reader.receive()) == (0, b"0")


@ONE_OF_EACH_WAY
async def test_a_newer_group_that_is_empty_yet(version):
    """The newest object counts, and the group behind it arrives as well."""
    async with half_written(version) as (client, track, group):
        group.finish()
        async with track.open_group() as later, client.subscribe("b", "t") as subscription:
            await track.wait_subscribed()
            await later.send(b"later")
            received = {}
            for _ in range(2):
                reader = await anext(subscription)
                received[reader.sequence] = await reader.receive()
            assert received == {1: b"0", 2: b"later"}


@ONE_OF_EACH_WAY
async def test_a_group_that_is_reset(version):
    """The reader has the head, and then the reset."""
    async with half_written(version) as (client, _, group), client.subscribe("b", "t") as subscription:
        reader = await anext(subscription)
        assert [await reader.receive() for _ in range(3)] == [b"0", b"1", b"2"]
        await group.send(b"3")
        assert await reader.receive() == b"3"
        group.reset(77)
        with pytest.raises(moqt.StreamReset) as caught:
            await reader.receive()
        assert caught.value.code == 77


@ONE_OF_EACH_WAY
async def test_closing_the_reader(version):
    """The rest of the group is refused, and the subscription goes on."""
    async with half_written(version) as (client, track, group), client.subscribe("b", "t") as subscription:
        reader = await anext(subscription)
        await group.send(b"3")
        reader.close()
        with pytest.raises(trio.ClosedResourceError):
            await reader.receive()
        group.finish()
        await track.write(b"next")
        assert await (await anext(subscription)).read_all() == [b"next"]


@ONE_OF_EACH_WAY
@pytest.mark.parametrize("end", ["leave", "session"])
async def test_the_end_of_the_subscription(version, end):
    """A reader that waits for the tail learns of it."""
    async with half_written(version) as (client, _, _group):
        async with client.subscribe("b", "t") as subscription:
            reader = await anext(subscription)
            assert [await reader.receive() for _ in range(3)] == [b"0", b"1", b"2"]
            if end == "session":
                client.close()
                with pytest.raises(moqt.SessionClosed):
                    await reader.receive()
        if end == "leave":
            with pytest.raises(trio.ClosedResourceError):
                await reader.receive()


@ONE_OF_EACH_WAY
async def test_the_end_of_the_track(version):
    """A track that ends inside a joined group ends that, too."""
    async with half_written(version) as (client, track, group), client.subscribe("b", "t") as subscription:
        reader = await anext(subscription)
        group.finish()
        track.finish()
        assert await reader.read_all() == [b"0", b"1", b"2"]
        with pytest.raises(trio.EndOfChannel):
            await subscription.receive()


@ONE_OF_EACH_WAY
async def test_what_is_no_longer_kept(version):
    """The head of a group that the cache has trimmed begins later: nothing hangs, and the rest arrives in order."""
    broadcast = moqt.Broadcast(limits=moqt.Limits(cache_bytes=2000))
    track = broadcast.track("t", max_age=60)
    with trio.fail_after(20):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            track.open_group() as group,
        ):
            for index in range(40):
                await group.send(b"%03d" % index + bytes(97))
            async with client.subscribe("b", "t") as subscription:
                reader = await anext(subscription)
                first = await reader.receive()
                numbers = [int(first[:3])]
                while numbers[-1] < 39:
                    numbers.append(int((await reader.receive())[:3]))
                assert 0 < numbers[0] < 39
                assert numbers == list(range(numbers[0], 40))
                await group.send(b"040")
                assert await reader.receive() == b"040"


@EACH_DRAFT
async def test_forwarding(version):
    """A relay's copy of a joined group is whole."""
    copy = moqt.Broadcast().track("t", max_age=60)
    async with (
        half_written(version) as (client, track, group),
        client.subscribe("b", "t") as subscription,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(moqt.forward, subscription, copy)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await group.send(b"3")
        group.finish()
        track.finish()
    kept = state_of(copy).group(1)
    assert kept.complete
    assert [bytes(frame) for frame in kept.frames] == [b"0", b"1", b"2", b"3"]


@ONE_OF_EACH_WAY
async def test_a_publisher_without_the_head(version, monkeypatch, autojump_clock):
    """The tail is delivered as a group that starts late, and the groups after it, as soon as it is known."""
    if version == "moqt-18":
        monkeypatch.setattr("moqt_trio.session.publisher.fetch_range.past_of", lambda *_: None)
    else:
        monkeypatch.setattr("moqt_trio.session.publisher.subscribe.past_of", lambda *_: None)
    async with half_written(version) as (client, track, group), client.subscribe("b", "t") as subscription:
        await track.wait_subscribed()
        await group.send(b"3")
        group.finish()
        await track.write(b"next")
        readers = {}
        for _ in range(2):
            reader = await anext(subscription)
            readers[reader.sequence] = (reader.start_frame, await reader.read_all())
        assert readers == {1: (3, [b"3"]), 2: (0, [b"next"])}


@ONE_OF_EACH_WAY
async def test_a_tail_that_never_comes(version, monkeypatch, autojump_clock):
    """The group ends a moment after a newer one has begun."""
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    with trio.fail_after(20):
        async with session_pair(version) as (client, server), server.publish("b", broadcast):
            await track.write(b"only")
            serve = GroupDelivery._open
            monkeypatch.setattr(
                GroupDelivery, "_open", lambda self, entry: serve(self, entry) if entry.group.sequence else None
            )
            async with client.subscribe("b", "t") as subscription:
                reader = await anext(subscription)
                assert await reader.receive() == b"only"
                await trio.testing.wait_all_tasks_blocked()
                [served] = server._publisher.subscriptions
                served._cursor.remove(0)
                await track.write(b"next")
                assert await (await anext(subscription)).read_all() == [b"next"]
                before = trio.current_time()
                assert await reader.read_all() == []
                assert trio.current_time() - before <= client.limits.late_group_timeout + 0.1


@ONE_OF_EACH_WAY
async def test_a_broken_head(version, monkeypatch):
    """A mistake in the head ends its group, and the tail is refused; the subscription goes on."""
    original = ReplySender.frames
    # The object that comes last, a second time.
    monkeypatch.setattr(ReplySender, "frames", lambda *arguments: original(*arguments) + bytes.fromhex("04000178"))
    async with half_written(version) as (client, track, group), client.subscribe("b", "t") as subscription:
        reader = await anext(subscription)
        with pytest.raises(moqt.StreamReset) as caught:
            await reader.read_all()
        assert caught.value.code == StreamCode.MALFORMED_TRACK
        await group.send(b"3")
        group.finish()
        await track.write(b"next")
        assert await (await anext(subscription)).read_all() == [b"next"]


# -- ends in every order -------------------------------------------------------------------------------------------


@ONE_OF_EACH_WAY
async def test_leaving_while_the_head_arrives(version):
    """A reader that waits for more of a head learns that the subscription was left."""
    frames = [bytes(100_000) for _ in range(30)]
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    errors = []

    async def read(reader):
        try:
            while True:
                await reader.receive()
        except Exception as error:
            errors.append(error)

    with trio.fail_after(20):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            track.open_group() as group,
        ):
            for frame in frames:
                await group.send(frame)
            async with trio.open_nursery() as nursery:
                async with client.subscribe("b", "t") as subscription:
                    nursery.start_soon(read, await anext(subscription))
                    await trio.testing.wait_all_tasks_blocked()
                await trio.testing.wait_all_tasks_blocked()
                nursery.cancel_scope.cancel()
    assert [type(error) for error in errors] == [trio.ClosedResourceError]


@ONE_OF_EACH_WAY
async def test_a_track_that_ends_while_its_past_arrives(version, autojump_clock):
    """What is on its way of a head and of past groups arrives whole, though the subscription has ended."""
    sizes = {0: 40, 1: 30, 2: 35}
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=60)
    for sequence, count in sizes.items():
        async with track.open_group(sequence) as group:
            for number in range(count):
                await group.send(b"%05d" % number + bytes(20_000))
    track.finish()
    with trio.fail_after(120):
        async with (
            session_pair(version) as (client, server),
            server.publish("b", broadcast),
            client.subscribe("b", "t", past_groups=2) as subscription,
        ):
            received = {}
            async for reader in subscription:
                numbers = []
                async for frame in reader:
                    await trio.sleep(0.05)
                    numbers.append(int(frame[:5]))
                received[reader.sequence] = numbers
    assert received == {sequence: list(range(count)) for sequence, count in sizes.items()}


@ONE_OF_EACH_WAY
async def test_a_track_that_ends_without_the_tail(version, monkeypatch, autojump_clock):
    """The group ends a moment after the subscription, for a reader of it alone."""
    serve = GroupDelivery._open
    monkeypatch.setattr(GroupDelivery, "_open", lambda self, entry: serve(self, entry) if entry.start == 0 else None)
    async with half_written(version) as (client, _track, group), client.subscribe("b", "t") as subscription:
        reader = await anext(subscription)
        group.finish()
        await trio.testing.wait_all_tasks_blocked()
        subscription._on_event(RequestFinished())
        assert await reader.read_all() == [b"0", b"1", b"2"]


@ONE_OF_EACH_WAY
async def test_the_tail_is_the_last_stream(version, monkeypatch):
    """A tail that comes after the end of its subscription, which counts it, belongs to the group all the same."""
    begin = GroupStream._begin_group

    def after_the_end(stream, queue, event, buffer):
        # As when the subscription's stream overtakes the tail: one more stream is to come.
        queue.finish_later(1)
        return begin(stream, queue, event, buffer)

    async with half_written(version) as (client, _track, group), client.subscribe("b", "t") as subscription:
        reader = await anext(subscription)
        assert [await reader.receive() for _ in range(3)] == [b"0", b"1", b"2"]
        monkeypatch.setattr(GroupStream, "_begin_group", after_the_end)
        await group.send(b"3")
        group.finish()
        assert await reader.read_all() == [b"3"]
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)


@ONE_OF_EACH_WAY
@pytest.mark.parametrize("tail_first", [True, False])
async def test_a_head_that_the_queue_refuses(version, tail_first, monkeypatch):
    """The tail is a group of its own, whether it came before or after; and nothing waits for the head any more."""
    begin = GroupQueue.begin

    def without_heads(queue, reader, *rest):
        return not isinstance(reader, JoinedGroupReader) and begin(queue, reader, *rest)

    monkeypatch.setattr(GroupQueue, "begin", without_heads)
    if tail_first:
        took, source = GroupHead.begin, Source()

        def behind_the_tail(head, stream, machine, header_bytes):
            if head.tail is None:
                buffer = GroupBuffer(counts=head._queue.counts)
                event = GroupStarted(0, head.sequence, 3, whole=False, subgroup=0, priority=None, ends_group=False)
                assert head.take_tail(buffer, source, event)
            return took(head, stream, machine, header_bytes)

        monkeypatch.setattr(GroupHead, "begin", behind_the_tail)
    async with half_written(version) as (client, _track, group), client.subscribe("b", "t") as subscription:
        if not tail_first:
            await trio.testing.wait_all_tasks_blocked()
            await group.send(b"3")
            group.finish()
        reader = await anext(subscription)
        assert (reader.sequence, reader.start_frame) == (1, 3)
        if tail_first:
            assert not source.codes
        else:
            assert await reader.read_all() == [b"3"]
        head = subscription._queue.head
        assert head is None or head.closed.is_set()


class Source:
    """A tail whose stream does nothing."""

    buffer = None
    over = True

    def __init__(self):
        self.codes = []

    def refuse(self, code):
        self.codes.append(code)


@ONE_OF_EACH_WAY
async def test_closing_a_reader_that_waits_for_the_tail(version):
    """The task that waits gets ClosedResourceError, and a tail that comes later is refused."""
    errors = []

    async def read(reader):
        try:
            await reader.read_all()
        except trio.ClosedResourceError as error:
            errors.append(error)

    async with half_written(version) as (client, track, group), client.subscribe("b", "t") as subscription:
        reader = await anext(subscription)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, reader)
            await trio.testing.wait_all_tasks_blocked()
            reader.close()
        assert len(errors) == 1
        await group.send(b"3")
        group.finish()
        await track.write(b"next")
        assert await (await anext(subscription)).read_all() == [b"next"]


@ONE_OF_EACH_WAY
async def test_two_tasks_at_one_tail(version):
    """The second is told that another one is receiving."""
    async with (
        half_written(version) as (client, _, _group),
        client.subscribe("b", "t") as subscription,
        trio.open_nursery() as nursery,
    ):
        reader = await anext(subscription)
        assert [await reader.receive() for _ in range(3)] == [b"0", b"1", b"2"]
        nursery.start_soon(reader.receive)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await reader.receive()
        nursery.cancel_scope.cancel()
