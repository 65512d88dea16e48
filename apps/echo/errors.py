"""Exceptions of the echo programs, and how any exception becomes one line."""

from __future__ import annotations

import errno
import socket


class EchoFailed(Exception):
    """A session was opened, but not everything was sent and echoed; the message is one line that says why."""


class UsageError(Exception):
    """A value on the command line cannot be used; the message names it."""


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first single exception in a group: one line has room for one cause."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def describe(error: BaseException) -> str:
    """Return an exception as one line, without the number and the file names of an OSError."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def explain_listening(error: BaseException, host: str) -> str:
    """Return why the server cannot listen on a host, as one line that says what to do."""
    if isinstance(error, socket.gaierror | UnicodeError):
        return f"the host {host!r} is unknown; give an address or a name of this machine with --host"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"{error.strerror}; choose another port with --port, or let --port 0 pick one"
    return describe(error)
