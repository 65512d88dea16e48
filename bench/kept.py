"""What a process holds before, during and after a run that should leave nothing, and the line of the table for it."""

from __future__ import annotations

import attrs

EARLY = 0.2
"""The share of a run after which what is made once was made."""
MIB = 1024 * 1024
MAX_GROWTH = 0.05
FLOOD_GROWTH = 0.1
"""The same for floods, which leave a heap with holes. One round that kept its thousand subscriptions would leave
15 %."""
MAX_GROWTH_BYTES = 8 * MIB
REST_SECONDS = 60
"""How long a server may take to end what its clients have left: more than QUIC's closing and draining periods."""


@attrs.frozen
class Held:
    """What a process holds.

    Attributes:
        memory: Bytes that are resident.
        sessions: Sessions that are open.
        tasks: Tasks that are alive.
        files: Files and sockets that are open.
    """

    memory: int
    sessions: int
    tasks: int
    files: int

    def left(self, first: Held) -> dict[str, int]:
        """Return how many more there are of each than at first."""
        names = ("sessions", "tasks", "files")
        return {name: getattr(self, name) - getattr(first, name) for name in names}

    def is_more_than(self, first: Held) -> bool:
        """Return whether there are more of any of them, memory apart."""
        return any(number > 0 for number in self.left(first).values())


@attrs.frozen
class Line:
    """One line of the table.

    Attributes:
        name: What was run.
        figure: What was measured.
        bound: What it should be.
        held: True when it was.
    """

    name: str
    figure: str
    bound: str
    held: bool

    def __str__(self) -> str:
        return f"{'ok  ' if self.held else 'FAIL'} {self.name}: {self.figure} (bound: {self.bound})"


def growth(
    name: str, early: Held, late: Held, first: Held, last: Held, seconds: float, count: int, share: float = MAX_GROWTH
) -> Line:
    """Return the line of a run that should leave nothing.

    Args:
        name: What was counted.
        early: What was held after a fifth of it.
        late: What was held at its end.
        first: What was held before it.
        last: What was held after it.
        seconds: How long it took.
        count: How many there were.
        share: By which share of what was held early the memory may grow.
    """
    grown = late.memory - early.memory
    bound = min(share * early.memory, MAX_GROWTH_BYTES)
    left = last.left(first)
    return Line(
        f"{count:,} {name}",
        f"{early.memory / MIB:.1f} MiB at {EARLY:.0%}, {grown / MIB:+.2f} at the end; "
        f"{', '.join(f'{number} {kind}' for kind, number in left.items())} left; {count / seconds:,.1f} a second",
        f"{bound / MIB:+.2f} MiB, 0 left",
        grown <= bound and not last.is_more_than(first),
    )
