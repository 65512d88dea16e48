"""The states of a stream's halves: what moves them, what does not, and what each byte's credit becomes."""

from __future__ import annotations

import re

import pytest
import trio

from moqt_trio.errors import SessionClosed, StreamReset
from moqt_trio.transport import receive_stream, send_stream
from moqt_trio.transport.interface import StreamBackend, StreamHandler
from moqt_trio.transport.receive_stream import ReceiveState, ReceiveStream
from moqt_trio.transport.send_stream import SendState, SendStream
from moqt_trio.transport.stream import BidiStream
from tests.transport.recorders import Recorder


class Backend(StreamBackend):
    """Writes down what a stream asks for."""

    send_high = 100
    send_full = False

    def __init__(self):
        self.asked = []
        self.buffered = 0

    def stream_write(self, stream_id, data, fin):
        self.asked.append(("write", data, fin))

    def stream_buffered(self, stream_id):
        return self.buffered

    def stream_held_up(self, stream_id):
        return False

    def stream_room(self, stream_id):
        return self.send_high - self.buffered

    def stream_watch(self, stream_id):
        self.asked.append("watch")

    def stream_keep_prefix(self, stream_id, size):
        pass

    def stream_reset(self, stream_id, code):
        self.asked.append(("reset", code))

    def stream_stop(self, stream_id, code):
        self.asked.append(("stop", code))

    def stream_consumed(self, stream_id, count):
        self.asked.append(("consumed", count))

    def stream_done(self, stream_id):
        self.asked.append("done")


def shows(stream, state):
    """Return whether a half is in a state, as a log shows it."""
    half = "send" if isinstance(state, SendState) else "receive"
    return re.search(rf"\b{half}={state.value}( \w+=|>)", repr(stream)) is not None


@pytest.mark.parametrize(
    ("states", "table"), [(ReceiveState, receive_stream.TRANSITIONS), (SendState, send_stream.TRANSITIONS)]
)
def test_the_tables_are_complete(states, table):
    """Every state has a row, and every state but the first follows another."""
    assert set(table) == set(states)
    assert {state for row in table.values() for state in row} == set(states) - {next(iter(states))}


SEND_EVENTS = {
    "write": lambda stream: stream.write(b"x"),
    "fin": lambda stream: stream.write(b"x", True),
    "finish": lambda stream: stream.finish(),
    "reset": lambda stream: stream.reset(7),
    "stop": lambda stream: stream.deliver_stop(9),
    "acknowledged": lambda stream: stream.deliver_send_finished(),
}
READY, SEND, DATA_SENT, DATA_RECVD, RESET_SENT = SendState
REFUSED = None
SENT = {
    #            write    fin        finish      reset       stop        acknowledged
    READY:      (SEND,    DATA_SENT, DATA_SENT,  RESET_SENT, RESET_SENT, READY),
    SEND:       (SEND,    DATA_SENT, DATA_SENT,  RESET_SENT, RESET_SENT, SEND),
    DATA_SENT:  (REFUSED, REFUSED,   DATA_SENT,  RESET_SENT, RESET_SENT, DATA_RECVD),
    DATA_RECVD: (REFUSED, REFUSED,   DATA_RECVD, DATA_RECVD, DATA_RECVD, DATA_RECVD),
    RESET_SENT: (REFUSED, REFUSED,   RESET_SENT, RESET_SENT, RESET_SENT, RESET_SENT),
}  # fmt: skip
REACH_SEND = {
    READY: (),
    SEND: ("write",),
    DATA_SENT: ("fin",),
    DATA_RECVD: ("fin", "acknowledged"),
    RESET_SENT: ("reset",),
}


@pytest.mark.parametrize("kind", [SendStream, BidiStream])
@pytest.mark.parametrize("event", SEND_EVENTS)
@pytest.mark.parametrize("state", SendState)
def test_sending_half(kind, state, event):
    """Each event in each state leads where RFC 9000 says; writing on a half that has ended is refused."""
    stream = kind(Backend(), 0)
    for step in REACH_SEND[state]:
        SEND_EVENTS[step](stream)
    assert shows(stream, state)
    expected = SENT[state][list(SEND_EVENTS).index(event)]
    if expected is REFUSED:
        with pytest.raises(trio.ClosedResourceError):
            SEND_EVENTS[event](stream)
        expected = state
    else:
        SEND_EVENTS[event](stream)
    assert shows(stream, expected)
    assert stream.send_ended == (expected not in (READY, SEND))


RECEIVE_EVENTS = {
    "data": lambda stream: stream.deliver(b"abc", False),
    "fin": lambda stream: stream.deliver(b"abc", True),
    "reset": lambda stream: stream.deliver_reset(7),
    "stop": lambda stream: stream.stop(9),
}


@pytest.mark.parametrize("kind", [ReceiveStream, BidiStream])
@pytest.mark.parametrize("handled", [False, True])
@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("end", ["fin", "reset"])
def test_receiving_half(kind, handled, stopped, end):
    """A half ends once; without a handler that stopped it or was called with it, the end waits for a reader."""
    backend = Backend()
    stream = kind(backend, 0)
    recorder = Recorder()
    if handled:
        stream.handler = recorder
    RECEIVE_EVENTS["data"](stream)
    if stopped:
        stream.stop(9)
        assert shows(stream, ReceiveState.RECV)
        assert stream.receive_ended
    RECEIVE_EVENTS[end](stream)
    known = handled or stopped
    ends = {
        "fin": (ReceiveState.DATA_RECVD, ReceiveState.DATA_READ),
        "reset": (ReceiveState.RESET_RECVD, ReceiveState.RESET_READ),
    }
    assert shows(stream, ends[end][known])
    RECEIVE_EVENTS["reset"](stream)
    assert shows(stream, ends[end][known])
    stream.stop(1)
    assert shows(stream, ends[end][True])
    arrived = 6 if end == "fin" else 3
    assert sum(each[1] for each in backend.asked if each[0] == "consumed") == arrived
    assert backend.asked.count("done") == 1
    stream.consumed(100)
    assert sum(each[1] for each in backend.asked if each[0] == "consumed") == arrived


async def read_into(stream, data):
    while piece := await stream.receive_some():
        data += piece


def reset_after(droppable):
    """Return a stream that got `abc` and `def` and was reset, and what it asked for."""
    backend = Backend()
    stream = ReceiveStream(backend, 3)
    stream.deliver(b"abc", False)
    stream.deliver(b"def", False)
    stream.deliver_reset(7, droppable)
    return stream, backend


@pytest.mark.parametrize(
    ("droppable", "kept"), [(None, b""), (9, b""), (6, b""), (5, b"a"), (2, b"abcd"), (0, b"abcdef")]
)
@pytest.mark.parametrize("reader", ["handler", "task"])
async def test_bytes_that_a_reset_keeps(droppable, kept, reader):
    """What must be read in spite of a reset is read before it; credit for the rest is returned at once."""
    stream, backend = reset_after(droppable)
    dropped = 6 - len(kept)
    assert backend.asked == [("consumed", dropped)] * bool(dropped)
    recorder = Recorder()
    if reader == "handler":
        stream.handler = recorder
        assert recorder.data == kept
        assert recorder.events == ["data"] * bool(kept) + [("reset", 7)]
        stream.consumed(len(kept))
    else:
        read = bytearray()
        with pytest.raises(StreamReset) as raised:
            await read_into(stream, read)
        assert (read, raised.value.code) == (kept, 7)
    assert sum(each[1] for each in backend.asked if each[0] == "consumed") == 6
    assert backend.asked.count("done") == 1


def test_bytes_that_a_reset_keeps_for_the_next_handler():
    """A handler that puts back what it was given does not hear of the reset: the next one has both, in order."""
    stream, backend = reset_after(2)
    second = Recorder()

    class First(StreamHandler):
        def data_received(self, data, fin):
            stream.consumed(1)
            stream.unread(data[1:], fin)
            stream.handler = second

        def reset_received(self, code):
            pytest.fail("it has handed the stream over")

    stream.handler = First()
    assert second.data == b"bcd"
    assert second.events == ["data", ("reset", 7)]
    stream.consumed(3)
    assert backend.asked.count("done") == 1


def test_a_stopped_half_keeps_nothing():
    """A reset of a half that is refused returns the credit of all of it."""
    backend = Backend()
    stream = ReceiveStream(backend, 3)
    stream.deliver(b"abc", False)
    stream.stop(1)
    stream.deliver_reset(7, 0)
    assert backend.asked == [("consumed", 3), ("stop", 1), "done"]


def test_illegal_moves_are_impossible():
    """A half cannot be put into a state that its table does not allow."""
    stream = BidiStream(Backend(), 0)
    stream.reset(1)
    with pytest.raises(AssertionError, match="Data Sent"):
        stream._move_send(SendState.DATA_SENT)
    with pytest.raises(AssertionError, match="Data Read"):
        stream._move_receive(ReceiveState.DATA_READ)


def test_a_unidirectional_stream_has_one_half():
    """What concerns the half that a stream lacks does nothing."""
    backend = Backend()
    sending, receiving = SendStream(backend, 2), ReceiveStream(backend, 3)
    sending.deliver(b"x", True)
    sending.deliver_reset(1)
    receiving.deliver_stop(1)
    receiving.deliver_send_finished()
    assert backend.asked == []
    assert not sending.ended
    assert not receiving.ended


@pytest.mark.parametrize(
    ("kind", "asked"),
    [(SendStream, [("reset", 5)]), (ReceiveStream, [("stop", 5)]), (BidiStream, [("reset", 5), ("stop", 5)])],
)
@pytest.mark.parametrize("session_lost", [False, True])
def test_cancel(kind, asked, session_lost):
    """`cancel` ends each open half once, also when the stream's session has ended and its connection goes on."""
    backend = Backend()
    stream = kind(backend, 0)
    if session_lost:
        stream.deliver_session_lost(SessionClosed(reason="over"))
    stream.cancel(5)
    stream.cancel(6)
    assert backend.asked == asked
    assert stream.ended


def test_a_peer_that_stops_a_stream_has_the_writer_learn_its_code():
    """After STOP_SENDING writing raises the peer's code, and a reset of our own changes nothing."""
    backend = Backend()
    stream = SendStream(backend, 2)
    stream.write(b"x")
    stream.deliver_stop(9)
    stream.reset(1)
    with pytest.raises(StreamReset) as caught:
        stream.write(b"y")
    assert caught.value.code == 9
    assert backend.asked == [("write", b"x", False)]
