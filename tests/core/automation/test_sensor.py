"""Declaring sensors, what a sensor answers, and what that comes to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone.core.automation.record import AutomationId, AutomationKind, PartitionChange
from flowstone.core.automation.sensor import (
    MAX_CURSOR,
    MAX_REQUESTS,
    RunRequest,
    Sensor,
    SensorContext,
    SensorResult,
    SkipReason,
    sense,
    sensor,
)
from flowstone.errors import DefinitionError, OptionsError, PartitionError, ResourceError, SensorError


def test_a_function_is_a_sensor_and_still_a_function() -> None:
    @sensor
    def inbox(context: object) -> object:
        """Look into the inbox."""
        return context

    assert isinstance(inbox, Sensor)
    assert inbox("given") == "given"
    assert (inbox.name, inbox.every_seconds, inbox.timeout_seconds) == ("inbox", 30.0, 60.0)
    assert inbox.description == inbox.__doc__ == "Look into the inbox."
    assert inbox.id == AutomationId(AutomationKind.SENSOR, "inbox")
    assert inbox.takes_context
    assert not inbox.paused
    assert "test_sensor.py:" in inbox.where


def test_options_are_kept() -> None:
    @sensor(
        every=timedelta(minutes=2),
        name="a name",
        selection=["orders", "invoices"],
        timeout=5,
        requires=["mail"],
        paused=True,
        description="Words.",
    )
    async def poll() -> None: ...

    assert (poll.name, poll.every_seconds, poll.timeout_seconds) == ("a name", 120.0, 5.0)
    assert (poll.selection, poll.requires, poll.paused) == (("orders", "invoices"), ("mail",), True)
    assert poll.description == "Words."
    assert not poll.takes_context


@pytest.mark.parametrize(
    "options",
    [
        {"every": 0.5},
        {"every": timedelta(0)},
        {"every": float("nan")},
        {"every": "30"},
        {"every": True},
        {"timeout": 0},
        {"timeout": 1e12},
        {"name": ""},
        {"name": " x"},
        {"name": "x\n"},
        {"name": "x" * 201},
        {"name": 7},
        {"requires": "mail"},
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        sensor(**options)(lambda context: None)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(DefinitionError):
        sensor(lambda context: None)
    assert sensor(name="x")(lambda: None).name == "x"


@pytest.mark.parametrize("function", [lambda a, b: None, lambda *, context: None])
def test_a_sensor_takes_the_context_and_nothing_else(function: Any) -> None:
    with pytest.raises(DefinitionError, match="context"):
        sensor(name="x")(function)


def test_parameters_with_defaults_are_left_alone() -> None:
    @sensor
    def one(context: object, limit: int = 3, *rest: object, **more: object) -> None: ...

    @sensor
    def none(limit: int = 3) -> None: ...

    assert (one.takes_context, none.takes_context) == (True, False)


NOW = datetime(2024, 1, 1, tzinfo=UTC)
ONE = RunRequest(selection="orders", run_key="one")
TWO = RunRequest(selection="orders", run_key="two")


def context(**options: object) -> SensorContext:
    return SensorContext("inbox", now=NOW, selection="orders", **options)  # type: ignore[arg-type]


def test_nothing_is_nothing_to_do() -> None:
    sensed = sense(context(cursor="7"), None)
    assert (sensed.requests, sensed.skip_reason, sensed.cursor) == ((), None, "7")


@pytest.mark.parametrize(
    "answer", [ONE, [ONE], (ONE,), iter([ONE, None]), SensorResult(requests=[ONE]), [ONE, ONE]]
)
def test_a_request_is_a_request_however_it_is_answered(answer: object) -> None:
    assert sense(context(), answer).requests == (ONE,)


def test_what_a_generator_yields_is_gathered_with_the_cursor_it_left() -> None:
    mine = context(cursor="1")

    def answer() -> Iterator[object]:
        yield ONE
        yield SkipReason("half a reason")
        yield SensorResult(requests=[TWO], add_partitions={"days": [date(2024, 1, 1)]}, skip_reason="and another")
        mine.update_cursor("2")

    sensed = sense(mine, answer())
    assert sensed.requests == (ONE, TWO)
    assert sensed.cursor == "2"
    assert sensed.partitions == (PartitionChange("days", "d:2024-01-01"),)
    assert sensed.skip_reason == "half a reason; and another"


def test_a_result_names_the_cursor_before_the_context_does() -> None:
    mine = context(cursor="1")
    mine.update_cursor("2")
    assert sense(mine, SensorResult(cursor="3")).cursor == "3"
    assert sense(mine, SensorResult()).cursor == "2"
    mine.update_cursor(None)
    assert sense(mine, None).cursor is None


def test_keys_are_encoded_and_added_once_in_order() -> None:
    class Definition:
        name = "customers"

    keys = [("customers", "acme"), (Definition(), "zeta"), ("customers", "acme")]
    sensed = sense(context(), SensorResult(add_partitions=keys, remove_partitions={Definition(): [7]}))
    assert sensed.partitions == (
        PartitionChange("customers", "s:acme"),
        PartitionChange("customers", "s:zeta"),
        PartitionChange("customers", "i:7", remove=True),
    )


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (3, "type int"),
        ("orders", "type str"),
        ({"orders": 1}, "type dict"),
        ([ONE, "x"], "type str"),
        (RunRequest, "type type"),
        (SensorResult(requests=ONE), "RunRequest"),  # type: ignore[arg-type]
        (SensorResult(requests=["orders"]), "type str"),  # type: ignore[list-item]
        (SensorResult(cursor=7), "text, not int"),  # type: ignore[arg-type]
        (SensorResult(cursor="a\x00b"), "NUL"),
        (SensorResult(cursor="\ud800"), "surrogate"),
        (SensorResult(cursor="é" * (MAX_CURSOR // 2 + 1)), "100,002 bytes"),
        (SensorResult(add_partitions={"customers": "acme"}), "['acme']"),
        (SensorResult(add_partitions=["acme"]), "'acme'"),  # type: ignore[list-item]
        ([ONE, RunRequest(selection="others", run_key="one")], "'one'"),
        ((RunRequest(selection="orders") for _ in range(MAX_REQUESTS + 1)), "10,000"),
    ],
)
def test_an_answer_that_cannot_work_is_refused(answer: object, says: str) -> None:
    with pytest.raises(SensorError) as failure:
        sense(context(), answer)
    assert "'inbox'" in str(failure.value)
    assert says in str(failure.value)


def test_a_key_that_is_no_partition_is_refused() -> None:
    with pytest.raises(PartitionError, match="not partitioned"):
        sense(context(), SensorResult(add_partitions={"customers": [None]}))


def test_an_endless_generator_ends() -> None:
    def answer() -> Iterator[RunRequest]:
        while True:
            yield RunRequest(selection="orders")

    with pytest.raises(SensorError, match="10,000"):
        sense(context(), answer())


def test_as_many_requests_as_are_allowed_pass() -> None:
    requests = [RunRequest(selection="orders", run_key=str(number)) for number in range(MAX_REQUESTS)]
    assert len(sense(context(), requests).requests) == MAX_REQUESTS


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=200))
def test_any_text_that_can_be_kept_is_a_cursor(text: str) -> None:
    assert sense(context(), SensorResult(cursor=text)).cursor == text


@given(st.text())
def test_a_cursor_in_json_can_always_be_kept(text: str) -> None:
    assert json.loads(sense(context(), SensorResult(cursor=json.dumps(text))).cursor or "") == text


def test_requests_of_the_context_follow_the_sensor() -> None:
    made = context().request(partition="eu", run_key="k", priority=2, max_concurrency=3, force=False)
    assert made == RunRequest(
        selection="orders", partition="eu", run_key="k", priority=2, max_concurrency=3, force=False
    )
    assert context().request(selection=["a", "b"]).selection == ["a", "b"]
    with pytest.raises(SensorError, match="what is to run"):
        SensorContext("inbox", now=NOW).request()


def test_resources_that_were_not_asked_for_are_named() -> None:
    with pytest.raises(ResourceError, match=r"Sensor 'inbox'.*@sensor\(requires=\['mail'\]\)"):
        context().resources["mail"]
    assert context(resources={"mail": 1}).resources["mail"] == 1
    assert context().logger.name == "flowstone.sensor.inbox"


@pytest.mark.parametrize("key", ["", "x" * 1001, "é" * 501, "a\x00b", "\udc80", 7])
def test_a_run_key_that_the_database_cannot_keep_is_refused(key: str) -> None:
    with pytest.raises(OptionsError, match="run_key"):
        RunRequest(selection="orders", run_key=key)


def test_reasons_are_text_whatever_was_given() -> None:
    context = SensorContext("inbox", now=datetime(2024, 1, 1, tzinfo=UTC))
    message = [SkipReason(ValueError("no files")), SensorResult(skip_reason=5)]  # type: ignore[arg-type]
    assert sense(context, message).skip_reason == "no files; 5"


@pytest.mark.parametrize(
    "options",
    [
        {"force": "no"},
        {"priority": 3.0},
        {"priority": True},
        {"priority": 10},
        {"max_concurrency": "3"},
        {"max_concurrency": 0},
    ],
)
def test_requests_with_wrong_types_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionsError, match=f"{next(iter(options))}="):
        RunRequest(selection="orders", **options)
