"""A browser and a server for tests: Debian's Chromium through Playwright, the dashboard in a thread.

`Visit` notes whatever a page must not do: errors on the console, violations of its security policy, requests to
other hosts, answers of 500 and above. `axe` is the accessibility checker, fetched with npm at test time.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import pytest

from flowstone.stores.postgres.embedded.cluster import FileLock

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Response

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
]
WIDE, NARROW = (1440, 900), (320, 640)
_AXE = "axe-core@4"
_NOTE_VIOLATIONS = """
    window.__violations = [];
    document.addEventListener('securitypolicyviolation', (event) => {
        const where = `${event.sourceFile}:${event.lineNumber}`;
        window.__violations.push(`${event.violatedDirective}: ${event.blockedURI} ${where}`);
    });
"""


@contextmanager
def serving(app: Any, port: int = 0) -> Iterator[str]:
    """Serve an ASGI application on loopback; gives its address without a slash at the end."""
    import uvicorn

    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()  # whoever comes before the server accepts waits, and is not refused
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


@contextmanager
def browser_environment() -> Iterator[dict[str, str]]:
    """Give the environment of a browser whose temporary files go away with it.

    Chromium leaves `.org.chromium.Chromium.*` in its temporary directory when it is ended while it writes one.
    The directory's path is short, because the socket of a browser lies in it.
    """
    directory = tempfile.mkdtemp(prefix="chromium-")
    try:
        yield {**os.environ, "TMPDIR": directory}
    finally:
        deadline = time.monotonic() + 10  # its last processes end a moment after the one that we waited for
        while Path(directory).exists():
            shutil.rmtree(directory, ignore_errors=time.monotonic() < deadline)


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """Start the browser of the operating system with nothing of an earlier one."""
    from playwright.sync_api import sync_playwright

    os.environ.setdefault("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")
    with browser_environment() as environment, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=FLAGS,
            headless=True,
            downloads_path=str(profile),
            env={**environment},
        )
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One visitor: a context of its own, one tab at first, and what its pages did wrong.

    Args:
        browser: the browser.
        address: of the server.
        width, height: of the window.
        theme: `light` or `dark`, as the system of the visitor says.
        zone: time zone of the browser.
        scripts: whether it runs any.
    """

    def __init__(
        self,
        browser: Browser,
        address: str,
        *,
        size: tuple[int, int] = WIDE,
        theme: str = "light",
        zone: str = "UTC",
        scripts: bool = True,
    ) -> None:
        self.address = address
        self.problems: list[str] = []
        self.context: BrowserContext = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=theme,  # type: ignore[arg-type]
            timezone_id=zone,
            java_script_enabled=scripts,
            reduced_motion="reduce",
        )
        self.context.set_default_timeout(15_000)
        if scripts:
            self.context.add_init_script(_NOTE_VIOLATIONS)
        self._scripts = scripts
        self.page = self.tab()

    def tab(self) -> Page:
        """Open one more tab."""
        page = self.context.new_page()
        page.on("console", lambda message: self._note("console", message.text, message.type))
        page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        page.on("response", self._note_response)
        return page

    def go(self, path: str, page: Page | None = None) -> Page:
        """Open a path and wait until it is there."""
        page = page or self.page
        page.goto(self.address + path, wait_until="load")
        return page

    def violations(self, page: Page | None = None) -> list[str]:
        """Return what the security policy of a page refused."""
        return list((page or self.page).evaluate("window.__violations || []")) if self._scripts else []

    def check(self) -> None:
        """Fail if anything went wrong so far."""
        assert self.problems == []
        assert self.violations() == []

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than its window: WCAG 1.4.10 wants none at 320."""
        return int(
            self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        )

    def close(self) -> None:
        """Close it."""
        self.context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _note(self, kind: str, text: str, level: str) -> None:
        if level in ("error", "warning"):
            self.problems.append(f"{kind}: {text}")

    def _note_response(self, response: Response) -> None:
        if urlsplit(response.url).netloc != urlsplit(self.address).netloc and not response.url.startswith("data:"):
            self.problems.append(f"asked another host: {response.url}")
        elif response.status >= 500:
            self.problems.append(f"{response.status}: {response.url}")


def axe_source(directory: Path) -> str:
    """Return the source of axe-core; fetched with npm once for all workers, into a directory of the test run."""
    if shutil.which("npm") is None:
        pytest.skip("axe-core needs npm")
    directory.mkdir(parents=True, exist_ok=True)
    kept = directory / "axe.min.js"
    lock = FileLock(directory / "axe.lock")
    try:
        lock.wait_exclusive(timeout_seconds=120.0)
        if not kept.exists():
            command = ["npm", "pack", _AXE, "--silent", "--pack-destination", str(directory)]
            environment = {**os.environ, "npm_config_cache": str(directory / "npm")}
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=100, check=False, cwd=directory, env=environment
            )
            packed = next(directory.glob("axe-core-*.tgz"), None)
            if done.returncode or packed is None:
                pytest.skip(f"axe-core could not be fetched: {done.stderr.strip()[:200]}")
            with tarfile.open(packed) as archive:
                found = archive.extractfile("package/axe.min.js")
                assert found is not None
                kept.write_bytes(found.read())
    except subprocess.TimeoutExpired:
        pytest.skip("axe-core could not be fetched: npm took too long")
    finally:
        lock.close()
    return kept.read_text(encoding="utf-8")


def axe_findings(page: Page, source: str) -> list[str]:
    """Return what axe finds against WCAG 2.2 A and AA: the rule, the element, and what to do."""
    page.evaluate(source)
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    options = {"runOnly": {"type": "tag", "values": tags}, "resultTypes": ["violations"]}
    result = page.evaluate(f"axe.run(document, {json.dumps(options)})")
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:160]} {_summary(node)}"
        for one in result["violations"]
        for node in one["nodes"][:3]
    ]


def _summary(node: dict[str, Any]) -> str:
    return " ".join(node.get("failureSummary", "").split())[:200]
