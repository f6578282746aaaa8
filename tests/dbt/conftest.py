"""A parsed project: parsing is what dbt is slow at, so it happens once for each adapter."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.dbt.projects import SHOP, parse


@pytest.fixture(scope="session")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a directory with the project as dbt parsed it for a target; workers of pytest-xdist share it."""
    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent

    def project(target: str) -> Path:
        found = place / f"dbt-{target}" / "shop"
        with (place / f"dbt-{target}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (found / "target" / "manifest.json").exists():
                shutil.copytree(SHOP, found, dirs_exist_ok=True)
                if target == "postgres":
                    shutil.copytree(
                        SHOP.parent / "postgres_only", found / "models" / "postgres_only", dirs_exist_ok=True
                    )
                parse(found, "--target", target)
        return found

    return project


@pytest.fixture
def project(parsed: Callable[[str], Path], tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A copy of the parsed project for one test; its parameter is the target."""
    copied = tmp_path / "shop"
    shutil.copytree(parsed(request.param), copied)
    yield copied
    left = list(copied.glob("target/run_results.json"))
    assert left == [], "steps write into target directories of their own"
