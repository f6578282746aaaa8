from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.crews import crew_of, pytest_runtest_makereport
from tests.observability.test_traces_of_workers import Observed

from flowstone import FlowStone, Schedule, StaticPartitions, asset, check
from flowstone.errors import ConfigurationError
from flowstone.observability.health import HealthServer
from flowstone.observability.metrics import (
    MAX_ASSETS,
    OTHER,
    Family,
    Metrics,
    ProcessMetrics,
    TableMetrics,
    exposition,
)
from flowstone.testing.marks import wait_until

__all__ = ["pytest_runtest_makereport"]

crew = crew_of(Observed)
parts = StaticPartitions(["eu", "us"])


@asset(partitions=parts, concurrency={"narrow": 2})
def orders() -> list[int]:
    return [1]


@asset
def broken() -> int:
    raise ValueError("no luck")


@check(orders)
def not_empty(value: list[int]) -> bool:
    return bool(value)


def get(address: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(address, timeout=30.0) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture
def flow() -> Iterator[FlowStone]:
    with FlowStone.for_testing([orders, broken], checks=[not_empty]) as flow:
        yield flow


@pytest.fixture
def text(flow: FlowStone) -> str:
    """Return what is answered after some work, one of it failed."""
    process = ProcessMetrics(flow.graph)
    process.start()
    try:
        flow.backfill("orders")
        with pytest.raises(ValueError, match="no luck"):
            flow.materialize("broken")
    finally:
        process.stop()
    return Metrics("1", process=process, tables=TableMetrics(flow.insights, flow.parts.store)).text()


def test_what_happened_is_counted(text: str) -> None:
    assert 'flowstone_attempts_total{asset="orders",outcome="succeeded"} 2\n' in text
    assert 'flowstone_attempts_total{asset="broken",outcome="failed"} 1\n' in text
    assert 'flowstone_attempt_duration_seconds_count{asset="orders"} 2\n' in text
    assert 'flowstone_attempt_duration_seconds_bucket{asset="orders",le="+Inf"} 2\n' in text
    assert 'flowstone_checks_total{asset="orders",result="passed"} 2\n' in text
    assert 'flowstone_runs_ended_total{kind="backfill",state="completed"} 1\n' in text
    assert 'flowstone_asset_partitions{asset="orders",state="committed"} 2\n' in text
    assert 'flowstone_asset_partitions{asset="broken",state="failed"} 1\n' in text
    assert "flowstone_attempts_running 0\n" in text
    assert "flowstone_database_up 1\n" in text
    assert 'flowstone_notifications{state="given_up"} 0\n' in text
    assert 'flowstone_automations{state="late"} 0\n' in text
    assert re.search(r'flowstone_asset_last_success_timestamp_seconds\{asset="orders"\} \d{10}', text)


def test_no_run_step_or_partition_is_a_label_and_no_series_stands_twice(text: str) -> None:
    """prometheus-prefect-exporter#84, #161, airflow-exporter#59: labels without a bound, and series twice."""
    labels = set(re.findall(r'([a-z_]+)="', text))
    assert labels <= {"asset", "outcome", "state", "kind", "queue", "limit", "le", "result", "version", "exporter"}
    series = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(series) == len(set(series))
    assert '"eu"' not in text


def test_what_is_late_can_raise_an_alarm(database_url: str) -> None:
    """airflow#14364, airflow#69086. A schedule that is declared no more is due for good, and not late."""

    @asset(fresh_within=0.000001)
    def stock() -> int:
        return 1

    @asset(fresh_within=3600)
    def report() -> int:
        return 1

    def opened(name: str) -> FlowStone:
        schedules = [Schedule("stock", "0 3 * * *", name=name)]
        flow = FlowStone([stock, report], database_url=database_url, schedules=schedules)
        flow.parts.store.automations.declare([one.id for one in flow.evaluators])
        return flow

    with opened("before"), opened("nightly") as flow:
        for name in ("stock", "report"):
            flow.materialize(name, executor="sync")
        with flow.parts.store.connection() as connection:  # type: ignore[attr-defined]
            connection.execute("UPDATE flowstone.automations SET due_at = clock_timestamp() - interval '1 hour'")
        tables = exposition(TableMetrics(flow.insights, flow.parts.store).families())
        assert [one.name for one in flow.insights.overview().late] == ["nightly"]
    assert 'flowstone_asset_late{asset="stock"} 1\n' in tables
    assert 'flowstone_asset_late{asset="report"} 0\n' in tables
    assert 'flowstone_automations{state="late"} 1\n' in tables
    found = re.findall(r'flowstone_automation_late_seconds\{kind="(\w+)",automation="(\w+)"\} (\d+)', tables)
    assert [(kind, name) for kind, name, _ in found] == [("schedule", "nightly")]
    assert 3600 <= int(found[0][2]) < 3700


def test_the_number_of_assets_with_series_is_bounded() -> None:
    def made(number: int) -> Any:
        @asset(name=f"a{number:04}")
        def one() -> int:
            return number

        return one

    flow = FlowStone.for_testing([made(number) for number in range(MAX_ASSETS + 3)])
    process = ProcessMetrics(flow.graph)
    process.start()
    try:
        for number in (0, MAX_ASSETS + 1, MAX_ASSETS + 2):
            flow.materialize(f"a{number:04}")
    finally:
        process.stop()
    text = exposition(process.families())
    assert f'flowstone_attempts_total{{asset="{OTHER}",outcome="succeeded"}} 2\n' in text
    assert 'flowstone_attempts_total{asset="a0000",outcome="succeeded"} 1\n' in text
    tables = exposition(TableMetrics(flow.insights, flow.parts.store).families())
    assert len(re.findall(r"flowstone_asset_partitions\{.*committed", tables)) == MAX_ASSETS


def test_names_are_escaped() -> None:
    family = Family("m", "gauge", "a\nb\\c")
    family.add(1.5, queue='say "hi"\n\\ \ud800')
    assert exposition([family]) == '# HELP m a b\\\\c\n# TYPE m gauge\nm{queue="say \\"hi\\"\\n\\\\ ?"} 1.5\n'


def test_an_absent_database_is_a_metric_and_no_error(flow: FlowStone) -> None:
    class Away:
        def queues(self) -> None:
            raise ConnectionError("no database")

    text = Metrics("1", tables=TableMetrics(Away(), flow.parts.store)).text()  # type: ignore[arg-type]
    assert "flowstone_database_up 0\n" in text


def test_the_tables_are_read_once_however_many_ask(flow: FlowStone) -> None:
    class Counting:
        number = 0

        def __getattr__(self, name: str) -> Any:
            Counting.number += name == "queues"
            return getattr(flow.insights, name)

    tables = TableMetrics(Counting(), flow.parts.store)
    for _ in range(20):
        tables.families()
    assert Counting.number == 1


def test_parts_can_be_asked_for_and_others_are_refused(flow: FlowStone) -> None:
    tables = TableMetrics(flow.insights, flow.parts.store)
    metrics = Metrics("1", process=ProcessMetrics(flow.graph), tables=tables)
    assert "flowstone_workers" not in metrics.text("process")
    assert "flowstone_commit_duration" not in metrics.text("tables")
    with pytest.raises(ValueError, match="give process, tables, or neither"):
        metrics.text("runs")


def test_metrics_of_the_program_itself_are_answered_too(flow: FlowStone, monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        @staticmethod
        def generate_latest() -> bytes:
            return b"my_total 1\n"

    monkeypatch.setitem(sys.modules, "prometheus_client", Client)
    assert Metrics("1").text().endswith("my_total 1\n")
    monkeypatch.setattr(Client, "generate_latest", lambda: 1 / 0)
    assert "flowstone_info" in Metrics("1").text()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Debian's prometheus")
def test_promtool_finds_nothing(text: str) -> None:
    found = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def test_probes_say_what_is_wrong() -> None:
    state: dict[str, str | None] = {"live": None, "ready": "not yet"}
    probes = {"live": lambda: state["live"], "ready": lambda: state["ready"]}
    with HealthServer("127.0.0.1", 0, **probes, metrics=lambda part: f"m {part}\n") as server:
        assert get(f"{server.address}/live") == (200, '{"status": "ok"}\n')
        assert get(f"{server.address}/ready") == (503, '{"status": "failing", "reason": "not yet"}\n')
        assert get(f"{server.address}/metrics?from=process") == (200, "m process\n")
        assert get(f"{server.address}/other")[0] == 404
        port = int(server.address.rpartition(":")[2])
        with pytest.raises(ConfigurationError, match=rf"--health-port {port}: cannot listen"):
            HealthServer("127.0.0.1", port, **probes, metrics=str)


def test_clients_that_say_nothing_keep_nobody_out() -> None:
    with HealthServer("127.0.0.1", 0, live=lambda: None, ready=lambda: None, metrics=str) as server:
        host, port = server.address.removeprefix("http://").split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(10)]
        try:
            assert get(f"{server.address}/live")[0] == 200
        finally:
            for one in idle:
                one.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def serve_observed(crew: Observed) -> tuple[subprocess.Popen[str], str]:
    """Start a worker as people do; return it with the address at which it answers."""
    arguments = "worker --app tests.observability.served_app:flow --queue assets=2 --health-port 0 --grace 1"
    process = subprocess.Popen(
        [sys.executable, "-m", "flowstone", *arguments.split()],
        env=crew.environment(),
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if (found := re.search(r"answers (http://\S+)/metrics", line)) is not None:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, found[1]
    raise AssertionError("".join(lines))


@pytest.fixture
def scraped(crew: Observed, tmp_path: Path) -> Iterator[tuple[Observed, subprocess.Popen[str], str, Any]]:
    """A worker that answers, and a Prometheus that scrapes it; asks that one."""
    worker, address = serve_observed(crew)
    port = free_port()
    config = tmp_path / "prometheus.yml"
    target = address.removeprefix("http://")
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: flowstone, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    prometheus = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ],
        cwd=tmp_path,
    )

    def ask(query: str) -> list[Any]:
        try:
            _, text = get(f"http://127.0.0.1:{port}/api/v1/query?query={urllib.parse.quote(query)}")
            return list(json.loads(text)["data"]["result"])
        except (OSError, ValueError, KeyError):
            return []

    try:
        yield crew, worker, address, ask
    finally:
        prometheus.terminate()
        prometheus.wait(60)
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
            worker.wait(90)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Debian's prometheus")
def test_a_real_prometheus_scrapes_a_worker(
    scraped: tuple[Observed, subprocess.Popen[str], str, Any],
) -> None:
    crew, _, address, ask = scraped
    assert wait_until(lambda: get(f"{address}/ready")[0] == 200, timeout_seconds=60.0)
    assert get(f"{address}/live")[0] == 200
    crew.wait_over([crew.place("fails_once")])
    counted = 'flowstone_attempts_total{asset="fails_once",outcome="succeeded"}'
    alive = 'flowstone_workers{kind="node",state="alive"} == 1'
    assert wait_until(lambda: bool(ask(counted) and ask(alive)), timeout_seconds=60.0)
    assert ask(counted)[0]["value"][1] == "1"
    assert ask('flowstone_attempts_total{asset="fails_once",outcome="retrying"}')[0]["value"][1] == "1"
    assert ask('up{job="flowstone"}')[0]["value"][1] == "1"
    assert ask("histogram_quantile(0.5, sum by (le) (flowstone_queue_time_seconds_bucket))")
    _, text = get(f"{address}/metrics")
    found = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, found.stderr) == (0, ""), found.stdout


def test_a_worker_whose_lease_is_not_renewed_is_live_and_not_ready(crew: Observed) -> None:
    """prefect#9687, que#260: a probe that answers `ok` whatever the worker does lets it stand still for ever."""
    worker, address = serve_observed(crew)
    try:
        assert wait_until(lambda: get(f"{address}/ready")[0] == 200, timeout_seconds=60.0)
        [renews] = crew.heartbeats(worker)  # type: ignore[arg-type] - it has a pid as well
        os.kill(renews, signal.SIGSTOP)
        assert wait_until(lambda: get(f"{address}/ready")[0] == 503, timeout_seconds=60.0)
        assert "lease is not renewed" in get(f"{address}/ready")[1]
        assert get(f"{address}/live")[0] == 200
        os.kill(renews, signal.SIGCONT)
        assert wait_until(lambda: get(f"{address}/ready")[0] == 200, timeout_seconds=60.0)
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(90) == 0
