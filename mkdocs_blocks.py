"""A Griffe extension: shows what a block's function returns to its caller, and not the generator that it is inside."""

from __future__ import annotations

from typing import Any

import griffe

_BLOCKS = {"session_block", "asynccontextmanager"}


class Blocks(griffe.Extension):
    """Below such a decorator, `async … -> AsyncIterator[X]` becomes `-> AbstractAsyncContextManager[X]`."""

    def on_function_instance(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """Called with each function once it is read."""
        paths = {decorator.callable_path.rpartition(".")[2] for decorator in func.decorators}
        returned = func.returns
        if paths & _BLOCKS and isinstance(returned, griffe.ExprSubscript):
            func.labels.discard("async")
            left = griffe.ExprName("AbstractAsyncContextManager", parent=func.parent)
            func.returns = griffe.ExprSubscript(left, returned.slice)
