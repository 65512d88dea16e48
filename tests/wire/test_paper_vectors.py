"""The vectors of a working text of moq-lite-06 that was never implemented: none of them is taken for another version's.

No peer negotiates that text, so this library does not speak it. Its bytes must not be read as messages of
moq-lite-06-wip, the version that shares its layouts but for one field here and there.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moqt_trio.errors import Malformed
from moqt_trio.limits import Limits
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.buffer import StreamBuffer
from moqt_trio.wire.messages import Expect

PAPER = [
    vector
    for vector in json.loads((Path(__file__).parents[1] / "vectors" / "moq-lite.json").read_text())["vectors"]
    if vector.get("paper")
]
EXPECT = {
    "ANNOUNCE_REQUEST": Expect.ANNOUNCE_REQUEST,
    "ANNOUNCE_START": Expect.ANNOUNCE_REPLY,
    "SUBSCRIBE": Expect.SUBSCRIBE,
    "TRACK_INFO": Expect.TRACK_INFO,
}


@pytest.mark.parametrize("vector", PAPER, ids=lambda vector: vector["message"])
def test_a_message_of_the_unspoken_text_is_refused(vector: dict):
    """Its bytes are malformed in moq-lite-06-wip: they are refused, not half understood."""
    buffer = StreamBuffer()
    buffer.feed(bytes.fromhex(vector["hex"]))
    with pytest.raises(Malformed):
        dialects.get("moq-lite-06-wip").read_untrusted(EXPECT[vector["message"]], buffer, Limits())


def test_the_text_has_no_name_to_negotiate():
    """There is no version of that name, and four vectors of it."""
    assert len(PAPER) == 4
    (name,) = {vector["dialect"] for vector in PAPER}
    with pytest.raises(ValueError, match="2026-08"):
        dialects.get(name)
