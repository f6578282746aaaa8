"""The complete project of docs/project.md, as its author runs it: its tests, `flowstone check`, the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowstone.testing.postgres import TemporaryServer

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "examples" / "complete_project"
PAGE = ROOT / "docs" / "project.md"


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLOWSTONE_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, *words],
        cwd=SHOP,
        env=clean | {"PYTHONPATH": str(SHOP)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_its_tests_pass(server: TemporaryServer, tmp_path: Path) -> None:
    # a root of its own: a new session takes rights away from the root that it shares with ours
    places = {"PYTEST_DEBUG_TEMPROOT": str(tmp_path)}
    with server.empty_database() as url:
        done = run(
            "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", FLOWSTONE_TEST_DATABASE_URL=url, **places
        )
    assert "8 passed" in done.stdout


def test_it_is_found_and_fits_together(tmp_path: Path) -> None:
    done = run("-m", "flowstone", "check", "--strict", SHOP_ORDERS=str(tmp_path), FLOWSTONE_STORAGE=str(tmp_path))
    assert "4 assets" in done.stdout + done.stderr


BLOCK = re.compile(r"^<!-- (\S+\.py) -->\n```py\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHOWN = BLOCK.findall(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("path", "block"), SHOWN)
def test_the_page_shows_the_files_as_they_are(path: str, block: str) -> None:
    assert block.strip() in (SHOP / path).read_text(encoding="utf-8")


def test_the_page_shows_files() -> None:
    assert len(SHOWN) == 7
