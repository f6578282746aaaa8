"""Inputs and values by reference: scans of what is stored, sinks of what is returned, bounded memory."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import duckdb
import fsspec
import pandas as pd
import polars as pl
import psycopg
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from tests.io.object_servers import Bucket

from flowstone import FlowStone, StaticPartitions, asset, dep
from flowstone.core.by_reference import ScanKind, scan_kinds
from flowstone.core.mappings import AllPartitions
from flowstone.core.output import OutputAddress
from flowstone.core.partitions import PartitionKey
from flowstone.errors import DefinitionError, MissingExtraError
from flowstone.io import FilesystemIO, MemoryIO, ObjectIO, PickleSerializer, PostgresIO
from flowstone.protocols import IOManager

ROWS = [{"n": 2, "t": "y"}, {"n": 3, "t": None}]


@asset
def base():
    return pd.DataFrame({"n": [1, 2, 3], "t": ["x", "y", None]})


@asset
def lazy(base: pl.LazyFrame):
    return base.filter(pl.col("n") > 1)


@asset
def listed(lazy: ds.Dataset, base: ds.Dataset):
    assert base.count_rows() == 3
    return lazy


@asset
def related(listed: duckdb.DuckDBPyRelation, base: duckdb.DuckDBPyRelation):
    # the relations of a step can be joined, and read by the module itself
    assert duckdb.sql("SELECT count(*) FROM listed JOIN base USING (n)").fetchall() == [(2,)]
    return listed.order("n")


@asset
def collected(related: pl.LazyFrame | None, lazy, listed):
    assert isinstance(lazy, pl.LazyFrame)
    assert isinstance(listed, ds.Dataset)
    assert lazy.collect().to_dicts() == listed.to_table().to_pylist() == ROWS
    return related.select("n").collect()["n"].to_list()


@asset
def no_table():
    return {"a": 1}


@asset
def disappointed(no_table: pl.LazyFrame): ...


@asset
def misspelt(base: pl.LazyFrame):
    return base.select("nn")


ASSETS = [base, lazy, listed, related, collected, no_table, disappointed, misspelt]


@pytest.fixture(params=["memory", "files", "pickling files", "objects", "fsspec"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> IOManager:
    root = tmp_path / "year=2024 [x]*"  # duckdb#12325: libraries take such names for patterns and columns
    match request.param:
        case "memory":
            return MemoryIO("here")
        case "files":
            return FilesystemIO(root, name="here")
        case "pickling files":
            return FilesystemIO(root, name="here", serializer=PickleSerializer(key=b"k" * 32))
        case "objects":
            return ObjectIO("memory:///", name="here")
    return ObjectIO(fsspec.filesystem("memory"), prefix="bucket", name="here")


def test_every_library_reads_and_writes_by_reference(manager: IOManager) -> None:
    """dagster#28156, dagster#28534: a LazyFrame that is returned is not collected first."""
    flow = FlowStone.for_testing(ASSETS, io={"here": manager}, default_io="here")
    assert flow.materialize_all("collected").value == [2, 3]


def test_on_real_servers(bucket: Bucket) -> None:
    for objects in (
        ObjectIO(bucket.store(), name="here"),
        ObjectIO(bucket.files(), prefix=bucket.path, name="here"),
    ):
        flow = FlowStone.for_testing(ASSETS, io={"here": objects}, default_io="here")
        assert flow.materialize_all("collected").value == [2, 3]


def test_a_manager_that_cannot_scan_loads_the_table(io_database: str) -> None:
    postgres = PostgresIO(lambda: psycopg.connect(io_database, autocommit=True), inline_limit_bytes=0, name="here")
    flow = FlowStone.for_testing(ASSETS, io={"here": postgres}, default_io="here")
    assert flow.materialize_all("collected").value == [2, 3]


@asset
def twice(base: duckdb.DuckDBPyRelation):
    return base.join(base.set_alias("other"), "n")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    flow = FlowStone.for_testing(
        [base, twice], io={"here": FilesystemIO(tmp_path, name="here")}, default_io="here"
    )
    result = flow.materialize_all("twice")
    (step,) = [one for one in flow.runs.steps(result.run_id) if one.asset == "twice"]
    assert "Two columns are called 't'" in (step.error or "")


def test_what_is_no_table_is_refused_with_what_to_do(manager: IOManager) -> None:
    flow = FlowStone.for_testing(ASSETS, io={"here": manager}, default_io="here")
    result = flow.materialize_all("disappointed")
    assert result.failed
    (step,) = [one for one in flow.runs.steps(result.run_id) if one.asset == "disappointed"]
    assert "no_table" in (step.error or "")
    assert "polars.LazyFrame" in (step.error or "")
    assert "annotate" in (step.error or "")


def test_an_expression_that_fails_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    flow = FlowStone.for_testing(ASSETS, io={"here": FilesystemIO(tmp_path, name="here")}, default_io="here")
    result = flow.materialize_all("misspelt")
    (step,) = [one for one in flow.runs.steps(result.run_id) if one.asset == "misspelt"]
    assert step.error_type is not None
    assert step.error_type.endswith("ColumnNotFoundError")
    assert not list((tmp_path / "misspelt").rglob("*.*"))


@asset(partitions=StaticPartitions(["eu", "us"]))
def sales(context):
    return pl.DataFrame({"region": [context.partition], "amount": [1]})


@asset(deps=[dep("sales", mapping=AllPartitions())])
def world(sales: dict[str, pl.LazyFrame]):
    return pl.concat(sales.values()).sort("region")


def test_several_partitions_are_a_dict_of_scans(manager: IOManager) -> None:
    flow = FlowStone.for_testing([sales, world], io={"here": manager}, default_io="here")
    flow.materialize_all("world")
    assert flow.load("world").collect()["region"].to_list() == ["eu", "us"]


@asset
def odd():
    return pd.DataFrame({"n": [1, 2], "mixed": [{"a": 1}, "text"]})


@asset
def reads_odd(odd: ds.Dataset):
    return odd.count_rows()


def test_cells_that_only_we_can_read_are_not_shown_as_text(tmp_path: Path) -> None:
    flow = FlowStone.for_testing(
        [odd, reads_odd], io={"here": FilesystemIO(tmp_path, name="here")}, default_io="here"
    )
    result = flow.materialize_all("reads_odd")
    # Arrow has no column of mixed types: an error, never a column of JSON in its place
    assert result.failed


def test_a_damaged_file_is_no_scan(tmp_path: Path) -> None:
    flow = FlowStone.for_testing(ASSETS, io={"here": FilesystemIO(tmp_path, name="here")}, default_io="here")
    flow.materialize_all("lazy")
    (path,) = (tmp_path / "lazy").rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(OSError, match="size or SHA-256 differ"):
        flow.load("lazy")


def test_scans_of_objects_can_be_sent_to_another_process(bucket: Bucket) -> None:
    flow = FlowStone.for_testing(ASSETS, io={"here": ObjectIO(bucket.store(), name="here")}, default_io="here")
    flow.materialize_all("listed")
    assert pickle.loads(pickle.dumps(flow.load("listed"))).to_table().to_pylist() == ROWS


def test_others_read_what_was_stored_as_ordinary_parquet(tmp_path: Path) -> None:
    flow = FlowStone.for_testing(ASSETS, io={"here": FilesystemIO(tmp_path, name="here")}, default_io="here")
    flow.materialize_all("related")
    for name in ("lazy", "listed", "related"):
        (path,) = (tmp_path / name).rglob("*.parquet")
        assert pq.read_table(path)["n"].to_pylist() == [2, 3]


def annotated(a, b, c, d, e, f, g, h): ...


annotated.__annotations__ = {
    "a": "pl.LazyFrame",
    "b": ds.Dataset | None,
    "c": dict[str, duckdb.DuckDBPyRelation],
    "d": "dict[str, polars.LazyFrame] | None",  # imported for type checkers only
    "e": pd.DataFrame,
    "f": "xr.Dataset",
    "g": "duckdb.NotThere | DuckDBPyRelation",
    "h": pa.Table,
}


def test_annotations_that_ask_for_a_scan() -> None:
    polars, arrow, relation = ScanKind.POLARS, ScanKind.PYARROW, ScanKind.DUCKDB
    kinds = scan_kinds(annotated, [*"abcdefgh", "unknown"])
    assert kinds == {"a": polars, "b": arrow, "c": relation, "d": polars, "g": relation}
    assert scan_kinds(print, ["x"]) == {}


BOUNDED = """
import resource, sys
import numpy, polars
from polars.io.plugins import register_io_source
import duckdb, pyarrow.dataset
from flowstone import FlowStone, asset
from flowstone.io import FilesystemIO, ObjectIO

place, endpoint, ROWS, MORE, STEP = *sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4]), 250_000
if endpoint:
    keys = {"endpoint": endpoint, "access_key_id": "test", "secret_access_key": "test", "region": "us-east-1"}
    manager = ObjectIO(f"s3://{place}", options=keys, name="here")
else:
    manager = FilesystemIO(place, name="here", durable=False)

def pieces(columns, predicate, rows, batch):
    for start in range(0, ROWS, STEP):
        n = numpy.arange(start, start + STEP)
        yield polars.DataFrame({"n": n, "k": n % 1000, "a": n // 1000, "b": n % 7})

@asset
def events():
    return register_io_source(pieces, schema=dict.fromkeys("nkab", polars.Int64))

@asset
def doubled(events: polars.LazyFrame):
    return events.with_columns(n=polars.col("n") * 2)

@asset
def copied(doubled: pyarrow.dataset.Dataset):
    return doubled

@asset
def total(copied: duckdb.DuckDBPyRelation):
    return [int(one) for one in copied.aggregate("sum(n), count(*)").fetchall()[0]]

def resident():
    return int(open("/proc/self/status").read().partition("VmData:")[2].split()[0]) * 1024

limit = resident() + MORE * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
flow = FlowStone.for_testing(
    [events, doubled, copied, total], io={"here": manager}, default_io="here"
)
assert flow.materialize_all("total").value == [ROWS * (ROWS - 1), ROWS]
"""


@pytest.mark.slow
@pytest.mark.parametrize("where", ["files", "bucket"])
def test_memory_is_bounded_by_row_groups_not_by_the_table(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A table of 1.5 GiB goes through a process that may take half as much (arrow#33759, arrow#39808).

    With 335,500,000 rows in place of 50,000,000 it is the 10.7 GB of docs/io.md.
    """
    target = (str(tmp_path), "")
    if where == "bucket":
        bucket: Bucket = request.getfixturevalue("seaweed_server").directory()
        target = (bucket.path, bucket.endpoint)
    settings = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2", "POLARS_MAX_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, *target, "50000000", "768"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def relates(base: duckdb.DuckDBPyRelation): ...


def returns(base) -> duckdb.DuckDBPyRelation: ...


@pytest.mark.parametrize("where", [{"isolation": "process"}, {"compute": "dask"}])
def test_a_relation_is_not_declared_where_it_cannot_go(where: dict[str, str]) -> None:
    """A connection of DuckDB stays in its process: that is said when the asset is declared, with what to do."""
    with pytest.raises(DefinitionError, match=r"'base' is annotated .*Annotate it pyarrow.dataset.Dataset"):
        asset(**where)(relates)
    with pytest.raises(DefinitionError, match=r"what it returns .*to_arrow_table"):
        asset(**where)(returns)
    asset(isolation="thread")(relates)


@asset(isolation="process")
def in_a_process(base: ds.Dataset):
    return duckdb.from_arrow(base).aggregate("sum(n)").fetchall()[0][0]


@asset
def without_annotation(related): ...


def test_what_is_said_to_do_works_in_a_process(tmp_path: Path) -> None:
    files = FilesystemIO(tmp_path, name="here")
    isolated = asset(isolation="process")(without_annotation.function)
    with FlowStone.for_testing([*ASSETS, in_a_process, isolated], io={"here": files}, default_io="here") as flow:
        assert int(flow.materialize_all("in_a_process").value) == 6
        result = flow.materialize_all("without_annotation")
        (step,) = [one for one in flow.runs.steps(result.run_id) if one.asset == "without_annotation"]
        assert "duckdb.from_arrow(related)" in (step.error or "")


@pytest.mark.parametrize(
    ("package", "kind", "install"),
    [
        ("polars", ScanKind.POLARS, "pip install polars"),
        ("duckdb", ScanKind.DUCKDB, r"pip install 'flowstone\[duckdb\]'"),
        ("pyarrow", ScanKind.PYARROW, r"pip install 'flowstone\[parquet\]'"),
    ],
)
def test_a_library_that_is_missing_is_named_with_what_brings_it(
    package: str, kind: ScanKind, install: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FilesystemIO(tmp_path)
    stored = files.store(pa.table({"n": [1]}), OutputAddress("base", PartitionKey(""), "run", 1, 1, 1))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"'{package}', which is not installed.*{install}"):
        files.scan(stored, kind, {})


@asset
def from_local_frames(base: duckdb.DuckDBPyRelation):
    mine = pd.DataFrame({"n": [2, 3], "m": ["a", "b"]})
    assert len(mine) == 2
    return duckdb.sql("SELECT n, m FROM base JOIN mine USING (n) ORDER BY n")


@asset
def from_its_own_connection():
    connection = duckdb.connect()
    connection.execute("CREATE TABLE t AS SELECT 7 AS n")
    return connection.sql("SELECT * FROM t")


def test_a_relation_is_computed_after_its_function_returned(tmp_path: Path) -> None:
    """dbt-duckdb#473: what a relation reads by the name of a variable is still there."""
    parts = [base, from_local_frames, from_its_own_connection]
    flow = FlowStone.for_testing(parts, io={"here": FilesystemIO(tmp_path, name="here")}, default_io="here")
    flow.materialize_all("from_local_frames")
    assert flow.load("from_local_frames").fetchall() == [(2, "a"), (3, "b")]
    flow.materialize_all("from_its_own_connection")
    assert flow.load("from_its_own_connection").fetchall() == [(7,)]
