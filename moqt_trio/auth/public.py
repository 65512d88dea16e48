"""PublicAuth: the same for everybody, without a token."""

from __future__ import annotations

from collections.abc import Sequence

from ..access import Grant
from .authority import AccessRequest, checked, refuse
from .claims import Claims


class PublicAuth:
    """Grants each client the same: of what is given here, what is below the path that it dialled.

    Args:
        publish: Patterns of the broadcasts that may be published, named from the root: `anon/**`.
        subscribe: Patterns of the broadcasts that may be subscribed to, likewise.

    Raises:
        ValueError: A text is no pattern, or nothing is granted.
    """

    def __init__(self, *, publish: Sequence[str] = (), subscribe: Sequence[str] = ()) -> None:
        self._claims = Claims(publish=publish, subscribe=subscribe)
        if not self._claims.publish and not self._claims.subscribe:
            raise ValueError("PublicAuth grants something: PublicAuth(subscribe=['**'])")

    async def admit(self, request: AccessRequest) -> Grant:
        """Return what a client may do.

        Args:
            request: The client's; its tokens are not looked at.

        Raises:
            Unauthorized: Nothing is granted at its path (403).
        """
        try:
            publish, subscribe = self._claims.at(request.path)
        except ValueError as error:
            refuse(request, str(error), 403)
        return checked(request, Grant(publish=publish, subscribe=subscribe))

    def __repr__(self) -> str:
        return f"PublicAuth(publish={self._claims.publish}, subscribe={self._claims.subscribe})"
