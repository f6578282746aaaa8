"""A parsed project: parsing is what dbt is slow at, so it happens once for each adapter."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.dbt.projects import SHOP, parse


@pytest.fixture(scope="session")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a directory with the project as dbt parsed it for a target."""
    found: dict[str, Path] = {}

    def project(target: str) -> Path:
        if target not in found:
            found[target] = tmp_path_factory.mktemp(target) / "shop"
            shutil.copytree(SHOP, found[target])
            if target == "postgres":
                shutil.copytree(SHOP.parent / "postgres_only", found[target] / "models" / "postgres_only")
            parse(found[target], "--target", target)
        return found[target]

    return project


@pytest.fixture
def project(parsed: Callable[[str], Path], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A copy of the parsed project for one test; its parameter is the target."""
    copied = tmp_path / "shop"
    shutil.copytree(parsed(request.param), copied)
    yield copied
    left = list(copied.glob("target/run_results.json"))
    assert left == [], "steps write into target directories of their own"
