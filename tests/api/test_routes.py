"""Routes: who publishes, by which way it comes, what it costs, and what a peer gets when that changes."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

import moqt_trio as moqt
from moqt_trio.testing import serve_in_memory

WITH_COSTS = ("moq-lite-06", "moq-lite-06-wip")
WITH_UPDATES = (*WITH_COSTS, "moq-lite-05")
WITH_HOP_IDS = (*WITH_UPDATES, "moq-lite-04")
VERSIONS = moqt.version_names(opt_in=True)
ROLES = ("publisher", "subscriber", "both")


@asynccontextmanager
async def listening(version, transport="moqt", **options):
    """Run a server that reads announcements; yield a client's session, the server's, and the server's announcements."""
    accepted = trio.Event()
    sessions, lists = [], []

    async def handle(request):
        async with request.accept() as session, session.announcements() as announcements:
            sessions.append(session)
            lists.append(announcements)
            accepted.set()
            await session.wait_closed()

    async with (
        serve_in_memory(handle, versions=[version], hop_id=50) as server,
        server.connect(f"{transport}://localhost/", versions=[version], **options) as client,
    ):
        with trio.fail_after(10):
            await accepted.wait()
        yield client, sessions[0], lists[0]


async def unread(announcements):
    """Return the changes that have arrived, as `(active, updated, hops, cost, cold cost)`."""
    await trio.testing.wait_all_tasks_blocked()
    found = []
    while announcements._queue.items:
        item = await announcements.receive()
        found.append((item.active, item.updated, item.hops, item.cost, item.cold_cost))
    return found


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_changed_route(version):
    """A route that changes is an update for the peer, and an end and a start only where the version has no update.

    Where the version does not carry what changed, nothing is sent. The subscription that runs goes on in any case.
    """
    broadcast = moqt.Broadcast()
    track = broadcast.track("t")
    async with (
        listening(version, hop_id=7) as (client, peer, announcements),
        client.publish("cam", broadcast, hops=[3], cost=5) as publication,
    ):
        first = await announcements.receive()
        assert first.active
        # There is one cost on the way to moq-lite-06.
        one_cost = version == "moq-lite-06-wip"
        costs = (5, 0 if one_cost else 5) if version in WITH_COSTS else (0, 0)
        ids = version in WITH_HOP_IDS
        assert (first.cost, first.cold_cost) == costs
        assert first.hops == ((3, 7) if ids else (0, 0) if version == "moq-lite-03" else ())
        assert first.publisher == (3 if ids else None)
        async with peer.subscribe("cam", "t") as subscription:
            await track.write(b"before")
            assert await (await subscription.receive()).receive() == b"before"

            publication.update(hops=[3], cost=9, cold_cost=20)
            changes = await unread(announcements)
            cold = 0 if one_cost else 20
            assert changes == ([(True, True, (3, 7), 9, cold)] if version in WITH_COSTS else [])

            publication.update(hops=[3, 4], cost=9, cold_cost=20)
            changes = await unread(announcements)
            costs = (9, cold) if version in WITH_COSTS else (0, 0)
            hops = (3, 4, 7) if ids else (0, 0, 0)
            if version in WITH_UPDATES:
                assert changes == [(True, True, hops, *costs)]
            elif ids or version == "moq-lite-03":
                assert changes == [(False, False, (), 0, 0), (True, False, hops, *costs)]
            else:
                assert changes == []

            publication.update(hops=[3, 4], cost=9, cold_cost=20)
            assert await unread(announcements) == []
            await track.write(b"after")
            assert await (await subscription.receive()).receive() == b"after"


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-05", "moq-lite-01", "moqt-18"])
async def test_another_publication_is_no_update(version):
    """The same broadcast that is published again under its path has ended in between."""
    broadcast = moqt.Broadcast()
    async with listening(version) as (client, _, announcements):
        async with client.publish("cam", broadcast):
            await announcements.receive()
        async with client.publish("cam", broadcast, cost=3):
            changes = await unread(announcements)
            assert [item[:2] for item in changes] == [(False, False), (True, False)]


@pytest.mark.parametrize("version", ["moq-lite-06", "moqt-18"])
async def test_an_update_before_and_after_the_block(version):
    """A publication that is not announced takes another route in silence."""
    async with listening(version) as (client, _, announcements):
        publication = client.publish("cam", moqt.Broadcast(), cost=1)
        publication.update(cost=2)
        async with publication:
            assert (await announcements.receive()).cost == (2 if version in WITH_COSTS else 0)
        publication.update(cost=3)
        assert [item[0] for item in await unread(announcements)] == [False]


async def test_an_update_that_is_not_possible():
    """A number out of range is refused, and the route stays."""
    async with (
        listening("moq-lite-06") as (client, _, announcements),
        client.publish("cam", moqt.Broadcast(), cost=1) as publication,
    ):
        await announcements.receive()
        for wrong in ({"cost": -1}, {"hops": [1 << 62]}, {"cold_cost": 1 << 62}):
            with pytest.raises(ValueError, match=r"a hop id or a cost is 0 … 2\*\*62-1, not -?\d+"):
                publication.update(**wrong)
        assert await unread(announcements) == []


@pytest.mark.parametrize("transport", ["moqt", "https"])
@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-05", "moq-lite-04"])
async def test_a_hop_id_of_ones_own(version, transport):
    """`hop_id` is what a side is called in the hops of what it publishes, on a client and on a server."""
    async with (
        listening(version, transport, hop_id=7) as (client, peer, announcements),
        client.publish("cam", moqt.Broadcast()),
        peer.publish("clock", moqt.Broadcast()),
        client.announcements() as others,
    ):
        assert (client.hop_id, peer.hop_id) == (7, 50)
        assert (await announcements.receive()).publisher == 7
        assert (await others.receive()).publisher == 50


async def test_a_random_hop_id():
    """Without one it is drawn, and small enough for a peer that reads numbers as doubles."""
    found = set()
    for _ in range(3):
        async with listening("moq-lite-06") as (client, _, _):
            found.add(client.hop_id)
    assert len(found) == 3
    assert all(0 < hop_id < 2**53 for hop_id in found)


@pytest.mark.parametrize("transport", ["moqt", "https"])
@pytest.mark.parametrize("role", ROLES)
async def test_the_role_of_a_client(transport, role):
    """The server learns what a client will do: over raw QUIC with the request, over WebTransport on the session."""
    requests, known = [], []

    async def handle(request):
        requests.append(request.role)
        async with request.accept() as session:
            await session._context.setup_received.wait()
            known.append(session.peer_role)
            await session.wait_closed()

    async with (
        serve_in_memory(handle, versions=["moq-lite-06"]) as server,
        server.connect(f"{transport}://localhost/", role=role) as client,
    ):
        await trio.testing.wait_all_tasks_blocked()
        # A server says nothing of the kind.
        assert client.peer_role == "both"
    assert requests == [role if transport == "moqt" else "both"]
    assert known == [role]


@pytest.mark.parametrize("version", ["moq-lite-06", "moq-lite-05", "moq-lite-02", "moqt-18"])
async def test_the_cost_of_a_side(version):
    """`cost` is said in SETUP, where that carries one."""
    async with listening(version, cost=12) as (client, peer, _):
        assert client._context.core.setup.cost == 12
        setup = peer._context.core.peer_setup
        assert (setup and setup.cost) == (12 if version in WITH_UPDATES else None)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"hop_id": 0}, r"hop_id is 1 … 2\*\*62-1, not 0"),
        ({"hop_id": 1 << 62}, r"hop_id is 1 … 2\*\*62-1, not"),
        ({"cost": -1}, r"cost is 0 … 2\*\*62-1, not -1"),
        ({"role": "relay"}, "role is one of 'both', 'publisher', 'subscriber', not 'relay'"),
    ],
)
async def test_arguments_out_of_range(options, problem):
    """Each is named with what is allowed, before anything is sent."""
    with pytest.raises(ValueError, match=problem):
        async with moqt.connect("moqt://localhost:1/", **options):
            pass
    with pytest.raises(ValueError, match=problem):
        await moqt.stay_connected("moqt://localhost:1/", wait_closed, **options)
    if "role" not in options:
        with pytest.raises(ValueError, match=problem):
            await moqt.serve(moqt.Router({}), "localhost", 0, **options)


async def wait_closed(session):
    await session.wait_closed()
