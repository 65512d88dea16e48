"""Probes: what the publisher measures, reported to the subscriber."""

from __future__ import annotations

import pytest
import trio

import moqt_trio as moqt
from moqt_trio.testing import session_pair

VERSIONS = [name for name in moqt.version_names() if "moq-lite-03" <= name <= "moq-lite-06"]


async def hold(request: moqt.SessionRequest) -> None:
    async with request.accept() as session:
        await session.wait_closed()


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_estimate_of_a_real_connection_is_reported(version):
    """Over QUIC the report has the measured bitrate and, where the version carries it, the round trip."""
    async with trio.open_nursery() as nursery:
        listener = await nursery.start(moqt.serve, hold, "localhost", 0)
        url = next(url for url in listener.urls if url.startswith("moqt:"))
        async with moqt.connect(url, versions=[version], fingerprint=listener.fingerprint) as session:
            async with session.probe() as probe:
                with trio.fail_after(10):
                    report = await probe.receive()
            assert report.bitrate is not None
            assert report.bitrate > 0
            if version == "moq-lite-03":
                assert report.rtt is None
            else:
                assert report.rtt is not None
                assert 0 < report.rtt < 5
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_unmeasured_path_is_unknown(version):
    """A transport that measures nothing reports unknown, not zero."""
    async with session_pair(version) as (client, _), client.probe() as probe:
        assert await probe.receive() == moqt.ProbeReport(bitrate=None, rtt=None)


async def test_a_closed_probe_raises():
    """Reading after the block is an error of this side; a session that ends is an error of the session."""
    async with session_pair() as (client, server):
        async with client.probe() as probe:
            await probe.receive()
        with pytest.raises(trio.ClosedResourceError):
            await probe.receive()
        async with client.probe() as probe:
            await probe.receive()
            server.close(0)
            with pytest.raises(moqt.SessionClosed):
                await probe.receive()
