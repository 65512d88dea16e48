"""Old groups are dropped by the rule of moq-lite-06, section 6.2, whatever the order of groups and timestamps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from moqt_trio.codes import StreamCode
from moqt_trio.model.ages import AgeOrder
from moqt_trio.model.cursor import GroupRange
from moqt_trio.model.track import Track, state_of

STEPS = st.lists(
    st.tuples(st.sampled_from(["open", "open", "send", "send", "send", "take", "end", "abort"]), st.integers(0, 30)),
    max_size=60,
)


def too_old(log, cursor, timescale: int) -> set[int]:
    """Return the groups that the rule drops, by looking at all of them."""
    groups = {number: group for number, group in log._cache._groups.items() if group.frames}
    if not groups:
        return set()
    newest = groups[max(groups)].frames[-1].timestamp
    found = set()
    for number in cursor.pending:
        later = [each for each in groups if each > number]
        if number != cursor.latest and later:
            following = groups[min(later)].frames[0].timestamp
            if newest - following >= cursor.max_age * timescale:
                found.add(number)
    return found


@given(steps=STEPS, ordered=st.booleans(), max_age=st.integers(0, 12))
async def test_exactly_the_groups_that_are_too_old_are_dropped(steps, ordered, max_age):
    """After each frame nothing is pending that is too old, and nothing else was dropped."""
    track = Track("t", timescale=1, max_age=1000)
    log = state_of(track)
    cursor = log.cursor(lambda: None, range=GroupRange(), max_age=max_age, replay=True)
    log.attach(cursor)
    open_groups: dict[int, object] = {}
    stamp = 0
    for action, number in steps:
        if action == "open":
            sequence = log.next if ordered else number
            if sequence not in log._used:
                open_groups[sequence] = log.open(sequence)
        elif open_groups:
            sequence = sorted(open_groups)[number % len(open_groups)]
            group = open_groups[sequence]
            if action == "send":
                stamp = stamp + number // 8 if ordered else number
                before = set(cursor.pending)
                log.append(group, b"x", stamp)
                dropped = {each for each, code in cursor.take_dropped() if code == StreamCode.OLD}
                assert too_old(log, cursor, 1) == set()
                for each in dropped:
                    assert each in before
                    assert log.too_old(each, max_age)
            elif action == "take" and sequence in cursor.pending:
                cursor.take(cursor.pending[sequence], 10)
            elif action == "end":
                log.complete(open_groups.pop(sequence))
            elif action == "abort":
                log.abort_group(open_groups.pop(sequence), 1)
                cursor.take_dropped()


def test_what_left_is_forgotten():
    """Groups that were taken before they grew old do not accumulate."""
    pending: dict[int, None] = {}
    ages = AgeOrder(pending)
    for number in range(10_000):
        pending[number] = None
        ages.add(number)
        ages.follow(number, number)
        if number % 3 == 0:
            ages.due(number, 1e9, number, lambda sequence: sequence + 1)
        pending.pop(number - 5, None)
    assert len(ages._new) + len(ages._unfollowed) + len(ages._followed) < 100
