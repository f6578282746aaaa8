from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from flowstone import AssetContext, AwaitApproval, DailyPartitions, FlowStone, Schedule, asset, check
from flowstone.core.asset import Asset
from flowstone.core.automation.record import AutomationId, AutomationKind, AutomationRecord
from flowstone.engine.insights.overview import late_schedules

HOSTILE = ("it's/../?#", "😀", "<script>alert(1)</script>", "health", "x" * 200, "100%_done", "a\\b")


FAILING: list[str] = []


def app() -> list[Asset]:
    @asset(code_version="1")
    def orders() -> list[int]:
        if FAILING:
            raise ValueError("no orders")
        return [1, 2]

    @asset
    def totals(orders: list[int]) -> int:
        return sum(orders)

    @asset
    def broken() -> None:
        raise ValueError("no luck\nreally")

    @asset
    def letter(context: AssetContext) -> str:
        if context.approval is None:
            raise AwaitApproval("Send it?", timeout=60)
        return "Dear Ann"

    @asset(partitions=DailyPartitions("2024-01-01", end="2024-03-01"))
    def daily(context: AssetContext) -> str:
        return str(context.partition)

    return [orders, totals, broken, letter, daily]


def opened(database_url: str | None = None) -> FlowStone:
    assets = app()

    @check(assets[0])
    def not_empty(orders: list[int]) -> bool:
        return len(orders) > 0

    nightly = Schedule("totals", "0 3 * * *", name="nightly")
    make = FlowStone.for_testing if database_url is None else FlowStone
    return make(assets, checks=[not_empty], schedules=[nightly], database_url=database_url)


class Questions:
    def test_the_first_sentence_says_what_is_broken_and_what_waits(self, flow: FlowStone) -> None:
        with flow.reading() as reading, reading.snapshot() as insights:
            quiet = insights.overview()
        assert (quiet.sentence, quiet.tone) == (
            "Nothing is broken, and nothing waits for a decision. Nothing runs.",
            "good",
        )
        assert (quiet.failing, quiet.approvals, quiet.runs.items, quiet.stale, len(quiet.minutes)) == (
            (),
            (),
            (),
            (),
            60,
        )
        flow.materialize_all("totals", executor="sync")
        flow.materialize_all("broken", executor="sync")

        flow.materialize("orders", force=True, executor="sync")
        found = flow.insights.overview()
        assert (found.sentence, found.tone) == ("1 asset fails. Nothing runs.", "bad")
        (failing,) = found.failing
        assert (failing.asset, failing.error, failing.number) == ("broken", "ValueError: no luck", 1)
        assert failing.since == failing.failed_at
        assert sum(minute.ended for minute in found.minutes) == 4
        flow.invalidate("orders")
        (stale,) = flow.insights.overview().stale or ()
        assert (stale.asset, stale.number, stale.reason) == ("totals", 1, "orders has another version by now")

    def test_a_search_finds_everything_and_is_bounded(self, flow: FlowStone) -> None:
        run = flow.materialize("orders", executor="sync", run_id="Run 1% of_it's", tags=["quarter end"])
        flow.materialize("daily", partition="2024-01-07", executor="sync")
        search = flow.insights.search

        def kinds(text: str) -> list[tuple[str, str]]:
            return [(one.kind, one.name) for one in search(text).hits]

        assert ("asset", "orders") in kinds("ORD")
        assert ("asset", "orders") in kinds("der")
        assert kinds("Run 1%") == [("run", "Run 1% of_it's")]
        assert kinds("Run 1% of_it'sx") == []
        assert ("run", "Run 1% of_it's") in kinds("orders")
        assert kinds("quarter end") == [("run", "Run 1% of_it's")]
        assert ("partition", "daily [2024-01-07]") in kinds("2024-01-07")
        days = search("daily 2024-01-0", limit=5)
        assert [one.partition for one in days.hits] == [f"2024-01-0{day}" for day in (9, 8, 7, 6, 5)]
        assert days.is_first == ("partition",)
        assert ("step", str(run.step_id)) in kinds(str(run.step_id))
        assert ("schedule", "nightly") in kinds("night")
        assert ("check", "not_empty") in kinds("empty")
        assert ("queue", "assets") in kinds("assets")
        assert search("  \x00 ").hits == ()
        assert kinds("9" * 30) == []

    def test_a_restored_version_ends_a_failure(self, flow: FlowStone) -> None:
        """Dagster shows it as failed until it is computed again: what is in use is what the user chose."""
        for _ in range(2):
            flow.materialize("orders", force=True, executor="sync")
        FAILING.append("orders")
        try:
            with pytest.raises(ValueError, match="no orders"):
                flow.materialize("orders", force=True, executor="sync")
        finally:
            FAILING.clear()
        assert [one.asset for one in flow.insights.failing()] == ["orders"]
        assert flow.insights.partitions("orders").states.codes == "f"
        first = flow.history("orders")[-1]
        flow.versions.restore("orders", version=first.step_id)
        assert flow.insights.failing() == ()
        assert flow.insights.partitions("orders").states.codes == "c"


def test_the_cause_comes_first_and_what_it_holds_up_is_counted() -> None:
    """Whoever is called at night has one thing to mend (dagster#12741 asks for causes instead of lists)."""

    @asset
    def source() -> int:
        raise ValueError("the shop is closed")

    @asset
    def middle(source: int) -> int:
        return source

    @asset
    def last(middle: int) -> int:
        return middle

    @asset
    def aside() -> int:
        raise KeyError("k")

    with FlowStone.for_testing([source, middle, last, aside]) as flow:
        flow.materialize_all("*", executor="sync")
        found = flow.insights.overview()
    assert sorted((one.asset, one.holds) for one in found.failing) == [("aside", 0), ("source", 2)]
    assert (found.failing_total, found.held) == (2, 2)
    assert found.sentence == "2 assets fail and 2 assets lack an input. Nothing runs."


def test_late_data_are_broken_too() -> None:
    @asset(fresh_within=3600)
    def fresh() -> None: ...

    @asset(fresh_within=0.000001)
    def old() -> None: ...

    @asset(fresh_within=0.000001)
    def older() -> None: ...

    with FlowStone.for_testing([fresh, old, older]) as flow:
        for name in ("older", "old", "fresh"):
            flow.materialize(name)
        found = flow.insights.overview()
        late = {one.name: one.late for one in flow.insights.asset_list("*").items}
    assert [one.asset for one in found.late_data] == ["older", "old"]
    assert (found.late_data_total, found.tone) == (2, "bad")
    assert found.sentence == "2 assets have late data. Nothing runs."
    assert late["fresh"] == ""
    assert late["old"].startswith("Its data are from ")


class TestInMemory(Questions):
    @pytest.fixture
    def flow(self) -> Iterator[FlowStone]:
        with opened() as found:
            yield found


class TestOnPostgres(Questions):
    @pytest.fixture
    def flow(self, database_url: str) -> Iterator[FlowStone]:
        with opened(database_url) as found:
            yield found


def test_what_waits_for_a_person_comes_by_time_left() -> None:
    seen = []

    def notified(approval: object) -> None:
        seen.append(flow.insights.overview())
        flow.approvals.approve(approval.id, by="ann")  # type: ignore[attr-defined]

    with FlowStone.for_testing(app(), notifiers=[notified]) as flow:
        flow.materialize("letter")
    found = seen[0]
    assert found.sentence.startswith("Nothing is broken; 1 approval waits for a decision.")
    (waiting,) = found.approvals
    assert (waiting.asset, waiting.message, waiting.on_timeout) == ("letter", "Send it?", "reject")
    assert 0 < waiting.seconds_left <= 60
    assert [(run.kind, run.counts.total) for run in found.runs.items] == [("materialize", 1)]


def test_schedules_are_late_when_nobody_evaluates_them() -> None:
    """A schedule that nobody evaluates does not look like one that has nothing to do."""
    now = datetime(2024, 1, 1, 12, tzinfo=UTC)

    def due(name: str, before: timedelta, *, paused: bool = False, kind: str = "schedule") -> AutomationRecord:
        return AutomationRecord(
            id=AutomationId(AutomationKind(kind), name), paused=paused, cursor=None, since=now, due_at=now - before
        )

    records = [
        due("late", timedelta(minutes=5)),
        due("later", timedelta(hours=5)),
        due("now", timedelta(seconds=5)),
        due("paused", timedelta(hours=5), paused=True),
        due("sensor", timedelta(hours=5), kind="sensor"),
    ]
    assert [(one.name, one.seconds) for one in late_schedules(records, now)] == [("later", 18_000), ("late", 300)]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_search_takes_any_text(text: str) -> None:
    @asset(name=text)
    def odd() -> int:
        return 1

    with FlowStone.for_testing([odd]) as flow:
        found = flow.insights.search(text)
        assert [(one.kind, one.name) for one in found.hits][:1] == [("asset", text)]
