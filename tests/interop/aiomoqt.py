"""The aiomoqt package, which is asyncio on picoquic, in processes of its own.

It shares no line with this project, and needs a later Python than it: `make peers` installs it.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

import moqt_trio as moqt
from tests.interop.moq_rs import payloads
from tests.interop.processes import PEERS, Child, other_program

_ENVIRONMENT = Path(sys.prefix) / "peers"
PYTHON = _ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

needs_aiomoqt = pytest.mark.skipif(
    not any(_ENVIRONMENT.glob("**/site-packages/aiomoqt/__init__.py")),
    reason="aiomoqt is not installed: run `make peers`",
)

DRAFTS = [14, 16, 18, 20, 22]
SCHEMES = ["moqt", "https"]
TRANSPORTS = {"moqt": "quic", "https": "webtransport-h3"}
"""What aiomoqt calls the transport of each scheme."""


@attrs.frozen
class RelayServer:
    """The relay of `relay_server.py`.

    Attributes:
        child: Its process.
        port: Where it listens, for both transports and every version.
    """

    child: Child
    port: int

    def url(self, scheme: str) -> str:
        """Returns its URL."""
        return f"{scheme}://127.0.0.1:{self.port}"


@contextmanager
def relay_server() -> Iterator[RelayServer]:
    """Runs the relay."""
    with Child("-m", "tests.peers.relay_server") as child:
        yield RelayServer(child, child.wait_event("listening")["port"])
        child.end_input()
        assert child.wait_ended() == 0


@attrs.frozen
class Case:
    """One run of the interop client.

    Attributes:
        draft: The only draft that it offers.
        scheme: `moqt` or `https`.
        name: The case.
    """

    draft: int
    scheme: str
    name: str

    def __str__(self) -> str:
        return f"{self.draft}-{self.scheme}-{self.name}"


@attrs.frozen
class Outcome:
    """What the interop client reported of a case.

    Attributes:
        verdict: `ok` or `not ok`, and what follows the name: `# SKIP`, with the reason, or `# COMPAT`.
        message: Its message.
        spoken: The draft and the transport of each of its sessions, as it found them.
        output: Everything that it printed.
    """

    verdict: str
    message: str
    spoken: set[tuple[str, str]]
    output: str


CASE_SECONDS = 60.0
"""Seconds for one case; the client's own deadlines are of up to 15."""

_RESULT = re.compile(r"(ok|not ok) 1 - \S+ ?(.*)")


def run_case(relay: RelayServer, case: Case) -> Outcome:
    """Runs the client, and reads the result in its output, which is TAP 14."""
    module = "aiomoqt.tools.moq_interop_client"
    arguments = ["-m", module, "-r", relay.url(case.scheme), "--draft", str(case.draft), "--tls-disable-verify"]
    # All clients share the relay, and the names of their cases are the same within a second.
    prefix = f"{case.draft}/{case.scheme}"
    with other_program(str(PYTHON), *arguments, "-t", case.name, "--namespace-prefix", prefix) as client:
        client.wait_ended(CASE_SECONDS)
        output, lines = client.output, [line.strip() for line in client.lines]
    result = next((match for line in lines if (match := _RESULT.fullmatch(line))), None)
    assert result is not None, output
    fields = [line.partition(": ")[::2] for line in lines]
    versions = [text.strip('"') for key, text in fields if key == "moqt_version"]
    transports = [text.strip('"') for key, text in fields if key == "transport"]
    message = next((text.strip('"') for key, text in fields if key == "message"), "")
    verdict = f"{result[1]} {result[2]}".strip()
    return Outcome(verdict, message, set(zip(versions, transports, strict=True)), output)


# -- the agent, which carries out commands ---------------------------------------------------------------------

WAIT = 10.0
"""Seconds that aiomoqt has for each event: far more than it needs, on a busy machine too."""
SECONDS = 20.0
"""Seconds that a session may take; longer than `WAIT`, so that the event that is missing fails first."""


@attrs.frozen
class Pairing:
    """How aiomoqt's client is connected to a server of ours.

    Attributes:
        draft: The draft that both speak.
        scheme: `moqt` or `https`.
    """

    draft: int
    scheme: str

    def __str__(self) -> str:
        return f"{self.draft}-{self.scheme}"


class CommandFailed(AssertionError):
    """A command that aiomoqt could not carry out, or that its peer refused; with its text."""


class Aiomoqt:
    """The process of `aiomoqt_agent.py`. Only one task at a time may wait for its events.

    Attributes:
        child: The process.
        failed: True once a test failed: its later events may be of that test's session.
    """

    def __init__(self, child: Child) -> None:
        self.child = child
        self.failed = False
        self._events: list[dict[str, Any]] = []
        child.wait_event("ready")

    async def do(self, do: str, **arguments: object) -> None:
        """Has it carry out a command."""
        self.child.tell(json.dumps({"do": do, **arguments}))
        await self._outcome(do)

    async def _outcome(self, do: str) -> None:
        while not any(event["event"] in ("did", "failed") for event in self._events):
            await self._next()
        outcome = next(event for event in self._events if event["event"] in ("did", "failed"))
        self._events.remove(outcome)
        if outcome["event"] == "failed":
            raise CommandFailed(outcome["text"])
        assert outcome["do"] == do

    async def wait(self, event: str, **fields: object) -> dict[str, Any]:
        """Returns the next event of this name and with these fields; other events are kept for later calls."""
        wanted = {"event": event, **fields}
        tried = 0
        while True:
            for index in range(tried, len(self._events)):
                if wanted.items() <= self._events[index].items():
                    return self._events.pop(index)
            tried = len(self._events)
            await self._next()

    async def _next(self) -> None:
        line = await trio.to_thread.run_sync(self.child.wait_line, lambda line: line.startswith("{"), WAIT)
        self._events.append(json.loads(line))

    @asynccontextmanager
    async def session(self, pairing: Pairing) -> AsyncIterator[moqt.Session]:
        """Yields our end of a session with it, which has to be open at the end of the block."""
        try:
            with trio.fail_after(SECONDS):
                async with self._served(pairing) as session:
                    yield session
        except BaseException as error:
            self.failed = True
            error.add_note(self.child.output[-4000:])
            raise

    @asynccontextmanager
    async def _served(self, pairing: Pairing) -> AsyncIterator[moqt.Session]:
        accepted: list[moqt.Session] = []
        ready, done = trio.Event(), trio.Event()

        async def handle(request: moqt.SessionRequest) -> None:
            async with request.accept() as session:
                accepted.append(session)
                ready.set()
                await done.wait()

        version = f"moqt-{pairing.draft}"
        async with trio.open_nursery() as nursery:
            serve = partial(moqt.serve, handle, "127.0.0.1", 0, versions=[version])
            listener = await nursery.start(serve)
            await self.do("connect", url=f"{pairing.scheme}://127.0.0.1:{listener.port}", draft=pairing.draft)
            about = await self.wait("session")
            assert (about["draft"], about["transport"]) == (pairing.draft, OWN_TRANSPORTS[pairing.scheme])
            await ready.wait()
            assert accepted[0].version == version
            try:
                yield accepted[0]
                assert accepted[0].closed is None
                await self.do("close")
                await self.wait("closed")
                self._events.clear()
                # Over WebTransport the resets of its streams come first, the control stream's among them.
                error = await accepted[0].wait_closed()
                assert isinstance(error, moqt.SessionClosed)
                assert (error.by_peer, error.remote_code) == (True, 0)
            finally:
                done.set()
                await listener.aclose(grace=0)


OWN_TRANSPORTS = {"moqt": "quic", "https": "webtransport"}
"""What aiomoqt's session calls the transport of each scheme."""


@contextmanager
def aiomoqt_agents() -> Iterator[Any]:
    """Yields a function that returns the process that runs, or a new one after a failure."""
    running: list[Aiomoqt] = []
    children: list[Child] = []

    def current() -> Aiomoqt:
        if not running or running[-1].failed:
            child = other_program(str(PYTHON), str(PEERS / "aiomoqt_agent.py"))
            children.append(child.__enter__())
            running.append(Aiomoqt(child))
        return running[-1]

    try:
        yield current
    finally:
        for child in children:
            child.__exit__(None, None, None)


# -- what the tests of contents have in common -----------------------------------------------------------------

PAIRINGS = [Pairing(draft, scheme) for draft in DRAFTS for scheme in SCHEMES]


def pairings_from(draft: int) -> pytest.MarkDecorator:
    """Parametrizes a test with the pairings of a draft and of those after it."""
    return pytest.mark.parametrize("pairing", [item for item in PAIRINGS if item.draft >= draft], ids=str)


each_pairing, from_16_on, from_18_on = map(pairings_from, (14, 16, 18))

GROUPS = {group: payloads(group, 4) for group in range(4)}
"""The frames of each group: some are empty, and some span many packets."""


def written(groups: dict[int, list[bytes]]) -> dict[tuple[int, int], bytes]:
    """Returns the payloads of groups by group and object id."""
    return {(group, index): frame for group, frames in groups.items() for index, frame in enumerate(frames)}


async def fetched_by(aiomoqt: Aiomoqt, count: int) -> dict[tuple[int, int], bytes]:
    """Returns so many objects that it fetched, in their order, once its fetch is complete."""
    assert (await aiomoqt.wait("complete"))["clean"]
    objects = [await aiomoqt.wait("fetched") for _ in range(count)]
    places = [(item["group"], item["id"]) for item in objects]
    assert places == sorted(places)
    return {place: bytes.fromhex(item["payload"]) for place, item in zip(places, objects, strict=True)}


async def write(track: moqt.Track, groups: dict[int, list[bytes]]) -> None:
    """Writes whole groups."""
    for sequence, frames in groups.items():
        async with track.open_group(sequence) as group:
            for frame in frames:
                await group.send(frame)
