"""On a database: a request whose inputs nobody makes ends at once, and whoever waits learns for what."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

import pytest
from tests.faults.fault_app import ITEMS
from tests.steering.crew import Crew

from flowstone.errors import DependencyNotReadyError, WaitTimeoutError


def test_missing_inputs_end_a_request_before_anything_is_placed(crew: Crew) -> None:
    with pytest.raises(DependencyNotReadyError) as caught:
        crew.flow.materialize("after", partition=ITEMS[0])
    assert caught.value.missing == (("fragile", f"s:{ITEMS[0]}"),)
    with pytest.raises(DependencyNotReadyError):
        crew.flow.backfill("after", partitions=ITEMS[:3], wait_for_inputs=False)
    assert crew.flow.runs.latest() == []
    assert crew.rows("SELECT 1 FROM public.oban_jobs") == []


def test_an_input_that_is_under_way_is_waited_for_without_being_asked(crew: Crew) -> None:
    (crew.directory / f"hold-{ITEMS[0]}").touch()
    crew.start(queues={"assets": 4})
    crew.flow.schedule("fragile", partition=ITEMS[0])
    found: list[object] = []
    waits = threading.Thread(target=lambda: found.append(crew.flow.materialize("after", partition=ITEMS[0]).value))
    waits.start()
    crew.wait(lambda: crew.rows("SELECT 1 FROM flowstone.steps WHERE snoozes > 0"), "a look at the inputs")
    assert crew.flow.why("after", ITEMS[0])[0].startswith(f"waits for fragile [{ITEMS[0]}], which is ")
    crew.open_gate(ITEMS[0])
    waits.join(90)
    assert found == [ITEMS[0].upper()]


def test_whoever_joins_a_step_that_waits_for_inputs_and_makes_them_does_not_wait_for_its_next_look(
    crew: Crew,
) -> None:
    crew.start(queues={"assets": 4})
    job = crew.flow.schedule("after", partition=ITEMS[0])
    crew.wait(lambda: crew.rows("SELECT 1 FROM flowstone.steps WHERE snoozes > 0"), "a look at the inputs")
    assert crew.flow.settings.snooze_seconds == 60  # when it would look next
    made = crew.flow.materialize_all("after", partition=ITEMS[0], executor_opts={"wait_timeout": 20})
    assert made.ok
    assert crew.flow.runs.step(job).state.value == "completed"


def test_whoever_waits_learns_for_what(crew: Crew, caplog: pytest.LogCaptureFixture) -> None:
    reported: list[tuple[str, ...]] = []
    with caplog.at_level(logging.WARNING, logger="flowstone"), suppress(WaitTimeoutError):
        crew.flow.materialize("quick", partition=ITEMS[0], executor_opts={"wait_timeout": 3})
    assert "waits: no worker serves the queue 'assets': start `flowstone worker --queue assets`" in caplog.text
    assert f"quick [{ITEMS[0]}]" in caplog.text
    caplog.clear()
    crew.flow.queues.pause("backfill")
    crew.lease()
    with caplog.at_level(logging.WARNING, logger="flowstone"):
        crew.flow.backfill(
            "quick",
            partitions=ITEMS[1:3],
            executor_opts={"wait_timeout": 3.5},
            on_progress=lambda progress: reported.append(progress.waiting_for),
        )
    paused = f"quick [{ITEMS[1]}]: the queue 'backfill' is paused: `flowstone resume --queue backfill`"
    assert (paused in caplog.text, reported[0]) == (True, ())
    assert any(paused in reasons for reasons in reported)
