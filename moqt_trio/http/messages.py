"""The messages that one application has yet to receive, and its client's disconnect, which never waits.

Hypercorn's queue makes `http.disconnect` wait until the application has read what came before it, and with it the
task that reports it: the application's own `send`, when that is what fails. An application that sends and does not
read hung there. The queue also gives the disconnect once; ASGI has `receive` return it every time.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.trio.task_group import _handle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.config import Config
    from hypercorn.typing import Scope, TaskGroup

DISCONNECTS = ("http.disconnect", "websocket.disconnect")


class MessageQueue:
    """A bounded queue of messages to one application.

    Args:
        size: How many messages wait before `put` does.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._messages: deque[Any] = deque()
        self._disconnect: Any = None
        self._waiting = trio.lowlevel.ParkingLot()

    async def put(self, message: Any) -> None:
        """Queue a message; wait for room, unless it is the disconnect. After the disconnect messages are dropped.

        Always a checkpoint, as putting into hypercorn's queue is.
        """
        if message["type"] in DISCONNECTS:
            self._disconnect = message
        while self._disconnect is None and len(self._messages) >= self._size:
            await self._waiting.park()
        if self._disconnect is None:
            self._messages.append(message)
        self._waiting.unpark_all()
        await trio.lowlevel.checkpoint()

    async def receive(self) -> Any:
        """Wait for the next message, and return it; ASGI's `receive`. The last one is returned again and again."""
        await trio.lowlevel.checkpoint()
        while not self._messages and self._disconnect is None:
            await self._waiting.park()
        self._waiting.unpark_all()
        return self._messages.popleft() if self._messages else dict(self._disconnect)


class QueueingTasks:
    """Takes the place of hypercorn's task group on one connection: its applications read from a `MessageQueue`."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks

    def spawn(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Start a task of hypercorn."""
        self._tasks.spawn(function, *arguments)

    def run_app(
        self,
        app: ASGIWrapper,
        config: Config,
        scope: Scope,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Start an application that receives by a given function."""
        self._tasks.spawn(_handle, app, config, scope, receive, send, trio.to_thread.run_sync, trio.from_thread.run)

    async def spawn_app(
        self, app: ASGIWrapper, config: Config, scope: Scope, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        """Start an application, and return the function that queues messages for it."""
        queue = MessageQueue(config.max_app_queue_size)
        self.run_app(app, config, scope, queue.receive, send)
        return queue.put
