from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from flowstone import FlowStone, asset
from flowstone.observability import JsonFormatter


def line(message: object = "hello", *arguments: object, **more: Any) -> dict[str, Any]:
    record = logging.LogRecord(
        "shop", logging.INFO, "shop.py", 1, message, arguments or None, more.pop("exc", None)
    )
    vars(record).update(more)
    text = JsonFormatter().format(record)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    return found


class Hostile:
    def __str__(self) -> str:
        raise ZeroDivisionError

    __repr__ = __str__


def test_a_record_is_one_line_with_what_it_says() -> None:
    found = line("%d orders", 3, shelf=7)
    assert found.pop("time").endswith("+00:00")
    assert found == {"level": "INFO", "logger": "shop", "message": "3 orders", "shelf": 7}


def test_a_dict_as_the_only_argument() -> None:
    """airflow#62472: logging.info("with format %s", {"a": 3}) failed."""
    logger, seen = logging.getLogger("test.json"), []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(json.loads(JsonFormatter().format(record)))  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        logger.warning("with format %s", {"a": 3})
        logger.warning({"a": 3})
    finally:
        logger.removeHandler(handler)
    assert [one["message"] for one in seen] == ["with format {'a': 3}", "{'a': 3}"]


def test_what_is_passed_as_extra_hides_nothing_and_shows_no_secret() -> None:
    """geoadmin/lib-py-logging-utilities#45: whoever routes by `level` is not misled by it."""
    found = line(level="high", time="noon", db={"password": "hunter2"}, token="hunter2", url="pg://me:hunter2@db")
    assert (found["level"], found["extra_level"], found["extra_time"]) == ("INFO", "high", "noon")
    assert found["time"] != "noon"
    assert (found["db"], found["token"], found["url"]) == ({"password": "***"}, "***", "pg://me:***@db")


def test_tracebacks_are_kept() -> None:
    """airflow#14950: the traceback was missing from logs as JSON."""
    try:
        raise ValueError("password=hunter2")
    except ValueError:
        found = line("failed", exc=sys.exc_info())
    assert "ValueError: password=***" in found["exception"]
    assert "hunter2" not in json.dumps(found)


VALUES = [object(), {1: object()}, float("nan"), b"\xff", {2, 1}, Hostile(), "\ud800", {(1, 2): 3}]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_whatever_is_passed_as_extra_is_written(value: object) -> None:
    """dagster#32845, python-dockerflow#8: a value that JSON does not know lost the line."""
    found = line("hello", extra_value=value)
    assert found["message"] == "hello"
    assert "extra_value" in found


def test_arguments_that_do_not_fit_are_shown() -> None:
    assert line("%d orders", "three")["message"] == "%d orders ('three',)"


def test_loops_are_no_reason_to_lose_a_line() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert line("hello", loop=loop)["message"] == "hello"


def test_inside_a_step_the_line_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    """dagster#12353: lines lead to their step, and to their trace (see test_traces_of_workers)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.getLogger("shop").addHandler(handler)

    @asset
    def stock() -> int:
        logging.getLogger("shop").warning("low")
        return 1

    try:
        FlowStone.for_testing([stock]).materialize("stock", run_id="r")
    finally:
        logging.getLogger("shop").removeHandler(handler)
    found = json.loads(capsys.readouterr().err)
    assert (found["asset"], found["run_id"], found["attempt"]) == ("stock", "r", 1)
