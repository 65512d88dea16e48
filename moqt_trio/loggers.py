"""Logger: a module's logger, whose handlers cannot fail the library.

The library logs in its socket's task and at the end of a session. What a handler or a filter of the application raises
there, such as an OSError when the disk is full, would end sessions that have nothing to do with it. It is printed to
standard error, as `logging` prints what its own handlers fail with, and only if `logging.raiseExceptions` is true.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def handlers_contained() -> Iterator[None]:
    """Print an exception of the block, which logs, and go on after it."""
    try:
        yield
    except Exception:
        if logging.raiseExceptions and sys.stderr is not None:
            # Standard error may be closed, or on the full disk.
            with suppress(OSError, ValueError):
                print("--- Logging error ---", file=sys.stderr)
                traceback.print_exc()


class Logger(logging.LoggerAdapter[logging.Logger]):
    """The logger of a name, for the library's own use.

    Args:
        name: The module's name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log; all other methods come here."""
        if self.isEnabledFor(level):
            # The record names the line that logs, not this one.
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            with handlers_contained():
                super().log(level, msg, *args, **kwargs)
