"""What browser tests share: a browser for the tests of a module, axe-core, and a place for pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.browser.harness import CHROMIUM, axe_source, chromium
from tests.browser.pictures import small_png

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PICTURES = Path(__file__).parents[2] / "docs" / "pictures"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Chromium; the test is skipped where there is none.

    Not for the session: Playwright's loop runs as long as it does, and no other test could run one of its own.
    """
    if CHROMIUM is None:
        pytest.skip("no chromium (apt-get install chromium)")
    with chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core; the test is skipped where it cannot be fetched."""
    return axe_source(tmp_path_factory.getbasetemp().parent / "axe")


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[Page, str], Path]:
    """Return a function that takes a picture of a page; FLOWSTONE_PICTURES=1 writes those of the docs anew."""
    directory = PICTURES if os.environ.get("FLOWSTONE_PICTURES") else tmp_path

    def take(page: Page, name: str) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{name}.png"
        path.write_bytes(small_png(page.screenshot()))
        return path

    return take
