"""Tokens and keys: what is signed, what is verified, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import stat
import time

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc import jwk

from moqt_trio.auth import Claims, Scope, TokenKey
from moqt_trio.auth.keys import ALGORITHMS
from tests.machine import seconds

CLAIMS = Claims(root="live", publish=["alice/**"], subscribe=["**"])
KEYS = {algorithm: TokenKey.generate(algorithm, kid="k1") for algorithm in ("HS256", "ES256", "EdDSA")}
HS256 = KEYS["HS256"]


def encoded(document: object) -> str:
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def signed(payload: object, header: object = None, secret: bytes | None = None) -> str:
    """Return a token that is signed with HS256 by hand, so that nothing checks what is in it."""
    if secret is None:
        secret = base64.urlsafe_b64decode(json.loads(HS256.text())["k"] + "==")
    head = encoded({"alg": "HS256", "typ": "JWT"} if header is None else header) + "." + encoded(payload)
    return head + "." + encoded(hmac.digest(secret, head.encode(), hashlib.sha256))


def reason_of(token: str, key: TokenKey = HS256) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        key.verify(token)
    assert token not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm(algorithm):
    """What a key signs, its public half verifies, and another key does not."""
    key = TokenKey.generate(algorithm)
    again = TokenKey.parse(key.text())
    verifier = again if algorithm.startswith("HS") else again.public()
    token = key.sign(CLAIMS)
    assert verifier.verify(token) == CLAIMS
    assert reason_of(token, TokenKey.generate(algorithm)) == "the token's signature is not that of the key"
    if not algorithm.startswith("HS"):
        assert not verifier.private
        assert "d" not in json.loads(verifier.text())
        with pytest.raises(ValueError, match="verifies only"):
            verifier.sign(CLAIMS)


@pytest.mark.parametrize(
    ("claims", "payload"),
    [
        (CLAIMS, {"root": "live", "put": ["alice"], "get": [""]}),
        (Claims(subscribe=["**"], expires=9e9), {"root": "", "get": [""], "exp": 9_000_000_000}),
        (Claims(publish=["a"]), {"root": "", "publish": ["a"]}),
        (Claims(publish=["a/**"], subscribe=["*/cam"]), {"root": "", "publish": ["a/**"], "subscribe": ["*/cam"]}),
    ],
    ids=["prefixes", "everything", "one broadcast", "a pattern makes both patterns"],
)
def test_what_is_written(claims, payload):
    """Prefixes where they say it all, which every verifier reads; else patterns."""
    token = HS256.sign(claims)
    header, body, _ = token.split(".")
    assert json.loads(base64.urlsafe_b64decode(header + "==")) == {"alg": "HS256", "typ": "JWT", "kid": "k1"}
    assert json.loads(base64.urlsafe_b64decode(body + "==")) == payload
    assert HS256.verify(token) == claims


@pytest.mark.parametrize(
    ("payload", "claims"),
    [
        ({"put": "a"}, Claims(publish=["a/**"])),
        ({"root": "/a//b/", "get": ["", "c"], "put": []}, Claims(root="/a//b/", subscribe=["**"])),
        ({"publish": ["a"], "iss": 1, "sub": {"a": []}, "jti": None}, Claims(publish=["a"])),
        ({"get": "", "exp": 9e9, "iat": 5, "nbf": 6.5, "root": None}, None),
    ],
)
def test_what_is_read(payload, claims):
    """A text may stand for a list of one prefix; who issued a token, and to whom, narrows nothing."""
    found = HS256.verify(signed(payload))
    assert found == (claims or Claims(subscribe=["**"], expires=9e9, issued=5, not_before=6.5))


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"get": "", "aud": "x"}, "the token has a 'aud', which is not known"),
        ({"get": "", "Root": "x"}, "the token has a 'Root', which is not known"),
        ({"get": "", "subscribe": ["a"]}, "put and get do not go together"),
        ({"put": None, "subscribe": ["a"]}, "put is no list of texts"),
        ({}, "the token allows nothing"),
        ({"put": [], "get": []}, "the token allows nothing"),
        ({"get": 5}, "get is no list of texts"),
        ({"get": [["a"]]}, "get is no list of texts"),
        ({"get": {"a": 1}}, "get is no list of texts"),
        ({"publish": "a"}, "publish is no list of texts"),
        ({"get": "", "root": 5}, "root is no text"),
        ({"get": "", "root": "a/*"}, "has no '*'"),
        ({"get": "a*"}, "has no '*'"),
        ({"publish": ["a//b"]}, "no slash"),
        ({"publish": ["/".join("a" * 33)]}, "at most 32 segments"),
        ({"publish": [f"a{number}" for number in range(257)]}, "at most 256 patterns"),
        ({"root": "/".join("r" * 20), "publish": ["/".join("a" * 20)]}, "at most 32 segments"),
        ({"get": "", "exp": -1}, "the token has expired"),
        ({"get": "", "exp": 0}, "the token has expired"),
        ({"get": "", "exp": True}, "exp is no number"),
        ({"get": "", "exp": "9999999999"}, "exp is no number"),
        ({"get": "", "exp": [9e9]}, "exp is no number"),
        ({"get": "", "exp": 1e30}, "exp is no time"),
        ({"get": "", "exp": 10**400}, "exp is no time"),
        ({"get": "", "exp": float("nan")}, "NaN is no JSON"),
        ({"get": "", "exp": float("inf")}, "Infinity is no JSON"),
        ({"get": "", "nbf": 9e9}, "the token does not hold yet"),
        (b'{"get":"","exp":1e999}', "exp is no time"),
        (b'{"get":"","exp":' + b"9" * 5000 + b"}", "cannot be read"),
        (b'{"get":"","root":"a","root":""}', "a name comes twice"),
        (b'["get"]', "the token is no JSON object"),
        (b"", "the token cannot be read"),
        (b"\xff\xfe", "the token cannot be read"),
        (b'{"get":' + b"[" * 3000 + b"]" * 3000 + b"}", ""),
        (b'{"a":' * 1200, ""),
    ],
)
def test_claims_that_are_refused(payload, reason):
    """Each with a line that says why, though the signature is right. Nothing else than ValueError is raised."""
    assert reason in reason_of(signed(payload))


def test_the_time():
    """A token holds from `nbf` on, and until just before `exp`."""
    token = HS256.sign(Claims(publish=["a"], not_before=1000, expires=2000))
    assert HS256.verify(token, now=1000).expires == 2000
    assert HS256.verify(token, now=1999.9).not_before == 1000
    for now in (999.9, 2000, 2001):
        with pytest.raises(ValueError, match="expired" if now > 1500 else "not hold yet"):
            HS256.verify(token, now=now)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"alg": "none"}, "signed with 'none', not HS256"),
        ({"alg": "None"}, "signed with 'None', not HS256"),
        ({"alg": "HS512"}, "signed with 'HS512', not HS256"),
        ({"alg": ["HS256"]}, "signed with"),
        ({}, "signed with 'None', not HS256"),
        ({"alg": "HS256", "jwk": {"kty": "oct", "k": "AAAA"}}, "a 'jwk', which is not known"),
        ({"alg": "HS256", "jku": "https://example.org/"}, "a 'jku', which is not known"),
        ({"alg": "HS256", "x5u": "https://example.org/"}, "a 'x5u', which is not known"),
        ({"alg": "HS256", "b64": False, "crit": ["b64"]}, "a 'b64', which is not known"),
        ({"alg": "HS256", "crit": ["exp"]}, "a 'crit', which is not known"),
        (b'{"alg":"none","alg":"HS256"}', "a name comes twice"),
        (b"[" * 4000, ""),
        (["HS256"], "the token's header is no JSON object"),
    ],
)
def test_headers_that_are_refused(header, reason):
    """The key decides how a token is verified."""
    assert reason in reason_of(signed({"get": ""}, header))


def test_no_signature():
    """`none` with nothing behind the last dot is refused by each key."""
    for key in KEYS.values():
        for algorithm in ("none", key.algorithm):
            token = f"{encoded({'alg': algorithm})}.{encoded({'get': ''})}."
            assert "not" in reason_of(token, key)


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_is_no_secret(algorithm):
    """A token signed by HS256 with the text of a public key, in any form, is refused by that key."""
    key = TokenKey.generate(algorithm)
    public = jwk.import_key(
        {name: value for name, value in json.loads(key.public().text()).items() if value.__class__ is str}
    )
    formats = serialization.PublicFormat.SubjectPublicKeyInfo
    secrets = [
        public.raw_value.public_bytes(serialization.Encoding.PEM, formats),
        public.raw_value.public_bytes(serialization.Encoding.DER, formats),
        key.public().text().encode(),
    ]
    for secret in secrets:
        token = signed({"get": ""}, secret=secret)
        assert f"signed with 'HS256', not {algorithm}" in reason_of(token, key)
        assert f"signed with 'HS256', not {algorithm}" in reason_of(token, key.public())
        lying = signed({"get": ""}, {"alg": algorithm}, secret=secret)
        assert reason_of(lying, key.public()) == "the token's signature is not that of the key"


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "a.b", "a.b.c.d", "a.b.c", "\u00e9.b.c", "e30.e30.e30", "e30=.e30.e30", "." * 9000, "a" * 100_000],
    ids=lambda token: f"{token[:12]!a}, {len(token)}",
)
def test_what_is_no_token(token):
    """It is refused, in a time that does not grow with it."""
    start = time.perf_counter()
    with pytest.raises(ValueError, match="token"):
        HS256.verify(token)
    assert time.perf_counter() - start < seconds(0.5)


def test_a_changed_token():
    """Each character of a token counts."""
    token = HS256.sign(CLAIMS)
    for place in range(len(token)):
        changed = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        with pytest.raises(ValueError, match="token"):
            HS256.verify(changed)


# -- what a token allows at a path -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root", "publish", "path", "allowed"),
    [
        ("demo", ["alice/**"], "/demo", ("alice/**",)),
        ("demo", ["alice/**"], "/demo/alice", ("**",)),
        ("demo", ["alice/**"], "/demo/alice/cam", ("**",)),
        ("demo", ["alice/**"], "/", ("demo/alice/**",)),
        ("demo/room", ["*"], "demo//", ("room/*",)),
        ("demo", ["**/cam"], "/demo/cam", ("", "**/cam")),
        ("", ["demo"], "/demo", ("",)),
        ("", ["**"], "/any/where", ("**",)),
    ],
)
def test_at_a_path(root, publish, path, allowed):
    """A path below the root narrows, one above it prefixes."""
    assert Claims(root=root, publish=publish).at(path) == (allowed, ())


@pytest.mark.parametrize(
    ("root", "publish", "path", "reason"),
    [
        ("demo", ["**"], "/other", "the root 'demo' and the path '/other' do not overlap"),
        ("demo", ["**"], "/demonstration", "do not overlap"),
        ("demo", ["alice/**"], "/demo/bob", "nothing is granted at '/demo/bob'"),
        ("", ["a"], "/a/b", "nothing is granted"),
    ],
)
def test_elsewhere(root, publish, path, reason):
    """A foreign root, or a path of which nothing is left, is refused."""
    with pytest.raises(ValueError, match=reason):
        Claims(root=root, publish=publish).at(path)


# -- keys ------------------------------------------------------------------------------------------------------


def test_the_scope_of_a_key():
    """A token may not allow more than its key's scope, however the root is split; neither signed nor verified."""
    scope = Scope(root="project", publish=["live/**"], subscribe=["watch/*"])
    key = TokenKey.generate("HS256", scope=scope)
    assert TokenKey.parse(key.text()).scope == scope
    free = TokenKey.parse(
        json.dumps({name: value for name, value in json.loads(key.text()).items() if name != "scope"})
    )
    allowed = [
        Claims(root="project", publish=["live/room/**"]),
        Claims(publish=["project/live/room"], subscribe=["project/watch/a"]),
        Claims(root="/project/live/", publish=["**"]),
    ]
    for claims in allowed:
        assert key.verify(free.sign(claims)) == key.verify(key.sign(claims)) == claims
    for claims in (
        Claims(root="project", publish=["**"]),
        Claims(root="project", publish=["live/**"], subscribe=["live/**"]),
        Claims(root="project", publish=["lively"]),
        Claims(publish=["**"]),
        Claims(root="project", subscribe=["watch/**"]),
    ):
        with pytest.raises(ValueError, match="more than the scope"):
            key.sign(claims)
        assert "more than the scope" in reason_of(free.sign(claims), key)


def test_files(tmp_path):
    """A private key is the owner's alone, also in place of a file that was not; a public one is for everybody."""
    key = KEYS["ES256"]
    path, public = tmp_path / "k1.jwk", tmp_path / "public.jwk"
    path.write_text("before")
    path.chmod(0o666)
    key.save(path)
    key.public().save(public)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(public.stat().st_mode) & 0o600 == 0o600
    assert TokenKey.load(public).verify(TokenKey.load(path).sign(CLAIMS)) == CLAIMS
    assert sorted(file.name for file in tmp_path.iterdir()) == ["k1.jwk", "public.jwk"]
    path.write_bytes(base64.urlsafe_b64encode(key.text().encode()))
    assert TokenKey.load(str(path)).kid == "k1"
    path.write_bytes(b"{" + b" " * 70_000 + b"}")
    with pytest.raises(ValueError, match="at most 65536 bytes"):
        TokenKey.load(path)


def changed(algorithm: str = "HS256", **members: object) -> str:
    document = json.loads(KEYS[algorithm].text()) | members
    return json.dumps({name: value for name, value in document.items() if value is not None})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the key cannot be read"),
        ("{", "the key cannot be read"),
        ("!", "the key is no base64url"),
        (b"\xff", "the key is no text"),
        ("[]", "the key is no base64url"),
        (changed(alg=None), "alg is missing"),
        (changed(alg="none"), "a key is for one of HS256"),
        (changed(alg="HS999"), "a key is for one of HS256"),
        (changed(alg="ES256"), "a key for ES256 is of type EC P-256"),
        (changed("ES256", alg="HS256"), "a key for HS256 is of type oct"),
        (changed("ES256", alg="ES384"), "a key for ES384 is of type EC P-384"),
        (changed("EdDSA", crv="Ed448"), "a key for EdDSA is of type OKP Ed25519"),
        (changed(k="AAAA"), "a secret has at least 32 bytes, not 3"),
        (changed(k=5), "k is no text"),
        (changed("ES256", x="AAAA", d=None), "no key: "),
        (changed(kid="../../etc/passwd"), "kid is of letters"),
        (changed(kid=""), "kid is of letters"),
        (changed(scope=5), "the scope of the key is no JSON object"),
        (changed(scope={}), "the scope of the key allows nothing"),
        (changed(scope={"put": "a"}), "put is no list of texts"),
        (changed(scope={"put": ["a"], "read": []}), "the scope of the key has a 'read'"),
        (changed(key_ops="sign"), "key_ops is no list of texts"),
    ],
)
def test_what_is_no_key(text, reason):
    """The message says what is wrong, and holds no key."""
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        TokenKey.parse(text)
    assert json.loads(HS256.text())["k"] not in str(caught.value)


def test_what_a_key_is_for():
    """`key_ops` say it; without them a key does both, and without a type it is a secret."""
    old = TokenKey.parse(changed(kty=None, key_ops=None))
    assert old.verify(old.sign(CLAIMS)) == CLAIMS
    signer, verifier = (TokenKey.parse(changed(key_ops=[name])) for name in ("sign", "verify"))
    assert verifier.verify(signer.sign(CLAIMS)) == CLAIMS
    with pytest.raises(ValueError, match="verifies only"):
        verifier.sign(CLAIMS)
    with pytest.raises(ValueError, match="the key signs only"):
        signer.verify(signer.sign(CLAIMS))
    with pytest.raises(ValueError, match="who verifies with it can sign"):
        old.public()


def test_small_rsa_keys():
    """They are refused."""
    made = rsa.generate_private_key(65537, 1024).public_key().public_numbers()
    small = {"kty": "RSA", "alg": "RS256", "n": encoded(made.n.to_bytes(128, "big")), "e": "AQAB"}
    with pytest.raises(ValueError, match="at least 2048 bits, not 1024"):
        TokenKey.parse(json.dumps(small))


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        (lambda: TokenKey.generate("ES512"), ValueError, "not 'ES512'"),
        (lambda: TokenKey.generate(kid="a/b"), ValueError, "kid is of letters"),
        (lambda: HS256.sign({"get": ""}), TypeError, "a token is made of Claims"),
        (lambda: HS256.sign(Claims()), ValueError, "a token has to allow something"),
        (lambda: Claims(publish="a"), TypeError, "publish is a list of texts"),
        (lambda: Claims(root=5), TypeError, "a root is a text"),
        (lambda: Claims(publish=["a"], expires="soon"), TypeError, "expires is a number"),
        (lambda: TokenKey.generate(scope="live"), TypeError, "scope is a Scope"),
    ],
)
def test_mistakes(make, error, reason):
    """A wrong argument is an error at once."""
    with pytest.raises(error, match=reason):
        make()


def test_what_is_shown():
    """The repr of a key says what it is, without the key."""
    assert repr(HS256) == "<TokenKey HS256 k1, private>"
    assert repr(KEYS["ES256"].public()) == "<TokenKey ES256 k1, public>"
