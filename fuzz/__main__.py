"""`python -m fuzz`: feeds mutated messages of every version to the codecs and to the session's state machines.

Each input is read by a codec at one place of a stream, or fed to one side of a session in random pieces: as a stream
that the peer opened, as the reply to a request, or as a handshake. Only the documented exceptions may be raised, and no
input may take long. The exit code is 0 when both held.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from moqt_trio.errors import LocalProtocolError, RemoteProtocolError
from moqt_trio.limits import Limits
from moqt_trio.protocol.core import SessionCore
from moqt_trio.protocol.handshake import ClientHandshake, ServerHandshake
from moqt_trio.wire import dialect as dialects
from moqt_trio.wire.buffer import StreamBuffer
from moqt_trio.wire.messages import Expect

from . import ietf
from .feeding import feed
from .mutation import mutate

VECTORS = Path(__file__).parent.parent / "tests" / "vectors" / "moq-lite.json"
NAMES = {"transfork-03": "moq-transfork-03"}
SLOW_S = 0.010
LIMITS = Limits()


def samples() -> dict[str, list[bytes]]:
    """Return the bytes of the messages in the test vectors, by version."""
    found: dict[str, list[bytes]] = {}
    for vector in json.loads(VECTORS.read_text())["vectors"]:
        found.setdefault(NAMES.get(vector["dialect"], vector["dialect"]), []).append(bytes.fromhex(vector["hex"]))
    return {name: found[name] for name in (*dialects.version_names(), "moq-lite-06-wip") if name in found}


def read(dialect: dialects.Dialect, data: bytes, chance: random.Random) -> str:
    """Let a codec read all that it can, at a random place of a stream."""
    buffer = StreamBuffer()
    buffer.feed(data)
    expect = chance.choice(list(Expect))
    try:
        for _ in range(64):
            if dialect.read_untrusted(expect, buffer, LIMITS) is None:
                return "incomplete"
        return "read"
    except LocalProtocolError:
        return "no such place"
    except RemoteProtocolError as error:
        return type(error).__name__


def open_stream(dialect: dialects.Dialect, data: bytes, chance: random.Random) -> str:
    """Feed a stream that the peer opened to one side of a session."""
    core = SessionCore(dialect, is_client=bool(chance.randrange(2)), limits=LIMITS)
    core.subscribe("a", "t")
    if not chance.randrange(4):
        core.receive_datagram(data)
    return feed(core.accept_bidi() if chance.randrange(2) else core.accept_uni(), data, chance)


def reply(dialect: dialects.Dialect, data: bytes, chance: random.Random) -> str:
    """Feed the answer to a request of ours to the side that made it."""
    core = SessionCore(dialect, is_client=bool(chance.randrange(2)), limits=LIMITS, hop_id=3)
    requests = (
        lambda: core.request_announcements("live"),
        lambda: core.subscribe("a", "t"),
        lambda: core.fetch("a", "t", 1),
        lambda: core.request_track_info("a", "t"),
        core.probe,
    )
    try:
        machine = chance.choice(requests)()
    except LocalProtocolError:
        return "no such place"
    return feed(machine, data, chance)


def run_handshake(dialect: dialects.Dialect, data: bytes, chance: random.Random) -> str:
    """Feed the stream of the handshake to one side of it, in a version that has one."""
    if chance.randrange(2):
        server = ServerHandshake((dialect,), LIMITS, path_on_wire=bool(chance.randrange(2)))
        return feed(server, data if chance.randrange(2) else b"\x00" + data, chance)
    form = chance.choice(dialect.handshakes)
    return feed(ClientHandshake((dialect,), LIMITS, form=form, path="/"), data, chance)


TARGETS = (read, open_stream, reply, run_handshake)
"""What an input is tried on; the last one only where the version has a handshake."""


class Subject(NamedTuple):
    """A version.

    Attributes:
        name: Its name.
        samples: Messages of it.
        targets: What an input is tried on, each with the text that its outcomes begin with.
    """

    name: str
    samples: list[bytes]
    targets: tuple[tuple[str, Callable[[bytes, random.Random], str]], ...]


def subjects() -> list[Subject]:
    """Return the versions."""
    found = []
    for name, known in samples().items():
        dialect = dialects.get(name)
        targets = TARGETS if dialect.in_band else TARGETS[:-1]
        found.append(Subject(name, known, tuple((each.__name__, partial(each, dialect)) for each in targets)))
    for draft, known in ietf.samples().items():
        tried = tuple((each.__name__, partial(each, ietf.PROFILES[draft])) for each in ietf.targets(draft))
        found.append(Subject(f"draft {draft}", known, tried))
    return found


def run(count: int, seed: int) -> int:
    """Try so many inputs; print a count of the outcomes, and each failure. Return the exit code."""
    chance = random.Random(seed)
    versions = subjects()
    everything = [data for subject in versions for data in subject.samples]
    outcomes: Counter[str] = Counter()
    failures = 0
    slow: list[tuple[float, str, str]] = []
    longest = 0.0
    began = time.perf_counter()
    for number in range(count):
        subject = versions[number % len(versions)]
        data = mutate(chance.choice(subject.samples), everything, chance)
        what, target = subject.targets[number // len(versions) % len(subject.targets)]
        start = time.perf_counter()
        try:
            outcome = target(data, chance)
        except Exception as error:
            failures += 1
            outcome = f"UNDOCUMENTED {type(error).__name__}"
            if failures <= 5:
                print(f"{subject.name} {what} {data.hex()}", file=sys.stderr)
                traceback.print_exc()
        took = time.perf_counter() - start
        longest = max(longest, took)
        if took > SLOW_S:
            # A pause of the machine does not repeat; a slow input does.
            again = min(_time(target, data, seed) for _ in range(3))
            if again > SLOW_S:
                slow.append((again, subject.name, data.hex()[:80]))
        outcomes[f"{what}: {outcome}"] += 1
    seconds = time.perf_counter() - began
    for outcome, times in outcomes.most_common():
        print(f"{times:>10,}  {outcome}")
    print(
        f"{count:,} inputs of {len(versions)} versions in {seconds:.0f} s (seed {seed}); undocumented exceptions: "
        f"{failures}; over {SLOW_S * 1000:.0f} ms each time: {len(slow)}; longest single: {longest * 1000:.1f} ms"
    )
    for again, name, shown in slow[:5]:
        print(f"slow: {again * 1000:.1f} ms, {name}, {shown}", file=sys.stderr)
    return 1 if failures or slow else 0


def _time(target: Callable[[bytes, random.Random], str], data: bytes, seed: int) -> float:
    chance = random.Random(seed)
    start = time.perf_counter()
    target(data, chance)
    return time.perf_counter() - start


def main() -> int:
    """Read the command line, try the inputs, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs to try (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random numbers (default: %(default)s)")
    options = parser.parse_args()
    return run(options.count, options.seed)


if __name__ == "__main__":
    sys.exit(main())
