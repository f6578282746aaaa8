from __future__ import annotations

import pytest

from flowstone.core.asset import asset
from flowstone.core.dependency import Dependency, dep, read_dependencies
from flowstone.core.mappings import AllPartitions
from flowstone.errors import DefinitionError


def read(function, deps=()):
    return read_dependencies(function, deps, name="me", where="here.py:1")


def test_parameters_without_default_are_dependencies() -> None:
    def function(b, a, *, c, option=1, **_ignored: int): ...

    with pytest.raises(DefinitionError, match="cannot be filled"):
        read(function)

    def fine(b, a, *, c, option=1): ...

    found, takes_context = read(fine)
    assert [(one.asset, one.parameter) for one in found] == [("b", "b"), ("a", "a"), ("c", "c")]
    assert not takes_context


def test_the_first_parameter_may_be_the_context() -> None:
    def function(context, a): ...

    found, takes_context = read(function)
    assert ([one.asset for one in found], takes_context) == (["a"], True)


def test_a_mapping_names_the_asset_of_a_parameter() -> None:
    mapping = AllPartitions()

    def function(rows, extra=None): ...

    found, _ = read(function, {"rows": dep("orders", mapping=mapping), "extra": "prices"})
    assert found == (Dependency("orders", mapping, "rows"), Dependency("prices", None, "extra"))


def test_a_list_refines_parameters_or_adds_inputs() -> None:
    mapping = AllPartitions()

    def function(orders): ...

    found, _ = read(function, [dep("orders", mapping=mapping), "prices"])
    assert found == (Dependency("orders", mapping, "orders"), Dependency("prices", None, None))


def test_assets_stand_for_their_names() -> None:
    @asset(name="the orders")
    def orders(): ...

    found, _ = read(lambda rows: rows, {"rows": orders})
    assert found == (Dependency("the orders", None, "rows"),)
    assert dep(orders).asset == "the orders"


@pytest.mark.parametrize(
    ("function", "deps", "complaint"),
    [
        (lambda *rows: rows, (), "cannot be filled"),
        (lambda rows, /: rows, (), "cannot be filled"),
        (lambda a: a, {"b": "x"}, "'b'"),
        (lambda a: a, ["b", "b"], "more than once"),
        (lambda a, b: a, {"a": "x", "b": "x"}, "more than once"),
        (lambda me: me, (), "depends on itself"),
        (lambda: 1, ["me"], "depends on itself"),
        (lambda a: a, "a", "must be a list"),
        (dict.fromkeys, (), "cannot be filled"),
        (type("Odd", (), {"__call__": None, "__signature__": 5})(), (), "does not show its parameters"),
    ],
)
def test_what_cannot_work_is_refused(function, deps, complaint: str) -> None:
    with pytest.raises(DefinitionError, match=complaint) as caught:
        read(function, deps)
    assert "here.py:1" in str(caught.value)
    assert "'me'" in str(caught.value)
