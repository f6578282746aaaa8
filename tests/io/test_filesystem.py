from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flowstone.core.output import OutputAddress
from flowstone.core.partitions import PartitionKey
from flowstone.core.project import Project
from flowstone.errors import ConfigurationError, SerializationError, StorageError, UnsafePickleError
from flowstone.io import BytesSerializer, FilesystemIO, JsonSerializer, PickleSerializer
from flowstone.io.filesystem import escape, file_name, split_location, unescape, version_of
from flowstone.testing.io_conformance import HOSTILE_PARTITIONS

texts = st.text(st.characters()) | st.text(st.sampled_from("aA.~+%@/\\ con0é\u0301\x00\ud800"), max_size=400)
RESERVED = {"con", "prn", "aux", "nul", "com1", "lpt9"}


@given(texts)
@example("")
@example("con.txt")
@example("." * 121)
@example("a" * 119 + "%" + "." * 5)
def test_reversible(text: str) -> None:
    assert unescape(escape(text)) == text
    assert version_of(file_name(text, ".json")) == text
    assert version_of(file_name(text, "")) == text


@given(texts)
def test_safe_on_every_file_system(text: str) -> None:
    for path in (escape(text), file_name(text, ".json")):
        assert path.isascii()
        assert path == path.lower()
        for segment in path.split("/"):
            assert 0 < len(segment) <= 200
            assert not segment.startswith(".")
            assert not segment.endswith((".", " "))
            assert segment.partition(".")[0] not in RESERVED
            assert not set(segment) & set('<>:"\\|?*')


@given(texts, texts)
def test_distinct_texts_stay_distinct_where_case_and_normal_form_are_lost(first: str, second: str) -> None:
    def folded(text: str) -> str:
        return unicodedata.normalize("NFD", escape(text)).casefold()

    assert (folded(first) == folded(second)) == (first == second)


@given(st.lists(texts, min_size=1, max_size=4))
def test_locations_split_into_what_they_were_joined_from(parts: list[str]) -> None:
    assert split_location("/".join(map(escape, parts))) == [escape(part) for part in parts]


@given(texts, texts)
def test_no_path_lies_inside_another(first: str, second: str) -> None:
    if first != second:
        assert not escape(first).startswith(escape(second) + "/")


def test_hostile_keys() -> None:
    assert len({escape(key).casefold() for key in HOSTILE_PARTITIONS}) == len(HOSTILE_PARTITIONS)


@given(st.text(st.sampled_from("abA.~+%@/0123e")))
@example("%41")
@example("a.")
@example("+%")
@example("..")
@example("%ff")
def test_only_the_chosen_form_is_valid(path: str) -> None:
    try:
        text = unescape(path)
    except ValueError:
        return
    assert escape(text) == path


@pytest.mark.parametrize("name", ["../x", ".tmp", "a/b", "A.json", "a..json", "", "a.json/../b"])
def test_foreign_file_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        version_of(name)


def address(partition: str = "", *, asset: str = "numbers", attempt: int = 1, step: str = "step") -> OutputAddress:
    return OutputAddress(asset, partition, run_id="run", step_id=step, attempt=attempt, token=attempt)


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


class Failing(BytesSerializer):
    """Writes half of the value, then the file system gives up."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def write(self, value: object, file: BinaryIO) -> None:
        file.write(b"half")
        raise self.error


def test_layout(tmp_path: Path) -> None:
    manager = FilesystemIO(tmp_path)
    manager.store([1], address())
    manager.store("text", address("2024-01-01"))
    manager.store(b"", address("a/B", asset="Sales.orders"))
    assert files(tmp_path) == [
        "+sales.orders/a%2f+b/step-1.1.bin",
        "numbers/2024-01-01/step-1.1.txt",
        "numbers/@unpartitioned/step-1.1.json",
    ]


def test_the_root_is_made_with_the_first_value(tmp_path: Path) -> None:
    root = tmp_path / "a b" / "ü"
    manager = FilesystemIO(str(root))
    assert not root.exists()
    manager.store(1, address())
    assert root.exists()


def test_a_relative_root_does_not_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manager = FilesystemIO("values")
    monkeypatch.chdir("/")
    manager.store(1, address())
    assert files(tmp_path) == ["values/numbers/@unpartitioned/step-1.1.json"]


def test_rights_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        stored = FilesystemIO(tmp_path).store(1, address())
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / stored.location).stat().st_mode) == 0o640


@given(st.text(st.characters(), max_size=300), st.text(st.characters(), min_size=1, max_size=20))
def test_any_names(partition: str, asset: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory, "root")
        manager = FilesystemIO(root, durable=False)
        assert manager.load(manager.store([partition], address(partition, asset=asset))) == [partition]
        assert [path.name for path in Path(directory).iterdir()] == ["root"]


@pytest.mark.parametrize(
    "location",
    [
        "../secret.json",
        "/etc/passwd",
        "numbers/../../secret.json",
        "numbers/@unpartitioned/../../../secret.json",
        "numbers/@unpartitioned/.tmp",
        "numbers/./step-1.json",
        "numbers//step-1.json",
        "numbers/@unpartitioned",
        "numbers\\@unpartitioned\\step-1.json",
        "Numbers/@unpartitioned/step-1.json",
        "numbers/@unpartitioned/step-1.json\x00",
        "",
    ],
)
def test_locations_that_were_tampered_with_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.json").write_text("1")
    manager = FilesystemIO(tmp_path / "root")
    stored = replace(manager.store(1, address()), location=location, content_hash=None, size_bytes=None)
    for action in (manager.load, manager.discard):
        with pytest.raises(StorageError) as caught:
            action(stored)
        assert caught.value.kind == "unsafe"
    assert (tmp_path / "secret.json").exists()


def test_symbolic_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    root.mkdir()
    (root / "numbers").symlink_to(outside)
    with pytest.raises(StorageError, match="symbolic link"):
        FilesystemIO(root).store(1, address("p"))
    assert files(outside) == []
    (outside / "link").symlink_to(root)
    manager = FilesystemIO(outside / "link")  # the root itself may be reached by a link
    assert manager.load(manager.store(1, address(asset="other"))) == 1


@pytest.mark.parametrize("part", ["asset", "partition", "file"])
def test_every_part_of_a_location_may_be_a_link_within_the_root_only(tmp_path: Path, part: str) -> None:
    manager = FilesystemIO(tmp_path / "root")
    stored = manager.store(1, address("2024"))
    file = manager.root / stored.location
    place = {"asset": file.parent.parent, "partition": file.parent, "file": file}[part]
    inside = manager.root / "moved"
    place.rename(inside)
    place.symlink_to(inside)
    assert manager.load(stored) == 1
    place.unlink()
    inside.rename(tmp_path / "outside")
    place.symlink_to(tmp_path / "outside")
    for action in (manager.load, manager.discard):
        with pytest.raises(StorageError, match="symbolic link"):
            action(stored)
    assert file.exists(), "nothing outside was deleted"


@pytest.mark.parametrize("change", [b"", b"[1, 2, 4]", b"[1, 2, 3] ", b"[1, 2"])
def test_changed_bytes_are_refused(tmp_path: Path, change: bytes) -> None:
    manager = FilesystemIO(tmp_path)
    stored = manager.store([1, 2, 3], address("2024"))
    (tmp_path / stored.location).write_bytes(change)
    with pytest.raises(StorageError, match="numbers \\[2024\\]") as caught:
        manager.load(stored)
    assert caught.value.kind == "corrupt"


def test_a_form_that_cannot_be_read_is_corrupt(tmp_path: Path) -> None:
    stored = FilesystemIO(tmp_path).store("{", address())
    with pytest.raises(StorageError, match=r"json .* cannot be read"):
        FilesystemIO(tmp_path).load(replace(stored, serializer="json"))


def test_a_missing_file_is_classified(tmp_path: Path) -> None:
    manager = FilesystemIO(tmp_path)
    stored = manager.store(1, address("2024"))
    (tmp_path / stored.location).unlink()
    with pytest.raises(StorageError, match="Materialize the asset again") as caught:
        manager.load(stored)
    assert (caught.value.kind, caught.value.asset, caught.value.partition) == ("missing", "numbers", "2024")
    assert isinstance(caught.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "full"),
        (OSError(errno.EROFS, "Read-only file system"), "read_only"),
        (PermissionError(errno.EACCES, "Permission denied"), "denied"),
        (OSError(errno.EIO, "Input/output error"), "other"),
    ],
)
def test_failures_leave_nothing_and_the_previous_version(tmp_path: Path, error: OSError, kind: str) -> None:
    stored = FilesystemIO(tmp_path).store("good", address())
    with pytest.raises(StorageError) as caught:
        FilesystemIO(tmp_path, serializer=Failing(error)).store(b"", address(attempt=2))
    assert caught.value.kind == kind
    assert caught.value.why
    assert files(tmp_path) == [stored.location]
    assert FilesystemIO(tmp_path).load(stored) == "good"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), ValueError("bug")])
def test_interrupts_leave_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        FilesystemIO(tmp_path, serializer=Failing(error)).store(b"", address())
    assert files(tmp_path) == []


def test_a_refused_value_leaves_nothing_and_names_the_asset(tmp_path: Path) -> None:
    with pytest.raises(SerializationError, match=r"'numbers' \[2024\].*\$\[1\]") as caught:
        FilesystemIO(tmp_path).store([0, object()], address("2024"))
    assert caught.value.path == "$[1]"
    assert files(tmp_path) == []


def run(program: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True, timeout=60
    ).stdout.strip()


PROLOGUE = """
import os, sys
from flowstone.core.output import OutputAddress
from flowstone.errors import StorageError
from flowstone.io import FilesystemIO
address = OutputAddress("numbers", "", "run", "step", 2, 2)
def attempt(value):
    try:
        FilesystemIO(sys.argv[1]).store(value, address)
    except StorageError as error:
        print(error.kind)
"""


def test_a_file_that_may_not_grow_is_full(tmp_path: Path) -> None:
    limit = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); attempt(bytes(1_000_000))"
    )
    assert run(PROLOGUE + limit, str(tmp_path)) == "full"
    assert files(tmp_path) == []


@pytest.fixture
def denied_directory() -> Iterator[Path]:
    """A folder that nobody may write to, below folders that everybody may enter."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = Path(directory, "values")
        path.mkdir(0o555)
        yield path


def test_a_denied_folder_is_denied(denied_directory: Path) -> None:
    as_nobody = "import tempfile\nif os.getuid() == 0: os.setuid(65534)\nattempt(1)"
    assert run(PROLOGUE + as_nobody, str(denied_directory)) == "denied"


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("")
    with pytest.raises(StorageError, match="move it away"):
        FilesystemIO(tmp_path / "root").store(1, address())


def test_a_path_that_is_too_long_says_so(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="shorter") as caught:
        FilesystemIO(tmp_path).store(1, address("ü" * 800))
    assert caught.value.kind == "too_large"
    assert len(str(caught.value)) < 5000
    assert files(tmp_path) == []


def test_a_writer_that_was_killed_leaves_what_sweep_finds(tmp_path: Path) -> None:
    manager = FilesystemIO(tmp_path)
    stored = manager.store("good", address())
    program = (
        PROLOGUE
        + """
from flowstone.io import BytesSerializer
class Hanging(BytesSerializer):
    def write(self, value, file):
        file.write(bytes(10_000_000)); print("half", flush=True); sys.stdin.read()
FilesystemIO(sys.argv[1], serializer=Hanging()).store(b"", address)
"""
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.kill()
    assert manager.load(stored) == "good"
    assert list(manager.leftovers(older_than_seconds=3600)) == []
    (leftover,) = manager.leftovers(older_than_seconds=-1)
    assert manager.sweep(older_than_seconds=3600) == 0
    assert manager.sweep(older_than_seconds=-1) == 1
    assert not leftover.exists()
    assert manager.load(stored) == "good"


def test_sweep_spares_what_is_kept_and_what_is_young(tmp_path: Path) -> None:
    manager = FilesystemIO(tmp_path)
    stored = [manager.store([n], address("p", attempt=n, step="a.b")) for n in (1, 2, 3)]
    (tmp_path / "notes.txt").write_text("not ours")
    requested: list[str] = []

    def keep(versions: object) -> set[str]:
        requested.extend(versions)  # type: ignore[arg-type]
        return {"a.b-2.2"}

    assert manager.sweep(older_than_seconds=3600, keep=keep) == 0
    assert manager.sweep(older_than_seconds=-1, keep=keep) == 2
    assert sorted(requested) == ["a.b-1.1", "a.b-2.2", "a.b-3.3"]
    assert files(tmp_path) == [stored[1].location, "notes.txt"] or files(tmp_path) == [
        "notes.txt",
        stored[1].location,
    ]


def test_what_earlier_versions_stored_is_loaded_and_swept(tmp_path: Path) -> None:
    """Their names had no token."""
    manager = FilesystemIO(tmp_path)
    stored = manager.store([1], address("p"))
    old = replace(stored, location=stored.location.replace("-1.1.json", "-1.json"))
    (tmp_path / stored.location).rename(tmp_path / old.location)
    assert manager.load(old) == [1]
    assert manager.sweep(older_than_seconds=-1, keep={"step-1"}.intersection) == 0
    assert manager.erase("numbers", PartitionKey("p"), ["step-1"]) == 1


def test_sweep_of_a_root_that_is_not_there(tmp_path: Path) -> None:
    assert FilesystemIO(tmp_path / "none").sweep(older_than_seconds=0, keep=lambda versions: ()) == 0


def test_values_stay_readable_after_another_serializer_was_chosen(tmp_path: Path) -> None:
    stored = FilesystemIO(tmp_path).store(b"raw", address())
    assert FilesystemIO(tmp_path, serializer=JsonSerializer()).load(stored) == b"raw"


def test_a_pickle_needs_its_key(tmp_path: Path) -> None:
    signed = FilesystemIO(tmp_path, serializer=PickleSerializer(b"k" * 16))
    stored = signed.store({1}, address())
    assert signed.load(stored) == {1}
    with pytest.raises(UnsafePickleError):
        FilesystemIO(tmp_path).load(stored)
    path = tmp_path / stored.location
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UnsafePickleError):
        signed.load(replace(stored, content_hash=None))


def test_an_unknown_serializer_is_named(tmp_path: Path) -> None:
    stored = FilesystemIO(tmp_path).store(1, address())
    with pytest.raises(ConfigurationError, match="Did you mean 'json'"):
        FilesystemIO(tmp_path).load(replace(stored, serializer="jsn"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        # "" is what a variable that is not set leaves of a directory
        *(({"root": odd}, "give a directory") for odd in (None, "", " ", "a\0b", b"values")),
        ({"root": ".", "serializer": "json"}, "'json' is no serializer"),
        ({"root": ".", "durable": "no"}, "durable='no'"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        FilesystemIO(**options)


def test_an_extension_that_is_a_path_is_refused(tmp_path: Path) -> None:
    class Escaping(BytesSerializer):
        extension = "/../../x"  # type: ignore[assignment]

    with pytest.raises(ConfigurationError, match="extension"):
        FilesystemIO(tmp_path, serializer=Escaping())


def test_catalogs_of_data_know_the_folder_that_is_there(tmp_path: Path) -> None:
    files = FilesystemIO(tmp_path)
    for manager, project in ((files, "default"), (files.in_project(Project("books")), "books")):
        address = OutputAddress("Odd/Name", PartitionKey("2024"), "run", 1, 1, 1, project)
        stored = manager.store(1, address)
        namespace, name = manager.dataset("Odd/Name")
        assert namespace == "file"
        assert (tmp_path / stored.location).is_relative_to(name)
        assert Path(name).is_dir()
