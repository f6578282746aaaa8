"""Declaring sensors."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flowstone.core.automation.record import AutomationId, AutomationKind
from flowstone.core.automation.sensor import Sensor, sensor
from flowstone.errors import DefinitionError


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
