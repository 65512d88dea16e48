"""The echo of the README in moq-transfork-03, with a peer that keeps to the rules.

No message has a length: each ends after its last field. Put together by hand from the layouts of the vectors
(`tests/vectors/moq-lite.json`, dialect `transfork-03`).
"""

from __future__ import annotations

from .script import Close, Script, Silence, ours, ours_leaves, peer, peer_gives_up

HELLO = '00 01 c0000000ff0bad03 01 01 05 "/echo"'
"""Stream type 0, SESSION_CLIENT: one version, one extension: 1, PATH."""
HELLO_WITHOUT_PATH = "00 01 c0000000ff0bad03 00"
"""The same where a URI has the path."""
WELCOME = "c0000000ff0bad03 00"
"""SESSION_SERVER: the version, no extensions."""

WE_SERVE: Script = (
    ours("session", WELCOME, "SESSION_SERVER"),
    ours("offers", '01 02 05 "japan" 05 "kyoto"', "ANNOUNCE_PLEASE: what has the client below japan, kyoto?"),
    Silence("a server waits to hear of a track"),
    peer("session", "800f4240", "SESSION_UPDATE: one megabit per second"),
    peer("echoes", '01 02 05 "japan" 05 "kyoto"', "ANNOUNCE_PLEASE: the same, of the server"),
    ours("echoes", "02", "ANNOUNCE live: nothing yet"),
    peer("offers", '01 01 04 "text" 02', "ANNOUNCE active: japan, kyoto, text; live: that was all"),
    ours(
        "texts",
        '02 00 03 05 "japan" 05 "kyoto" 04 "text" 407f 01 8036ee80 00 00',
        "SUBSCRIBE 0: priority 127, ascending, expires after 3600 s, no bounds",
    ),
    ours("echoes", '01 01 04 "text"', "ANNOUNCE active: the echo has the same path"),
    peer("texts", "00 00 00 00", "INFO: no group yet"),
    peer("copies", '02 00 03 05 "japan" 05 "kyoto" 04 "text" 00 00 00 00 00', "SUBSCRIBE 0: no preferences"),
    ours("copies", "00 00 02 00", "INFO: priority 0, no group yet, newest first"),
    peer("group-0", '00 00 00 05 "hello"', "GROUP: subscription 0, sequence 0; one FRAME", fin=True),
    ours("group-0-copy", '00 00 00 05 "hello"', "the same", fin=True),
    peer("group-1", '00 00 01 05 "never"', "GROUP 1, which will have no end"),
    ours("group-1-copy", '00 00 01 05 "never"', "the same, as soon as it is there"),
    peer("group-3", '00 00 03 03 "one" 00 03 "two"', "GROUP 3: an empty FRAME between two others", fin=True),
    peer("texts", "02 00 03", "SUBSCRIBE_GAP: from group 2, no further one, expired"),
    ours("group-3-copy", '00 00 03 03 "one" 00 03 "two"', "the same", fin=True),
    Silence("group 1 is still open"),
    peer("group-1", '03 "end"', "FRAME, and the end of group 1 after all", fin=True),
    ours("group-1-copy", '03 "end"', "the same", fin=True),
    peer("group-4", '00 00 04 04 "half"', "GROUP 4"),
    ours("group-4-copy", '00 00 04 04 "half"', "the same"),
    peer_gives_up("group-4", "cancelled", 1),
    ours_leaves("group-4-copy", "the copy ends as the group did", 1, half=True),
    ours("copies", "04 00 01", "SUBSCRIBE_GAP: from group 4, no further one, cancelled"),
    peer("copies", "", "the client has enough", fin=True),
    ours_leaves("copies", "the server sees that the client does not subscribe", 1, half=True),
    peer("texts", "", "the client's track has ended", fin=True),
    ours("texts", "", "so has the subscription", fin=True),
    ours("echoes", '00 01 04 "text"', "ANNOUNCE ended: the echo is over"),
    peer("offers", '00 01 04 "text"', "ANNOUNCE ended"),
    Silence("another track may come, until the client ends the session"),
    peer("session", "", "the end of the session", fin=True),
    Close("ours", 0),
)

WE_CONNECT: Script = (
    peer("session", WELCOME, "SESSION_SERVER"),
    ours("echoes", '01 02 05 "japan" 05 "kyoto"', "ANNOUNCE_PLEASE: what has the server below japan, kyoto?"),
    Silence("a client waits to be asked"),
    peer("offers", '01 02 05 "japan" 05 "kyoto"', "ANNOUNCE_PLEASE: the same, of the client"),
    ours("offers", '01 01 04 "text" 02', "ANNOUNCE active: japan, kyoto, text; live: that was all"),
    peer("echoes", "02", "ANNOUNCE live: nothing yet"),
    peer("texts", '02 00 03 05 "japan" 05 "kyoto" 04 "text" 407f 01 00 00 00', "SUBSCRIBE 0: priority 127, ascending"),
    ours("texts", "407f 00 02 00", "INFO: priority 127, no group yet, newest first"),
    Silence("without an echo the client sends nothing"),
    peer("echoes", '01 01 04 "text"', "ANNOUNCE active: the echo has the same path"),
    ours("copies", '02 00 03 05 "japan" 05 "kyoto" 04 "text" 407f 01 8036ee80 00 00', "SUBSCRIBE 0: the echo"),
    peer("copies", "407f 00 00 00", "INFO: no group yet"),
    ours("group-0", '00 00 00 07 "hello 0"', "GROUP: subscription 0, sequence 0; one FRAME", fin=True),
    peer("group-0-copy", '00 00 00 07 "hello 0"', "the same", fin=True),
    ours("group-1", '00 00 01 07 "hello 1"', "GROUP 1", fin=True),
    peer("group-1-copy", '00 00 01 07 "hello 1"', "the same", fin=True),
    ours("texts", "", "the client's track has ended", fin=True, last=True),
    ours_leaves("copies", "the client has enough", 1, last=True),
    ours_leaves("echoes", "and needs no more announcements", 1, last=True),
    ours("offers", '00 01 04 "text"', "ANNOUNCE ended", last=True),
    Close("ours", 0),
)
