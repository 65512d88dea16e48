"""The wall clock is set while sessions run: nothing happens, as only certificates and grants have dates."""

from __future__ import annotations

import ast
import datetime as dt
import time
from functools import partial
from pathlib import Path

import aioquic.tls
import pytest
import trio

import moqt_trio as moqt
from moqt_trio.certificates import certificate, store

PACKAGE = Path(moqt.__file__).parent

READS = {
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "time.asctime", "time.strftime"),
    *("time.clock_gettime", "time.clock_gettime_ns", "email.utils.formatdate", "email.utils.localtime"),
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"),
}
"""What reads the wall clock."""

PERMITTED = {
    # Whether a certificate is valid, and how long; its callers take the time as a parameter.
    "certificates/certificate.py": {"utc_now"},
    # When a token or a grant expires, which another machine has said in Unix time.
    "auth/claims.py": {"check_time"},
    "auth/client.py": {"ask"},
    "auth/server.py": {"_bounded"},
    "lease.py": {"deadline_of"},
}
"""The functions that may."""

USES_DATES = {"certificates/certificate.py", "certificates/store.py", "cli/certificates.py"}
"""The modules that may use them."""


def functions_that_read_the_wall_clock(tree: ast.Module) -> set[str]:
    """Return the names of the functions whose code names something of `READS`; "" is the module itself."""
    full: dict[str | None, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            # Without `as`, `import a.b` binds `a`.
            full |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            full |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    found = set()

    def visit(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        if isinstance(node, ast.Name | ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            name = full.get(first, first) + ("." + rest if rest else "")
            if name in READS:
                found.add(function)
        for child in ast.iter_child_nodes(node):
            visit(child, function)

    visit(tree, "")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import time\ndef f(): return time.time()",
        "import time as t\ndef f(): return t.time_ns()",
        "from time import time as now\ndef f(): return now()",
        "import datetime as dt\ndef f(clock=dt.datetime.now): return clock()",
        "from datetime import datetime\ndef f(): return datetime.now(None)",
        "import email.utils\ndef f(): return email.utils.formatdate()",
    ],
)
def test_each_way_of_reading_it_is_seen(source):
    """The search that the next test relies on finds a function however it names the clock."""
    assert functions_that_read_the_wall_clock(ast.parse(source)) == {"f"}


def test_only_certificates_have_dates():
    """No module but those of certificates, and of what others let a session do, reads the wall clock."""
    reading, using = {}, set()
    for path in PACKAGE.rglob("*.py"):
        name, text = path.relative_to(PACKAGE).as_posix(), path.read_text()
        if found := functions_that_read_the_wall_clock(ast.parse(text)):
            reading[name] = found
        if "utc_now" in text:
            using.add(name)
    assert reading == PERMITTED
    assert using == USES_DATES


@pytest.fixture
def set_clock(monkeypatch):
    """Sets the wall clock: returns a function that takes the hours by which it is wrong from then on."""
    hours = 0.0
    seconds, nanoseconds, now = time.time, time.time_ns, certificate.utc_now

    def set_to(wrong: float) -> None:
        nonlocal hours
        hours = wrong

    def wrong_now() -> dt.datetime:
        return now() + dt.timedelta(hours=hours)

    monkeypatch.setattr(time, "time", lambda: seconds() + 3600 * hours)
    monkeypatch.setattr(time, "time_ns", lambda: nanoseconds() + int(3600e9 * hours))
    for module, name in ((certificate, "utc_now"), (store, "utc_now"), (aioquic.tls, "utcnow")):
        monkeypatch.setattr(module, name, wrong_now)
    return set_to


@pytest.mark.parametrize("scheme", ["moqt", "https"])
async def test_sessions_while_the_clock_is_set(set_clock, monkeypatch, tmp_path, scheme):
    """An hour forth and an hour back: the session and its subscription go on, and a new client is served."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    # The certificate's remaining days are looked at for each connection.
    monkeypatch.setattr("moqt_trio.server.identity._CHECK_S", 0.0)
    served: list[moqt.Session] = []
    broadcast = moqt.Broadcast()
    track = broadcast.track("t", max_age=10)

    async def handler(request: moqt.SessionRequest) -> None:
        async with request.accept() as session, session.publish("b", broadcast):
            served.append(session)
            await session.wait_closed()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            listener = await nursery.start(partial(moqt.serve, handler, "127.0.0.1", 0))
            connect = partial(moqt.connect, f"{scheme}://127.0.0.1:{listener.port}/", fingerprint=listener.fingerprint)
            async with connect() as session, session.subscribe("b", "t") as subscription:
                await track.wait_subscribed()
                for hours in (0, 1, 0, -1, 0):
                    set_clock(hours)
                    async with track.open_group() as group:
                        group.send_nowait(b"before")
                        received = await subscription.receive()
                        assert await received.receive() == b"before"
                        # An hour of the wall clock would be more than `max_age`.
                        set_clock(hours + 1)
                        group.send_nowait(b"after")
                        assert await received.receive() == b"after"
                        set_clock(hours)
                    assert await received.read_all() == []
                    async with connect() as another, another.subscribe("b", "t") as late:
                        assert await (await late.receive()).read_all() == [b"before", b"after"]
                assert session.closed is None
                assert served[0].closed is None
            nursery.cancel_scope.cancel()
