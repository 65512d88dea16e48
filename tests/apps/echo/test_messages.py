"""Reading the lines of standard input."""

from __future__ import annotations

import os
from contextlib import aclosing

import pytest
import trio

from apps.echo.messages import is_pipe_or_file, read_lines


@pytest.fixture
def pipe():
    """The reading and the writing end of a pipe."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0), open(writing, "wb", buffering=0) as end:
        yield reading, end


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"one", [b"one"]),
        (b"one\n", [b"one"]),
        (b"one\n\ntwo", [b"one", b"", b"two"]),
        (b"\n", [b""]),
        (b"\xff\r\n", [b"\xff\r"]),
        (b"x" * 200_000 + b"\ny", [b"x" * 200_000, b"y"]),
    ],
    ids=["empty", "no end", "one", "blank", "only blank", "not text", "long"],
)
async def test_lines(tmp_path, data, lines):
    """A file's lines come without their ends; blank ones count, and so does a last one without an end."""
    path = tmp_path / "lines"
    path.write_bytes(data)
    with path.open("rb") as file:
        async with aclosing(read_lines(file.fileno())) as found:
            assert [line async for line in found] == lines


async def test_as_they_come(pipe):
    """A line is there as soon as its end has come through the pipe, however it was cut."""
    reading, writing = pipe
    async with aclosing(read_lines(reading)) as lines:
        writing.write(b"on")
        async with trio.open_nursery() as nursery:

            async def write_rest() -> None:
                writing.write(b"e\ntwo")

            nursery.start_soon(write_rest)
            assert await anext(lines) == b"one"
        writing.close()
        assert await anext(lines) == b"two"
        with pytest.raises(StopAsyncIteration):
            await anext(lines)


async def test_cancelled_while_nothing_comes(pipe):
    """Waiting for a line that does not come can be cancelled at once."""
    reading, writing = pipe
    async with aclosing(read_lines(reading)) as lines:
        with trio.fail_after(5), trio.move_on_after(0.01) as scope:
            await anext(lines)
    assert scope.cancelled_caught
    # The abandoned thread ends with the pipe.
    writing.close()


async def test_unreadable(tmp_path):
    """What cannot be read is an OSError, not an empty input."""
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        async with aclosing(read_lines(descriptor)) as lines:
            with pytest.raises(IsADirectoryError):
                await anext(lines)
    finally:
        os.close(descriptor)


def test_which_descriptors_have_something_to_send(tmp_path, pipe):
    """A pipe and a file have lines to send; the null device, a directory and a closed descriptor have none."""
    assert is_pipe_or_file(pipe[0])
    path = tmp_path / "lines"
    path.touch()
    for name, expected in ((path, True), (os.devnull, False), (tmp_path, False)):
        descriptor = os.open(name, os.O_RDONLY)
        assert is_pipe_or_file(descriptor) is expected
        os.close(descriptor)
    assert not is_pipe_or_file(descriptor)
