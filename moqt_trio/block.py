"""Block: what is to be entered with `async with`, and the hints for a program that forgets it.

A block that was made and never entered does nothing: nothing is announced, asked or connected. The program gets no
error for it, so it gets a ResourceWarning when the block is dropped. There is no `__del__`: a block that is not entered
yet has a weak reference in `_waiting`, whose callback warns; entering removes it. A block that was entered costs
nothing when it goes.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar
from weakref import ref

import sniffio
import trio

from .tasks import defer_interrupts

if TYPE_CHECKING:
    from types import TracebackType
    from typing import NoReturn

P = ParamSpec("P")
T = TypeVar("T")


def require_trio() -> None:
    """Raise RuntimeError outside of a task of trio: in asyncio, in a thread, or without an event loop.

    A task of trio_asyncio's is one of trio's, too, but can await asyncio only.
    """
    if not trio.lowlevel.in_trio_task() or sniffio.current_async_library() != "trio":
        raise NotOnTrio


class NotOnTrio(RuntimeError):
    """The library was used outside of `trio.run`."""

    def __init__(self) -> None:
        super().__init__(
            "moqt_trio runs on Trio: start the program with trio.run(main). In asyncio it runs in a thread of its own, "
            "or in trio's guest mode; from another thread call trio.from_thread.run; from asyncio code on Trio, "
            "trio_asyncio.trio_as_aio"
        )


class Block:
    """Base of what is entered with `async with`."""

    _waits: _Waiting | None = None

    def _expect_entry(self, describe: Callable[[], str]) -> None:
        """Warn if the block is dropped before `_entered` is called.

        Args:
            describe: Returns the warning, which names the line to write, or an empty text for none; it must not refer
                to the block.
        """
        self._waits = waiting = _Waiting(self, _dropped)
        waiting.describe = describe
        _waiting.add(waiting)

    def _entered(self) -> None:
        """Called when the block is entered, or was ended in another way."""
        if self._waits is not None:
            _waiting.discard(self._waits)
            self._waits = None

    def _wanted(self) -> str:
        """Return what to write, for one who uses the block in another way."""
        return f"a {type(self).__name__} is entered with 'async with'"

    if not TYPE_CHECKING:
        # Type checkers report these by themselves.

        def __await__(self) -> NoReturn:
            self._entered()
            raise TypeError(f"'await' is wrong here: {self._wanted()}")

        def __enter__(self) -> NoReturn:
            self._entered()
            raise TypeError(f"'with' is wrong here: {self._wanted()}")

        def __exit__(self, *_: object) -> None:
            """Exists so that `with` calls `__enter__`."""


def session_block(
    line: str,
) -> Callable[[Callable[P, AsyncIterator[T]]], Callable[P, AbstractAsyncContextManager[T]]]:
    """As `contextlib.asynccontextmanager`, for a block in which a session runs.

    Its end must run, so Ctrl-C never falls into its beginning or its end.

    Args:
        line: The line to write, for messages.
    """

    def decorate(function: Callable[P, AsyncIterator[T]]) -> Callable[P, AbstractAsyncContextManager[T]]:
        manager = asynccontextmanager(trio.lowlevel.enable_ki_protection(function))

        @wraps(function)
        def enter(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
            return SessionBlock(manager(*args, **kwargs), line)

        return enter

    return decorate


@defer_interrupts
class SessionBlock(Block, AbstractAsyncContextManager[T], Generic[T]):
    """The block of a function that opens a session.

    Args:
        opening: What it does; it is not entered before this one is.
        line: The line to write, for messages.
    """

    def __init__(self, opening: AbstractAsyncContextManager[T], line: str) -> None:
        self._opening = opening
        self._line = line
        self._expect_entry(lambda: f"the block of a session was never entered; write: {line}")

    async def __aenter__(self) -> T:
        self._entered()
        require_trio()
        return await self._opening.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._opening.__aexit__(kind, value, traceback)

    def _wanted(self) -> str:
        return f"a session runs in a block; write: {self._line}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self._line}>"


class _Waiting(ref[Block]):
    """A weak reference to a block that was not entered."""

    __slots__ = ("describe",)
    describe: Callable[[], str]


_waiting: set[_Waiting] = set()
"""The blocks that were not entered yet. A weak reference is only called while it exists itself."""


def _dropped(waiting: ref[Block]) -> None:
    assert isinstance(waiting, _Waiting)
    if waiting in _waiting and not sys.is_finalizing():
        _waiting.discard(waiting)
        text = waiting.describe()
        if text:
            # The line that dropped it is often the one that forgot to enter it.
            warnings.warn(text, ResourceWarning, stacklevel=2)
