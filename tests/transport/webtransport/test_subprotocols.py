"""The fields that negotiate a subprotocol; examples from the drafts, from Chromium and from RFC 9651."""

from __future__ import annotations

import pytest

from moqt_trio.transport.webtransport.subprotocols import (
    chosen_protocol_untrusted,
    encode_protocol,
    encode_protocols,
    offered_protocols_untrusted,
)

OFFER = b"wt-available-protocols"


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([], ()),
        ([b""], ()),
        ([b'"moq-lite-06", "moq-lite-05"'], ("moq-lite-06", "moq-lite-05")),
        ([b'"a"', b'"b","c"'], ("a", "b", "c")),
        ([b'"a";q=1, "b"'], ("a", "b")),
        ([b'"quote \\" and \\\\"'], ('quote " and \\',)),
        ([b"token"], ()),
        ([b'"a", 1'], ()),
        ([b'("a" "b")'], ()),
        ([b'"open'], ()),
        ([b'"\xff"'], ()),
        ([b'"a",'], ()),
    ],
)
def test_offered_protocols(values, names):
    """An offer is a list of strings over any number of lines; anything else counts as no offer."""
    assert offered_protocols_untrusted([(OFFER, value) for value in values]) == names


@pytest.mark.parametrize(
    ("value", "name"),
    [(b'"moq-lite-06"', "moq-lite-06"), (b'"a";v=2', "a"), (b"token", None), (b'"a", "b"', None), (b"", None)],
)
def test_chosen_protocol(value, name):
    """A choice is one string; anything else counts as no choice."""
    assert chosen_protocol_untrusted([(b"wt-protocol", value)]) == name


def test_no_choice():
    """Without the field nothing was chosen."""
    assert chosen_protocol_untrusted([]) is None


def test_encoding():
    """Names are written as structured-field strings."""
    assert encode_protocols(["a", 'b"']) == b'"a", "b\\""'
    assert encode_protocol("moq-lite-06") == b'"moq-lite-06"'
    with pytest.raises(ValueError, match="disallowed"):
        encode_protocol("é")
