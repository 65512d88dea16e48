"""Authorization tokens: the value of a parameter of requests, and of an option of SETUP.

    token { Alias Type (i), [Alias (i)], [Token Type (i), Value (..)] }

Spec: draft-ietf-moq-transport-18, section 9.3.1.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import attrs

from ...errors import LocalProtocolError

if TYPE_CHECKING:
    from ..buffer import Reader, Writer


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
