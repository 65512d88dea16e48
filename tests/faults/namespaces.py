"""Network namespaces: a client and a server with a router between them, apart from the networks of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest

from tests.interop.processes import Child, other_program

CLIENT, SERVER = "10.203.1.2", "10.203.2.2"
_ROUTER_TO = {CLIENT: "10.203.1.1", SERVER: "10.203.2.1"}


@attrs.frozen
class Routed:
    """Three namespaces: the client's, the router's and the server's.

    Attributes:
        names: The namespaces of the client's and of the server's address.
        router: The router's namespace.
    """

    names: dict[str, str]
    router: str

    def start(self, address: str, *arguments: str) -> Child:
        """Start a Python process in the namespace that has an address; the arguments follow the interpreter."""
        return other_program(_ip(), "netns", "exec", self.names[address], sys.executable, *arguments)

    def drop_packets_to(self, address: str) -> None:
        """Have the router drop what goes to an address, without an ICMP message."""
        _run("-n", self.router, "route", "add", "blackhole", f"{address}/32")


def _ip() -> str:
    found = shutil.which("ip", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip("there is no ip command here")
    return found


def _run(*arguments: str) -> None:
    done = subprocess.run([_ip(), *arguments], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@contextmanager
def routed_namespaces() -> Iterator[Routed]:
    """Make the namespaces, and remove them at the end. Skip the test where that is not permitted."""
    names = [f"moqt-{os.getpid()}-{name}" for name in ("client", "server", "router")]
    network = Routed({CLIENT: names[0], SERVER: names[1]}, names[2])
    made = []
    try:
        try:
            for name in names:
                _run("netns", "add", name)
                made.append(name)
                _run("-n", name, "link", "set", "lo", "up")
            for number, (address, router) in enumerate(_ROUTER_TO.items()):
                name = network.names[address]
                there = f"to{number}"
                _run("link", "add", "wire", "netns", name, "type", "veth", "peer", "name", there, "netns", names[2])
                _run("-n", name, "address", "add", f"{address}/24", "dev", "wire")
                _run("-n", names[2], "address", "add", f"{router}/24", "dev", there)
                _run("-n", name, "link", "set", "wire", "up")
                _run("-n", names[2], "link", "set", there, "up")
                _run("-n", name, "route", "add", "default", "via", router)
            forward = "/proc/sys/net/ipv4/ip_forward"
            _run("netns", "exec", names[2], sys.executable, "-c", f"open('{forward}', 'w').write('1')")
        except OSError as error:
            pytest.skip(f"network namespaces cannot be made here: {error}")
        yield network
    finally:
        for name in made:
            _run("netns", "delete", name)
