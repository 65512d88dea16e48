"""One process of each peer for each test module, and a new one after a failure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.interop.aiomoqt import Aiomoqt, aiomoqt_agents
from tests.interop.moq_rs import MoqRs
from tests.interop.processes import PEERS, Child


@pytest.fixture(scope="module")
def current_moq_rs() -> Iterator[Callable[[], MoqRs]]:
    """Returns the process that runs, or starts one."""
    running: list[MoqRs] = []
    with ExitStack() as stack:

        def current() -> MoqRs:
            if not running or running[-1].failed:
                running.append(MoqRs(stack.enter_context(Child(str(PEERS / "moq_rs_agent.py")))))
            return running[-1]

        yield current


@pytest.fixture
def moq_rs(current_moq_rs: Callable[[], MoqRs]) -> MoqRs:
    """A process of moq-rs that listens and can connect."""
    return current_moq_rs()


@pytest.fixture(scope="module")
def current_aiomoqt() -> Iterator[Callable[[], Aiomoqt]]:
    """Returns the process that runs."""
    with aiomoqt_agents() as current:
        yield current


@pytest.fixture
def aiomoqt(current_aiomoqt: Callable[[], Aiomoqt]) -> Aiomoqt:
    """A process of aiomoqt that can connect."""
    return current_aiomoqt()
