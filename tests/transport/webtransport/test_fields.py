"""Header fields as text."""

from __future__ import annotations

from moqt_trio.transport.http3.fields import text


def test_text_is_safe():
    """A field with bytes outside ASCII is shown escaped."""
    assert text([(b"origin", b"\xff")], b"origin") == "\\xff"
    assert text([], b"origin") is None
