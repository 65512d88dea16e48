"""Authorization tokens: the value of a parameter of requests, and of an option of SETUP.

    token { Alias Type (i), [Alias (i)], [Token Type (i), Value (..)] }

This library keeps no token, and says so: the size of its cache is the default, 0. So a peer may use no alias.

Spec: draft-ietf-moq-transport-18, section 9.3.1.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from ...codes import SessionCode
from ...errors import LocalProtocolError, Malformed
from ..messages import Token as ShownToken

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..buffer import Reader, Writer
    from .profile import Profile

_CACHE_OVERFLOW = 0x13
_UNKNOWN_ALIAS = 0x17


class AliasType(enum.IntEnum):
    """What a token does with its alias."""

    DELETE = 0
    """Forgets the token of this alias."""
    REGISTER = 1
    """Uses the value, and remembers it by this alias."""
    USE_ALIAS = 2
    """Uses the token of this alias."""
    USE_VALUE = 3
    """Uses the value; there is no alias."""


@attrs.frozen
class Token:
    """A token.

    Attributes:
        value: The token itself; empty where the alias stands for it.
        kind: The token's type; 0 when both sides know it otherwise.
        alias_type: What the alias is for.
        alias: The alias; None without one.
    """

    value: bytes = attrs.field(default=b"", repr=False)
    kind: int = 0
    alias_type: AliasType = AliasType.USE_VALUE
    alias: int | None = None


def read_token(reader: Reader) -> Token:
    """Read a token to the end of its bytes."""
    number = reader.varint()
    if number > AliasType.USE_VALUE:
        raise reader.malformed(f"a token with the alias type {number}")
    alias_type = AliasType(number)
    alias = None if alias_type is AliasType.USE_VALUE else reader.varint()
    if alias_type in (AliasType.DELETE, AliasType.USE_ALIAS):
        return Token(alias_type=alias_type, alias=alias)
    kind = reader.varint()
    return Token(reader.rest(), kind, alias_type, alias)


def write_token(writer: Writer, token: Token) -> None:
    """Write a token."""
    writer.varint(token.alias_type)
    if (token.alias is None) != (token.alias_type is AliasType.USE_VALUE):
        raise LocalProtocolError("a token has an alias, except for one that is used by its value")
    if token.alias is not None:
        writer.varint(token.alias)
    if token.alias_type in (AliasType.REGISTER, AliasType.USE_VALUE):
        writer.varint(token.kind)
        writer.raw(token.value)


def check_tokens_untrusted(tokens: Iterable[Token]) -> None:
    """Check the tokens of a request. Raises `Malformed`, which ends the session, for one that has an alias."""
    for token in tokens:
        if token.alias_type is not AliasType.USE_VALUE:
            registers = token.alias_type is AliasType.REGISTER
            raise Malformed(
                "a token with an alias, where none is kept", code=_CACHE_OVERFLOW if registers else _UNKNOWN_ALIAS
            )


def setup_tokens_untrusted(values: Iterable[bytes], profile: Profile) -> tuple[ShownToken, ...]:
    """Return the tokens of SETUP, by the values of its options. One that registers an alias is used by its value.

    Raises:
        Malformed: One does not decode, or names an alias that nothing can have registered; it ends the session.
    """
    shown = []
    for value in values:
        reader = profile.reader(value, "a token of SETUP", "session", SessionCode.KEY_VALUE_FORMATTING_ERROR)
        token = read_token(reader)
        reader.expect_end()
        if token.alias_type in (AliasType.DELETE, AliasType.USE_ALIAS):
            raise Malformed("a token of SETUP without a value", code=SessionCode.PROTOCOL_VIOLATION)
        shown.append(ShownToken(token.value, token.kind))
    return tuple(shown)


def setup_token(token: ShownToken, profile: Profile) -> bytes:
    """Return the value of the option that has a token."""
    writer = profile.writer()
    write_token(writer, Token(token.value, token.kind))
    return writer.getvalue()
