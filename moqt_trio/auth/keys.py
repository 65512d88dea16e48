"""TokenKey: the key that signs or verifies tokens, as a JWK. The one file that uses joserfc.

Spec: RFC 7515 to 7519 (JOSE), RFC 8037 (Ed25519).

A token never decides how it is verified: the algorithm is the key's, the key is found by this side, and a header that
asks for more than a name of the key is refused.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..arguments import want
from ..errors import printable
from .claims import Claims, Scope, scope_of
from .documents import decode_base64url, needed_text, optional_text, read_document_untrusted, texts

try:
    from joserfc import jwk, jws
    from joserfc.errors import JoseError
except ImportError as error:
    raise ImportError("tokens need joserfc, which is not installed: pip install moqt-trio[auth]") from error

MAX_TOKEN = 8192
"""Characters of a token: more than a URL or a SETUP carries."""
MAX_KEY_FILE = 64 * 1024
"""Bytes of a key's file."""
_LEAST_SECRET = 32
"""Bytes of a secret, as all peers require."""
_LEAST_RSA = 2048
"""Bits of an RSA key (RFC 7518, section 3.3)."""
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_HEADER = {"alg", "typ", "kid", "cty"}
"""What a token's header may have. A key within it or an address of one is nothing to trust; `b64` and `crit` change
what is signed."""

_HASHED = ("256", "384", "512")
ALGORITHMS: Mapping[str, tuple[str, str]] = {
    **{f"HS{size}": ("oct", "") for size in _HASHED},
    **{f"{kind}{size}": ("RSA", "") for kind in ("RS", "PS") for size in _HASHED},
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""The type of key and the curve of each algorithm that moq-relay has."""


class _Registry(jws.JWSRegistry):
    """The one algorithm of a key. The warning that RFC 9864 calls EdDSA by another name is left out: no peer does."""

    def get_alg(self, name: str) -> Any:
        if not self.allowed or name not in self.allowed:
            raise ValueError(f"the key is not for {printable(name)!r}")
        return self.algorithms[name]


class TokenKey:
    """A key for tokens. Make one with `generate`, or read one with `load` or `parse`.

    Attributes:
        algorithm: What it signs with: HS256, HS384, HS512, ES256, ES384, EdDSA, RS256 to RS512 or PS256 to PS512.
        kid: Its name, which its tokens carry; None for none.
        scope: The most that its tokens may allow; None for no bound.
        operations: What it is for: `"sign"`, `"verify"`, or both.
        private: True if it can sign, and is to be kept secret.
    """

    def __init__(self, document: Mapping[str, object]) -> None:
        self.algorithm = needed_text(document, "alg")
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"a key is for one of {', '.join(ALGORITHMS)}, not {printable(self.algorithm)!r}")
        self.kid = optional_text(document, "kid")
        if self.kid is not None and not _KEY_ID.fullmatch(self.kid):
            raise ValueError(f"a key's kid is of letters, digits, '-' and '_', not {printable(self.kid)!r}")
        scope = document.get("scope")
        self.scope = None if scope is None else scope_of(scope)
        operations = texts(document, "key_ops")
        self.operations = frozenset(("sign", "verify") if operations is None else operations)
        # Keys of early moq-relays say no type.
        kind = optional_text(document, "kty") or "oct"
        wanted, curve = ALGORITHMS[self.algorithm]
        if kind != wanted or (curve and document.get("crv") != curve):
            raise ValueError(f"a key for {self.algorithm} is of type {' '.join((wanted, curve)).strip()}")
        _check_size(kind, document)
        try:
            material: dict[str, str | list[str]] = {
                name: value for name, value in document.items() if isinstance(value, str) and name != "use"
            }
            self._key = jwk.import_key(material | {"kty": kind})
        except (JoseError, ValueError, TypeError) as error:
            raise ValueError(f"no key: {printable(str(error))}") from None
        self.private = self._key.is_private
        self._registry = _Registry(algorithms=[self.algorithm])

    # -- making, reading and writing -----------------------------------------------------------------------

    @classmethod
    def generate(cls, algorithm: str = "ES256", *, kid: str | None = None, scope: Scope | None = None) -> TokenKey:
        """Return a new key.

        Args:
            algorithm: What it signs with; see `TokenKey`.
            kid: Its name, of letters, digits, `-` and `_`; needed where there are several keys.
            scope: The most that its tokens may allow.

        Raises:
            ValueError: Another algorithm, or a name of other characters.
        """
        if algorithm not in ALGORITHMS:
            raise ValueError(f"a key is for one of {', '.join(ALGORITHMS)}, not {printable(str(algorithm))!r}")
        kind, curve = ALGORITHMS[algorithm]
        if kind == "oct":
            made: jwk.Key = jwk.OctKey.generate_key(max(256, int(algorithm[2:])))
        elif kind == "EC":
            made = jwk.ECKey.generate_key(curve)
        elif kind == "OKP":
            made = jwk.OKPKey.generate_key("Ed25519")
        else:
            made = jwk.RSAKey.generate_key(_LEAST_RSA)
        document: dict[str, object] = {**made.as_dict(private=True), "alg": algorithm, "key_ops": ["sign", "verify"]}
        if kid is not None:
            document["kid"] = kid
        if scope is not None:
            want(scope, Scope, "scope is a Scope(root='live', publish=['**'])")
            document["scope"] = scope._document()
        return cls(document)

    @classmethod
    def parse(cls, text: str | bytes) -> TokenKey:
        """Return the key of a JWK: a JSON text, or base64url of one. Raises ValueError: it is none."""
        if isinstance(text, bytes):
            try:
                text = text.decode()
            except UnicodeDecodeError:
                raise ValueError("the key is no text") from None
        text = text.strip()
        if not text.startswith("{"):
            text = decode_base64url(text.rstrip("="), "the key").decode("utf-8", "replace")
        return cls(read_document_untrusted(text, "the key"))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TokenKey:
        """Return the key of a file; see `parse`.

        Raises:
            OSError: The file cannot be read.
            ValueError: It has no key, or more than 64 KiB.
        """
        with Path(path).open("rb") as file:
            text = file.read(MAX_KEY_FILE + 1)
        if len(text) > MAX_KEY_FILE:
            raise ValueError(f"a key's file has at most {MAX_KEY_FILE} bytes")
        return cls.parse(text)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the key to a file, in place of another; one that can sign, for the owner alone (mode 0600).

        Raises:
            OSError: The file cannot be written.
        """
        path = Path(path)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if self.private else 0o644)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(self.text())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise

    def text(self) -> str:
        """Return the key as a JWK, a JSON text. One that can sign is a secret."""
        return json.dumps(self._document(private=self.private))

    def public(self) -> TokenKey:
        """Return the half that only verifies. Raises ValueError for a secret of HS256 to HS512, which has none."""
        if isinstance(self._key, jwk.OctKey):
            raise ValueError(f"a key for {self.algorithm} is one secret: who verifies with it can sign")
        return TokenKey(self._document(private=False) | {"key_ops": ["verify"]})

    def _document(self, *, private: bool) -> dict[str, object]:
        material = self._key.as_dict(private=private)
        document: dict[str, object] = {**material, "alg": self.algorithm, "key_ops": sorted(self.operations)}
        if self.scope is not None:
            document["scope"] = self.scope._document()
        return document

    # -- tokens --------------------------------------------------------------------------------------------

    def sign(self, claims: Claims) -> str:
        """Return a token.

        Args:
            claims: What it allows.

        Raises:
            ValueError: The key cannot sign, the claims allow nothing, or more than the scope of the key.
        """
        want(claims, Claims, "a token is made of Claims(root='live', publish=['alice/**'])")
        if not self.private or "sign" not in self.operations:
            raise ValueError("the key verifies only; sign with its private half")
        self._check_scope(claims)
        header = {"alg": self.algorithm, "typ": "JWT"} | ({} if self.kid is None else {"kid": self.kid})
        return jws.serialize_compact(header, claims.encode(), self._key, registry=self._registry)

    def verify(self, token: str, *, now: float | None = None) -> Claims:
        """Return what a token allows.

        Args:
            token: The token.
            now: The time in Unix seconds; None for the present.

        Raises:
            ValueError: It is no token, another key signed it, it has expired or does not hold yet, it has a claim that
                is not known, or allows more than the scope of the key. The message holds nothing secret.
        """
        if "verify" not in self.operations:
            raise ValueError("the key signs only")
        header = header_of(token)
        if header.get("alg") != self.algorithm:
            raise ValueError(f"the token is signed with {printable(str(header.get('alg')))!r}, not {self.algorithm}")
        try:
            signed = jws.deserialize_compact(token, self._key, registry=self._registry)
        except (JoseError, ValueError, TypeError):
            raise ValueError("the token's signature is not that of the key") from None
        claims = Claims.decode(signed.payload or b"")
        claims.check_time(now)
        self._check_scope(claims)
        return claims

    def _check_scope(self, claims: Claims) -> None:
        if self.scope is not None and not self.scope.allows(claims):
            raise ValueError("the token allows more than the scope of the key")

    def __repr__(self) -> str:
        return f"<TokenKey {self.algorithm} {self.kid or 'without a kid'}, {'private' if self.private else 'public'}>"


def _check_size(kind: str, document: Mapping[str, object]) -> None:
    """Raise ValueError for a key that is too short to keep anyone out."""
    if kind == "oct":
        size = len(decode_base64url(needed_text(document, "k").rstrip("="), "the key"))
        if size < _LEAST_SECRET:
            raise ValueError(f"a secret has at least {_LEAST_SECRET} bytes, not {size}")
    if kind == "RSA":
        modulus = decode_base64url(needed_text(document, "n"), "the key")
        bits = int.from_bytes(modulus, "big").bit_length()
        if bits < _LEAST_RSA:
            raise ValueError(f"an RSA key has at least {_LEAST_RSA} bits, not {bits}")


def header_of(token: str) -> Mapping[str, object]:
    """Return the header of a token, whose signature is not verified yet. Raises ValueError: it is no token."""
    if len(token) > MAX_TOKEN:
        raise ValueError(f"a token has at most {MAX_TOKEN} characters")
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        raise ValueError("no token: it has three parts with dots between them")
    header = read_document_untrusted(decode_base64url(parts[0], "the token's header"), "the token's header")
    unknown = sorted(header.keys() - _HEADER)
    if unknown:
        raise ValueError(f"the token's header has a {printable(unknown[0])!r}, which is not known")
    return header


def key_id_of(token: str) -> str | None:
    """Return the name of the key that a token says to be signed with; None for none.

    Raises:
        ValueError: It is no token, or the name is not one that a key can have, such as `../key`.
    """
    kid = optional_text(header_of(token), "kid")
    if kid is not None and not _KEY_ID.fullmatch(kid):
        raise ValueError("the token's key is unknown")
    return kid
