from __future__ import annotations

import inspect
from datetime import timedelta

import pytest

from flowstone.core.asset import Asset, asset
from flowstone.core.definition import StaticPartitions
from flowstone.core.retry import RetryPolicy
from flowstone.errors import DefinitionError


def plain(numbers, scale=2):
    """Double it."""
    return [scale * number for number in numbers]


def test_calling_an_asset_calls_the_plain_function() -> None:
    declared = asset(plain)
    assert isinstance(declared, Asset)
    assert declared([1, 2]) == [2, 4]
    assert declared([1], scale=5) == [5]
    assert (declared.name, declared.description, declared.__name__) == ("plain", "Double it.", "plain")
    assert inspect.signature(declared) == inspect.signature(plain)


def test_where_names_file_and_line() -> None:
    declared = asset(plain)
    assert declared.where == f"{__file__}:{plain.__code__.co_firstlineno}"
    assert declared.where in repr(declared)


def test_options_are_kept() -> None:
    policy = RetryPolicy(max_attempts=5)
    partitions = StaticPartitions(["eu"])
    declared = asset(
        name="my asset",
        deps=["orders"],
        partitions=partitions,
        io="filesystem",
        requires=["db"],
        retry=policy,
        timeout=timedelta(minutes=2),
        queue="big",
        priority=0,
        isolation="process",
        concurrency={"api": 3},
        tags=["daily", "daily"],
        group="sales",
        description="text",
        code_version="7",
    )(lambda: 1)
    assert declared.name == "my asset"
    assert [one.asset for one in declared.dependencies] == ["orders"]
    assert declared.partitions is partitions
    assert (declared.io, declared.requires, declared.retry) == ("filesystem", ("db",), policy)
    assert (declared.timeout_seconds, declared.queue, declared.priority) == (120.0, "big", 0)
    assert (declared.isolation, declared.concurrency) == ("process", {"api": 3})
    assert (declared.tags, declared.group) == (frozenset({"daily"}), "sales")
    assert (declared.description, declared.code_version, declared.is_async) == ("text", "7", False)


def test_coroutines_are_recognized() -> None:
    @asset
    async def later() -> int:
        return 1

    assert later.is_async


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"priority": 10}, "priority=10"),
        ({"priority": -1}, "priority=-1"),
        ({"isolation": "vm"}, "isolation='vm'"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": timedelta(seconds=-1)}, "timeout=timedelta(seconds=-1)"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"timeout": "5"}, "timeout='5'"),
        ({"queue": " "}, "queue=' '"),
        ({"queue": 5}, "queue=5"),
        ({"concurrency": {"api": 0}}, "concurrency="),
        ({"concurrency": {"api": "3"}}, "concurrency="),
        ({"retry": 3}, "retry=3"),
        ({"io": 5}, "io=5"),
        ({"requires": "db"}, "requires='db'"),
        ({"tags": "daily"}, "tags='daily'"),
        ({"deps": "orders"}, "deps='orders'"),
        ({"partitions": ["eu"]}, "partitions="),
        ({"name": ""}, "''"),
        ({"name": " a"}, "' a'"),
        ({"name": "a\nb"}, "cannot be an asset's name"),
        ({"name": "a" * 201}, "cannot be an asset's name"),
        ({"name": "context"}, "reserved"),
    ],
)
def test_options_that_cannot_work_are_refused_with_the_place(options: dict, complaint: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        asset(**options)(plain)
    assert complaint in str(caught.value)
    assert f"{__file__}:" in str(caught.value)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(DefinitionError, match="<lambda>"):
        asset(lambda: 1)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        asset(colour="red")(plain)  # type: ignore[call-overload]
