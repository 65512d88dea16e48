"""The echo as a browser sees it: `@moq/net` in a headless Chromium against the echo server.

The browser, the page's script and the server are those of the browser tests.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from tests.apps.echo.programs import running_server
from tests.browser import chromium

ECHOES = 300
WARM_ECHOES = 30
VERSION = "moq-lite-05"
PAGE = "https://pages.test"
"""The origin of the page, which the server has to be told: it is not the server's own."""
SCRIPT = Path(chromium.__file__).with_name("moq_net.js")

_TIME_ECHOES = """
async ({ count }) => {
  const seconds = [];
  for (let sequence = 0; sequence < count; sequence++) {
    const began = performance.now();
    const whole = await moq.echo({ groups: 1, frames: 1, size: 100, first: sequence });
    if (whole[0] !== sequence) throw new Error(`group ${sequence} did not come back`);
    seconds.push((performance.now() - began) / 1000);
  }
  return seconds;
}
"""


def missing() -> str | None:
    """Return what is missing, and how to install it; None when nothing is."""
    reason = chromium.missing()
    return None if reason is None else f"{reason}: run `make browser`"


def echo_p50(quick: bool) -> float:
    """Return the median time in µs from publishing a group of one frame of 100 bytes until all of its echo is here.

    Raises: what the browser tests raise, `AssertionError` above all.
    """
    with (
        tempfile.TemporaryDirectory() as directory,
        running_server("--origins", PAGE) as server,
        chromium.Browser() as browser,
    ):
        script = chromium.bundle(SCRIPT, Path(directory))
        with browser.open(f"{PAGE}/", scripts=[script], blank=True) as page:
            address = {"url": server.urls["https"], "fingerprint": server.fingerprint, "version": VERSION}
            page.run("(address) => moq.connect(address)", address)
            seconds = page.run(_TIME_ECHOES, {"count": ECHOES // (5 if quick else 1)})
    return statistics.median(seconds[WARM_ECHOES:]) * 1e6
