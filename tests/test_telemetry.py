from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowstone import FlowStone, asset, telemetry
from flowstone.config import Settings


@pytest.fixture(autouse=True)
def _nobody_stays() -> Iterator[None]:
    yield
    telemetry.detach("test")
    assert not telemetry.listening()


def test_handlers_get_what_they_ask_for() -> None:
    seen: list[tuple] = []
    assert not telemetry.listening()
    telemetry.attach("test", ["step.*", "run.ended"], lambda *event: seen.append(event))
    assert telemetry.listening()
    telemetry.emit("step.start", {"n": 1}, {"asset": "a"})
    telemetry.emit("run.start", {}, {})
    telemetry.emit("run.ended", {}, {})
    assert [event for event, _, _ in seen] == ["step.start", "run.ended"]
    assert seen[0][1:] == ({"n": 1}, {"asset": "a"})


def test_the_same_name_replaces() -> None:
    seen: list[str] = []
    telemetry.attach("test", ["*"], lambda *_: seen.append("old"))
    telemetry.attach("test", ["*"], lambda *_: seen.append("new"))
    telemetry.emit("step.start", {}, {})
    assert seen == ["new"]


@pytest.mark.parametrize("event", ["step.begin", "nothing.*", "step", ""])
def test_unknown_events_are_refused(event: str) -> None:
    with pytest.raises(ValueError, match="Known events: step"):
        telemetry.attach("test", [event], lambda *_: None)
    assert not telemetry.listening()


def test_a_handler_that_raises_is_detached_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    def clumsy(*_: object) -> None:
        raise ZeroDivisionError

    telemetry.attach("clumsy", ["*"], clumsy)
    telemetry.attach("test", ["*"], lambda event, *_: seen.append(event))
    with caplog.at_level(logging.ERROR, "flowstone.telemetry"):
        telemetry.emit("step.start", {}, {})
        telemetry.emit("step.stop", {}, {})
    assert seen == ["step.start", "step.stop"]
    assert len(caplog.records) == 1
    assert "'clumsy' raised on step.start" in caplog.text


def test_every_emitted_event_is_listed() -> None:
    source = Path(telemetry.__file__).parent
    emitted = {
        event
        for path in source.rglob("*.py")
        for event in re.findall(r'emit\(\s*"([a-z_.]+)"', path.read_text(encoding="utf-8"))
    }
    assert emitted
    assert emitted <= set(telemetry.EVENTS)


def test_records_keep_fields_that_they_have() -> None:
    record = logging.LogRecord("n", logging.INFO, "p", 1, "m", None, None)
    record.asset = "mine"
    token = telemetry.running_step.set(
        telemetry.RunningStep({"asset": "a", "partition": "p", "run_id": "r", "attempt": 2})
    )
    try:
        assert telemetry.StepLogFilter().filter(record)
    finally:
        telemetry.running_step.reset(token)
    assert (record.asset, record.partition, record.run_id, record.attempt) == ("mine", "p", "r", 2)  # type: ignore[attr-defined]


def test_the_fields_of_the_running_step_are_read_like_a_context_variable() -> None:
    @asset
    def fields() -> dict[str, object]:
        return dict(telemetry.step_fields.get() or {})

    for log_days in (0, 7):
        flow = FlowStone([fields], settings=Settings(log_days=log_days))
        done = flow.materialize("fields")

        assert done.value == {
            "asset": "fields",
            "partition": "",
            "run_id": done.run_id,
            "attempt": 1,
            "step_id": str(done.step_id),
        }
    assert telemetry.step_fields.get() is None
