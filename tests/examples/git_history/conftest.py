"""Makes `git_history` and `hostile` importable; one hostile repository for all tests, which only read it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
for directory in (HERE, HERE.parents[2] / "examples"):
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))


@pytest.fixture(scope="session")
def hostile_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hostile import hostile_repository

    return hostile_repository(tmp_path_factory.mktemp("repositories") / "hostile.git")
