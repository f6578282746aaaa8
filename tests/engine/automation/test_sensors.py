"""Evaluating sensors against the store in memory: one conclusion, and what follows from failures."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.waiting import eventually

from flowstone import (
    DynamicPartitions,
    FlowStone,
    RunRequest,
    SensorContext,
    SensorResult,
    Settings,
    SkipReason,
    StaticPartitions,
    asset,
    sensor,
)
from flowstone.core.automation.record import AutomationRecord, TakenAutomation, TickState
from flowstone.core.automation.sensor import Sensor
from flowstone.engine.automation.loop import AutomationLoop, Deadline
from flowstone.engine.automation.sensors import SensorEvaluator, run_id_of
from flowstone.errors import (
    DefinitionError,
    OptionsError,
    PartitionError,
    SelectionError,
    SensorError,
    StepCancelledError,
    UnknownAutomationError,
)

_TIMEOUT_SECONDS = 60.0


@asset
def plain() -> int:
    return 1


@asset(partitions=DynamicPartitions("customers"))
def invoices(context: Any) -> Any:
    return context.partition


@asset(partitions=StaticPartitions(["eu", "us"]))
def region(context: Any) -> Any:
    return context.partition


def app_of(*sensors: Sensor, **options: Any) -> FlowStone:
    return FlowStone.for_testing([plain, invoices, region], sensors=sensors, **options)


def one_of(answer: Callable[..., Any], **options: Any) -> Sensor:
    return sensor(**{"name": "one", "selection": "plain"} | options)(answer)


def runs_of(flow: FlowStone) -> list[str]:
    return [run.id for run in flow.runs.latest(limit=1000)]


@contextmanager
def looping(flow: FlowStone) -> Iterator[AutomationLoop]:
    """Evaluate in the background what is due, as a node does."""
    loop = AutomationLoop(flow.evaluators, flow.parts.store.automations, grace_seconds=0.2)
    loop.start()
    try:
        yield loop
    finally:
        loop.stop()


def test_runs_cursor_and_tick_are_one() -> None:
    flow = app_of(one_of(lambda context: SensorResult(requests=[context.request(run_key="a")], cursor="1")))
    tick = flow.sensors.evaluate("one")
    assert tick.state is TickState.REQUESTED
    assert list(tick.run_ids) == runs_of(flow) == [run_id_of("one", "key", "a")]
    status = flow.sensors.get("one")
    assert status.record is not None
    assert status.record.cursor == "1"
    assert status.last == tick
    assert flow.runs.get(tick.run_ids[0]).kind == "sensor"
    assert flow.load("plain") == 1


def test_the_context_reports_what_there_is_to_know() -> None:
    seen: list[SensorContext] = []

    @sensor(requires=["mail"])
    def poll(context: SensorContext) -> None:
        seen.append(context)
        context.update_cursor("x")

    flow = app_of(poll, resources={"mail": lambda: "opened"})
    flow.sensors.evaluate("poll")
    flow.sensors.evaluate("poll")
    assert (seen[0].name, seen[0].selection) == ("poll", None)
    assert seen[0].resources["mail"] == "opened"
    assert seen[1].cursor == "x"
    assert seen[0].now <= seen[1].now
    assert seen[0].now.tzinfo is not None
    assert not seen[0].cancellation.is_cancelled


async def coroutine(context: SensorContext) -> RunRequest:
    return context.request(run_key="async")


async def asynchronous(context: SensorContext) -> AsyncIterator[Any]:
    yield context.request(run_key="async")
    yield SkipReason("and no more")


def generator(context: SensorContext) -> Iterator[Any]:
    yield context.request(run_key="async")


@pytest.mark.parametrize("function", [coroutine, asynchronous, generator])
def test_functions_of_every_kind_are_called(function: Callable[..., Any]) -> None:
    flow = app_of(one_of(function))
    assert flow.sensors.evaluate("one").run_ids == (run_id_of("one", "key", "async"),)


def test_a_sensor_may_take_nothing() -> None:
    flow = app_of(sensor(name="one")(lambda: RunRequest(selection="plain")))
    assert len(flow.sensors.evaluate("one").run_ids) == 1


def test_requests_without_a_run_key_run_each_time() -> None:
    flow = app_of(one_of(lambda context: [context.request(), context.request()]))
    found = {run_id for _ in range(3) for run_id in flow.sensors.evaluate("one").run_ids}
    assert len(found) == 6


def test_a_run_key_runs_once_even_if_the_keys_were_lost() -> None:
    flow = app_of(one_of(lambda context: context.request(run_key="a")))
    flow.sensors.evaluate("one")
    assert flow.sensors.evaluate("one").reason == "everything it asked for had run before"
    flow.parts.store.automations._keys.clear()  # type: ignore[attr-defined]
    flow.sensors.evaluate("one")
    assert len(runs_of(flow)) == 1
    assert len(flow.history("plain")) == 1


def test_run_keys_belong_to_their_sensor() -> None:
    flow = app_of(*[one_of(lambda context: context.request(run_key="a"), name=name) for name in ("x", "y", "x y")])
    found = {flow.sensors.evaluate(name).run_ids for name in ("x", "y", "x y")}
    assert len(found) == 3


def test_keys_are_added_before_the_runs_that_need_them() -> None:
    def poll(context: SensorContext) -> Iterator[Any]:
        yield SensorResult(add_partitions={"customers": ["acme"]})
        yield context.request(partition="acme", run_key="acme")

    flow = app_of(one_of(poll, selection="invoices"))
    assert flow.sensors.preview("one").partitions[0].key == "s:acme"
    assert flow.partitions.list("customers") == []
    assert flow.sensors.evaluate("one").state is TickState.REQUESTED
    assert flow.partitions.list("customers") == ["acme"]
    assert flow.load("invoices", partition="acme") == "acme"
    assert flow.partitions.history("customers")[0].by == "sensor one"


def test_keys_alone_are_no_skip() -> None:
    flow = app_of(one_of(lambda context: SensorResult(add_partitions={"customers": ["acme"]})))
    assert flow.sensors.evaluate("one").state is TickState.REQUESTED


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (RunRequest(selection="plane", run_key="k"), "Did you mean 'plain'"),
        (RunRequest(selection="region", partition="asia", run_key="k"), "'asia' is not a partition"),
        (RunRequest(selection="region", run_key="k"), "say which partition"),
        (RunRequest(selection="plain", partition="eu"), "leave the partitions out"),
        (RunRequest(selection="invoices", partition="acme"), "no keys yet"),
    ],
)
def test_a_request_that_cannot_be_planned_fails_the_whole_evaluation(request_: RunRequest, says: str) -> None:
    flow = app_of(
        one_of(lambda context: SensorResult(requests=[context.request(run_key="good"), request_], cursor="new"))
    )
    with pytest.raises(SensorError) as failure:
        flow.sensors.evaluate("one")
    assert says in str(failure.value)
    assert "nothing of this evaluation was placed" in str(failure.value)
    status = flow.sensors.get("one")
    assert status.last is not None
    assert status.record is not None
    assert (status.last.state, status.record.cursor) == (TickState.FAILED, None)
    assert says in (status.last.error or "")
    assert runs_of(flow) == []


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (lambda context: 7, SensorError),
        (lambda context: SensorResult(add_partitions={"custoners": ["x"]}), SensorError),
        (lambda context: context.request(run_key=""), TypeError),
        (lambda context: 1 // 0, ZeroDivisionError),
    ],
)
def test_a_bad_answer_is_recorded_and_raised(answer: Callable[..., Any], error: type[Exception]) -> None:
    flow = app_of(one_of(answer))
    with pytest.raises(error):
        flow.sensors.evaluate("one")
    assert [tick.state for tick in flow.sensors.ticks("one")] == [TickState.FAILED]


def test_an_interrupt_gives_the_right_back() -> None:
    def poll(context: SensorContext) -> None:
        raise KeyboardInterrupt

    flow = app_of(one_of(poll))
    with pytest.raises(KeyboardInterrupt):
        flow.sensors.evaluate("one")
    assert flow.sensors.ticks() == []
    with pytest.raises(KeyboardInterrupt):
        flow.sensors.evaluate("one")


def test_a_long_series_of_skips_is_one_tick() -> None:
    reasons = iter(["a", "a", "a", "b", "b", "a"])
    now = datetime(2024, 1, 1, tzinfo=UTC)
    flow = app_of(one_of(lambda context: SkipReason(next(reasons))))
    store, evaluator = flow.parts.store.automations, flow.evaluators[0]
    store.declare([evaluator.id])
    for second in range(6):
        (taken,) = store.take([evaluator.id], lease_seconds=9)
        at = now.replace(second=second)
        (conclusion,) = evaluator.evaluate(TakenAutomation(record=taken.record, token=taken.token, now=at))
        store.conclude(taken, conclusion)
        assert store.record(evaluator.id).last_tick_at == at  # type: ignore[union-attr]
    found = [(tick.reason, tick.repeats) for tick in flow.sensors.ticks("one")]
    assert found == [("a", 0), ("b", 1), ("a", 2)]


def test_reasons_are_cleaned() -> None:
    flow = app_of(one_of(lambda context: SkipReason("\x00\x1b[31mred" + "x" * 5000)))
    reason = flow.sensors.evaluate("one").reason or ""
    assert reason.startswith("\\x00red")
    assert len(reason) <= 2000


def test_pausing_holds_the_loop_but_not_a_person() -> None:
    flow = app_of(one_of(lambda context: SkipReason("looked"), paused=True))
    assert flow.sensors.get("one").paused
    assert not flow.sensors.pause("one")
    assert flow.sensors.evaluate("one").reason == "looked"
    assert flow.sensors.resume("one")
    assert [one.paused for one in flow.sensors.list()] == [False]


def test_a_cursor_can_be_set_and_is_checked() -> None:
    flow = app_of(one_of(lambda context: SkipReason(f"at {context.cursor}")))
    flow.sensors.set_cursor("one", "7")
    assert flow.sensors.evaluate("one").reason == "at 7"
    flow.sensors.set_cursor("one", None)
    assert flow.sensors.preview("one").skip_reason == "at None"
    with pytest.raises(SensorError):
        flow.sensors.set_cursor("one", "\x00")


def test_a_preview_leaves_no_trace() -> None:
    flow = app_of(one_of(lambda context: SensorResult(requests=[context.request(run_key="k")], cursor="1")))
    found = flow.sensors.preview("one")
    assert ([one.run_key for one in found.requests], list(found.steps), found.cursor) == (["k"], [1], "1")
    assert (runs_of(flow), flow.sensors.ticks(), flow.sensors.get("one").record) == ([], [], None)
    assert flow.sensors.run_now("one") is not None
    assert len(runs_of(flow)) == 1


def test_what_is_unknown_is_named() -> None:
    flow = app_of(one_of(lambda context: None))
    for verb in (flow.sensors.get, flow.sensors.evaluate, flow.sensors.preview, flow.sensors.pause):
        with pytest.raises(UnknownAutomationError, match="Did you mean 'one'"):
            verb("ones")


@pytest.mark.parametrize(
    ("sensors", "error", "says"),
    [
        ([one_of(lambda context: None), one_of(lambda: None)], DefinitionError, "two sensors named 'one'"),
        ([one_of(lambda context: None, requires=["mial"])], DefinitionError, "Sensor 'one' requires"),
        ([one_of(lambda context: None, selection="plane")], SelectionError, "Did you mean 'plain'"),
    ],
)
def test_sensors_that_do_not_fit_the_app_are_refused(
    sensors: list[Sensor], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        app_of(*sensors, resources={"mail": 1})


def test_a_failing_sensor_is_tried_again_later_and_the_others_go_on() -> None:
    calls: list[str] = []

    @sensor(every=1)
    def good() -> None:
        calls.append("good")

    @sensor(every=1)
    def bad(context: SensorContext) -> None:
        calls.append("bad")
        context.update_cursor("lost")
        raise RuntimeError("no [network]")

    flow = app_of(good, bad)
    with looping(flow):
        eventually(lambda: calls.count("good") >= 3)
    assert calls.count("bad") == 1
    record = flow.sensors.get("bad").record
    assert record is not None
    assert (record.failures, record.cursor) == (1, None)
    assert record.due_at is not None
    assert (record.due_at - record.since).total_seconds() > 3
    (tick,) = flow.sensors.ticks("bad")
    assert tick.state is TickState.FAILED
    assert "RuntimeError: no [network]" in (tick.error or "")


def test_a_hanging_sensor_learns_given_up_and_recorded() -> None:
    reported: list[bool] = []
    let_go, answered = threading.Event(), threading.Event()

    @sensor(every=1, timeout=0.2)
    def hangs(context: SensorContext) -> SensorResult:
        reported.append(context.cancellation.wait(_TIMEOUT_SECONDS))
        let_go.wait(_TIMEOUT_SECONDS)
        answered.set()
        return SensorResult(requests=[RunRequest(selection="plain", run_key="late")], cursor="late")

    @sensor(every=1)
    def good() -> None: ...

    flow = app_of(hangs, good)
    with looping(flow):
        eventually(
            lambda: bool(flow.sensors.ticks("hangs")) and bool(flow.sensors.ticks("good")) and bool(reported)
        )
        let_go.set()  # the late answer comes, and nothing of it counts
        assert answered.wait(_TIMEOUT_SECONDS)
        eventually(lambda: not any("hangs" in thread.name for thread in threading.enumerate()))
    assert reported == [True]
    (tick,) = flow.sensors.ticks("hangs")
    assert "took longer than 0.2 s" in (tick.error or "")
    assert "hangs" in (tick.error or "")
    record = flow.sensors.get("hangs").record
    assert record is not None
    assert (record.cursor, record.failures, runs_of(flow)) == (None, 1, [])


def test_a_coroutine_that_hangs_is_cancelled() -> None:
    import asyncio

    @sensor(timeout=0.05)
    async def hangs() -> None:
        await asyncio.sleep(_TIMEOUT_SECONDS)

    with pytest.raises(SensorError, match=r"longer than 0\.05 s"):
        app_of(hangs).sensors.evaluate("hangs")


def test_a_deadline_is_a_token_that_sets_itself() -> None:
    over = Deadline(0)
    assert over.is_cancelled
    assert over.wait(_TIMEOUT_SECONDS)
    with pytest.raises(StepCancelledError):
        over.raise_if_cancelled()
    ahead = Deadline(_TIMEOUT_SECONDS)
    assert not ahead.wait(0)
    ahead.raise_if_cancelled()
    ahead.cancel()
    assert ahead.wait(_TIMEOUT_SECONDS)


@given(
    st.lists(st.text(max_size=3), min_size=1, max_size=3), st.lists(st.text(max_size=3), min_size=1, max_size=3)
)
def test_run_ids_report_everything_apart(one: list[str], other: list[str]) -> None:
    assert (run_id_of(*one) == run_id_of(*other)) is (one == other)
    assert run_id_of(*one).isascii()
    assert len(run_id_of(*one)) <= 200


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=12))
def test_every_key_runs_exactly_once_through_replays_and_lost_evaluations(steps: list[tuple[int, bool]]) -> None:
    """The source is a list of ten files; the cursor is a position in it, set anywhere by a person."""
    files = [f"file-{number}" for number in range(10)]

    def poll(context: SensorContext) -> SensorResult:
        at = int(context.cursor or 0)
        requests = [context.request(run_key=file) for file in files[at : at + 3]]
        return SensorResult(requests=requests, cursor=str(min(at + 3, len(files))))

    flow = app_of(one_of(poll))
    store, evaluator = flow.parts.store.automations, flow.evaluators[0]
    assert isinstance(evaluator, SensorEvaluator)
    for cursor, lost in [*steps, (0, False)]:
        flow.sensors.set_cursor("one", str(cursor))
        if lost:  # it was evaluated to its last line, and the process died before the commit
            store.request(evaluator.id)
            (taken,) = store.take([evaluator.id], lease_seconds=9)
            list(evaluator.evaluate(taken))
            store.release(taken)
        else:
            flow.sensors.evaluate("one")
    while (record := store.record(evaluator.id)) and record.cursor != "10":
        flow.sensors.evaluate("one")
    keys = [run_id_of("one", "key", file) for file in files]
    assert sorted(runs_of(flow)) == sorted(keys)
    placed = [run_id for tick in flow.sensors.ticks(limit=1000) for run_id in tick.run_ids]
    assert sorted(placed) == sorted(keys)


def test_a_record_is_not_needed_to_evaluate() -> None:
    now = datetime(2024, 1, 1, tzinfo=UTC)
    flow = app_of(one_of(lambda context: context.request(), every=90))
    evaluator = flow.evaluators[0]
    record = AutomationRecord(id=evaluator.id, paused=False, cursor=None, since=now, due_at=now)
    (conclusion,) = evaluator.evaluate(TakenAutomation(record=record, token=1, now=now))
    assert conclusion.due_at is not None
    assert (conclusion.due_at - now).total_seconds() == 90
    with pytest.raises(PartitionError):
        flow.partitions.list("nobody")


@pytest.mark.parametrize("place", ["memory", "database"])
def test_run_keys_are_listed_and_forgotten(place: str, database_url: str) -> None:
    @asset
    def report() -> int:
        return 1

    @sensor(selection="report")
    def polls(context):
        return context.request(run_key="a.csv", force=True)

    url = database_url if place == "database" else None
    settings = Settings(executor="sync" if url is None else "auto", database_url=url)
    with FlowStone([report], sensors=[polls], settings=settings) as flow:
        first = flow.sensors.evaluate("polls")
        assert flow.sensors.evaluate("polls").run_ids == ()
        (used,) = flow.sensors.run_keys("polls")
        assert (used.run_key, used.run_id) == ("a.csv", first.run_ids[0])
        assert flow.sensors.forget_run_keys("polls", ["b.csv", "a.csv"]) == ["a.csv"]
        assert flow.sensors.run_keys("polls") == []
        again = flow.sensors.evaluate("polls")
        assert again.run_ids == (f"{first.run_ids[0]}-2",)
        if url is None:
            assert [run.state.value for run in flow.runs.latest()] == ["completed", "completed"]
        with pytest.raises(OptionsError, match=r"pass a list: \['a.csv'\]"):
            flow.sensors.forget_run_keys("polls", "a.csv")
        with pytest.raises(OptionsError, match="limit=0"):
            flow.sensors.run_keys("polls", limit=0)
