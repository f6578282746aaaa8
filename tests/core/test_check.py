from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from flowstone.core.asset import asset
from flowstone.core.check import Check, CheckResult, CheckSet, as_bool, check
from flowstone.core.graph import AssetGraph
from flowstone.core.step import CheckRecord, Severity
from flowstone.errors import (
    CheckFailedError,
    DefinitionError,
    DuplicateCheckError,
    FailedCheck,
    UnknownCheckedAssetError,
)


@asset
def orders() -> list[int]:
    return [1]


def passing(orders: Any) -> bool:
    """Orders are fine."""
    return bool(orders)


def test_a_check_is_still_its_function() -> None:
    declared = check(orders)(passing)
    assert (declared([1]), declared([])) == (True, False)
    assert (declared.name, declared.asset, declared.description) == ("passing", "orders", "Orders are fine.")
    assert (declared.blocking, declared.severity, declared.retry, declared.requires) == (False, "error", False, ())
    assert (declared.parameter, declared.takes_context, declared.is_async) == ("orders", False, False)
    assert re.search(r"test_check\.py:\d+$", declared.where)
    assert declared.__name__ == "passing"
    assert repr(declared).startswith("<check 'passing' of 'orders' at ")


def test_options() -> None:
    declared = check(
        "my orders",
        name="other",
        blocking=True,
        severity="warning",
        description="said",
        retry=True,
        requires=["db"],
        timeout=timedelta(minutes=1),
    )(passing)
    assert (declared.name, declared.asset, declared.description) == ("other", "my orders", "said")
    assert (declared.blocking, declared.severity, declared.retry) == (True, Severity.WARNING, True)
    assert (declared.requires, declared.timeout_seconds) == (("db",), 60.0)


def with_context(context, orders): ...
def only_context(context): ...
def other_name(data): ...
def keyword_only(context, *, data): ...
def with_default(orders, limit=3): ...
def own_default(limit, orders=None): ...
async def awaited(orders): ...


@pytest.mark.parametrize(
    ("function", "parameter", "context"),
    [
        (with_context, "orders", True),
        (only_context, None, True),
        (other_name, "data", False),
        (keyword_only, "data", True),
        (with_default, "orders", False),
        (awaited, "orders", False),
    ],
)
def test_parameters(function: Any, parameter: str | None, context: bool) -> None:
    declared = check(orders)(function)
    assert (declared.parameter, declared.takes_context) == (parameter, context)
    assert declared.is_async is (function is awaited)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda: True, "cannot be a check's name"),
        (own_default, "the parameters limit, orders cannot all be filled"),
        (dict.get, "as of a method"),
        (max, "does not show its parameters"),
    ],
)
def test_functions_that_cannot_be_checks(function: Any, why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        check(orders)(function)


def test_a_check_must_look_at_something() -> None:
    def nothing() -> bool:
        return True

    with pytest.raises(DefinitionError, match=r"takes neither the value nor the context.*test_check\.py:\d+"):
        check(orders)(nothing)


def test_several_values_are_refused() -> None:
    def several(*orders: Any) -> bool:
        return True

    with pytest.raises(DefinitionError, match=r"\*orders.* cannot all be filled.*context\.resources"):
        check(orders)(several)


def test_the_asset_must_be_named() -> None:
    with pytest.raises(DefinitionError, match=r"write @check\(orders\).*test_check\.py:\d+"):
        check(passing)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError, match="needs the asset"):
        check(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"name": " x"}, "cannot be a check's name"),
        ({"name": ""}, "cannot be a check's name"),
        ({"severity": "fatal"}, 'give "error" or "warning"'),
        ({"blocking": "yes"}, "blocking='yes': give True or False"),
        ({"retry": 3}, "retry=3: give True or False"),
        ({"requires": "db"}, "must be a list of names"),
        ({"timeout": 0}, "more than 0 seconds"),
        ({"timeout": float("nan")}, "more than 0 seconds"),
        ({"timeout": "1s"}, "more than 0 seconds"),
    ],
)
def test_options_that_cannot_work(options: dict[str, Any], why: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(why)) as caught:
        check(orders, **options)(passing)
    assert caught.value.where is not None


def test_results() -> None:
    assert bool(CheckResult(True))
    assert not CheckResult(np.bool_(False))
    assert type(CheckResult(np.bool_(True)).passed) is bool
    assert CheckResult(False, severity="warning").severity is Severity.WARNING
    with pytest.raises(TypeError, match="give True or False"):
        CheckResult(1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fatal"):
        CheckResult(True, severity="fatal")
    with pytest.raises(TypeError):
        CheckResult(True, "warning")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "plain"),
    [(True, True), (False, False), (np.bool_(True), True), (1, None), (None, None), ("yes", None), ([1], None)],
)
def test_bools(value: object, plain: bool | None) -> None:
    assert as_bool(value) is plain


def test_checks_of_an_app() -> None:
    first, second = check(orders)(passing), check(orders, name="second")(passing)
    found = CheckSet([first, second, first], AssetGraph([orders]))
    assert found.of("orders") == (first, second) == tuple(found)
    assert found.of("others") == ()
    assert found
    assert found.assets == ("orders",)
    assert not CheckSet([], AssetGraph([orders]))


def test_checks_that_do_not_fit() -> None:
    graph = AssetGraph([orders])
    with pytest.raises(UnknownCheckedAssetError, match=r"Did you mean 'orders'\?.*test_check\.py:\d+") as caught:
        CheckSet([check("ordres")(passing)], graph)
    assert (caught.value.check, caught.value.asset) == ("passing", "ordres")
    with pytest.raises(DuplicateCheckError, match="Two checks of 'orders' are named 'passing'"):
        CheckSet([check(orders)(passing), check("orders")(passing)], graph)
    with pytest.raises(DefinitionError, match="is not a check"):
        CheckSet([passing], graph)  # type: ignore[list-item]


def test_records() -> None:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    record = CheckRecord(
        check="c", asset="a", partition_key="s:x", step_id=5, attempt=1, passed=False, blocking=True, started_at=at
    )
    assert record.blocks
    assert record.to_json()["started_at"] == "2024-01-01T00:00:00+00:00"
    assert (record.to_json()["step_id"], record.to_json()["severity"]) == ("5", "error")


def test_the_error_of_a_blocking_check_says_everything() -> None:
    one = CheckFailedError("orders", "2024-01-01", [FailedCheck("not_empty", "no rows; rows=0")])
    assert str(one).startswith(
        "The value of 'orders' [2024-01-01] did not pass the blocking check 'not_empty' (no rows; rows=0). "
        "It was not published; what was committed before stays readable."
    )
    two = CheckFailedError("orders", "", [FailedCheck("a", ""), FailedCheck("b", "late")])
    assert "The value of 'orders' did not pass 2 blocking checks: 'a', 'b' (late)." in str(two)


def test_declarations_are_checks() -> None:
    assert isinstance(check(orders)(passing), Check)
