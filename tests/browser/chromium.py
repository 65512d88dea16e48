"""A headless Chromium for the tests, driven through playwright-core by a Node process.

Everything here blocks with a deadline.
"""

from __future__ import annotations

import itertools
import json
import os
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import attrs

ROOT = Path(__file__).parents[2]
WEB = ROOT / "apps" / "echo" / "web"
DRIVER = Path(__file__).with_name("driver.mjs")

CALL_TIMEOUT = 30.0
"""Seconds that the browser has for one command; generous, because a busy machine starts it slowly."""


def chromium() -> str | None:
    """Returns where Chromium is, or None."""
    return shutil.which("chromium")


def missing() -> str | None:
    """Returns what the browser tests miss here, or None."""
    if chromium() is None:
        return "Chromium is not installed"
    if shutil.which("node") is None:
        return "Node.js is not installed"
    if not (WEB / "node_modules" / "playwright-core").is_dir():
        return "the npm packages of the echo page are not installed"
    if not (WEB / "build" / "main.js").is_file():
        return "the echo page's script is not built"
    return None


def bundle(script: Path, directory: Path) -> Path:
    """Puts a page's script into one file in a directory, with the npm packages that it imports; returns the file."""
    target = directory / script.name
    subprocess.run(
        [WEB / "node_modules" / ".bin" / "esbuild", script, "--bundle", f"--outfile={target}", "--log-level=warning"],
        env={**os.environ, "NODE_PATH": str(WEB / "node_modules")},
        check=True,
    )
    return target


class BrowserFailed(AssertionError):
    """A command to the browser failed; the message has the output of its pages."""


class Browser:
    """A running Chromium. Use it as a context manager.

    Args:
        flags: Chromium's command line, besides those that every test needs.
    """

    def __init__(self, *flags: str) -> None:
        node, executable = shutil.which("node"), chromium()
        assert node is not None
        assert executable is not None
        self._log: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `close`
        self._log_start = 0
        self._process = subprocess.Popen(
            [node, str(DRIVER), str(WEB / "package.json"), executable, *flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
        )
        self._ids = itertools.count(1)
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._early: dict[int, dict[str, Any]] = {}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put(None)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(CALL_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._thread.join()
        self._process.stdout.close()
        self._log.close()

    @property
    def log(self) -> str:
        """What the pages wrote to their consoles since the latest one was opened, and what failed in them."""
        self._log.seek(self._log_start)
        return self._log.read()

    def begin(self, method: str, **parameters: Any) -> int:
        """Starts a command; pass the returned number to `finish`."""
        number = next(self._ids)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "method": method, "parameters": parameters}) + "\n")
        return number

    def finish(self, number: int, timeout: float = CALL_TIMEOUT) -> Any:
        """Waits for a command, and returns its result."""
        while number not in self._early:
            try:
                answer = self._answers.get(timeout=timeout)
            except queue.Empty:
                raise BrowserFailed(f"the browser did not answer in {timeout} s\n{self.log}") from None
            if answer is None:
                raise BrowserFailed(f"the browser's driver ended\n{self.log}")
            self._early[answer["id"]] = answer
        answer = self._early.pop(number)
        if "error" in answer:
            raise BrowserFailed(f"{answer['error']}\n{self.log}")
        return answer["result"]

    def call(self, method: str, **parameters: Any) -> Any:
        """Runs a command and returns its result."""
        return self.finish(self.begin(method, **parameters))

    @contextmanager
    def open(self, url: str, *, scripts: Sequence[Path] = (), blank: bool = False, **options: Any) -> Iterator[Page]:
        """Opens a page in a context of its own, and closes that at the end of the block.

        Args:
            url: Where the page is.
            scripts: Run in each page of the context before anything else.
            blank: The page comes from no server: it is empty, and the URL is all that counts.
            options: Playwright's options of a context.
        """
        self._log_start = os.fstat(self._log.fileno()).st_size
        scripts = [str(path) for path in scripts]
        page = Page(self, self.call("open", url=url, scripts=scripts, blank=blank, options=options))
        try:
            yield page
        finally:
            self.call("close", page=page.number)


@attrs.frozen
class Page:
    """A page of a browser."""

    browser: Browser
    number: int

    def begin(self, source: str, argument: Any = None) -> int:
        """Starts a JavaScript function of one argument in the page; pass the returned number to `Browser.finish`."""
        return self.browser.begin("evaluate", page=self.number, source=source, argument=argument)

    def run(self, source: str, argument: Any = None) -> Any:
        """Runs a JavaScript function of one argument in the page, and returns what it resolves to."""
        return self.browser.finish(self.begin(source, argument))

    def tab(self, url: str) -> Page:
        """Opens another page of the same context."""
        return Page(self.browser, self.browser.call("tab", page=self.number, url=url))

    def reload(self) -> None:
        """Loads the page again."""
        self.browser.call("reload", page=self.number)

    def fill(self, label: str, text: str) -> None:
        """Types into the field with this label."""
        self.browser.call("fill", page=self.number, label=label, text=text)

    def press(self, key: str) -> None:
        """Presses a key where the focus is."""
        self.browser.call("press", page=self.number, key=key)

    def click(self, role: str, name: str) -> None:
        """Clicks on what has this role and this accessible name, once it is enabled."""
        self.browser.call("click", page=self.number, role=role, name=name)

    def text(self, selector: str) -> str:
        """Returns the visible text of an element."""
        return str(self.browser.call("text", page=self.number, selector=selector))

    def texts(self, selector: str) -> list[str]:
        """Returns the visible text of each element that there is."""
        return list(self.browser.call("texts", page=self.number, selector=selector))

    def wait(self, selector: str, text: str = "", timeout: float = 20.0) -> None:
        """Waits until an element with this text is visible."""
        self.browser.call("wait", page=self.number, selector=selector, text=text, timeout=timeout * 1000)

    def screenshot(self, path: Path) -> None:
        """Saves a picture of the whole page."""
        self.browser.call("screenshot", page=self.number, path=str(path))
