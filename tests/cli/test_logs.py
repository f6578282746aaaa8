"""`flowstone logs`: of a step, of a run, by attempt, followed to the end, without an app."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from tests.cli.conftest import CommandLine

from flowstone import FlowStone, StaticPartitions, asset

go = threading.Event()


@asset(partitions=StaticPartitions(["a", "b"]))
def parted(context):
    context.logger.info("of %s", context.partition)
    context.logger.warning("token=%s", "secret-of-the-command")


@asset
def flaky(context):
    context.logger.info("try %d", context.attempt)
    if context.attempt == 1:
        raise ValueError("once")


@asset
def slow(context):
    context.logger.info("begins")
    go.wait(20)
    context.logger.info("ends")


@pytest.fixture
def flow(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlowStone]:
    monkeypatch.setenv("FLOWSTONE_DATABASE_URL", database_url)
    with FlowStone([parted, flaky, slow], database_url=database_url) as opened:
        yield opened


def test_a_step_and_a_run_are_shown_without_an_app(cli: CommandLine, flow: FlowStone) -> None:
    run = flow.backfill("parted", executor="sync")
    flow.parts.logs.flush()  # type: ignore[union-attr]
    step = run.results["a"].step_id
    answer = cli("logs", str(step))
    assert (answer.code, answer.out) == (0, "of a\nWARNING token=***\n")
    answer = cli("logs", run.run_id)
    assert sorted(answer.out.splitlines()) == [
        "parted [a] | WARNING token=***",
        "parted [a] | of a",
        "parted [b] | WARNING token=***",
        "parted [b] | of b",
    ]
    document = cli("logs", str(step), "--json").json
    assert (document["total"], document["lines"][0]["text"], document["over"]) == (2, "of a", True)
    assert len(cli("logs", run.run_id, "--json").json["lines"]) == 4
    assert "of a" in cli("logs", str(step), "--times").out


def test_attempts_are_shown_by_number(cli: CommandLine, flow: FlowStone) -> None:
    job = flow.schedule("flaky", executor="sync", executor_opts={"retry": True})
    flow.parts.logs.flush()  # type: ignore[union-attr]
    assert cli("logs", str(job.id)).out == "try 2\n"
    assert cli("logs", str(job.id), "--attempt", "1").out == "try 1\n"
    assert "Nothing was logged" in cli("logs", str(job.id), "--attempt", "9").err
    assert sorted(cli("logs", job.run_id).out.splitlines()) == ["flaky #2 | try 2", "flaky | try 1"]


@pytest.mark.parametrize("what", ["step", "run"])
def test_following_ends_with_what_it_follows(cli: CommandLine, flow: FlowStone, what: str) -> None:
    go.clear()
    worker = threading.Thread(target=flow.materialize, args=("slow",), kwargs={"executor": "sync", "force": True})
    worker.start()
    while not (running := [run for run in flow.runs.latest() if not run.state.is_terminal]):
        threading.Event().wait(0.02)
    step = flow.runs.steps(running[0].id)[0].id
    threading.Timer(0.7, go.set).start()
    answer = cli("logs", str(step) if what == "step" else running[0].id, "--follow", "--json")
    worker.join()
    assert answer.code == 0
    assert [json.loads(line)["text"] for line in answer.out.splitlines()] == ["begins", "ends"]


@pytest.mark.parametrize("which", ["no-such-run", "999999999999", "1" * 40])
def test_what_is_not_there_is_said(cli: CommandLine, flow: FlowStone, which: str) -> None:
    answer = cli("logs", which)
    assert answer.code == 2
    assert which in answer.err


def test_an_attempt_of_a_run_is_no_option(cli: CommandLine, flow: FlowStone) -> None:
    run = flow.backfill("parted", executor="sync")
    answer = cli("logs", run.run_id, "--attempt", "1")
    assert answer.code == 2
    assert "--attempt" in answer.err
