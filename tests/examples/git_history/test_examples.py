from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "name", ["analysis", "charts", "git", "markup", "records", "repository", "tables", "text"]
)
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"git_history.{name}"))
    assert result.failed == 0
