"""Connection ids and addresses that change while groups are sent, in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.faults.group_transfer import SCHEMES, connection_of, open_ends, transfer
from tests.faults.simulated_udp import simulated_network

if TYPE_CHECKING:
    import moqt_trio as moqt

SENDERS = ["client", "server"]
KEPT = 16
"""Connection ids of one connection that a listener keeps at most."""


def change_id(session: moqt.Session) -> None:
    """Have this side use the next connection id that the other side gave it."""
    connection = connection_of(session)
    connection._engine._quic.change_connection_id()
    connection.wake()


def id_in_use(session: moqt.Session) -> bytes:
    """Return the id that this side puts into its packets: one of the other side's."""
    return connection_of(session)._engine._quic._peer_cid.cid


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_new_ids_during_a_transfer(autojump_clock, scheme, sender):
    """Both sides change their connection ids again and again while groups are sent: all arrive, and what is kept of the
    ids does not grow."""
    async with simulated_network(), open_ends(scheme) as ends:
        used: dict[moqt.Session, set[bytes]] = {ends.client: set(), ends.server: set()}
        routes = ends.listener._quic._routes

        async def change(sequence: int) -> None:
            for side, step in ((ends.client, 5), (ends.server, 7)):
                if sequence % step == step - 1:
                    change_id(side)
                used[side].add(id_in_use(side))
            assert len(routes) <= KEPT
            # The ids that replace these take a round trip.
            await trio.sleep(0.02)

        await transfer(ends, sender, 200, before=change)
        assert len(used[ends.client]) > 30
        assert len(used[ends.server]) > 20
        assert ends.listener.statistics().connections_accepted == ends.listener.statistics().sessions_accepted == 1
        await trio.sleep(1)
        assert set(routes) & used[ends.client] == {id_in_use(ends.client)}


@pytest.mark.parametrize("new_id", [False, True], ids=["same id", "new id"])
@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize("scheme", SCHEMES)
async def test_new_addresses_during_a_transfer(autojump_clock, scheme, sender, new_id):
    """A NAT gives the client a new port again and again while groups are sent, and what was on its way to the old one
    is lost: all arrive in the same session, and only a few paths are kept."""
    async with simulated_network() as network, open_ends(scheme) as ends:

        async def rebind(sequence: int) -> None:
            if sequence % 10 == 9:
                network.rebind()
                if new_id:
                    change_id(ends.client)

        with trio.fail_after(120):
            await transfer(ends, sender, 300, before=rebind)
        assert ends.listener.statistics().connections_accepted == ends.listener.statistics().sessions_accepted == 1
        assert len(connection_of(ends.server)._engine._quic._network_paths) <= 8
        assert len(ends.listener._quic._routes) <= KEPT


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_what_went_to_an_old_address(autojump_clock, scheme):
    """A server that sends to a client which only receives learns of its new address by a PING. Then it sends at once
    what went to the old one, and does not wait for a probe timeout that has doubled meanwhile."""
    heard: list[float] = []
    sent: list[float] = []
    moved = False

    def forward(data: bytes, from_client: bool) -> list[tuple[float, bytes]]:
        if moved and from_client:
            heard.append(trio.current_time())
        elif heard and len(data) > 500:
            sent.append(trio.current_time())
        return [(0.0, data)]

    async with simulated_network() as network, open_ends(scheme) as ends:
        network.forward = forward

        async def rebind(sequence: int) -> None:
            nonlocal moved
            if sequence == 20:
                # Until all is acknowledged.
                await trio.sleep(1)
                network.rebind()
                moved = True

        with trio.fail_after(15):
            await transfer(ends, "server", 200, before=rebind)
    print(f"\n{scheme}: {sent[0] - heard[0]:.2f} s after the PING")
    assert sent[0] - heard[0] < 0.5
