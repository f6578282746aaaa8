"""Evaluators of conditions on the store in memory, with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowstone import (
    AllPartitions,
    DailyPartitions,
    FunctionMapping,
    MultiPartitions,
    PartitionsDefinition,
    StaticPartitions,
    any_input_updated,
    asset,
    dep,
    eager,
    on_cron,
    on_missing,
    when,
)
from flowstone.core.asset import Asset
from flowstone.core.automation.record import (
    AutomationId,
    AutomationKind,
    Conclusion,
    PreparedRun,
    TakenAutomation,
    TickState,
)
from flowstone.core.graph import AssetGraph
from flowstone.core.outcome import Failed, Succeeded
from flowstone.core.output import StoredOutput
from flowstone.core.partitions import decode_partition
from flowstone.core.state import State
from flowstone.core.step import AttemptResult, NewRun, NewStep
from flowstone.engine.automation.conditions import ConditionEvaluator, every, scope
from flowstone.engine.automation.evaluation import FactReader
from flowstone.engine.values import InputReader
from flowstone.protocols import TargetStatuses
from flowstone.stores.memory import MemoryStore

NOW = datetime(2024, 2, 1, tzinfo=UTC)
DEFINITIONS = (
    DailyPartitions("2024-01-01"),
    StaticPartitions([f"k{number}" for number in range(31)]),
    MultiPartitions(day=DailyPartitions("2024-01-29"), region=StaticPartitions(["eu", "us"])),
)


def test_without_partitions() -> None:
    assert scope(None, NOW).partitions == [""]
    assert every(None, NOW) == [""]


def test_before_the_first_partition_is_complete() -> None:
    assert scope(DailyPartitions("2030-01-01"), NOW) == ([], None)


@pytest.mark.parametrize("definition", DEFINITIONS, ids=["daily", "static", "multi"])
@given(newest=st.integers(1, 40), older=st.integers(1, 40))
def test_every_partition_is_looked_at_in_turn(definition: PartitionsDefinition, newest: int, older: int) -> None:
    total = every(definition, NOW)
    seen: set[str] = set()
    resume = None
    for _ in range(-(-len(total) // older) + 1):
        found = scope(definition, NOW, resume, newest=newest, older=older)
        assert found.partitions[:newest] == total[:newest]
        assert len(found.partitions) <= newest + older
        assert found.partitions == sorted(found.partitions, key=total.index), "the newest first"
        seen |= set(found.partitions)
        resume = found.resume
        if resume is None:
            break
    assert seen == set(total)
    assert resume is None, "and then anew"


def test_a_partition_that_is_not_there_any_more_begins_anew() -> None:
    found = scope(DEFINITIONS[1], NOW, "s:removed", newest=1, older=1)
    assert found.partitions == ["s:k30", "s:k29"]


def test_a_short_look_costs_the_same_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DailyPartitions, "keys", lambda *_: pytest.fail("it lists all of them"))
    found = scope(DailyPartitions("0001-01-02"), NOW, newest=2, older=2)
    assert found.partitions == ["d:2024-01-31", "d:2024-01-30", "d:2024-01-29", "d:2024-01-28"]


START = datetime(2024, 6, 1, tzinfo=UTC)


class Counted:
    """Statuses that count the questions."""

    def __init__(self, inner: TargetStatuses) -> None:
        self._inner = inner
        self.questions = 0

    def __getattr__(self, name: str) -> Any:
        self.questions += 1
        return getattr(self._inner, name)


class Stage:
    """A store, a clock, the evaluators of some assets, and a worker that does the work."""

    def __init__(self, *assets: Asset, at: datetime = START) -> None:
        self.at = at
        self.store = MemoryStore(now=lambda: self.at)
        self.graph = AssetGraph(assets)
        self.reader = InputReader(self.graph, self.store.catalog)
        self.target_statuses = Counted(self.store.target_statuses)
        facts = FactReader(self.graph, self.reader, self.target_statuses)  # type: ignore[arg-type]
        self.evaluators = {
            one.name: ConditionEvaluator(
                one, one.automation, graph=self.graph, facts=facts, prepare=self.prepare, every_seconds=5.0
            )
            for one in self.graph
            if one.automation is not None
        }
        self.store.automations.declare([one.id for one in self.evaluators.values()])

    def prepare(
        self, name: str, partitions: Sequence[str], *, run_id: str, kind: str, max_concurrency: int | None = None
    ) -> PreparedRun:
        run = NewRun(
            id=run_id,
            kind=kind,
            selection=name,
            executor="test",
            created_at=self.at,
            max_concurrency=max_concurrency,
        )
        code = self.graph[name].code_version
        return PreparedRun(run, [NewStep(name, key, forced=True, code_version=code) for key in partitions])

    def evaluate(self, name: str, *, after: float = 10.0) -> list[str]:
        """Let time pass, evaluate, and return the labels of what was asked for."""
        self.at += timedelta(seconds=after)
        automation = AutomationId(AutomationKind.CONDITION, name)
        (taken,) = self.store.automations.take([automation], lease_seconds=60)
        conclusion = self.conclude(taken)
        runs = [run.run.id for tick in conclusion.ticks for run in tick.runs]
        return [
            str(decode_partition(one.partition_key) or "") for run in runs for one in self.store.catalog.steps(run)
        ]

    def conclude(self, taken: TakenAutomation) -> Conclusion:
        (conclusion,) = self.evaluators[taken.record.id.name].evaluate(taken)
        assert self.store.automations.conclude(taken, conclusion).accepted
        assert conclusion.due_at is not None
        return conclusion

    def work(self, content: str | None = "same", *, fails: bool = False) -> int:
        """Run everything that is placed; return how many steps there were."""
        placed = [
            s.id
            for run in self.store.catalog.runs()
            for s in self.store.catalog.steps(run.id, state=State.PENDING)
        ]
        self.at += timedelta(milliseconds=1)
        for claim in self.store.ledger.claim(placed, now=self.at):
            (inputs,) = self.reader.resolve([claim])
            stored = StoredOutput("memory", f"{claim.step_id}", content_hash=content)
            outcome = Failed("boom", "ValueError", retryable=False) if fails else Succeeded(stored, None)
            self.store.ledger.commit([AttemptResult(claim, outcome, inputs.versions(), self.at)])
        return len(placed)

    def finish(self, name: str, key: str) -> None:
        """Run one step that is placed."""
        (placed,) = [one.id for one in self.store.catalog.history(name, key) if one.state is State.PENDING]
        for claim in self.store.ledger.claim([placed], now=self.at):
            stored = StoredOutput("memory", f"{claim.step_id}", content_hash="1")
            self.store.ledger.commit([AttemptResult(claim, Succeeded(stored, None), (), self.at)])

    def make(self, name: str, key: str = "", content: str | None = "same") -> None:
        """Compute a target by hand."""
        self.at += timedelta(seconds=1)
        run = NewRun(id=f"hand-{self.at}-{key}", kind="test", selection=name, executor="test", created_at=self.at)
        self.store.ledger.open_run(run, [NewStep(name, key, forced=True)])
        self.work(content)

    def ticks(self, name: str) -> list[TickState]:
        return [tick.state for tick in self.store.automations.ticks(AutomationId(AutomationKind.CONDITION, name))]


@asset
def a() -> int:
    return 1


@asset(automation=eager())
def b(a: int) -> int:
    return a


@asset(automation=eager())
def c(b: int) -> int:
    return b


def test_a_chain_reacts_to_new_data_and_not_to_the_same() -> None:
    stage = Stage(a, b, c)
    assert stage.evaluate("b") == [], "nothing to read yet"
    stage.make("a", content="1")
    assert (stage.evaluate("b"), stage.evaluate("c")) == ([""], [])
    assert stage.evaluate("b") == [], "in progress"
    stage.work("2")
    assert (stage.evaluate("b"), stage.evaluate("c")) == ([], [""])
    stage.work("3")
    assert (stage.evaluate("b"), stage.evaluate("c")) == ([], [])
    stage.make("a", content="1")
    assert (stage.evaluate("b"), stage.evaluate("c")) == ([], []), "the same bytes"
    stage.make("a", content="other")
    assert stage.evaluate("b") == [""]
    stage.work("2")
    assert stage.evaluate("c") == [], "b came out the same"


def test_it_waits_while_an_input_is_computed() -> None:
    stage = Stage(a, b, c)
    stage.make("a", content="1")
    stage.evaluate("b")
    stage.work("1")
    stage.make("b", content="2")
    run = NewRun(id="again", kind="test", selection="b", executor="test", created_at=stage.at)
    stage.store.ledger.open_run(run, [NewStep("b", "", forced=True)])
    assert stage.evaluate("c") == []
    stage.work("2")
    assert stage.evaluate("c") == [""]


def test_only_ticks_worth_reading_are_recorded() -> None:
    stage = Stage(a, b)
    for _ in range(5):
        stage.evaluate("b")
    assert stage.ticks("b") == []
    stage.make("a")
    stage.evaluate("b")
    stage.work()
    for _ in range(5):
        stage.evaluate("b")
    assert stage.ticks("b") == [TickState.SKIPPED, TickState.REQUESTED]
    automation = AutomationId(AutomationKind.CONDITION, "b")
    tick = stage.store.automations.ticks(automation)[1]
    assert tick.reason == "b: nothing is committed; no input is in progress"
    assert len(tick.run_ids) == 1
    stage.store.automations.request(automation)
    stage.evaluate("b")
    assert len(stage.ticks("b")) == 3, "who asks gets an answer"


def test_what_failed_is_not_hammered() -> None:
    stage = Stage(a, b)
    stage.make("a", content="1")
    assert stage.evaluate("b") == [""]
    stage.work(fails=True)
    for _ in range(20):
        assert stage.evaluate("b", after=3600) == []
    stage.make("a", content="1")
    assert stage.evaluate("b") == [], "the input is the same data"
    stage.make("a", content="2")
    assert stage.evaluate("b") == [""]
    stage.work(fails=True)
    assert stage.evaluate("b") == []


def test_code_that_changed_is_tried_again() -> None:
    stage = Stage(a, b)
    stage.make("a")
    stage.evaluate("b")
    stage.work(fails=True)
    assert stage.evaluate("b") == []
    stage.graph["b"].code_version = "2"
    try:
        assert stage.evaluate("b") == [""]
        stage.work(fails=True)
        assert stage.evaluate("b") == []
    finally:
        b.code_version = None


def test_a_thousand_missing_partitions_are_no_storm() -> None:
    @asset(partitions=DailyPartitions("2021-09-06"), automation=on_missing().at_most(7, active=10))
    def days() -> int:
        return 1

    stage = Stage(days)
    first = stage.evaluate("days")
    assert first == [f"2024-05-{day}" for day in (31, 30, 29, 28, 27, 26, 25)], "the newest first"
    assert len(stage.evaluate("days")) == 3, "ten may be active"
    assert stage.evaluate("days") == []


def test_what_is_missing_is_made_bit_by_bit() -> None:
    @asset(partitions=DailyPartitions("2024-02-23"), automation=on_missing().at_most(7, active=10))
    def days() -> int:
        return 1

    stage = Stage(days)
    requested = maximum = 0
    while requested < 99:
        found = len(stage.evaluate("days"))
        maximum, requested = max(maximum, found), requested + found
        stage.work()
    assert maximum == 7
    assert requested == 99, "all of them in the end, each once"
    assert len(stage.store.catalog.history("days", None, limit=200)) == 99


def test_two_questions_for_any_number_of_partitions() -> None:
    @asset(partitions=DailyPartitions("2021-09-06"))
    def source() -> int:
        return 1

    @asset(partitions=DailyPartitions("2021-09-06"), automation=eager())
    def days(source: int) -> int:
        return source

    stage = Stage(source, days)
    before = stage.target_statuses.questions
    stage.evaluate("days")
    assert stage.target_statuses.questions - before == 3, "what is active, how they stand, what they had read"


def test_a_mapping_that_raises_spoils_only_its_own_partition() -> None:
    def unlucky(day: Any) -> Any:
        if day.day == 30:
            raise ValueError("no 30th")
        return day

    @asset(partitions=DailyPartitions("2024-05-28"))
    def source() -> int:
        return 1

    @asset(
        partitions=DailyPartitions("2024-05-28"),
        automation=eager(),
        deps=[dep("source", mapping=FunctionMapping(unlucky))],
    )
    def days(source: int) -> int:
        return source

    stage = Stage(source, days)
    for day in (28, 29, 30, 31):
        stage.make("source", f"d:2024-05-{day}")
    assert stage.evaluate("days") == ["2024-05-31", "2024-05-29", "2024-05-28"]


def test_all_partitions_of_an_input() -> None:
    @asset(partitions=DailyPartitions("2024-05-29"))
    def source() -> int:
        return 1

    @asset(automation=eager(), deps=[dep("source", mapping=AllPartitions())])
    def total(source: dict[Any, int]) -> int:
        return len(source)

    stage = Stage(source, total)
    for day in (29, 30):
        stage.make("source", f"d:2024-05-{day}")
        assert stage.evaluate("total") == [], "not all are there"
    stage.make("source", "d:2024-05-31")
    assert stage.evaluate("total") == [""]
    stage.work()
    assert stage.evaluate("total") == []
    stage.at += timedelta(days=1)
    assert stage.evaluate("total") == [], "the new day is missing"
    stage.make("source", "d:2024-06-01")
    assert stage.evaluate("total") == [""], "it reads a day more"


def test_cron_ticks_are_served_once() -> None:
    @asset(automation=on_cron("0 6 * * *"))
    def daily() -> int:
        return 1

    stage = Stage(daily)
    requested = 0
    for _ in range(3 * 24 * 4):
        requested += len(stage.evaluate("daily", after=900))
        stage.work()
    assert requested == 3


def test_downstream_is_woken_and_looks_soon_while_something_moves() -> None:
    stage = Stage(a, b, c)
    stage.make("a")
    stage.evaluate("c")
    automation = AutomationId(AutomationKind.CONDITION, "c")
    before = stage.store.automations.record(automation)
    assert before is not None
    assert before.due_at == stage.at + timedelta(seconds=5)
    stage.evaluate("b", after=1)
    woken = stage.store.automations.record(automation)
    assert woken is not None
    assert woken.due_at == stage.at
    pauses = []
    for _ in range(8):
        stage.evaluate("c", after=6)
        record = stage.store.automations.record(automation)
        assert record is not None
        assert record.due_at is not None
        pauses.append((record.due_at - stage.at).total_seconds())
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == 5


def test_a_condition_that_raises_is_the_evaluators_failure() -> None:
    def broken(facts: object, now: object) -> bool:
        raise RuntimeError("broken condition")

    @asset(automation=when("broken", broken))
    def one() -> int:
        return 1

    stage = Stage(one)
    with pytest.raises(RuntimeError, match="broken condition"):
        stage.evaluate("one")


def test_one_changed_input_makes_one_run_however_many_partitions_it_touches() -> None:
    @asset
    def rates() -> int:
        return 1

    @asset(partitions=DailyPartitions("2022-09-06"), automation=eager())
    def days(rates: int) -> int:
        return rates

    stage = Stage(rates, days)
    stage.make("rates")
    assert len(stage.evaluate("days")) == 634
    assert stage.evaluate("days") == []
    (run,) = [one for one in stage.store.catalog.runs() if one.kind == "condition"]
    assert run.total == 634
    stage.work()
    stage.make("rates", content="2")
    assert len(stage.evaluate("days")) == 634, "the next wave is one run again"


def test_while_a_wave_runs_upstream_what_it_touches_is_collected() -> None:
    @asset(partitions=DailyPartitions("2024-05-01"), automation=on_missing())
    def days() -> int:
        return 1

    @asset(partitions=DailyPartitions("2024-05-01"), automation=eager())
    def report(days: int) -> int:
        return days

    stage = Stage(days, report)
    assert len(stage.evaluate("days")) == 31
    stage.finish("days", "d:2024-05-30")
    assert stage.evaluate("report", after=1) == [], "there may be more of it in a moment"
    assert stage.evaluate("report", after=40) == ["2024-05-30"], "but nothing is held back for long"
    stage.work()
    assert len(stage.evaluate("report", after=1)) == 30, "the rest together"


def test_debounce_waits_until_inputs_rest() -> None:
    @asset
    def source() -> int:
        return 1

    @asset(automation=any_input_updated().debounce(timedelta(seconds=30)))
    def after(source: int) -> int:
        return source

    stage = Stage(source, after)
    stage.make("source")
    stage.make("after")
    for number in range(5):
        stage.make("source", content=f"{number}")
        assert stage.evaluate("after", after=20) == [], "it came just now"
    assert stage.evaluate("after", after=15) == [""]
    stage.work()
    requested = []
    for number in range(20):
        stage.make("source", content=f"again {number}")
        requested.append(len(stage.evaluate("after", after=20)))
        if requested[-1]:
            break
    assert requested[-1] == 1, "inputs that never rest are not waited for for ever"
    assert len(requested) > 10
