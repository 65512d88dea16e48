"""The sans-IO session: one state machine for each stream, and the ids and limits that they share.

Bytes go in and typed events come out; a method call returns the bytes that the driver writes on that machine's
stream. Nothing here waits, reads a clock, opens a stream or knows what carries it.

    driver                                      this package
    ──────                                      ────────────
    a stream of ours is wanted                  core.subscribe(…), core.group(…) …  → a machine
    writes machine.opening first
    the peer opened a stream                    core.accept_bidi() / core.accept_uni()  → a machine
    bytes, FIN, reset or stop arrive            machine.receive_data / receive_reset / receive_stop  → events
    answers                                     machine.accept(…), machine.frames(…) …  → bytes to write
    the stream is over, or was given up         machine.release()

| file | what it owns |
|---|---|
| `core.py` | `SessionCore`: makes the machines, routes datagrams |
| `incoming.py` | the first bytes of a stream that the peer opened |
| `state.py` | what the machines of one session share: ids, counts, what the peer said once |
| `machine.py` | what every machine does alike: cutting messages, FIN, reset, release |
| `paths.py` | a peer's spelling of a path, made canonical and bounded |
| `announce.py` `subscribe.py` `group.py` `fetch.py` | one kind of stream each, both ends of it |
| `track.py` `probe.py` `goaway.py` `setup.py` | the same |
| `announced_tracks.py` | announcements that name tracks: which broadcasts they add up to |
| `negotiation.py` | which version a session speaks, before there is a core |
| `handshake.py` | the stream of the handshake, in the versions that have one |
| `events.py` | what the machines tell |

Three exceptions leave a machine because of a peer: `RemoteProtocolError`, `Malformed` and `LimitExceeded`. Their
`scope` says what the driver ends with their `code`: the stream (reset *and* stop it), or the session. What the
bytes said in front of the mistake is in `machine.events_before`: the driver tells it first, so that it makes no
difference how the stream was cut. After that a machine ignores whatever still arrives.
"""
