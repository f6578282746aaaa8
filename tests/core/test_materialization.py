from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest

from flowstone.core.materialization import Materialization
from flowstone.core.outcome import Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.partitions import NO_PARTITION
from flowstone.core.state import State
from flowstone.core.step import Attempt, AttemptResult, InputVersion

STORED = StoredOutput("memory", "somewhere", content_hash="abc")


def make(**fields) -> Materialization:
    return Materialization(**{"asset": "a", "partition": None, "run_id": "r", "step_id": 7} | fields)


def test_a_value_at_hand_is_not_loaded() -> None:
    assert make(value=None, stored=STORED, load=lambda stored: 1 / 0).value is None


def test_what_an_attempt_committed_has_all_that_one_has() -> None:
    """It is made without `__init__`: what is added there has to be added here."""
    now = datetime.now(UTC)
    step = Attempt(
        step_id=1,
        run_id="r",
        asset="a",
        partition_key=NO_PARTITION,
        attempt=1,
        max_attempts=1,
        token=1,
        started_at=now,
    )
    made = Materialization.of_attempt(AttemptResult(step, Succeeded(STORED, 5), (), now))
    assert [name for name in Materialization.__slots__ if not hasattr(made, name)] == []
    assert made.value == 5


def test_a_value_is_loaded_once() -> None:
    loads: list[StoredOutput] = []
    done = make(stored=STORED, load=lambda stored: loads.append(stored) or len(loads))
    assert (done.value, done.value, loads) == (1, 1, [STORED])


def test_without_a_value_there_is_a_clear_error() -> None:
    with pytest.raises(LookupError, match="no stored value"):
        make(state=State.SKIPPED).value  # noqa: B018


def test_the_json_form_is_plain() -> None:
    moment = datetime(2024, 1, 2, tzinfo=UTC)
    read = InputVersion("rows", "up", "s:x", 3)
    done = make(partition=date(2024, 1, 1), inputs=(read,), stored=STORED, started_at=moment, finished_at=moment)
    document = json.loads(json.dumps(done.to_json()))
    assert (document["partition"], document["step_id"], document["state"]) == ("d:2024-01-01", "7", "completed")
    assert document["inputs"] == [{"parameter": "rows", "asset": "up", "partition": "s:x", "step_id": "3"}]
    assert document["started_at"] == "2024-01-02T00:00:00+00:00"
    assert (document["data_version"], done.data_version, make().data_version) == ("abc", "abc", None)
    assert "d:2024-01-01" in repr(done)
