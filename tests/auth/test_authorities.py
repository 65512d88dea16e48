"""TokenAuth and PublicAuth: who is admitted, with what, and with which status and line others are refused."""

from __future__ import annotations

import logging

import attrs
import pytest

import moqt_trio as moqt
from moqt_trio.auth import Claims, PublicAuth, TokenAuth, TokenKey
from tests.auth.requests import asking, refusal

KEY = TokenKey.generate("HS256", kid="first")
OTHER = TokenKey.generate("EdDSA", kid="second")
CLAIMS = Claims(root="live", publish=["alice/**"], subscribe=["**"], expires=9e9)
TOKEN = KEY.sign(CLAIMS)
WANTED = moqt.Grant(publish=["alice/**"], subscribe=["**"], expires=9e9)


async def test_a_token():
    """It is read from the query, and its grant is that of the path."""
    auth = TokenAuth(KEY)
    assert await auth.admit(asking("/live", TOKEN)) == WANTED
    assert (await auth.admit(asking("/live/alice", TOKEN))).publish == ("**",)
    assert (await auth.admit(asking("/", TOKEN))).subscribe == ("live/**",)


@pytest.mark.parametrize(
    "query",
    ["jwt={}", "a=1&jwt={}&b=jwt", "jwt=old&jwt={}", "jwt={}&jwt=", "jwt={}&jwt", "&&jwt={}&&", "Jwt=x&xjwt=y&jwt={}"],
)
async def test_in_the_query(query):
    """The last one that is not empty counts."""
    assert await TokenAuth(KEY).admit(attrs.evolve(asking("/live"), query=query.format(TOKEN))) == WANTED


async def test_in_setup():
    """A token of type 0 counts as one in the query; both together only if they are the same."""
    auth, shown = TokenAuth(KEY), moqt.Token(TOKEN.encode())
    assert await auth.admit(asking("/live", tokens=(shown,))) == WANTED
    assert await auth.admit(asking("/live", TOKEN, tokens=(shown, shown))) == WANTED
    different = moqt.Token(KEY.sign(attrs.evolve(CLAIMS, expires=8e9)).encode())
    for request, reason in (
        (asking("/live", TOKEN, tokens=(different,)), "it shows tokens that differ"),
        (asking("/live", tokens=(shown, different)), "it shows tokens that differ"),
        (asking("/live", TOKEN, tokens=(moqt.Token(TOKEN.encode(), 1),)), "its SETUP is of type 1"),
        (asking("/live", tokens=(moqt.Token(b"\xff"),)), "it is not ASCII"),
        (asking("/live", tokens=(moqt.Token(b"a" * 100_000),)), "at most 8192 characters"),
        (asking("/live", tokens=(moqt.Token(b""),)), "three parts"),
    ):
        status, text = await refusal(auth.admit, request)
        assert status == 401
        assert reason in text


@pytest.mark.parametrize(
    ("path", "token", "role", "status", "reason"),
    [
        ("/live", None, "both", 401, "it shows no token"),
        ("/live", "nonsense", "both", 401, "no token: it has three parts"),
        ("/live", TokenKey.generate("HS256").sign(CLAIMS), "both", 401, "signature is not that of the key"),
        ("/live", OTHER.sign(CLAIMS), "both", 401, "signed with 'EdDSA', not HS256"),
        ("/live", KEY.sign(attrs.evolve(CLAIMS, expires=5)), "both", 401, "the token has expired"),
        ("/other", TOKEN, "both", 403, "the root 'live' and the path '/other' do not overlap"),
        (
            "/live",
            KEY.sign(Claims(root="live", subscribe=["a"])),
            "publisher",
            403,
            "nothing is granted to a publisher",
        ),
        (
            "/live",
            KEY.sign(Claims(root="live", publish=["a"])),
            "subscriber",
            403,
            "nothing is granted to a subscriber",
        ),
    ],
)
async def test_refusals(path, token, role, status, reason):
    """401 for a credential that is not accepted, 403 for one that does not allow this; a line says which."""
    found, text = await refusal(TokenAuth(KEY).admit, asking(path, token, role=role))
    assert found == status
    assert reason in text
    assert token is None or token not in text


async def test_several_keys():
    """The token's `kid` names the key; without it there is one key only."""
    auth = TokenAuth([KEY, OTHER])
    for key in (KEY, OTHER):
        assert await auth.admit(asking("/live", key.sign(CLAIMS))) == WANTED
    unnamed, third = TokenKey.generate("HS256"), TokenKey.generate("HS256", kid="third")
    assert "names no key" in (await refusal(auth.admit, asking("/live", unnamed.sign(CLAIMS))))[1]
    assert "'third' is unknown" in (await refusal(auth.admit, asking("/live", third.sign(CLAIMS))))[1]
    # A single key has to be the right one, whatever its name.
    assert await TokenAuth(unnamed).admit(asking("/live", unnamed.sign(CLAIMS))) == WANTED


async def test_a_directory(tmp_path):
    """A key is read when its token comes: a new file counts at once, and so does its end. No name leads elsewhere."""
    folder = tmp_path / "keys"
    folder.mkdir()
    auth = TokenAuth(folder)
    assert "'first' is unknown" in (await refusal(auth.admit, asking("/live", TOKEN)))[1]
    KEY.save(folder / "first.jwk")
    KEY.save(tmp_path / "first.jwk")
    assert await auth.admit(asking("/live", TOKEN)) == WANTED
    (folder / "first.jwk").unlink()
    assert (await refusal(auth.admit, asking("/live", TOKEN)))[0] == 401
    assert "names no key" in (await refusal(auth.admit, asking("/live", TokenKey.generate().sign(CLAIMS))))[1]


@pytest.mark.parametrize(
    "kid",
    ["../first", "../../x", "/etc/passwd", "first.jwk", "first\0", "", "a" * 200, "f\u00efrst", ["first"], 5, {"a": 1}],
)
async def test_names_that_lead_elsewhere(kid, tmp_path):
    """A `kid` of other characters is refused before any file is looked for, in a directory and among keys."""
    from tests.auth.test_tokens import signed

    folder = tmp_path / "keys"
    folder.mkdir()
    KEY.save(tmp_path / "first.jwk")
    token = signed({"get": ""}, {"alg": "HS256", "kid": kid})
    for auth in (TokenAuth(folder), TokenAuth([KEY, OTHER]), TokenAuth(str(tmp_path / "first.jwk"))):
        status, text = await refusal(auth.admit, asking("/", token))
        assert status == 401
        assert "unknown" in text or "kid is no text" in text


async def test_a_file(tmp_path, caplog):
    """One that is changed counts at once; one that cannot be read is this side's failure: 502, and a line for it."""
    path = tmp_path / "key.jwk"
    auth = TokenAuth(str(path))
    for content in (None, "{}"):
        if content is not None:
            path.write_text(content)
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            assert (await refusal(auth.admit, asking("/live", TOKEN)))[0] == 502
        assert str(path) in caplog.text
        assert TOKEN not in caplog.text
    KEY.save(path)
    assert await auth.admit(asking("/live", TOKEN)) == WANTED


async def test_the_public():
    """Patterns from the root, of which a client has what is below its path."""
    auth = PublicAuth(publish=["anon/**"], subscribe=["**"])
    assert await auth.admit(asking("/")) == moqt.Grant(publish=["anon/**"], subscribe=["**"])
    assert await auth.admit(asking("/anon/room")) == moqt.Grant(publish=["**"], subscribe=["**"])
    assert await auth.admit(asking("/live")) == moqt.Grant(subscribe=["**"])
    assert await auth.admit(asking("/live", "nonsense")) == moqt.Grant(subscribe=["**"])
    assert await refusal(auth.admit, asking("/live", role="publisher")) == (
        403,
        "not allowed: /live (nothing is granted to a publisher)",
    )
    only = PublicAuth(publish=["anon/**"])
    assert await refusal(only.admit, asking("/live")) == (403, "not allowed: /live (nothing is granted at '/live')")


async def test_tokens_and_the_public():
    """Who shows no token has the public's; who shows a wrong one is refused."""
    auth = TokenAuth(KEY, public=PublicAuth(subscribe=["anon/**"]))
    assert await auth.admit(asking("/")) == moqt.Grant(subscribe=["anon/**"])
    assert await auth.admit(asking("/live", TOKEN)) == WANTED
    assert (await refusal(auth.admit, asking("/", "nonsense")))[0] == 401


@pytest.mark.parametrize(
    ("make", "error", "reason"),
    [
        (lambda: TokenAuth([]), ValueError, "needs a key"),
        (lambda: TokenAuth([KEY, KEY]), ValueError, "a kid of its own"),
        (lambda: TokenAuth([KEY, TokenKey.generate("HS256")]), ValueError, "a kid of its own"),
        (lambda: TokenAuth(["a"]), TypeError, "a key is what TokenKey.load"),
        (lambda: TokenAuth(KEY, public="**"), TypeError, "public is a PublicAuth"),
        (lambda: PublicAuth(), ValueError, "PublicAuth grants something"),
        (lambda: PublicAuth(subscribe="**"), TypeError, "subscribe is a list of texts"),
    ],
)
def test_mistakes(make, error, reason):
    """A wrong argument is an error at once."""
    with pytest.raises(error, match=reason):
        make()


def test_what_is_shown():
    """A repr has no secret."""
    assert repr(TokenAuth(KEY)) == "<TokenAuth with [<TokenKey HS256 first, private>]>"
    assert repr(PublicAuth(subscribe=["**"])) == "PublicAuth(publish=(), subscribe=('**',))"
    assert TOKEN not in repr(asking("/live", TOKEN, tokens=(moqt.Token(TOKEN.encode()),)))
