"""A network of the kernel's own whose router drops packets: sessions of two processes in network namespaces."""

from __future__ import annotations

import sys
import time

import pytest

from tests.faults.namespaces import CLIENT, SERVER, routed_namespaces
from tests.faults.network_end import SCHEMES

IDLE = 2.0
"""Seconds of the idle timeout."""
BUSY = 3.0
"""Seconds by which a busy machine may notice late."""


@pytest.mark.skipif(sys.platform != "linux", reason="network namespaces are Linux's")
@pytest.mark.parametrize("lost", [[SERVER], [CLIENT], [SERVER, CLIENT]], ids=["to server", "to client", "both ways"])
def test_a_router_that_drops_packets(lost):
    """Sessions over both transports end with `SessionClosed` in both processes, within the idle timeout after the last
    packet, and neither process has a task left of them."""
    with routed_namespaces() as network:
        module = ("-m", "tests.faults.network_end")
        with network.start(SERVER, *module, "server", SERVER, str(IDLE)) as server:
            server.wait_event("ready")
            with network.start(CLIENT, *module, "client", SERVER, str(IDLE)) as client:
                for end in (server, client):
                    for _ in SCHEMES:
                        end.wait_event("reading")
                for address in lost:
                    network.drop_packets_to(address)
                began = time.monotonic()
                for end in (client, server):
                    ended = [end.wait_event("ended") for _ in SCHEMES]
                    print("\n", *(f"{event['time'] - began:.2f} s" for event in ended), end="")
                    for event in ended:
                        assert (event["kind"], event["reason"]) == ("SessionClosed", "idle timeout")
                        assert event["time"] - began < IDLE + BUSY
                for end in (client, server):
                    end.tell("")
                    event = end.wait_event("alone")
                    assert event["tasks"] == event["before"]
                    assert sum('"raised"' in line for line in end.lines) == len(SCHEMES)
