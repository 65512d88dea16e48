"""The echo as gomoqt's own programs of February 2025 hold it, habits and faults included; the version is `develop`.

Its client and its server do the same two things side by side: wait to be asked for announcements, and ask and
subscribe themselves. What is unlike `develop.py`:

- a subscription follows the question at once, before the track is announced;
- an announcement has the whole path where its suffix belongs, and no message says that the list is live, or one says it
  in the form `01 02 00`, with a zero left over after the message;
- parameters are not even counted; the path over raw QUIC may have its slash twice;
- groups count from 1, and the numbers have gaps; a group 0 of ours is taken like any other, as gomoqt only hands the
  numbers on: 0 means "none" in INFO and in the bounds of a subscription alone;
- a stream's type, its message and each frame are writes of their own.

Over raw QUIC both programs were seen to send the bytes of their lines here, up to the texts of the messages.
"""

from __future__ import annotations

from .script import Close, Script, Silence, ours, ours_either, ours_leaves, peer, peer_leaves

HELLO = '00 11 01 c0000000ffffff00 01 01 05 "/echo"'
"""Stream type 0, SESSION_CLIENT with the PATH parameter."""
HELLO_WITH_TWO_SLASHES = '00 12 01 c0000000ffffff00 01 01 06 "//echo"'
"""The same from a client written for a server that puts a slash in front."""
HELLO_WITHOUT_PATH = "00 09 01 c0000000ffffff00"
"""Over WebTransport: parameters that were never made are not counted."""

GO_CLIENT: Script = (
    ours("session", "09 c0000000ffffff00 00", "SESSION_SERVER"),
    peer("echoes", "01", "stream type: announcements"),
    peer("echoes", '0d 02 05 "japan" 05 "kyoto"', "ANNOUNCE_PLEASE"),
    peer("copies", "02", "stream type: a subscription, to what is not announced"),
    peer("copies", '17 00 03 05 "japan" 05 "kyoto" 04 "text" 00 00 00 00', "SUBSCRIBE 0: zeros mean no preferences"),
    ours("offers", '01 0d 02 05 "japan" 05 "kyoto"', "ANNOUNCE_PLEASE"),
    ours("echoes", "02 02 00", "ANNOUNCE live: nothing yet"),
    Silence("the subscription waits for its track"),
    peer("offers", "01 02 00", "ANNOUNCE live, without a suffix, and the zero that was not counted"),
    peer("offers", '13 01 03 05 "japan" 05 "kyoto" 04 "text"', "ANNOUNCE active: the whole path"),
    ours("texts", '02 18 00 03 05 "japan" 05 "kyoto" 04 "text" 407f 01 00 00', "SUBSCRIBE 0"),
    peer("texts", "03 00 00 00", "INFO: no group yet"),
    peer("group-1", "00", "stream type: a group"),
    peer("group-1", "02 00 01", "GROUP 1, right after INFO"),
    peer("group-1", '05 "hello"', "FRAME", fin=True),
    ours("echoes", '07 01 01 04 "text"', "ANNOUNCE active: the echo"),
    ours("copies", "03 00 00 02", "INFO, the answer to the subscription that waited"),
    Silence("gomoqt has no place for a group before it has read INFO"),
    ours("group-1-copy", '00 02 00 01 05 "hello"', "GROUP 1", fin=True),
    peer("group-5", '00 02 00 05 05 "fifth"', "GROUP 5", fin=True),
    ours("group-5-copy", '00 02 00 05 05 "fifth"', "the same", fin=True),
    peer("group-7", '00 02 00 07 05 "after"', "GROUP 7: the loop in its loop has left one out", fin=True),
    ours("group-7-copy", '00 02 00 07 05 "after"', "the same", fin=True),
    Close("peer", 0),
)

GO_SERVER: Script = (
    peer("session", "08 c0000000ffffff00", "SESSION_SERVER, parameters not counted"),
    peer("offers", "01", "stream type: announcements"),
    peer("offers", '0d 02 05 "japan" 05 "kyoto"', "ANNOUNCE_PLEASE"),
    peer("texts", "02", "stream type: a subscription, to what is not announced"),
    peer("texts", '17 00 03 05 "japan" 05 "kyoto" 04 "text" 00 00 00 00', "SUBSCRIBE 0: zeros mean no preferences"),
    ours_either(
        "offers",
        '02 02 00 07 01 01 04 "text"',
        '07 01 01 04 "text" 02 02 00',
        what="ANNOUNCE live and active, whichever is first",
    ),
    ours("texts", "03 00 00 02", "INFO: no group yet, newest first"),
    ours("echoes", '01 0d 02 05 "japan" 05 "kyoto"', "ANNOUNCE_PLEASE"),
    Silence("without an echo the client sends nothing"),
    peer("echoes", '13 01 03 05 "japan" 05 "kyoto" 04 "text"', "ANNOUNCE active: the whole path, and never live"),
    ours("copies", '02 18 00 03 05 "japan" 05 "kyoto" 04 "text" 407f 01 00 00', "SUBSCRIBE 0"),
    peer("copies", "03 00 00 00", "INFO: no group yet"),
    ours(
        "group-0",
        '00 02 00 00 07 "hello 0"',
        "GROUP 0, in one piece: gomoqt copies what is there when it looks, and ends the copy",
        fin=True,
        whole=True,
    ),
    peer("group-0-copy", "00", "stream type: a group"),
    peer("group-0-copy", "02 00 00", "GROUP 0"),
    peer("group-0-copy", '07 "hello 0"', "the bytes that came, copied", fin=True),
    ours("group-1", '00 02 00 01 07 "hello 1"', "GROUP 1", fin=True, whole=True),
    peer("group-1-copy", "00", "stream type: a group"),
    peer("group-1-copy", '02 00 01 07 "hello 1"', "GROUP 1, its FRAME", fin=True),
    ours("texts", "", "the client's track has ended", fin=True, last=True),
    peer_leaves("texts", "gomoqt gives up both halves where it wanted an update", 0),
    ours_leaves("copies", "the client has enough", 0, last=True),
    ours_leaves("echoes", "and needs no more announcements", 0, last=True),
    ours("offers", '07 00 01 04 "text"', "ANNOUNCE ended", last=True),
    Close("ours", 0),
)
