"""Exceptions of the echo programs, and how any exception becomes one line."""

from __future__ import annotations

import errno
import socket
from urllib.parse import urlsplit

import moqt_trio as moqt

from .names import PREFIX, ROUTE


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


def explain_exchange(error: BaseException, url: str) -> str:
    """Return why the client failed, as one line that says what to do."""
    if isinstance(error, moqt.CertificateInvalid):
        # The library's remedy names its arguments; these are the flags for them.
        said = str(error).partition("; trust it with ")[0]
        return f"{said}; name it with --fingerprint HEX (the server prints it), or its authority with --cafile FILE"
    if isinstance(error, moqt.Rejected) and error.status == 404:
        return f"the server has no path {urlsplit(url).path!r}; the echo service is at {ROUTE!r}"
    if isinstance(error, moqt.NotFound):
        return f"the server announces no echo of {PREFIX!r}; is this the echo server?"
    if isinstance(error, moqt.HandshakeFailed | moqt.ConnectTimeout):
        hint = f"{error}; is the server running? Start it with: python -m apps.echo.server"
        if isinstance(error, moqt.ConnectTimeout):
            # The in-band handshake has several forms: a server that knows only another one says nothing.
            hint += ". gomoqt's server of early 2025 answers only --version gomoqt-develop"
        return hint
    if isinstance(error, moqt.SessionClosed) and not error.by_peer and error.local_code is None:
        return f"the connection to the server was lost: {error.reason}"
    return describe(error)
