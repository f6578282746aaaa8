"""The package's own names: loaded on first use, the same for people and for type checkers."""

from __future__ import annotations

import ast
import importlib
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import flowstone
from flowstone.core.mappings import default_mapping
from flowstone.errors import DatabaseError, PartitionError, StepFailedError
from flowstone.moved import MOVED


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
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("flowstone.")
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


def old_module(name: str) -> ModuleType:
    """Import a module of ours under the path that it had."""
    sys.modules.pop(name, None)
    with pytest.warns(DeprecationWarning, match=rf"{name} is now flowstone\."):
        return importlib.import_module(name)


@pytest.mark.parametrize("place", sorted(MOVED))
def test_modules_that_moved_are_found_under_their_old_path(place: str) -> None:
    assert not Path(flowstone.__file__).parent.joinpath(f"{place.replace('.', '/')}.py").exists()
    assert old_module(f"flowstone.{place}") is not None


@pytest.mark.parametrize(
    ("old", "name"),
    [
        ("core.partition", "decode_partition"),
        ("core.partition", "encode_partition"),
        ("engine.gathered", "ItemResult"),
        ("errors.values", "StorageError"),
        ("executors.serial", "StepEvent"),
        ("executors.sync", "SyncExecutor"),
    ],
)
def test_documented_names_are_the_same_under_their_old_path(old: str, name: str) -> None:
    found = getattr(old_module(f"flowstone.{old}"), name)
    assert found is getattr(importlib.import_module(f"flowstone.{MOVED[old]}"), name)


def test_the_module_of_the_mappings_has_its_old_names() -> None:
    assert importlib.import_module("flowstone.core.mapping").default_mapping is default_mapping


def test_pickled_errors_of_the_version_before_are_read() -> None:
    pickled = pickle.dumps(DatabaseError("gone"), protocol=0)
    old = pickled.replace(b"flowstone.errors\n", b"flowstone.errors.database\n")
    sys.modules.pop("flowstone.errors.database", None)
    with pytest.warns(DeprecationWarning, match=r"flowstone\.errors\.database is now flowstone\.errors;"):
        error = pickle.loads(old)
    assert (type(error), str(error)) == (DatabaseError, "gone")


def test_errors_recorded_by_the_version_before_are_recognised() -> None:
    recorded = "flowstone.errors.lookups.UnknownPartitionError"
    error = StepFailedError("orders", "", "failed", "...", error_type=recorded)
    assert error.caused_by(PartitionError)
    assert not error.caused_by(DatabaseError)


def test_a_module_that_never_was_there_is_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"flowstone\.core\.nothing"):
        importlib.import_module("flowstone.core.nothing")
