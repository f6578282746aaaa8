from __future__ import annotations

import json

import pytest

from flowstone.app import FlowStone
from flowstone.app.results import Progress
from flowstone.core.asset import asset
from flowstone.core.definition import StaticPartitions
from flowstone.core.outcome import Skip
from flowstone.core.state import State
from flowstone.errors import FlowStoneError, StepFailedError


@asset(partitions=StaticPartitions(range(6)))
def mixed(context) -> int:
    if context.partition == 1:
        raise ValueError("not one")
    if context.partition == 2:
        raise Skip("two is boring")
    return context.partition


@asset(partitions=StaticPartitions(range(6)))
def below(mixed: int) -> int:
    return mixed


@asset
def one() -> int:
    return 1


@asset
def two() -> int:
    return 2


def flow() -> FlowStone:
    return FlowStone.for_testing([mixed, below, one, two])


def test_counts_errors_and_values() -> None:
    made = flow()
    made.materialize("mixed", partition=5)
    result = made.backfill(["mixed", "below"])
    assert (result.total, result.succeeded, result.reused, result.failed, result.skipped) == (12, 7, 1, 2, 2)
    assert (result.cancelled, result.ok, result.state) == (0, False, State.FAILED)
    assert set(result.errors) == {("mixed", "i:1"), ("below", "i:1")}
    assert "ValueError: not one" in result.errors["mixed", "i:1"]
    assert {key for _, key in result.materializations} == {"i:0", "i:3", "i:4", "i:5"}
    with pytest.raises(StepFailedError, match=r"not one[\s\S]*\(1 more steps failed\)"):
        result.raise_for_failures()
    with pytest.raises(FlowStoneError, match="2 assets were asked for"):
        result.value  # noqa: B018
    document = json.loads(json.dumps(result.to_json()))
    assert document["failed"] == 2
    assert {error["partition"] for error in document["errors"]} == {"i:1"}


def test_values_of_one_and_of_many() -> None:
    made = flow()
    assert made.materialize_all("one").value == 1
    assert made.backfill("mixed", partitions=[0, 3]).value == {0: 0, 3: 3}
    assert made.backfill("mixed", partitions=[0]).value == {0: 0}
    assert {key: one.value for key, one in made.backfill("mixed", partitions=[0, 3]).results.items()} == {
        0: 0,
        3: 3,
    }
    assert {key: one.value for key, one in made.materialize_all("one").results.items()} == {None: 1}
    result = made.materialize_all(["one", "two"])
    assert {asset: done.value for (asset, _), done in result.materializations.items()} == {"one": 1, "two": 2}
    assert result.raise_for_failures() is result


def test_progress_goes_from_nothing_to_all() -> None:
    seen: list[Progress] = []
    flow().backfill("mixed", on_progress=seen.append)
    done = [progress.done for progress in seen]
    assert (done[0], done[-1], done) == (0, 6, sorted(done))
    assert {progress.total for progress in seen} == {6}
    assert (seen[-1].failed, seen[-1].running) == (1, 0)


def test_progress_reports_what_ended_since_the_last_report() -> None:
    reported: list[Progress] = []
    result = flow().backfill(["mixed", "below"], on_progress=reported.append)
    ended = [step for progress in reported for step in progress.finished]
    assert len(ended) == len({step.step_id for step in ended}) == result.total == 12
    assert all(len(progress.finished) <= progress.done for progress in reported)
    (failed,) = [step for step in ended if step.state is State.FAILED]
    assert (failed.asset, failed.partition, failed.error_type) == ("mixed", 1, "builtins.ValueError")
    assert failed.error == "ValueError: not one"
