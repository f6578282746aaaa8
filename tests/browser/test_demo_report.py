"""The report of the demo in a real browser: hostile names stay text, nothing is asked of any network."""

from __future__ import annotations

import http.server
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.browser.harness import CHROMIUM, FLAGS, browser_environment

ROOT = Path(__file__).parents[2]
for directory in (ROOT / "examples", ROOT / "tests" / "examples" / "git_history"):
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a hostile repository, made by the demo's own assets."""
    from hostile import hostile_repository

    from git_history.flow import MONTHLY, OVERALL, build

    directory = tmp_path_factory.mktemp("demo")
    repository = hostile_repository(directory / "hostile.git")
    with build(repository, directory / "data") as flow:
        flow.backfill(MONTHLY, executor="sync").raise_for_failures()
        flow.materialize_all(OVERALL, executor="sync").raise_for_failures()
        page = directory / "report.html"
        page.write_text(flow.load("report"), encoding="utf-8")
    return page


@pytest.fixture
def requests(report: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve the page on this machine; gives its address and every path that was asked for."""
    requested: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requested.append(self.path)
            body = report.read_bytes() if self.path == "/report.html" else b""
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/report.html", requested
        server.shutdown()
        thread.join()


def dump(address: str, profile: Path) -> str:
    """Return the page as the browser has it after loading and running everything."""
    command = [
        str(CHROMIUM),
        *FLAGS,
        "--virtual-time-budget=2000",
        f"--user-data-dir={profile}",
        "--dump-dom",
        address,
    ]
    with browser_environment() as environment:
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=environment)
    return ended.stdout


def test_the_page_renders_and_asks_for_nothing_else(requests: tuple[str, list[str]], tmp_path: Path) -> None:
    address, requested = requests
    page = dump(address, tmp_path / "profile")
    assert page.count("data:image/svg+xml") == 8
    assert "When commits are written" in page
    assert [path for path in requested if path not in ("/report.html", "/favicon.ico")] == []


def test_hostile_names_stay_text(requests: tuple[str, list[str]], tmp_path: Path) -> None:
    page = dump(requests[0], tmp_path / "profile")
    assert "&lt;script&gt;" in page, "the hostile repository has an author named <script>"
    assert "<script" not in page.lower()
    assert "<img src=x" not in page.lower()
