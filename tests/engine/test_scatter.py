from __future__ import annotations

import pickle
import threading
from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest

from flowstone import FlowStone, Gathered, asset, scatter
from flowstone.core.output import OutputAddress
from flowstone.core.scatter import ItemCounts, ItemRow
from flowstone.core.state import State
from flowstone.engine.scatter import PAGE, GatheredIO
from flowstone.errors import MaterializationTimeoutError, ScatterFailedError, SerializationError, StepFailedError
from flowstone.stores.memory import MemoryStore

NUMBER = 10 * PAGE


class CountingStore:
    """Items without end are made when they are asked for; counts the questions."""

    def __init__(self) -> None:
        self.requested: list[int] = []

    def page(self, run_id: str, *, after: int, limit: int, states: Collection[State]) -> list[ItemRow]:
        self.requested.append(after)
        numbers = range(after + 1, min(after + 1 + limit, NUMBER))
        return [ItemRow(number, number, f"(n:|i:{number})", f"{number}", State.COMPLETED) for number in numbers]

    def counts(self, run_id: str) -> ItemCounts:
        return ItemCounts({State.COMPLETED: NUMBER})


def reader(store: Any) -> Gathered:
    return Gathered("scatter-1", store, lambda stored: stored)


def test_it_reads_one_page_ahead_and_no_further() -> None:
    store = CountingStore()
    results = iter(reader(store))
    assert next(results).key == 0
    assert store.requested in ([-1], [-1, PAGE - 1])
    for _ in range(PAGE):
        last = next(results)
    assert last.key == PAGE
    assert len(store.requested) <= 3
    before = threading.active_count()
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() < before


def test_it_reads_everything_as_often_as_requested() -> None:
    results = reader(CountingStore())
    for _ in range(2):
        assert [result.item for result in results] == list(range(NUMBER))
    assert (len(results), results.total, bool(results), repr(results)) == (
        NUMBER,
        NUMBER,
        True,
        "<Gathered: 5,000 of 5,000 items succeeded>",
    )


def test_it_stays_in_its_process() -> None:
    with pytest.raises(TypeError, match="belongs to this process"):
        pickle.dumps(reader(CountingStore()))


def test_its_io_manager_knows_nothing_else() -> None:
    io = GatheredIO(MemoryStore().scatters, lambda stored: stored, shared=False)
    with pytest.raises(SerializationError, match="only knows gathered items"):
        io.store([1], OutputAddress("a", "", "run", 1, 1, 1))


def in_own_process(item: int) -> int:
    return item * item


@scatter(each=asset(isolation="process")(in_own_process))
def apart() -> list[int]:
    return [1, 2, 3]


def test_items_in_processes_of_their_own() -> None:
    with FlowStone.for_testing([apart]) as flow:
        assert [result.value for result in flow.materialize("apart").value] == [1, 4, 9]


def test_a_limit_of_time_holds_while_items_are_discovered() -> None:
    go_on = threading.Event()

    @scatter(each=in_own_process, timeout=timedelta(milliseconds=50))
    def endless() -> Any:
        yield 1
        go_on.wait(30)

    with FlowStone.for_testing([endless]) as flow:
        with pytest.raises(MaterializationTimeoutError):
            flow.materialize("endless")
        go_on.set()
        items, run = flow.runs.latest()
        assert (items.parent, items.state.is_terminal, run.state) == (run.id, True, State.FAILED)


def test_values_of_a_gathered_asset_do_not_go_to_other_processes() -> None:
    @scatter(each=lambda item: item)
    def found() -> list[int]:
        return [1]

    reads = asset(isolation="process")(_reads)
    with FlowStone.for_testing([found, reads]) as flow:
        errors = flow.materialize_all("_reads").errors
    assert "read what is needed in the gathering function" in next(iter(errors.values()))


def _reads(found: Gathered) -> int:
    return len(found)


def test_the_history_of_an_item() -> None:
    @asset
    def divided(item: int) -> float:
        return 1 / item

    @scatter(each=divided, max_failures=1)
    def shares() -> list[int]:
        return [0, 1]

    with FlowStone.for_testing([shares]) as flow:
        flow.materialize("shares")
        flow.materialize("shares", force=True)
        assert [one.value for one in flow.history("shares.item", partition=(None, 1))] == [1.0, 1.0]
        assert "ZeroDivisionError" in flow.why("shares.item", partition=(None, 0))[0]
        assert {one.asset for one in flow.lineage.upstream("shares")} == {"shares"}


def test_every_failure_counts_once_with_retries() -> None:
    @scatter(each=lambda item: 1 / item, max_failures=0)
    def none_may() -> list[int]:
        return [1, 0]

    with FlowStone.for_testing([none_may]) as flow, pytest.raises((ScatterFailedError, StepFailedError)) as raised:
        flow.materialize("none_may")
    assert isinstance(raised.value, ScatterFailedError)
    error = raised.value
    assert (error.total, error.failed, error.cancelled, error.allowed) == (2, 1, 0, 0)
    assert error.first == (("0", "ZeroDivisionError: division by zero"),)
    assert error.asset == "none_may"
