"""The messages that the echo client sends: a text again and again, or the lines of standard input."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    import argparse

STDIN: Final = 0

_CHUNK_BYTES = 64 * 1024
"""Bytes of one read: what a pipe holds on Linux."""


async def read_messages(options: argparse.Namespace) -> AsyncGenerator[bytes, None]:
    """Yield the messages that the command line asks for."""
    if not options.read_stdin:
        for number in range(options.count):
            yield f"hello {number}".encode() if options.message is None else os.fsencode(options.message)
        return
    number = 0
    async with aclosing(read_lines(STDIN)) as lines:
        async for line in lines:
            yield line
            number += 1
            if number == options.count:
                return


async def read_lines(descriptor: int) -> AsyncGenerator[bytes, None]:
    """Yield each line without its end. What follows the last line end counts as a line too, unless it is empty.

    Args:
        descriptor: A file descriptor that nothing else reads. It stays open.

    Raises:
        OSError: It cannot be read.
    """
    rest = b""
    while chunk := await _read(descriptor):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


async def _read(descriptor: int) -> bytes:
    # A terminal may give nothing for hours, so cancellation abandons the thread. `os.read`, because a thread that is
    # inside a buffered file holds the file's lock, and the interpreter waits for that lock when it ends.
    return await trio.to_thread.run_sync(os.read, descriptor, _CHUNK_BYTES, abandon_on_cancel=True)


def is_pipe_or_file(descriptor: int) -> bool:
    """Return True for a descriptor that was given data to read, unlike a terminal or /dev/null."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
