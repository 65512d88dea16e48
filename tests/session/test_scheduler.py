"""The order in which `SendScheduler` lets senders write, with a connection that takes so many bytes at a time."""

from __future__ import annotations

import random

import pytest

from moqt_trio.session.publisher.scheduler import SendScheduler
from tests.api.instructions import instructions


class Link:
    """A connection that allows nothing once its room is used up."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.asked = False

    @property
    def send_allowance(self) -> int:
        self.asked = self.asked or self.room <= 0
        return max(self.room, 0)


class Source:
    """A sender with so many pieces to write."""

    def __init__(self, name: str, bench: Bench, urgency: tuple[int, int], pieces: int) -> None:
        self.name = name
        self.bench = bench
        self.send_priority = urgency
        self.pieces = pieces

    def resume(self) -> None:
        while self.pieces and self.bench.scheduler.allowance(self):
            self.pieces -= 1
            self.bench.link.room -= 1
            self.bench.written.append(self.name)


class Bench:
    """A scheduler over a link, and what was written in which order."""

    def __init__(self, room: int = 0) -> None:
        self.link = Link(room)
        self.scheduler = SendScheduler(self.link)
        self.written: list[str] = []

    def source(self, name: str, priority: int, pieces: int = 3, publisher: int = 0) -> Source:
        source = Source(name, self, (priority, publisher), pieces)
        source.resume()
        return source

    def make_room(self, room: int) -> str:
        """Make room and return what was written into it."""
        self.written.clear()
        self.link.room = room
        self.scheduler.resume_waiting()
        return "".join(self.written)


def test_no_sender_waits_while_the_link_takes_everything():
    """A link that is not congested lets every sender write at once, whatever its priority."""
    bench = Bench(room=6)
    bench.source("a", 1)
    bench.source("b", 200)
    assert "".join(bench.written) == "aaabbb"


def test_the_higher_priority_goes_first_in_any_order_of_arrival():
    """What room there is goes to the highest priority; only what that leaves goes to the next."""
    bench = Bench()
    for name, priority in (("l", 1), ("h", 200), ("m", 100)):
        bench.source(name, priority)
    assert bench.make_room(4) == "hhhm"
    assert bench.make_room(4) == "mmll"
    assert bench.make_room(4) == "l"


def test_the_publisher_decides_between_equal_subscriptions():
    """Between subscriptions of one priority the track's own priority decides."""
    bench = Bench()
    bench.source("a", 9, publisher=1)
    bench.source("b", 9, publisher=2)
    assert bench.make_room(4) == "bbba"


@pytest.mark.parametrize("room", [1, 2])
def test_equals_take_turns(room):
    """Senders of equal priority take turns: one that has used the room goes to the end of the queue."""
    bench = Bench()
    for name in "abc":
        bench.source(name, 5, pieces=6)
    turns = "".join(bench.make_room(room) for _ in range(6))
    assert turns == "".join(name * room for name in "abcabc")


def test_an_equal_does_not_overtake_who_waits():
    """Room that appears goes to the sender that waits, before one of equal priority that arrives at that moment."""
    bench = Bench()
    waiting = bench.source("a", 5)
    bench.link.room = 9
    late = Source("b", bench, (5, 0), 3)
    assert not bench.scheduler.allowance(late)
    waiting.resume()
    assert bench.written == ["a"]
    assert bench.make_room(9) == "bbbaa"


def test_a_more_urgent_sender_overtakes_at_once():
    """New room is open to a sender with a higher priority than all that wait."""
    bench = Bench()
    bench.source("a", 5)
    bench.link.room = 1
    bench.source("b", 6)
    assert bench.written == ["b"]


def test_a_priority_may_change_while_waiting():
    """The order follows the priorities as they are when room appears, not as they were when the wait began."""
    bench = Bench()
    first = bench.source("a", 200)
    bench.source("b", 100)
    first.send_priority = (1, 0)
    assert bench.make_room(3) == "bbb"


def test_a_priority_may_rise_while_waiting():
    """A sender whose priority has risen overtakes, and has its place among its new equals by when its wait began."""
    bench = Bench()
    for name, priority in (("a", 200), ("b", 100), ("c", 200)):
        bench.source(name, priority)
    second = next(sender for sender in bench.scheduler._waiting if sender.name == "b")
    second.send_priority = (200, 0)
    bench.scheduler.priority_changed(second)
    assert bench.make_room(9) == "aaabbbccc"


def test_many_changes_of_priority_keep_the_order_and_little_else():
    """A sender that changes its priority all the time, while it waits, costs no memory and ends where it should."""
    bench = Bench()
    bench.source("a", 50)
    restless = bench.source("b", 0)
    for priority in range(1000):
        restless.send_priority = (priority % 50, 0)
        bench.scheduler.priority_changed(restless)
    assert len(bench.scheduler._heap) < 100
    assert bench.make_room(6) == "aaabbb"


def test_the_order_is_that_of_a_plain_search():
    """Whatever comes, goes, waits again and changes, the next is the first of the highest priority."""
    chance = random.Random(27)
    bench = Bench()
    expected: dict[Source, None] = {}
    for step in range(3000):
        action = chance.random()
        if action < 0.4 or not expected:
            source = bench.source(str(step), chance.randrange(4), pieces=10, publisher=chance.randrange(2))
            expected[source] = None
        elif action < 0.6:
            source = chance.choice(list(expected))
            source.send_priority = (chance.randrange(4), chance.randrange(2))
            bench.scheduler.priority_changed(source)
        elif action < 0.7:
            source = chance.choice(list(expected))
            bench.scheduler.release(source)
            del expected[source]
        else:
            chosen = max(expected, key=lambda source: source.send_priority)
            assert bench.make_room(1) == chosen.name
            del expected[chosen]
            if chosen.pieces:
                expected[chosen] = None
            else:
                bench.scheduler.release(chosen)


def test_a_sender_that_cannot_write_delays_no_other():
    """A sender that is resumed and writes nothing, because its stream has no credit, leaves the room to the others."""
    bench = Bench()
    stuck = bench.source("h", 200)
    bench.source("l", 1)
    stuck.pieces = 0
    assert bench.make_room(3) == "lll"


def test_who_left_is_not_resumed():
    """A sender that was released, as a cancelled subscription's is, is not resumed and does not delay the others."""
    bench = Bench()
    released = bench.source("h", 200)
    bench.source("l", 1)
    bench.scheduler.release(released)
    bench.scheduler.release(released)
    assert bench.make_room(3) == "lll"


def test_a_waiting_sender_has_asked_the_connection():
    """While a sender waits, the connection was asked and had no room, so it will call when it has room."""
    bench = Bench()
    bench.source("a", 5)
    bench.source("b", 6)
    bench.link.asked = False
    bench.make_room(1)
    assert bench.link.asked


def test_a_failing_sender_does_not_keep_its_turn():
    """An error in a sender comes out of `room_made`, and the next room goes by priority as ever."""
    bench = Bench()
    broken = bench.source("h", 200)
    bench.source("l", 1)

    def fail() -> None:
        raise ValueError("broken")

    broken.resume = fail
    bench.link.room = 3
    with pytest.raises(ValueError, match="broken"):
        bench.scheduler.resume_waiting()
    assert bench.make_room(3) == "lll"


@pytest.mark.parametrize("priorities", [1, 100])
@pytest.mark.parametrize("event", ["room", "another"])
async def test_the_next_among_many(priorities, event):
    """To find the sender whose turn it is costs the same however many wait, and however many priorities they have."""
    costs = []
    for count in (40, 400):
        bench = Bench()
        for number in range(count):
            bench.source(str(number), number % priorities, pieces=1000)
        late = Source("late", bench, (200, 0), 1000)

        async def happen(bench: Bench = bench, late: Source = late) -> None:
            if event == "room":
                assert bench.make_room(1)
            else:
                bench.link.room = 1
                assert bench.scheduler.allowance(late)

        costs.append(await instructions(happen))
    assert costs[1] <= 1.5 * costs[0], costs
