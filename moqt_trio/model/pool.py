"""CachePool: one bound on the memory of many tracks' caches.

Theory of operation. Each cache that shares the pool has an account, with what its groups cost now: their payload, and
what Python needs for each frame and group beside it. The accounts are in the order of their last use, a write or a
reader that begins. When the sum exceeds the bound, groups leave from the cache whose account was used the longest ago,
its oldest group first, until a sixteenth of the bound is free. The latest group of a track stays: a subscriber begins
with it. Only when nothing else is left, the latest groups lose their first frames, by halves.
"""

from __future__ import annotations

import operator
import weakref
from typing import Final, Protocol

GROUP_COST: Final = 300
"""Bytes of memory for a group beside its frames; measured on CPython 3.11."""
FRAME_COST: Final = 290
"""Bytes of memory for a frame beside its payload; the same."""
_SLACK: Final = 16
"""Freeing a sixteenth of the pool at a time spares the search for each frame."""


class PooledCache(Protocol):
    """A cache that shares a pool."""

    @property
    def cost(self) -> int:
        """Bytes of memory that its groups take, about."""
        ...

    def drop_oldest(self) -> bool:
        """Drop the oldest group that has ended and is not the latest; return whether there was one."""
        ...

    def halve_latest(self) -> bool:
        """Drop the first half of a group that has several frames; return whether there was one."""
        ...


class CachePool:
    """A bound that caches share.

    Args:
        most_bytes: What they may cost together.

    Attributes:
        total: What they cost now.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.total = 0
        # The least recently used one first.
        self._accounts: dict[CacheAccount, None] = {}
        self._evicting = False

    def open(self, cache: PooledCache) -> CacheAccount:
        """Return the account of a cache; it is closed when the cache is gone."""
        account = CacheAccount(self, cache)
        self._accounts[account] = None
        return account

    def use(self, account: CacheAccount) -> None:
        """Record that an account is used now."""
        if not self._evicting:
            del self._accounts[account]
            self._accounts[account] = None

    def charge(self, cost: int) -> None:
        """Add to the total, or take from it, and evict when it is too high."""
        self.total += cost
        if self.total > self.most_bytes and not self._evicting:
            self._evicting = True
            try:
                self._evict(self.most_bytes - self.most_bytes // _SLACK)
            finally:
                self._evicting = False

    def close(self, account: CacheAccount) -> None:
        """Forget an account."""
        del self._accounts[account]
        self.total -= account.billed
        account.billed = 0

    def _evict(self, wanted: int) -> None:
        for drops in (operator.methodcaller("drop_oldest"), operator.methodcaller("halve_latest")):
            for account in tuple(self._accounts):
                cache = account.cache
                while self.total > wanted and cache is not None and drops(cache):
                    account.bill(cache.cost)
                if self.total <= wanted:
                    return


class CacheAccount:
    """What one cache costs in a pool.

    Attributes:
        billed: What it cost when it last said so.
    """

    def __init__(self, pool: CachePool, cache: PooledCache) -> None:
        self._pool = pool
        self.billed = 0
        # The pool has the account, and the account no cache: what a track had is free when the track is gone.
        self._cache = weakref.ref(cache, self._close)

    @property
    def cache(self) -> PooledCache | None:
        """The cache, until it is gone."""
        return self._cache()

    def use(self) -> None:
        """Record that the cache is written or begun to be read."""
        self._pool.use(self)

    def bill(self, cost: int) -> None:
        """Say what the cache costs now."""
        change, self.billed = cost - self.billed, cost
        self._pool.charge(change)

    def _close(self, _: object) -> None:
        self._pool.close(self)
