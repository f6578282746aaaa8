"""`flow.versions` and `flow.load(version=, as_of=, run=)`, on the store in memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flowstone import (
    AnyPartitions,
    DailyPartitions,
    DynamicPartitions,
    FlowStone,
    MultiPartitions,
    Skip,
    StaticPartitions,
    asset,
    code_changed,
    eager,
    when_stale,
)
from flowstone.core.actor import Actor, acting
from flowstone.errors import (
    NotMaterializedError,
    OptionsError,
    PartitionError,
    RestoreRefusedError,
    RunNotFoundError,
    SelectionError,
    UnknownAssetError,
    UnknownPartitionError,
    ValueErasedError,
    VersionNotFoundError,
)
from flowstone.io import FilesystemIO

REGIONS = StaticPartitions(["eu", "us"])


class Numbers:
    """An asset that is another number each time, and what is made of it."""

    def __init__(self, **options: Any) -> None:
        self.numbers: Iterator[int] = iter(range(1, 1000))

        @asset(partitions=REGIONS)
        def orders() -> int:
            return next(self.numbers)

        @asset(partitions=REGIONS, **options)
        def report(orders: int) -> int:
            return orders * 100

        self.orders, self.report = orders, report
        self.flow = FlowStone.for_testing([orders, report])

    def make(self, region: str = "eu") -> int:
        """Compute both again; return the version of the orders."""
        self.flow.materialize_all("report", partition=region, force=True, force_deps=True)
        return self.flow.history("orders", partition=region)[0].step_id


def test_versions_are_listed_with_who_and_what() -> None:
    scene = Numbers()
    first, second = scene.make(), scene.make()
    scene.make("us")
    page = scene.flow.versions.list("orders", "eu")
    assert [(one.step_id, one.state) for one in page.items] == [(second, "current"), (first, "earlier")]
    assert (page.total, page.next, page.summary) == (2, None, "")
    newest = page.items[0]
    assert (newest.partition, newest.label, newest.kind) == ("eu", "eu", "materialize_all")
    assert newest.is_stored is True
    assert newest.to_json()["step_id"] == str(second)
    one = scene.flow.versions.list("orders", "eu", limit=1)
    assert [item.step_id for item in one.items] == [second]
    assert [item.step_id for item in scene.flow.versions.list("orders", "eu", after=one.next).items] == [first]
    assert scene.flow.versions.get(first) == page.items[1]
    assert scene.flow.versions.get(scene.flow.history("orders", partition="eu")[0]) == newest
    with pytest.raises(PartitionError):
        scene.flow.versions.list("orders")
    with pytest.raises(OptionsError, match="no place in this list"):
        scene.flow.versions.list("orders", "eu", after="hello")


def test_load_takes_a_version_a_time_or_a_run() -> None:
    scene = Numbers()
    flow = scene.flow
    first, second = scene.make(), scene.make()
    made = flow.history("orders", partition="eu")
    assert flow.load("orders", partition="eu") == 2
    for version in (first, str(first), made[1], flow.versions.get(first)):
        assert flow.load("orders", partition="eu", version=version) == 1
    assert flow.load("orders", version=first) == 1, "the version says which partition"
    assert made[1].finished_at is not None
    assert flow.load("orders", partition="eu", as_of=made[1].finished_at) == 1
    assert flow.load("orders", partition="eu", as_of=datetime.now(UTC)) == 2
    assert flow.load("orders", partition="eu", run=made[1].run_id) == 1
    reused = flow.materialize("orders", partition="eu")
    scene.make()
    assert flow.load("orders", partition="eu", run=reused.run_id) == 2, "what a run reused is what it had"
    assert flow.load("orders", version=reused) == 2
    assert second == flow.versions.get(reused).step_id
    assert flow.load(scene.orders, partition="eu", version=first) + 1 == 2


def test_load_says_what_is_wrong() -> None:
    scene = Numbers()
    flow = scene.flow
    first = scene.make()
    us = scene.make("us")
    run = flow.history("orders", partition="eu")[0].run_id
    now = datetime.now(UTC)
    for wrong, error, text in (
        ({"version": first, "run": run}, OptionsError, "version= and run= both say"),
        ({"version": first, "as_of": now}, OptionsError, "give one of them"),
        ({"as_of": now.replace(tzinfo=None)}, OptionsError, "has no time zone"),
        ({"as_of": "2024-01-01"}, OptionsError, "give a datetime"),
        ({"as_of": date(2024, 1, 1)}, OptionsError, "give a datetime"),
        ({"version": "latest"}, OptionsError, "no number of a version"),
        ({"version": 1.5}, OptionsError, "stands for no version"),
        ({"version": True}, OptionsError, "stands for no version"),
        ({"version": 10**30}, OptionsError, "no number"),
        ({"version": 99999}, VersionNotFoundError, "it never was, or was pruned"),
        ({"version": us}, VersionNotFoundError, r"it is one of orders \[us\]"),
        ({"version": first + 1}, VersionNotFoundError, r"it is one of report \[eu\]"),
        ({"as_of": now - timedelta(days=1)}, VersionNotFoundError, "nothing had been committed by then"),
        ({"run": "nope"}, RunNotFoundError, "nope"),
        ({"run": 7}, OptionsError, "is no run"),
        ({"run": flow.history("orders", partition="us")[0].run_id}, VersionNotFoundError, "has no step for it"),
    ):
        with pytest.raises(error, match=text):  # type: ignore[arg-type]
            flow.load("orders", partition="eu", **wrong)  # type: ignore[call-overload]
    flow.invalidate("orders", partitions=["eu"])
    with pytest.raises(VersionNotFoundError, match="was invalidated at"):
        flow.load("orders", partition="eu", as_of=datetime.now(UTC))
    assert flow.load("orders", partition="eu", version=first) == 1, "its record stays, and so does its value"


def test_what_made_no_version_cannot_be_loaded() -> None:
    @asset
    def nothing() -> int:
        raise Skip("nothing new")

    flow = FlowStone.for_testing([nothing])
    done = flow.materialize("nothing")
    with pytest.raises(VersionNotFoundError, match="is skipped"):
        flow.load("nothing", version=done.step_id)
    with pytest.raises(VersionNotFoundError, match="is skipped"):
        flow.load("nothing", run=done.run_id)
    with pytest.raises(VersionNotFoundError, match="committed no version"):
        flow.versions.restore("nothing", version=done.step_id)


def test_a_restore_makes_what_lies_downstream_stale_and_says_why() -> None:
    """A bad publish is undone in one action, and one sees by whom."""
    scene = Numbers(automation=eager())
    flow = scene.flow
    first, second = scene.make(), scene.make()
    with acting(Actor("ann", "web")):
        done = flow.versions.restore("orders", "eu", first, reason="the feed was wrong")
    assert (done.version, done.before, done.changed) == (first, second, True)
    assert [one.asset for one in done.stale] == ["report"]
    assert flow.load("orders", partition="eu") == 1
    (why,) = flow.conditions.stale("report", partitions=["eu"])["eu"]
    assert why.startswith(f"input orders [eu] was restored to version {first} by ann, at ")
    assert f"it is stale: {why}" == flow.why("report", "eu")[0]
    assert flow.why("orders", "eu")[0].startswith(f"its version {first} is in use because it was restored by ann")
    assert [one.name for one in flow.conditions.run()] == ["report [eu]"]
    assert flow.load("report", partition="eu") == 100
    assert flow.conditions.run() == []
    (info, *_) = [one for one in flow.versions.list("orders", "eu").items if one.is_current]
    assert info.restored is not None
    assert (info.restored.actor, info.restored.reason) == ("ann", "the feed was wrong")
    again = flow.versions.restore("orders", "eu", first)
    assert not again.changed
    assert "in use already" in str(again)


def test_a_condition_does_not_undo_a_restore() -> None:
    """What is known at the restore does not count any more; what happens later does."""
    scene = Numbers(automation=eager())
    flow = scene.flow
    scene.make()
    first = flow.history("report", partition="eu")[0].step_id
    scene.make()
    flow.versions.restore("report", "eu", first)
    assert flow.conditions.stale("report", partitions=["eu"]) == {}
    assert flow.conditions.run() == []
    flow.materialize("orders", partition="eu", force=True)
    assert [one.name for one in flow.conditions.run()] == ["report [eu]"]


def test_code_that_was_replaced_on_purpose_does_not_come_back_by_itself() -> None:
    """A condition on code acts when the code is mended, not because of the version that was restored."""

    def build(version: str, automation: Any, flow: FlowStone | None = None) -> FlowStone:
        @asset(code_version=version, automation=automation)
        def rate() -> str:
            return version

        built = FlowStone.for_testing([rate])
        if flow is not None:
            built.close()
            built.parts.graph.assets["rate"]
            flow.parts.graph.assets["rate"].code_version = version  # type: ignore[misc]
            return flow
        return built

    for automation in (code_changed(), when_stale()):
        flow = build("1", automation)
        good = flow.materialize("rate")
        build("2", automation, flow)
        assert [one.name for one in flow.conditions.run()] == ["rate"]
        flow.versions.restore("rate", version=good)
        assert flow.conditions.run() == []
        build("3", automation, flow)
        assert [one.name for one in flow.conditions.run()] == ["rate"]


def test_what_a_run_published_is_undone() -> None:
    scene = Numbers()
    flow = scene.flow
    scene.make()
    bad = flow.backfill(["orders", "report"], partitions=["eu", "us"], force=True)
    dry = flow.versions.undo(bad, dry_run=True)
    assert (dry.restored, dry.out_of_use, dry.dry_run) == (2, 2, True)
    assert flow.load("orders", partition="eu") == 2
    done = flow.versions.undo(bad, by="ann", reason="wrong rates")
    assert (done.restored, done.out_of_use, done.left) == (2, 2, 0)
    assert "orders [us]" in done.targets
    assert (flow.load("orders", partition="eu"), flow.load("report", partition="eu")) == (1, 100)
    assert not flow.exists("orders", partition="us")
    again = flow.versions.undo(bad.run_id)
    assert (again.restored, again.left) == (0, 4)
    with pytest.raises(RunNotFoundError):
        flow.versions.undo("nope")


def test_a_value_that_is_not_stored_any_more_is_not_restored(tmp_path: Path) -> None:
    numbers = iter(range(10))

    @asset(io="files")
    def orders() -> int:
        return next(numbers)

    flow = FlowStone.for_testing([orders], io={"files": FilesystemIO(tmp_path, name="files")})
    first = flow.materialize("orders")
    bad = flow.materialize_all("orders", force=True)
    assert first.stored is not None
    (tmp_path / first.stored.location).unlink()
    assert [one.is_stored for one in flow.versions.list("orders").items] == [True, False]
    with pytest.raises(RestoreRefusedError, match="is not stored any more"):
        flow.versions.restore("orders", version=first)
    with pytest.raises(RestoreRefusedError, match="is not stored any more"):
        flow.versions.undo(bad)
    assert flow.load("orders") == 1


def test_restore_says_what_is_wrong() -> None:
    scene = Numbers()
    flow = scene.flow
    first = scene.make()
    second = scene.make()
    us = scene.make("us")
    with pytest.raises(OptionsError, match="needs version="):
        flow.versions.restore("orders", "eu")
    with pytest.raises(VersionNotFoundError, match=r"it is one of orders \[us\]"):
        flow.versions.restore("orders", "eu", us)
    with pytest.raises(VersionNotFoundError, match="it never was"):
        flow.versions.restore("orders", "eu", 99999)
    with pytest.raises(UnknownAssetError):
        flow.versions.restore("ordres", "eu", first)
    with pytest.raises(RestoreRefusedError, match=f"version {second} is in use now, not version {first}"):
        flow.versions.restore("orders", "eu", first, expect=first)
    with pytest.raises(OptionsError, match="reason"):
        flow.versions.restore("orders", "eu", first, reason=7)  # type: ignore[arg-type]
    assert flow.versions.restore("orders", version=first).label == "eu"


def test_erasing_reaches_removed_keys_and_removed_assets(tmp_path: Path) -> None:
    """A customer's right: values, folders and texts are gone, whatever the app declares by then."""
    customers = DynamicPartitions("customers")

    @asset(partitions=customers, io="files")
    def profile(context: Any) -> dict[str, str]:
        context.metadata["name"] = f"{context.partition} Smith"
        return {"name": f"{context.partition} Smith"}

    @asset(partitions=customers, io="files")
    def score(profile: dict[str, str]) -> int:
        return len(profile["name"])

    flow = FlowStone.for_testing([profile, score], io={"files": FilesystemIO(tmp_path, name="files")})
    for key in ("ann", "bob"):
        flow.partitions.add("customers", [key])
        flow.materialize_all("score", partition=key)
    flow.partitions.remove("customers", ["ann"])
    dry = flow.versions.erase("*", partition="ann", dry_run=True)
    assert (len(dry.targets), dry.values, dry.is_complete) == (2, 2, False)
    assert flow.load("profile", partition="ann") == {"name": "ann Smith"}
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    erased = flow.versions.erase("profile", partition="ann", by="dpo", reason="asked on 3 May")
    assert (erased.steps, erased.values, erased.is_complete) == (1, 1, True)
    assert [(one.asset, one.current) for one in erased.downstream] == [("score", True)]
    assert len(before) - len({path for path in tmp_path.rglob("*") if path.is_file()}) == 1
    assert [path for path in tmp_path.rglob("*ann*") if path.parent.name == "profile"] == [], "nor is its folder"
    with pytest.raises(ValueErasedError, match=r"was erased at .* by dpo"):
        flow.load("profile", partition="ann")
    with pytest.raises(NotMaterializedError):
        flow.load("profile", partition="ann")
    assert "Smith" not in repr(flow.versions.list("profile", "ann"))
    assert flow.versions.list("profile", "ann").items[0].changed_by == "dpo"
    assert flow.load("profile", partition="bob") == {"name": "bob Smith"}
    with pytest.raises(ValueErasedError):
        flow.versions.restore("profile", "ann", erased.downstream[0].reads[0])

    # the same records, in an app that declares neither any more
    graph = flow.parts.graph
    for name in ("profile", "score"):
        graph._assets.pop(name)  # type: ignore[attr-defined]
    graph.order = ()  # type: ignore[misc]
    gone = flow.versions.erase("score", partition="ann")
    assert (gone.steps, gone.values) == (1, 1)
    with pytest.raises(ValueErasedError):
        flow.load("score", partition="ann")


def test_erase_reports_what_it_cannot_reach_and_goes_on_later(tmp_path: Path) -> None:
    class Stuck(FilesystemIO):
        stuck = True

        def discard(self, stored: Any) -> None:
            if Stuck.stuck:
                raise OSError("the disk is away")
            super().discard(stored)

        def erase(self, *arguments: Any) -> int:
            return 0 if Stuck.stuck else super().erase(*arguments)

    files = Stuck(tmp_path, name="files")

    @asset(io="files")
    def orders() -> int:
        return 1

    flow = FlowStone.for_testing([orders], io={"files": files})
    flow.materialize("orders")
    erased = flow.versions.erase("orders")
    assert (erased.is_complete, dict(erased.out_of_reach)) == (False, {"files": 1})
    with pytest.raises(ValueErasedError):
        flow.load("orders")
    Stuck.stuck = False
    again = flow.versions.erase("orders")
    assert (again.is_complete, again.earlier) == (True, 1)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_erase_says_what_is_wrong() -> None:
    scene = Numbers()
    scene.make()

    @asset
    def total() -> int:
        return 1

    flow = FlowStone.for_testing([scene.orders, total])
    with pytest.raises(PartitionError):
        flow.versions.erase("orders")
    with pytest.raises(UnknownPartitionError):
        flow.versions.erase("orders", partition="asia")
    with pytest.raises(SelectionError):
        flow.versions.erase("nope and nothing")
    flow.materialize("orders", partition="eu")
    both = flow.versions.erase(["orders", "total"], partition="eu", dry_run=True)
    assert (both.targets, both.left_out) == ((("orders", "s:eu"),), ("total",))


def test_erasing_one_customer_of_all_days() -> None:
    definition = MultiPartitions(
        day=DailyPartitions(start="2024-01-01", end="2024-01-04"), customer=AnyPartitions()
    )

    @asset(partitions=definition)
    def visits() -> int:
        return 1

    flow = FlowStone.for_testing([visits])
    for day in (date(2024, 1, 1), date(2024, 1, 2)):
        for customer in ("ann", "bob"):
            flow.materialize("visits", partition=(day, customer))
    erased = flow.versions.erase("visits", partition={"customer": "ann"})
    assert len(erased.targets) == 2
    assert not flow.exists("visits", partition=(date(2024, 1, 1), "ann"))
    assert flow.exists("visits", partition=(date(2024, 1, 2), "bob"))
    with pytest.raises(UnknownPartitionError):
        flow.versions.erase("visits", partition={"customer": "eve"})
