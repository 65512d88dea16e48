"""Plays the recorded side of a conversation, and holds the other side to its lines byte by byte."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import trio
import trio.testing

from .script import Close, Line, Script, Silence, is_one_way

if TYPE_CHECKING:
    from .peers import Arrived, Peer

PATIENCE = 10.0
"""Seconds that the side under test has for each of its lines; a virtual clock makes nothing of them."""


class Replay:
    """One run of a conversation.

    Args:
        peer: The bare transport of the recorded side.
        by_bytes: True to write, and send off, each byte by itself.
        watch_silence: True where the clock is virtual: only there can a test wait until nothing more comes.
        codes: From a stream code of the version's to what stands for it on the transport.
    """

    def __init__(
        self, peer: Peer, *, by_bytes: bool, watch_silence: bool, codes: Callable[[int], int] = lambda code: code
    ) -> None:
        self._peer = peer
        self._by_bytes = by_bytes
        self._watch_silence = watch_silence
        self._codes = codes
        self._ids: dict[str, int] = {}
        self._read: dict[str, int] = {}

    async def run(self, script: Script) -> None:
        """Plays a conversation to its end; raises AssertionError at the first line that is not as it was recorded."""
        for number, step in enumerate(script, 1):
            where = f"line {number}, {step}"
            match step:
                case Silence():
                    await self._check_silence(where)
                case Close():
                    await self._close(step, where)
                case Line(who="peer"):
                    self._write(step)
                case Line():
                    await self._expect(step, where)
        self._check_nothing_left("the end")

    # -- the recorded side ---------------------------------------------------------------------------------

    def _write(self, line: Line) -> None:
        if line.stream not in self._ids:
            self._ids[line.stream] = self._peer.open(one_way=is_one_way(line.stream))
        stream = self._ids[line.stream]
        (data,) = line.choices
        pieces = [data[at : at + 1] for at in range(len(data))] if self._by_bytes and data else [data]
        for piece in pieces[:-1]:
            self._peer.write(stream, piece, False)
        if pieces[-1] or line.fin:
            self._peer.write(stream, pieces[-1], line.fin)
        if line.reset is not None:
            self._peer.reset(stream, self._codes(line.reset))
        if line.stop is not None:
            self._peer.stop(stream, self._codes(line.stop))
            # RESET_STREAM is the answer (RFC 9000, section 3.5), which not every transport lets through.
            self._peer.arrived[stream].reset_expected = True

    # -- the side under test -------------------------------------------------------------------------------

    async def _expect(self, line: Line, where: str) -> None:
        arrived = await self._arrived(line.stream, where)
        at = self._read.get(line.stream, 0)

        def complete() -> bool:
            data = bytes(arrived.data[at:])
            possible = [choice for choice in line.choices if choice.startswith(data[: len(choice)])]
            expected = " or ".join(choice.hex() for choice in line.choices)
            assert possible, f"{where}: expected {expected}, not {data.hex()}"
            return any(len(choice) <= len(data) for choice in possible)

        await self._wait(complete, where, arrived, or_closed=line.last)
        self._read[line.stream] = min(at + len(line.choices[0]), len(arrived.data))
        assert not line.whole or arrived.pieces == 1, f"{where}: it came in {arrived.pieces} pieces"
        if line.fin:
            await self._wait(lambda: arrived.fin or arrived.reset is not None, where, arrived, or_closed=line.last)
            assert arrived.reset is None, f"{where}: reset with {arrived.reset}"
            assert len(arrived.data) == self._read[line.stream], f"{where}: more came: {arrived.data.hex()}"
            arrived.fin_expected = True
        if line.reset is not None:
            due = [None if code is None else self._codes(code) for code in (line.reset, line.stop)]
            missing = due.count(None)
            await self._wait(lambda: arrived.codes.count(None) == missing, where, arrived, or_closed=line.last)
            assert arrived.codes == due or (line.last and set(arrived.codes) <= {None, *due}), f"{where}: {arrived}"
            arrived.reset_expected = True

    async def _arrived(self, name: str, where: str) -> Arrived:
        """Returns what has arrived on a stream; waits for the side under test to open it."""
        if name not in self._ids:
            one_way = is_one_way(name)
            await self._wait(lambda: self._unclaimed(one_way), where, None)
            self._ids[name] = min(self._unclaimed(one_way))
        return self._peer.arrived[self._ids[name]]

    def _unclaimed(self, one_way: bool) -> list[int]:
        # Bit 1 of a stream's number says whether it goes one way (RFC 9000, section 2.1).
        claimed = self._ids.values()
        return [number for number in self._peer.arrived if number not in claimed and bool(number & 2) == one_way]

    async def _wait(
        self, condition: Callable[[], bool], where: str, arrived: Arrived | None, *, or_closed: bool = False
    ) -> None:
        with trio.move_on_after(PATIENCE):
            while not condition():
                if or_closed and self._peer.closed is not None:
                    return
                assert self._peer.closed is None, f"{where}: the session was closed with {self._peer.closed}"
                await self._peer.wait_changed()
            return
        raise AssertionError(f"{where}: did not come; there is {arrived}")

    async def _check_silence(self, where: str) -> None:
        if self._watch_silence:
            await trio.testing.wait_all_tasks_blocked()
            assert self._peer.closed is None, f"{where}: the session was closed with {self._peer.closed}"
            self._check_nothing_left(where)

    def _check_nothing_left(self, where: str) -> None:
        names = {number: name for name, number in self._ids.items()}
        for number, arrived in self._peer.arrived.items():
            assert number in names, f"{where}: an unexpected stream: {arrived}"
            name = names[number]
            assert len(arrived.data) == self._read.get(name, 0), f"{where}: more came on {name}: {arrived}"
            assert arrived.fin_expected or not arrived.fin, f"{where}: an unexpected end of {name}: {arrived}"
            assert arrived.reset_expected or arrived.codes == [None, None], f"{where}: {name} is given up: {arrived}"

    async def _close(self, close: Close, where: str) -> None:
        if close.who == "peer":
            self._peer.close(close.code)
            return
        with trio.move_on_after(PATIENCE):
            while self._peer.closed is None:
                await self._peer.wait_changed()
        assert self._peer.closed == close.code, f"{where}: closed with {self._peer.closed}"
