"""The package's own names: loaded on first use, the same for people and for type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flowstone


@pytest.mark.parametrize("name", flowstone.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(flowstone, name) is not None
    assert name in dir(flowstone)


def test_type_checkers_read_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(flowstone.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.name: node.module
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == flowstone._MODULES
    assert sorted(declared) == sorted(flowstone.__all__)


def test_importing_the_package_loads_nothing_else_of_it() -> None:
    code = "import sys, flowstone; print(sorted(name for name in sys.modules if name.startswith('flowstone.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'asett'"):
        flowstone.asett  # noqa: B018
