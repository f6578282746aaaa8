"""Nothing that a step says ends anything but that step; a worker says how it ended with each."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.crews import crew_of
from tests.steering import hostile_texts_app
from tests.steering.crew import Crew

from flowstone import FlowStone
from flowstone.core.state import State
from flowstone.errors import StepFailedError


class Saying(Crew):
    app = "tests.steering.hostile_texts_app"

    def client(self) -> FlowStone:
        return hostile_texts_app.make_flow(self.database_url, self.storage)


crew = crew_of(Saying)


def test_what_steps_say(crew: Saying) -> None:
    (worker,) = crew.start(queues={"assets": 4, "backfill": 4})
    flow = crew.flow
    names = ("endless", "fights", "poisoned", "ended", "hooked", "answered")
    runs = {name: flow.schedule(name).run_id for name in names}
    assert flow.backfill("good").ok
    assert flow.materialize("busy").attempt == 2
    crew.wait_over(list(runs.values()))
    steps = {name: flow.runs.steps(run_id)[0] for name, run_id in runs.items()}
    assert {step.state for step in steps.values()} == {State.FAILED}
    expected = {
        "endless": "RetryPolicy(backoff=...) returned nan, so there is no further attempt",
        "fights": "The retry policy could not decide whether to try again: SystemExit",
        "poisoned": "context.metadata['fact'] (type tests.steering.hostile_texts_app.Unspeakable)",
        "ended": "Fatal: the contract ended",
        "hooked": "SystemExit: a hook",
        "answered": "SystemExit: no text",
    }
    for name, text in expected.items():
        assert text in (steps[name].error or ""), (name, steps[name].error)
    assert steps["ended"].error_data == {"customer": 7}
    done = flow.history("good")[0]
    assert done.stored is not None
    assert done.stored.metadata == {"rows": 3, "day": "2024-01-05", "share": "NaN", "name": "a\\x00b"}
    with pytest.raises(StepFailedError) as caught:
        flow.materialize("ended")
    assert caught.value.data == {"customer": 7}
    _check_log(worker.message)
    _check_events([json.loads(line) for line in (crew.directory / "emitted").read_text().splitlines()])


def _check_log(message: str) -> None:
    assert "INFO flowstone.steps: good [2024-01-02] begins: attempt 1 of 3, run " in message
    assert "INFO flowstone.steps: good [2024-01-02] completed after " in message
    error = "tests.steering.hostile_texts_app.BusyError: come again (run "
    repeated = f"busy failed in attempt 1 of 2 and is repeated in 0.1 s: {error}"
    assert f"WARNING flowstone.steps: {repeated}" in message
    assert (
        "ERROR flowstone.steps: ended failed for good in attempt 1 of 3: Fatal: the contract ended (run "
        in message
    )
    assert "The telemetry handler 'clumsy' raised" in message


def _check_events(reported: list[tuple[str, dict[str, float], dict[str, Any]]]) -> None:
    ends = [about for event, _, about in reported if event == "run.ended"]
    assert len({end["run_id"] for end in ends}) == len(ends) >= 8
    assert {end["state"] for end in ends} == {"completed", "failed"}
    busy = [(measured, about) for event, measured, about in reported if about.get("asset") == "busy"]
    (first, retried), (_, final) = busy
    assert (retried["state"], retried["final"], retried["accepted"], first["retry_in_seconds"]) == (
        "retrying",
        False,
        True,
        0.1,
    )
    assert (final["outcome"], final["final"], retried["error_type"]) == (
        "succeeded",
        True,
        "tests.steering.hostile_texts_app.BusyError",
    )
    assert 0 <= first["queue_seconds"] < 60
