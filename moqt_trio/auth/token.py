"""TokenAuth: clients show tokens that one of this side's keys has signed."""

from __future__ import annotations

import os
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ..access import Grant
from ..arguments import shown, want
from ..errors import printable
from ..loggers import Logger
from .authority import AccessRequest, checked, refuse
from .keys import MAX_TOKEN, TokenKey, key_id_of
from .public import PublicAuth

if TYPE_CHECKING:
    from .. import Token

logger = Logger(__name__)

_OUT_OF_BAND = 0
"""The type of a SETUP token whose form both sides know otherwise: a JWT here."""


class TokenAuth:
    """Grants what a client's token says.

    The token is the `jwt` of the URL's query, the last one if there are several, or the token of type 0 in a SETUP of
    the IETF's drafts; both only if they are the same. Over WebTransport SETUP comes after the decision: there the token
    is in the URL.

    Args:
        keys: A key or several, each of which then needs a `kid`; or the path of a file with one key; or the path of a
            directory, where a token's key is in `{kid}.jwk`. Files are read for each client anew, so that a change
            takes effect at once.
        public: What a client without a token may do; None refuses it. A token that is not accepted is refused in any
            case.

    Raises:
        TypeError: The keys are something else.
        ValueError: There is no key, or one of several has no `kid`, or two have the same.
    """

    def __init__(
        self, keys: TokenKey | Collection[TokenKey] | str | os.PathLike[str], *, public: PublicAuth | None = None
    ) -> None:
        if public is not None:
            want(public, PublicAuth, "public is a PublicAuth(subscribe=['anon/**'])")
        self._public = public
        self._files: Path | None = None
        self._keys: list[TokenKey] = []
        if isinstance(keys, str | os.PathLike):
            self._files = Path(keys)
        else:
            self._keys = [keys] if isinstance(keys, TokenKey) else list(keys)
            self._check_keys()

    def _check_keys(self) -> None:
        for key in self._keys:
            if not isinstance(key, TokenKey):
                raise TypeError(f"a key is what TokenKey.load('key.jwk') returns, not {shown(key)}")
        names = [key.kid for key in self._keys]
        if not names:
            raise ValueError("TokenAuth needs a key: TokenKey.generate('ES256') makes one")
        if len(names) > 1 and (None in names or len(set(names)) < len(names)):
            raise ValueError("of several keys each has a kid of its own: TokenKey.generate('ES256', kid='2030-01')")

    async def admit(self, request: AccessRequest) -> Grant:
        """Return what a client may do.

        Args:
            request: The client's.

        Raises:
            Unauthorized: There is no token, or it is not accepted (401); it allows nothing at the client's path, or
                nothing that the client says that it will do (403); the file of a key cannot be read (502).
        """
        try:
            token = _presented(request)
        except ValueError as error:
            refuse(request, str(error), 401)
        if token is None:
            if self._public is None:
                refuse(request, "it shows no token", 401)
            return await self._public.admit(request)
        try:
            key = await self._key_of(token)
            claims = key.verify(token)
        except ValueError as error:
            refuse(request, str(error), 401)
        except OSError as error:
            logger.error("no client with a token is admitted: %s", printable(str(error)))
            refuse(request, "the key cannot be read", 502)
        try:
            publish, subscribe = claims.at(request.path)
        except ValueError as error:
            refuse(request, str(error), 403)
        return checked(request, Grant(publish=publish, subscribe=subscribe, expires=claims.expires))

    async def _key_of(self, token: str) -> TokenKey:
        """Return the key that has to have signed a token. Raises ValueError if it is not known."""
        kid = key_id_of(token)
        if self._files is not None:
            return await trio.to_thread.run_sync(partial(_read_key, self._files, kid))
        await trio.lowlevel.checkpoint()
        if len(self._keys) == 1:
            # It may have a name that the token does not know.
            return self._keys[0]
        if kid is None:
            raise ValueError("the token names no key, and there are several")
        for key in self._keys:
            if key.kid == kid:
                return key
        raise ValueError(f"the token's key {kid!r} is unknown")

    def __repr__(self) -> str:
        return f"<TokenAuth with the keys of {self._files}>" if self._files else f"<TokenAuth with {self._keys}>"


def _read_key(files: Path, kid: str | None) -> TokenKey:
    path = files
    if files.is_dir():
        if kid is None:
            raise ValueError("the token names no key, and there is a directory of them")
        path = files / f"{kid}.jwk"
        if not path.exists():
            raise ValueError(f"the token's key {kid!r} is unknown")
    try:
        return TokenKey.load(path)
    except ValueError as error:
        # The file is wrong, and not the token.
        raise OSError(f"{path}: {error}") from None


def _presented(request: AccessRequest) -> str | None:
    """Return the token that a client shows, or None. Raises ValueError for several that differ, or another kind."""
    pairs = (pair.partition("=") for pair in request.query.split("&"))
    in_query = [value for name, _, value in pairs if name == "jwt" and value]
    in_setup = [_text_of(token) for token in request.tokens]
    found = dict.fromkeys((*in_query[-1:], *in_setup))
    if len(found) > 1:
        raise ValueError("it shows tokens that differ; one is enough")
    return next(iter(found), None)


def _text_of(token: Token) -> str:
    if token.kind != _OUT_OF_BAND:
        raise ValueError(f"the token in its SETUP is of type {token.kind}, and only a JWT, of type 0, is known")
    try:
        return token.value[: MAX_TOKEN + 1].decode("ascii")
    except UnicodeDecodeError:
        raise ValueError("no token: it is not ASCII") from None
