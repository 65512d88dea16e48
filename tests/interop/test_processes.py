"""The harness itself: what it says when a child does not do its part, and that no child survives a test."""

from __future__ import annotations

import os
import signal

import pytest

from tests.interop.processes import Child, ChildFailed, shows_output_of


def test_a_line_is_found_after_others():
    """Lines that do not match are skipped, and the exit code is the child's."""
    with Child("-c", 'print(\'one\'); print(\'{"event": "two", "n": 2}\'); raise SystemExit(3)') as child:
        assert child.wait_event("two") == {"event": "two", "n": 2}
        assert child.wait_ended() == 3


def test_a_child_that_dies_is_shown_with_all_it_printed():
    """A child's end is reported at once, with its standard error."""
    with (
        Child("-c", "import sys; print('hello'); sys.exit('it broke')") as child,
        pytest.raises(ChildFailed, match="it broke") as failure,
    ):
        child.wait_line(lambda line: "never" in line)
    assert "hello" in str(failure.value)


def test_a_silent_child_is_not_waited_for_beyond_the_deadline():
    """A deadline that passes is a failure, and the child is killed at the end of the block."""
    with Child("-c", "print('ready', flush=True); input()") as child:
        child.wait_line(lambda line: line == "ready\n")
        with pytest.raises(ChildFailed, match="nothing of what was expected"):
            child.wait_line(lambda line: True, timeout=0.01)
    assert child.wait_ended() == -signal.SIGKILL


def test_a_failure_elsewhere_carries_the_output():
    """What a longer-lived process printed is a note on the exception of the test that used it."""
    with Child("-c", f"import os; print(os.getppid() == {os.getpid()}); input()") as child:
        child.wait_line(lambda line: line == "True\n")
        with pytest.raises(ValueError, match="mine") as failure, shows_output_of(child):
            raise ValueError("mine")
    assert "True" in failure.value.__notes__[0]


def test_input_environment_and_both_outputs():
    """A child gets its variables, its lines and their end; what it prints is kept apart by where it went."""
    code = "import os, sys; print(os.environ['GREETING'], sys.stdin.read()); print('oops', file=sys.stderr)"
    with Child("-c", code, environment={"GREETING": "hello"}) as child:
        child.tell("you")
        child.end_input()
        assert child.wait_ended() == 0
        assert (child.lines, child.errors) == (["hello you", ""], ["oops"])


def test_a_signal():
    """A signal reaches the child, which ends by it."""
    with Child("-c", "input()") as child:
        child.send_signal(signal.SIGTERM)
        assert child.wait_ended() == -signal.SIGTERM
