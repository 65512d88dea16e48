"""What tasks on every layer use: a nursery that raises a single failure as it is, a flag for one waiting task, and
what keeps a Ctrl-C out of the middle of the library.

A Ctrl-C raises KeyboardInterrupt between any two bytecodes, in whichever task runs. Within the library that would
leave a connection in a state in which it cannot even say that it ends. So it is deferred there, as within Trio itself:
every task of the library, every method of a public class, and the ends of every block are protected, and Trio raises
KeyboardInterrupt at the next checkpoint of the program's main task. What the application runs is not protected.
The protection is a mark on the code object, and costs a call nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import FunctionType
from typing import ParamSpec, TypeVar, TypeVarTuple

import trio

P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")
ClassT = TypeVar("ClassT", bound=type)


def consists_of(error: BaseException, kinds: type[BaseException] | tuple[type[BaseException], ...]) -> bool:
    """Return whether an exception is of these kinds, or is a group that holds nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(consists_of(item, kinds) for item in error.exceptions)
    return isinstance(error, kinds)


def leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions in a group and in the groups within it; an exception that is no group is the only one."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for item in error.exceptions for leaf in leaves(item)]
    return [error]


def _only_failure(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the one exception in a group, or None when several tasks failed."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        if len(found.exceptions) != 1:
            return None
        found = found.exceptions[0]
    return found


def _forget_cancellations(group: BaseExceptionGroup[BaseException]) -> None:
    """Free the frames that the cancellations in a group came through.

    From Python 3.12 on a traceback and the frames of contextlib that the exception was thrown through hold each other,
    which leaves a whole session to the garbage collector.
    """
    for item in group.exceptions:
        if consists_of(item, trio.Cancelled):
            item.__traceback__ = None
        if isinstance(item, BaseExceptionGroup):
            _forget_cancellations(item)


@asynccontextmanager
async def open_unwrapping_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery that raises a single failure without its `ExceptionGroup`.

    Cancellations that travel together with one failure do not count as failures of their own.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        _forget_cancellations(group)
        failures = group.split(trio.Cancelled)[1]
        failure = None if failures is None else _only_failure(failures)
        # What `split` returns has the traceback of the group, and with it this frame: they would hold each other.
        del failures
        if failure is None:
            raise
        # The group adds nothing to the single exception, so it is not kept as its context either.
        cause, context = failure.__cause__, failure.__context__
        try:
            raise failure
        finally:
            failure.__cause__ = cause
            failure.__context__ = context
            del failure


class Wakeup:
    """A flag with which any caller wakes one task. A wake-up while no task waits is kept; several count as one."""

    _pending = False
    _task: trio.lowlevel.Task | None = None

    def set(self) -> None:
        """Wake the waiting task, or the next one that waits."""
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)
        else:
            self._pending = True

    def clear(self) -> None:
        """Forget a wake-up that was kept."""
        self._pending = False

    async def wait(self) -> None:
        """Wait until `set`; always a checkpoint. When cancelled, a wake-up is kept for the next caller.

        Raises:
            trio.BusyResourceError: Another task waits here.
        """
        if self._pending:
            await trio.lowlevel.checkpoint()
            self._pending = False
            return
        if self._task is not None:
            raise trio.BusyResourceError("another task is waiting here")
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        # Woken and cancelled in one go: the cancellation counts, and the wake-up is kept.
        self._pending = True
        await trio.lowlevel.checkpoint_if_cancelled()
        self._pending = False


def defer_interrupts(kind: ClassT) -> ClassT:
    """Protect every method of a class, and those that it inherits from classes of this package, from Ctrl-C.

    A method must not call the application: what runs within it is protected, too.
    """
    package = __name__.partition(".")[0]
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] != package:
            continue
        for member in vars(base).values():
            function = inspect.unwrap(getattr(member, "fget", None) or getattr(member, "__func__", member))
            if isinstance(function, FunctionType):
                trio.lowlevel.enable_ki_protection(function)
    return kind


@trio.lowlevel.disable_ki_protection
async def call_application(function: Callable[[*Ts], Awaitable[T]], *arguments: *Ts) -> T:
    """Call a function of the application from a task of the library. It may loop for ever: Ctrl-C interrupts it."""
    return await function(*arguments)
