"""Who may publish and subscribe: authorities that admit the clients of a server, each with a `moqt_trio.Grant`.

    auth = TokenAuth("keys/")                              clients show tokens; the keys are in a directory
    auth = PublicAuth(subscribe=["**"])                    the same for everybody
    async with AuthClient("unix:///run/auth.sock") as auth     an auth server decides
    app = AuthServer(TokenAuth("keys/").admit)             such a server, an ASGI application

    grant = await auth.admit(request)                      in a handler of `serve`

`TokenAuth` and `TokenKey` need joserfc, `AuthClient` needs httpx: `pip install moqt-trio[auth]`. Each name is imported
when it is first used, so that the others do without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .claims import Claims, Scope
    from .client import AuthClient
    from .contract import AuthRequest, PeerCertificate, SessionEnd
    from .keys import TokenKey
    from .public import PublicAuth
    from .server import AuthServer
    from .token import TokenAuth

__all__ = [
    "AuthClient",
    "AuthRequest",
    "AuthServer",
    "Claims",
    "PeerCertificate",
    "PublicAuth",
    "Scope",
    "SessionEnd",
    "TokenAuth",
    "TokenKey",
]

_HOME_OF = {
    "AuthClient": "client",
    "AuthRequest": "contract",
    "AuthServer": "server",
    "Claims": "claims",
    "PeerCertificate": "contract",
    "PublicAuth": "public",
    "Scope": "claims",
    "SessionEnd": "contract",
    "TokenAuth": "token",
    "TokenKey": "keys",
}
"""The module of this package where each name is defined."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
        found.__module__ = __name__
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return __all__
