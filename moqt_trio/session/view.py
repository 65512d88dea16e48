"""OriginView: what a session shares with others, as the session knows it. A relay implements it."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..path import BroadcastPath
    from .session import Session


class OriginView(abc.ABC):
    """The part of an origin that sessions share; `Origin.view` returns it.

    Attributes:
        root: The paths of the sessions' peers are below it.
    """

    root: BroadcastPath

    @abc.abstractmethod
    def _attach(self, session: Session) -> None:
        """Called once a session's version is known, before it serves the peer's first request."""

    def __repr__(self) -> str:
        return f"<OriginView below {str(self.root)!r}>"
