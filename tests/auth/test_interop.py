"""Tokens of `@moq/token`, moq-relay's package for JavaScript: ours verify there, and the other way round."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from moqt_trio.auth import Claims, TokenKey

WEB = Path(__file__).parents[2] / "apps" / "echo" / "web"
PEER = Path(__file__).parents[1] / "peers" / "moq_token.mjs"
ALGORITHMS = ["HS256", "ES256", "EdDSA", "RS256", "PS256"]
CLAIMS = Claims(root="live/room", publish=["alice/**"], subscribe=["**"], expires=4_000_000_000)

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (WEB / "node_modules" / "@moq" / "token").is_dir(),
    reason="@moq/token is not installed: make browser",
)


def peer(command: str, **arguments: object) -> dict[str, object]:
    """Run the peer's package, and return what it says."""
    done = subprocess.run(
        ["node", str(PEER), str(WEB / "node_modules" / "@moq" / "token" / "index.js"), command],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_ours(algorithm):
    """It verifies a token of ours by the public half of our key, and reads the claims as they are meant."""
    key = TokenKey.generate(algorithm, kid="k-1_A")
    verifier = key if algorithm == "HS256" else key.public()
    found = peer("verify", key=verifier.text(), token=key.sign(CLAIMS), path="live/room")
    assert found == {"root": "live/room", "put": ["alice"], "get": [""], "exp": 4_000_000_000}
    wrong = TokenKey.generate(algorithm, kid="k-1_A")
    assert "error" in peer("verify", key=verifier.text(), token=wrong.sign(CLAIMS), path="live/room")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_theirs(algorithm):
    """We verify a token of theirs, by a key of theirs; and they sign with a key of ours."""
    made = peer("generate", algorithm=algorithm)
    for text, key in ((made["key"], TokenKey.parse(str(made["key"]))), (TokenKey.generate(algorithm).text(), None)):
        key = key or TokenKey.parse(str(text))
        claims = {"root": "live/room", "put": "alice", "get": ["", "other"], "exp": 4_000_000_000}
        token = str(peer("sign", key=str(text), claims=claims)["token"])
        found = (key if algorithm == "HS256" else key.public()).verify(token)
        assert (found.root, found.publish, found.subscribe) == (CLAIMS.root, CLAIMS.publish, CLAIMS.subscribe)
        assert found.expires == CLAIMS.expires
        assert found.issued is not None
        with pytest.raises(ValueError, match="signature"):
            TokenKey.generate(algorithm).verify(token)
