"""Values of isolated steps: their bytes are made and read in the child, and stored by its parent."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.engine.test_isolation import functions

from flowstone import FlowStone, check
from flowstone.core.asset import Asset
from flowstone.core.context import AssetContext
from flowstone.core.outcome import AttemptOutcome, Succeeded
from flowstone.core.output import OutputAddress, StoredOutput
from flowstone.errors import SerializationError, WorkerCrashedError
from flowstone.io import FilesystemIO
from flowstone.protocols import StepCall

ASSETS: list[Asset] = [
    functions.who_made,
    functions.who_read,
    functions.full,
    functions.slow,
    functions.dies,
    functions.once,
    functions.by_day,
    functions.all_days,
]


def flow_of(tmp_path: Path, manager: FilesystemIO | None = None, **parts: Any) -> FlowStone:
    files = FilesystemIO(tmp_path, serializer=functions.WhoSerializer(), durable=False, name="who")
    return FlowStone.for_testing(ASSETS, io={"who": manager or files}, **parts)


def writer_of(text: str, directory: Path) -> int:
    """Return the process that wrote the only value there."""
    (file,) = directory.rglob("*.who")
    writer, found = file.read_bytes()[200_000:].split()
    assert found == text.encode()
    return int(writer)


@pytest.fixture
def flow(tmp_path: Path) -> Iterator[FlowStone]:
    opened = flow_of(tmp_path / "values")
    yield opened
    opened.close()


def test_the_child_writes_and_reads(flow: FlowStone) -> None:
    made = flow.materialize("who_made")
    here = str(os.getpid())
    assert made.stored is not None
    assert made.stored.metadata["pid"] != os.getpid()
    reader, writer, text = made.value.split()  # the caller reads what the child wrote
    assert (reader, writer, text) == (here, str(made.stored.metadata["pid"]), "made")
    function, reader, writer, text = flow.materialize("who_read").value.split()
    assert (reader, writer, text) == (function, str(made.stored.metadata["pid"]), "made")
    assert function != here


def test_the_child_reads_each_partition(flow: FlowStone) -> None:
    flow.backfill("by_day", partitions=["1", "2", "3"])
    function, days = flow.materialize("all_days").value
    assert sorted(days) == ["1", "2", "3"]
    assert {text.split()[0] for text in days.values()} == {str(function)}


def test_storing_is_no_running_time(flow: FlowStone) -> None:
    assert flow.materialize("slow").value.endswith("slow")


def test_without_room_for_temporary_files_the_parent_writes(flow: FlowStone, tmp_path: Path) -> None:
    assert flow.materialize("full").value == "full"
    assert writer_of("full", tmp_path) == os.getpid()


def test_what_is_read_once_is_refused(flow: FlowStone) -> None:
    with pytest.raises(SerializationError, match="'once' returned something that can be read only once"):
        flow.materialize("once")


def test_a_child_that_is_killed_while_it_writes_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    flow = flow_of(tmp_path / "values")
    with pytest.raises(WorkerCrashedError, match="SIGKILL"):
        flow.materialize("dies")
    flow.close()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


class Reads:
    """A hook that reads what it may."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def call(self, context: AssetContext, step: StepCall) -> AttemptOutcome:
        outcome = step(context)
        assert isinstance(outcome, Succeeded)
        self.seen.append((outcome.value, dict(context.inputs)))
        return outcome


def test_hooks_see_inputs_and_value(tmp_path: Path) -> None:
    reads = Reads()
    flow = flow_of(tmp_path, hooks=[reads])
    flow.materialize("who_made")
    flow.materialize("who_read")
    flow.close()
    (made, _), (read, inputs) = reads.seen
    assert made == "made"
    assert read.split()[1:] == inputs["who_made"].split()


def test_checks_see_the_value_that_was_returned(tmp_path: Path) -> None:
    seen: list[object] = []

    @check(functions.who_made)
    def reads(who_made: str) -> bool:
        seen.append(who_made)
        return True

    flow = flow_of(tmp_path, checks=[reads])
    flow.materialize("who_made")
    flow.close()
    assert seen == ["made"]


def test_a_manager_that_does_more_than_its_base_is_asked_itself(tmp_path: Path) -> None:
    stored_by: list[int] = []

    class Counting(FilesystemIO):
        def store(self, value: object, address: OutputAddress) -> StoredOutput:
            stored_by.append(os.getpid())
            return super().store(value, address)

    manager = Counting(tmp_path, serializer=functions.WhoSerializer(), durable=False, name="who")
    flow = flow_of(tmp_path, manager)
    assert flow.materialize("who_made").value == "made"
    flow.close()
    assert writer_of("made", tmp_path) == os.getpid()
    assert stored_by == [os.getpid()]


def test_a_serializer_of_the_main_script_stays_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(functions.WhoSerializer):  # type: ignore[misc,name-defined]
        pass

    Own.__module__, Own.__qualname__ = "__main__", "Own"
    monkeypatch.setattr(sys.modules["__main__"], "Own", Own, raising=False)
    manager = FilesystemIO(tmp_path, serializer=Own(), durable=False, name="who")
    flow = flow_of(tmp_path, manager)
    assert flow.materialize("who_made").value == "made"
    flow.close()
    assert writer_of("made", tmp_path) == os.getpid()
