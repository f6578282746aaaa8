"""Documents that cannot lie: every example of the pages and of the docstrings runs."""

from __future__ import annotations

import doctest
import importlib
import linecache
import os
import pkgutil
import re
import sys
import types
from pathlib import Path

import pytest

import flowstone

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
PROGRAMS = {"flowstone.__main__"}
"""Modules that are programs: importing them runs them."""


def modules() -> list[str]:
    found = pkgutil.walk_packages(flowstone.__path__, "flowstone.")
    return ["flowstone", *(module.name for module in found if module.name not in PROGRAMS)]


def script(page: Path) -> str:
    """All blocks of a page as one script whose lines have the numbers that they have on the page."""
    lines = [""] * len(page.read_text(encoding="utf-8").splitlines())
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1))
        for offset, line in enumerate(block[1].splitlines()):
            lines[first + offset] = line
    return "\n".join(lines) + "\n"


@pytest.fixture(autouse=True)
def _clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("FLOWSTONE_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = script(page)
    if not source.strip():
        return
    linecache.cache[str(page)] = (len(source), None, source.splitlines(keepends=True), str(page))
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where dataclasses look up their annotations
    exec(compile(source, str(page), "exec"), vars(module))


@pytest.mark.parametrize("name", modules())
def test_the_examples_of_a_module_run(name: str) -> None:
    module = importlib.import_module(name)
    failures, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not failures, f"{failures} examples of {name} fail; the captured output says which"


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder()
    found = [test for name in modules() for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) > 50
    assert any(script(page).strip() for page in PAGES)
