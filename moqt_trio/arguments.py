"""Checks of the arguments of the public API: a TypeError at once, which says what is wanted.

A wrong type would fail later otherwise: in a task that serves a subscriber, in a codec, or not at all.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Collection

from .errors import printable
from .limits import Limits
from .varint import MAX as MAX_VARINT


def shown(value: object) -> str:
    """Return a value for a message: its type, and the value itself where it is short."""
    text = printable(repr(value))
    return f"{text} ({type(value).__name__})" if len(text) <= 60 else f"an object of type {type(value).__name__}"


def want(value: object, kinds: type | tuple[type, ...], wanted: str) -> None:
    """Raise TypeError unless a value is of one of the types.

    Args:
        value: The argument.
        kinds: The types.
        wanted: What the message begins with: "a path is a text".
    """
    if not isinstance(value, kinds):
        raise TypeError(f"{wanted}, not {shown(value)}")


def want_number(name: str, value: object) -> None:
    """Raise TypeError unless a value is an int."""
    want(value, int, f"{name} is a whole number")


def want_id(name: str, value: object, least: int = 0) -> None:
    """Raise TypeError unless a value is an int, and ValueError unless a QUIC varint holds it.

    Args:
        name: What the message calls it.
        value: The argument.
        least: The least value that is allowed.
    """
    want_number(name, value)
    if not (isinstance(value, int) and least <= value <= MAX_VARINT):
        raise ValueError(f"{name} is {least} … 2**62-1, not {value}")


def want_seconds(name: str, value: object) -> None:
    """Raise TypeError unless a value is an int or a float."""
    want(value, (int, float), f"{name} is a number of seconds")


def want_limits(limits: object) -> None:
    """Raise TypeError unless an argument is `Limits` or None."""
    if limits is not None:
        want(limits, Limits, "limits are an object, Limits(max_frame=1_000_000)")


def want_payload(payload: object) -> None:
    """Raise TypeError unless a frame's payload is of bytes; a text would need an encoding."""
    if isinstance(payload, str):
        raise TypeError(f"a payload is of bytes; write {printable(repr(payload[:20]))}.encode() for a text")
    want(payload, (bytes, bytearray, memoryview), "a payload is of bytes")


def want_texts(name: str, values: Collection[str]) -> None:
    """Raise TypeError for a text where a list of texts is wanted: it would count as the list of its characters."""
    if isinstance(values, str | bytes):
        raise TypeError(f"{name} is a list of texts, even of one: [{printable(repr(values))}]")


def want_async(handler: object, what: str, argument: str) -> None:
    """Raise TypeError unless a handler can be an async function.

    A lambda, an object that can be called and a function that a decorator made may return what an async function
    returns; so may a function whose annotation says so.

    Args:
        handler: The handler.
        what: What the message calls it.
        argument: The name of its parameter, for the line to write.
    """
    if not callable(handler) or inspect.isclass(handler):
        raise TypeError(f"{what} is an async function, 'async def handler({argument}): …', not {shown(handler)}")
    while isinstance(handler, functools.partial):
        handler = handler.func
    function = inspect.unwrap(getattr(handler, "__func__", handler))
    if not inspect.isfunction(function):
        return
    line = f"async def {function.__name__}({argument}): …"
    if inspect.isasyncgenfunction(function):
        raise TypeError(f"{what} is an async function without 'yield'; write {line}")
    returns = str(inspect.get_annotations(function).get("return", ""))
    may_be_async = (
        inspect.iscoroutinefunction(function)
        or function.__name__ == "<lambda>"
        or any(word in returns for word in ("Awaitable", "Coroutine"))
    )
    if not may_be_async:
        raise TypeError(f"{what} is an async function; write {line}")


def want_time(name: str, seconds: object) -> None:
    """Raise `TypeError` unless an argument is a number of seconds, and `ValueError` for one that no time has."""
    want_seconds(name, seconds)
    assert isinstance(seconds, int | float)
    if not 0 < seconds < _ANY_TIME:
        raise ValueError(f"{name} is a number of seconds above 0 and below 2**51, not {seconds}")


def milliseconds(seconds: float | None) -> int:
    """Return seconds in milliseconds, of which every time has at least one; 0 for None."""
    return 0 if seconds is None else max(1, round(seconds * 1000))


_ANY_TIME = 2.0**51
"""Seconds; the milliseconds of less than that fit in a varint."""
