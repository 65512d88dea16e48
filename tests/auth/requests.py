"""What the tests of authorities ask with."""

from __future__ import annotations

import pytest

import moqt_trio as moqt
from moqt_trio.auth import AuthRequest


def asking(path: str = "/", token: str | None = None, **options) -> AuthRequest:
    """Return a request with a token in its query."""
    query = "" if token is None else f"jwt={token}"
    return AuthRequest(
        **{"id": "00" * 16, "event": "connect", "node": "test", "transport": "quic", "path": path}
        | {"query": query}
        | options
    )


async def refusal(admit, request) -> tuple[int, str]:
    """Return the status and the text with which a request is refused."""
    with pytest.raises(moqt.Unauthorized) as caught:
        await admit(request)
    assert caught.value.path == request.path
    assert caught.value.__cause__ is None
    return caught.value.status, str(caught.value)
