"""The rules of a session without I/O: one state machine for each stream, and the ids and limits that they share.

Bytes go in and events come out; a method call returns the bytes that the caller writes on that machine's stream.
Nothing here waits, reads a clock or opens a stream.

    session/                                    this package
    ────────                                    ────────────
    a stream of ours is wanted                  core.subscribe(…), core.group(…) …  → a machine
    writes machine.opening first
    the peer opened a stream                    core.accept_bidi() / core.accept_uni()  → a machine
    bytes, FIN, reset or stop arrive            machine.receive_data / receive_reset / receive_stop  → events
    answers                                     machine.accept(…), machine.frames(…) …  → bytes to write
    the stream is over, or was cancelled        machine.release()

| file | what it owns |
|---|---|
| `core.py` | `SessionCore`: makes the machines, reads the type of the peer's streams, routes datagrams |
| `state.py` | what the machines of one session share: ids, counts, the peer's SETUP and GOAWAY |
| `machine.py` | the base of every machine: messages out of bytes, FIN, reset, release, the states of an answer |
| `events.py` | what happened on a stream |
| `handshake.py` | which version a session speaks, and the stream of the in-band handshake |
| `paths.py` | a path as a peer or the caller wrote it, made canonical and bounded |
| `announce.py` `subscribe.py` `group.py` `fetch.py` | one kind of stream each, both ends of it |
| `track.py` `probe.py` `goaway.py` `setup.py` | the same |
| `announced_tracks.py` | announcements that name tracks: the broadcasts that they belong to |
| `ietf/` | the same machines for the IETF's moq-transport, which tell the same events |

A machine is named for its end of the stream: a `…Requester` opens it and sends the request, a `…Responder` answers.

`receive_data` raises `RemoteProtocolError`, `Malformed` or `LimitExceeded` for a mistake of the peer's; nothing else
here raises because of a peer. The `scope` of the exception says what the caller ends with its `code`: the stream, whose
sending half it resets and whose receiving half it stops, or the session. The events of the bytes before the mistake
are in `machine.partial_events`: the caller handles them first, so that the cuts of the stream make no difference.
After that a machine ignores whatever still arrives.

`LocalProtocolError` is raised for a mistake of the caller's; the machine's state is then as it was before.
"""
