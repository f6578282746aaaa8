"""Assets that are declared no more, and those that have another name now."""

from __future__ import annotations

import logging
from datetime import date
from pathlib import Path

import pytest

from flowstone import DailyPartitions, FlowStone, StaticPartitions, asset
from flowstone.config import Settings
from flowstone.core.asset import Asset
from flowstone.errors import (
    DefinitionError,
    DependencyNotReadyError,
    OptionsError,
    UnknownAssetError,
    UnknownPartitionError,
)
from flowstone.stores.postgres.queue import Lease

DAYS = DailyPartitions(start=date(2024, 1, 1), end=date(2024, 1, 4))


@asset(partitions=DAYS)
def old(context):
    return context.partition.day


@asset(partitions=DAYS)
def reader(old):
    return old + 100


@asset
def single():
    return "x" * 100_000  # in chunks


def renamed(*earlier: str) -> Asset:
    @asset(partitions=DAYS, renamed_from=earlier)
    def new(context):
        return -1

    return new


@asset(partitions=DAYS)
def reader_of_new(new):
    return new + 100


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(database_url=database_url, storage=str(tmp_path), executor="sync")


@pytest.fixture
def made(settings: Settings) -> Settings:
    """A database in which an earlier version of the app has worked."""
    with FlowStone([old, reader, single], settings=settings) as flow:
        for day in (1, 2):
            flow.materialize_all("reader", partition=date(2024, 1, day))
        flow.materialize("single")
    return settings


def test_a_removed_asset_can_be_looked_at_loaded_and_invalidated(made: Settings) -> None:
    with FlowStone([], settings=made) as flow:
        assert [one.partition for one in flow.history("old")] == [date(2024, 1, 2), date(2024, 1, 1)]
        assert len(flow.history("old", partition=date(2024, 1, 1))) == 1
        assert flow.load("old", partition=date(2024, 1, 2)) == 2
        assert flow.load(single) == "x" * 100_000
        assert [one.asset for one in flow.lineage.downstream("old", partition=date(2024, 1, 1))] == [
            "old",
            "reader",
        ]
        assert flow.invalidate("old", partitions=[date(2024, 1, 1)]) == 1
        assert not flow.exists("old", partition=date(2024, 1, 1))
        assert flow.invalidate("old") == 1
        with pytest.raises(DependencyNotReadyError):
            flow.load("old", partition=date(2024, 1, 2))
        assert flow.history("old")[0].invalidated_at is not None
        for verb in (flow.history, flow.load, flow.invalidate, flow.exists):
            with pytest.raises(UnknownAssetError):
                verb("never")


def test_a_removed_asset_can_be_deleted(made: Settings) -> None:
    with FlowStone([old, reader], settings=made) as flow:
        with pytest.raises(OptionsError, match="is declared"):
            flow.retention.prune_asset("old")
        with pytest.raises(UnknownAssetError):
            flow.retention.prune_asset("never")
        found = flow.retention.prune_asset("single", dry_run=True)
        assert (found.steps, found.values, found.dry_run) == (1, 1, True)
        assert len(flow.history("single")) == 1
        assert flow.retention.prune_asset("single").values == 1
        with pytest.raises(UnknownAssetError):
            flow.history("single")
        assert len(flow.history("old")) == 2
        with flow.parts.store.connection() as connection:
            assert connection.execute("SELECT count(*) FROM flowstone.output_chunks").fetchone() == (0,)


def test_a_renamed_asset_keeps_its_history(made: Settings) -> None:
    with FlowStone([renamed("older", "old"), reader_of_new], settings=made) as flow:
        assert [one.partition for one in flow.history("new")] == [date(2024, 1, 2), date(2024, 1, 1)]
        assert flow.exists("new", partition=date(2024, 1, 1))
        assert flow.materialize("new", partition=date(2024, 1, 1)).value == 1  # reused, not computed
        assert flow.materialize("reader_of_new", partition=date(2024, 1, 2)).value == 102
        assert [one.asset for one in flow.lineage.downstream("new", partition=date(2024, 1, 1))] == [
            "new",
            "reader",
        ]
        with pytest.raises(UnknownAssetError):
            flow.history("old")
        assert [one.action for one in flow.audit.latest(subject="asset:new")] == ["asset.renamed"]


def test_a_current_version_under_the_new_name_stays(made: Settings) -> None:
    with FlowStone([renamed()], settings=made) as flow:
        flow.materialize("new", partition=date(2024, 1, 1))
    with FlowStone([renamed("old")], settings=made) as flow:
        assert flow.load("new", partition=date(2024, 1, 1)) == -1
        assert flow.load("new", partition=date(2024, 1, 2)) == 2
        assert len(flow.history("new")) == 3


def test_a_name_in_use_is_waited_for(made: Settings, caplog: pytest.LogCaptureFixture) -> None:
    with FlowStone([old], settings=made) as before:
        lease = Lease(before.parts.store.database, "w")  # a worker of the deployment before
        known = before.parts.shapes.to_json()
        lease.register(kind="node", host="h", pid=1, queues={}, lease_seconds=60.0, assets=known)
        with FlowStone([renamed("old")], settings=made) as flow, caplog.at_level(logging.WARNING):
            assert not flow.exists("new", partition=date(2024, 1, 1))
            assert "no living worker declares the earlier name" in caplog.text
            assert len(before.history("old")) == 2
        lease.remove()
        with FlowStone([renamed("old")], settings=made) as flow:
            assert len(flow.history("new")) == 2


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(DefinitionError, match="'old' is declared too"):
        FlowStone.for_testing([old, renamed("old")])
    with pytest.raises(DefinitionError, match="'new' is declared too"):
        FlowStone.for_testing([renamed("new")])
    with pytest.raises(DefinitionError, match="renamed_from"):
        asset(name="new", renamed_from=3)(lambda: 1)  # type: ignore[arg-type]
    assert asset(name="new", renamed_from=None)(lambda: 1).renamed_from == ()


def test_partitions_that_left_the_declaration_can_be_looked_at(settings: Settings) -> None:
    def declare(*keys: str) -> Asset:
        @asset(name="region", partitions=StaticPartitions(keys) if keys else None)
        def region(context):
            return f"of {context.partition}"

        return region

    with FlowStone([declare("eu", "us")], settings=settings) as flow:
        assert flow.backfill("region", partitions=["eu", "us"]).succeeded == 2
    for keys in (("us",), ()):
        with FlowStone([declare(*keys)], settings=settings) as flow:
            assert flow.load("region", partition="eu") == "of eu"
            assert flow.exists("region", partition="eu")
            assert [one.partition for one in flow.history("region", partition="eu")] == ["eu"]
            assert [one.partition for one in flow.lineage.upstream("region", partition="eu")] == ["eu"]
            assert flow.why("region", "eu") == ["it is over: completed"]
            for verb in (flow.load, flow.materialize, flow.schedule):
                with pytest.raises(UnknownPartitionError, match="'asia' is not a partition"):
                    verb("region", partition="asia")
            with pytest.raises(UnknownPartitionError, match="'eu' is not a partition"):
                flow.materialize("region", partition="eu")
    with FlowStone([declare("us")], settings=settings) as flow:
        assert flow.invalidate("region", partitions=["eu"]) == 1
        assert not flow.exists("region", partition="eu")
