"""moq-relay, a relay in Rust that shares no line with this project, as a process of its own.

It is named by the environment variable MOQ_RELAY: a path, or a name that is found on PATH. `make relay-interop` says
how to get it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import attrs
import pytest
import trio

import moqt_trio as moqt
from moqt_trio.certificates import Certificate, development_certificate
from moqt_trio.certificates.pem import certificate_to_pem, key_to_pem
from tests.interop.processes import Child, other_program

MOQ_RELAY = shutil.which(os.environ.get("MOQ_RELAY", ""))
"""The program, if there is one."""

REASON = "MOQ_RELAY names no moq-relay: `cargo install moq-relay`, then `make relay-interop MOQ_RELAY=moq-relay`"

_LISTENING = re.compile(r"listening.* addr=127\.0\.0\.1:(\d+)")


@cache
def certificate() -> Certificate:
    """The certificate of every moq-relay here."""
    return development_certificate()


@attrs.frozen(eq=False)
class MoqRelay:
    """A moq-relay that listens.

    Attributes:
        child: Its process.
        port: Where it listens.
        hop_id: Its hop id.
    """

    child: Child
    port: int
    hop_id: int

    def url(self, scheme: str = "moqt", query: str = "") -> str:
        """Where a client connects."""
        return f"{scheme}://localhost:{self.port}/{query}"

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of its certificate."""
        return certificate().fingerprint

    def connect(self, version: str = "moq-lite-06", scheme: str = "moqt", **options):
        """Returns a session of ours with it."""
        return moqt.connect(self.url(scheme), versions=[version], fingerprint=self.fingerprint, **options)

    def kill(self) -> None:
        """Ends it without a word."""
        self.child.send_signal(signal.SIGKILL)

    def ask_to_end(self) -> None:
        """Sends SIGTERM."""
        self.child.send_signal(signal.SIGTERM)

    async def wait_ended(self) -> int:
        """Waits for its end, and returns its exit code."""
        return await trio.to_thread.run_sync(self.child.wait_ended)

    async def wait_logged(self, text: str) -> str:
        """Waits for a further line of its log with a text, and returns it."""
        return await trio.to_thread.run_sync(self.child.wait_line, lambda line: text in line)


def _certificate_options(directory: str) -> list[str]:
    files = {
        "--listen-tls-cert": certificate_to_pem(certificate().certificate),
        "--listen-tls-key": key_to_pem(certificate().private_key),
    }
    options: list[str] = []
    for option, content in files.items():
        path = Path(directory, option.removeprefix("--"))
        path.write_bytes(content)
        options += [option, str(path)]
    return options


@asynccontextmanager
async def moq_relay(
    *arguments: str, hop_id: int, port: int = 0, connect: Sequence[str] = (), drain: float = 0
) -> AsyncIterator[MoqRelay]:
    """Runs a moq-relay on loopback.

    Args:
        arguments: More of its command line.
        hop_id: Its hop id.
        port: Where it listens; 0 for any free port.
        connect: The URLs of the neighbours that it dials.
        drain: Seconds for which it serves after SIGTERM; 0 ends its sessions at once.
    """
    if MOQ_RELAY is None:
        pytest.skip(REASON)
    with TemporaryDirectory() as directory:
        command = [MOQ_RELAY, "--listen", f"127.0.0.1:{port}", "--auth-public", "**", "--cluster-id", str(hop_id)]
        command += _certificate_options(directory)
        for url in connect:
            command += ["--cluster-connect", url]
        command += ["--connect-tls-insecure", "--drain-timeout", f"{round(drain * 1000)}ms", *arguments]
        with other_program(*command, one_output=True, environment={"NO_COLOR": "1"}) as child:
            relay = MoqRelay(child, port, hop_id)
            found = _LISTENING.search(await relay.wait_logged("listening"))
            assert found is not None
            yield attrs.evolve(relay, port=int(found[1]))
