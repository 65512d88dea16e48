"""The echo of the README in gomoqt's develop version, with a peer that keeps to the rules.

Each message is its length and its body. Bodies are put together by hand from the layouts of the vectors
(`tests/vectors/moq-lite.json`, dialect `gomoqt-develop`).
"""

from __future__ import annotations

from .script import Close, Script, Silence, ours, ours_leaves, peer, peer_gives_up, peer_refuses

HELLO = '00 11 01 c0000000ffffff00 01 01 05 "/echo"'
"""Stream type 0, SESSION_CLIENT: one version, one parameter: 1, PATH."""
HELLO_WITHOUT_PATH = "00 0a 01 c0000000ffffff00 00"
"""The same where a URI has the path."""
WELCOME = "09 c0000000ffffff00 00"
"""SESSION_SERVER: the version, no parameters."""

WE_SERVE: Script = (
    ours("session", WELCOME, "SESSION_SERVER"),
    ours("offers", '01 0d 02 05 "japan" 05 "kyoto"', "ANNOUNCE_PLEASE: what has the client below japan, kyoto?"),
    Silence("a server waits to hear of a track"),
    peer("session", "04 800f4240", "SESSION_UPDATE: one megabit per second"),
    peer("echoes", '01 0d 02 05 "japan" 05 "kyoto"', "ANNOUNCE_PLEASE: the same, of the server"),
    ours("echoes", "02 02 00", "ANNOUNCE live: nothing yet"),
    peer("offers", '07 01 01 04 "text"', "ANNOUNCE active: japan, kyoto, text"),
    peer("offers", "02 02 00", "ANNOUNCE live: that was all"),
    ours(
        "texts",
        '02 18 00 03 05 "japan" 05 "kyoto" 04 "text" 407f 01 00 00',
        "SUBSCRIBE 0: priority 127, ascending, no bounds",
    ),
    ours("echoes", '07 01 01 04 "text"', "ANNOUNCE active: the echo has the same path"),
    peer("texts", "03 00 00 00", "INFO: no group yet"),
    peer("copies", '02 17 00 03 05 "japan" 05 "kyoto" 04 "text" 00 00 00 00', "SUBSCRIBE 0: no preferences"),
    ours("copies", "03 00 00 02", "INFO: priority 0, no group yet, newest first"),
    peer("group-1", '00 02 00 01 05 "hello"', "GROUP: subscription 0, sequence 1; one FRAME", fin=True),
    Silence("groups wait about a round trip for INFO to be read"),
    ours("group-1-copy", '00 02 00 01 05 "hello"', "the same", fin=True),
    peer("group-2", '00 02 00 02 05 "never"', "GROUP 2, which will have no end"),
    ours("group-2-copy", '00 02 00 02 05 "never"', "the same, as soon as it is there"),
    peer("group-4", '00 02 00 04 03 "one" 00 03 "two"', "GROUP 4: an empty FRAME between two others", fin=True),
    peer("texts", "03 03 03 03", "SUBSCRIBE_GAP: group 3 has expired"),
    ours("group-4-copy", '00 02 00 04 03 "one" 00 03 "two"', "the same", fin=True),
    Silence("group 2 is still open"),
    peer("group-2", '03 "end"', "FRAME, and the end of group 2 after all", fin=True),
    ours("group-2-copy", '03 "end"', "the same", fin=True),
    peer("group-5", '00 02 00 05 04 "half"', "GROUP 5"),
    ours("group-5-copy", '00 02 00 05 04 "half"', "the same"),
    peer_gives_up("group-5", "interrupted", 1),
    ours_leaves("group-5-copy", "the copy ends as the group did", 1, half=True),
    ours("copies", "03 05 05 01", "SUBSCRIBE_GAP: group 5, interrupted"),
    peer("group-6", '00 02 00 06 05 "sixth"', "GROUP 6"),
    ours("group-6-copy", '00 02 00 06 05 "sixth"', "the same"),
    peer_refuses("group-6-copy", "gomoqt refuses a group whose subscription it does not know", 0),
    peer("group-7", '00 02 00 07 05 "after"', "GROUP 7: no other group is touched", fin=True),
    ours("group-7-copy", '00 02 00 07 05 "after"', "the same", fin=True),
    peer("group-6", "", "the end of group 6", fin=True),
    peer("copies", "", "the client has enough", fin=True),
    ours_leaves("copies", "the server sees that the client does not subscribe", 0, half=True),
    peer("texts", "", "the client's track has ended", fin=True),
    ours("texts", "", "so has the subscription", fin=True),
    ours("echoes", '07 00 01 04 "text"', "ANNOUNCE ended: the echo is over"),
    peer("offers", '07 00 01 04 "text"', "ANNOUNCE ended"),
    peer("offers", "", "nothing more will be announced", fin=True),
    ours("offers", "", "then there is nothing to do", fin=True, last=True),
    Close("ours", 0),
)

WE_CONNECT: Script = (
    peer("session", WELCOME, "SESSION_SERVER"),
    ours("echoes", '01 0d 02 05 "japan" 05 "kyoto"', "ANNOUNCE_PLEASE: what has the server below japan, kyoto?"),
    Silence("a client waits to be asked"),
    peer("offers", '01 0d 02 05 "japan" 05 "kyoto"', "ANNOUNCE_PLEASE: the same, of the client"),
    ours("offers", '07 01 01 04 "text" 02 02 00', "ANNOUNCE active: japan, kyoto, text; live: that was all"),
    peer("echoes", "02 02 00", "ANNOUNCE live: nothing yet"),
    peer("texts", '02 18 00 03 05 "japan" 05 "kyoto" 04 "text" 407f 01 00 00', "SUBSCRIBE 0: priority 127, ascending"),
    ours("texts", "04 407f 00 02", "INFO: priority 127, no group yet, newest first"),
    Silence("without an echo the client sends nothing"),
    peer("echoes", '07 01 01 04 "text"', "ANNOUNCE active: the echo has the same path"),
    ours("copies", '02 18 00 03 05 "japan" 05 "kyoto" 04 "text" 407f 01 00 00', "SUBSCRIBE 0: the echo"),
    peer("copies", "04 407f 00 00", "INFO: no group yet"),
    ours("group-0", '00 02 00 00 07 "hello 0"', "GROUP: subscription 0, sequence 0; one FRAME", fin=True),
    peer("group-0-copy", '00 02 00 00 07 "hello 0"', "the same", fin=True),
    ours("group-1", '00 02 00 01 07 "hello 1"', "GROUP 1", fin=True),
    peer("group-1-copy", '00 02 00 01 07 "hello 1"', "the same", fin=True),
    ours("texts", "", "the client's track has ended", fin=True, last=True),
    ours_leaves("copies", "the client has enough", 0, last=True),
    ours_leaves("echoes", "and needs no more announcements", 0, last=True),
    ours("offers", '07 00 01 04 "text"', "ANNOUNCE ended", last=True),
    Close("ours", 0),
)
