"""moq-relay's auth contract as JSON: the documents of moq-auth 0.2, read and written."""

from __future__ import annotations

import json

import attrs
import pytest

import moqt_trio as moqt
from moqt_trio.auth import AuthRequest, PeerCertificate, SessionEnd
from moqt_trio.auth.contract import decode_grant_untrusted, encode_grant
from tests.auth.requests import asking

END = (
    b'{"id":"00ff","event":"end","reason":"expired","duration":1.5,"bytes":{"sent":10,"received":20},"node":"relay-1",'
    b'"transport":"websocket","remote":"203.0.113.9:4433","path":"/demo/room","query":"jwt=abc"}'
)
CAT = (
    b'{"id":"00ff","event":"connect","node":"relay-1","transport":"quic","path":"/demo/room",'
    b'"token":{"kind":1,"value":"APv_"}}'
)
"""Two documents as moq-auth writes them."""
FULL = AuthRequest(
    id="00ff",
    event="connect",
    node="relay-1",
    transport="quic",
    path="/demo",
    query="jwt=abc",
    remote="203.0.113.9:4433",
    local="[::1]:443",
    server_name="relay.example",
    alpn="moq-lite-05",
    tokens=(moqt.Token(b"abc"),),
    role="publisher",
    tls=PeerCertificate(name="edge0", fingerprint="ab" * 32, issuer="CN=cluster", expires=4_102_444_800),
)


def test_an_end():
    """It is read and written as moq-auth does."""
    request = AuthRequest.decode_untrusted(END)
    assert request.end == SessionEnd(reason="expired", duration=1.5, bytes_sent=10, bytes_received=20)
    assert (request.query, request.remote, request.role, request.tls) == ("jwt=abc", "203.0.113.9:4433", "both", None)
    assert json.loads(request.encode()) == json.loads(END)


def test_a_token():
    """Its bytes are base64url without padding."""
    request = AuthRequest.decode_untrusted(CAT)
    assert request.tokens == (moqt.Token(b"\x00\xfb\xff", 1),)
    assert json.loads(request.encode()) == json.loads(CAT)


def test_every_field():
    """What is written is read as it was; what is absent is not written, and what is not known is passed over."""
    assert AuthRequest.decode_untrusted(FULL.encode()) == FULL
    assert set(json.loads(asking().encode())) == {"id", "event", "node", "transport", "path"}
    assert AuthRequest.decode_untrusted(json.dumps(json.loads(FULL.encode()) | {"new": [1]}).encode()) == FULL
    assert "abc" not in repr(attrs.evolve(FULL))


@pytest.mark.parametrize("name", ["id", "event", "node", "transport", "path"])
def test_what_a_request_needs(name):
    """A request without one of them is none."""
    document = json.loads(FULL.encode())
    del document[name]
    with pytest.raises(ValueError, match=f"{name} is missing"):
        AuthRequest.decode_untrusted(json.dumps(document).encode())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": 5}, "id is no text"),
        ({"event": "begin"}, "event is connect"),
        ({"event": "end"}, "reason is missing"),
        ({"role": "both!"}, "role is publisher"),
        ({"token": "abc"}, "token is no JSON object"),
        ({"token": {"kind": 0}}, "value is missing"),
        ({"token": {"kind": -1, "value": ""}}, "kind is no number"),
        ({"token": {"kind": 2**64, "value": ""}}, "kind is no number"),
        ({"token": {"kind": True, "value": ""}}, "kind is no number"),
        *(({"token": {"kind": 0, "value": value}}, "no base64url") for value in ("A", "AB", "APv_A", "AP+/", "AA==")),
        ({"tls": {"name": "a"}}, "fingerprint is missing"),
        ({"event": "end", "reason": "a", "duration": "1"}, "duration is no number"),
        ({"event": "end", "reason": "a", "duration": 1, "bytes": {"sent": 1.5}}, "sent is no number"),
    ],
)
def test_what_is_no_request(changes, reason):
    """The message says why."""
    with pytest.raises(ValueError, match=reason):
        AuthRequest.decode_untrusted(json.dumps(json.loads(FULL.encode()) | changes).encode())


def test_a_grant():
    """It is written as moq-auth reads it, in whole seconds, without what is absent."""
    grant = moqt.Grant(
        publish=["alice/**"],
        subscribe=["**"],
        root="pid/room",
        expires=4e9 + 0.5,
        revalidate=60.5,
        tier="gold",
        peer=True,
    )
    document = json.loads(encode_grant(grant))
    assert document == {
        "publish": ["alice/**"],
        "subscribe": ["**"],
        "root": "pid/room",
        "expires": 4_000_000_000,
        "revalidate": 60,
        "tier": "gold",
        "peer": True,
    }
    assert [type(document[name]) for name in ("expires", "revalidate")] == [int, int]
    assert decode_grant_untrusted(encode_grant(grant)) == attrs.evolve(grant, expires=4e9, revalidate=60)
    assert json.loads(encode_grant(moqt.Grant(publish=["a"]))) == {"publish": ["a"]}
    assert json.loads(encode_grant(moqt.Grant(publish=["a"], expires=5, revalidate=0.2)))["revalidate"] == 1


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"publish": "a"}, "publish is no list"),
        ({"publish": ["/a"]}, "no slash"),
        ({"publish": ["a"], "revalidate": 5}, "give expires="),
        ({"publish": ["a"], "revalidate": 0, "expires": 5}, "revalidate is a number"),
        ({"publish": ["a"], "expires": 0}, "expires is a number"),
        ({"publish": ["a"], "peer": 1}, "peer is neither"),
        ({"publish": ["a"], "mounts": {"a": "b"}}, "mounts, which are not supported"),
        ([], "no JSON object"),
    ],
)
def test_what_is_no_grant(document, reason):
    """The message says why; a grant that asks for more than this library does is none."""
    with pytest.raises(ValueError, match=reason):
        decode_grant_untrusted(json.dumps(document).encode())
