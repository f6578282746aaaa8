"""ObjectIO against two real servers, through two clients, over wires that break."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import fsspec
import obstore
import pytest
from obstore.store import AzureStore, GCSStore, LocalStore
from tests.io.object_servers import Bucket, CutWire

from flowstone import FlowStone, asset
from flowstone.config import Settings
from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.core.partitions import PartitionKey
from flowstone.core.project import Project
from flowstone.errors import ConfigurationError, SerializationError, StorageError
from flowstone.io import ObjectIO
from flowstone.io.json import JsonSerializer
from flowstone.protocols import IOManager
from flowstone.stores.postgres.database import Database
from flowstone.testing.io_conformance import IOManagerConformance

ADDRESS = OutputAddress("numbers", PartitionKey("2024"), run_id="run", step_id=1, attempt=1, token=7)
MIB = 1024 * 1024
LARGE = bytes(range(256)) * (24 * 4096)  # 24 MiB: sent in parts


class _OnServer(IOManagerConformance):
    @pytest.fixture(autouse=True)
    def _bucket(self, bucket: Bucket) -> None:
        self.bucket = bucket

    def damage(self, stored: StoredOutput) -> bool:
        store, key = self.bucket.store(), f"directory/{stored.location}"
        whole = bytes(obstore.get(store, key).bytes())
        obstore.put(store, key, whole[: len(whole) // 2])
        return True

    def names(self) -> list[str]:
        return [one["path"] for page in obstore.list(self.bucket.store()) for one in page]


class TestThroughObstore(_OnServer):
    def create(self) -> IOManager:
        return ObjectIO(self.bucket.store(), prefix="directory")

    def writer(self) -> str:
        options = {"endpoint": self.bucket.endpoint, "access_key_id": "test", "secret_access_key": "test"}
        return (
            "from flowstone.io import ObjectIO\n"
            f"manager = ObjectIO('s3://{self.bucket.path}/directory', options={options!r})\n"
        )


class TestThroughFsspec(_OnServer):
    def create(self) -> IOManager:
        return ObjectIO(self.bucket.files(), prefix=f"{self.bucket.path}/directory")


class TestInMemory(IOManagerConformance):
    def create(self) -> IOManager:
        return ObjectIO("memory:///")


class TestDirectoryThroughFsspec(IOManagerConformance):
    @pytest.fixture(autouse=True)
    def _root(self, tmp_path: Path) -> None:
        self.root = tmp_path

    def create(self) -> IOManager:
        return ObjectIO(fsspec.filesystem("file"), prefix=str(self.root))


@pytest.mark.parametrize("client", ["obstore", "fsspec"])
def test_large_values_are_sent_in_parts_and_come_back(bucket: Bucket, client: str) -> None:
    objects = through(client, bucket)
    stored = objects.store(LARGE, ADDRESS)
    assert objects.load(stored) == LARGE
    found = obstore.head(bucket.store(), stored.location)
    assert found["size"] == len(LARGE)
    assert str(found["e_tag"]).strip('"').rpartition("-")[2].isdigit()  # as S3 marks what came in parts


def through(client: str, bucket: Bucket, *, endpoint: str = "", **options: Any) -> ObjectIO:
    if client == "obstore":
        return ObjectIO(bucket.store(endpoint=endpoint), part_bytes=5 * MIB, **options)
    moved = bucket._replace(endpoint=endpoint or bucket.endpoint)
    files = moved.files(config_kwargs={"retries": {"max_attempts": 1}, "read_timeout": 5})
    files.retries = 1
    return ObjectIO(files, prefix=bucket.path, part_bytes=5 * MIB, **options)


def keys_of(bucket: Bucket) -> list[str]:
    return [one["path"] for page in obstore.list(bucket.store()) for one in page]


@pytest.mark.parametrize("client", ["obstore", "fsspec"])
@pytest.mark.parametrize("value", [LARGE, b"small" * 60_000], ids=["in parts", "at once"])
def test_an_upload_that_is_cut_off_publishes_nothing(bucket: Bucket, client: str, value: bytes) -> None:
    with CutWire(bucket.endpoint, upload_bytes=min(len(value), 4 * MIB) - 60_000) as wire:
        objects = through(client, bucket, endpoint=wire.endpoint)
        with pytest.raises(StorageError) as caught:
            objects.store(value, ADDRESS)
    assert caught.value.kind == "unavailable"
    assert objects.may_pass(caught.value)
    assert keys_of(bucket) == []
    assert wire.connections > 0


@pytest.mark.parametrize("client", ["obstore", "fsspec"])
def test_a_download_that_is_cut_off_is_an_error(bucket: Bucket, client: str) -> None:
    stored = through(client, bucket).store(LARGE, ADDRESS)
    with CutWire(bucket.endpoint, download_bytes=3 * MIB) as wire, pytest.raises(StorageError) as caught:
        through(client, bucket, endpoint=wire.endpoint).load(stored)
    assert caught.value.kind in ("unavailable", "corrupt", "other")


class Breaking:
    """A value that breaks when half of it is written."""

    name, extension = "breaking", ".brk"

    def accepts(self, value: object) -> bool:
        return True

    def write(self, value: object, file: Any) -> None:
        file.write(b"half" * 5_000_000)
        raise SerializationError("the rest cannot be written", path="$", type_name="x", remedy="Return less.")

    def read(self, file: Any) -> object:
        return file.read()


@pytest.mark.parametrize("client", ["obstore", "fsspec"])
def test_a_value_that_breaks_half_way_is_never_seen(bucket: Bucket, client: str) -> None:
    # PyFilesystem/s3fs#95: leaving a `with` block by an error published what was written so far
    objects = through(client, bucket, serializer=Breaking())
    with pytest.raises(SerializationError, match="numbers"):
        objects.store(object(), ADDRESS)
    assert keys_of(bucket) == []


class Publishing(type(fsspec.filesystem("memory"))):  # type: ignore[misc]
    """A file system that publishes what it has of a large file, and breaks."""

    cachable = False

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        file = super()._open(path, mode, **options)
        if mode == "wb":
            whole, passed = file.write, []

            def write(data: bytes) -> int:
                passed.append(len(data))
                if sum(passed) > 6 * MIB:
                    file.commit()
                    raise ConnectionResetError("reset by peer")
                return int(whole(data))

            file.write = write
        return file


def test_what_a_client_published_in_failing_is_deleted() -> None:
    files = Publishing()
    # a file system in memory is one for the whole process: a directory that no other test uses
    objects = ObjectIO(files, prefix="/publishing", part_bytes=5 * MIB)
    with pytest.raises(StorageError, match="reset by peer") as caught:
        objects.store(LARGE, ADDRESS)
    assert caught.value.kind == "unavailable"
    assert files.find("/publishing") == []


def test_the_same_attempt_taken_up_again_writes_beside_it(bucket: Bucket) -> None:
    """A worker that stops gives its attempt back: its number is used again, with another token."""
    objects = ObjectIO(bucket.store())
    published = objects.store("new", ADDRESS._replace(token=8))
    late = objects.store("old", ADDRESS)
    assert (objects.load(published), objects.load(late)) == ("new", "old")
    objects.discard(late)
    assert objects.find([published, late]) == [True, False]
    objects.store("old", ADDRESS)
    assert objects.erase("numbers", PartitionKey("2024"), ["1-1"]) == 2


def test_what_another_process_wrote_and_deleted_is_seen(bucket: Bucket) -> None:
    """s3fs#657, s3fs#851, s3fs#424: listings and sizes that the client keeps were taken for the storage."""
    through_files, other = ObjectIO(bucket.files(), prefix=bucket.path), ObjectIO(bucket.store())
    first = through_files.store("first", ADDRESS)
    assert through_files.find([first]) == [True]
    second = other.store("second", ADDRESS._replace(step_id=2))
    assert through_files.find([first, second]) == [True, True]
    assert through_files.load(second) == "second"
    other.store("first, and longer", ADDRESS)
    other.discard(second)
    assert through_files.find([first, second]) == [False, False]  # the first one has another size now
    assert through_files.erase("numbers", PartitionKey("2024"), ["1-1", "2-1"]) == 1


@pytest.mark.parametrize("client", ["obstore", "fsspec", "directory", "fsspec directory"])
def test_catalogs_of_data_know_values_by_bucket_and_directory(bucket: Bucket, client: str, tmp_path: Path) -> None:
    managers = {
        "obstore": lambda: ObjectIO(bucket.store(), prefix="v"),
        "fsspec": lambda: ObjectIO(bucket.files(), prefix=f"{bucket.path}/v"),
        "directory": lambda: ObjectIO(LocalStore(tmp_path), prefix="v"),
        "fsspec directory": lambda: ObjectIO(fsspec.filesystem("file"), prefix=f"{tmp_path}/v"),
    }
    namespace, above = (
        ("file", str(tmp_path)) if "directory" in client else (f"s3://{bucket.name}", bucket.directory)
    )
    manager = managers[client]()
    assert manager.dataset("orders") == (namespace, f"{above}/v/orders")
    assert manager.in_project(Project("shop")).dataset("a b") == (namespace, f"{above}/v/@project-shop/a%20b")


def test_buckets_of_others_have_the_names_of_catalogs() -> None:
    azure = AzureStore("lake", account_name="acme", account_key="a2V5", prefix="v")
    assert ObjectIO(azure).dataset("orders") == ("abfss://lake@acme.dfs.core.windows.net", "v/orders")
    assert ObjectIO(GCSStore("lake", skip_signature=True)).dataset("orders") == ("gs://lake", "orders")
    assert ObjectIO("memory:///").dataset("orders") is None


def test_names_too_long_for_buckets_are_hashed(bucket: Bucket) -> None:
    objects = ObjectIO(bucket.store(), prefix="directory")
    keys = [PartitionKey("ü" * 1000), PartitionKey("ü" * 999 + "u"), PartitionKey("x" * 5000)]
    stored = [objects.store(n, ADDRESS._replace(partition_key=key)) for n, key in enumerate(keys)]
    assert [objects.load(one) for one in stored] == [0, 1, 2]
    assert all(len(one.location) < 800 for one in stored)
    assert objects.erase("numbers", keys[0], ["1-1"]) == 1
    assert objects.find(stored) == [False, True, True]
    with pytest.raises(StorageError, match="shorter asset name") as caught:
        objects.store(1, ADDRESS._replace(asset="a" * 900))
    assert caught.value.kind == "too_large"


def test_projects_do_not_sweep_each_other(bucket: Bucket) -> None:
    objects = ObjectIO(bucket.store())
    other = objects.in_project(Project("other"))
    stored = [objects.store(1, ADDRESS), other.store(2, ADDRESS._replace(project="other"))]
    obstore.put(bucket.store(), "numbers/notes.txt", b"not ours")
    obstore.put(bucket.store(), "numbers/2024/1-1.7.json.bak~", b"not ours")
    assert objects.sweep(older_than_seconds=3600, keep=lambda versions: ()) == 0
    assert objects.sweep(older_than_seconds=-60, keep=lambda versions: ()) == 1
    assert other.find(stored) == [False, True]
    assert other.sweep(older_than_seconds=-60, keep=lambda versions: ()) == 1
    assert len(keys_of(bucket)) == 2


@pytest.mark.parametrize("location", ["../../etc/passwd", "numbers/2024/1-1.7.json/..", "/numbers/2024/1-1.json"])
def test_recorded_locations_that_are_none_are_refused(location: str) -> None:
    objects = ObjectIO("memory:///")
    forged = StoredOutput("objects", location, "json", 1, None)
    for verb in (objects.load, objects.discard, lambda stored: objects.find([stored])):
        with pytest.raises(StorageError) as caught:
            verb(forged)
        assert caught.value.kind == "unsafe"


def test_failures_say_what_they_are(bucket: Bucket, tmp_path: Path) -> None:
    gone = ObjectIO(bucket._replace(name="no-such-bucket").store())
    with pytest.raises(StorageError) as caught:
        gone.store(1, ADDRESS)
    assert caught.value.kind in ("missing", "denied")  # seaweed says no more than that it is denied
    assert not gone.may_pass(caught.value)
    away = ObjectIO(bucket.store(endpoint="http://127.0.0.1:9"))
    with pytest.raises(StorageError, match="endpoint and the network") as caught:
        away.store(1, ADDRESS)
    assert caught.value.kind == "unavailable"
    directory = tmp_path / "values"
    directory.mkdir()
    local = ObjectIO(LocalStore(directory))
    directory.chmod(stat.S_IRUSR | stat.S_IXUSR)
    if os.geteuid() != 0:
        with pytest.raises(StorageError) as caught:
            local.store(1, ADDRESS)
        assert caught.value.kind in ("denied", "other")


def test_secrets_are_in_no_text(bucket: Bucket) -> None:
    options = {"endpoint": "http://127.0.0.1:9", "access_key_id": "AKIAXYZ", "secret_access_key": "hush-hush"}
    objects = ObjectIO("s3://bucket/directory", options=options)
    assert "hush" not in repr(objects)


@pytest.mark.parametrize(
    ("store", "options", "says"),
    [
        ("values", {}, "FilesystemIO"),
        ("nope://bucket", {}, "nope"),
        ("s3://bucket", {"options": {"endpont": "http://x"}}, "endpont"),
        (fsspec, {}, "file system of fsspec"),
        (LocalStore, {}, "a store of obstore"),
        (None, {}, "give a URL"),
        ("memory:///", {"prefix": "../up"}, "must be a directory"),
        ("memory:///", {"prefix": "a//b"}, "must be a directory"),
        ("memory:///", {"part_bytes": 1}, "part_bytes=1"),
        ("memory:///", {"part_bytes": "16"}, "part_bytes='16'"),
        *(
            ("memory:///", {"prefix": odd}, "must be a directory")
            for odd in (None, "a\0b", "\ud800", "a\nb", "x" * 900)
        ),
        *(("s3://bucket", {"options": odd}, "a mapping of names") for odd in ("", [], 0, False)),
        ("memory:///", {"serializer": "json"}, "'json' is no serializer"),
        ("s3://bucket", {"options": "region=eu"}, "a mapping of names"),
        ("memory:///", {"serializer": type("S", (JsonSerializer,), {"extension": "CSV"})()}, "'CSV'"),
    ],
)
def test_what_is_no_store_is_refused_with_what_to_give(store: Any, options: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        ObjectIO(store, **options)


def test_options_belong_to_a_url(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="options are those of a URL"):
        ObjectIO(LocalStore(tmp_path), options={"endpoint": "x"})


@asset(io="objects")
def raw():
    return list(range(1000))


@asset(io="objects")
def total(raw):
    return sum(raw)


def test_an_app_keeps_its_values_in_a_bucket(bucket: Bucket, database_url: str, tmp_path: Path) -> None:
    """Values are there for another process, leftovers of dead attempts go, what may still commit stays."""
    given = Settings(database_url=database_url, storage=str(tmp_path), executor="sync")
    with FlowStone([raw, total], io={"objects": ObjectIO(bucket.store(), prefix="v")}, settings=given) as flow:
        flow.materialize_all("total")
        (step,) = [one.step_id for one in flow.history("total")]
        live = flow.schedule("total", executor="oban", force=True)
        objects = ObjectIO(bucket.store(), prefix="v")
        address = OutputAddress("total", PartitionKey(""), "run", int(step), attempt=7, token=99)
        dead = objects.store(1, address)
        waiting = objects.store(2, address._replace(step_id=int(live.id), attempt=1))
        unknown = objects.store(3, address._replace(step_id=999_999_999))
        assert flow.retention.sweep() == 0  # they are young
        with Database(database_url).dedicated() as connection:
            kept = connection.execute("SELECT output FROM flowstone.steps WHERE output IS NOT NULL").fetchall()
        manager: Any = flow.parts.managers["objects"]
        keep = flow.parts.store.retention.needed_versions
        assert manager.sweep(older_than_seconds=-60, keep=keep) == 1
        assert objects.find([dead, waiting, unknown]) == [False, True, True]
        assert len(keys_of(bucket)) == len(kept) + 2
        flow.cancel_job(live)
    with FlowStone([raw, total], io={"objects": ObjectIO(bucket.store(), prefix="v")}, settings=given) as flow:
        assert flow.load("total") == sum(range(1000))
        assert json.dumps(flow.load("raw")) == json.dumps(list(range(1000)))
