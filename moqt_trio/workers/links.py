"""Links between the workers of a port: what is announced to one of them is announced to the clients of all.

Each worker serves a port of its own on 127.0.0.1, and connects to the workers before it: one session for each two of
them, which announces both ways. The parent made the sockets, so a worker that starts late, or again, finds there what
was sent to it before. Any process of the machine can send to these ports. A worker is known by its certificate,
whose key the parent made and only the workers have, and by the secret in the query of the URL, which only they know.

The links speak moq-lite-06 whatever the clients speak: its announcements carry hops, so that none goes round in a ring.
"""

from __future__ import annotations

import hmac
from functools import partial
from typing import TYPE_CHECKING

import trio

from ..arguments import want
from ..block import require_trio
from ..client.backoff import Backoff
from ..relay.origin import Origin
from ..server.routing import Router
from ..server.serve import serve
from ..server.worker import LinkPorts, Worker
from ..tasks import open_unwrapping_nursery

if TYPE_CHECKING:
    from ..server.routing import SessionRequest

_VERSION = "moq-lite-06"
_BACKOFF = Backoff(retries=None, initial=0.1, maximum=1.0)
"""A worker that died is back within a fraction of a second, or within the few seconds of the parent's patience."""


@trio.lowlevel.enable_ki_protection
async def link_workers(worker: Worker, origin: Origin) -> None:
    """Share the broadcasts of a relay with those of the other workers, until cancelled.

    Every worker calls it with an origin of its own, made in the worker: each has a hop id of its own. Workers may start
    in any order, end and come back; what they announced is withdrawn meanwhile. The links cost nothing (cost 0): a
    route through another worker is as good as one without. Each worker with viewers reads a track once.

    Args:
        worker: What `run_workers` handed to this process.
        origin: What its sessions share.
    """
    require_trio()
    want(worker, Worker, "worker is what run_workers hands to each process")
    want(origin, Origin, "origin is the Origin that the sessions of this worker share")
    links = worker._links
    if links is None:
        raise ValueError("this worker has no others: it was not made by run_workers")

    async def accept(request: SessionRequest) -> None:
        if not hmac.compare_digest(request.query.encode(), links.secret.encode()):
            await request.reject(403)
            return
        async with request.accept(view=origin.view()) as session:
            await session.wait_closed()

    async with open_unwrapping_nursery() as nursery:
        nursery.start_soon(partial(_serve, worker, links, Router({"/": accept}), origin.hop_id))
        for index in range(worker.index):
            nursery.start_soon(partial(_connect, links, index, origin))


async def _serve(worker: Worker, links: LinkPorts, router: Router, hop_id: int) -> None:
    private = Worker(
        0,
        1,
        host="127.0.0.1",
        port=links.port(worker.index),
        sockets=[links.sockets[worker.index]],
        reset_key=worker._reset_key,
    )
    await serve(router, worker=private, certificate=links.certificate, versions=[_VERSION], hop_id=hop_id, cost=0)


async def _connect(links: LinkPorts, index: int, origin: Origin) -> None:
    await origin.link(
        f"moqt://127.0.0.1:{links.port(index)}/?{links.secret}",
        cost=0,
        retry=_BACKOFF,
        versions=[_VERSION],
        fingerprint=links.certificate.fingerprint,
    )
