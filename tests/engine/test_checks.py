from __future__ import annotations

import asyncio
import logging
import os
import threading
import traceback
from typing import Any

import pytest
from tests.engine import isolated_functions

from flowstone import CheckContext, CheckResult, FlowStone, RetryPolicy, Skip, asset, check, telemetry
from flowstone.core.check import Check
from flowstone.core.context import AssetContext
from flowstone.core.outcome import AttemptOutcome, Succeeded
from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.core.state import State
from flowstone.errors import (
    CheckFailedError,
    DefinitionError,
    MaterializationTimeoutError,
    SerializationError,
    StepCancelledError,
)
from flowstone.io.memory import MemoryIO
from flowstone.protocols import StepCall


@asset
def rows(context: AssetContext) -> list[int]:
    context.metadata["source"] = "test"
    return [1, 2, 3]


class ReportedIO(MemoryIO):
    """Notes what is stored and discarded, in order with what checks note."""

    def __init__(self, reported: list[str]) -> None:
        super().__init__()
        self.reported = reported

    def store(self, value: object, address: OutputAddress) -> StoredOutput:
        self.reported.append("store")
        return super().store(value, address)

    def discard(self, stored: StoredOutput) -> None:
        self.reported.append("discard")
        super().discard(stored)


def failing(asset: Any = rows, **options: Any) -> Check:
    @check(asset, **options)
    def fails(value: object) -> bool:
        return False

    return fails


def test_blocking_checks_run_before_storing_the_others_after_it() -> None:
    reported: list[str] = []

    @check(rows)
    def after(context: CheckContext, rows: list[int]) -> bool:
        reported.append(f"after {context.metadata['source']}")
        return True

    @check(rows, blocking=True)
    def before(context: CheckContext, rows: list[int]) -> bool:
        reported.append(f"before {context.metadata['source']}")
        return True

    class Own:
        def call(self, context: AssetContext, step: StepCall) -> AttemptOutcome:
            outcome = step(context)
            assert isinstance(outcome, Succeeded)
            reported.append(f"hook {outcome.stored.location}")
            return outcome

    flow = FlowStone.for_testing(
        [rows], checks=[after, before], io={"memory": ReportedIO(reported)}, hooks=[Own()]
    )
    done = flow.materialize("rows")
    assert reported == ["before test", "store", "after test", "hook 1-1.1"]
    assert [one.check for one in done.checks] == ["before", "after"]


def test_a_blocked_value_is_not_stored() -> None:
    reported: list[str] = []
    flow = FlowStone.for_testing([rows], checks=[failing(blocking=True)], io={"memory": ReportedIO(reported)})
    with pytest.raises(CheckFailedError) as caught:
        flow.materialize("rows")
    assert reported == []
    assert (caught.value.asset, [one.name for one in caught.value.failed]) == ("rows", ["fails"])


@pytest.mark.parametrize(
    ("options", "result", "blocks"),
    [
        ({}, False, False),
        ({"blocking": True}, False, True),
        ({"blocking": True, "severity": "warning"}, False, False),
        ({"blocking": True}, CheckResult(False, severity="warning"), False),
        ({"blocking": True, "severity": "warning"}, CheckResult(False, severity="error"), True),
        ({"blocking": True}, CheckResult(True, severity="error"), False),
    ],
)
def test_what_blocks(options: dict[str, Any], result: bool | CheckResult, blocks: bool) -> None:
    @check(rows, **options)
    def judge(rows: list[int]) -> bool | CheckResult:
        return result

    flow = FlowStone.for_testing([rows], checks=[judge])
    if blocks:
        with pytest.raises(CheckFailedError, match="'judge'"):
            flow.materialize("rows")
    else:
        assert flow.materialize("rows").state is State.COMPLETED
    (record,) = flow.checks.results("rows")
    assert (record.passed, record.blocks) == (bool(result), blocks)


def test_all_blocking_checks_are_asked() -> None:
    @check(rows, blocking=True)
    def raises(rows: list[int]) -> bool:
        raise LookupError("a column is missing")

    flow = FlowStone.for_testing([rows], checks=[failing(blocking=True), raises])
    with pytest.raises(CheckFailedError, match="did not pass 2 blocking checks: 'fails', 'raises'") as caught:
        flow.materialize("rows")
    cause = caught.value.__cause__
    assert isinstance(cause, LookupError)
    assert traceback.extract_tb(cause.__traceback__)[0].filename == __file__
    (step,) = flow.runs.steps(flow.runs.latest()[0].id)
    assert step.error is not None
    assert 'raise LookupError("a column is missing")' in step.error
    assert "it raised LookupError: a column is missing" in step.error.splitlines()[-1]
    assert len(flow.checks.results("rows")) == 2


@pytest.mark.parametrize(("again", "attempts"), [((False, False), 1), ((True, False), 1), ((True, True), 2)])
def test_another_attempt_takes_all_that_block(again: tuple[bool, bool], attempts: int) -> None:
    @asset(retry=RetryPolicy(max_attempts=2, backoff_seconds=0.0, fatal_on=(ValueError,)))
    def made() -> int:
        return 1

    checks = [failing(made, name=f"check {n}", blocking=True, retry=retry) for n, retry in enumerate(again)]
    flow = FlowStone.for_testing([made], checks=checks)
    with pytest.raises(CheckFailedError):
        flow.materialize("made", executor_opts={"retry": True})
    (step,) = flow.runs.steps(flow.runs.latest()[0].id)
    assert (step.attempt, len(flow.checks.results("made"))) == (attempts, 2 * attempts)


def test_context_and_resources() -> None:
    seen: list[Any] = []

    @asset(requires=["books"])
    def kept() -> int:
        return 1

    @check(kept, requires=["limits"])
    async def reads(context: CheckContext, kept: int) -> bool:
        await asyncio.sleep(0)
        seen.append((context.asset.name, context.check, context.partition, context.key, context.attempt))
        seen.append((context.resources.books, context.resources["limits"], context.logger.name))
        context.metadata["mine"] = 1  # type: ignore[index]  # a copy: nothing comes of it
        return True

    flow = FlowStone.for_testing([kept], checks=[reads], resources={"books": 1, "limits": lambda: 2})
    done = flow.materialize("kept", run_id="r")
    assert seen == [("kept", "reads", None, "", 1), (1, 2, "flowstone.check.kept.reads")]
    assert done.stored is not None
    assert "mine" not in done.stored.metadata
    with pytest.raises(DefinitionError, match=r"Check 'reads' requires the resource 'limits'.*test_checks\.py:"):
        FlowStone.for_testing([kept], checks=[reads], resources={"books": 1})


def test_a_resource_that_cannot_be_opened_fails_the_check() -> None:
    def unavailable() -> object:
        raise ConnectionError("no database")

    flow = FlowStone.for_testing([rows], checks=[failing(requires=["db"])], resources={"db": unavailable})
    assert flow.materialize("rows").state is State.COMPLETED
    assert "no database" in (flow.checks.results("rows")[0].error or "")


def test_timeouts_of_checks_are_their_own() -> None:
    gate = threading.Event()

    @asset(timeout=1.5)
    def quick() -> int:
        return 1

    @check(quick)
    def slow(quick: int) -> bool:
        return gate.wait(1.6) is False

    @check(quick, timeout=0.01)
    def limited(quick: int) -> bool:
        return gate.wait(60)

    @check(quick, timeout=0.01)
    async def awaited(quick: int) -> bool:
        await asyncio.sleep(60)
        return True

    @check(quick, timeout=60)
    async def own(quick: int) -> bool:
        raise TimeoutError("of the check")

    flow = FlowStone.for_testing([quick], checks=[slow, limited, awaited, own])
    done = flow.materialize("quick", executor="async")
    gate.set()
    found = {one.check: (one.passed, (one.error or "").strip().rpartition("\n")[2]) for one in done.checks}
    assert found["slow"] == (True, "")
    assert "'limited' of 'quick' did not finish within its timeout of 0.01 s" in found["limited"][1]
    assert "CheckTimeoutError" in found["awaited"][1]
    assert found["own"] == (False, "TimeoutError: of the check")


def test_an_asset_that_ran_out_of_time_is_not_checked() -> None:
    @asset(timeout=0.01)
    async def slow() -> None:
        await asyncio.sleep(60)

    flow = FlowStone.for_testing([slow], checks=[failing(slow)])
    with pytest.raises(MaterializationTimeoutError):
        flow.materialize("slow")
    assert flow.checks.results("slow") == []


@pytest.mark.parametrize("outcome", [Skip("nothing"), ValueError("broken")], ids=["skip", "error"])
def test_without_a_value_there_is_nothing_to_check(outcome: Exception) -> None:
    @asset
    def nothing() -> None:
        raise outcome

    flow = FlowStone.for_testing([nothing], checks=[failing(nothing, blocking=True), failing(nothing, name="x")])
    flow.materialize_all("nothing")
    assert flow.checks.results("nothing") == []


def test_values_that_can_be_read_once_are_refused_unread() -> None:
    @asset
    def once() -> Any:
        return (number for number in range(3))

    flow = FlowStone.for_testing([once], checks=[failing(once, blocking=True)])
    with pytest.raises(SerializationError, match="read only once"):
        flow.materialize("once")
    assert flow.checks.results("once") == []


def test_a_cancelled_step_is_not_checked_further() -> None:
    @check(rows, blocking=True)
    def cancels(context: CheckContext, rows: list[int]) -> bool:
        context.cancellation.cancel("enough")
        return True

    flow = FlowStone.for_testing([rows], checks=[cancels, failing(blocking=True)])
    with pytest.raises(StepCancelledError):
        flow.materialize("rows")
    assert [one.check for one in flow.checks.results("rows")] == ["cancels"]
    assert not flow.exists("rows")


@pytest.mark.parametrize("raises", [False, True])
def test_after_storing_it_is_too_late_to_cancel(raises: bool) -> None:
    @check(rows)
    def cancels(context: CheckContext, rows: list[int]) -> bool:
        context.cancellation.cancel("enough")
        if raises:
            context.cancellation.raise_if_cancelled()
        return True

    flow = FlowStone.for_testing([rows], checks=[cancels, failing()])
    assert flow.materialize("rows").state is State.COMPLETED
    assert [one.check for one in flow.checks.results("rows")] == ([] if raises else ["cancels"])


@pytest.mark.parametrize("blocking", [True, False])
def test_an_interrupt_belongs_to_the_person(blocking: bool) -> None:
    reported: list[str] = []

    @check(rows, blocking=blocking)
    def interrupted(rows: list[int]) -> bool:
        raise KeyboardInterrupt

    flow = FlowStone.for_testing([rows], checks=[interrupted], io={"memory": ReportedIO(reported)})
    with pytest.raises(KeyboardInterrupt):
        flow.materialize("rows")
    assert reported == ([] if blocking else ["store", "discard"])
    assert not flow.exists("rows")


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), Skip("no"), StepCancelledError("x")])
def test_whatever_else_is_raised_is_a_failed_check(error: BaseException) -> None:
    @check(rows)
    def raises(rows: list[int]) -> bool:
        raise error

    flow = FlowStone.for_testing([rows], checks=[raises])
    done = flow.materialize("rows")
    assert (done.state, done.checks[0].passed) == (State.COMPLETED, False)
    assert type(error).__name__ in (done.checks[0].error or "")


def test_hostile_answers() -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @check(rows)
    def endless(rows: list[int]) -> CheckResult:
        return CheckResult(True, description="x" * 100_000_000)

    @check(rows)
    def unprintable(rows: list[int]) -> CheckResult:
        return CheckResult(True, description=Unprintable())  # type: ignore[arg-type]

    @check(rows)
    def not_json(rows: list[int]) -> CheckResult:
        return CheckResult(True, description="fine", metadata={"when": object()})

    @check(rows)
    def not_awaited(rows: list[int]) -> object:
        return [CheckResult(True)]

    flow = FlowStone.for_testing([rows], checks=[endless, unprintable, not_json, not_awaited])
    found = {one.check: one for one in flow.materialize("rows").checks}
    assert [one.passed for one in found.values()] == [True, False, False, False]
    assert 9_900 < len(found["endless"].description) <= 10_000
    assert "no text" in (found["unprintable"].error or "")
    assert "cannot be recorded at metadata['when'] (type builtins.object). Give text" in (
        found["not_json"].error or ""
    )
    assert "returned a value of type 'list'" in (found["not_awaited"].error or "")


def test_isolated_assets_are_checked_here() -> None:
    checked_in: list[int] = []

    @check(isolated_functions.pid)
    def elsewhere(pid: int) -> bool:
        checked_in.append(os.getpid())
        return pid != os.getpid()

    with FlowStone.for_testing([isolated_functions.pid], checks=[elsewhere]) as flow:
        done = flow.materialize("pid", executor_opts={"timeout_seconds": 60})
    assert (done.checks[0].passed, checked_in) == (True, [os.getpid()])


def test_telemetry_and_logs(caplog: pytest.LogCaptureFixture) -> None:
    events: list[tuple[str, dict[str, float], dict[str, Any]]] = []
    telemetry.attach("test", ["check.*"], lambda *event: events.append(event))  # type: ignore[arg-type]
    try:
        with caplog.at_level(logging.WARNING, "flowstone.checks"):
            FlowStone.for_testing([rows], checks=[failing(severity="warning")]).materialize("rows")
    finally:
        telemetry.detach("test")
    ((event, measured, about),) = events
    assert (event, about["check"], about["passed"], about["severity"]) == ("check.stop", "fails", False, "warning")
    assert measured["duration_seconds"] >= 0
    assert ["Check fails of rows failed (warning)" in record.message for record in caplog.records] == [True]
