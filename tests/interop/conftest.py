"""One process of the wheel for each file of tests, and a new one after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.interop.processes import PEERS, Child
from tests.interop.wheel import Wheel


@pytest.fixture(scope="module")
def current_wheel() -> Iterator[Callable[[], Wheel]]:
    """Returns the process that runs, or starts one."""
    running: list[Wheel] = []
    with ExitStack() as stack:

        def current() -> Wheel:
            if not running or running[-1].spoiled:
                running.append(Wheel(stack.enter_context(Child(str(PEERS / "moq_rs_agent.py")))))
            return running[-1]

        yield current


@pytest.fixture
def wheel(current_wheel: Callable[[], Wheel]) -> Wheel:
    """The wheel, listening, and ready to connect."""
    return current_wheel()
