"""Actions on all runs that match: asked again when the number has moved, done to exactly those."""

from __future__ import annotations

import pytest

from flowstone import FlowStone, asset
from flowstone.core.bulk import has_moved
from flowstone.core.state import State
from flowstone.errors import CountMovedError, OptionsError, RunNotFoundError


@asset
def one() -> int:
    return 1


@asset
def two() -> int:
    raise ValueError("no")


@pytest.fixture
def flow() -> FlowStone:
    """An app with runs that are not over, because nobody drives them."""
    app = FlowStone.for_testing([one, two])
    for number in range(10):
        job = app.schedule("one", run_id=f"r{number}", force=True)
        assert job.run_id
    return app


def test_a_number_that_moved_by_a_tenth_is_asked_again(flow: FlowStone) -> None:
    """airflow#55452, dagster#3271: the selection is the filter, and the count in it is exact."""
    for expected, found in ((10, 11), (100, 90), (0, 0)):
        assert not has_moved(expected, found)
    for expected, found in ((10, 12), (1, 2), (1, 0), (0, 1)):
        assert has_moved(expected, found)
    preview = flow.bulk.preview("retry", "asset:one")
    assert (preview.number, preview.filter) == (0, "-state:running -state:completed asset:one")
    with pytest.raises(CountMovedError, match="expected=0") as caught:
        flow.bulk.retry(preview.filter, expected=3)
    assert (caught.value.expected, caught.value.found) == (3, 0)


def test_ages_of_a_preview_stay_what_they_meant(flow: FlowStone) -> None:
    preview = flow.bulk.preview("cancel", "since:24h")
    assert "since:20" in preview.filter
    assert flow.bulk.preview("cancel", preview.filter).filter == preview.filter


def test_only_what_can_be_done_is_done(flow: FlowStone) -> None:
    """Runs that are over are not cancelled, whatever matches."""
    assert flow.bulk.preview("cancel", "").number == 0
    assert flow.bulk.cancel("state:completed", expected=0).number == 0
    assert {run.state for run in flow.runs.latest()} == {State.COMPLETED}
    assert flow.audit.latest() == []


def test_what_failed_is_retried_only_where_it_says(flow: FlowStone) -> None:
    with pytest.raises(ValueError, match="no"):
        flow.materialize("two", run_id="bad")
    with pytest.raises(OptionsError, match="that was not done matches"):
        flow.runs.retry("bad", assets=["one"])
    with pytest.raises(OptionsError, match=r"builtins\.KeyError"):
        flow.runs.retry("bad", error_type="builtins.KeyError")
    again = flow.runs.retry("bad", assets=["two"], error_type="builtins.ValueError")
    assert again.record.retry_of == "bad"
    preview = flow.bulk.preview("retry", "asset:two")
    assert preview.number == 2
    with pytest.raises(OptionsError, match="None of 2 runs can be retried"):
        flow.bulk.retry(preview.filter, expected=2)


@pytest.mark.parametrize("expected", [-1, True, 1.0, "1", None, 10**12])
def test_numbers_that_are_none(flow: FlowStone, expected: object) -> None:
    with pytest.raises(OptionsError, match="expected="):
        flow.bulk.cancel("", expected=expected)  # type: ignore[arg-type]


def test_odd_requests(flow: FlowStone) -> None:
    with pytest.raises(OptionsError, match="Did you mean 'cancel'"):
        flow.bulk.preview("cancle", "")
    with pytest.raises(OptionsError, match="priority=10"):
        flow.bulk.set_priority("", 10, expected=0)
    with pytest.raises(OptionsError, match="is over"):
        flow.runs.set_priority("r1", 3)
    with pytest.raises(OptionsError, match="is over"):
        flow.runs.set_window("r1", 3)
    with pytest.raises(RunNotFoundError):
        flow.bulk.cancel_steps("nothing", expected=0)
    with pytest.raises(CountMovedError):
        flow.bulk.cancel_steps("r1", expected=4)
    assert flow.bulk.count_steps("r1", states=[State.COMPLETED]) == 0
