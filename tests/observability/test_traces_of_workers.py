"""The trace of one run over a client, two workers and an isolated child, as an SDK exports it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.crews import crew_of, pytest_runtest_makereport
from tests.faults.fleet import ROOT, Fleet
from tests.observability import observed_app

from flowstone import FlowStone
from flowstone.observability import OpenTelemetry

__all__ = ["pytest_runtest_makereport"]


class Observed(Fleet):
    app = "tests.observability.observed_app"

    def client(self) -> FlowStone:
        return observed_app.make_flow(self.database_url, self.storage)

    def spans(self) -> dict[str, list[dict]]:
        """Return all spans that were exported, by process and name."""
        found: dict[str, list[dict]] = {}
        for file in self.directory.glob("spans-*.jsonl"):
            for line in file.read_text().splitlines():
                span = json.loads(line)
                span["pid"] = int(file.stem.partition("-")[2])
                found.setdefault(span["name"], []).append(span)
        return found


crew = crew_of(Observed)


def test_one_run_over_two_workers_and_a_child_is_one_trace(crew: Observed) -> None:
    workers = crew.start(2, queues={"assets": 1}, OBSERVED_SPANS=str(crew.directory))
    environment = crew.environment() | {"OBSERVED_SPANS": str(crew.directory)}
    placing = (
        "from tests.observability.observed_app import make_flow; import os\n"
        "with make_flow(os.environ['FLOWSTONE_DATABASE_URL'], os.environ['FLOWSTONE_STORAGE']) as flow:\n"
        "    print(flow.materialize_all('joined').run_id)\n"
    )
    client = [sys.executable, "-c", placing]
    run_id = subprocess.check_output(client, env=environment, cwd=ROOT, text=True, timeout=120).strip()
    names = ["run materialize_all", "inside left", "inside right", "inside joined"]
    names += [f"materialize {name}" for name in ("left", "right", "joined")]
    crew.wait(lambda: crew.spans().keys() >= set(names), "the spans of all processes")
    spans = {name: crew.spans()[name][0] for name in names}

    assert len({span["context"]["trace_id"] for span in spans.values()}) == 1
    run = spans["run materialize_all"]
    assert run["pid"] not in [worker.pid for worker in workers]
    assert {spans["materialize left"]["pid"], spans["materialize right"]["pid"]} == {one.pid for one in workers}
    assert spans["inside joined"]["pid"] not in {run["pid"], *(one.pid for one in workers)}
    for name in ("left", "right", "joined"):
        attempt, inside = spans[f"materialize {name}"], spans[f"inside {name}"]
        assert attempt["parent_id"] == run["context"]["span_id"]
        assert attempt["links"][0]["context"]["span_id"] == run["context"]["span_id"]
        assert inside["parent_id"] == attempt["context"]["span_id"]
        assert attempt["attributes"]["messaging.destination.name"] == "assets"
        assert attempt["attributes"]["flowstone.queue_seconds"] >= 0.0
        assert attempt["attributes"]["flowstone.state"] == "completed"
    # what the tables and Oban's own tools see of it
    parent = f"00-{run['context']['trace_id'][2:]}-{run['context']['span_id'][2:]}-0"
    [(recorded,)] = crew.rows("SELECT details ->> 'traceparent' FROM flowstone.runs WHERE id = %s", run_id)
    assert recorded[:-1] == parent
    assert {row[0] for row in crew.rows("SELECT meta ->> 'traceparent' FROM public.oban_jobs")} == {recorded}
    # logs as JSON lead to the trace
    written = [json.loads(line) for file in crew.directory.glob("log-*.jsonl") for line in file.open()]
    lines = {line["message"]: line for line in written}
    assert lines["here is left"]["trace_id"] == run["context"]["trace_id"][2:]
    assert (lines["here is left"]["asset"], lines["here is left"]["run_id"]) == ("left", run_id)
    failures = [line for line in written if line["level"] == "ERROR"]
    assert failures == []


def test_without_observers_nothing_of_it_is_recorded(crew: Observed) -> None:
    run_id = crew.place("fails_once")
    assert crew.rows("SELECT details FROM flowstone.runs WHERE id = %s", run_id) == [(None,)]
    assert crew.rows("SELECT meta ? 'traceparent' FROM public.oban_jobs") == [(False,)]


SET_UP = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: span.name + chr(10))))
trace.set_tracer_provider(provider)
"""
PROGRAM = """
from flowstone import FlowStone, asset
@asset
def one():
    return 1
@asset(isolation="process")
def two(one):
    with trace.get_tracer("user").start_as_current_span("in the child"):
        return one
if __name__ == "__main__":
    FlowStone.for_testing([one, two]).materialize_all("two")
"""


def test_opentelemetry_instrument_needs_no_code(tmp_path: Path) -> None:
    """prefect#20535: what `opentelemetry-instrument` sets up does not reach child processes by itself."""
    pytest.importorskip("opentelemetry.instrumentation")
    program = tmp_path / "program.py"
    program.write_text(SET_UP + PROGRAM)
    found = subprocess.run(
        [str(Path(sys.executable).with_name("opentelemetry-instrument")), sys.executable, str(program)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
    )
    assert found.returncode == 0, found.stderr
    names = ["in the child", "materialize one", "materialize two", "run materialize_all"]
    assert sorted(found.stdout.split("\n")) == ["", *names], found.stderr


def test_a_second_observer_takes_the_place_of_the_first() -> None:
    first, second = OpenTelemetry(), OpenTelemetry()
    first.start()
    second.start()
    first.stop()  # too late to stop anything
    second.stop()
