"""Lines of a pipe, a file or a terminal, read without holding up the other tasks, nor the end of the program."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator

import trio

_CHUNK_BYTES = 64 * 1024


async def read_lines(descriptor: int) -> AsyncGenerator[bytes, None]:
    """Yields each line without its end. What follows the last line end counts as a line too, unless it is empty.

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
    # A read that nobody waits for any more is left behind: somebody at a terminal may take for ever. A buffered file
    # would not do, as the interpreter cannot end while a thread holds the lock of one.
    return await trio.to_thread.run_sync(os.read, descriptor, _CHUNK_BYTES, abandon_on_cancel=True)


def is_pipe_or_file(descriptor: int) -> bool:
    """Returns True for what somebody put there to be read; a terminal or /dev/null has nothing to send."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
