"""JSON objects of others, read strictly: tokens, keys, and what relays and auth servers say to each other.

A document that two readers may take in different ways is refused: one with a name twice, with NaN, or with more than
the reader's stack holds.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import NoReturn

from ..errors import printable

Document = Mapping[str, object]
"""A JSON object."""


def read_document_untrusted(text: str | bytes, what: str) -> Document:
    """Return the object of a JSON text.

    Args:
        text: The text, or its UTF-8.
        what: What it is, for the message.

    Raises:
        ValueError: It is none.
    """
    try:
        found = json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_no_number)
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None
    except ValueError as error:
        # The exception of the decoder holds the text, which may be a secret.
        reason = str(error) if type(error) is ValueError else "no JSON"
        raise ValueError(f"{what} cannot be read: {reason}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{what} is no JSON object")
    return found


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def optional_text(document: Document, name: str) -> str | None:
    """Return a text, or None for null and for nothing. Raises ValueError for another value."""
    found = document.get(name)
    if found is not None and not isinstance(found, str):
        raise ValueError(f"{name} is no text")
    return found


def needed_text(document: Document, name: str) -> str:
    """Return a text. Raises ValueError for another value, and for nothing."""
    found = optional_text(document, name)
    if found is None:
        raise ValueError(f"{name} is missing")
    return found


def texts(document: Document, name: str, *, one: bool = False) -> list[str] | None:
    """Return a list of texts, or None for nothing.

    Args:
        document: The object.
        name: The name in it.
        one: True if a text may stand for a list of it.

    Raises:
        ValueError: It is no list of texts; null is none either.
    """
    if name not in document:
        return None
    found = document[name]
    if one and isinstance(found, str):
        return [found]
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ValueError(f"{name} is no list of texts")
    return found


_LATEST = 2.0**53
"""Seconds; a double has no later ones, and they are no time of a session."""


def seconds(document: Document, name: str) -> float | None:
    """Return a time, or None for null and for nothing. Raises ValueError for another value, and for what is no time."""
    found = document.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError(f"{name} is no number")
    if not (-_LATEST < found < _LATEST and math.isfinite(found)):
        raise ValueError(f"{name} is no time")
    return found


def decode_base64url(text: str, what: str) -> bytes:
    """Return the bytes of base64url without padding, as it is written in one way only. Raises ValueError."""
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(f"{what} is no base64url") from None
    if encode_base64url(found) != text:
        raise ValueError(f"{what} is no base64url")
    return found


def encode_base64url(data: bytes) -> str:
    """Return bytes as base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def names_of(document: Document, known: set[str], what: str) -> None:
    """Raise ValueError if an object has a name that is not known."""
    unknown = sorted(document.keys() - known)
    if unknown:
        raise ValueError(f"{what} has a {printable(unknown[0])!r}, which is not known")
