"""The connection ids of an aioquic server, and the tokens of their stateless resets.

1.  Ids. aioquic 1.7 makes them at random. Where several processes serve one port, an id has to lead back to the process
    that chose it (see `steering.py`): `choose_ids` replaces the first one, and each later one as it is made.
    Tests: `test_chosen_ids`, `test_an_id_is_replaced_before_it_is_sent`.
2.  Stateless reset (RFC 9000, section 10.3). aioquic gives out random tokens, which nothing can repeat after a restart,
    and keeps the peer's without looking at them. Here they come from a key. `endings.py` has what the peer's does.
    Test: `test_stateless_reset`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioquic.quic.connection import QuicConnection

from ..stateless_reset import reset_token

if TYPE_CHECKING:
    from collections.abc import Callable


class OwnIdsConnection(QuicConnection):
    """A connection with the fixes of this file. Only a server's is told to use them."""

    _new_id: Callable[[], bytes] | None = None
    _reset_key: bytes | None = None

    def choose_ids(self, new_id: Callable[[], bytes], reset_key: bytes) -> None:
        """Choose a server's connection ids, and derive their tokens from a key; call it before the first packet.

        Args:
            new_id: Returns another id each time, as long as aioquic's.
            reset_key: The secret behind the tokens.
        """
        self._new_id, self._reset_key = new_id, reset_key
        self._choose_from(0)
        # The id that packets of the handshake carry, and the transport parameter that repeats it.
        self.host_cid = self._local_initial_source_connection_id = self._host_cids[0].cid

    def _replenish_connection_ids(self) -> None:
        known = self._host_cid_seq
        super()._replenish_connection_ids()
        self._choose_from(known)

    def _choose_from(self, first: int) -> None:
        """Replace the ids from this sequence number on, and derive their tokens."""
        if self._new_id is None or self._reset_key is None:
            return
        for connection_id in self._host_cids:
            if connection_id.sequence_number >= first:
                connection_id.cid = self._new_id()
                connection_id.stateless_reset_token = reset_token(self._reset_key, connection_id.cid)
