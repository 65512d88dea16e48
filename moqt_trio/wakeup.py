"""A flag that one task sleeps on."""

from __future__ import annotations

import trio


class Wakeup:
    """Lets any number of callers wake one task. A wake-up while nobody sleeps is kept; several count as one."""

    __slots__ = ("_pending", "_task")

    def __init__(self) -> None:
        self._pending = False
        self._task: trio.lowlevel.Task | None = None

    def set(self) -> None:
        """Wakes the sleeper, or the next one that comes."""
        if self._task is not None:
            task, self._task = self._task, None
            trio.lowlevel.reschedule(task)
        else:
            self._pending = True

    async def wait(self) -> None:
        """Sleeps until `set`; always a checkpoint. Cancelled, a wake-up is kept for the next caller.

        Raises:
            trio.BusyResourceError: Another task sleeps here.
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
