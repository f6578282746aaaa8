"""IO managers and resources that installed packages register: a real package on the path, with its metadata."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowstone import FlowStone, asset
from flowstone.app.plugins import IO_GROUP, registered_names
from flowstone.errors import ConfigurationError, DefinitionError
from flowstone.io import MemoryIO

CODE = """
from flowstone.io import MemoryIO

class Warehouse(MemoryIO):
    def __init__(self):
        super().__init__("warehouse")

class OneWriter(MemoryIO):
    limits = {"writers": 1}

    def __init__(self):
        super().__init__("single")

def misnamed():
    return MemoryIO("other")

def fails():
    raise OSError("no disk")

def answer():
    return 42
"""

type Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install a package that registers something in a group."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "plugged_for_tests.py").write_text(CODE)
    monkeypatch.delitem(sys.modules, "plugged_for_tests", raising=False)

    def add(group: str, line: str) -> None:
        number = len(list(tmp_path.glob("*.dist-info")))
        info = tmp_path / f"plugged{number}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plugged{number}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[{group}]\n{line}\n")

    return add


@asset(io="warehouse", requires=["answer"])
def kept(context):
    return context.resources["answer"]


@asset
def plain():
    return 1


def test_what_is_registered_is_found_by_name(install: Install) -> None:
    install("flowstone.io", "warehouse = plugged_for_tests:Warehouse")
    install("flowstone.resources", "answer = plugged_for_tests:answer")
    FlowStone.for_testing([plain])
    assert "plugged_for_tests" not in sys.modules  # nobody names it
    flow = FlowStone.for_testing([kept])
    assert flow.materialize("kept").value == 42
    assert type(flow.parts.managers["warehouse"]).__name__ == "Warehouse"
    assert registered_names(IO_GROUP) == ["warehouse"]
    assert FlowStone.for_testing([plain], default_io="warehouse").materialize("plain").value == 1


def test_what_the_app_declares_comes_first(install: Install) -> None:
    install("flowstone.io", "warehouse = plugged_for_tests:fails")
    own = MemoryIO("warehouse")
    flow = FlowStone.for_testing([kept], io={"warehouse": own}, resources={"answer": 1})
    assert flow.materialize("kept").value == 1


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("plugged_for_tests:misnamed", "calls itself 'other'"),
        ("plugged_for_tests:fails", "OSError: no disk"),
        ("plugged_for_tests:nothing", "cannot be imported"),
        ("no_such_module_at_all:x", "cannot be imported"),
        ("plugged_for_tests:CODE", "cannot be imported"),
        ("plugged_for_tests:answer", "is no IO manager, it has no name"),
    ],
)
def test_what_is_broken_names_its_package(install: Install, value: str, says: str) -> None:
    install("flowstone.io", f"warehouse = {value}")
    with pytest.raises(ConfigurationError, match=says) as caught:
        FlowStone.for_testing([kept], resources={"answer": 1})
    assert "plugged0" in str(caught.value)


def test_two_packages_of_one_name_are_refused(install: Install) -> None:
    install("flowstone.io", "warehouse = plugged_for_tests:Warehouse")
    install("flowstone.io", "warehouse = plugged_for_tests:misnamed")
    with pytest.raises(ConfigurationError, match="Several packages register 'warehouse'"):
        FlowStone.for_testing([kept], resources={"answer": 1})


def test_a_compute_is_found_like_an_io_manager(install: Install) -> None:
    """One made already, or what makes one; of two packages neither is taken."""

    @asset(compute="farm")
    def far() -> int: ...

    install("flowstone.compute", "farm = flowstone.compute:CommandCompute")
    with pytest.raises(DefinitionError, match=r"CommandCompute.*failed with TypeError.*Check plugged0"):
        FlowStone.for_testing([far])
    install("flowstone.compute", "farm = plugged_for_tests:Warehouse")
    with pytest.raises(DefinitionError, match="Several packages register 'farm'"):
        FlowStone.for_testing([far])


def test_what_nobody_registers_is_refused_as_ever() -> None:
    with pytest.raises(DefinitionError, match="not declared"):
        FlowStone.for_testing([kept], resources={"answer": 1})


def test_limits_of_a_registered_manager_hold_for_its_assets(install: Install) -> None:
    install("flowstone.io", "single = plugged_for_tests:OneWriter")
    named = asset(name="named", io="single")(lambda: 1)
    assert FlowStone.for_testing([named, plain]).parts.graph["named"].concurrency.keys() == {"writers"}
    by_default = FlowStone.for_testing([named, plain], default_io="single").parts.graph
    assert [one.concurrency.keys() for one in by_default] == [{"writers"}, {"writers"}]
    assert not named.concurrency, "the declared asset stays as it is, for other apps"
