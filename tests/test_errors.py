"""The exception tree, and peers' text made safe to show."""

from __future__ import annotations

import pickle
import re

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from moqt_trio import errors
from moqt_trio.errors import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text", "plain text"),
        ("it's", "it's"),
        ("\x1b[31mred\r\n\x00", "\\x1b[31mred\\r\\n\\x00"),
        ("é", "\\xe9"),
        (b"caf\xc3\xa9", "caf\\xe9"),
        (b"\xff\xfe", "\\\\xff\\\\xfe"),
        ("\ud800", "\\ud800"),
    ],
)
def test_printable(text, shown):
    """A peer's text is shown in ASCII, with everything else escaped."""
    assert printable(text) == shown


def test_printable_once():
    """A text that passes from one error to the next is escaped once; part of another text it is text again."""
    once = printable("é\x1b")
    assert printable(once) == once == "\\xe9\\x1b"
    closed = errors.SessionClosed(remote_code=403, reason="é\x1b", by_peer=True)
    assert pickle.loads(pickle.dumps(closed)).reason == closed.reason == once
    assert errors.Rejected(403, closed.reason).reason == once
    assert errors.SessionClosed(reason=closed.reason).reason == once
    assert printable(f"{once}") == "\\\\xe9\\\\x1b"


def test_printable_is_cut():
    """At most 256 characters are shown, and a cut is marked."""
    assert printable("x" * 256) == "x" * 256
    assert printable("x" * 257) == "x" * 255 + "~"
    assert len(printable("é" * 100)) == 256


@given(st.one_of(st.text(), st.binary()))
def test_printable_never_leaves_one_line_of_ascii(text):
    """Whatever the text, what is shown is one line of printable ASCII of at most 256 characters."""
    shown = printable(text)
    assert len(shown) <= 256
    assert all(" " <= character <= "~" for character in shown)


def drawn_tree():
    """Return the names and the bases of the exceptions in the tree that the module's docstring draws."""
    tree = {}
    above: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        found = re.match(r"([│├└─ ]*)(\w+)", line)
        if found is None or not (found[1] or line == "MoqtError"):
            continue
        while above and above[-1][0] >= len(found[1]):
            above.pop()
        base = above[-1][1] if above else "Exception"
        above.append((len(found[1]), found[2]))
        tree[found[2]] = [base, *re.findall(r"a trio\.(\w+) too", line)]
    return tree


def test_the_tree():
    """The exceptions and their bases are those that the module's docstring draws, all of them."""
    defined = {
        name: [base.__name__ for base in value.__bases__]
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.MoqtError)
    }
    assert defined == drawn_tree()
    assert defined["StreamReset"] == ["MoqtError", "BrokenResourceError"]
    assert issubclass(errors.StreamReset, trio.BrokenResourceError)
    assert len(defined) >= 19


def test_a_peers_mistake_closes_the_session_unless_it_says_otherwise():
    """Without more said, a peer's mistake is a PROTOCOL_VIOLATION that ends the session."""
    for error in (errors.Malformed("bad"), errors.LimitExceeded("max_hops", 33), errors.RemoteProtocolError("bad")):
        assert (error.code, error.scope) == (3, "session")
    narrow = errors.Malformed("bad", code=0x12, scope="stream")
    assert (narrow.code, narrow.scope, str(narrow)) == (0x12, "stream", "bad")


def test_limit_exceeded_names_the_limit():
    """The text and the attributes say which bound was passed, and how far."""
    error = errors.LimitExceeded("max_frame", 99, code=0x38, scope="stream")
    assert str(error) == "the peer exceeded max_frame: 99"
    assert (error.limit, error.value, error.code, error.scope) == ("max_frame", 99, 0x38, "stream")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.SessionClosed(), "the session was closed by this side"),
        (
            errors.SessionClosed(local_code=3, reason="bad\n"),
            "the session was closed by this side with code 0x3 (PROTOCOL_VIOLATION): bad\\n",
        ),
        (
            errors.SessionClosed(remote_code=0, by_peer=True),
            "the session was closed by the peer with code 0x0 (NO_ERROR)",
        ),
        (errors.SessionClosed(remote_code=99, by_peer=True), "the session was closed by the peer with code 0x63"),
        (errors.StreamReset(5), "the stream was reset by the peer with code 0x5 (TOO_FAR_BEHIND)"),
        (errors.StreamReset(64, by_peer=False), "the stream was reset by this side with code 0x40"),
        (errors.Rejected(404), "the server refused the session with status 404"),
        (errors.Rejected(403, "no\x1b"), "the server refused the session with status 403: no\\x1b"),
        (errors.Unauthorized("a\nb"), "not allowed: a\\nb"),
        (errors.Unauthorized("a", "no\x1bkey", status=401), "not allowed: a (no\\x1bkey)"),
        (errors.NotFound("a", "t"), "not found: track 't' of 'a'"),
        (errors.NotFound("a", "t", "no group 4"), "not found: track 't' of 'a' (no group 4)"),
    ],
)
def test_texts(error, text):
    """The text of an error is one safe line."""
    assert str(error) == text


def test_attributes():
    """The facts of an error are its attributes."""
    closed = errors.SessionClosed(local_code=1, remote_code=2, reason="r", by_peer=True)
    assert (closed.local_code, closed.remote_code, closed.reason, closed.by_peer) == (1, 2, "r", True)
    assert errors.VersionUnsupported("none", offered=("moq-lite-06",)).offered == ("moq-lite-06",)
    assert (errors.Rejected(404, "r").status, errors.Rejected(404, "r").reason) == (404, "r")
    assert (errors.Unauthorized("a").path, errors.Unauthorized("a").status) == ("a", 403)
    assert errors.Unauthorized("a", "why", status=401).status == 401
    assert (errors.NotFound("a", "t").path, errors.NotFound("a", "t").track) == ("a", "t")
    assert errors.LocalProtocolError("no", code=4).code == 4
