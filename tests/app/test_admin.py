"""The views for whoever runs the app: executors, queues, checks; the conformance suites hold the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import flowstone
from flowstone import (
    Capability,
    CheckContext,
    CheckResult,
    CircuitBreaker,
    FlowStone,
    RateLimited,
    RetryPolicy,
    Severity,
    StaticPartitions,
    asset,
    check,
)
from flowstone.core.job import Job, JobStatus
from flowstone.core.state import State
from flowstone.errors import (
    CapabilityError,
    CheckFailedError,
    DependencyNotReadyError,
    DuplicateCheckError,
    OptionsError,
    PartitionError,
    RunNotFoundError,
    StorageError,
    UnknownAssetError,
    UnknownCheckedAssetError,
    UnknownExecutorError,
    UnknownPartitionError,
)
from flowstone.executors.inline import SyncExecutor


@asset
def one() -> int:
    return 1


@asset(retry=RetryPolicy(max_attempts=2, backoff_seconds=0, jitter=0))
def broken() -> int:
    raise ValueError("no")


class Elsewhere(SyncExecutor):
    """Places work somewhere and knows how it is doing there."""

    name = "elsewhere"
    capabilities = frozenset({Capability.STATUS})
    answer: object = None

    def schedule(self, job: Job, **options: Any) -> Job:
        return job

    def status(self, job: Job) -> Any:
        assert (job.asset, job.executor) == ("one", "elsewhere")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Plain:
    """An executor as small as it can be, without options of its own."""

    name = "plain"
    capabilities: frozenset[Capability] = frozenset()

    def bind(self, run: Any) -> None:
        self.run = run

    def execute(self, job: Job, *, colour: str = "red") -> Any:
        return self.run(job)

    def schedule(self, job: Job, *, colour: str = "red") -> Job:
        self.run(job)
        return job


@pytest.fixture
def flow() -> FlowStone:
    return FlowStone.for_testing([one, broken], executors={"plain": Plain})


def test_names_and_capabilities(flow: FlowStone) -> None:
    assert flow.executors.names() == ["async", "oban", "plain", "serial", "sync"]
    oban = flow.executors.capabilities("oban")
    assert {"durable", "retry", "priority", "scheduled_at", "concurrent"} <= oban
    assert "scheduled_at" not in flow.executors.capabilities("sync")
    assert flow.executors.capabilities() == flow.executors.capabilities("sync")
    assert flow.executors.capabilities("plain") == flow.executors.capabilities(Plain()) == frozenset()
    assert (flow.executors.default(), flow.executors.problem("plain")) == ("sync", None)
    assert "no database is configured" in str(flow.executors.problem("oban"))
    with pytest.raises(UnknownExecutorError, match="Did you mean 'serial'"):
        flow.executors.capabilities("seriel")


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        (
            {"executor": "plain", "executor_opts": {"retry": True}},
            CapabilityError,
            "'plain' does not offer 'retry'",
        ),
        ({"executor": "sync", "priority": 0}, CapabilityError, "'sync' does not offer 'priority'"),
        ({"executor": "plain", "executor_opts": {"color": "blue"}}, OptionsError, "Did you mean 'colour'"),
        ({"executor": "sync", "executor_opts": {"queue": "x"}}, OptionsError, "'sync' has no option 'queue'"),
        (
            {"executor": SyncExecutor},
            OptionsError,
            r"SyncExecutor is a class; give an object of it: SyncExecutor\(",
        ),
        ({"executor": 7}, OptionsError, "executor: 7 is no executor"),
        ({"executor": None}, OptionsError, "executor: None is no executor"),
        ({"executor_opts": ["retry"]}, OptionsError, "give a mapping"),
        ({"executor_opts": {"retry": "yes"}}, OptionsError, "retry='yes': give True or False"),
        (
            {"executor": "async", "executor_opts": {"timeout_second": 1}},
            OptionsError,
            "Did you mean 'timeout_seconds'",
        ),
        ({"force": "no"}, OptionsError, "force='no': give True or False"),
        ({"run_id": 5}, OptionsError, "run_id=5: give 1 to 200"),
        ({"run_id": "a\x00"}, OptionsError, "give 1 to 200 printable"),
        ({"priority": 1.5}, OptionsError, "priority=1.5: give a whole number"),
    ],
)
def test_what_an_executor_does_not_do_is_refused_before_anything_is_placed(
    flow: FlowStone, how: Mapping[str, Any], error: type[Exception], text: str
) -> None:
    for verb in (flow.materialize, flow.schedule, flow.backfill, flow.materialize_all):
        with pytest.raises(error, match=text):
            verb("one", **how)
    assert flow.runs.latest() == []


@pytest.mark.parametrize("around", [lambda inner: RateLimited(inner, "10/second"), CircuitBreaker])
def test_one_that_holds_back_checks_what_the_one_within_would(flow: FlowStone, around: Any) -> None:
    with pytest.raises(OptionsError, match="Did you mean 'timeout_seconds'"):
        flow.materialize("one", executor=around(SyncExecutor()), executor_opts={"timeout_secs": 1})
    elsewhere = Elsewhere()
    job = flow.schedule("one", executor=around(elsewhere))
    elsewhere.answer = "in the queue of the cluster"
    assert flow.runs.status(job).waiting_for[0] == "in the queue of the cluster"


def test_the_priority_of_a_call_does_not_decide_which_executor_can_run_it(flow: FlowStone) -> None:
    assert flow.materialize("one", priority=0).state is State.COMPLETED
    assert flow.runs.retry(flow.backfill("broken", priority=2), executor="sync").record.priority == 2


def test_where_a_job_stands(flow: FlowStone) -> None:
    done = flow.schedule("one")
    status = flow.runs.status(done)
    assert isinstance(status, JobStatus)
    assert (status.state, status.attempt, status.max_attempts, status.waiting_for) == (State.COMPLETED, 1, 1, ())
    assert status.result is not None
    assert status.result.value == 1
    assert status.since == flow.runs.step(done).finished_at
    failed = flow.runs.status(flow.schedule("broken", executor_opts={"retry": True}))
    assert (failed.state, failed.attempt, failed.max_attempts, failed.result) == (State.FAILED, 2, 2, None)
    assert failed.error_type == "builtins.ValueError"
    assert str(failed.error).endswith("ValueError: no\n")
    later = datetime.now(UTC) + timedelta(days=1)
    job = flow.schedule("one", executor="async", scheduled_at=later, force=True)
    waits = flow.runs.status(job.id)
    assert (waits.state, waits.scheduled_at, waits.attempt) == (State.SCHEDULED, later, 0)
    assert waits.waiting_for[0].startswith("it starts at 20")
    flow.cancel_job(job)
    assert flow.runs.status(str(job.id)).reason == "cancelled before it started"
    with pytest.raises(AttributeError):
        waits.state = State.RUNNING  # type: ignore[misc]


@pytest.mark.parametrize(
    ("answer", "state", "text"),
    [
        (State.RUNNING, State.RUNNING, None),
        ("running", State.RUNNING, None),
        (None, State.PENDING, None),
        ("it is number 3 in line", State.PENDING, "it is number 3 in line"),
        (State.COMPLETED, State.PENDING, "says completed; nothing is committed yet"),
        (OSError("no route"), State.PENDING, "could not say more: OSError: no route"),
    ],
)
def test_an_executor_is_asked_about_what_is_not_over(
    flow: FlowStone, answer: object, state: State, text: str | None
) -> None:
    executor = Elsewhere()
    job = flow.schedule("one", executor=executor)
    executor.answer = answer
    status = flow.runs.status(job)
    assert status.state is flow.job_status(job) is state
    assert text is None or text in status.waiting_for[0]
    flow.cancel_job(job)
    assert flow.job_status(job) is State.CANCELLED  # nobody is asked any more


@pytest.mark.parametrize("wrong", ["x", "", "-1", "1.5", "9" * 30, "1\x00", "٣", 10**30, -4])
def test_no_step_has_such_an_id(flow: FlowStone, wrong: Any) -> None:
    assert flow.job_status(wrong) is State.NOT_FOUND
    assert flow.runs.status(wrong) == JobStatus(state=State.NOT_FOUND)
    for verb in (flow.runs.step, flow.runs.attempts, flow.cancel_job, flow.runs.wait_for):
        with pytest.raises(RunNotFoundError):
            verb(wrong)


@pytest.mark.parametrize("wrong", [None, 1.5, True, float("inf"), b"1", ["1"]])
def test_what_is_no_id_at_all_is_said(flow: FlowStone, wrong: Any) -> None:
    for verb in (flow.job_status, flow.runs.status, flow.runs.step, flow.cancel_job):
        with pytest.raises(OptionsError, match="is no step"):
            verb(wrong)
    for name in ("get", "steps", "cancel", "pause", "resume", "retry"):
        with pytest.raises(OptionsError, match="is no run"):
            getattr(flow.runs, name)(wrong)


@pytest.mark.parametrize("wrong", ["x", "", "a\x00b", "a\ud800"])
def test_no_run_has_such_an_id(flow: FlowStone, wrong: str) -> None:
    for name in ("get", "cancel", "retry"):
        with pytest.raises(RunNotFoundError):
            getattr(flow.runs, name)(wrong)
    assert flow.runs.steps("nobody") == []


def test_verbs_take_what_verbs_return(flow: FlowStone) -> None:
    result = flow.backfill("one")
    job = flow.schedule("one")
    record = flow.runs.get(result)
    assert flow.runs.get(record).id == flow.runs.get(record.id).id == result.run_id
    assert flow.runs.get(job).id == job.run_id
    assert flow.runs.cancel(result).state is State.COMPLETED
    for limit in (0, -1, 1.5, "5", True, 10**30):
        with pytest.raises(OptionsError, match="limit="):
            flow.runs.latest(limit=limit)


DATA: dict[str, Any] = {}


@asset(partitions=StaticPartitions(["eu", "us"]))
def orders(context: Any) -> list[int]:
    context.metadata["rows"] = len(DATA[context.partition])
    return list(DATA[context.partition])


@asset
def unchecked() -> int:
    return 1


@check(orders, blocking=True)
def not_empty(orders: list[int]) -> bool:
    return len(orders) > 0


@check(orders, severity="warning")
def enough(context: CheckContext) -> CheckResult:
    rows = context.metadata["rows"]
    assert isinstance(rows, int)
    return CheckResult(rows > 2, metadata={"rows": rows, "partition": context.partition})


@pytest.fixture
def checks_flow() -> FlowStone:
    DATA.update(eu=[1, 2, 3], us=[1])
    return FlowStone.for_testing([orders, unchecked], checks=[not_empty, enough])


def test_results_and_latest(checks_flow: FlowStone) -> None:
    assert checks_flow.checks.declared("orders") == (not_empty, enough)
    assert checks_flow.checks.declared(unchecked) == ()
    checks_flow.backfill("orders")
    assert [(one.partition_key, one.check, one.passed) for one in checks_flow.checks.latest()] == [
        ("s:eu", "enough", True),
        ("s:eu", "not_empty", True),
        ("s:us", "enough", False),
        ("s:us", "not_empty", True),
    ]
    assert [one.metadata for one in checks_flow.checks.latest(failed=True)] == [{"rows": 1, "partition": "us"}]
    assert checks_flow.checks.latest("orders", partition="eu", failed=True) == []
    assert len(checks_flow.checks.results(orders, partition="us")) == 2
    assert [one.check for one in checks_flow.checks.results("orders", check="enough", limit=1)] == ["enough"]
    assert checks_flow.checks.results("orders", failed=True) == checks_flow.checks.latest(failed=True)
    assert checks_flow.checks.results("unchecked") == []


def test_a_blocked_partition_disturbs_no_other(checks_flow: FlowStone) -> None:
    DATA["us"] = []
    result = checks_flow.backfill("orders")
    assert (result.succeeded, result.failed) == (1, 1)
    assert "'orders' [us] did not pass the blocking check 'not_empty'" in result.errors["orders", "s:us"]
    with pytest.raises(CheckFailedError) as caught:
        checks_flow.materialize("orders", partition="us")
    assert (caught.value.partition, isinstance(caught.value, ValueError)) == ("us", True)


def test_checks_run_again_on_what_is_committed(checks_flow: FlowStone) -> None:
    done = checks_flow.materialize("orders", partition="us")
    DATA["us"] = []
    with pytest.raises(CheckFailedError):
        checks_flow.materialize("orders", partition="us", force=True)
    assert checks_flow.checks.results("orders")[0].blocks
    again = checks_flow.checks.run("orders", partition="us")
    assert [(one.check, one.passed, one.step_id) for one in again] == [
        ("not_empty", True, done.step_id),
        ("enough", False, done.step_id),
    ]
    assert [one.passed for one in checks_flow.history("orders")[0].checks] == [True, False]
    assert checks_flow.load("orders", partition="us") == [1]
    checks_flow.materialize("unchecked")
    assert checks_flow.checks.run("unchecked") == []


def test_a_blocking_check_that_fails_later_unpublishes_nothing() -> None:
    verdict = [True]

    @check(unchecked, blocking=True)
    def moody(unchecked: int) -> bool:
        return verdict[0]

    checks_flow = FlowStone.for_testing([unchecked], checks=[moody])
    checks_flow.materialize("unchecked")
    verdict[0] = False
    (record,) = checks_flow.checks.run("unchecked")
    assert (record.blocks, checks_flow.load("unchecked")) == (True, 1)
    assert not checks_flow.history("unchecked")[0].checks[0].passed


def test_what_cannot_be_checked(checks_flow: FlowStone) -> None:
    with pytest.raises(DependencyNotReadyError):
        checks_flow.checks.run("orders", partition="us")
    with pytest.raises(PartitionError, match="say which partition"):
        checks_flow.checks.run("orders")
    with pytest.raises(UnknownPartitionError):
        checks_flow.checks.results("orders", partition="mars")
    view = checks_flow.checks
    for ask in (view.results, view.latest, view.run, view.declared):
        with pytest.raises(UnknownAssetError, match="Did you mean 'orders'"):
            ask("ordres")


def test_a_value_that_is_gone_learns_and_nothing_is_recorded(checks_flow: FlowStone) -> None:
    done = checks_flow.materialize("orders", partition="eu")
    assert done.stored is not None
    checks_flow.parts.managers["memory"].discard(done.stored)
    with pytest.raises(StorageError):
        checks_flow.checks.run("orders", partition="eu")
    assert len(checks_flow.checks.results("orders")) == 2


def test_checks_must_fit_the_app() -> None:
    with pytest.raises(UnknownCheckedAssetError, match="Did you mean"):
        FlowStone.for_testing([unchecked], checks=[check("uncheckd")(not_empty.function)])
    with pytest.raises(DuplicateCheckError):
        FlowStone.for_testing([orders], checks=[not_empty, check(orders)(not_empty.function)])
    assert FlowStone.for_testing([orders], checks=iter([not_empty])).checks.declared("orders") == (not_empty,)


def test_awaitable(checks_flow: FlowStone) -> None:
    async def main() -> list[Any]:
        await checks_flow.aio.materialize("orders", partition="eu")
        return await checks_flow.aio.checks.run("orders", partition="eu")

    assert [one.passed for one in asyncio.run(main())] == [True, True]


def test_to_json_carries_the_results(checks_flow: FlowStone) -> None:
    found = checks_flow.materialize("orders", partition="us").to_json()["checks"]
    assert isinstance(found, list)
    assert [one["check"] for one in found if isinstance(one, dict)] == ["not_empty", "enough"]


def test_public_names() -> None:
    assert {"check", "CheckResult", "CheckContext", "Severity"} <= set(flowstone.__all__)
    assert Severity.ERROR == "error"
