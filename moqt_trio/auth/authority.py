"""What every authority asks of a request, and how it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Protocol

from ..errors import Unauthorized

if TYPE_CHECKING:
    from .. import Token
    from ..access import Grant


class AccessRequest(Protocol):
    """What an authority decides on: a `SessionRequest`, or the `AuthRequest` of a relay."""

    @property
    def path(self) -> str:
        """The path that the client dialled."""
        ...

    @property
    def query(self) -> str:
        """The query of its URL, without the `?`."""
        ...

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens of its SETUP."""
        ...

    @property
    def role(self) -> str:
        """What it says that it will do."""
        ...


def refuse(request: AccessRequest, detail: str, status: int) -> NoReturn:
    """Raise the refusal of a request, which hides where it was refused: that may hold a secret."""
    raise Unauthorized(request.path, detail, status=status) from None


def checked(request: AccessRequest, grant: Grant) -> Grant:
    """Return the grant, unless it is good for nothing that the client says that it will do. Raises `Unauthorized`."""
    if not grant.allows(request.role):
        to = "" if request.role == "both" else f" to a {request.role}"
        refuse(request, f"nothing is granted{to}", 403)
    return grant
