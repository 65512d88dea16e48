"""Staying connected: a handler for one session after another, wherever the server sends this client.

This file joins the parts: `succession.py` has the tasks, `redirection.py` says where a GOAWAY may lead, `backoff.py`
how long to wait, and `client.py` opens a session.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import attrs

from ..url import SessionUrl
from .backoff import Backoff
from .connect import ConnectOptions, Fingerprints, open_session
from .redirect import RedirectPolicy, Target, Trail, allow_same_authority
from .succession import Succession

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from ..limits import Limits
    from ..session.session import Session

T = TypeVar("T")

_DEFAULT_BACKOFF = Backoff()


async def stay_connected(
    url: str,
    handler: Callable[[Session], Awaitable[T]],
    *,
    redirect: RedirectPolicy = allow_same_authority,
    max_redirects: int = 3,
    redirect_networks: Collection[str] = (),
    retry: Backoff | None = _DEFAULT_BACKOFF,
    versions: Sequence[str] | None = None,
    fingerprint: Fingerprints | None = None,
    cafile: str | None = None,
    verify: bool = True,
    origin: str | None = None,
    limits: Limits | None = None,
) -> T:
    """Runs a handler on a session, and on the next one when the server asks to leave or the session is lost.

    `await handler(session)` runs in a task and a cancel scope of its own for each session. What belongs to a session
    ends with it, so the handler announces and subscribes anew each time; a `Broadcast` may be published again as it is.

    - On GOAWAY the next session is opened and its handler started first. Then the handler before it has
      `Limits.drain_timeout` to end by itself, before it is cancelled and its session closed; until then both run. It
      can `await session.wait_goaway()` to know that it should begin nothing new.
    - When a session is lost without GOAWAY, its handler has as long to read what has arrived, and the next session is
      opened at the same URL after the delays of `retry`.
    - A handler that returns ends the call, which returns what the handler returned, unless the server had asked for
      this session to end: then only the session ends, because a server that leaves ends its tracks, too, and that looks
      like a job that is done. A handler that knows better cancels a scope around the call.
    - An exception of a handler cancels everything and is raised bare. Only what says no more than that the session is
      ending does not count: `SessionClosed` on one that was lost, and `SessionClosed`, `StreamReset` or `GoingAway` on
      one that the server had asked to end.
    - The first session's failure to open is raised at once. Later ones are retried while they may pass: no answer, no
      server there, a status of 500 and above, a lost connection. A refusal (status 4xx), an untrusted certificate and
      a missing version are raised. So is the last error when the retries are used up.
    - When no next session can be had, the handler has `Limits.drain_timeout` before the error is raised.

    A GOAWAY without a URI leads to the same URL again. One with a URI is followed if it is a whole `https:` or `moqt:`
    URI and `redirect` allows it; by default only the path may change. To another scheme, host or port, when allowed,

    - the query of the URL does not go along, unless the new URI has one: it may be a credential;
    - `verify=False` does not go along, while `fingerprint` and `cafile` do: they narrow whom to trust, and without them
      any public authority could vouch for the new server;
    - the addresses that the name resolves to are checked, and only those that passed are connected to: public ones,
      those of the same kind (loopback, private, …) as the address of the server that sent the GOAWAY, and those in
      `redirect_networks`.

    When a redirect's place does not answer, the attempts alternate between it and the place before it.

    Args:
        url: As for `connect`; here the first session is opened.
        handler: What to do with a session. It does not have to close it.
        redirect: Says which moves to another place are allowed.
        max_redirects: How many GOAWAYs are followed in a row, with or without a URI, until a session lasts for
            `Limits.settle_time`.
        redirect_networks: Networks to which a redirect to another authority may lead, such as `["10.0.0.0/8"]`.
        retry: The delays, and how many attempts may follow each other until a session lasts for `Limits.settle_time`;
            None tries nothing twice: a lost session ends the call, and so does a redirect to where nobody answers.
        versions: As for `connect`, and so the arguments that follow.

    Returns:
        What the handler returned.

    Raises:
        RedirectRefused: A GOAWAY leads to where this client does not go, or the redirects lead nowhere.
        SessionClosed: A session was lost, and there are no retries left or they would not help.
        ConnectError: No next session came about.
        Rejected: A server refused.
        ValueError: As for `connect`, or a value of the redirects is out of range.
        TypeError: `redirect` is an async function, whose every answer would count as yes.

    Spec: draft-lcurley-moq-lite-06, sections 5.1.6, 7.18 and 10.2.

    Limits: `drain_timeout`, `settle_time`, `connect_timeout`, `close_timeout`.
    """
    terms = ConnectOptions.check(
        versions=versions, fingerprint=fingerprint, cafile=cafile, verify=verify, origin=origin, limits=limits
    )
    trail = Trail(url, policy=redirect, max_redirects=max_redirects, networks=redirect_networks)

    def open_target(target: Target) -> AbstractAsyncContextManager[Session]:
        where = SessionUrl.parse(target.url)
        if not target.foreign:
            return open_session(where, terms)
        return open_session(where, attrs.evolve(terms, verify=True), choose=partial(trail.choose_addresses, target))

    return await Succession(open_target, handler, trail=trail, retry=retry, limits=terms.limits).run(Target(url))
